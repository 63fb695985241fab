//! `registry serve [FILE]`: from the configuration to a server that runs until it is told to stop.

use std::future::Future as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::attach::attach;
use super::watchdog;
use super::witness::witness;
use crate::auth::{Auth, KeyFile};
use crate::config::{Config, Importance};
use crate::health::Checks;
use crate::http::settings as http;
use crate::http::{Front, Server, Sockets};
use crate::metrics::Metrics;
use crate::notifications::{Deliveries, Notifier};
use crate::registry::Current;
use crate::storage;
use crate::tls::follow::Follower;
use crate::tls::{self, Acceptor};
use crate::{logging, maintenance, systemd};

/// How long systemd is asked to wait for the storage, at most: the longest that a drive may take for what was written before
/// a power cut. One that hangs is not waited for without end.
const OPENING: Duration = Duration::from_secs(600);

/// Runs the registry. With `local`, a folder, what the configuration leaves open is set for this machine alone: images in
/// that folder, an address that no other machine reaches, and a certificate made for it.
///
/// # Errors
/// What keeps the server from starting.
pub(crate) fn serve(file: Option<&Path>, local: Option<&Path>) -> anyhow::Result<ExitCode> {
    let mut config = match Config::load(file, variables(local).into_iter()) {
        Ok(config) => config,
        Err(errors) => return Ok(super::config::fail(file, &errors)),
    };
    logging::init(&config.log, logging::stderr_is_journal());
    for notice in &config.notices {
        match notice.importance {
            Importance::Warning => log::warn!("{}", notice.about),
            Importance::Info => log::info!("{}", notice.about),
        }
    }
    if let (Some(folder), None) = (local, &config.http.tls) {
        let mut tls = http::Tls::default();
        tls.self_signed.enabled = true;
        tls.self_signed.directory = folder.join("tls");
        config.http.tls = Some(tls);
    }
    let follower = config
        .http
        .tls
        .as_mut()
        .map(own_certificate)
        .transpose()?
        .flatten();
    // Before anything that takes time: clients that come early wait, and a port that is taken is said at once.
    let sockets = Sockets::open(&config.http, systemd::inherited_sockets()?)?;
    let tls = config
        .http
        .tls
        .as_ref()
        .map(|tls| accept(tls, protocols(&config.http)))
        .transpose()?;
    // The threads that serve are the server's own; this one waits for signals.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(
        config,
        sockets,
        Tls {
            acceptor: tls,
            follower,
        },
    ))?;
    // What still waits for a disk that hangs must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(ExitCode::SUCCESS)
}

/// None of it: plain HTTP.
struct Tls {
    acceptor: Option<Arc<Acceptor>>,
    follower: Option<Arc<Follower>>,
}

