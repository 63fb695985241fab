//! Removes images: what a command names, and what the rules of `retention` say.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;

use super::event::RemovedImages;
use super::undo::{fail, seconds};
use super::{Event, Pace, Step, Task, event};
use crate::oci::{Digest, RepoName, Tag};
use crate::registry::{Choice, Registry, Removals, Removing, Retention, Spared};

/// Who removed something, or brought it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Command,
    Retention,
    Undo,
}

/// Hears of each tag, and of each manifest, that has been removed or brought back.
pub(crate) type Witness = Arc<dyn Fn(By, &RepoName, Option<&Tag>, &Digest) + Send + Sync>;

/// How often whoever watches hears that it goes on.
const PROGRESS: Duration = Duration::from_millis(500);
/// How long after the start rules are first looked at, at the most: by then the clock of a machine without a clock battery
/// has been set.
const FIRST: Duration = Duration::from_secs(15 * 60);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(3600);
/// How often it is looked whether pulls are to be noted.
const NOTE_PULLS: Duration = Duration::from_secs(300);

/// How it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct How {
    /// Only say what would go.
    pub(crate) dry_run: bool,
    /// Keep nothing for an undo.
    pub(crate) purge: bool,
}

/// Removes what is chosen, and tells whoever holds the other end of `events`, the outcome last. Ends early when nobody
/// does: what is gone then is gone.
pub(crate) async fn remove(
    registry: Registry,
    choice: Choice,
    how: How,
    witness: Witness,
    events: Sender<Event>,
) {
    let by = match choice {
        Choice::Images { .. } => By::Command,
        Choice::Retention => By::Retention,
    };
    let removals = registry.removals(choice, how.dry_run, how.purge);
    let mut removals = match removals.await {
        Ok(removals) => removals,
        Err(e) => return fail(&e, &events).await,
    };
    let (mut pace, mut told) = (Pace::default(), Instant::now());
    loop {
        let started = Instant::now();
        let event = match removals.step().await {
            Ok(Removing::Done) => {
                let event = Event::Removed(RemovedImages::new(&removals, how.dry_run));
                let _ = events.send(event).await;
                return;
            }
            Ok(Removing::Looked) if told.elapsed() < PROGRESS => None,
            Ok(removing) => {
                told = Instant::now();
                if !how.dry_run {
                    tell(&witness, by, &removing);
                }
                Some(removing.into())
            }
            Err(e) => return fail(&e, &events).await,
        };
        if !event::tell(&events, event).await {
            return;
        }
        pace.rest(started.elapsed()).await;
    }
}

fn tell(witness: &Witness, by: By, removing: &Removing) {
    match removing {
        Removing::Tag(repo, tag, digest) => witness(by, repo, Some(tag), digest),
        Removing::Manifest(repo, digest) => witness(by, repo, None, digest),
        Removing::Looked | Removing::Spared(..) | Removing::Done => {}
    }
}

/// Follows the rules of `retention`, at its interval.
pub(crate) struct Retain {
    registry: Registry,
    settings: Retention,
    witness: Witness,
    now: Option<Removals>,
    due: Instant,
}

impl Retain {
    pub(crate) fn new(registry: Registry, witness: Witness) -> Self {
        let settings = registry.settings().retention.clone();
        Retain {
            due: Instant::now() + settings.interval.min(FIRST),
            registry,
            settings,
            witness,
            now: None,
        }
    }

    /// Goes on until it is dropped.
    pub(crate) async fn run(mut self) {
        if self.settings.rules.is_empty() || self.registry.settings().read_only {
            return;
        }
        let mut pace = Pace::default();
        loop {
            let started = Instant::now();
            match self.step().await {
                Step::Did => pace.rest(started.elapsed()).await,
                Step::Idle(until) => tokio::time::sleep_until(until.into()).await,
            }
        }
    }

    async fn go_on(&mut self) -> crate::registry::Result<bool> {
        let removals = match &mut self.now {
            Some(removals) => removals,
            none => none.insert(
                self.registry
                    .removals(Choice::Retention, false, false)
                    .await?,
            ),
        };
        let removing = removals.step().await?;
        tell(&self.witness, By::Retention, &removing);
        if removing != Removing::Done {
            return Ok(true);
        }
        let totals = removals.totals();
        if totals.tags + totals.manifests > 0 {
            log::info!(
                "retention: {} tags and {} manifests removed, for {} bytes",
                totals.tags,
                totals.manifests,
                totals.bytes
            );
        }
        Ok(false)
    }
}

impl Task for Retain {
    async fn step(&mut self) -> Step {
        if self.now.is_none() && Instant::now() < self.due {
            return Step::Idle(self.due);
        }
        match self.go_on().await {
            Ok(true) => {}
            Ok(false) => {
                self.now = None;
                self.due = Instant::now() + self.settings.interval;
            }
            Err(e) => {
                log::warn!("retention: what should go could not be removed: {e}");
                self.now = None;
                self.due = Instant::now() + self.settings.interval.min(AGAIN);
            }
        }
        Step::Did
    }
}

/// Writes down what is pulled, until it is dropped.
pub(crate) async fn note_pulls(registry: Registry) {
    let rules = &registry.settings().retention.rules;
    if !rules.iter().any(|rule| rule.keep_pulled.is_some()) {
        return;
    }
    loop {
        tokio::time::sleep(NOTE_PULLS).await;
        if let Err(e) = registry.write_pulls().await {
            log::warn!("what was pulled lately could not be noted: {e}");
        }
    }
}

impl From<Removing> for Event {
    fn from(removing: Removing) -> Self {
        match removing {
            Removing::Looked | Removing::Done => Event::Looking,
            Removing::Tag(repo, tag, digest) => Event::Tag {
                repository: repo.to_string(),
                tag: tag.to_string(),
                digest: digest.to_string(),
            },
            Removing::Manifest(repo, digest) => Event::Manifest {
                repository: repo.to_string(),
                digest: digest.to_string(),
            },
            Removing::Spared(repo, tag, Spared::Immutable) => Event::Spared {
                repository: repo.to_string(),
                tag: tag.to_string(),
            },
        }
    }
}

impl RemovedImages {
    fn new(removals: &Removals, dry_run: bool) -> Self {
        let totals = removals.totals();
        RemovedImages {
            dry_run,
            tags: totals.tags,
            manifests: totals.manifests,
            blobs: totals.blobs,
            bytes: totals.bytes,
            kept: totals.kept,
            began: super::undo::millis(removals.began()),
            undoable_until: removals.undoable_until().map(seconds),
        }
    }
}
