//! Whether this server can do its work: checks that run by themselves, each in its rhythm (`health` of the configuration).
//!
//! As in CNCF distribution, a check that failed `threshold` times in a row makes the server unhealthy, and one success makes
//! it healthy again. Asking only reads what the last checks said, so anybody may ask as often as they like. Before its
//! first result a check counts as passed.

mod check;
pub(crate) mod settings;

use std::sync::{Arc, Mutex, PoisonError};

use crate::registry::Registry;

use check::Check;
use settings::{Rhythm, Settings};

pub(crate) use check::SetupError;

/// What the checks found; clones see the same.
#[derive(Clone, Default)]
pub(crate) struct Health(Arc<[State]>);

struct State {
    /// For the log: what is looked at.
    subject: String,
    rhythm: Rhythm,
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    /// In a row.
    failures: usize,
    /// What clients may be told of the last one.
    sentence: String,
}

/// The checks themselves, to be run beside the server.
pub(crate) struct Checks(Vec<Check>, Health);

impl Health {
    /// Why the server is not healthy; none when it is.
    pub(crate) fn complaint(&self) -> Option<String> {
        self.0.iter().find_map(|state| {
            let found = state.found.lock().unwrap_or_else(PoisonError::into_inner);
            (found.failures >= state.rhythm.threshold).then(|| found.sentence.clone())
        })
    }
}

impl Checks {
    /// # Errors
    /// A check that cannot be made as it is configured.
    pub(crate) fn new(settings: &Settings, registry: &Registry) -> Result<Self, SetupError> {
        let mut checks = Vec::new();
        if settings.storage.enabled {
            checks.push(Check::storage(registry.clone(), settings.storage.rhythm));
        }
        checks.extend(settings.files.iter().map(Check::file));
        for check in &settings.http {
            checks.push(Check::http(check)?);
        }
        checks.extend(settings.tcp.iter().map(Check::tcp));
        let state = |check: &Check| State {
            subject: check.subject(),
            rhythm: check.rhythm(),
            found: Mutex::default(),
        };
        let health = Health(checks.iter().map(state).collect());
        Ok(Checks(checks, health))
    }

    pub(crate) fn health(&self) -> Health {
        self.1.clone()
    }

    /// Starts them; they run as long as the process.
    pub(crate) fn start(self) {
        let Checks(checks, health) = self;
        for (i, check) in checks.into_iter().enumerate() {
            let health = health.clone();
            tokio::spawn(async move {
                let Some(state) = health.0.get(i) else {
                    return;
                };
                loop {
                    state.record(check.ask().await);
                    tokio::time::sleep(state.rhythm.interval).await;
                }
            });
        }
    }
}

impl State {
    fn record(&self, result: Result<(), check::Failure>) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let before = found.failures;
        match result {
            Ok(()) => {
                found.failures = 0;
                drop(found);
                if before >= self.rhythm.threshold {
                    log::info!("healthy again: {}", self.subject);
                }
            }
            Err(failure) => {
                found.failures = before.saturating_add(1);
                found.sentence = failure.sentence;
                let is_new = found.failures == self.rhythm.threshold;
                drop(found);
                if is_new {
                    log::error!("not ready: {}: {}", self.subject, failure.reason);
                } else {
                    log::debug!("{}: {}", self.subject, failure.reason);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(threshold: usize) -> Health {
        let state = State {
            subject: "it".to_owned(),
            rhythm: Rhythm {
                threshold,
                ..Rhythm::default()
            },
            found: Mutex::default(),
        };
        Health(Arc::new([state]))
    }

    fn failure(sentence: &str) -> Result<(), check::Failure> {
        Err(check::Failure {
            sentence: sentence.to_owned(),
            reason: String::new(),
        })
    }

    #[test]
    fn failures_count_in_a_row_alone() {
        let health = state(2);
        health.0[0].record(failure("one"));
        assert_eq!(health.complaint(), None);
        health.0[0].record(Ok(()));
        health.0[0].record(failure("two"));
        assert_eq!(health.complaint(), None);
        health.0[0].record(failure("three"));
        assert_eq!(health.complaint().as_deref(), Some("three"));
        health.0[0].record(Ok(()));
        assert_eq!(health.complaint(), None);
    }

    #[test]
    fn nothing_to_look_at_is_healthy() {
        assert_eq!(Health::default().complaint(), None);
        assert_eq!(state(1).complaint(), None);
    }
}
