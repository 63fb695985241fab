//! The registry on its disk, or on a drive that comes and goes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::config::Config;
use crate::drive::Expectation;
use crate::maintenance::Witness;
use crate::metrics::Metrics;
use crate::registry::{Current, Elsewhere, Mirror, Registry};
use crate::storage::{
    AttachError, Away, Cached, Drive, DriveStore, FsStore, Metered, Store, control_socket,
};
use crate::upstream::Upstream;
use crate::{control, maintenance, systemd, tls};

/// How long after a vain look for the drive the next one comes.
const AGAIN: Duration = Duration::from_secs(1);

/// The registry, and what keeps it on its drive if it has one.
pub(super) struct Attached {
    pub(super) registry: Current,
    root: PathBuf,
    keeper: Option<Keeper>,
}

/// Takes the drive when it comes, and lets go of it when it leaves.
struct Keeper {
    config: Config,
    metrics: Metrics,
    registry: Current,
    drive: Drive,
    store: Option<DriveStore>,
}

/// Opens the tree. A drive that is away is no error: it is waited for.
///
/// # Errors
/// What keeps the server from starting.
pub(super) async fn attach(config: &Config, metrics: &Metrics) -> anyhow::Result<Attached> {
    let Some(expected) = expectation(config)? else {
        let store = FsStore::open(&config.storage.root)?;
        return Ok(Attached {
            registry: Current::new(Ok(open(store, config, metrics).await?)),
            root: config.storage.root.clone(),
            keeper: None,
        });
    };
    let mut drive = Drive::new(expected.root, expected.id);
    let (now, store) = match drive.attach().await {
        Ok(store) => (Ok(open(store.clone(), config, metrics).await?), Some(store)),
        Err(AttachError::Refused(reason)) => return Err(reason.into()),
        Err(AttachError::Away(away)) => {
            log::error!("{away}; nothing is served until then (`registry drive status` says more)");
            (Err(away), None)
        }
    };
    metrics.drive(store.is_some());
    let registry = Current::new(now);
    let keeper = Keeper {
        config: config.clone(),
        metrics: metrics.clone(),
        registry: registry.clone(),
        drive,
        store,
    };
    Ok(Attached {
        registry,
        root: config.storage.root.clone(),
        keeper: Some(keeper),
    })
}

/// The registry for a command that works without a server, on the drive if it belongs on one.
///
/// # Errors
/// Those of the tree; that the drive is away.
pub(super) async fn alone(config: &Config) -> anyhow::Result<Registry> {
    let settings = config.registry.clone();
    let elsewhere = elsewhere(config, &Metrics::new(env!("CARGO_PKG_VERSION")))?;
    Ok(match expectation(config)? {
        None => {
            let store = FsStore::open(&config.storage.root)?;
            Registry::among(store, settings, elsewhere)?
        }
        Some(expected) => {
            let store = Drive::new(expected.root, expected.id).attach().await?;
            Registry::among(store, settings, elsewhere)?
        }
    })
}

/// The drive that has to be there, if one has.
fn expectation(config: &Config) -> anyhow::Result<Option<Expectation>> {
    let Some(path) = &config.storage.drive else {
        return Ok(None);
    };
    let Some(expected) = Expectation::read(path)? else {
        return Ok(None);
    };
    if expected.root == config.storage.root {
        return Ok(Some(expected));
    }
    log::info!(
        "the drive of {} is not looked at: the images are in {}",
        expected.root.display(),
        config.storage.root.display()
    );
    Ok(None)
}

/// The domain on a store, with what watches and what remembers between them.
async fn open(store: impl Store, config: &Config, metrics: &Metrics) -> anyhow::Result<Registry> {
    let elsewhere = elsewhere(config, metrics)?;
    let metrics = metrics.clone();
    let observer =
        move |call, ok, took: Duration| metrics.storage_call(call, ok, took.as_secs_f64());
    let store = Cached::new(Metered::new(store, Arc::new(observer)));
    let registry = Registry::among(store, config.registry.clone(), elsewhere)?;
    registry.look_for_marks().await?;
    Ok(registry)
}

