//! Manifests and tags that come from the upstream.

use super::Mirror;
use super::flight::Failure;
use crate::oci::{Algorithm, Digest, Manifest, Reference, RepoName, Role, Tag};
use crate::registry::manifests::StoredManifest;
use crate::registry::{Error, Registry, Result};
use crate::storage::Filled;
use crate::upstream;

/// A manifest for a client.
pub(crate) struct Pulled {
    pub(crate) manifest: StoredManifest,
    /// Whether the upstream could not say if this is still what the tag points to.
    pub(crate) is_stale: bool,
}

impl Registry {
    /// A manifest by tag or digest, from the upstream if need be. Beside what `manifest` says: `UpstreamFailed`,
    /// `UpstreamTimeout`, `UpstreamLimited`; with `is_head` these are `ManifestUnknown`.
    pub(crate) async fn pull_manifest(
        &self,
        repo: &RepoName,
        reference: &Reference,
        is_head: bool,
    ) -> Result<Pulled> {
        let pulled = match (self.mirror(), reference) {
            (None, _) => self.manifest(repo, reference).await.map(current),
            (Some(mirror), Reference::Digest(digest)) => {
                self.pull_revision(mirror, repo, digest).await.map(current)
            }
            (Some(mirror), Reference::Tag(tag)) => self.pull_tag(mirror, repo, tag).await,
        };
        match pulled {
            Err(error) if is_head && error.is_upstreams() => Err(Error::ManifestUnknown),
            other => other,
        }
    }

    async fn pull_revision(
        &self,
        mirror: &Mirror,
        repo: &RepoName,
        digest: &Digest,
    ) -> Result<StoredManifest> {
        mirror.note_use(repo, Filled::Manifest(*digest));
        let reference = Reference::Digest(*digest);
        match self.manifest(repo, &reference).await {
            Err(Error::ManifestUnknown) => {}
            other => return other,
        }
        self.fetch_revision(mirror, repo, digest)
            .await
            .map_err(|failure| failure.into_error(Error::ManifestUnknown))?;
        self.manifest(repo, &reference).await
    }

    /// Fetches a manifest by its digest, once for all who ask.
    pub(super) async fn fetch_revision(
        &self,
        mirror: &Mirror,
        repo: &RepoName,
        digest: &Digest,
    ) -> Result<(), Failure> {
        let (this, at, repo, digest) =
            (self.clone(), mirror.upstream.clone(), repo.clone(), *digest);
        let key = (repo.clone(), digest);
        let work = |landing| async move {
            let _landing = landing;
            let limit = this.manifest_limit();
            let reference = Reference::Digest(digest);
            let sent = at.manifest(&repo, &reference, limit).await?;
            this.keep_manifest(&repo, None, digest, sent).await?;
            Ok(())
        };
        mirror.manifests.join(key, work).await
    }

    async fn pull_tag(&self, mirror: &Mirror, repo: &RepoName, tag: &Tag) -> Result<Pulled> {
        let here = match self.resolve(repo, tag).await? {
            Some(digest) if self.has_revision(repo, &digest).await? => Some(digest),
            _ => None, // half-made, or not there
        };
        if let Some(digest) = here
            && !self.is_upstreams(repo, tag, &digest).await?
        {
            return self
                .manifest(repo, &Reference::Tag(tag.clone()))
                .await
                .map(current);
        }
        mirror.note_use(repo, Filled::Tag(tag.clone()));
        let away = here.and(mirror.upstream.away());
        let found = match (here, away) {
            (Some(digest), _) if mirror.is_fresh(repo, tag, &digest) => Ok(digest),
            (_, Some(why)) => Err(why.into()),
            _ => self.ask_for_tag(mirror, repo, tag, here).await,
        };
        match (found, here) {
            (Ok(digest), _) => self.pull_revision(mirror, repo, &digest).await.map(current),
            (Err(failure), Some(digest)) => {
                log::info!("{repo}:{tag} is served as it was fetched before: {failure}");
                let manifest = self.pull_revision(mirror, repo, &digest).await?;
                Ok(Pulled {
                    manifest,
                    is_stale: true,
                })
            }
            (Err(failure), None) => Err(failure.into_error(Error::ManifestUnknown)),
        }
    }

    /// What the upstream says that a tag points to, and with it the manifest, once for all who ask.
    async fn ask_for_tag(
        &self,
        mirror: &Mirror,
        repo: &RepoName,
        tag: &Tag,
        here: Option<Digest>,
    ) -> Result<Digest, Failure> {
        let (this, at, repo, tag) = (
            self.clone(),
            mirror.upstream.clone(),
            repo.clone(),
            tag.clone(),
        );
        let key = (repo.clone(), tag.clone());
        let work = |landing| async move {
            let _landing = landing;
            let digest = this.refresh_tag(&at, &repo, &tag, here).await?;
            if let Some(mirror) = this.mirror() {
                mirror.set_fresh(&repo, &tag, &digest);
            }
            Ok(digest)
        };
        mirror.tags.join(key, work).await
    }

