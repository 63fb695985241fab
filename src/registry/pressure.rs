//! A disk that is nearly full: uploads are refused before they begin, and what can be done without goes.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::{Error, Registry, Result};
use crate::storage::Space;

/// For how long it is taken for granted how full the disk is.
const FRESH: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Pressure {
    /// How full the disk was lately.
    seen: Mutex<Option<(Instant, Option<Space>)>>,
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
        match self.space_lately().await? {
            Some(space) if space.available < refuse.min(space.total / 100) => {
                self.0.pressure.refused.notify_one();
                Err(Error::NearlyFull {
                    available: space.available,
                })
            }
            _ => Ok(()),
        }
    }

    async fn space_lately(&self) -> Result<Option<Space>> {
        let seen = &self.0.pressure.seen;
        let lately = *seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, space)) = lately
            && when.elapsed() < FRESH
        {
            return Ok(space);
        }
        let space = self.space().await?;
        *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), space));
        Ok(space)
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
