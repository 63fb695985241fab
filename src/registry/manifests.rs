//! Manifests: what a repository's tags and digests name.

use std::collections::HashMap;

use bytes::Bytes;

use super::locks::RepoGuard;
use super::quota::Item;
use super::{Error, Registry, Result, to_the_end};
use crate::oci::{Algorithm, Digest, Manifest, MediaType, Reference, RepoName, Tag};
use crate::storage::{Durability, Filled, Key};

/// A manifest as it is served.
#[derive(Clone, Debug)]
pub(crate) struct StoredManifest {
    pub(crate) digest: Digest,
    pub(crate) media_type: MediaType,
    pub(crate) bytes: Bytes,
}

/// What became of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Put {
    pub(crate) digest: Digest,
    pub(crate) media_type: MediaType,
    pub(crate) subject: Option<Digest>,
    /// The tags that point to it now, as asked for.
    pub(crate) tags: Vec<Tag>,
}

/// What went with a manifest that was deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deleted {
    pub(crate) tags: Vec<Tag>,
    /// Manifests that were about it, or about one that was.
    pub(crate) referrers: Vec<Digest>,
}

/// What a tag has to point to for a change to be accepted (RFC 9110, section 13.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) if_match: Option<IfMatch>,
    /// Nothing.
    pub(crate) if_none_match: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IfMatch {
    /// `*`: any manifest at all.
    Any,
    /// None of them could be stored here if there are none.
    OneOf(Vec<Digest>),
}

impl Condition {
    /// Whether it holds where `current` is what is there. `PreconditionFailed`.
    pub(crate) fn check(&self, current: Option<&Digest>) -> Result<()> {
        let matches = match (&self.if_match, current) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(IfMatch::Any), Some(_)) => true,
            (Some(IfMatch::OneOf(wanted)), Some(current)) => wanted.contains(current),
        };
        if matches && !(self.if_none_match && current.is_some()) {
            Ok(())
        } else {
            Err(Error::PreconditionFailed)
        }
    }
}

impl Registry {
    /// The most bytes that a manifest may have.
    pub(crate) fn manifest_limit(&self) -> usize {
        usize::try_from(self.settings().manifests.max_size).unwrap_or(usize::MAX)
    }

    /// A manifest by tag or digest. `ManifestUnknown`, also for damaged content; `ManifestInvalid` for what was stored long ago in a
    /// format that is no longer served.
    pub(crate) async fn manifest(
        &self,
        repo: &RepoName,
        reference: &Reference,
    ) -> Result<StoredManifest> {
        let digest = match reference {
            Reference::Digest(digest) => *digest,
            Reference::Tag(tag) => self
                .resolve(repo, tag)
                .await?
                .ok_or(Error::ManifestUnknown)?,
        };
        if !self.vouched_revision(repo, &digest).await? {
            return Err(Error::ManifestUnknown);
        }
        self.read_manifest(repo, &digest).await
    }

    /// A manifest by digest, for the registry's own use: nobody is told that it is there.
    pub(super) async fn read_manifest(
        &self,
        repo: &RepoName,
        digest: &Digest,
    ) -> Result<StoredManifest> {
        if !self.has_revision(repo, digest).await? || self.0.verified.is_damaged(digest) {
            return Err(Error::ManifestUnknown);
        }
        let bytes = self.manifest_bytes(digest).await?;
        let media_type = Manifest::sniff(&bytes)?;
        Ok(StoredManifest {
            digest: *digest,
            media_type,
            bytes,
        })
    }

