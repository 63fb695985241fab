//! Of quotas.

use std::sync::atomic::Ordering;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Quota {
    /// Its patterns, as the configuration has them.
    repositories: String,
}

#[derive(Default)]
pub(super) struct Quotas {
    limit: Family<Quota, Gauge>,
    used: Family<Quota, Gauge>,
    refused: Family<Quota, Counter>,
}

impl Quotas {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "registry_quota_limit_bytes",
            "What the repositories of a quota may have in all",
            self.limit.clone(),
        );
        r.register(
            "registry_quota_used_bytes",
            "What they have; missing until that is known, shortly after a start",
            self.used.clone(),
        );
        r.register(
            "registry_quota_refused",
            "Requests refused because what they push did not fit",
            self.refused.clone(),
        );
    }

    pub(super) fn set(&self, repositories: &str, limit: u64, used: Option<u64>, refused: u64) {
        let gauge = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        let quota = Quota {
            repositories: repositories.to_owned(),
        };
        self.limit.get_or_create(&quota).set(gauge(limit));
        if let Some(used) = used {
            self.used.get_or_create(&quota).set(gauge(used));
        }
        let counter = self.refused.get_or_create(&quota);
        counter.inner().store(refused, Ordering::Relaxed);
    }
}
