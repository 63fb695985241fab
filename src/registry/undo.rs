//! Brings back what was deleted or overwritten: a tag gets the manifest that it pointed to, and a manifest that was
//! deleted is shown again, with its children and the referrers that went with it.
//!
//! Nothing is copied: garbage collection has kept the content (`collection/held.rs`). What it took after all, or what was
//! damaged, makes the whole undo fail before anything changes for clients.

use std::collections::HashSet;
use std::time::SystemTime;

use super::history::{What, ends};
use super::locks::RepoGuard;
use super::{Change, Error, Registry, Result, to_the_end};
use crate::oci::{Digest, Manifest, Reference, RepoName, Role, Tag};
use crate::storage::{Dir, Filled, Key, removal_of};

/// A line of a tag's history, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Past {
    pub(crate) change: Change,
    pub(crate) state: State,
}

/// What became of the manifest of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The tag points to it.
    Current,
    /// It is in the repository.
    Present,
    /// It was deleted, and its content is kept until then.
    Deleted { until: SystemTime },
    /// It cannot be brought back.
    Gone,
}

/// What an undo did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Undone {
    pub(crate) digest: Digest,
    /// The tags that point to it again; what each pointed to before.
    pub(crate) tags: Vec<(Tag, Option<Digest>)>,
    /// Manifests that are shown again.
    pub(crate) restored: Vec<Digest>,
    /// Manifests that went with it and could not be brought back.
    pub(crate) lost: Vec<Digest>,
}

impl Registry {
    /// What a tag pointed to, the oldest first. Empty for one that nothing is known of.
    pub(crate) async fn history(&self, repo: &RepoName, tag: &Tag) -> Result<Vec<Past>> {
        let _repo = self.0.locks.share(repo).await;
        let changes = self.tag_changes(repo, tag).await?;
        let now = self.resolve(repo, tag).await?;
        let current = changes
            .iter()
            .rposition(|c| Some(c.digest) == now && c.what != What::Deleted);
        let mut history = Vec::with_capacity(changes.len());
        for (i, change) in changes.into_iter().enumerate() {
            let state = if Some(i) == current {
                State::Current
            } else {
                self.state_of(repo, &change.digest).await?
            };
            history.push(Past { change, state });
        }
        Ok(history)
    }

    async fn state_of(&self, repo: &RepoName, digest: &Digest) -> Result<State> {
        if self.has_revision(repo, digest).await? {
            return Ok(State::Present);
        }
        let keep = self.settings().undo_keep;
        Ok(match self.removal(repo, digest).await? {
            Some(removal)
                if self.is_undoable(removal.at)
                    && self.store().stat(&Key::Blob(*digest)).await.is_ok() =>
            {
                State::Deleted {
                    until: removal.at + keep,
                }
            }
            _ => State::Gone,
        })
    }

    /// Brings back a tag (with the manifest `to`, or the last one that it pointed to and does not now), or a manifest and
    /// the tags that were deleted with it, as far as they point to nothing now. Durable when it returns.
    /// `NothingToUndo`, `TagImmutable`; `ReferencesUnknown` where content is gone.
    pub(crate) async fn undo(
        &self,
        repo: &RepoName,
        what: &Reference,
        to: Option<Digest>,
    ) -> Result<Undone> {
        self.writable()?;
        let (this, repo, what) = (self.clone(), repo.clone(), what.clone());
        to_the_end(async move {
            let guard = this.0.locks.own(&repo).await;
            let (digest, wanted) = match what {
                Reference::Digest(digest) => (digest, this.tags_that_went(&repo, &digest).await?),
                Reference::Tag(tag) => {
                    let digest = this.target(&repo, &tag, to).await?;
                    (digest, vec![tag])
                }
            };
            let mut tags = Vec::new();
            for tag in wanted {
                let before = this.resolve(&repo, &tag).await?;
                this.movable(&repo, &tag, &digest).await?;
                tags.push((tag, before));
            }
            let mut restoring = Restoring::default();
            this.check_content(&repo, &digest, &mut restoring).await?;
            this.restore(&guard, &repo, &digest, &mut restoring).await?;
            for (tag, _) in &tags {
                this.note_restored_tag(&guard, &repo, tag, &digest).await?;
                this.set_tag(&guard, &repo, tag, &digest).await?;
                this.unmark(&repo, Filled::Tag(tag.clone())).await?;
            }
            Ok(Undone {
                digest,
                tags,
                restored: restoring.restored,
                lost: restoring.lost,
            })
        })
        .await
    }

    /// What a tag is to point to again.
    async fn target(&self, repo: &RepoName, tag: &Tag, to: Option<Digest>) -> Result<Digest> {
        if let Some(to) = to {
            return Ok(to);
        }
        let now = self.resolve(repo, tag).await?;
        let mut ends = ends(&self.tag_changes(repo, tag).await?);
        ends.retain(|(digest, _)| Some(*digest) != now);
        let last = ends.pop();
        last.map(|(digest, _)| digest).ok_or(Error::NothingToUndo)
    }

    async fn tags_that_went(&self, repo: &RepoName, digest: &Digest) -> Result<Vec<Tag>> {
        let removal = self.removal(repo, digest).await?;
        let mut tags = removal.map(|removal| removal.tags).unwrap_or_default();
        let list = self.tag_list(repo).await?;
        tags.retain(|tag| !list.contains_key(tag));
        Ok(tags)
    }

