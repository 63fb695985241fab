//! How many bytes come back: what the manifests that go refer to, but for what any other manifest needs. Shared layers
//! count once, or not at all.
//!
//! A repository's manifests are read only if it has something of what is to go; in a registry with few shared layers that
//! is nearly none.

use std::collections::{HashMap, HashSet};

use super::super::marks::{Mark, Marks, mark};
use super::super::survey::Found;
use super::super::{Registry, Result};
use crate::oci::{Digest, RepoName};
use crate::storage::Key;

pub(super) struct Needs {
    gone: HashMap<RepoName, HashSet<Digest>>,
    /// The manifests that go, still to be read.
    going: Vec<(RepoName, Digest)>,
    /// What they refer to, as long as nothing else does.
    wanted: HashMap<Mark, Digest>,
    /// Whether what was deleted before, and can be brought back, needs something: it does, if it stays for longer.
    held_too: bool,
    repos: Vec<RepoName>,
    now: Option<Reading>,
    sizes: Vec<Digest>,
    is_sized: bool,
    blobs: u64,
    bytes: u64,
}

struct Reading {
    repo: RepoName,
    unread: Vec<Digest>,
    read: HashSet<Digest>,
}

impl Needs {
    pub(super) async fn new(
        registry: &Registry,
        gone: HashMap<RepoName, Vec<Digest>>,
        held_too: bool,
    ) -> Result<Self> {
        let walked = registry.walk().await?;
        let repos = walked.found.into_iter().map(|(repo, _)| repo).collect();
        let going = gone
            .iter()
            .flat_map(|(repo, digests)| digests.iter().map(|digest| (repo.clone(), *digest)));
        Ok(Needs {
            going: going.collect(),
            gone: gone
                .into_iter()
                .map(|(repo, digests)| (repo, digests.into_iter().collect()))
                .collect(),
            wanted: HashMap::new(),
            held_too,
            repos,
            now: None,
            sizes: Vec::new(),
            is_sized: false,
            blobs: 0,
            bytes: 0,
        })
    }

    /// Blobs, and their bytes.
    pub(super) fn freed(&self) -> (u64, u64) {
        (self.blobs, self.bytes)
    }

    /// Reads one manifest, or looks at one repository or one blob. False at the end.
    pub(super) async fn step(&mut self, registry: &Registry) -> Result<bool> {
        if let Some((repo, digest)) = self.going.pop() {
            self.want(registry, &repo, digest).await;
        } else if let Some(mut reading) = self.now.take() {
            if self.read(registry, &mut reading).await? {
                self.now = Some(reading);
            }
        } else if let (Some(repo), false) = (self.repos.pop(), self.wanted.is_empty()) {
            self.now = self.look_at(registry, repo).await?;
        } else if !self.is_sized {
            self.is_sized = true;
            self.sizes = std::mem::take(&mut self.wanted).into_values().collect();
        } else if let Some(digest) = self.sizes.pop() {
            if let Some(len) = registry.blob_len(&digest).await? {
                self.blobs += 1;
                self.bytes += len;
            }
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// What a manifest refers to; of an index also what is no manifest of the repository any more, and stayed for it.
    async fn want(&mut self, registry: &Registry, repo: &RepoName, digest: Digest) {
        let mut todo = vec![digest];
        while let Some(digest) = todo.pop() {
            if self.wanted.insert(mark(&digest), digest).is_none() {
                let (content, listed) = registry.references_of(repo, &digest).await;
                let content = content.into_iter().map(|digest| (mark(&digest), digest));
                self.wanted.extend(content);
                todo.extend(listed);
            }
        }
    }

    /// What of a repository has to be read, if it has anything of what is wanted.
    async fn look_at(&mut self, registry: &Registry, repo: RepoName) -> Result<Option<Reading>> {
        let (revisions, strange) = registry.revision_names(&repo).await?;
        let (layers, strange_layers) = registry.layer_names(&repo).await?;
        let is_wanted = |digest: &Digest| self.wanted.contains_key(&mark(digest));
        if strange || strange_layers {
            // Nobody knows what they need.
            self.wanted.clear();
            return Ok(None);
        }
        if !revisions.iter().chain(&layers).any(is_wanted) {
            return Ok(None);
        }
        let mut unread = revisions;
        if self.held_too {
            for digest in registry.removal_names(&repo).await? {
                let removal = registry.removal(&repo, &digest).await?;
                if removal.is_some_and(|removal| registry.is_undoable(removal.at)) {
                    unread.push(digest);
                }
            }
        }
        if let Some(gone) = self.gone.get(&repo) {
            unread.retain(|digest| !gone.contains(digest));
        }
        Ok(Some(Reading {
            repo,
            unread,
            read: HashSet::new(),
        }))
    }

    async fn read(&mut self, registry: &Registry, reading: &mut Reading) -> Result<bool> {
        let Some(digest) = reading.unread.pop() else {
            return Ok(false);
        };
        if !reading.read.insert(digest) {
            return Ok(true);
        }
        match registry.look_into(&reading.repo, &digest).await {
            Ok(found) => {
                self.keep(&found);
                // An index keeps the content of what it lists, also of what was deleted.
                reading.unread.extend(&found.children);
            }
            Err(_) => {
                // It may need anything that its repository has, if it is one.
                if registry.has_revision(&reading.repo, &digest).await? {
                    let (layers, _) = registry.layer_names(&reading.repo).await?;
                    for digest in layers.iter().chain([&digest]) {
                        self.wanted.remove(&mark(digest));
                    }
                }
            }
        }
        Ok(true)
    }

    fn keep(&mut self, found: &Found) {
        let mut marks = Marks::default();
        found.mark(&mut marks);
        for mark in marks.into_marks() {
            self.wanted.remove(&mark);
        }
    }
}

impl Registry {
    async fn blob_len(&self, digest: &Digest) -> Result<Option<u64>> {
        match self.store().stat(&Key::Blob(*digest)).await {
            Ok(meta) => Ok(Some(meta.len)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}
