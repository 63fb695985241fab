//! When manifests were last pulled, for rules that keep what is in use (`keeppulled`).
//!
//! A pull is noted in memory, and written some minutes later, in one small file a repository, and only if the time on the
//! disk is hours behind: what is pulled all day long costs a few writes a day, and what nobody pulls none. A crash loses
//! what was not written yet. Nothing is noted where no rule asks for it.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use lru::LruCache;

use super::history::{from_millis, to_millis};
use super::{Registry, Result};
use crate::oci::{Digest, RepoName};
use crate::storage::{Durability, Key};

/// Pulls not written yet, at some 200 bytes each; beyond that the oldest are forgotten.
const WAITING: NonZeroUsize = NonZeroUsize::new(16 * 1024).expect("not zero");
/// A time on the disk that is no further behind is good enough.
const COARSE: Duration = Duration::from_secs(6 * 3600);
/// Manifests of a repository, those that were pulled last: at 90 bytes a line some 900 kB.
const REMEMBERED: usize = 10_000;

/// Those that were noted since they were last written.
pub(super) struct Noted(Mutex<LruCache<(RepoName, Digest), SystemTime>>);

impl Default for Noted {
    fn default() -> Self {
        Noted(Mutex::new(LruCache::new(WAITING)))
    }
}

impl Noted {
    fn lock(&self) -> MutexGuard<'_, LruCache<(RepoName, Digest), SystemTime>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pulls {
    /// When noting began: what was pulled before is not known.
    since: SystemTime,
    last: HashMap<Digest, SystemTime>,
}

impl Pulls {
    /// When a manifest was last pulled, at the earliest when noting began: until it is known that nobody does, everything
    /// may be in use.
    pub(super) fn of(&self, digest: &Digest) -> SystemTime {
        self.last.get(digest).copied().unwrap_or(self.since)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let since = from_millis(lines.next()?.strip_prefix("since ")?.parse().ok()?);
        let last = lines.filter_map(|line| {
            let (digest, at) = line.split_once(' ')?;
            Some((digest.parse().ok()?, from_millis(at.parse().ok()?)))
        });
        Some(Pulls {
            since,
            last: last.collect(),
        })
    }

    fn to_text(&self) -> String {
        let mut last: Vec<_> = self.last.iter().collect();
        last.sort_by_key(|(digest, at)| (std::cmp::Reverse(**at), **digest));
        last.truncate(REMEMBERED);
        let lines = last
            .iter()
            .map(|(d, at)| format!("{d} {}\n", to_millis(**at)));
        format!(
            "since {}\n{}",
            to_millis(self.since),
            lines.collect::<String>()
        )
    }
}

impl Registry {
    /// A manifest was asked for.
    pub(crate) fn note_pull(&self, repo: &RepoName, digest: &Digest) {
        let mut rules = self.retention_rules();
        if rules.any(|rule| rule.keep_pulled.is_some() && rule.is_about(repo)) {
            let key = (repo.clone(), *digest);
            self.0.pulls.lock().put(key, SystemTime::now());
        }
    }

    /// Writes what was noted. Says how many files it wrote.
    pub(crate) async fn write_pulls(&self) -> Result<usize> {
        if self.settings().read_only {
            return Ok(0);
        }
        let mut noted: HashMap<RepoName, Vec<(Digest, SystemTime)>> = HashMap::new();
        for ((repo, digest), at) in std::iter::from_fn(|| self.0.pulls.lock().pop_lru()) {
            noted.entry(repo).or_default().push((digest, at));
        }
        let mut written = 0;
        for (repo, news) in noted {
            let mut pulls = self.pulls(&repo).await?;
            let is_behind = |(digest, at): &(Digest, SystemTime)| {
                let known = pulls.last.get(digest);
                known.is_none_or(|known| at.duration_since(*known).is_ok_and(|by| by > COARSE))
            };
            if news.iter().any(is_behind) {
                pulls.last.extend(news);
                self.write_pulls_of(&repo, &pulls).await?;
                written += 1;
            }
        }
        Ok(written)
    }

    /// What is known of a repository. Noting begins when this is first asked.
    pub(super) async fn pulls(&self, repo: &RepoName) -> Result<Pulls> {
        let key = Key::Pulls(repo.clone());
        let known = self.note(&key).await?.and_then(|text| Pulls::parse(&text));
        if let Some(mut pulls) = known {
            for ((of, digest), at) in self.0.pulls.lock().iter() {
                if of == repo {
                    pulls.last.insert(*digest, *at);
                }
            }
            return Ok(pulls);
        }
        let pulls = Pulls {
            since: SystemTime::now(),
            last: HashMap::new(),
        };
        if !self.settings().read_only {
            self.write_pulls_of(repo, &pulls).await?;
        }
        Ok(pulls)
    }

    async fn write_pulls_of(&self, repo: &RepoName, pulls: &Pulls) -> Result<()> {
        let key = Key::Pulls(repo.clone());
        let text = pulls.to_text();
        Ok(self
            .store()
            .put(&key, text.into(), Durability::Lazy)
            .await?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::oci::{Algorithm, Reference};
    use crate::registry::Settings;
    use crate::registry::retention::Rule;
    use crate::storage::{MemStore, Store};

    proptest! {
        #[test]
        fn what_is_written_is_read(since in 0u64..1 << 45, times in proptest::collection::vec(0u64..1 << 45, 0..20)) {
            let last = times.iter().map(|at| (Algorithm::Sha256.digest(&at.to_be_bytes()), from_millis(*at)));
            let pulls = Pulls { since: from_millis(since), last: last.collect() };
            prop_assert_eq!(Pulls::parse(&pulls.to_text()), Some(pulls));
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = Pulls::parse(&text);
        }
    }

    #[tokio::test]
    async fn what_is_pulled_all_the_time_is_written_seldom() {
        let store = MemStore::default();
        let mut settings = Settings::default();
        let repo: RepoName = "a".parse().unwrap();
        let digest = Algorithm::Sha256.digest(b"a");
        let registry = Registry::new(store.clone(), settings.clone()).unwrap();
        registry.note_pull(&repo, &digest);
        assert_eq!(
            registry.write_pulls().await.unwrap(),
            0,
            "no rule asks for it"
        );
        let reference = Reference::Digest(digest);
        assert!(registry.manifest(&repo, &reference).await.is_err());
        settings.retention.rules = vec![Rule {
            keep_pulled: Some(Duration::from_secs(1)),
            ..Rule::default()
        }];
        let registry = Registry::new(store.clone(), settings.clone()).unwrap();
        let begun = SystemTime::now();
        for round in 0..5 {
            registry.note_pull(&repo, &digest);
            let written = registry.write_pulls().await.unwrap();
            assert_eq!(written, usize::from(round == 0));
        }
        assert_eq!(registry.write_pulls().await.unwrap(), 0);
        // The next process knows it.
        let registry = Registry::new(store.clone(), settings).unwrap();
        let pulls = registry.pulls(&repo).await.unwrap();
        assert!(to_millis(pulls.of(&digest)) >= to_millis(begun));
        let other = Algorithm::Sha256.digest(b"b");
        assert_eq!(pulls.of(&other), pulls.since);
        assert!(store.stat(&Key::Pulls(repo)).await.is_ok());
    }
}
