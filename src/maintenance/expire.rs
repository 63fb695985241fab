//! Removes upload sessions that nobody continues.

use std::time::Duration;

use crate::registry::settings::Purging;
use crate::registry::{Current, Error};

/// How long after the start the first look is taken, at the most: by then the clock of a machine without a clock battery
/// has been set, and an upload that was under way before the start has been taken up again.
const FIRST: Duration = Duration::from_secs(15 * 60);

/// Looks at every interval, until it is dropped.
pub(crate) async fn purge_uploads(registry: Current, purging: Purging) {
    if !purging.enabled {
        return;
    }
    let mut pause = purging.interval.min(FIRST);
    loop {
        tokio::time::sleep(pause).await;
        pause = purging.interval;
        let purged = match registry.get() {
            Ok(registry) if registry.is_read_only() => continue,
            Ok(registry) => registry.purge_uploads(purging.age, purging.dry_run).await,
            Err(away) => Err(away),
        };
        match purged {
            Err(Error::Away(_)) => log::debug!("abandoned uploads: the drive is away"),
            Ok(0) => log::debug!("no abandoned uploads"),
            Ok(n) => log::info!("{n} abandoned uploads were found"),
            Err(e) => log::warn!("abandoned uploads could not be removed: {e}"),
        }
    }
}
