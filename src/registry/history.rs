//! What tags pointed to, and what was deleted: the notes that [`undo`](super::undo) works with.
//!
//! Of a tag that is there, the layout itself remembers each manifest that it pointed to (`index/`), and the time of that
//! note says when it was pushed: a push costs nothing more. A delete takes that away, so what is known of the tag is
//! written down before, durably, in `_history/tags/<tag>`, one change a line. A manifest that is deleted gets a note of its
//! own: garbage collection keeps the content as long as that counts.
//!
//! How long something can be undone goes by the clock on the wall, since it has to outlive the process. What a clock that
//! jumped calls the future counts.

mod change;

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

pub(super) use change::ends;
use change::in_order;
pub(crate) use change::{Change, What};
pub(super) use change::{from_millis, to_millis};

use super::locks::RepoGuard;
use super::{Error, Registry, Result};
use crate::oci::{Algorithm, Digest, Manifest, RepoName, Tag};
use crate::storage::{self, Dir, Durability, Key};

/// The note on a manifest that was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Removal {
    /// The same for all that went at once.
    pub(super) at: SystemTime,
    pub(super) subject: Option<Digest>,
    /// Those that went with it.
    pub(super) tags: Vec<Tag>,
}

/// The same on the disk.
#[derive(Serialize, Deserialize)]
struct RemovalNote {
    at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
}

/// The latest changes of a tag that are written down.
const CHANGES: usize = 100;
/// More than that many take, in bytes; also what a note on a manifest with very many tags may have.
const LIMIT: usize = 1 << 20;

impl Registry {
    /// Everything known of what a tag pointed to, the oldest first.
    pub(super) async fn tag_changes(&self, repo: &RepoName, tag: &Tag) -> Result<Vec<Change>> {
        let mut changes = self.written_changes(repo, tag).await?;
        let now = self.resolve(repo, tag).await?;
        for algorithm in Algorithm::ALL {
            let folder = Dir::TagIndexes(repo.clone(), tag.clone(), algorithm);
            for hex in self.store().list(&folder, None, usize::MAX).await? {
                let Ok(digest) = Digest::from_parts(algorithm, &hex) else {
                    continue;
                };
                let note = Key::TagIndex(repo.clone(), tag.clone(), digest);
                // Somebody may delete the tag just now, or distribution left a folder alone.
                let Some(at) = self.modified(&note).await? else {
                    continue;
                };
                changes.push(Change {
                    at,
                    digest,
                    what: What::Pushed,
                });
            }
        }
        if let Some(digest) = now
            && !changes
                .iter()
                .any(|c| c.digest == digest && c.what != What::Deleted)
            && let Some(at) = self.modified(&Key::Tag(repo.clone(), tag.clone())).await?
        {
            changes.push(Change {
                at,
                digest,
                what: What::Pushed,
            });
        }
        Ok(in_order(changes, now))
    }

