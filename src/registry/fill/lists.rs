//! Lists that are longer at the upstream than here: tags and referrers.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::oci::{Digest, RepoName, Tag};
use crate::registry::{Page, Registry, Result};
use crate::upstream::Referrer;

/// How long an answer is used: clients ask for one list page by page.
const KEPT: Duration = Duration::from_secs(30);
/// Lists of each kind. One is at most some MiB.
const LISTS: NonZeroUsize = NonZeroUsize::new(4).expect("not zero");

type Lately<K, T> = Mutex<LruCache<K, (Instant, Arc<T>)>>;

pub(super) struct Lists {
    tags: Lately<RepoName, BTreeSet<Tag>>,
    referrers: Lately<(RepoName, Digest), Vec<Referrer>>,
}

impl Default for Lists {
    fn default() -> Self {
        Lists {
            tags: Mutex::new(LruCache::new(LISTS)),
            referrers: Mutex::new(LruCache::new(LISTS)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is remembered, or what `ask` says, which is remembered then.
async fn lately<K: std::hash::Hash + Eq, T, E>(
    known: &Lately<K, T>,
    key: K,
    ask: impl Future<Output = Result<T, E>>,
) -> Option<Arc<T>> {
    if let Some((at, list)) = lock(known).get(&key)
        && at.elapsed() < KEPT
    {
        return Some(list.clone());
    }
    let list = Arc::new(ask.await.ok()?);
    lock(known).put(key, (Instant::now(), list.clone()));
    Some(list)
}

impl Registry {
    /// As `tags`, with those of the upstream; and whether the upstream could not be asked.
    pub(crate) async fn pull_tags(
        &self,
        repo: &RepoName,
        last: Option<&str>,
        n: Option<usize>,
    ) -> Result<(Page<Tag>, bool)> {
        let Some(mirror) = self.mirror() else {
            return Ok((self.tags(repo, last, n).await?, false));
        };
        let upstreams = match mirror.upstream.away() {
            Some(_) => None,
            None => {
                let ask = async {
                    match mirror.upstream.tags(repo).await {
                        Ok(tags) => Ok(tags.into_iter().collect()),
                        Err(e) if e.is_unknown() => Ok(BTreeSet::new()),
                        Err(e) => Err(e),
                    }
                };
                lately(&mirror.lists.tags, repo.clone(), ask).await
            }
        };
        let Some(upstreams) = upstreams else {
            return Ok((self.tags(repo, last, n).await?, true));
        };
        if upstreams.is_empty() {
            return Ok((self.tags(repo, last, n).await?, false));
        }
        let n = n
            .unwrap_or(usize::MAX)
            .min(self.settings().tags_max.unwrap_or(usize::MAX));
        let _repo = self.0.locks.share(repo).await;
        let own = self.tag_list(repo).await?;
        let all: BTreeSet<&Tag> = own.keys().chain(upstreams.iter()).collect();
        let mut rest = all
            .into_iter()
            .filter(|tag| last.is_none_or(|last| tag.as_str() > last));
        let items: Vec<Tag> = rest.by_ref().take(n).cloned().collect();
        let more = n > 0 && rest.next().is_some();
        Ok((Page { items, more }, false))
    }

    /// What the upstream knows to be about `subject`, if it can be asked and has such lists.
    pub(in crate::registry) async fn upstream_referrers(
        &self,
        repo: &RepoName,
        subject: &Digest,
    ) -> Option<Arc<Vec<Referrer>>> {
        let mirror = self.mirror()?;
        if mirror.upstream.away().is_some() {
            return None;
        }
        let key = (repo.clone(), *subject);
        let ask = async {
            match mirror.upstream.referrers(repo, subject).await {
                Err(e) if e.is_unknown() => Ok(Vec::new()),
                other => other,
            }
        };
        lately(&mirror.lists.referrers, key, ask).await
    }
}
