//! What is kept though nobody can see it: manifests that were deleted, and that an undo can bring back for some time.
//!
//! The notes are read after the repository's manifests were listed, so that what is deleted meanwhile is in one of the
//! two. What is brought back meanwhile vouches for all that it needs, as a push does.

use super::super::Result;
use super::super::sweep::Swept;
use super::Collection;
use super::looking::Looking;
use crate::oci::{Digest, RepoName, Tag};
use crate::storage::Dir;

/// What an undo may need to know, and a collection looks at.
pub(super) enum Note {
    /// On a manifest that was deleted.
    Removal(Digest),
    /// On a tag that was.
    Tag(Tag),
    /// A tag that is there: the layout itself remembers what it pointed to.
    Index(Tag),
}

impl Collection {
    pub(super) async fn notes(&self, repo: &RepoName) -> Result<Vec<Note>> {
        let registry = &self.registry;
        let removals = registry.removal_names(repo).await?.into_iter();
        let mut notes: Vec<Note> = removals.map(Note::Removal).collect();
        let tags = async |dir: Dir| -> Result<Vec<Tag>> {
            let names = registry.store().list(&dir, None, usize::MAX).await?;
            Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
        };
        let deleted = tags(Dir::TagHistories(repo.clone())).await?;
        // Other manifests without a tag are there anyway.
        if self.scope.untagged && !self.forgets_undo(repo) {
            let there = tags(Dir::Tags(repo.clone())).await?;
            let there = there.into_iter().filter(|tag| !deleted.contains(tag));
            notes.extend(there.map(Note::Index));
        }
        notes.extend(deleted.into_iter().map(Note::Tag));
        Ok(notes)
    }

    pub(super) async fn read_note(&mut self, looking: &mut Looking, note: Note) -> Result<()> {
        let (registry, scope) = (&self.registry, self.scope);
        let repo = &looking.repo;
        let forget = self.forgets_undo(repo);
        match note {
            Note::Removal(digest) if self.is_held(repo, &digest).await? => {
                looking.hold(digest);
            }
            Note::Removal(digest) => {
                if !scope.dry_run {
                    let expired = registry.expire_removal(repo, &digest, forget);
                    expired.await?;
                }
            }
            Note::Tag(tag) | Note::Index(tag) if scope.untagged && !forget => {
                looking
                    .tagged
                    .extend(registry.held_by_tag(repo, &tag).await?);
            }
            Note::Tag(tag) => {
                if !scope.dry_run {
                    let expired = registry.expire_tag_history(repo, &tag, forget);
                    expired.await?;
                }
            }
            Note::Index(_) => {}
        }
        Ok(())
    }

    /// Whether a manifest was deleted, and can still be brought back.
    pub(super) async fn is_held(&self, repo: &RepoName, digest: &Digest) -> Result<bool> {
        if self.forgets_undo(repo) {
            return Ok(false);
        }
        let removal = self.registry.removal(repo, digest).await?;
        Ok(removal.is_some_and(|removal| self.registry.is_undoable(removal.at)))
    }

    /// Whether somebody needs the room more than an undo does.
    fn forgets_undo(&self, repo: &RepoName) -> bool {
        self.scope.forget_undo || self.registry.is_short_of_quota(repo)
    }

    /// Counts content that only an undo needs.
    pub(super) async fn held_blob(&mut self, digest: &Digest) -> Result<()> {
        if let Swept::Young(bytes) = self.registry.young_blob(digest).await? {
            self.report.held_blobs += 1;
            self.report.held_bytes += bytes;
        }
        Ok(())
    }
}
