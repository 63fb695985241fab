//! Of webhooks. Names and labels are CNCF distribution's; `Dropped` is ours.

use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Event {
    r#type: &'static str,
    to: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Endpoint {
    to: String,
}

#[derive(Default)]
pub(super) struct Notifications {
    events: Family<Event, Counter>,
    pending: Family<Endpoint, Gauge<i64, AtomicI64>>,
}

/// The counters of one endpoint; clones count into the same.
#[derive(Clone)]
pub(crate) struct EndpointMetrics {
    events: Counter,
    successes: Counter,
    failures: Counter,
    errors: Counter,
    dropped: Counter,
    pending: Gauge<i64, AtomicI64>,
}

impl Notifications {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "registry_notifications_events",
            "Events for webhooks (Events), deliveries (Successes), deliveries refused (Failures) and without an answer \
             (Errors), and events given up (Dropped)",
            self.events.clone(),
        );
        registry.register(
            "registry_notifications_pending",
            "Events that wait to be delivered",
            self.pending.clone(),
        );
    }

    pub(super) fn endpoint(&self, name: &str) -> EndpointMetrics {
        let counter = |r#type| {
            self.events.get_or_create_owned(&Event {
                r#type,
                to: name.to_owned(),
            })
        };
        EndpointMetrics {
            events: counter("Events"),
            successes: counter("Successes"),
            failures: counter("Failures"),
            errors: counter("Errors"),
            dropped: counter("Dropped"),
            pending: self.pending.get_or_create_owned(&Endpoint {
                to: name.to_owned(),
            }),
        }
    }
}

impl EndpointMetrics {
    pub(crate) fn queued(&self) {
        self.events.inc();
    }

    pub(crate) fn success(&self) {
        self.successes.inc();
    }

    pub(crate) fn failure(&self) {
        self.failures.inc();
    }

    pub(crate) fn error(&self) {
        self.errors.inc();
    }

    pub(crate) fn dropped(&self, events: u64) {
        self.dropped.inc_by(events);
    }

    pub(crate) fn pending(&self, events: usize) {
        self.pending.set(i64::try_from(events).unwrap_or(i64::MAX));
    }
}
