//! Tokens that were verified lately. Clients send the same one with each request of a push, and a signature takes a tenth
//! of a millisecond of a Raspberry Pi, a chain of certificates several times that.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;
use ring::digest::{SHA256, digest};

/// More than clients that are at work at the same time; with tokens of the usual size this is some 500 KiB.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(512).expect("not zero");

/// What tokens say, by their SHA-256. Whether they still hold is looked at each time.
pub(super) struct Verified<T>(Mutex<LruCache<[u8; 32], Arc<T>>>);

impl<T> Verified<T> {
    pub(super) fn new() -> Self {
        Verified(Mutex::new(LruCache::new(REMEMBERED)))
    }

    /// What `token` says: as remembered, or else as `verify` finds.
    ///
    /// # Errors
    /// Those of `verify`, which are not remembered.
    pub(super) fn get_or<E>(
        &self,
        token: &str,
        verify: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Bound first, so that the lock is free while a signature is checked.
        let known = lock().get(&hash).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let verified = Arc::new(verify()?);
        lock().put(hash, verified.clone());
        Ok(verified)
    }

    pub(super) fn forget(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}
