//! What a mirror fetched goes when nobody asked for it for `proxy.ttl`; what was pushed never does, nor what it refers to.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::Mirror;
use crate::oci::{Algorithm, Digest, RepoName, Role, Tag};
use crate::registry::locks::RepoGuard;
use crate::registry::quota::Item;
use crate::registry::{Registry, Result};
use crate::storage::{Dir, Durability, Filled, FilledKind, Key};

/// What went, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expired {
    pub(crate) tags: usize,
    pub(crate) manifests: usize,
    pub(crate) blobs: usize,
}

impl Registry {
    /// How often to look for what has expired; `None` where nothing does.
    pub(crate) fn expiry_interval(&self) -> Option<Duration> {
        let ttl = self.mirror()?.ttl;
        let interval = (ttl / 8).clamp(Duration::from_secs(1), Duration::from_secs(3600));
        (!ttl.is_zero()).then_some(interval)
    }

    /// Takes what has expired out of its repositories. The room comes back with the next garbage collection, as after a
    /// delete.
    pub(crate) async fn expire_fetched(&self) -> Result<Expired> {
        match self.mirror() {
            Some(mirror) if !mirror.ttl.is_zero() => self.expire_older(mirror, mirror.ttl).await,
            _ => Ok(Expired::default()),
        }
    }

    /// The same, of what nobody asked for during `age`, whatever the configuration says: there is no room for it.
    pub(crate) async fn evict_fetched(&self, age: Duration) -> Result<Expired> {
        match self.mirror() {
            Some(mirror) => self.expire_older(mirror, age).await,
            None => Ok(Expired::default()),
        }
    }

    async fn expire_older(&self, mirror: &Mirror, ttl: Duration) -> Result<Expired> {
        let mut expired = Expired::default();
        let mut used: HashMap<RepoName, Vec<Filled>> = HashMap::new();
        while let Some(((repo, what), ())) = mirror.used().pop_lru() {
            used.entry(repo).or_default().push(what);
        }
        for repo in self.marked_repos().await? {
            for what in used.remove(&repo).unwrap_or_default() {
                self.refresh_mark(&repo, what).await?;
            }
            let old = self.old_marks(&repo, ttl).await?;
            if old.is_empty() {
                continue;
            }
            let guard = self.0.locks.own(&repo).await;
            let gone = self.expire_in(&guard, &repo, old).await?;
            drop(guard);
            expired.tags += gone.tags;
            expired.manifests += gone.manifests;
            expired.blobs += gone.blobs;
        }
        if expired != Expired::default() {
            self.0.deleted.notify_one();
        }
        Ok(expired)
    }

    /// Repositories that have marks, whatever is left of the repositories themselves.
    async fn marked_repos(&self) -> Result<Vec<RepoName>> {
        let list = async |dir: Dir| self.store().list(&dir, None, usize::MAX).await;
        let mut found = Vec::new();
        let mut waiting: Vec<RepoName> = list(Dir::Mirror)
            .await?
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        while let Some(repo) = waiting.pop() {
            let below = list(Dir::MirrorRepository(repo.clone())).await?;
            waiting.extend(below.iter().filter_map(|name| repo.child(name)));
            found.push(repo);
        }
        Ok(found)
    }

