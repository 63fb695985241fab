//! What goes when the disk is nearly full: what a mirror fetched and nobody asks for just now, what is only held to be brought
//! back, and garbage, at once. Never what was pushed.

use std::time::{Duration, Instant};

use crate::registry::{Error, Expired, Registry};

/// How often to look. It costs no access to the disk.
const LOOK: Duration = Duration::from_secs(30);
/// How long after that it is done again, if there is still no room.
const AGAIN: Duration = Duration::from_secs(600);
/// The same, if somebody wants to push: something may have been deleted meanwhile.
const WANTED: Duration = Duration::from_secs(20);
/// What was asked for within this time stays in a mirror.
const IN_USE: Duration = Duration::from_secs(3600);

/// Looks how full the disk is, until it is dropped.
pub(crate) async fn relieve(registry: Registry) {
    if registry.settings().pressure.collect == 0 || registry.settings().read_only {
        return;
    }
    let (mut done, mut again): (Option<Instant>, _) = (None, AGAIN);
    loop {
        match registry.pressed().await {
            Ok(None) => done = None,
            Ok(Some(space)) if done.is_none_or(|done| done.elapsed() >= again) => {
                done = Some(Instant::now());
                log::warn!(
                    "the disk is nearly full: {} MB of {} MB are free; garbage is collected at once",
                    space.available / 1_000_000,
                    space.total / 1_000_000
                );
                make_room(&registry).await;
            }
            Ok(Some(_)) => {}
            Err(e) => log::debug!("how full the disk is cannot be told: {e}"),
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => again = AGAIN,
            () = registry.refusal() => again = WANTED,
        }
    }
}

async fn make_room(registry: &Registry) {
    match registry.evict_fetched(IN_USE).await {
        Ok(evicted) if evicted == Expired::default() => {}
        Ok(evicted) => log::info!(
            "{} tags, {} manifests and {} blobs that were fetched from the upstream had to go",
            evicted.tags,
            evicted.manifests,
            evicted.blobs
        ),
        Err(Error::Away(_)) => {}
        Err(e) => log::warn!("what was fetched from the upstream could not be removed: {e}"),
    }
    registry.hurry_collection();
}
