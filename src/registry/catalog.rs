//! The list of repositories, kept in memory once the tree has been walked.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Page, Registry, Result, Shown};
use crate::oci::RepoName;

/// How long a list counts in which some may be missing, since a folder could not be read: long enough that those who ask
/// all the time do not keep the disk busy with it.
const PARTIAL: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Catalog {
    /// Only one request walks the tree; the others wait for it.
    walking: tokio::sync::Mutex<()>,
    names: Mutex<Names>,
}

#[derive(Default)]
struct Names {
    /// In the catalog's order; `None` before the first walk.
    sorted: Option<Arc<Vec<RepoName>>>,
    /// Until when `sorted` counts, if some may be missing.
    until: Option<Instant>,
    /// Came while the tree was walked, or will have to be walked again.
    news: HashSet<RepoName>,
    /// Have blobs, and had no manifest when they got the first one. Some may have become repositories since.
    begun: Arc<HashSet<RepoName>>,
}

impl Names {
    fn is_known(&self, repo: &RepoName) -> bool {
        match &self.sorted {
            None => self.news.contains(repo),
            Some(sorted) => sorted
                .binary_search_by(|name| name.cmp_components(repo))
                .is_ok(),
        }
    }

    fn current(&self) -> Option<Arc<Vec<RepoName>>> {
        let is_over = self.until.is_some_and(|until| until <= Instant::now());
        self.sorted.clone().filter(|_| !is_over)
    }
}

impl Catalog {
    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be told of every repository that gets its first manifest.
    pub(super) fn add(&self, repo: &RepoName) {
        let mut names = self.names();
        if names.sorted.is_none() || names.until.is_some() {
            names.news.insert(repo.clone());
        }
        if let Some(sorted) = &mut names.sorted
            && let Err(at) = sorted.binary_search_by(|name| name.cmp_components(repo))
        {
            Arc::make_mut(sorted).insert(at, repo.clone());
        }
        if names.begun.contains(repo) {
            Arc::make_mut(&mut names.begun).remove(repo);
        }
    }

    /// To be told of every name under which a blob is linked.
    pub(super) fn begin(&self, repo: &RepoName) {
        let mut names = self.names();
        if !names.is_known(repo) && !names.begun.contains(repo) {
            Arc::make_mut(&mut names.begun).insert(repo.clone());
        }
    }

    /// Names that have blobs, and are in no catalog yet. What lay on the disk before is among them once the tree was walked.
    pub(super) fn begun(&self) -> Arc<HashSet<RepoName>> {
        self.names().begun.clone()
    }

    pub(super) fn contains(&self, repo: &RepoName) -> bool {
        self.names().is_known(repo)
    }

    /// To be told of a repository that has no manifest any more and is none now. The caller holds its lock.
    pub(super) fn remove(&self, repo: &RepoName) {
        let mut names = self.names();
        names.news.remove(repo);
        if let Some(sorted) = &mut names.sorted
            && let Ok(at) = sorted.binary_search_by(|name| name.cmp_components(repo))
        {
            Arc::make_mut(sorted).remove(at);
        }
        if names.begun.contains(repo) {
            Arc::make_mut(&mut names.begun).remove(repo);
        }
    }
}

impl Registry {
    /// Those of `shown` after `last`, by component as distribution sorts them; `n` of them, within the configured limit.
    pub(crate) async fn catalog(
        &self,
        last: Option<&str>,
        n: Option<usize>,
        shown: Shown<'_>,
    ) -> Result<Page<RepoName>> {
        let names = self.all_repos().await?;
        let start = last.map_or(0, |last| {
            names.partition_point(|name| by_component(name.as_str(), last).is_le())
        });
        let n = n.unwrap_or(usize::MAX).min(self.settings().catalog_max);
        let mut rest = names[start..].iter().filter(|name| shown.contains(name));
        Ok(Page {
            items: rest.by_ref().take(n).cloned().collect(),
            more: n > 0 && rest.next().is_some(),
        })
    }

    /// All repositories, in the catalog's order. The first call walks the tree, and so does one after a walk that could not
    /// look everywhere.
    pub(super) async fn all_repos(&self) -> Result<Arc<Vec<RepoName>>> {
        let catalog = &self.0.catalog;
        if let Some(sorted) = catalog.names().current() {
            return Ok(sorted);
        }
        let _walking = catalog.walking.lock().await;
        if let Some(sorted) = catalog.names().current() {
            return Ok(sorted);
        }
        let walked = self.walk().await?;
        let mut names = catalog.names();
        let (mut sorted, mut begun) = (Vec::new(), names.begun.clone());
        for (name, parts) in walked.found {
            if parts.manifests {
                sorted.push(name);
            } else if parts.layers && !begun.contains(&name) {
                Arc::make_mut(&mut begun).insert(name);
            }
        }
        if walked.failed.is_some() {
            sorted.extend(names.news.iter().cloned());
            names.until = Some(Instant::now() + PARTIAL);
        } else {
            sorted.extend(names.news.drain());
            names.until = None;
        }
        sorted.sort_unstable_by(RepoName::cmp_components);
        sorted.dedup();
        let sorted = Arc::new(sorted);
        names.sorted = Some(sorted.clone());
        names.begun = begun;
        Ok(sorted)
    }

    /// Walks the tree before somebody asks for the catalog.
    pub(crate) async fn warm_up(&self) -> Result<usize> {
        Ok(self.all_repos().await?.len())
    }
}

fn by_component(a: &str, b: &str) -> Ordering {
    a.split('/').cmp(b.split('/'))
}
