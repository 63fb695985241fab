//! The threads that serve, on all addresses together.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;

use actix_server::{ServerBuilder, ServerHandle};

use crate::tls;

use super::Front;
use super::listener::Listener;
use super::pulse::Pulse;
use super::settings::Settings;
use super::sockets::Sockets;

/// A running server.
pub(crate) struct Server {
    server: actix_server::Server,
    pulse: Pulse,
}

impl Server {
    /// Starts the threads; connections are taken from then on, as far as this is awaited. `blocking_threads` may wait for
    /// the disk at once.
    ///
    /// # Errors
    /// Those of the sockets.
    pub(crate) fn start(
        sockets: Sockets,
        front: Front,
        settings: &Settings,
        tls: Option<Arc<tls::Acceptor>>,
        blocking_threads: usize,
    ) -> io::Result<Self> {
        let workers = workers();
        let mut builder = ServerBuilder::new()
            .workers(workers)
            .worker_max_blocking_threads(blocking_threads.div_ceil(workers))
            .max_concurrent_connections(settings.limits.max_connections.div_ceil(workers))
            .shutdown_timeout(settings.drain_timeout.as_secs().max(1))
            .disable_signals();
        let draining = builder.graceful_shutdown_signal();
        let pulse = Pulse::new();
        let listener = |front: Front, tls| Listener {
            front: Arc::new(front),
            tls,
            limits: settings.limits.clone(),
            h2c: settings.h2c,
            draining: draining.clone(),
            pulse: pulse.clone(),
        };
        let debug = listener(front.debug(settings), None);
        let main = listener(front, tls);
        for socket in sockets.main {
            builder = main.add_to(builder, socket)?;
        }
        for socket in sockets.debug {
            builder = debug.add_to(builder, socket)?;
        }
        Ok(Server {
            server: builder.run(),
            pulse,
        })
    }

    pub(crate) fn handle(&self) -> ServerHandle {
        self.server.handle()
    }

    pub(crate) fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Runs until [`ServerHandle::stop`]; a graceful stop lets requests in flight finish within `http.draintimeout`.
    ///
    /// # Errors
    /// Those of starting the threads.
    pub(crate) async fn run(self) -> io::Result<()> {
        self.server.await
    }
}

/// A thread a core; two at least, so that one slow request does not stop a small machine.
fn workers() -> usize {
    thread::available_parallelism()
        .map_or(2, NonZeroUsize::get)
        .clamp(2, 64)
}
