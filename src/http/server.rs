//! The threads that serve, on all addresses together.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use actix_server::{ServerBuilder, ServerHandle};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::tls;

use super::Front;
use super::listener::Listener;
use super::pulse::Pulse;
use super::seats::Seats;
use super::settings::{Limits, Settings};
use super::sockets::Sockets;

/// At `http.debug.addr`, apart from the others: who watches a server has to reach it when it is full.
const DEBUG_CONNECTIONS: usize = 64;
/// That were told to end and have not yet.
const TRANSIENT: usize = 256;
/// Files that a server needs beside connections and what they read and write.
const OTHER_FILES: usize = 128;

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
        let limits = within_files(&settings.limits);
        let of_debug = Limits {
            max_connections: DEBUG_CONNECTIONS,
            max_connections_per_address: None,
            ..limits.clone()
        };
        let mut builder = ServerBuilder::new()
            .workers(workers)
            .worker_max_blocking_threads(blocking_threads.div_ceil(workers))
            // Above what `Seats` allow, which judge each connection: here further ones would only wait, whoever they are.
            .max_concurrent_connections(limits.max_connections + DEBUG_CONNECTIONS + TRANSIENT)
            .shutdown_timeout(settings.drain_timeout.as_secs().max(1))
            .disable_signals();
        let draining = builder.graceful_shutdown_signal();
        let pulse = Pulse::new();
        let listener = |front: Front, tls, limits: Limits| Listener {
            seats: Seats::new(
                &limits,
                settings.trusted_proxies.clone(),
                front.metrics.clone(),
            ),
            front: Arc::new(front),
            tls,
            limits,
            h2c: settings.h2c,
            draining: draining.clone(),
            pulse: pulse.clone(),
        };
        let debug = listener(front.debug(settings), None, of_debug);
        let main = listener(front, tls, limits);
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

    pub(crate) fn handle(&self) -> Handle {
        Handle(self.server.handle())
    }

    pub(crate) fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Runs until [`Handle::drain`].
    ///
    /// # Errors
    /// Those of starting the threads.
    pub(crate) async fn run(self) -> io::Result<()> {
        self.server.await
    }
}

/// Ends a server that runs.
pub(crate) struct Handle(ServerHandle);

impl Handle {
    /// Takes no more connections, and lets requests in flight finish within `http.draintimeout`.
    pub(crate) async fn drain(&self) {
        // actix drops the connections that a thread has been given and not looked at yet, with the requests on them.
        const MOMENT: Duration = Duration::from_millis(300);
        self.0.pause().await;
        tokio::time::sleep(MOMENT).await;
        self.0.stop(true).await;
    }
}

/// Raises the number of files that this process may have open as far as it may, as other servers do, and keeps the
/// connections below half of it: each may have a file of the storage open.
fn within_files(limits: &Limits) -> Limits {
    let mut limits = limits.clone();
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return limits;
    };
    let raised = soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    let files = if raised { hard } else { soft };
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    let room = (files.saturating_sub(OTHER_FILES + DEBUG_CONNECTIONS) / 2).max(1);
    if room < limits.max_connections {
        log::warn!(
            "http.maxconnections: {} connections instead of {}, since this process may have no more than {files} files \
             open (LimitNOFILE of the service, ulimit -n)",
            room,
            limits.max_connections
        );
        limits.max_connections = room;
    }
    limits
}

/// A thread a core; two at least, so that one slow request does not stop a small machine.
fn workers() -> usize {
    thread::available_parallelism()
        .map_or(2, NonZeroUsize::get)
        .clamp(2, 64)
}
