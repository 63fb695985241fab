//! Tags, and the lists of them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use futures_util::StreamExt;
use futures_util::stream;
use lru::LruCache;

use super::locks::RepoGuard;
use super::{Condition, Error, Page, Registry, Result, to_the_end};
use crate::oci::{Digest, RepoName, Tag};
use crate::storage::{Dir, Durability, Key};

/// Tags remembered over all repositories, at some 150 bytes each.
const REMEMBERED: usize = 50_000;
/// Links read at once when a list is made.
const AT_ONCE: usize = 16;

/// A repository's tags and what they point to now.
type TagList = BTreeMap<Tag, Digest>;

/// The lists made lately. A list changes under the repository's own lock alone, and is made under at least the shared one.
pub(super) struct TagLists(Mutex<LruCache<RepoName, Remembered>>);

#[derive(Clone)]
struct Remembered {
    list: Arc<TagList>,
    /// There are tags on the disk whose manifest the repository does not have.
    is_partial: bool,
}

impl Default for TagLists {
    fn default() -> Self {
        TagLists(Mutex::new(LruCache::unbounded()))
    }
}

impl TagLists {
    fn lists(&self) -> MutexGuard<'_, LruCache<RepoName, Remembered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, repo: &RepoName) -> Option<Arc<TagList>> {
        self.lists().get(repo).map(|known| known.list.clone())
    }

    fn insert(&self, repo: &RepoName, list: Arc<TagList>, is_partial: bool) {
        let mut lists = self.lists();
        lists.put(repo.clone(), Remembered { list, is_partial });
        let mut tags: usize = lists.iter().map(|(_, known)| known.list.len() + 1).sum();
        while tags > REMEMBERED && lists.len() > 1 {
            tags -= lists.pop_lru().map_or(0, |(_, known)| known.list.len() + 1);
        }
    }

    /// To be told when a repository gets a manifest: tags that are not listed may point to it.
    pub(super) fn forget_partial(&self, repo: &RepoName) {
        let mut lists = self.lists();
        if lists.peek(repo).is_some_and(|known| known.is_partial) {
            lists.pop(repo);
        }
    }

    pub(super) fn change(&self, repo: &RepoName, change: impl FnOnce(&mut TagList)) {
        if let Some(known) = self.lists().get_mut(repo) {
            change(Arc::make_mut(&mut known.list));
        }
    }

    pub(super) fn forget(&self, repo: &RepoName) {
        self.lists().pop(repo);
    }
}

impl Registry {
    /// Tags after `last` in byte order, `n` of them, within the configured limit. `RepoUnknown`.
    ///
    /// A tag is listed when its manifest is in the repository: half-made tags and ones whose link is damaged are not.
    pub(crate) async fn tags(
        &self,
        repo: &RepoName,
        last: Option<&str>,
        n: Option<usize>,
    ) -> Result<Page<Tag>> {
        let list = match self.0.tags.get(repo) {
            Some(list) => list,
            None => {
                let _repo = self.0.locks.share(repo).await;
                self.tag_list(repo).await?
            }
        };
        if list.is_empty() && !self.store().has(&Dir::Manifests(repo.clone())).await? {
            return Err(Error::RepoUnknown);
        }
        let n = n
            .unwrap_or(usize::MAX)
            .min(self.settings().tags_max.unwrap_or(usize::MAX));
        let after = last.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = list
            .range::<str, _>((after, Bound::Unbounded))
            .map(|(tag, _)| tag.clone());
        let items: Vec<Tag> = rest.by_ref().take(n).collect();
        Ok(Page {
            more: n > 0 && rest.next().is_some(),
            items,
        })
    }

