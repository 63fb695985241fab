//! What checks come to in numbers, for whoever watches.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::registry::Registry;

/// Counted since the start, but for what the last report said.
#[derive(Default)]
pub(in crate::registry) struct Health {
    pub(super) read: AtomicU64,
    pub(super) damaged: AtomicU64,
    pub(super) mended: AtomicU64,
    pub(super) open: AtomicU64,
    pub(super) last: AtomicU64,
}

/// What is known of the health of what is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Bytes read to be checked, since the start. So are the next two.
    pub(crate) read: u64,
    /// Blobs whose content was not what their digest says.
    pub(crate) damaged: u64,
    pub(crate) mended: u64,
    /// What the last check left damaged or missing.
    pub(crate) open: u64,
    /// When all content was last known to be read, in seconds since 1970; 0 is never.
    pub(crate) last: u64,
}

impl Registry {
    pub(crate) fn health(&self) -> Tally {
        let health = &self.0.health;
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Tally {
            read: get(&health.read),
            damaged: get(&health.damaged),
            mended: get(&health.mended),
            open: get(&health.open),
            last: get(&health.last),
        }
    }
}
