//! Keeps the server's certificate good while the server runs: it follows the machine's names and addresses and the
//! calendar, and takes up what others renewed.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use crate::causes::WithCauses;

use super::Acceptor;
use super::address_watch::AddressWatch;
use super::clock::now;
use super::local_ca::{Change, Error as CaError, Issued, LocalCa};
use super::trust::Trust;

/// How often the host name, the calendar and the files are looked at. Addresses announce themselves.
const INTERVAL: Duration = Duration::from_secs(60);
/// An interface gets several addresses at once, and IPv6 tries each for a second.
const SETTLE: Duration = Duration::from_secs(2);

/// How long before its end the CA is spoken of: telling every machine takes its time.
const CA_WARNING: time::Duration = time::Duration::days(180);

/// The CA's certificate and what is known around it, as it is now; none while there is no CA of this machine's own.
#[derive(Debug, Default)]
pub(crate) struct Published(RwLock<Option<Arc<Trust>>>);

impl Published {
    pub(crate) fn get(&self) -> Option<Arc<Trust>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, trust: Trust) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(trust));
    }
}

/// What follows.
#[derive(Debug)]
pub(crate) struct Follower {
    ca: LocalCa,
    published: Arc<Published>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Of the server's certificate that is in use.
    fingerprint: String,
    /// Said once, not every minute.
    left_out: String,
    failure: String,
    ca_ends: bool,
}

impl Follower {
    /// Makes what is missing before the server starts.
    ///
    /// # Errors
    /// When there is no certificate to serve with.
    pub(crate) fn start(ca: LocalCa) -> Result<Self, CaError> {
        let follower = Follower {
            published: Arc::default(),
            seen: Mutex::default(),
            ca,
        };
        match follower.ca.ensure() {
            Ok((issued, change)) => follower.note(&issued, &change),
            // Clients are better off with the one that is there than with none.
            Err(error) if follower.ca.server_pem().exists() => {
                follower.note_failure(&error);
                if let Ok(issued) = follower.ca.look() {
                    follower.note(&issued, &Change::None);
                }
            }
            Err(error) => return Err(error),
        }
        Ok(follower)
    }

    pub(crate) fn published(&self) -> Arc<Published> {
        self.published.clone()
    }

    /// Never ends.
    pub(crate) async fn run(self: Arc<Self>, acceptor: Arc<Acceptor>) {
        let watch = AddressWatch::new()
            .inspect_err(|error| {
                log::info!("changes of addresses are seen within a minute: {error}")
            })
            .ok();
        loop {
            let changed = async {
                match &watch {
                    Some(watch) => watch.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            let (follower, acceptor) = (self.clone(), acceptor.clone());
            // Err: it panicked, which is in the log; the next look may be luckier.
            let _ = tokio::task::spawn_blocking(move || follower.look(&acceptor)).await;
        }
    }

    /// Makes a new certificate if one is due, and gives it to `acceptor` if it is not the one in use.
    pub(crate) fn look(&self, acceptor: &Acceptor) {
        let (issued, change) = match self.ca.ensure() {
            Ok(done) => done,
            Err(error) => return self.note_failure(&error),
        };
        let in_use = self.seen().fingerprint == issued.server.fingerprint;
        if !in_use {
            if let Err(error) = acceptor.reload() {
                return self.note_failure(&error);
            }
            if change == Change::None {
                log::info!("taking up the certificate that was made by another process");
            }
        }
        self.note(&issued, &change);
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, issued: &Issued, change: &Change) {
        let trust = Trust::of(issued);
        match change {
            Change::None => {}
            Change::Server(reason) => {
                log::info!(
                    "new server certificate for {}: {reason}",
                    issued.server.names
                );
            }
            Change::Authority(reason) => log::warn!(
                "new certificate authority ({reason}) with SHA-256 {}: `registry cert show` prints the line that makes \
                 other machines trust it",
                trust.sha256
            ),
        }
        let left_out = issued.left_out.to_string();
        let mut seen = self.seen();
        if left_out != seen.left_out && !left_out.is_empty() {
            log::warn!(
                "the certificate is not for {left_out}: the CA may not sign that (`registry cert show` says more)"
            );
        }
        let ca_ends = issued.ca.ends < now() + CA_WARNING;
        if ca_ends && !seen.ca_ends {
            log::warn!(
                "the certificate authority ends on {}: `registry cert renew --ca` makes a new one, which every machine has \
                 to be told",
                issued.ca.ends.date()
            );
        }
        *seen = Seen {
            fingerprint: issued.server.fingerprint.clone(),
            left_out,
            failure: String::new(),
            ca_ends,
        };
        self.published.set(trust);
    }

    fn note_failure(&self, error: &(dyn std::error::Error + 'static)) {
        let text = WithCauses(error).to_string();
        let mut seen = self.seen();
        if seen.failure != text {
            log::error!("no new server certificate, the old one stays in use: {text}");
            seen.failure = text;
        }
    }
}