    /// Everything that a manifest needs is still here, before anything is changed.
    async fn check_content(
        &self,
        repo: &RepoName,
        digest: &Digest,
        restoring: &mut Restoring,
    ) -> Result<()> {
        if self.has_revision(repo, digest).await? {
            // Untagged until now, so that a collection may be about to take it.
            if let Some(manifest) = self.kept_manifest(digest).await? {
                self.vouch_for_references(repo, &manifest).await;
            }
            return Ok(());
        }
        let (mut missing, mut todo) = (Vec::new(), vec![*digest]);
        while let Some(digest) = todo.pop() {
            if !restoring.checked.insert(digest) {
                continue;
            }
            let Some(manifest) = self.kept_manifest(&digest).await? else {
                missing.push(digest);
                continue;
            };
            for (descriptor, role) in manifest.references() {
                let what = descriptor.digest;
                match role {
                    Role::Subject | Role::ForeignLayer => {}
                    // An index may list what was never pushed.
                    Role::Child => {
                        let is_here = self.has_revision(repo, &what).await?;
                        if !is_here && self.removal(repo, &what).await?.is_some() {
                            todo.push(what);
                        }
                    }
                    _ => match self.stat_blob(repo, &what).await {
                        Ok(_) => {}
                        Err(Error::BlobUnknown) => missing.push(what),
                        Err(e) => return Err(e),
                    },
                }
            }
        }
        if missing.is_empty() {
            Ok(())
        } else if missing == [*digest] {
            Err(Error::NothingToUndo)
        } else {
            Err(Error::ReferencesUnknown(missing))
        }
    }

    /// The content of a manifest that no repository need show, vouched for.
    async fn kept_manifest(&self, digest: &Digest) -> Result<Option<Manifest>> {
        self.0.pins.vouch(digest).await;
        match self.manifest_bytes(digest).await {
            Ok(bytes) => Ok(Manifest::parse(bytes, None).ok()),
            Err(Error::ManifestUnknown) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Shows a manifest again: those that it lists before it, and those about it after.
    async fn restore(
        &self,
        guard: &RepoGuard,
        repo: &RepoName,
        digest: &Digest,
        restoring: &mut Restoring,
    ) -> Result<()> {
        if self.has_revision(repo, digest).await? {
            return Ok(());
        }
        let notes = self.deleted_manifests(repo).await?;
        let at = notes.iter().find(|(d, _)| d == digest).map(|(_, r)| r.at);
        // Each manifest twice: when it is come upon, and when all that it lists is there.
        let mut todo = vec![(*digest, false)];
        let mut begun = HashSet::new();
        while let Some((digest, is_ready)) = todo.pop() {
            if self.has_revision(repo, &digest).await? {
                continue;
            }
            let Some(manifest) = self.kept_manifest(&digest).await? else {
                restoring.lost.push(digest);
                continue;
            };
            if !is_ready && begun.insert(digest) {
                todo.push((digest, true));
                let children = manifest
                    .references()
                    .filter(|(_, role)| *role == Role::Child);
                for (child, _) in children {
                    if notes.iter().any(|(d, _)| *d == child.digest) {
                        todo.push((child.digest, false));
                    }
                }
                continue;
            }
            self.unmark(repo, Filled::Manifest(digest)).await?;
            self.store_manifest(guard, repo, &digest, &manifest).await?;
            restoring.restored.push(digest);
            // Those that went at once with it: what was deleted before stays so.
            for (referrer, note) in &notes {
                if note.subject == Some(digest) && Some(note.at) == at {
                    match self.check_content(repo, referrer, restoring).await {
                        Ok(()) => todo.push((*referrer, false)),
                        Err(Error::NothingToUndo | Error::ReferencesUnknown(_)) => {
                            restoring.lost.push(*referrer);
                        }
                        Err(e) => return Err(e),
                    }
                }
            }
        }
        Ok(())
    }

    async fn deleted_manifests(
        &self,
        repo: &RepoName,
    ) -> Result<Vec<(Digest, super::history::Removal)>> {
        let mut notes = Vec::new();
        for digest in self.removal_names(repo).await? {
            if let Some(removal) = self.removal(repo, &digest).await? {
                notes.push((digest, removal));
            }
        }
        Ok(notes)
    }

    /// The manifests that there are notes of a delete on, in no order.
    pub(super) async fn removal_names(&self, repo: &RepoName) -> Result<Vec<Digest>> {
        let folder = Dir::Removals(repo.clone());
        let names = self.store().list(&folder, None, usize::MAX).await?;
        Ok(names.iter().filter_map(|name| removal_of(name)).collect())
    }

    /// A tag that is to stay as it is may not be made to point to anything else.
    pub(super) async fn movable(&self, repo: &RepoName, tag: &Tag, to: &Digest) -> Result<()> {
        if self.is_immutable(repo, tag)
            && let Some(now) = self.resolve(repo, tag).await?
            && now != *to
        {
            return Err(Error::TagImmutable(tag.clone()));
        }
        Ok(())
    }

    /// Whether a tag may be neither moved nor deleted (`tags.immutable`).
    pub(super) fn is_immutable(&self, repo: &RepoName, tag: &Tag) -> bool {
        let mut patterns = self.settings().immutable_tags.iter();
        patterns.any(|pattern| pattern.matches(repo, tag))
    }
}

#[derive(Default)]
struct Restoring {
    checked: HashSet<Digest>,
    restored: Vec<Digest>,
    lost: Vec<Digest>,
}
