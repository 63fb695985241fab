//! The content of manifests, on its way out.
//!
//! Small ones are remembered by the store. The others can have megabytes, and clients that take them slowly: a few at a time
//! are in memory as a whole, to be looked through, and what is sent is read again, piece by piece.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::try_unfold;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::or_unknown;
use super::{Error, Registry, Result};
use crate::oci::Digest;
use crate::storage::{self, Body, ByteStream, Key};

/// Above this many bytes a manifest is a large one.
const SMALL: usize = 64 << 10;
/// Large ones in memory at once. One request holds two at the most, and only while it waits for nothing else.
const AT_ONCE: usize = 4;
/// Bytes of one that are read at a time, for each client that takes it.
const PIECE: u64 = 32 << 10;

pub(super) struct LargeManifests(Arc<Semaphore>);

impl Default for LargeManifests {
    fn default() -> Self {
        LargeManifests(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

/// A large manifest in memory. It counts as one until the last reference to its bytes is gone.
struct Held {
    bytes: Bytes,
    _turn: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Registry {
    /// Content of a manifest, compared with its digest when it is first read. Not to be kept while a client is waited for.
    pub(super) async fn manifest_bytes(&self, digest: &Digest) -> Result<Bytes> {
        let key = Key::Blob(*digest);
        let bytes = match self.store().get(&key, SMALL).await {
            Err(storage::Error::TooLarge { .. }) => {
                // Nobody closes it.
                let _turn = self.0.large_manifests.0.clone().acquire_owned().await.ok();
                let limit = self.manifest_limit().max(4 << 20);
                let bytes = self.store().get(&key, limit).await;
                bytes.map(|bytes| Bytes::from_owner(Held { bytes, _turn }))
            }
            other => other,
        };
        let bytes = or_unknown(bytes, Error::ManifestUnknown)?;
        if self.0.verified.check(digest, &bytes) {
            Ok(bytes)
        } else {
            Err(Error::ManifestUnknown) // hidden from now on, as the log says
        }
    }

    /// The content of a manifest of `len` bytes that has just been looked at, for who takes it at their own pace.
    pub(crate) fn manifest_pieces(&self, digest: Digest, len: u64) -> ByteStream {
        let next = move |(registry, at): (Registry, u64)| async move {
            if at >= len {
                return Ok(None);
            }
            let end = len.min(at + PIECE);
            let key = Key::Blob(digest);
            let object = registry.store().read(&key, Some(at..end)).await?;
            let piece = match object.body {
                Body::Bytes(bytes) => bytes,
                Body::Stream(mut stream) => {
                    let mut bytes = BytesMut::new();
                    while let Some(block) = stream.next().await {
                        bytes.extend_from_slice(&block?);
                    }
                    bytes.freeze()
                }
            };
            Ok(Some((piece, (registry, end))))
        };
        Box::pin(try_unfold((self.clone(), 0), next))
    }
}
