//! Removes what a mirror fetched and nobody asks for any more.

use std::time::Duration;

use crate::registry::{Expired, Registry};

/// How long after the start the first look is taken, at the most: by then the clock of a machine without a clock battery
/// has been set.
const FIRST: Duration = Duration::from_secs(15 * 60);

/// Looks at every interval, until it is dropped.
pub(crate) async fn expire_fetched(registry: Registry) {
    let Some(interval) = registry.expiry_interval() else {
        return;
    };
    let mut pause = interval.min(FIRST);
    loop {
        tokio::time::sleep(pause).await;
        pause = interval;
        match registry.expire_fetched().await {
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