/// Where else content may be.
fn elsewhere(config: &Config, metrics: &Metrics) -> anyhow::Result<Elsewhere> {
    let peers = config.registry.scrub.peers.iter().map(|peer| {
        let tls = tls::client::client_config()?;
        Ok(Upstream::new(peer, tls, metrics.clone())?)
    });
    Ok(Elsewhere {
        mirror: open_mirror(config, metrics)?,
        peers: peers
            .collect::<anyhow::Result<_>>()
            .context("scrub.peers")?,
    })
}

/// What `proxy` asks for. The upstream need not answer yet.
fn open_mirror(config: &Config, metrics: &Metrics) -> anyhow::Result<Option<Mirror>> {
    if config.proxy.remote_url.is_empty() {
        return Ok(None);
    }
    let tls = tls::client::client_config().context("proxy")?;
    let upstream = Upstream::new(&config.proxy, tls, metrics.clone()).context("proxy")?;
    if config.registry.read_only {
        log::warn!("read-only: nothing is fetched from {}", upstream.host());
    } else {
        log::info!("what is not here is fetched from {}", upstream.host());
    }
    Ok(Some(Mirror::new(upstream, &config.proxy)))
}

impl Attached {
    /// Runs until it is dropped: reads the catalog before somebody waits for it, and stays with the drive. `status` is what
    /// `systemctl status` shows while all is well.
    /// `witness` hears what is removed or brought back meanwhile.
    pub(super) async fn keep(self, status: String, witness: Witness) {
        match self.keeper {
            None => work(&self.registry, &self.root, &witness).await,
            Some(keeper) => keeper.keep(&status, &witness).await,
        }
    }
}

impl Keeper {
    async fn keep(mut self, status: &str, witness: &Witness) {
        loop {
            if let Some(store) = self.store.take() {
                let working = async {
                    work(&self.registry, &self.config.storage.root, witness).await;
                    std::future::pending::<()>().await
                };
                // Nothing of it goes on when the drive is lost, so that nothing keeps the registry of before.
                let away = tokio::select! {
                    away = store.lost() => away,
                    () = working => continue,
                };
                log::error!("{away}; nothing is served until it is back");
                self.put(Err(away), status);
            }
            tokio::time::sleep(AGAIN).await;
            let attached = self.drive.attach().await;
            let now = match attached {
                Ok(store) => match open(store.clone(), &self.config, &self.metrics).await {
                    Ok(registry) => {
                        log::info!("the drive is back, and is served");
                        self.store = Some(store);
                        Ok(registry)
                    }
                    Err(error) => {
                        log::error!("{error:#}");
                        Err(Away::Failing)
                    }
                },
                Err(error) => Err(error.away()),
            };
            self.put(now, status);
        }
    }

    fn put(&self, now: Result<Registry, Away>, status: &str) {
        let was = self.registry.get().map(drop).map_err(|e| e.to_string());
        let is = now.as_ref().map(drop).map_err(Away::to_string);
        self.registry.set(now);
        if was == is {
            return;
        }
        self.metrics.drive(is.is_ok());
        match is {
            Ok(()) => systemd::status(status),
            Err(away) => {
                log::warn!("{away}");
                systemd::status(&away);
            }
        }
    }
}

/// What goes on beside the requests as long as there is this registry: garbage collection, retention, and commands.
async fn work(registry: &Current, root: &Path, witness: &Witness) {
    let Ok(now) = registry.get() else {
        return;
    };
    let commands = async {
        match control::listen(&control_socket(root), now.clone(), witness.clone()) {
            Ok(listening) => _ = listening.await,
            Err(error) => log::warn!("commands cannot reach this server: {error}"),
        }
    };
    let collecting = maintenance::Gc::new(now.clone()).run();
    let retaining = maintenance::Retain::new(now.clone(), witness.clone()).run();
    let noting = maintenance::note_pulls(now.clone());
    let scrubbing = maintenance::Scrub::new(now.clone()).run();
    let relieving = maintenance::relieve(now.clone());
    let measuring = now.measure_quotas();
    tokio::join!(
        commands,
        warm_up(registry),
        measuring,
        collecting,
        retaining,
        noting,
        scrubbing,
        relieving
    );
}

async fn warm_up(registry: &Current) {
    let listed = match registry.get() {
        Ok(registry) => registry.warm_up().await,
        Err(away) => Err(away),
    };
    match listed {
        Ok(repositories) => log::info!("{repositories} repositories"),
        Err(error) => log::warn!(
            "the repositories could not be listed: {:#}",
            anyhow::Error::from(error)
        ),
    }
}