    /// Stores a manifest, byte for byte, under `reference` and, if that is a digest, under `tags` too. Durable when it
    /// returns.
    ///
    /// Order of the writes: content, revision, referrer, and for each tag the note of what it pointed to and `current`.
    pub(crate) async fn put_manifest(
        &self,
        repo: &RepoName,
        reference: &Reference,
        tags: &[Tag],
        bytes: Bytes,
        content_type: Option<&str>,
        condition: Condition,
    ) -> Result<Put> {
        self.writable()?;
        if bytes.len() > self.manifest_limit() {
            return Err(Error::ManifestTooLarge {
                limit: self.manifest_limit(),
            });
        }
        let (digest, tags) = match reference {
            Reference::Tag(tag) => (Algorithm::Sha256.digest(&bytes), vec![tag.clone()]),
            Reference::Digest(expected) => match expected.algorithm().digest(&bytes) {
                actual if actual == *expected => (actual, tags.to_vec()),
                actual => return Err(Error::mismatch(expected, actual)),
            },
        };
        let manifest = Manifest::parse(bytes, content_type)?;
        manifest.check_embedded()?;
        self.check_urls(&manifest)?;
        let (this, repo, reference) = (self.clone(), repo.clone(), reference.clone());
        to_the_end(async move {
            this.fetch_references(&repo, &manifest).await;
            let mut sound = HashMap::new();
            let (_digest, guard) = loop {
                let digest_guard = this.0.locks.digest(&digest).await;
                let guard = this.0.locks.own(&repo).await;
                this.check_condition(&repo, &reference, &condition).await?;
                for tag in &tags {
                    this.movable(&repo, tag, &digest).await?;
                }
                match this.check_references(&repo, &manifest, &sound).await? {
                    None => break (digest_guard, guard),
                    Some(doubtful) => {
                        // That reads all of it, for which nobody else should wait.
                        drop((guard, digest_guard));
                        sound.insert(doubtful, this.is_sound(&doubtful).await?);
                    }
                }
            };
            let item = Item::Manifest(digest);
            let is_new = this.charge(&repo, item, manifest.bytes().len() as u64)?;
            let stored = async {
                this.unmark(&repo, Filled::Manifest(digest)).await?;
                this.store_vouched(&guard, &repo, &digest, &manifest).await
            };
            if let Err(e) = stored.await {
                this.uncharge_failed(&repo, item, is_new).await;
                return Err(e);
            }
            for tag in &tags {
                this.set_tag(&guard, &repo, tag, &digest).await?;
                this.unmark(&repo, Filled::Tag(tag.clone())).await?;
            }
            Ok(Put {
                digest,
                media_type: manifest.media_type(),
                subject: manifest.subject().copied(),
                tags,
            })
        })
        .await
    }

    /// Removes a manifest, the tags that point to it, and the untagged manifests that are about it (a referrer lives as
    /// long as its subject or a tag of its own). `ManifestUnknown`, `TagImmutable`. Durable when it returns.
    ///
    /// Order of the writes: the notes that an undo needs; tags, so that none is ever left that points to nothing; then
    /// referrers, then the manifest.
    pub(crate) async fn delete_manifest(
        &self,
        repo: &RepoName,
        digest: &Digest,
    ) -> Result<Deleted> {
        self.deletable()?;
        let (this, repo, digest) = (self.clone(), repo.clone(), *digest);
        this.scan(&repo).await?;
        to_the_end(async move {
            let guard = this.0.locks.own(&repo).await;
            if !this.has_revision(&repo, &digest).await? {
                return Err(Error::ManifestUnknown);
            }
            let mut doomed = vec![digest];
            let mut next = 0;
            while let Some(subject) = doomed.get(next).copied() {
                next += 1;
                let referrers = this.untagged_referrers(&guard, &repo, &subject).await?;
                doomed.extend(
                    referrers
                        .into_iter()
                        .filter(|referrer| !doomed.contains(referrer))
                        .collect::<Vec<_>>(),
                );
            }
            let list = this.tag_list(&repo).await?;
            let of_it = list.iter().filter(|(_, target)| **target == digest);
            let tags: Vec<Tag> = of_it.map(|(tag, _)| tag.clone()).collect();
            if let Some(tag) = tags.iter().find(|tag| this.is_immutable(&repo, tag)) {
                return Err(Error::TagImmutable(tag.clone()));
            }
            this.note_deleted(&guard, &repo, &doomed, &tags).await?;
            for tag in &tags {
                this.remove_tag(&guard, &repo, tag).await?;
            }
            // Who is stopped half-way can begin again: the manifest asked for goes last.
            for digest in doomed.iter().rev() {
                this.remove_revision(&guard, &repo, digest).await?;
            }
            this.0.deleted.notify_one();
            doomed.remove(0);
            Ok(Deleted {
                tags,
                referrers: doomed,
            })
        })
        .await
    }

