//! Referrers: the manifests that say they are about another one (distribution-spec, "Listing Referrers").
//!
//! Each has an entry below `_referrers/`, named by subject and referrer, which is made before the referrer's revision. When
//! a repository is first asked in the life of a process, its revisions are compared with the list of those looked
//! through before, and what is new there (content of a disk that was not ours) is read once.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::value::RawValue;

use super::locks::RepoGuard;
use super::{Error, Registry, Result};
use crate::oci::{Algorithm, Digest, Manifest, RepoName, Role};
use crate::storage::{Dir, Durability, Key, referrer_name, referrer_of};
use crate::upstream::Referrer;

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

/// Referrers kept in memory that cannot be noted on the disk, of all repositories together: some 8 MiB.
const UNSAVED_LIMIT: usize = 50_000;

/// What a scan found and could not write down: subjects, each with a referrer.
pub(super) type Unsaved = Arc<[(Digest, Digest)]>;

/// The repositories whose revisions this process has looked through.
#[derive(Default)]
pub(super) struct Scanned {
    repos: Mutex<HashMap<RepoName, Unsaved>>,
    /// One at a time: it reads every manifest of a repository, which a disk should not do twice at once.
    scanning: tokio::sync::Mutex<()>,
}

impl Scanned {
    fn repos(&self) -> MutexGuard<'_, HashMap<RepoName, Unsaved>> {
        self.repos.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, repo: &RepoName) -> Option<Unsaved> {
        self.repos().get(repo).cloned()
    }

    /// Remembers it, unless that would take too much memory: then it is looked for again.
    fn insert(&self, repo: &RepoName, unsaved: &Unsaved) {
        let mut repos = self.repos();
        let kept: usize = repos.values().map(|unsaved| unsaved.len()).sum();
        if unsaved.is_empty() || kept + unsaved.len() <= UNSAVED_LIMIT {
            repos.insert(repo.clone(), unsaved.clone());
        }
    }

    pub(super) fn forget(&self, repo: &RepoName) {
        self.repos
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(repo);
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
        let unsaved = self.scan(repo).await?;
        let n = n.unwrap_or(PAGE).min(PAGE);
        let mut names: BTreeSet<String> = self.entries(repo, subject).await?.into_iter().collect();
        names.extend(
            unsaved
                .iter()
                .filter(|(s, _)| s == subject)
                .map(|(_, referrer)| referrer_name(referrer)),
        );
        if let Some(last) = last {
            names = names.split_off(&referrer_name(last));
            names.remove(&referrer_name(last));
        }
        let upstreams = self.upstream_referrers(repo, subject).await;
        let upstreams: HashMap<Digest, &Referrer> = upstreams
            .iter()
            .flat_map(|list| list.iter())
            .filter(|r| artifact_type.is_none() || r.artifact_type.as_deref() == artifact_type)
            .filter(|r| last.is_none_or(|last| referrer_name(&r.digest) > referrer_name(last)))
            .map(|r| (r.digest, r))
            .collect();
        names.extend(upstreams.keys().map(referrer_name));
        let mut page = Referrers {
            descriptors: Vec::new(),
            next: None,
        };
        let mut before = None;
        let mut size = 0;
        for digest in names.iter().filter_map(|name| referrer_of(name)) {
            let here = self.referrer(repo, subject, &digest, artifact_type).await?;
            let there = || upstreams.get(&digest).map(|referrer| referrer.json.clone());
            let Some(descriptor) = here.or_else(there) else {
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
    pub(super) async fn parsed(
        &self,
        repo: &RepoName,
        digest: &Digest,
    ) -> Result<Option<Manifest>> {
        match self.read_manifest(repo, digest).await {
            Ok(stored) => Ok(Manifest::parse(stored.bytes, None).ok()),
            Err(Error::ManifestUnknown | Error::ManifestInvalid(_)) => Ok(None),
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
            .put(&key, Bytes::new(), Durability::Durable)
            .await?)
    }

    async fn entries(&self, repo: &RepoName, subject: &Digest) -> Result<Vec<String>> {
        Ok(self
            .store()
            .list(&Dir::Referrers(repo.clone(), *subject), None, usize::MAX)
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

    /// The referrers of `subject` that nothing else holds: no tag, and no index that a tag points to.
    pub(super) async fn untagged_referrers(
        &self,
        _guard: &RepoGuard,
        repo: &RepoName,
        subject: &Digest,
    ) -> Result<Vec<Digest>> {
        let mut untagged = Vec::new();
        for digest in self
            .entries(repo, subject)
            .await?
            .iter()
            .filter_map(|name| referrer_of(name))
        {
            if self
                .parsed(repo, &digest)
                .await?
                .is_some_and(|manifest| manifest.subject() == Some(subject))
            {
                untagged.push(digest);
            }
        }
        if untagged.is_empty() {
            return Ok(untagged);
        }
        let tagged: HashSet<Digest> = self.tag_list(repo).await?.values().copied().collect();
        for digest in &tagged {
            let Some(manifest) = self.parsed(repo, digest).await? else {
                continue;
            };
            let held = |digest: &Digest| {
                manifest
                    .references()
                    .any(|(d, role)| role == Role::Child && d.digest == *digest)
            };
            untagged.retain(|digest| !held(digest));
        }
        untagged.retain(|digest| !tagged.contains(digest));
        Ok(untagged)
    }

    /// Makes entries for the revisions that were never looked through, and returns what could not be written down. Takes no
    /// lock of the repository: entries are hints that are checked when they are used.
    pub(super) async fn scan(&self, repo: &RepoName) -> Result<Unsaved> {
        if let Some(unsaved) = self.0.scanned.get(repo) {
            return Ok(unsaved);
        }
        let _scanning = self.0.scanned.scanning.lock().await;
        if let Some(unsaved) = self.0.scanned.get(repo) {
            return Ok(unsaved);
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
        if revisions.is_empty() {
            return Ok(Unsaved::default()); // nor is it remembered: anybody can ask for any name
        }
        let mut seen: BTreeSet<Digest> = revisions.intersection(&before).copied().collect();
        let mut unsaved = Vec::new();
        for digest in revisions.difference(&before) {
            // A folder without a link, or a manifest that cannot be read, may be another thing the next time.
            let Some(manifest) = self.parsed(repo, digest).await? else {
                continue;
            };
            if let Some(subject) = manifest.subject()
                && !self.note_referrer(repo, subject, digest).await
            {
                unsaved.push((*subject, *digest));
                continue;
            }
            seen.insert(*digest);
        }
        if seen != before && !self.is_read_only() {
            let lines: Vec<String> = seen.iter().map(|digest| format!("{digest}\n")).collect();
            if let Err(e) = self
                .store()
                .put(&key, lines.concat().into(), Durability::Durable)
                .await
            {
                log::warn!(
                    "the referrers of {repo} will be looked for again after the next start: {e}"
                );
            }
        }
        let unsaved = Unsaved::from(unsaved);
        // What could not be noted for another reason than that nothing may be written is tried again.
        if unsaved.is_empty() || self.is_read_only() {
            self.0.scanned.insert(repo, &unsaved);
        }
        Ok(unsaved)
    }

    async fn note_referrer(&self, repo: &RepoName, subject: &Digest, referrer: &Digest) -> bool {
        if self.is_read_only() {
            return false;
        }
        let noted = self.add_referrer(repo, subject, referrer).await;
        noted
            .inspect_err(|e| {
                log::warn!("a referrer of {subject} in {repo} could not be noted: {e}")
            })
            .is_ok()
    }
}
