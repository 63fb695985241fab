//! Of the health of what is stored.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// What checks found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Checks {
    /// Since the start of whoever counts. So are the next two.
    pub(crate) read: u64,
    pub(crate) damaged: u64,
    pub(crate) mended: u64,
    pub(crate) open: u64,
    /// In seconds since 1970; 0 is never.
    pub(crate) last: u64,
}

#[derive(Default)]
pub(super) struct Health {
    read: Copied,
    damaged: Copied,
    mended: Copied,
    open: Gauge,
    last: Gauge<f64, AtomicU64>,
}

/// A counter that follows one that somebody else counts, and who may begin again.
#[derive(Default)]
struct Copied {
    counter: Counter,
    seen: AtomicU64,
}

impl Copied {
    fn follow(&self, now: u64) {
        let seen = self.seen.swap(now, Ordering::Relaxed);
        self.counter.inc_by(now.checked_sub(seen).unwrap_or(now));
    }
}

impl Health {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "registry_verify_read_bytes",
            "Bytes read to compare content with its digest",
            self.read.counter.clone(),
        );
        r.register(
            "registry_damaged_blobs",
            "Blobs found whose content was not what their digest says, or could not be read",
            self.damaged.counter.clone(),
        );
        r.register(
            "registry_damage_mended",
            "What was damaged, missing or left over and was mended or removed",
            self.mended.counter.clone(),
        );
        r.register(
            "registry_damage_open",
            "What the last check of everything left damaged or missing",
            self.open.clone(),
        );
        r.register_with_unit(
            "registry_verify_last_timestamp",
            "When all content was last found to have been read, since 1970; 0 is never",
            Unit::Seconds,
            self.last.clone(),
        );
    }

    pub(super) fn set(&self, checks: Checks) {
        self.read.follow(checks.read);
        self.damaged.follow(checks.damaged);
        self.mended.follow(checks.mended);
        self.open
            .set(i64::try_from(checks.open).unwrap_or(i64::MAX));
        self.last.set(checks.last as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_never_goes_back() {
        let copied = Copied::default();
        for (now, counted) in [(3, 3), (5, 5), (5, 5), (1, 6), (4, 9)] {
            copied.follow(now);
            assert_eq!(copied.counter.get(), counted);
        }
    }
}
