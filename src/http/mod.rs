//! The HTTP front: the only directory that knows actix.
//!
//! ```text
//! listener -> connection (TLS or plain) -> dispatch -> Op::parse -> admit -> handler -> one Registry verb
//!                                              `---- access_log <- reply / refusal <-----------'
//! ```
//!
//! There is no table of routes: one service takes every request and [`op::Op`] says what it is.

mod access_log;
mod admin;
mod admit;
mod appetite;
mod blobs;
mod bodies;
mod conditional;
mod connection;
mod dispatch;
mod download;
mod events;
mod external;
mod forwarded;
mod frames;
mod head;
mod inbound;
mod listener;
mod listings;
mod manifests;
pub(crate) mod op;
mod op_access;
mod pace;
mod pages;
mod payload;
mod proxies;
mod pulse;
mod query;
mod refusal;
mod reply;
mod requests;
mod room;
mod route;
mod seats;
mod server;
pub(crate) mod settings;
mod sockets;
mod token;
mod transport;
mod trust;
mod unreadable;
mod uploads;
mod watch;

use std::sync::Arc;

use actix_web::http::header::{HeaderName, HeaderValue};

use crate::auth::{Auth, Network};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::notifications::Notifier;
use crate::registry::{Current, Registry};
use crate::tls::follow::Published;

use external::External;
use reply::Failure;
use room::Room;
use settings::{Limits, Plain, Settings};

pub(crate) use pulse::Pulse;
#[cfg(fuzzing)]
pub(crate) use route::MAX_URI;
pub(crate) use server::Server;
pub(crate) use sockets::Sockets;

/// What every request needs: made once, shared by all threads.
pub(crate) struct Front {
    registry: Current,
    metrics: Metrics,
    auth: Arc<Auth>,
    /// Whose `X-Forwarded-For` is believed.
    trusted_proxies: Vec<Network>,
    notifier: Notifier,
    external: External,
    /// `http.headers`.
    headers: Vec<(HeaderName, Vec<HeaderValue>)>,
    plain: Plain,
    limits: Limits,
    lists: Arc<bodies::Lists>,
    room: Room,
    health: Health,
    /// The CA of this machine's own, where the certificate is by it.
    trust: Arc<Published>,
    /// `storage.minchunk`; 0 announces nothing.
    min_chunk: u64,
    /// Where the metrics are; none when they have an address of their own, or are off.
    metrics_path: Option<String>,
    /// Whether whoever reaches this address may read them, as distribution has it for the address of its own.
    open_metrics: bool,
}

impl Front {
    pub(crate) fn new(
        registry: Current,
        metrics: Metrics,
        auth: Arc<Auth>,
        notifier: Notifier,
        settings: &Settings,
        health: Health,
        min_chunk: u64,
    ) -> Self {
        Front {
            registry,
            metrics,
            auth,
            trusted_proxies: settings.trusted_proxies.clone(),
            notifier,
            external: External::new(settings),
            headers: extra_headers(settings),
            plain: settings.plain,
            limits: settings.limits.clone(),
            lists: Arc::new(bodies::Lists::new()),
            room: Room::default(),
            health,
            trust: Arc::default(),
            min_chunk,
            metrics_path: metrics_path(settings).filter(|_| settings.debug.addr.is_none()),
            open_metrics: false,
        }
    }

    /// The registry of now; the refusal while its storage is away.
    fn registry(&self) -> Result<Registry, Failure> {
        Ok(self.registry.get()?)
    }

    /// Tells clients how to trust the CA that `trust` says.
    pub(crate) fn with_trust(mut self, trust: Arc<Published>) -> Self {
        self.trust = trust;
        self
    }

    /// The same server at `http.debug.addr`: without prefix, with metrics.
    pub(crate) fn debug(&self, settings: &Settings) -> Self {
        let at_root = Settings {
            prefix: String::new(),
            ..settings.clone()
        };
        Front {
            registry: self.registry.clone(),
            metrics: self.metrics.clone(),
            auth: self.auth.clone(),
            trusted_proxies: self.trusted_proxies.clone(),
            notifier: self.notifier.clone(),
            external: External::new(&at_root),
            headers: self.headers.clone(),
            plain: self.plain,
            limits: self.limits.clone(),
            lists: self.lists.clone(),
            room: self.room.clone(),
            health: self.health.clone(),
            trust: self.trust.clone(),
            min_chunk: self.min_chunk,
            metrics_path: metrics_path(settings),
            open_metrics: true,
        }
    }
}

fn metrics_path(settings: &Settings) -> Option<String> {
    settings
        .debug
        .prometheus
        .then(|| settings.debug.prometheus_path.clone())
}

fn extra_headers(settings: &Settings) -> Vec<(HeaderName, Vec<HeaderValue>)> {
    let mut headers = Vec::new();
    for (name, values) in &settings.headers {
        let values: Result<Vec<HeaderValue>, _> = values
            .iter()
            .map(|value| HeaderValue::from_str(value))
            .collect();
        match (HeaderName::from_bytes(name.as_bytes()), values) {
            (Ok(name), Ok(values)) => headers.push((name, values)),
            _ => log::warn!(
                "http.headers: {name:?} is not sent: its name or a value cannot stand in a header"
            ),
        }
    }
    headers
}
