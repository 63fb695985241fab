//! Of connections.

use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Metrics;

/// Why a connection was closed for others' sake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TurnedAway {
    /// A newer one has its place.
    Replaced,
    /// Its address has as many as it may have.
    Share,
    /// There are as many as there may be.
    Full,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Default)]
pub(super) struct Connections {
    open: Gauge<i64, AtomicI64>,
    turned_away: Family<Reason, Counter>,
}

impl Connections {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "registry_http_connections",
            "Connections that are open",
            self.open.clone(),
        );
        registry.register(
            "registry_http_connections_turned_away",
            "Connections closed since there were too many, by what was full",
            self.turned_away.clone(),
        );
    }
}

impl Metrics {
    pub(crate) fn connections_open(&self, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.0.connections.open.set(count);
    }

    pub(crate) fn connection_turned_away(&self, why: TurnedAway) {
        let reason = match why {
            TurnedAway::Replaced => "replaced",
            TurnedAway::Share => "share",
            TurnedAway::Full => "full",
        };
        let turned_away = &self.0.connections.turned_away;
        turned_away.get_or_create(&Reason { reason }).inc();
    }
}