async fn run(config: Config, sockets: Sockets, tls: Tls) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"));
    let root = config.storage.root.display();
    systemd::status(&format!("opening {root}"));
    // After a power cut it waits until the drive has everything.
    let patience = systemd::Patience::ask(OPENING);
    let attached = attach(&config, &metrics).await?;
    drop(patience);
    let registry = attached.registry.clone();
    let keys = KeyFile {
        path: &storage::token_keys(&config.storage.root),
        is_reachable: registry.get().is_ok(),
    };
    let auth = Arc::new(Auth::new(&config.auth, Some(keys))?);
    let addresses = sockets.describe(&config.http).join(" ");
    let checks = Checks::new(&config.health, &registry)?;
    let (notifier, deliveries) = start_notifier(&config, &metrics)?;
    let witness = witness(notifier.clone());
    let front = Front::new(
        registry.clone(),
        metrics,
        auth.clone(),
        notifier,
        &config.http,
        checks.health(),
        config.registry.min_chunk,
    );
    let front = match &tls.follower {
        Some(follower) => front.with_trust(follower.published()),
        None => front,
    };
    let server = Server::start(
        sockets,
        front,
        &config.http,
        tls.acceptor.clone(),
        config.storage.max_threads,
    )?;
    let (handle, pulse) = (server.handle(), server.pulse());
    let mut running = std::pin::pin!(server.run());
    // The first poll starts the threads.
    std::future::poll_fn(|cx| {
        let _ = running.as_mut().poll(cx);
        std::task::Poll::Ready(())
    })
    .await;
    let serving = format!("serving {root} on {addresses}");
    tokio::spawn(attached.keep(serving.clone(), witness));
    // Its first steps: commands reach a server that says it is ready.
    tokio::task::yield_now().await;
    log::info!("{serving}");
    systemd::ready(&status(&registry, &serving));
    checks.start();
    tokio::spawn(maintenance::purge_uploads(
        registry.clone(),
        config.registry.purging.clone(),
    ));
    tokio::spawn(maintenance::expire_fetched(registry.clone()));
    tokio::spawn(renew_token_keys(auth.clone(), registry.clone()));
    if let (Some(follower), Some(acceptor)) = (&tls.follower, &tls.acceptor) {
        tokio::spawn(follower.clone().run(acceptor.clone()));
    }
    if let Some(limit) = systemd::watchdog_limit() {
        let (serving, registry) = (serving.clone(), registry.clone());
        tokio::spawn(async move { watchdog::feed(limit, &serving, registry, pulse).await });
    }
    loop {
        tokio::select! {
            ended = &mut running => return ended.context("the server ended by itself"),
            told = signals.next() => match told {
                Told::Reload => reload(&tls, &auth, &registry, &serving).await,
                Told::Stop => break,
            },
        }
    }
    let limit = config.http.drain_timeout;
    log::info!(
        "stopping: requests in flight have {} seconds to finish",
        limit.as_secs()
    );
    systemd::stopping(&format!(
        "requests in flight have {} seconds to finish",
        limit.as_secs()
    ));
    let _patience = systemd::Patience::ask(limit);
    let end = Instant::now() + limit;
    let drained = async {
        let ((), ended) = tokio::join!(handle.drain(), running);
        deliveries.drain(end).await;
        ended
    };
    tokio::select! {
        ended = drained => ended?,
        () = signals.stop_again() => log::warn!("stopping at once: told so twice"),
    }
    log::info!("stopped");
    Ok(())
}

/// The variables of the environment, and below them those that `--local` stands for.
fn variables(local: Option<&Path>) -> Vec<(String, String)> {
    let mut variables: Vec<_> = super::config::variables().collect();
    let folder = local.map(|folder| folder.to_string_lossy().into_owned());
    for (name, value) in folder.into_iter().flat_map(|folder| {
        [
            ("REGISTRY_HTTP_ADDR", "127.0.0.1:5000".to_owned()),
            ("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", folder),
        ]
    }) {
        if !variables.iter().any(|(known, _)| known == name) {
            variables.push((name.to_owned(), value));
        }
    }
    variables
}

/// What `systemctl status` shows.
fn status(registry: &Current, serving: &str) -> String {
    match registry.get() {
        Ok(_) => serving.to_owned(),
        Err(away) => away.to_string(),
    }
}

/// Webhooks, and the tasks that deliver to them.
fn start_notifier(config: &Config, metrics: &Metrics) -> anyhow::Result<(Notifier, Deliveries)> {
    let settings = &config.notifications;
    let port = config
        .http
        .addr
        .first()
        .and_then(|addr| addr.rsplit_once(':'));
    let port = port.map_or("", |(_, port)| port);
    let addr = format!("{}:{port}", hostname().unwrap_or_default());
    Ok(Notifier::start(settings, addr, metrics)?)
}

fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// For ALPN, in the order of preference.
fn protocols(http: &http::Settings) -> Vec<Vec<u8>> {
    let (h1, h2) = (b"http/1.1".to_vec(), b"h2".to_vec());
    match (http.http2, http.http2_preferred) {
        (true, true) => vec![h2, h1],
        (true, false) => vec![h1, h2],
        (false, _) => vec![h1],
    }
}

