//! A disk that is nearly full: uploads are refused before they begin, and what can be done without goes.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::{Error, Registry, Result};
use crate::storage::Space;

/// For how long it is taken for granted that the disk has room. That it has none never is: somebody may just have made some.
const FRESH: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Pressure {
    /// How full the disk was lately.
    seen: Mutex<Option<(Instant, Space)>>,
    /// An upload was refused.
    refused: Notify,
    /// Garbage is to be collected at once.
    hurry: Notify,
}

impl Registry {
    /// `NearlyFull` if no upload should begin.
    pub(super) async fn room_for_upload(&self) -> Result<()> {
        let refuse = self.settings().pressure.refuse;
        if refuse == 0 {
            return Ok(());
        }
        let full = |space: &Space| space.available < refuse.min(space.total / 100);
        if matches!(self.space_lately(), Some(space) if !full(&space)) {
            return Ok(());
        }
        let space = self.space().await?;
        *self.space_seen() = space.map(|space| (Instant::now(), space));
        match space {
            Some(space) if full(&space) => {
                self.0.pressure.refused.notify_one();
                Err(Error::NearlyFull {
                    available: space.available,
                })
            }
            _ => Ok(()),
        }
    }

    fn space_lately(&self) -> Option<Space> {
        let seen = *self.space_seen();
        seen.filter(|(when, _)| when.elapsed() < FRESH)
            .map(|(_, space)| space)
    }

    fn space_seen(&self) -> MutexGuard<'_, Option<(Instant, Space)>> {
        let seen = &self.0.pressure.seen;
        seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room on the disk, if there is so little of it that what can be done without should go.
    pub(crate) async fn pressed(&self) -> Result<Option<Space>> {
        let collect = self.settings().pressure.collect;
        let space = self.space().await?;
        Ok(space.filter(|space| space.available < collect.min(space.total / 20)))
    }

    /// Waits until an upload has been refused for want of room.
    pub(crate) async fn refusal(&self) {
        self.0.pressure.refused.notified().await;
    }

    /// Has garbage collected as soon as that is possible.
    pub(crate) fn hurry_collection(&self) {
        self.0.pressure.hurry.notify_one();
    }

    /// Waits until garbage should be collected as soon as that is possible.
    pub(crate) async fn hurry(&self) {
        self.0.pressure.hurry.notified().await;
    }
}
