//! What the manifests of a repository refer to, read from the disk past all caches, for what looks at every repository.

use std::collections::{HashMap, HashSet};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use super::marks::{Mark, Marks, mark};
use super::{Registry, Result};
use crate::oci::{Algorithm, Digest, Manifest, Mentions, RepoName, Role};
use crate::storage::{self, Body, Dir, Key};

/// A manifest, as far as it says what has to be kept.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) digest: Digest,
    pub(super) subject: Option<Digest>,
    pub(super) children: Vec<Digest>,
    blobs: Vec<Mark>,
}

impl Found {
    /// What is kept as long as this manifest is. Its subject is not: that is kept for its own sake.
    pub(super) fn mark(&self, marks: &mut Marks) {
        marks.extend([mark(&self.digest)]);
        marks.extend(self.children.iter().map(mark));
        marks.extend(self.blobs.iter().copied());
    }
}

/// Why nobody can say what a manifest refers to.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("its content is not there")]
    Missing,
    #[error("its content is damaged")]
    Damaged,
    #[error("it cannot be understood")]
    Foreign,
    #[error("it cannot be read")]
    Failing,
}

impl Registry {
    /// The names below `revisions/` that are digests, in no order, and whether there is anything else.
    pub(super) async fn revision_names(&self, repo: &RepoName) -> Result<(Vec<Digest>, bool)> {
        self.digests_below(Dir::AllRevisions(repo.clone()), |algorithm| {
            Dir::Revisions(repo.clone(), algorithm)
        })
        .await
    }

    /// The names below `_layers/` that are digests, in no order, and whether there is anything else.
    pub(super) async fn layer_names(&self, repo: &RepoName) -> Result<(Vec<Digest>, bool)> {
        self.digests_below(Dir::AllLayers(repo.clone()), |algorithm| {
            Dir::Layers(repo.clone(), algorithm)
        })
        .await
    }

    async fn digests_below(
        &self,
        all: Dir,
        of: impl Fn(Algorithm) -> Dir,
    ) -> Result<(Vec<Digest>, bool)> {
        let (mut digests, mut strange) = (Vec::new(), false);
        for name in self.store().list(&all, None, usize::MAX).await? {
            let Ok(algorithm) = name.parse::<Algorithm>() else {
                strange = true;
                continue;
            };
            let names = self.store().list(&of(algorithm), None, usize::MAX).await?;
            for name in names {
                match Digest::from_parts(algorithm, &name) {
                    Ok(digest) => digests.push(digest),
                    Err(_) => strange = true,
                }
            }
        }
        Ok((digests, strange))
    }

    /// What a manifest refers to.
    pub(super) async fn look_into(
        &self,
        repo: &RepoName,
        digest: &Digest,
    ) -> Result<Found, Unreadable> {
        let bytes = self.past_the_cache(digest).await?;
        let manifest = Manifest::parse(bytes, None).map_err(|_| Unreadable::Foreign)?;
        let mut found = Found {
            digest: *digest,
            subject: manifest.subject().copied(),
            children: Vec::new(),
            blobs: Vec::new(),
        };
        for (descriptor, role) in manifest.references() {
            match role {
                Role::Subject => {}
                Role::Child if !self.is_blob(repo, &descriptor.digest).await? => {
                    found.children.push(descriptor.digest);
                }
                Role::Child | Role::Config | Role::Layer | Role::ForeignLayer => {
                    found.blobs.push(mark(&descriptor.digest));
                    let alias = self.alias(repo, &descriptor.digest).await;
                    found.blobs.extend(alias.iter().map(mark));
                }
            }
        }
        Ok(found)
    }

    /// The same of a manifest that cannot be understood, of an old format or with odd fields, as it may have been pushed to another
    /// registry: all that it mentions is kept.
    pub(super) async fn look_for_mentions(
        &self,
        repo: &RepoName,
        digest: &Digest,
    ) -> Result<Found, Unreadable> {
        let bytes = self.past_the_cache(digest).await?;
        let mentions = Mentions::of(&bytes);
        let mut found = Found {
            digest: *digest,
            subject: mentions.subject,
            children: Vec::new(),
            blobs: Vec::new(),
        };
        for mentioned in mentions.digests {
            if mentioned == *digest || mentions.subject == Some(mentioned) {
                continue;
            }
            if self.is_blob(repo, &mentioned).await? {
                found.blobs.push(mark(&mentioned));
                let alias = self.alias(repo, &mentioned).await;
                found.blobs.extend(alias.iter().map(mark));
            } else {
                found.children.push(mentioned);
            }
        }
        Ok(found)
    }

    /// Whether what an index lists is a blob, and no manifest, of the repository: the layers of a build cache.
    async fn is_blob(&self, repo: &RepoName, digest: &Digest) -> Result<bool, Unreadable> {
        let is_here = async |key: Key| match self.store().stat(&key).await {
            Ok(_) => Ok(true),
            Err(e) if e.is_not_found() => Ok(false),
            Err(e) => {
                log::warn!("the link to {digest} in {repo} cannot be read: {e}");
                Err(Unreadable::Failing)
            }
        };
        Ok(!is_here(Key::Revision(repo.clone(), *digest)).await?
            && is_here(Key::Layer(repo.clone(), *digest)).await?)
    }

    /// The blobs that a manifest needs, and what an index lists: manifests, and the layers of a build cache. None if it cannot be
    /// read.
    pub(super) async fn references_of(
        &self,
        repo: &RepoName,
        digest: &Digest,
    ) -> (Vec<Digest>, Vec<Digest>) {
        let (mut blobs, mut listed) = (Vec::new(), Vec::new());
        let bytes = self.past_the_cache(digest).await;
        let Some(manifest) = bytes
            .ok()
            .and_then(|bytes| Manifest::parse(bytes, None).ok())
        else {
            return (blobs, listed);
        };
        for (descriptor, role) in manifest.references() {
            match role {
                Role::Subject => {}
                Role::Child => listed.push(descriptor.digest),
                Role::Config | Role::Layer | Role::ForeignLayer => {
                    blobs.push(descriptor.digest);
                    blobs.extend(self.alias(repo, &descriptor.digest).await);
                }
            }
        }
        (blobs, listed)
    }

