//! What garbage collection did.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

#[derive(Default)]
pub(super) struct Collections {
    blobs: Counter,
    bytes: Counter,
    last: Gauge<f64, AtomicU64>,
}

impl Collections {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "registry_gc_freed_blobs",
            "Blobs that garbage collection removed",
            self.blobs.clone(),
        );
        r.register("registry_gc_freed_bytes", "Their bytes", self.bytes.clone());
        r.register_with_unit(
            "registry_gc_last_run",
            "When garbage collection last came to its end, since 1970; 0 before the first time",
            Unit::Seconds,
            self.last.clone(),
        );
    }

    pub(super) fn set(&self, blobs: u64, bytes: u64, last: Option<SystemTime>) {
        self.blobs.inner().store(blobs, Ordering::Relaxed);
        self.bytes.inner().store(bytes, Ordering::Relaxed);
        let last = last.and_then(|last| last.duration_since(UNIX_EPOCH).ok());
        self.last.set(last.unwrap_or_default().as_secs_f64());
    }
}
