//! The list of repositories, kept in memory once the tree has been walked.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Page, Registry, Result, Shown};
use crate::oci::RepoName;

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
    /// Came while the tree was walked.
    news: HashSet<RepoName>,
}

impl Catalog {
    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be told of every repository that gets its first manifest.
    pub(super) fn add(&self, repo: &RepoName) {
        let mut names = self.names();
        match &mut names.sorted {
            None => {
                names.news.insert(repo.clone());
            }
            Some(sorted) => {
                if let Err(at) = sorted.binary_search_by(|name| name.cmp_components(repo)) {
                    Arc::make_mut(sorted).insert(at, repo.clone());
                }
            }
        }
    }
}

impl Catalog {
    pub(super) fn contains(&self, repo: &RepoName) -> bool {
        let names = self.names();
        match &names.sorted {
            None => names.news.contains(repo),
            Some(sorted) => sorted
                .binary_search_by(|name| name.cmp_components(repo))
                .is_ok(),
        }
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

    /// All repositories, in the catalog's order. The first call walks the tree.
    pub(super) async fn all_repos(&self) -> Result<Arc<Vec<RepoName>>> {
        let catalog = &self.0.catalog;
        if let Some(sorted) = &catalog.names().sorted {
            return Ok(sorted.clone());
        }
        let _walking = catalog.walking.lock().await;
        if let Some(sorted) = &catalog.names().sorted {
            return Ok(sorted.clone());
        }
        let walked = self.walk().await?;
        let mut names = catalog.names();
        let mut sorted: Vec<RepoName> = walked
            .found
            .into_iter()
            .filter(|(_, parts)| parts.manifests)
            .map(|(name, _)| name)
            .collect();
        sorted.extend(names.news.drain());
        sorted.sort_unstable_by(RepoName::cmp_components);
        sorted.dedup();
        let sorted = Arc::new(sorted);
        names.sorted = Some(sorted.clone());
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