    async fn refresh_tag(
        &self,
        upstream: &upstream::Upstream,
        repo: &RepoName,
        tag: &Tag,
        here: Option<Digest>,
    ) -> Result<Digest, Failure> {
        // HEAD first where something is here: Docker Hub counts GETs of manifests against its limit.
        let told = match here {
            Some(digest) => upstream.resolve(repo, tag, &digest).await?,
            None => None,
        };
        if let Some(digest) = told.filter(|told| here == Some(*told)) {
            return Ok(digest);
        }
        let limit = self.manifest_limit();
        let (reference, expected) = match told {
            Some(digest) => {
                let reference = Reference::Digest(digest);
                if let Ok(stored) = self.manifest(repo, &reference).await {
                    let manifest = Manifest::parse(stored.bytes, None).map_err(Error::from)?;
                    return self.keep(repo, Some(tag), digest, manifest).await;
                }
                (reference, Some(digest))
            }
            None => (Reference::Tag(tag.clone()), None),
        };
        let sent = upstream.manifest(repo, &reference, limit).await?;
        let digest = expected.unwrap_or_else(|| Algorithm::Sha256.digest(&sent.bytes));
        self.keep_manifest(repo, Some(tag), digest, sent).await
    }

    async fn keep_manifest(
        &self,
        repo: &RepoName,
        tag: Option<&Tag>,
        digest: Digest,
        sent: upstream::Manifest,
    ) -> Result<Digest, Failure> {
        let manifest =
            Manifest::parse(sent.bytes, sent.content_type.as_deref()).map_err(|why| {
                log::warn!("the upstream's manifest {digest} of {repo} is refused: {why}");
                upstream::Error::Malformed("a manifest that is none")
            })?;
        self.keep(repo, tag, digest, manifest).await
    }

    /// Stores what was fetched as a push would, and says what the tag points to now: a push that came between goes first.
    async fn keep(
        &self,
        repo: &RepoName,
        tag: Option<&Tag>,
        digest: Digest,
        manifest: Manifest,
    ) -> Result<Digest, Failure> {
        let _digest = self.0.locks.digest(&digest).await;
        let guard = self.0.locks.own(repo).await;
        if !self.has_revision(repo, &digest).await? {
            self.mark(repo, Filled::Manifest(digest), &[]).await?;
        }
        self.store_manifest(&guard, repo, &digest, &manifest)
            .await?;
        let Some(tag) = tag else { return Ok(digest) };
        let before = self.resolve(repo, tag).await?;
        if let Some(before) = before
            && !self.is_upstreams(repo, tag, &before).await?
        {
            return Ok(before);
        }
        // Both: whenever this is cut short, the tag stays the upstream's.
        let digests: Vec<Digest> = [Some(digest), before].into_iter().flatten().collect();
        self.mark(repo, Filled::Tag(tag.clone()), &digests).await?;
        self.set_tag(&guard, repo, tag, &digest).await?;
        if before.is_some_and(|before| before != digest) {
            log::info!("{repo}:{tag} is {digest} now, the upstream says");
        }
        Ok(digest)
    }

    /// Fetches what a pushed manifest refers to and the repository does not have: the client may have been told by HEAD that
    /// it need not push it. What cannot be had is missed by the push itself.
    pub(in crate::registry) async fn fetch_references(&self, repo: &RepoName, manifest: &Manifest) {
        let Some(mirror) = self.mirror() else { return };
        if mirror.upstream.away().is_some() {
            return;
        }
        let missing = manifest
            .references()
            .map(|(what, role)| (what.digest, role));
        for (digest, role) in missing.collect::<Vec<_>>() {
            match role {
                Role::Subject | Role::ForeignLayer => {}
                Role::Child => {
                    mirror.note_use(repo, Filled::Manifest(digest));
                    if !self.has_revision(repo, &digest).await.unwrap_or(true) {
                        let _ = self.fetch_revision(mirror, repo, &digest).await;
                    }
                }
                _ => {
                    mirror.note_use(repo, Filled::Blob(digest));
                    if self.stat_blob(repo, &digest).await.is_err() {
                        let _ = self.fetch_whole_blob(mirror, repo, &digest).await;
                    }
                }
            }
        }
    }
}

fn current(manifest: StoredManifest) -> Pulled {
    Pulled {
        manifest,
        is_stale: false,
    }
}