    /// Makes the age of a mark zero, if there is one.
    async fn refresh_mark(&self, repo: &RepoName, what: Filled) -> Result<()> {
        let _repo = self.0.locks.share(repo).await; // a push must not remove it between the two
        let key = Key::Filled(repo.clone(), what);
        match self.store().get(&key, 1024).await {
            Ok(text) => {
                // A tag's has the digests that came from the upstream. Lost to a power cut, the tag would pass for pushed.
                let durability = match text.is_empty() {
                    true => Durability::Lazy,
                    false => Durability::Durable,
                };
                Ok(self.store().put(&key, text, durability).await?)
            }
            Err(e) if e.is_not_found() => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    async fn old_marks(&self, repo: &RepoName, ttl: Duration) -> Result<HashSet<Filled>> {
        let mut old = HashSet::new();
        for kind in FilledKind::ALL {
            let dir = Dir::Filled(repo.clone(), kind);
            for name in self.store().list(&dir, None, usize::MAX).await? {
                let Some(what) = kind.of_name(&name) else {
                    continue;
                };
                let key = Key::Filled(repo.clone(), what.clone());
                match self.store().stat(&key).await {
                    // A mark from the future tells of a clock that jumped: leave it.
                    Ok(meta) if meta.modified.elapsed().is_ok_and(|age| age >= ttl) => {
                        old.insert(what);
                    }
                    Ok(_) => {}
                    Err(e) if e.is_not_found() => {}
                    Err(e) => return Err(e.into()),
                }
            }
        }
        Ok(old)
    }

    async fn expire_in(
        &self,
        guard: &RepoGuard,
        repo: &RepoName,
        old: HashSet<Filled>,
    ) -> Result<Expired> {
        let mut expired = Expired::default();
        let tags: Vec<(Tag, Digest)> = self
            .tag_list(repo)
            .await?
            .iter()
            .map(|(tag, digest)| (tag.clone(), *digest))
            .collect();
        for (tag, digest) in tags {
            if old.contains(&Filled::Tag(tag.clone()))
                && self.is_upstreams(repo, &tag, &digest).await?
            {
                log::info!("{repo}:{tag} has expired");
                self.remove_tag(guard, repo, &tag).await?;
                expired.tags += 1;
            }
        }
        let (manifests, blobs) = self.live(repo, &old).await?;
        for what in old {
            match &what {
                Filled::Manifest(digest) if manifests.contains(digest) => {
                    self.keep_mark(repo, what).await?;
                    continue;
                }
                Filled::Blob(digest) if blobs.contains(digest) => {
                    self.keep_mark(repo, what).await?;
                    continue;
                }
                Filled::Manifest(digest) => {
                    self.remove_revision(guard, repo, digest).await?;
                    expired.manifests += 1;
                }
                Filled::Blob(digest) => {
                    let link = Key::Layer(repo.clone(), *digest);
                    self.store().delete(&link, Durability::Durable).await?;
                    self.uncharge(repo, Item::Blob(*digest));
                    expired.blobs += 1;
                }
                Filled::Tag(_) => {}
            }
            let mark = Key::Filled(repo.clone(), what);
            self.store().delete(&mark, Durability::Lazy).await?;
        }
        Ok(expired)
    }

    /// Something that is old is a part of something that is not: it need not be looked at for some time.
    async fn keep_mark(&self, repo: &RepoName, what: Filled) -> Result<()> {
        let key = Key::Filled(repo.clone(), what);
        let empty = bytes::Bytes::new();
        Ok(self.store().put(&key, empty, Durability::Lazy).await?)
    }

    /// The manifests that tags point to, that were pushed, or that were asked for lately, with all that they refer to.
    async fn live(
        &self,
        repo: &RepoName,
        old: &HashSet<Filled>,
    ) -> Result<(HashSet<Digest>, HashSet<Digest>)> {
        let mut waiting: Vec<Digest> = self.tag_list(repo).await?.values().copied().collect();
        for algorithm in Algorithm::ALL {
            let dir = Dir::Revisions(repo.clone(), algorithm);
            let names = self.store().list(&dir, None, usize::MAX).await?;
            let revisions = names
                .iter()
                .filter_map(|hex| Digest::from_parts(algorithm, hex).ok());
            waiting.extend(revisions.filter(|digest| !old.contains(&Filled::Manifest(*digest))));
        }
        let (mut manifests, mut blobs) = (HashSet::new(), HashSet::new());
        while let Some(digest) = waiting.pop() {
            if !manifests.insert(digest) {
                continue;
            }
            let Some(manifest) = self.parsed(repo, &digest).await? else {
                continue;
            };
            for (what, role) in manifest.references() {
                match role {
                    Role::Child => {
                        waiting.push(what.digest);
                        blobs.insert(what.digest); // which it can be as well
                    }
                    Role::Subject => {}
                    _ => _ = blobs.insert(what.digest),
                }
            }
        }
        Ok((manifests, blobs))
    }
}