    /// Where the content of a blob lies, if distribution put it under another digest than the one it is linked by: it
    /// keeps everything under sha256.
    pub(super) async fn alias(&self, repo: &RepoName, digest: &Digest) -> Option<Digest> {
        if digest.algorithm() == Algorithm::Sha256 {
            return None;
        }
        let link = self.read_link(&Key::Layer(repo.clone(), *digest)).await;
        link.ok()??
    }

    async fn past_the_cache(&self, digest: &Digest) -> Result<Bytes, Unreadable> {
        let failed = |error: storage::Error| {
            if error.is_not_found() {
                Unreadable::Missing
            } else {
                log::warn!("the manifest {digest} cannot be read: {error}");
                Unreadable::Failing
            }
        };
        let limit = self.manifest_limit().max(4 << 20);
        let object = self.store().read(&Key::Blob(*digest), None).await;
        let bytes = match object.map_err(failed)?.body {
            Body::Bytes(bytes) => bytes,
            Body::Stream(mut stream) => {
                let mut bytes = BytesMut::new();
                while let Some(block) = stream.next().await {
                    bytes.extend_from_slice(&block.map_err(failed)?);
                    if bytes.len() > limit {
                        return Err(Unreadable::Foreign);
                    }
                }
                bytes.freeze()
            }
        };
        // Not remembered if it is good: that is for what is served.
        if self.0.verified.is_good(digest) || digest.algorithm().digest(&bytes) == *digest {
            Ok(bytes)
        } else {
            self.0.verified.set_damaged(digest);
            Err(Unreadable::Damaged)
        }
    }
}

/// The manifests that nobody would miss: no tag leads to them, not through an index, and not to or from a manifest that
/// they are about. Those that keep others come first: an index before its children, a subject before its referrers.
pub(super) fn unreached(found: &HashMap<Digest, Found>, tagged: &HashSet<Digest>) -> Vec<Digest> {
    let mut about: HashMap<Digest, Vec<Digest>> = HashMap::new();
    for f in found.values() {
        if let Some(subject) = f.subject {
            about.entry(subject).or_default().push(f.digest);
        }
    }
    let mut reached: HashSet<Digest> = HashSet::new();
    let mut todo: Vec<Digest> = tagged.iter().copied().collect();
    while let Some(digest) = todo.pop() {
        if !reached.insert(digest) {
            continue;
        }
        todo.extend(about.get(&digest).into_iter().flatten());
        if let Some(f) = found.get(&digest) {
            todo.extend(f.children.iter().chain(&f.subject));
        }
    }
    let dead: Vec<&Found> = found
        .values()
        .filter(|f| !reached.contains(&f.digest))
        .collect();
    // How many of the dead keep each of them; nothing can keep itself, since a digest cannot be within its own content.
    let mut keepers: HashMap<Digest, usize> = dead.iter().map(|f| (f.digest, 0)).collect();
    let kept_by = |f: &Found| -> Vec<Digest> {
        let about = about.get(&f.digest).into_iter().flatten();
        let kept: HashSet<Digest> = f.children.iter().chain(about).copied().collect();
        kept.into_iter().collect()
    };
    for f in &dead {
        for kept in kept_by(f) {
            keepers.entry(kept).and_modify(|n| *n += 1);
        }
    }
    let mut free: Vec<Digest> = keepers
        .iter()
        .filter(|(_, n)| **n == 0)
        .map(|(digest, _)| *digest)
        .collect();
    let mut ordered = Vec::with_capacity(dead.len());
    while let Some(digest) = free.pop() {
        ordered.push(digest);
        for kept in found.get(&digest).map(kept_by).unwrap_or_default() {
            if let Some(n) = keepers.get_mut(&kept) {
                *n -= 1;
                if *n == 0 {
                    free.push(kept);
                }
            }
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(name: &str) -> Digest {
        Algorithm::Sha256.digest(name.as_bytes())
    }

    fn found(name: &str, children: &[&str], subject: Option<&str>) -> Found {
        Found {
            digest: digest(name),
            subject: subject.map(digest),
            children: children.iter().map(|name| digest(name)).collect(),
            blobs: Vec::new(),
        }
    }

    #[test]
    fn tags_reach_through_indexes_and_subjects() {
        let all: HashMap<Digest, Found> = [
            found("index", &["arm", "amd"], None),
            found("arm", &[], None),
            found("amd", &[], None),
            found("signature", &[], Some("arm")),
            found("signature of the signature", &[], Some("signature")),
            found("old", &["old arm"], None),
            found("old arm", &[], None),
            found("old signature", &[], Some("old arm")),
            found("image", &[], None),
            found("tagged sbom", &[], Some("image")),
            found("orphan", &[], Some("nobody")),
        ]
        .map(|f| (f.digest, f))
        .into();
        let tagged = [digest("index"), digest("tagged sbom")].into();
        let dead = unreached(&all, &tagged);
        let at = |name: &str| dead.iter().position(|d| *d == digest(name));
        assert_eq!(dead.len(), 4);
        assert!(at("old") < at("old arm") && at("old arm") < at("old signature"));
        assert!(at("orphan").is_some() && at("old").is_some());
        let all_of_them = unreached(&all, &HashSet::new());
        assert_eq!(all_of_them.len(), all.len());
    }
}
