//! What the registry does when nobody asks.

mod event;
mod expire;
mod gc;
mod mirror;
mod pace;
mod pressure;
mod remove;
mod scrub;
mod undo;

use std::time::Instant;

pub(crate) use event::{Collected, Event, RemovedImages, Retagged};
pub(crate) use expire::purge_uploads;
pub(crate) use gc::{Gc, collect};
pub(crate) use mirror::expire_fetched;
pub(crate) use pace::Pace;
pub(crate) use pressure::relieve;
pub(crate) use remove::{By, How, Retain, Witness, note_pulls, remove};
pub(crate) use scrub::{Scrub, verify};
pub(crate) use undo::{history, undo};

/// Work in steps that each take a moment: between two of them it can be paced, be watched, and end.
pub(crate) trait Task {
    fn step(&mut self) -> impl Future<Output = Step> + Send;
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Did,
    /// There is nothing to do before.
    Idle(Instant),
}
