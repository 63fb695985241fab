//! Referrers: the manifests that say they are about another one (distribution-spec, "Listing Referrers").
//!
//! Each has an entry below `_referrers/`, named by subject and referrer. Entries are made with the push and are lazy: when
//! a repository is first asked in the life of a process, its revisions are compared with the list of those looked
//! through before, and what is new there (content of a disk that was not ours, or an entry that a power cut took) is read
//! once.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use serde_json::value::RawValue;

use super::locks::RepoGuard;
use super::{Error, Registry, Result};
use crate::oci::{Algorithm, Digest, Manifest, Reference, RepoName};
use crate::storage::{Dir, Durability, Key};

/// A part of a referrers list, ordered by digest.
#[derive(Debug)]
pub(crate) struct Referrers {
    /// Descriptors as JSON.
    pub(crate) descriptors: Vec<Box<RawValue>>,
    /// Where the next part goes on, if there is one: after this referrer.
    pub(crate) next: Option<Digest>,
}

/// Referrers in one answer, unless fewer are asked for.
const PAGE: usize = 1000;
/// Bytes of descriptors in one answer: the size that clients have to expect of a manifest.
const PAGE_BYTES: usize = 3 << 20;
/// A `scanned` file larger than this many bytes (some 900,000 revisions) is made again.
const SCANNED_LIMIT: usize = 64 << 20;

/// The repositories whose revisions this process has looked through.
#[derive(Default)]
pub(super) struct Scanned(Mutex<HashSet<RepoName>>);

impl Scanned {
    fn contains(&self, repo: &RepoName) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(repo)
    }

    fn insert(&self, repo: &RepoName) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(repo.clone());
    }
}

impl Registry {
    /// The manifests of the repository whose subject is `subject`, of one artifact type if that is given, after `last`,
    /// at most `n`. None is an empty list, also for a subject or a repository that is unknown.
    pub(crate) async fn referrers(
        &self,
        repo: &RepoName,
        subject: &Digest,
        artifact_type: Option<&str>,
        last: Option<&Digest>,
        n: Option<usize>,
    ) -> Result<Referrers> {
        self.scan(repo).await?;
        let n = n.unwrap_or(PAGE).min(PAGE);
        let dir = Dir::Referrers(repo.clone(), *subject);
        let after = last.map(Digest::to_string);
        let names = self
            .store()
            .list(&dir, after.as_deref(), usize::MAX)
            .await?;
        let mut page = Referrers {
            descriptors: Vec::new(),
            next: None,
        };
        let mut before = None;
        let mut size = 0;
        for digest in names.iter().filter_map(|name| name.parse::<Digest>().ok()) {
            let Some(descriptor) = self.referrer(repo, subject, &digest, artifact_type).await?
            else {
                continue;
            };
            size += descriptor.get().len();
            if page.descriptors.len() == n || (size > PAGE_BYTES && before.is_some()) {
                page.next = before;
                break;
            }
            page.descriptors.push(descriptor);
            before = Some(digest);
        }
        Ok(page)
    }

