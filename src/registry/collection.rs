//! Garbage collection, in steps that each take a moment: marks what the manifests of every repository refer to, and
//! removes what is left, while clients push and pull.
//!
//! ```text
//! for each repository: list its manifests (under its lock) -> read each -> remove untagged ones (if told to)
//!                      -> remove links to blobs that none of them refers to -> remember what they do refer to
//! then for each blob:  remove it unless it is remembered
//! ```
//!
//! Why nothing is removed that is needed: a manifest that was accepted before its repository was listed is seen; one that
//! came after vouched for everything it refers to, and what is vouched for since the collection began stays (`pins.rs`).
//! Where a manifest cannot be read, everything that its repository has is kept. Where a repository cannot be read, the
//! collection ends in an error before any blob goes.

use std::collections::{HashMap, HashSet};

use tokio::sync::OwnedMutexGuard;

use super::marks::Marks;
use super::survey::{Found, Unreadable, unreached};
use super::sweep::{Rules, Swept};
use super::{Registry, Result};
use crate::oci::{Algorithm, Digest, RepoName};
use crate::storage::{Dir, Key};

/// What a collection is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scope {
    /// Remove nothing, and say what would go.
    pub(crate) dry_run: bool,
    /// Take manifests too that no tag leads to.
    pub(crate) untagged: bool,
    /// No process serves the tree: the age of files decides what is young, not what clients were told.
    pub(crate) alone: bool,
}

/// What one did so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// Looked through.
    pub(crate) repositories: u64,
    /// Read.
    pub(crate) manifests: u64,
    /// In use.
    pub(crate) kept: u64,
    /// Removed, or with a dry run: to be removed. So are the next five.
    pub(crate) blobs: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    pub(crate) untagged: u64,
    pub(crate) links: u64,
    pub(crate) emptied: u64,
    pub(crate) debris: u64,
    /// Not in use, but somebody may be about to use them: within the grace.
    pub(crate) young_blobs: u64,
    pub(crate) young_bytes: u64,
    /// Repositories of which everything was kept, and why; at most `DOUBTS`.
    pub(crate) doubts: Vec<String>,
    /// How many there were.
    pub(crate) doubtful: u64,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} blobs with {} bytes removed, {} in use",
            self.blobs, self.bytes, self.kept
        )?;
        if self.young_blobs > 0 {
            let (blobs, bytes) = (self.young_blobs, self.young_bytes);
            write!(f, ", {blobs} with {bytes} bytes within the grace")?;
        }
        if self.doubtful > 0 {
            write!(f, ", {} repositories kept whole", self.doubtful)?;
        }
        Ok(())
    }
}

/// What a step removed, or would have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Removed {
    Blob { digest: Digest, bytes: u64 },
    Manifest { repo: RepoName, digest: Digest },
    Repository(RepoName),
}

/// What a step did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stepped {
    Looked,
    Removed(Removed),
    Done,
}

/// As many as somebody will read.
const DOUBTS: usize = 100;

/// One run of it. Holds 16 bytes for each blob in use, and what one repository's manifests refer to.
pub(crate) struct Collection {
    registry: Registry,
    scope: Scope,
    report: Report,
    marks: Marks,
    /// Not in use, but linked by somebody who may be about to use it.
    young: Marks,
    /// Set where something may be in use that nobody can name: then no blob is removed.
    blind: bool,
    stage: Stage,
    /// Held from the first step: two at a time would take away what the other counts on.
    alone: Option<OwnedMutexGuard<()>>,
}

enum Stage {
    Begin,
    Repositories {
        left: Vec<(RepoName, bool)>,
        now: Option<Box<Looking>>,
    },
    Blobs {
        shards: Vec<(Algorithm, u8)>,
        unmarked: Vec<Digest>,
    },
    Done,
}

/// A repository that is being looked at.
struct Looking {
    repo: RepoName,
    /// Whether it is in the catalog.
    listed: bool,
    tagged: HashSet<Digest>,
    /// Manifests still to be read, and those that were.
    unread: Vec<Digest>,
    read: HashSet<Digest>,
    /// Those that are the repository's own, and those that its indexes list.
    linked: HashSet<Digest>,
    children: HashSet<Digest>,
    found: HashMap<Digest, Found>,
    /// Folders that deleted manifests left.
    orphans: Vec<Digest>,
    /// Why what its manifests refer to is not known.
    doubt: Option<String>,
    /// Whether a link is kept that nothing refers to.
    young: bool,
    part: Part,
}

