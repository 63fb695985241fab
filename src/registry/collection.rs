//! Garbage collection, in steps that each take a moment: marks what the manifests of every repository refer to, and
//! removes what is left, while clients push and pull.
//!
//! ```text
//! for each repository: list its manifests (under its lock) -> add deleted ones that can be brought back -> read each
//!                      -> remove untagged ones (if told to)
//!                      -> remove links to blobs that none of them refers to -> remember what they do refer to
//! then for each blob:  remove it unless it is remembered
//! ```
//!
//! Why nothing is removed that is needed: a manifest that was accepted before its repository was listed is seen; one that
//! came after vouched for everything it refers to, and what is vouched for since the collection began stays (`pins.rs`).
//! Where a manifest cannot be read, everything that its repository has is kept. Where a repository cannot be read, the
//! collection ends in an error before any blob goes.

mod held;
mod looking;

use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use tokio::sync::OwnedMutexGuard;

use super::marks::Marks;
use super::sweep::{Rules, Swept};
use super::{Registry, Result};
use crate::oci::{Algorithm, Digest, RepoName};
use crate::storage::Dir;
use looking::Looking;

/// What a collection is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scope {
    /// Remove nothing, and say what would go.
    pub(crate) dry_run: bool,
    /// Take manifests too that no tag leads to.
    pub(crate) untagged: bool,
    /// Take what is kept only so that a delete can be undone, too: where room is needed more.
    pub(crate) forget_undo: bool,
    /// No process serves the tree: the age of files decides what is young, not what clients were told.
    pub(crate) alone: bool,
    /// Another than `gc.grace`.
    pub(crate) grace: Option<Duration>,
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
    /// Not in use, but a delete that needs them can still be undone.
    pub(crate) held_blobs: u64,
    pub(crate) held_bytes: u64,
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
        if self.held_blobs > 0 {
            let (blobs, bytes) = (self.held_blobs, self.held_bytes);
            write!(f, ", {blobs} with {bytes} bytes kept for an undo")?;
        }
        if self.doubtful > 0 {
            write!(f, ", {} repositories kept whole", self.doubtful)?;
        }
        Ok(())
    }
}

/// What all collections of a process removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Freed {
    pub(crate) blobs: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// When the last one ended.
    pub(crate) last: Option<SystemTime>,
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

/// One run of it. Holds 16 bytes for each blob in use or kept for an undo, and what one repository's manifests refer to.
pub(crate) struct Collection {
    registry: Registry,
    scope: Scope,
    report: Report,
    marks: Marks,
    /// In use by nothing but what an undo could bring back.
    held: Marks,
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

impl Registry {
    /// A collection that has not begun. It waits for its turn: only one runs at a time.
    pub(crate) fn collection(&self, scope: Scope) -> Collection {
        Collection {
            registry: self.clone(),
            scope,
            report: Report::default(),
            marks: Marks::default(),
            held: Marks::default(),
            young: Marks::default(),
            blind: false,
            stage: Stage::Begin,
            alone: None,
        }
    }

    /// How long until a collection may remove anything, with `grace` in place of `gc.grace`.
    pub(crate) fn collectable_in(&self, grace: Option<Duration>) -> Duration {
        let pins = &self.0.pins;
        pins.not_before(grace.unwrap_or(pins.grace()))
    }

    /// What collections of this process have removed.
    pub(crate) fn collected(&self) -> Freed {
        *self.0.freed.lock().unwrap_or_else(PoisonError::into_inner)
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
            grace: self.scope.grace,
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
        if !self.scope.dry_run {
            self.registry.relieve_quotas();
        }
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

    fn doubt(&mut self, doubt: String) {
        log::warn!("collecting garbage: {doubt}");
        self.report.doubtful += 1;
        if self.report.doubts.len() < DOUBTS {
            self.report.doubts.push(doubt);
        }
    }

    fn ended(&self) {
        if self.scope.dry_run {
            return;
        }
        self.registry.quotas_are_relieved();
        let freed = &self.registry.0.freed;
        let mut freed = freed.lock().unwrap_or_else(PoisonError::into_inner);
        freed.blobs += self.report.blobs;
        freed.bytes += self.report.bytes;
        freed.last = Some(SystemTime::now());
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
                    Ok(digest) if self.held.contains(&digest) => self.held_blob(&digest).await?,
                    Ok(digest) => unmarked.push(digest),
                    Err(_) => {}
                }
            }
        } else {
            self.alone = None;
            self.ended();
            return Ok(Stepped::Done);
        }
        self.stage = Stage::Blobs { shards, unmarked };
        Ok(stepped)
    }
}

#[cfg(test)]
mod tests;
