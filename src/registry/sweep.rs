//! How things are removed that nobody refers to. Each takes the locks of what it removes, and asks the pins, so that it
//! can meet any request at any moment; none holds them for longer than one removal.

use std::time::Duration;

use super::pins::Condemned;
use super::quota::Item;
use super::{Registry, Result, to_the_end};
use crate::oci::{Digest, RepoName};
use crate::storage::{self, Dir, Durability, Key};

/// What removing is allowed to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    /// Nothing is removed; the outcome is what it would be.
    pub(super) dry_run: bool,
    /// No process serves the tree, so nobody was told of anything: then the age of the files has to do.
    pub(super) alone: bool,
    /// Another than `gc.grace`.
    pub(super) grace: Option<Duration>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Swept {
    /// It held this many bytes.
    Removed(u64),
    /// A folder without content, which an older process left.
    Debris,
    /// Somebody may be about to count on it; this many bytes.
    Young(u64),
}

impl Registry {
    /// Removes the content of a digest that no manifest refers to.
    pub(super) async fn sweep_blob(&self, digest: Digest, rules: Rules) -> Result<Swept> {
        self.sweep_folder(digest, Key::Blob(digest), Dir::Blob(digest), rules)
            .await
    }

    /// Removes a repository's link to a blob that none of its manifests refers to. The caller makes that durable, with
    /// one flush for all the links of a repository, before the content may go (I1).
    pub(super) async fn sweep_layer(
        &self,
        repo: RepoName,
        digest: Digest,
        rules: Rules,
    ) -> Result<Swept> {
        let folder = Dir::Layer(repo.clone(), digest);
        self.sweep_folder(digest, Key::Layer(repo, digest), folder, rules)
            .await
    }

    /// Removes `folder` with what is stored in it as `key`.
    async fn sweep_folder(
        &self,
        digest: Digest,
        key: Key,
        folder: Dir,
        rules: Rules,
    ) -> Result<Swept> {
        let this = self.clone();
        to_the_end(async move {
            let _digest = this.0.locks.digest(&digest).await;
            let meta = this.known(&key).await?;
            let Some(_condemned) = this.condemn(&digest, meta, rules) else {
                return Ok(Swept::Young(meta.map_or(0, |meta| meta.len)));
            };
            if !rules.dry_run {
                // What a power cut brings back goes with the next collection.
                this.store().remove(&folder, Durability::Lazy).await?;
                match key {
                    Key::Blob(_) => this.0.verified.forget(&digest),
                    Key::Layer(repo, digest) => this.uncharge(&repo, Item::Blob(digest)),
                    _ => {}
                }
            }
            Ok(meta.map_or(Swept::Debris, |meta| Swept::Removed(meta.len)))
        })
        .await
    }

    /// What `sweep_blob` says of content that has to stay.
    pub(super) async fn young_blob(&self, digest: &Digest) -> Result<Swept> {
        let meta = self.known(&Key::Blob(*digest)).await?;
        Ok(Swept::Young(meta.map_or(0, |meta| meta.len)))
    }

    /// Removes a manifest from a repository, unless a tag points to it by now.
    pub(super) async fn sweep_revision(
        &self,
        repo: RepoName,
        digest: Digest,
        rules: Rules,
    ) -> Result<Swept> {
        let this = self.clone();
        to_the_end(async move {
            let _digest = this.0.locks.digest(&digest).await;
            let guard = this.0.locks.own(&repo).await;
            if this.tag_list(&repo).await?.values().any(|d| *d == digest) {
                return Ok(Swept::Young(0));
            }
            let meta = this.known(&Key::Revision(repo.clone(), digest)).await?;
            let Some(_condemned) = this.condemn(&digest, meta, rules) else {
                return Ok(Swept::Young(0));
            };
            if !rules.dry_run {
                this.remove_revision(&guard, &repo, &digest).await?;
                let folder = Dir::Revision(repo, digest);
                this.store().remove(&folder, Durability::Lazy).await?;
            }
            Ok(meta.map_or(Swept::Debris, |meta| Swept::Removed(meta.len)))
        })
        .await
    }

    /// Removes the folder that a deleted manifest left behind, if it is still one without a link.
    pub(super) async fn sweep_revision_folder(
        &self,
        repo: RepoName,
        digest: Digest,
        rules: Rules,
    ) -> Result<bool> {
        let this = self.clone();
        to_the_end(async move {
            let _repo = this.0.locks.own(&repo).await;
            let meta = this.known(&Key::Revision(repo.clone(), digest)).await?;
            if meta.is_none() && !rules.dry_run {
                let folder = Dir::Revision(repo, digest);
                this.store().remove(&folder, Durability::Lazy).await?;
            }
            Ok(meta.is_none())
        })
        .await
    }

    /// Takes a repository out of the catalog that has neither manifests nor tags nor blobs; uploads may be under way.
    /// False if it has something. With `held` it has blobs that an undo may need, and those stay. A dry run comes when all
    /// that would have been removed before is still there.
    pub(super) async fn sweep_repo(
        &self,
        repo: RepoName,
        held: bool,
        rules: Rules,
    ) -> Result<bool> {
        let this = self.clone();
        to_the_end(async move {
            let _repo = this.0.locks.own(&repo).await;
            let (mut revisions, strange) = this.revision_names(&repo).await?;
            if held {
                // What can be brought back has its folder still.
                for digest in std::mem::take(&mut revisions) {
                    let link = Key::Revision(repo.clone(), digest);
                    if this.known(&link).await?.is_some() {
                        revisions.push(digest);
                    }
                }
            }
            let (layers, strange_layers) = this.layer_names(&repo).await?;
            let is_empty = revisions.is_empty() && (held || layers.is_empty());
            let tags = Dir::Tags(repo.clone());
            if !(is_empty || rules.dry_run)
                || strange
                || strange_layers
                || !this.store().list(&tags, None, 1).await?.is_empty()
            {
                return Ok(false);
            }
            if !rules.dry_run {
                // The one that makes it a repository goes last: who is stopped half-way begins again.
                let mut dirs = vec![Dir::AllReferrers(repo.clone())];
                if !held {
                    dirs.push(Dir::AllLayers(repo.clone()));
                    // Of a tag that was deleted while its manifest stayed, and went later.
                    dirs.push(Dir::History(repo.clone()));
                }
                dirs.push(Dir::Manifests(repo.clone()));
                for dir in dirs {
                    this.store().remove(&dir, Durability::Lazy).await?;
                }
                this.0.catalog.remove(&repo);
                this.0.tags.forget(&repo);
                this.0.scanned.forget(&repo);
            }
            Ok(true)
        })
        .await
    }

    async fn known(&self, key: &Key) -> Result<Option<storage::Meta>> {
        match self.store().stat(key).await {
            Ok(meta) => Ok(Some(meta)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn condemn(
        &self,
        digest: &Digest,
        meta: Option<storage::Meta>,
        rules: Rules,
    ) -> Option<Condemned<'_>> {
        let grace = rules.grace.unwrap_or(self.0.pins.grace());
        // What comes from the future tells of a clock that jumped: it stays.
        let is_young = |meta: storage::Meta| {
            let age = meta.modified.elapsed();
            age.map_or(true, |age| age < grace)
        };
        if rules.alone && meta.is_some_and(is_young) {
            return None;
        }
        self.0.pins.condemn(digest, grace, rules.alone)
    }
}