enum Part {
    Read,
    /// Untagged manifests, those that keep others last; which stay after all; what these keep.
    Untagged {
        left: Vec<Digest>,
        survivors: HashSet<Digest>,
        spared: HashSet<Digest>,
    },
    Links {
        marks: Marks,
        left: Vec<Digest>,
        removed: bool,
    },
    End,
}

impl Registry {
    /// A collection that has not begun. It waits for its turn: only one runs at a time.
    pub(crate) fn collection(&self, scope: Scope) -> Collection {
        Collection {
            registry: self.clone(),
            scope,
            report: Report::default(),
            marks: Marks::default(),
            young: Marks::default(),
            blind: false,
            stage: Stage::Begin,
            alone: None,
        }
    }

    /// How long until a collection may remove anything.
    pub(crate) fn collectable_in(&self) -> std::time::Duration {
        self.0.pins.not_before()
    }
}

impl Collection {
    pub(crate) fn report(&self) -> &Report {
        &self.report
    }

    fn rules(&self) -> Rules {
        Rules {
            dry_run: self.scope.dry_run,
            alone: self.scope.alone,
        }
    }

    /// Goes on for a moment. After an error nothing more may be expected of it; whatever it removed was not needed.
    pub(crate) async fn step(&mut self) -> Result<Stepped> {
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Begin => self.begin().await,
            Stage::Repositories {
                left,
                now: Some(looking),
            } => self.look(left, looking).await,
            Stage::Repositories { left, now: None } => self.next_repo(left).await,
            Stage::Blobs { shards, unmarked } => self.blobs(shards, unmarked).await,
            Stage::Done => Ok(Stepped::Done),
        }
    }

    async fn begin(&mut self) -> Result<Stepped> {
        if !self.scope.dry_run {
            self.registry.writable()?;
        }
        self.alone = Some(self.registry.0.collecting.clone().lock_owned().await);
        self.registry.0.pins.begin_collection();
        let walked = self.registry.walk().await?;
        if let Some(failed) = walked.failed {
            return Err(failed);
        }
        if let Some(name) = walked.strange {
            self.blind = true;
            let doubt = "it cannot be a repository's name; no blob is removed, since manifests may lie there";
            self.doubt(format!("{name}: {doubt}"));
        }
        let left = walked
            .found
            .into_iter()
            .map(|(repo, parts)| (repo, parts.manifests))
            .collect();
        self.stage = Stage::Repositories { left, now: None };
        Ok(Stepped::Looked)
    }

    async fn next_repo(&mut self, mut left: Vec<(RepoName, bool)>) -> Result<Stepped> {
        let Some((repo, has_manifests)) = left.pop() else {
            let shards = |algorithm| (0..=255).map(move |first| (algorithm, first));
            self.stage = Stage::Blobs {
                shards: Algorithm::ALL.into_iter().flat_map(shards).collect(),
                unmarked: Vec::new(),
            };
            return Ok(Stepped::Looked);
        };
        // In a store without folders nothing is left of a repository without manifests, but its name.
        let listed = has_manifests || self.registry.0.catalog.contains(&repo);
        self.report.repositories += u64::from(listed);
        // What is accepted from now on vouches for what it refers to.
        let shared = self.registry.0.locks.share(&repo).await;
        let (unread, strange) = self.registry.revision_names(&repo).await?;
        let tagged = if self.scope.untagged {
            let tags = self.registry.tag_list(&repo).await?;
            tags.values().copied().collect()
        } else {
            HashSet::new()
        };
        drop(shared);
        let doubt = strange.then(|| "it has manifests with names of an unknown kind".to_owned());
        let looking = Looking {
            repo,
            listed,
            tagged,
            unread,
            read: HashSet::new(),
            linked: HashSet::new(),
            children: HashSet::new(),
            found: HashMap::new(),
            orphans: Vec::new(),
            doubt,
            young: false,
            part: Part::Read,
        };
        let now = Some(Box::new(looking));
        self.stage = Stage::Repositories { left, now };
        Ok(Stepped::Looked)
    }

    async fn look(
        &mut self,
        left: Vec<(RepoName, bool)>,
        mut looking: Box<Looking>,
    ) -> Result<Stepped> {
        let part = std::mem::replace(&mut looking.part, Part::End);
        let (stepped, next) = match part {
            Part::Read => self.read(&mut looking).await?,
            Part::Untagged {
                left,
                survivors,
                spared,
            } => self.untagged(&mut looking, left, survivors, spared).await?,
            Part::Links {
                marks,
                left,
                removed,
            } => self.links(&mut looking, marks, left, removed).await?,
            Part::End => (self.end(&looking).await?, None),
        };
        let now = next.map(|part| {
            looking.part = part;
            looking
        });
        self.stage = Stage::Repositories { left, now };
        Ok(stepped)
    }

    async fn read(&mut self, looking: &mut Looking) -> Result<(Stepped, Option<Part>)> {
        let again = Ok((Stepped::Looked, Some(Part::Read)));
        let Some(digest) = looking.unread.pop() else {
            let Some(orphan) = looking.orphans.pop() else {
                return Ok((Stepped::Looked, Some(self.unreached(looking))));
            };
            if !looking.children.contains(&orphan) {
                let (repo, rules) = (looking.repo.clone(), self.rules());
                let swept = self.registry.sweep_revision_folder(repo, orphan, rules);
                self.report.debris += u64::from(swept.await?);
            }
            return again;
        };
        if looking.read.contains(&digest) {
            return again;
        }
        let link = Key::Revision(looking.repo.clone(), digest);
        match self.registry.store().stat(&link).await {
            Ok(_) => _ = looking.linked.insert(digest),
            Err(e) if !e.is_not_found() => return Err(e.into()),
            Err(_) if looking.children.contains(&digest) => {}
            Err(_) => {
                looking.orphans.push(digest);
                return again;
            }
        }
        looking.read.insert(digest);
        match self.registry.look_into(&looking.repo, &digest).await {
            Ok(found) => {
                self.report.manifests += 1;
                for child in &found.children {
                    if looking.children.insert(*child) {
                        looking.unread.push(*child);
                    }
                }
                looking.found.insert(digest, found);
            }
            // A child that was never pushed, or was deleted, refers to nothing.
            Err(Unreadable::Missing) if !looking.linked.contains(&digest) => {}
            Err(e) => {
                let doubt = || format!("the manifest {digest}: {e}");
                looking.doubt.get_or_insert_with(doubt);
            }
        }
        again
    }

    fn unreached(&self, looking: &Looking) -> Part {
        let mut left = Vec::new();
        if self.scope.untagged && looking.doubt.is_none() {
            left = unreached(&looking.found, &looking.tagged);
            left.retain(|digest| looking.linked.contains(digest));
            left.reverse();
        }
        Part::Untagged {
            left,
            survivors: HashSet::new(),
            spared: HashSet::new(),
        }
    }

    async fn untagged(
        &mut self,
        looking: &mut Looking,
        mut left: Vec<Digest>,
        mut survivors: HashSet<Digest>,
        mut spared: HashSet<Digest>,
    ) -> Result<(Stepped, Option<Part>)> {
        let Some(digest) = left.pop() else {
            let part = self.layers(looking).await?;
            return Ok((Stepped::Looked, Some(part)));
        };
        let found = looking.found.get(&digest);
        let about_survivor = found
            .and_then(|found| found.subject)
            .is_some_and(|subject| survivors.contains(&subject));
        let is_kept = spared.contains(&digest) || about_survivor;
        let swept = if is_kept {
            Swept::Young(0)
        } else {
            let repo = looking.repo.clone();
            let rules = self.rules();
            self.registry.sweep_revision(repo, digest, rules).await?
        };
        let mut stepped = Stepped::Looked;
        if let Swept::Young(_) = swept {
            survivors.insert(digest);
            spared.extend(found.iter().flat_map(|found| &found.children));
        } else {
            looking.found.remove(&digest);
            self.report.untagged += 1;
            let repo = looking.repo.clone();
            stepped = Stepped::Removed(Removed::Manifest { repo, digest });
        }
        let part = Part::Untagged {
            left,
            survivors,
            spared,
        };
        Ok((stepped, Some(part)))
    }

    fn doubt(&mut self, doubt: String) {
        log::warn!("collecting garbage: {doubt}");
        self.report.doubtful += 1;
        if self.report.doubts.len() < DOUBTS {
            self.report.doubts.push(doubt);
        }
    }

    /// What the repository has links to, and need not have.
    async fn layers(&mut self, looking: &Looking) -> Result<Part> {
        let mut marks = Marks::default();
        let (mut todo, mut done): (Vec<&Digest>, _) =
            (looking.linked.iter().collect(), HashSet::new());
        while let Some(digest) = todo.pop() {
            if !done.insert(digest) {
                continue;
            }
            match looking.found.get(digest) {
                Some(found) => {
                    found.mark(&mut marks);
                    todo.extend(&found.children);
                }
                // It could not be read, or it has been removed.
                None if looking.doubt.is_some() => marks.insert(digest),
                None => {}
            }
        }
        let repo = &looking.repo;
        let (mut layers, strange) = self.registry.layer_names(repo).await?;
        if let Some(doubt) = &looking.doubt {
            self.doubt(format!("everything in {repo} is kept: {doubt}"));
            // Links of an unknown kind may lead anywhere.
            self.blind |= strange;
            for layer in layers.drain(..) {
                marks.insert(&layer);
                if let Some(target) = self.registry.alias(repo, &layer).await {
                    marks.insert(&target);
                }
            }
        }
        layers.retain(|layer| !marks.contains(layer));
        Ok(Part::Links {
            marks,
            left: layers,
            removed: false,
        })
    }

    async fn links(
        &mut self,
        looking: &mut Looking,
        marks: Marks,
        mut left: Vec<Digest>,
        mut removed: bool,
    ) -> Result<(Stepped, Option<Part>)> {
        let (registry, repo) = (&self.registry, &looking.repo);
        let Some(digest) = left.pop() else {
            if removed {
                // I1: before the content goes.
                for algorithm in Algorithm::ALL {
                    let folder = Dir::Layers(repo.clone(), algorithm);
                    registry.store().sync(&folder).await?;
                }
            }
            self.marks.extend(marks.into_marks());
            return Ok((Stepped::Looked, Some(Part::End)));
        };
        let rules = self.rules();
        match registry.sweep_layer(repo.clone(), digest, rules).await? {
            Swept::Young(_) => {
                self.young.insert(&digest);
                if let Some(target) = registry.alias(repo, &digest).await {
                    self.young.insert(&target);
                }
                looking.young = true;
            }
            Swept::Debris => self.report.debris += 1,
            Swept::Removed(_) => {
                self.report.links += 1;
                removed = !rules.dry_run;
            }
        }
        let part = Part::Links {
            marks,
            left,
            removed,
        };
        Ok((Stepped::Looked, Some(part)))
    }

    async fn end(&mut self, looking: &Looking) -> Result<Stepped> {
        let is_empty = looking.found.is_empty() && !looking.young && looking.doubt.is_none();
        if !looking.listed || !is_empty {
            return Ok(Stepped::Looked);
        }
        let (repo, rules) = (looking.repo.clone(), self.rules());
        if !self.registry.sweep_repo(repo.clone(), rules).await? {
            return Ok(Stepped::Looked);
        }
        self.report.emptied += 1;
        Ok(Stepped::Removed(Removed::Repository(repo)))
    }

    async fn blobs(
        &mut self,
        mut shards: Vec<(Algorithm, u8)>,
        mut unmarked: Vec<Digest>,
    ) -> Result<Stepped> {
        let mut stepped = Stepped::Looked;
        if let Some(digest) = unmarked.pop() {
            let swept = if self.young.contains(&digest) {
                self.registry.young_blob(&digest).await?
            } else {
                self.registry.sweep_blob(digest, self.rules()).await?
            };
            match swept {
                Swept::Removed(bytes) => {
                    self.report.blobs += 1;
                    self.report.bytes += bytes;
                    stepped = Stepped::Removed(Removed::Blob { digest, bytes });
                }
                Swept::Debris => self.report.debris += 1,
                Swept::Young(bytes) => {
                    self.report.young_blobs += 1;
                    self.report.young_bytes += bytes;
                }
            }
        } else if let Some((algorithm, first)) = shards.pop() {
            let folder = Dir::Shard(algorithm, first);
            let names = self
                .registry
                .store()
                .list(&folder, None, usize::MAX)
                .await?;
            for name in names {
                match Digest::from_parts(algorithm, &name) {
                    // In the folder of another shard it is nobody's.
                    Ok(digest) if digest.bytes()[0] != first => {}
                    Ok(digest) if self.blind || self.marks.contains(&digest) => {
                        self.report.kept += 1;
                    }
                    Ok(digest) => unmarked.push(digest),
                    Err(_) => {}
                }
            }
        } else {
            self.alone = None;
            return Ok(Stepped::Done);
        }
        self.stage = Stage::Blobs { shards, unmarked };
        Ok(stepped)
    }
}

#[cfg(test)]
mod tests;
