//! A mirror: what a repository does not have is fetched from the upstream, once, and kept as if it had been pushed.
//!
//! ```text
//! pull -> here already? -> serve it                     tags: if it was pushed here, or the upstream says it is still right
//!          `- no -> a fetch of it under way? -> join it
//!                    `- no -> ask the upstream -> store ---> durable, hashed on the way in
//!                                                  `-------> everybody who waits reads what is stored, as it grows
//! ```
//!
//! * A tag that was pushed here is ours, and the upstream is not asked for it. One that was fetched is the upstream's until
//!   somebody pushes it.
//! * What is here is better than nothing: when the upstream is away, limits us, or no longer knows a tag, what was fetched
//!   before is served, and the answer says that it may be old.
//! * What the upstream sends becomes visible when its digest is known to be right. Clients get it as it comes, but for the
//!   last byte, which waits for that.
//! * HEAD of something that is not here says that it is unknown when the upstream is away: clients that push ask that way
//!   whether they have to.

mod adopt;
mod blobs;
mod expiry;
mod flight;
mod lists;
mod manifests;
mod marks;

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use tokio::sync::Semaphore;

use super::{Error, Registry, Result};
use crate::oci::{Digest, RepoName, Tag};
use crate::storage::Filled;
use crate::upstream::{Settings, Upstream};

pub(crate) use expiry::Expired;
use flight::Flights;
pub(super) use marks::Marks;

/// Blobs fetched at once. Each takes up to some 1.5 MiB: two batches on their way to the disk, and what the network has read.
const AT_ONCE: usize = 16;
/// How long the upstream's word on a tag is taken for granted: a pull is a HEAD and a GET, and they should see the same.
const FRESH: Duration = Duration::from_secs(5);
/// Tags and blobs of which it is remembered that they were of use, at some 250 bytes each.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(16 * 1024).expect("not zero");

/// What makes a registry a mirror.
pub(crate) struct Mirror {
    upstream: Upstream,
    ttl: Duration,
    /// How long a fetch goes on for nobody.
    patience: Duration,
    tags: Flights<(RepoName, Tag), Digest>,
    manifests: Flights<(RepoName, Digest), ()>,
    blobs: Flights<Digest, Arc<blobs::Fetch>>,
    fetches: Arc<Semaphore>,
    fresh: Mutex<LruCache<(RepoName, Tag), (Digest, Instant)>>,
    /// Asked for since the last time that expired content was looked for.
    used: Mutex<LruCache<(RepoName, Filled), ()>>,
    lists: lists::Lists,
}

impl Mirror {
    pub(crate) fn new(upstream: Upstream, settings: &Settings) -> Self {
        Mirror {
            upstream,
            ttl: settings.ttl,
            patience: settings.cache_write_timeout,
            tags: Flights::default(),
            manifests: Flights::default(),
            blobs: Flights::default(),
            fetches: Arc::new(Semaphore::new(AT_ONCE)),
            fresh: Mutex::new(LruCache::new(REMEMBERED)),
            used: Mutex::new(LruCache::new(REMEMBERED)),
            lists: lists::Lists::default(),
        }
    }

    fn used(&self) -> MutexGuard<'_, LruCache<(RepoName, Filled), ()>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_use(&self, repo: &RepoName, what: Filled) {
        if !self.ttl.is_zero() {
            self.used().put((repo.clone(), what), ());
        }
    }

    fn fresh(&self) -> MutexGuard<'_, LruCache<(RepoName, Tag), (Digest, Instant)>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_fresh(&self, repo: &RepoName, tag: &Tag, digest: &Digest) -> bool {
        let mut fresh = self.fresh();
        let known = fresh.get(&(repo.clone(), tag.clone()));
        known.is_some_and(|(known, at)| known == digest && at.elapsed() < FRESH)
    }

    fn set_fresh(&self, repo: &RepoName, tag: &Tag, digest: &Digest) {
        let word = (*digest, Instant::now());
        self.fresh().put((repo.clone(), tag.clone()), word);
    }
}

impl Registry {
    /// Whether what is not here can be asked for elsewhere.
    pub(super) fn has_upstream(&self) -> bool {
        self.mirror().is_some()
    }

    /// Fetches content that a repository has a link to, and that is damaged or gone. To whom it belongs stays as it is.
    pub(super) async fn fetch_again(
        &self,
        repo: &RepoName,
        digest: &Digest,
        is_manifest: bool,
    ) -> Result<()> {
        let Some(mirror) = self.mirror() else {
            return Err(Error::BlobUnknown);
        };
        let fetched = if is_manifest {
            self.fetch_revision(mirror, repo, digest).await
        } else {
            self.fetch_whole_blob(mirror, repo, digest).await
        };
        fetched.map_err(|failure| failure.into_error(Error::BlobUnknown))
    }

    /// What to fetch with; `None` if this is no mirror, or nothing may be written.
    fn mirror(&self) -> Option<&Mirror> {
        self.0.mirror.as_ref().filter(|_| !self.is_read_only())
    }
}
