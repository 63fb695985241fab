//! What `/metrics` shows, in OpenMetrics' text form, which Prometheus reads.
//!
//! Counting is on the path of every request, so a thread remembers the counters that it used: after the first time an
//! operation and a status meet on a thread there is no lock to find them by and nothing allocated. Labels are
//! `&'static str`s and numbers, so clients cannot make new ones.

mod collections;
mod connections;
mod health;
mod notifications;
mod quotas;

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use collections::Collections;
use connections::Connections;
pub(crate) use connections::TurnedAway;
pub(crate) use health::Checks;
pub(crate) use notifications::EndpointMetrics;
use notifications::Notifications;
use quotas::Quotas;

/// The Content-Type of `encode`'s text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// From a manifest out of the cache to a layer over Wi-Fi.
const REQUEST_BUCKETS: [f64; 14] = [
    0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0,
];

/// Room on the file system of the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disk {
    /// What this process may still write, in bytes.
    pub(crate) free: u64,
    pub(crate) total: u64,
}

/// All counters of one server; clones count into the same.
#[derive(Clone)]
pub(crate) struct Metrics(Arc<Inner>);

struct Inner {
    /// Tells the servers of one process apart in a thread's memory.
    id: u64,
    started: Instant,
    registry: Registry,
    requests: Family<Request, Counter>,
    bytes: Family<Bytes, Counter>,
    durations: Family<Operation, Histogram, fn() -> Histogram>,
    calls: Family<Call, Counter>,
    call_seconds: Family<CallName, Counter<f64, AtomicU64>>,
    uploads: Gauge<i64, AtomicI64>,
    collections: Collections,
    quotas: Quotas,
    upstream_requests: Family<Upstream, Counter>,
    upstream_bytes: Counter,
    notifications: Notifications,
    health: health::Health,
    connections: Connections,
    /// Apart, since it is left out where the disk does not answer: a gauge without a value would be shown as 0.
    disk_registry: Registry,
    disk_free: Gauge<f64, AtomicU64>,
    disk_total: Gauge<f64, AtomicU64>,
    start_time: Gauge<f64, AtomicU64>,
    /// Apart, since only a server that expects a drive has something to say.
    drive_registry: Registry,
    drive: Gauge<i64, AtomicI64>,
    drive_expected: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    operation: &'static str,
    status: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Bytes {
    operation: &'static str,
    direction: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    call: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallName {
    call: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Upstream {
    result: &'static str,
}

/// What a request counts into.
#[derive(Clone)]
struct RequestCounters {
    label: Request,
    requests: Counter,
    bytes_in: Counter,
    bytes_out: Counter,
    duration: Histogram,
}

/// What a storage call counts into.
#[derive(Clone)]
struct CallCounters {
    label: Call,
    calls: Counter,
    seconds: Counter<f64, AtomicU64>,
}

/// A thread's memory, the latest used in front. As long as there are operations times statuses, some dozens at most.
struct Known {
    id: u64,
    requests: Vec<RequestCounters>,
    calls: Vec<CallCounters>,
}

thread_local! {
    static KNOWN: RefCell<Known> = const { RefCell::new(Known { id: 0, requests: Vec::new(), calls: Vec::new() }) };
}

impl Known {
    fn of(&mut self, id: u64) -> &mut Known {
        if self.id != id {
            *self = Known {
                id,
                requests: Vec::new(),
                calls: Vec::new(),
            };
        }
        self
    }
}

/// The first item that `is_it`, found or made, with the more used ones drifting to the front.
fn find<T>(items: &mut Vec<T>, is_it: impl Fn(&T) -> bool, make: impl FnOnce() -> T) -> &T {
    let place = match items.iter().position(is_it) {
        Some(0) => 0,
        Some(place) => {
            items.swap(place, place - 1);
            place - 1
        }
        None => {
            items.push(make());
            items.len() - 1
        }
    };
    &items[place]
}

fn same(a: &'static str, b: &'static str) -> bool {
    std::ptr::eq(a, b) || a == b
}

impl Metrics {
    /// `version` is what `registry_build_info` says.
    pub(crate) fn new(version: &'static str) -> Metrics {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let histogram: fn() -> Histogram = || Histogram::new(REQUEST_BUCKETS);
        let mut inner = Inner {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            started: Instant::now(),
            registry: Registry::default(),
            requests: Family::default(),
            bytes: Family::default(),
            durations: Family::new_with_constructor(histogram),
            calls: Family::default(),
            call_seconds: Family::default(),
            uploads: Gauge::default(),
            collections: Collections::default(),
            quotas: Quotas::default(),
            upstream_requests: Family::default(),
            upstream_bytes: Counter::default(),
            notifications: Notifications::default(),
            health: health::Health::default(),
            connections: Connections::default(),
            disk_registry: Registry::default(),
            disk_free: Gauge::default(),
            disk_total: Gauge::default(),
            start_time: Gauge::default(),
            drive_registry: Registry::default(),
            drive: Gauge::default(),
            drive_expected: AtomicBool::new(false),
        };
        let build = Info::new([
            ("version", version),
            ("arch", std::env::consts::ARCH),
            ("os", std::env::consts::OS),
        ]);
        let r = &mut inner.registry;
        // Names get their unit and `_total` appended.
        r.register(
            "registry_http_requests",
            "Requests answered",
            inner.requests.clone(),
        );
        r.register(
            "registry_http_request_bytes",
            "Bytes of bodies received (in) and sent (out)",
            inner.bytes.clone(),
        );
        r.register_with_unit(
            "registry_http_request_duration",
            "From the head of a request to the end of its response",
            Unit::Seconds,
            inner.durations.clone(),
        );
        r.register(
            "registry_storage_calls",
            "Calls to the storage",
            inner.calls.clone(),
        );
        r.register(
            "registry_storage_seconds",
            "Time spent in calls to the storage",
            inner.call_seconds.clone(),
        );
        r.register(
            "registry_uploads_open",
            "Uploads begun and neither finished nor given up",
            inner.uploads.clone(),
        );
        inner.collections.register(r);
        inner.quotas.register(r);
        r.register(
            "registry_upstream_requests",
            "Requests to the upstream of a mirror, by what became of them",
            inner.upstream_requests.clone(),
        );
        r.register(
            "registry_upstream_bytes",
            "Bytes of bodies received from the upstream of a mirror",
            inner.upstream_bytes.clone(),
        );
        inner.notifications.register(r);
        inner.health.register(r);
        inner.connections.register(r);
        r.register("registry_build", "What is running", build);
        r.register_with_unit(
            "process_start_time",
            "When the process started, since 1970",
            Unit::Seconds,
            inner.start_time.clone(),
        );
        inner.drive_registry.register(
            "registry_drive_up",
            "Whether the external drive is there and works (1), or is missing, foreign, read-only or broken (0)",
            inner.drive.clone(),
        );
        let r = &mut inner.disk_registry;
        r.register_with_unit(
            "registry_disk_free",
            "Room left for images",
            Unit::Bytes,
            inner.disk_free.clone(),
        );
        r.register_with_unit(
            "registry_disk_total",
            "Size of their file system",
            Unit::Bytes,
            inner.disk_total.clone(),
        );
        Metrics(Arc::new(inner))
    }

    /// A request was answered.
    pub(crate) fn request(
        &self,
        operation: &'static str,
        status: u16,
        bytes_in: u64,
        bytes_out: u64,
        seconds: f64,
    ) {
        let label = Request { operation, status };
        KNOWN.with_borrow_mut(|known| {
            let counters = find(
                &mut known.of(self.0.id).requests,
                |known| known.label.status == status && same(known.label.operation, operation),
                || self.request_counters(label),
            );
            counters.requests.inc();
            if bytes_in > 0 {
                counters.bytes_in.inc_by(bytes_in);
            }
            if bytes_out > 0 {
                counters.bytes_out.inc_by(bytes_out);
            }
            counters.duration.observe(seconds);
        });
    }

    fn request_counters(&self, label: Request) -> RequestCounters {
        let operation = label.operation;
        let bytes = |direction| {
            self.0.bytes.get_or_create_owned(&Bytes {
                operation,
                direction,
            })
        };
        RequestCounters {
            label,
            requests: self.0.requests.get_or_create_owned(&label),
            bytes_in: bytes("in"),
            bytes_out: bytes("out"),
            duration: self
                .0
                .durations
                .get_or_create_owned(&Operation { operation }),
        }
    }

    /// The storage was called.
    pub(crate) fn storage_call(&self, call: &'static str, ok: bool, seconds: f64) {
        let label = Call {
            call,
            outcome: if ok { "ok" } else { "error" },
        };
        KNOWN.with_borrow_mut(|known| {
            let counters = find(
                &mut known.of(self.0.id).calls,
                |known| same(known.label.outcome, label.outcome) && same(known.label.call, call),
                || CallCounters {
                    label,
                    calls: self.0.calls.get_or_create_owned(&label),
                    seconds: self.0.call_seconds.get_or_create_owned(&CallName { call }),
                },
            );
            counters.calls.inc();
            // A clock that went back must not make a counter go back.
            if seconds > 0.0 {
                counters.seconds.inc_by(seconds);
            }
        });
    }

    /// The upstream was asked: `ok`, `unknown`, `denied`, `limited`, `unreachable` or `failed`.
    pub(crate) fn upstream_request(&self, result: &'static str) {
        self.0
            .upstream_requests
            .get_or_create_owned(&Upstream { result })
            .inc();
    }

    /// The upstream sent something.
    pub(crate) fn upstream_bytes(&self, bytes: u64) {
        self.0.upstream_bytes.inc_by(bytes);
    }

    /// How many upload sessions are open now.
    pub(crate) fn uploads_open(&self, sessions: usize) {
        self.0
            .uploads
            .set(i64::try_from(sessions).unwrap_or(i64::MAX));
    }

    /// What garbage collection has removed, and when it last ended. Of a drive that came back it counts anew.
    pub(crate) fn collected(&self, blobs: u64, bytes: u64, last: Option<SystemTime>) {
        self.0.collections.set(blobs, bytes, last);
    }

    /// What the repositories of a quota may have, and have, in bytes, and how often that was not enough.
    pub(crate) fn quota(&self, repositories: &str, limit: u64, used: Option<u64>, refused: u64) {
        self.0.quotas.set(repositories, limit, used, refused);
    }

    /// What is known of the health of what is stored.
    pub(crate) fn health(&self, checks: Checks) {
        self.0.health.set(checks);
    }

    /// The external drive, which this server expects, is served from, or is not.
    pub(crate) fn drive(&self, up: bool) {
        self.0.drive.set(i64::from(up));
        self.0.drive_expected.store(true, Ordering::Relaxed);
    }

    /// What is counted of the webhook called `name`.
    pub(crate) fn endpoint(&self, name: &str) -> EndpointMetrics {
        self.0.notifications.endpoint(name)
    }

    /// Everything as text. `disk` is asked now; without an answer there are no numbers for it.
    pub(crate) fn encode(&self, disk: impl FnOnce() -> Option<Disk>) -> String {
        let inner = &self.0;
        // Counted back from now, since the clock of a machine without a battery is set some time after the start.
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        inner
            .start_time
            .set(now.saturating_sub(inner.started.elapsed()).as_secs_f64());
        let mut out = String::with_capacity(8192);
        let mut encoded = text::encode_registry(&mut out, &inner.registry);
        if let Some(disk) = disk() {
            // Beyond 2^53 the last bytes are lost, which nobody's disk has.
            inner.disk_free.set(disk.free as f64);
            inner.disk_total.set(disk.total as f64);
            encoded = encoded.and_then(|()| text::encode_registry(&mut out, &inner.disk_registry));
        }
        if inner.drive_expected.load(Ordering::Relaxed) {
            encoded = encoded.and_then(|()| text::encode_registry(&mut out, &inner.drive_registry));
        }
        match encoded.and_then(|()| text::encode_eof(&mut out)) {
            Ok(()) => out,
            // Writing into a String does not fail.
            Err(_) => String::new(),
        }
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Metrics({})", self.0.id)
    }
}

#[cfg(test)]
mod tests;
