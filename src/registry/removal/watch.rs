//! What is pushed to a repository while it is planned what goes from it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::oci::{Digest, RepoName};

/// Tells of the manifests that are pushed to a repository while somebody plans what goes from it.
#[derive(Default)]
pub(in super::super) struct Pushed(Arc<Mutex<Watched>>);

#[derive(Default)]
struct Watched {
    next: u64,
    repos: HashMap<RepoName, HashMap<u64, Vec<Digest>>>,
}

/// What was pushed to one repository since it was made.
pub(super) struct Watch {
    pushed: Arc<Mutex<Watched>>,
    repo: RepoName,
    id: u64,
    seen: HashSet<Digest>,
}

fn lock(watched: &Mutex<Watched>) -> MutexGuard<'_, Watched> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pushed {
    pub(super) fn watch(&self, repo: &RepoName) -> Watch {
        let mut watched = lock(&self.0);
        let id = watched.next;
        watched.next += 1;
        let watches = watched.repos.entry(repo.clone()).or_default();
        watches.insert(id, Vec::new());
        Watch {
            pushed: self.0.clone(),
            repo: repo.clone(),
            id,
            seen: HashSet::new(),
        }
    }

    /// To be told of every manifest that is stored or gets a tag, under its repository's lock.
    pub(in super::super) fn note(&self, repo: &RepoName, digest: &Digest) {
        if let Some(watches) = lock(&self.0).repos.get_mut(repo) {
            watches.values_mut().for_each(|seen| seen.push(*digest));
        }
    }
}

impl Watch {
    pub(super) fn take(&mut self) -> Vec<Digest> {
        let mut watched = lock(&self.pushed);
        let watches = watched.repos.get_mut(&self.repo);
        let news = watches.and_then(|watches| watches.get_mut(&self.id));
        let news = news.map(std::mem::take).unwrap_or_default();
        drop(watched);
        self.seen.extend(&news);
        news
    }

    pub(super) fn saw(&self, digest: &Digest) -> bool {
        self.seen.contains(digest)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = lock(&self.pushed);
        if let Some(watches) = watched.repos.get_mut(&self.repo) {
            watches.remove(&self.id);
            if watches.is_empty() {
                watched.repos.remove(&self.repo);
            }
        }
    }
}
