//! Which stored content is known to be what its digest says, and which is known not to be.
//!
//! Known good is what this process received or has read whole once; after a restart each blob is hashed again on its
//! first way out. So a disk that lies is found out at the latest when its content is first asked for.

use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::try_unfold;
use lru::LruCache;
use tokio::sync::Notify;

use super::Registry;
use crate::oci::{Digest, Hasher};
use crate::storage::{self, ByteStream};

/// How many digests are remembered; one more costs a hash of its content when it is next read.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(16 * 1024).expect("not zero");

pub(super) struct Verified {
    known: Mutex<LruCache<Digest, bool>>,
    /// Found damaged by somebody who read it, and not looked into since.
    suspects: Mutex<Vec<Digest>>,
    pub(super) suspicion: Notify,
}

/// How many of them are remembered; further ones are found again, at the latest by a check of all content.
const SUSPECTS: usize = 1000;

impl Default for Verified {
    fn default() -> Self {
        Verified {
            known: Mutex::new(LruCache::unbounded()),
            suspects: Mutex::default(),
            suspicion: Notify::new(),
        }
    }
}

impl Verified {
    fn known(&self) -> MutexGuard<'_, LruCache<Digest, bool>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn suspects(&self) -> MutexGuard<'_, Vec<Digest>> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was found damaged since the last call.
    pub(super) fn take_suspects(&self) -> Vec<Digest> {
        std::mem::take(&mut self.suspects())
    }

    fn set(&self, digest: &Digest, good: bool) {
        let mut known = self.known();
        known.put(*digest, good);
        while known.len() > REMEMBERED.get() {
            known.pop_lru();
        }
    }

    /// Content that is gone is neither.
    pub(super) fn forget(&self, digest: &Digest) {
        self.known().pop(digest);
    }

    pub(super) fn set_good(&self, digest: &Digest) {
        self.set(digest, true);
    }

    pub(super) fn set_damaged(&self, digest: &Digest) {
        // Somebody may have mended it while its old content was read.
        if !self.is_good(digest) {
            log::error!(
                "the content stored as {digest} is damaged; it is hidden until it is pushed again"
            );
            self.set(digest, false);
            let mut suspects = self.suspects();
            if suspects.len() < SUSPECTS && !suspects.contains(digest) {
                suspects.push(*digest);
                self.suspicion.notify_one();
            }
        }
    }

    /// Nobody is served it until it is replaced, whatever was known of it before: it was read again.
    pub(super) fn hide(&self, digest: &Digest) {
        self.set(digest, false);
    }

    pub(super) fn is_good(&self, digest: &Digest) -> bool {
        self.known().get(digest) == Some(&true)
    }

    pub(super) fn is_damaged(&self, digest: &Digest) -> bool {
        self.known().get(digest) == Some(&false)
    }

    /// Compares whole content with its digest, and remembers the outcome.
    pub(super) fn check(&self, digest: &Digest, content: &[u8]) -> bool {
        if self.is_good(digest) {
            return true;
        }
        let good = digest.algorithm().digest(content) == *digest;
        if good {
            self.set_good(digest);
        } else {
            self.set_damaged(digest);
        }
        good
    }
}

/// Passes on the whole content of `digest` and hashes it beside. The last block is held back until the digest is known to
/// be right: else the stream ends in an error, and a client that was promised the length knows that it was cheated.
pub(super) fn verifying(registry: Registry, digest: Digest, source: ByteStream) -> ByteStream {
    let state = Checking {
        registry,
        digest,
        source,
        hasher: digest.algorithm().hasher(),
        held: None,
        ended: false,
    };
    Box::pin(try_unfold(state, Checking::next))
}

struct Checking {
    registry: Registry,
    digest: Digest,
    source: Pin<Box<dyn futures_core::Stream<Item = storage::Result<Bytes>> + Send>>,
    hasher: Hasher,
    held: Option<Bytes>,
    ended: bool,
}

impl Checking {
    async fn next(mut self) -> storage::Result<Option<(Bytes, Self)>> {
        while !self.ended {
            match self.source.next().await.transpose()? {
                Some(block) => {
                    self.hasher = hash(self.hasher, block.clone()).await?;
                    if let Some(before) = self.held.replace(block) {
                        return Ok(Some((before, self)));
                    }
                }
                None => {
                    self.ended = true;
                    if self.hasher.clone().finish() != self.digest {
                        self.registry.0.verified.set_damaged(&self.digest);
                        return Err(failed(
                            &self.digest,
                            "the content is not what its digest says",
                        ));
                    }
                    self.registry.0.verified.set_good(&self.digest);
                }
            }
        }
        Ok(self.held.take().map(|last| (last, self)))
    }
}

/// Hashes a block on a thread that may take its time.
pub(super) async fn hash(mut hasher: Hasher, block: Bytes) -> storage::Result<Hasher> {
    let work = move || {
        hasher.update(&block);
        hasher
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| storage::Error::Io {
            call: "hash",
            key: String::new(),
            source: std::io::Error::other(e),
        })
}

fn failed(digest: &Digest, reason: &'static str) -> storage::Error {
    storage::Error::Io {
        call: "verify",
        key: digest.to_string(),
        source: std::io::Error::other(reason),
    }
}
