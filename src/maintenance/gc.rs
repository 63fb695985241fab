//! When garbage is collected: some minutes after a delete, every so often, and when a command says so.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;

use super::{Collected, Event, Pace, Step, Task, event};
use crate::registry::settings::Gc as Settings;
use crate::registry::{Collection, Registry, Scope, Stepped};

/// How often whoever watches hears of progress.
const PROGRESS: Duration = Duration::from_millis(500);
/// What was left for being too young is looked at again this long after it can go: in one go with what comes later.
const SLACK: Duration = Duration::from_secs(60);
/// How long after the start the first collection is, at the most, where the grace is shorter.
const FIRST: Duration = Duration::from_secs(15 * 60);
/// How often to look whether changes are taken again.
const READ_ONLY: Duration = Duration::from_secs(60);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(3600);

/// Collects whenever it is time.
pub(crate) struct Gc {
    registry: Registry,
    settings: Settings,
    now: Option<Collection>,
    due: Instant,
    /// The disk is nearly full.
    hurry: bool,
}

impl Gc {
    pub(crate) fn new(registry: Registry) -> Self {
        let settings = registry.settings().gc.clone();
        let wait = settings.interval.min(FIRST);
        let due = Instant::now() + registry.collectable_in(None).max(wait);
        Gc {
            registry,
            settings,
            now: None,
            due,
            hurry: false,
        }
    }

    /// Goes on until it is dropped.
    pub(crate) async fn run(mut self) {
        if !self.settings.enabled {
            return;
        }
        let mut pace = Pace::default();
        loop {
            let started = Instant::now();
            match self.step().await {
                Step::Did => pace.rest(started.elapsed()).await,
                Step::Idle(until) => tokio::select! {
                    () = tokio::time::sleep_until(until.into()) => {}
                    () = self.registry.deletion() => self.deleted(),
                    () = self.registry.hurry() => {
                        self.hurry = true;
                        self.due = Instant::now() + self.registry.collectable_in(None);
                    }
                },
            }
        }
    }

    fn deleted(&mut self) {
        let wait = self.registry.collectable_in(None).max(self.settings.delay);
        self.due = self.due.min(Instant::now() + wait);
    }

    /// After a collection that left so many blobs for being young.
    fn ended(&mut self, young: u64) {
        let interval = self.settings.interval;
        let wait = match young {
            0 => interval,
            _ => interval.min(self.settings.grace + SLACK),
        };
        self.due = Instant::now() + wait;
    }
}

impl Task for Gc {
    async fn step(&mut self) -> Step {
        if self.registry.is_read_only() {
            self.now = None;
            return Step::Idle(Instant::now() + READ_ONLY);
        }
        if self.now.is_none() && Instant::now() < self.due {
            return Step::Idle(self.due);
        }
        let start = || {
            self.registry.collection(Scope {
                forget_undo: self.hurry,
                ..Scope::default()
            })
        };
        let collection = self.now.get_or_insert_with(start);
        match collection.step().await {
            Ok(Stepped::Done) => {
                let report = collection.report();
                let (young, text) = (report.young_blobs, report.to_string());
                if report.blobs + report.emptied > 0 {
                    log::info!("garbage collection: {text}");
                } else {
                    log::debug!("garbage collection: {text}");
                }
                self.now = None;
                self.hurry = false;
                self.ended(young);
            }
            Ok(_) => {}
            Err(e) => {
                log::warn!("garbage could not be collected, and nothing was lost: {e}");
                self.now = None;
                self.due = Instant::now() + self.settings.interval.min(AGAIN);
            }
        }
        Step::Did
    }
}

/// Collects once, and tells whoever holds the other end of `events`, the outcome last. Ends early when nobody does.
pub(crate) async fn collect(registry: Registry, scope: Scope, events: Sender<Event>) {
    let early = registry.collectable_in(scope.grace).as_secs();
    if !scope.alone && early > 0 {
        let _ = events.send(Event::Early { seconds: early }).await;
    }
    let mut collection = registry.collection(scope);
    let (mut pace, mut told) = (Pace::default(), Instant::now());
    loop {
        let started = Instant::now();
        let event = match collection.step().await {
            Ok(Stepped::Looked) if told.elapsed() < PROGRESS => None,
            Ok(Stepped::Looked) => {
                told = Instant::now();
                Some(Event::progress(collection.report()))
            }
            Ok(Stepped::Removed(removed)) => Some(removed.into()),
            Ok(Stepped::Done) => {
                let collected = Collected::new(collection.report(), scope.dry_run);
                let _ = events.send(Event::Collected(collected)).await;
                return;
            }
            Err(e) => {
                log::warn!("garbage could not be collected, and nothing was lost: {e}");
                let reason = e.to_string();
                let _ = events.send(Event::Failed { reason }).await;
                return;
            }
        };
        if !event::tell(&events, event).await {
            return;
        }
        pace.rest(started.elapsed()).await;
    }
}
