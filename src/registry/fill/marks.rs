//! What of the content was fetched and not pushed: one small file each (`storage/key.rs`), whose age is the time since it was
//! last of use.
//!
//! A mark is written before what it is about, and durably: content without a mark counts as pushed, and is never replaced by
//! the upstream's nor removed. A push removes the mark of what it pushes.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::oci::{Digest, RepoName, Tag};
use crate::registry::{Registry, Result};
use crate::storage::{Dir, Durability, Filled, Key};

/// The digests of a tag's mark are two: more than this many bytes is none of ours.
const LIMIT: usize = 1024;

pub(in crate::registry) struct Marks {
    /// False only when it is known that there is none, which saves pushes to a registry that never was a mirror a call.
    may_exist: AtomicBool,
}

impl Default for Marks {
    fn default() -> Self {
        Marks {
            may_exist: AtomicBool::new(true),
        }
    }
}

impl Registry {
    /// Finds out whether this was ever a mirror, or takes over from another one. Before anything is pushed.
    pub(crate) async fn look_for_marks(&self) -> Result<()> {
        if self.is_new_mirror().await? {
            self.adopt().await?;
        }
        let exist = self.store().has(&Dir::Mirror).await?;
        self.0.marks.may_exist.store(exist, Ordering::Relaxed);
        Ok(())
    }

    /// Notes that something is fetched. `tag` marks hold the digests that a tag may point to and still be the upstream's.
    pub(super) async fn mark(
        &self,
        repo: &RepoName,
        what: Filled,
        digests: &[Digest],
    ) -> Result<()> {
        self.0.marks.may_exist.store(true, Ordering::Relaxed);
        let text: Vec<String> = digests.iter().map(|digest| format!("{digest}\n")).collect();
        let key = Key::Filled(repo.clone(), what);
        Ok(self
            .store()
            .put(&key, text.concat().into(), Durability::Durable)
            .await?)
    }

    /// Something is pushed, and belongs to whoever pushed it. Under a lock of the repository.
    pub(in crate::registry) async fn unmark(&self, repo: &RepoName, what: Filled) -> Result<()> {
        if !self.0.marks.may_exist.load(Ordering::Relaxed) {
            return Ok(());
        }
        let key = Key::Filled(repo.clone(), what);
        Ok(self.store().delete(&key, Durability::Durable).await?)
    }

    /// Notes that a blob is fetched, unless the repository has it from somebody who pushed it.
    pub(in crate::registry) async fn mark_new_blob(
        &self,
        repo: &RepoName,
        digest: &Digest,
    ) -> Result<()> {
        let link = self.read_link(&Key::Layer(repo.clone(), *digest)).await?;
        match link {
            Some(_) => Ok(()),
            None => self.mark(repo, Filled::Blob(*digest), &[]).await,
        }
    }

    /// Whether it is the upstream's word that `tag` points to `digest`.
    pub(super) async fn is_upstreams(
        &self,
        repo: &RepoName,
        tag: &Tag,
        digest: &Digest,
    ) -> Result<bool> {
        let key = Key::Filled(repo.clone(), Filled::Tag(tag.clone()));
        let text = match self.store().get(&key, LIMIT).await {
            Ok(text) => text,
            Err(e) if e.is_not_found() => return Ok(false),
            Err(e) => return Err(e.into()),
        };
        let text = String::from_utf8_lossy(&text);
        Ok(text
            .lines()
            .any(|line| line.parse::<Digest>().as_ref() == Ok(digest)))
    }
}
