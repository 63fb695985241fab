//! Removes what a mirror fetched and nobody asks for any more.

use std::time::Duration;

use crate::registry::{Current, Error, Expired};

/// How long after the start the first look is taken, at the most: by then the clock of a machine without a clock battery
/// has been set.
const FIRST: Duration = Duration::from_secs(15 * 60);
/// How long to wait for a drive that is away.
const AWAY: Duration = Duration::from_secs(60);

/// Looks at every interval, until it is dropped.
pub(crate) async fn expire_fetched(registry: Current) {
    let mut first = Some(FIRST);
    loop {
        let interval = match registry.get().map(|registry| registry.expiry_interval()) {
            Ok(Some(interval)) => interval,
            Ok(None) => return,
            Err(_) => {
                tokio::time::sleep(AWAY).await;
                continue;
            }
        };
        tokio::time::sleep(first.take().unwrap_or(interval).min(interval)).await;
        let expired = match registry.get() {
            Ok(registry) => registry.expire_fetched().await,
            Err(away) => Err(away),
        };
        match expired {
            Err(Error::Away(_)) => log::debug!("what was fetched: the drive is away"),
            Ok(expired) if expired == Expired::default() => {
                log::debug!("nothing that was fetched has expired");
            }
            Ok(expired) => log::info!(
                "{} tags, {} manifests and {} blobs that were fetched from the upstream have expired",
                expired.tags,
                expired.manifests,
                expired.blobs
            ),
            Err(e) => log::warn!("what has expired could not be removed: {e}"),
        }
    }
}