    pub(super) async fn modified(&self, key: &Key) -> Result<Option<SystemTime>> {
        match self.store().stat(key).await {
            Ok(meta) => Ok(Some(meta.modified)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    async fn written_changes(&self, repo: &RepoName, tag: &Tag) -> Result<Vec<Change>> {
        let key = Key::TagHistory(repo.clone(), tag.clone());
        let text = self.note(&key).await?.unwrap_or_default();
        Ok(text.lines().filter_map(Change::parse).collect())
    }

    /// The text of a note, as far as it can be read.
    pub(super) async fn note(&self, key: &Key) -> Result<Option<String>> {
        match self.store().get(key, LIMIT).await {
            Ok(text) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
            Err(storage::Error::NotFound(_)) => Ok(None),
            Err(storage::Error::TooLarge { key, .. }) => {
                log::warn!("{key} is too large to be a note, and is passed over");
                Ok(None)
            }
            Err(e) => Err(e.into()),
        }
    }

    async fn write_changes(
        &self,
        repo: &RepoName,
        tag: &Tag,
        changes: &[Change],
        durability: Durability,
    ) -> Result<()> {
        let first = changes.len().saturating_sub(CHANGES);
        let lines: String = changes[first..].iter().map(Change::to_line).collect();
        let key = Key::TagHistory(repo.clone(), tag.clone());
        Ok(self.store().put(&key, lines.into(), durability).await?)
    }

    /// To be called before a tag is deleted: what it pointed to is on the disk when it returns.
    pub(super) async fn note_deleted_tag(
        &self,
        _guard: &RepoGuard,
        repo: &RepoName,
        tag: &Tag,
        digest: &Digest,
        at: SystemTime,
    ) -> Result<()> {
        if self.settings().undo_keep.is_zero() {
            return Ok(());
        }
        let mut changes = self.tag_changes(repo, tag).await?;
        changes.push(Change {
            at,
            digest: *digest,
            what: What::Deleted,
        });
        let written = self.write_changes(repo, tag, &changes, Durability::Durable);
        or_without(written.await, &format!("tag {tag} of {repo}"))
    }

    /// To be called when a tag gets back what it had; that this may be lost makes it a push.
    pub(super) async fn note_restored_tag(
        &self,
        _guard: &RepoGuard,
        repo: &RepoName,
        tag: &Tag,
        digest: &Digest,
    ) -> Result<()> {
        let mut changes = self.tag_changes(repo, tag).await?;
        changes.push(Change {
            at: SystemTime::now(),
            digest: *digest,
            what: What::Restored,
        });
        self.write_changes(repo, tag, &changes, Durability::Lazy)
            .await
    }

    /// To be called before a manifest is deleted.
    pub(super) async fn note_removal(
        &self,
        _guard: &RepoGuard,
        repo: &RepoName,
        digest: &Digest,
        removal: &Removal,
    ) -> Result<()> {
        if self.settings().undo_keep.is_zero() {
            return Ok(());
        }
        let note = RemovalNote {
            at: to_millis(removal.at),
            subject: removal.subject.map(|subject| subject.to_string()),
            tags: removal.tags.iter().map(Tag::to_string).collect(),
        };
        let text = serde_json::to_vec(&note).map_err(|_| Error::Aborted)?;
        let key = Key::Removal(repo.clone(), *digest);
        let put = self
            .store()
            .put(&key, text.into(), Durability::Durable)
            .await;
        or_without(put.map_err(Error::from), &format!("{digest} of {repo}"))
    }

    /// The same for manifests that go at once, the first with its tags.
    pub(super) async fn note_deleted(
        &self,
        guard: &RepoGuard,
        repo: &RepoName,
        doomed: &[Digest],
        tags: &[Tag],
    ) -> Result<()> {
        let at = SystemTime::now();
        for (i, digest) in doomed.iter().enumerate() {
            let removal = Removal {
                at,
                subject: self.subject(digest).await,
                tags: if i == 0 { tags.to_vec() } else { Vec::new() },
            };
            self.note_removal(guard, repo, digest, &removal).await?;
        }
        for tag in tags {
            self.note_deleted_tag(guard, repo, tag, &doomed[0], at)
                .await?;
        }
        Ok(())
    }

    /// What a manifest is about. It is in the content, which may be damaged.
    pub(super) async fn subject(&self, digest: &Digest) -> Option<Digest> {
        let bytes = self.manifest_bytes(digest).await.ok()?;
        Manifest::parse(bytes, None).ok()?.subject().copied()
    }

    /// What is known of a manifest that was deleted, also if it is there again.
    pub(super) async fn removal(
        &self,
        repo: &RepoName,
        digest: &Digest,
    ) -> Result<Option<Removal>> {
        let key = Key::Removal(repo.clone(), *digest);
        let Some(text) = self.note(&key).await? else {
            return Ok(None);
        };
        let Ok(note) = serde_json::from_str::<RemovalNote>(&text) else {
            log::warn!(
                "{key} cannot be read: {digest} of {repo} counts as deleted when that was written"
            );
            let at = self.modified(&key).await?;
            return Ok(at.map(|at| Removal {
                at,
                subject: None,
                tags: Vec::new(),
            }));
        };
        Ok(Some(Removal {
            at: from_millis(note.at),
            subject: note.subject.and_then(|text| text.parse().ok()),
            tags: note
                .tags
                .iter()
                .filter_map(|tag| tag.parse().ok())
                .collect(),
        }))
    }

    /// Whether what ended at `end` can still be undone.
    pub(super) fn is_undoable(&self, end: SystemTime) -> bool {
        let keep = self.settings().undo_keep;
        !keep.is_zero() && end.elapsed().map_or(true, |age| age < keep)
    }

    /// The manifests that a tag pointed to lately, and could again.
    pub(super) async fn held_by_tag(&self, repo: &RepoName, tag: &Tag) -> Result<Vec<Digest>> {
        let changes = self.tag_changes(repo, tag).await?;
        let ends = ends(&changes).into_iter();
        Ok(ends
            .filter(|(_, end)| end.is_none_or(|end| self.is_undoable(end)))
            .map(|(digest, _)| digest)
            .collect())
    }

    /// When a tag was last pushed; none if it points elsewhere by now.
    pub(super) async fn pushed_at(
        &self,
        repo: &RepoName,
        tag: &Tag,
        digest: &Digest,
    ) -> Result<Option<SystemTime>> {
        if self.resolve(repo, tag).await? != Some(*digest) {
            return Ok(None);
        }
        let current = Key::Tag(repo.clone(), tag.clone());
        let note = Key::TagIndex(repo.clone(), tag.clone(), *digest);
        // A push of the same again changes the note alone.
        let times = [self.modified(&current).await?, self.modified(&note).await?];
        Ok(times.into_iter().flatten().max())
    }

    /// The manifests that a tag pointed to within `span`, and that it points to.
    pub(super) async fn replaced_within(
        &self,
        repo: &RepoName,
        tag: &Tag,
        span: Duration,
    ) -> Result<Vec<Digest>> {
        let changes = self.tag_changes(repo, tag).await?;
        let is_late = |end: SystemTime| end.elapsed().map_or(true, |age| age < span);
        let late = ends(&changes).into_iter();
        let late = late.filter(|(_, end)| end.is_none_or(is_late));
        Ok(late.map(|(digest, _)| digest).collect())
    }

    /// Removes the note on a deleted tag, when nothing in it can be undone any more. `now`: whatever it says.
    pub(super) async fn expire_tag_history(
        &self,
        repo: &RepoName,
        tag: &Tag,
        now: bool,
    ) -> Result<()> {
        let _repo = self.0.locks.own(repo).await;
        let changes = self.written_changes(repo, tag).await?;
        if now || !changes.iter().any(|change| self.is_undoable(change.at)) {
            let key = Key::TagHistory(repo.clone(), tag.clone());
            self.store().delete(&key, Durability::Lazy).await?;
        }
        Ok(())
    }

    /// The same for a manifest.
    pub(super) async fn expire_removal(
        &self,
        repo: &RepoName,
        digest: &Digest,
        now: bool,
    ) -> Result<()> {
        let _repo = self.0.locks.own(repo).await;
        let removal = self.removal(repo, digest).await?;
        if removal.is_some_and(|removal| now || !self.is_undoable(removal.at)) {
            let key = Key::Removal(repo.clone(), *digest);
            self.store().delete(&key, Durability::Lazy).await?;
        }
        Ok(())
    }
}

/// On a full disk deleting is what helps: it goes on, and cannot be undone.
fn or_without(written: Result<()>, what: &str) -> Result<()> {
    match written {
        Err(Error::NoSpace) => {
            log::warn!("{what} is deleted and cannot be brought back: there is no room for a note");
            Ok(())
        }
        written => written,
    }
}