    /// The descriptor of one entry, if it still holds and is of the type asked for.
    async fn referrer(
        &self,
        repo: &RepoName,
        subject: &Digest,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Option<Box<RawValue>>> {
        let Some(manifest) = self.parsed(repo, digest).await? else {
            return Ok(None);
        };
        if manifest.subject() != Some(subject)
            || artifact_type.is_some_and(|t| manifest.artifact_type() != Some(t))
        {
            return Ok(None);
        }
        Ok(serde_json::value::to_raw_value(&manifest.to_referrer(digest)).ok())
    }

    /// A manifest of the repository as far as it can be read; one that is gone or damaged is none.
    async fn parsed(&self, repo: &RepoName, digest: &Digest) -> Result<Option<Manifest>> {
        match self.manifest(repo, &Reference::Digest(*digest)).await {
            Ok(stored) => Ok(Manifest::parse(stored.bytes, None).ok()),
            Err(Error::ManifestUnknown | Error::Corrupt(_) | Error::ManifestInvalid(_)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub(super) async fn add_referrer(
        &self,
        repo: &RepoName,
        subject: &Digest,
        referrer: &Digest,
    ) -> Result<()> {
        let key = Key::Referrer {
            repo: repo.clone(),
            subject: *subject,
            referrer: *referrer,
        };
        Ok(self
            .store()
            .put(&key, Bytes::new(), Durability::Lazy)
            .await?)
    }

    pub(super) async fn remove_referrer(
        &self,
        repo: &RepoName,
        subject: &Digest,
        referrer: &Digest,
    ) -> Result<()> {
        let key = Key::Referrer {
            repo: repo.clone(),
            subject: *subject,
            referrer: *referrer,
        };
        Ok(self.store().delete(&key, Durability::Lazy).await?)
    }

    /// The referrers of `subject` that no tag points to.
    pub(super) async fn untagged_referrers(
        &self,
        _guard: &RepoGuard,
        repo: &RepoName,
        subject: &Digest,
    ) -> Result<Vec<Digest>> {
        self.scan_unlocked(repo).await?;
        let names = self
            .store()
            .list(&Dir::Referrers(repo.clone(), *subject), None, usize::MAX)
            .await?;
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let tags = self.tag_list(repo).await?;
        let tagged: HashSet<&Digest> = tags.values().collect();
        let mut untagged = Vec::new();
        for digest in names
            .iter()
            .filter_map(|name| name.parse::<Digest>().ok())
            .filter(|d| !tagged.contains(d))
        {
            if self
                .parsed(repo, &digest)
                .await?
                .is_some_and(|manifest| manifest.subject() == Some(subject))
            {
                untagged.push(digest);
            }
        }
        Ok(untagged)
    }

    async fn scan(&self, repo: &RepoName) -> Result<()> {
        if self.0.scanned.contains(repo) {
            return Ok(());
        }
        let _repo = self.0.locks.share(repo).await;
        self.scan_unlocked(repo).await
    }

    /// Makes entries for the revisions that were never looked through. The caller holds the repository's lock.
    async fn scan_unlocked(&self, repo: &RepoName) -> Result<()> {
        if self.0.scanned.contains(repo) {
            return Ok(());
        }
        let key = Key::Scanned(repo.clone());
        let before: BTreeSet<Digest> = match self.store().get(&key, SCANNED_LIMIT).await {
            Ok(text) => String::from_utf8_lossy(&text)
                .lines()
                .filter_map(|line| line.parse().ok())
                .collect(),
            Err(_) => BTreeSet::new(), // it can be made again, whatever is wrong with it
        };
        let mut revisions = BTreeSet::new();
        for algorithm in Algorithm::ALL {
            let names = self
                .store()
                .list(&Dir::Revisions(repo.clone(), algorithm), None, usize::MAX)
                .await?;
            revisions.extend(
                names
                    .iter()
                    .filter_map(|hex| Digest::from_parts(algorithm, hex).ok()),
            );
        }
        for digest in revisions.difference(&before) {
            let manifest = self.parsed(repo, digest).await?;
            if let Some(subject) = manifest.as_ref().and_then(Manifest::subject) {
                let key = Key::Referrer {
                    repo: repo.clone(),
                    subject: *subject,
                    referrer: *digest,
                };
                self.store()
                    .put(&key, Bytes::new(), Durability::Durable)
                    .await?;
            }
        }
        if revisions != before && !self.settings().read_only {
            let lines: Vec<String> = revisions
                .iter()
                .map(|digest| format!("{digest}\n"))
                .collect();
            self.store()
                .put(&key, lines.concat().into(), Durability::Durable)
                .await?;
        }
        self.0.scanned.insert(repo);
        Ok(())
    }
}