    /// Removes a tag; the manifest stays. `ManifestUnknown` if there is no such tag, `PreconditionFailed`, `TagImmutable`.
    /// Durable when it returns.
    pub(crate) async fn delete_tag(
        &self,
        repo: &RepoName,
        tag: &Tag,
        condition: Condition,
    ) -> Result<()> {
        self.deletable()?;
        let (this, repo, tag) = (self.clone(), repo.clone(), tag.clone());
        to_the_end(async move {
            let guard = this.0.locks.own(&repo).await;
            let current = Key::Tag(repo.clone(), tag.clone());
            let Some(digest) = this.read_link(&current).await? else {
                return Err(Error::ManifestUnknown);
            };
            condition.check(digest.as_ref())?;
            if this.is_immutable(&repo, &tag) {
                return Err(Error::TagImmutable(tag));
            }
            // A damaged link points to nothing that could be brought back.
            if let Some(digest) = digest {
                let now = SystemTime::now();
                this.note_deleted_tag(&guard, &repo, &tag, &digest, now)
                    .await?;
            }
            this.remove_tag(&guard, &repo, &tag).await
        })
        .await
    }

    pub(super) async fn remove_tag(
        &self,
        _guard: &RepoGuard,
        repo: &RepoName,
        tag: &Tag,
    ) -> Result<()> {
        let removed = self
            .store()
            .remove(&Dir::Tag(repo.clone(), tag.clone()), Durability::Durable)
            .await;
        match &removed {
            Ok(()) => self.0.tags.change(repo, |list| {
                list.remove(tag);
            }),
            Err(_) => self.0.tags.forget(repo), // who knows what is left
        }
        Ok(removed?)
    }

    /// Points a tag to a manifest of the repository. I2: `current` is the commit.
    ///
    /// The note of what it points to is lazy, and comes after: no promise rests on it, and its path alone says what it
    /// says.
    pub(super) async fn set_tag(
        &self,
        _guard: &RepoGuard,
        repo: &RepoName,
        tag: &Tag,
        digest: &Digest,
    ) -> Result<()> {
        let current = Key::Tag(repo.clone(), tag.clone());
        if let Err(e) = self.link(&current, digest).await {
            self.0.tags.forget(repo);
            return Err(e);
        }
        self.0.tags.change(repo, |list| {
            list.insert(tag.clone(), *digest);
        });
        self.0.pushed.note(repo, digest);
        let note = Key::TagIndex(repo.clone(), tag.clone(), *digest);
        if let Err(e) = self
            .store()
            .put(&note, digest.to_string().into(), Durability::Lazy)
            .await
        {
            log::warn!("what tag {tag} of {repo} points to could not be noted in its history: {e}");
        }
        Ok(())
    }

    /// The caller holds the repository's lock, shared or alone.
    pub(super) async fn tag_list(&self, repo: &RepoName) -> Result<Arc<TagList>> {
        if let Some(list) = self.0.tags.get(repo) {
            return Ok(list);
        }
        let names = self
            .store()
            .list(&Dir::Tags(repo.clone()), None, usize::MAX)
            .await?;
        let tags: Vec<Tag> = names.iter().filter_map(|name| name.parse().ok()).collect();
        let mut links = stream::iter(tags)
            .map(|tag| self.tag_link(repo, tag))
            .buffer_unordered(AT_ONCE);
        let mut list = TagList::new();
        let mut is_partial = false;
        let mut known = std::collections::HashMap::new();
        while let Some(link) = links.next().await {
            let (tag, Some(digest)) = link? else { continue };
            let there = match known.get(&digest) {
                Some(there) => *there,
                None => {
                    let there = self.has_revision(repo, &digest).await?;
                    known.insert(digest, there);
                    there
                }
            };
            if there {
                list.insert(tag, digest);
            } else {
                is_partial = true;
            }
        }
        let list = Arc::new(list);
        self.0.tags.insert(repo, list.clone(), is_partial);
        Ok(list)
    }

    async fn tag_link(&self, repo: &RepoName, tag: Tag) -> Result<(Tag, Option<Digest>)> {
        let link = self.read_link(&Key::Tag(repo.clone(), tag.clone())).await?;
        Ok((tag, link.flatten()))
    }
}
