//! Whether the storage works, for whoever asks.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::registry::{Error, Registry};

use super::reply::Failure;

/// The last good answer. Asking writes to the disk, and anybody may ask: so one asks for all, and not all the time.
#[derive(Default)]
pub(super) struct Probe(Mutex<Option<Instant>>);

impl Probe {
    /// How long a good answer counts. A bad one never does: what is well again is to be seen at once.
    const GOOD_FOR: Duration = Duration::from_secs(1);
    /// The storage is not waited for longer: a drive that hangs is a drive that is gone.
    const PATIENCE: Duration = Duration::from_secs(5);

    /// # Errors
    /// That the storage fails, or does not answer.
    pub(super) async fn ask(&self, registry: &Registry) -> Result<(), Failure> {
        let asked = async {
            let mut last = self.0.lock().await;
            if last.is_some_and(|last| last.elapsed() < Self::GOOD_FOR) {
                return Ok(());
            }
            *last = None;
            match registry.probe().await {
                // A full disk is read from, and deleted from.
                Ok(()) | Err(Error::NoSpace) => {}
                Err(error @ Error::Away(_)) => return Err(error.into()),
                Err(error) => return Err(Failure::StorageNotReady(error)),
            }
            *last = Some(Instant::now());
            Ok(())
        };
        let silent = |_| {
            let seconds = Self::PATIENCE.as_secs();
            Failure::NotReady(format!("the storage did not answer for {seconds} seconds"))
        };
        tokio::time::timeout(Self::PATIENCE, asked)
            .await
            .map_err(silent)?
    }
}