    /// What a tag points to. A damaged link is one to nothing.
    pub(super) async fn resolve(&self, repo: &RepoName, tag: &Tag) -> Result<Option<Digest>> {
        let link = self.read_link(&Key::Tag(repo.clone(), tag.clone())).await?;
        if link == Some(None) {
            log::warn!("the link of tag {tag} in {repo} is damaged; push the tag again to mend it");
        }
        Ok(link.flatten())
    }

    /// Whether a repository has a manifest. The path says which; what the link says does not matter.
    pub(super) async fn has_revision(&self, repo: &RepoName, digest: &Digest) -> Result<bool> {
        Ok(self
            .read_link(&Key::Revision(repo.clone(), *digest))
            .await?
            .is_some())
    }

    /// The same, for somebody who is told that it is there, and will count on it.
    pub(super) async fn vouched_revision(&self, repo: &RepoName, digest: &Digest) -> Result<bool> {
        if !self.has_revision(repo, digest).await? {
            return Ok(false);
        }
        self.0.pins.vouch(digest).await;
        // Once more: it may have been swept before somebody vouched for it.
        self.has_revision(repo, digest).await
    }

    async fn check_condition(
        &self,
        repo: &RepoName,
        reference: &Reference,
        condition: &Condition,
    ) -> Result<()> {
        if condition.if_match.is_none() && !condition.if_none_match {
            return Ok(());
        }
        let current = match reference {
            Reference::Tag(tag) => self.resolve(repo, tag).await?,
            Reference::Digest(digest) => self.has_revision(repo, digest).await?.then_some(*digest),
        };
        condition.check(current.as_ref())
    }

    pub(super) async fn store_manifest(
        &self,
        guard: &RepoGuard,
        repo: &RepoName,
        digest: &Digest,
        manifest: &Manifest,
    ) -> Result<()> {
        self.vouch_for_references(repo, manifest).await;
        self.store_vouched(guard, repo, digest, manifest).await
    }

    /// The same for a manifest whose references are vouched for already.
    async fn store_vouched(
        &self,
        _guard: &RepoGuard,
        repo: &RepoName,
        digest: &Digest,
        manifest: &Manifest,
    ) -> Result<()> {
        self.0.pins.vouch(digest).await;
        self.charge_unasked(repo, Item::Manifest(*digest), manifest.bytes().len() as u64);
        let content = Key::Blob(*digest);
        let stored = self.store().stat(&content).await;
        let there = stored.is_ok_and(|meta| meta.len == manifest.bytes().len() as u64);
        if !there || !self.0.verified.is_good(digest) {
            self.store()
                .put(&content, manifest.bytes().clone(), Durability::Durable)
                .await?;
            self.0.verified.set_good(digest);
        }
        // Before the revision: an entry without one shows nothing, a revision without its entry would be passed over.
        if let Some(subject) = manifest.subject() {
            self.add_referrer(repo, subject, digest).await?;
        }
        let is_new = !self.has_revision(repo, digest).await?;
        self.link(&Key::Revision(repo.clone(), *digest), digest)
            .await?;
        if is_new {
            self.0.tags.forget_partial(repo); // a tag may have waited for it
        }
        self.0.pushed.note(repo, digest);
        self.0.catalog.add(repo);
        Ok(())
    }

    pub(super) async fn remove_revision(
        &self,
        _guard: &RepoGuard,
        repo: &RepoName,
        digest: &Digest,
    ) -> Result<()> {
        // Where it cannot be read, the entry stays, and shows nothing.
        let subject = self.subject(digest).await;
        self.store()
            .delete(&Key::Revision(repo.clone(), *digest), Durability::Durable)
            .await?;
        self.uncharge(repo, Item::Manifest(*digest));
        match subject {
            Some(subject) => self.remove_referrer(repo, &subject, digest).await,
            None => Ok(()),
        }
    }
}