fn accept(tls: &http::Tls, protocols: Vec<Vec<u8>>) -> anyhow::Result<Arc<Acceptor>> {
    let client_auth = match tls.client_auth {
        Some(http::ClientAuth::Request) => tls::ClientAuth::Request,
        Some(http::ClientAuth::RequireAny) => tls::ClientAuth::RequireAny,
        Some(http::ClientAuth::VerifyIfGiven) => tls::ClientAuth::VerifyIfGiven,
        Some(http::ClientAuth::RequireAndVerify) => tls::ClientAuth::RequireAndVerify,
        None if tls.client_cas.is_empty() => tls::ClientAuth::None,
        None => tls::ClientAuth::RequireAndVerify,
    };
    let settings = tls::Settings {
        certificate: tls.certificate.clone(),
        key: tls.key.clone(),
        client_cas: tls.client_cas.clone(),
        client_auth,
        only_13: tls.minimum == http::MinimumTls::Tls13,
        cipher_suites: tls.cipher_suites.clone(),
        protocols,
    };
    Ok(Arc::new(Acceptor::new(settings).context("http.tls")?))
}

/// Where no certificate was given, one by a CA of this machine's own.
fn own_certificate(tls: &mut http::Tls) -> anyhow::Result<Option<Arc<Follower>>> {
    let Some(ca) = super::cert::local_ca(tls) else {
        return Ok(None);
    };
    (tls.certificate, tls.key) = (ca.server_pem(), ca.server_pem());
    let follower = Follower::start(ca).context("http.tls.selfsigned")?;
    Ok(Some(Arc::new(follower)))
}

/// SIGHUP: certificates that were renewed, and keys of tokens.
async fn reload(tls: &Tls, auth: &Arc<Auth>, registry: &Current, serving: &str) {
    systemd::reloading();
    if registry.get().is_ok()
        && let Err(error) = on_the_drive(auth, |auth| auth.reload_keys()).await
    {
        log::error!("keys of tokens not reloaded, the old ones stay in use: {error:#}");
    }
    if let (Some(follower), Some(acceptor)) = (&tls.follower, &tls.acceptor) {
        follower.look(acceptor);
    }
    match tls.acceptor.as_deref().map(Acceptor::reload) {
        None => log::info!("nothing to reload: the configuration names no certificate"),
        Some(Ok(())) => log::info!("certificates reloaded"),
        Some(Err(error)) => {
            log::error!(
                "certificates not reloaded, the old ones stay in use: {:#}",
                anyhow::Error::from(error)
            );
        }
    }
    systemd::ready(&status(registry, serving));
}

/// What reads or writes where the images are, on a thread that may hang with their drive: signals are heard all the same.
async fn on_the_drive(
    auth: &Arc<Auth>,
    work: impl FnOnce(&Auth) -> Result<(), crate::auth::AuthError> + Send + 'static,
) -> anyhow::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let auth = auth.clone();
    let task = tokio::task::spawn_blocking(move || work(&auth));
    Ok(tokio::time::timeout(PATIENCE, task)
        .await
        .context("the drive does not answer")???)
}

/// A new key for our own tokens, when the last one has signed for long enough, or when the drive that they lie on has come.
async fn renew_token_keys(auth: Arc<Auth>, registry: Current) {
    const LOOK_EVERY: Duration = Duration::from_secs(60);
    let mut told = false;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // Nothing is read or written where the drive should be.
        if registry.get().is_err() {
            continue;
        }
        match on_the_drive(&auth, |auth| auth.renew_keys()).await {
            Ok(()) => told = false,
            Err(error) if !told => {
                log::warn!("no new key for tokens, the old one goes on: {error:#}");
                told = true;
            }
            Err(_) => {}
        }
    }
}

#[derive(PartialEq, Eq)]
enum Told {
    Stop,
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            Some(()) = self.terminate.recv() => Told::Stop,
            Some(()) = self.interrupt.recv() => Told::Stop,
            Some(()) = self.reload.recv() => Told::Reload,
            else => std::future::pending().await,
        }
    }

    /// The second time; a terminal or a script may well say it twice at once.
    async fn stop_again(&mut self) {
        let soon = Instant::now() + Duration::from_secs(1);
        while self.next().await != Told::Stop || Instant::now() < soon {}
    }
}
