//! The writer of an upload session: batches to the hash and to the disk, and what becomes of them.

use bytes::{Bytes, BytesMut};
use tokio::task::JoinHandle;

use super::sessions::{Hold, Paused};
use super::{Error, Registry, Result, to_the_end};
use crate::oci::{Digest, Hasher, RepoName};
use crate::storage::Upload;

/// Pieces smaller than this many bytes are copied together.
const PIECE: usize = 4096;
/// Bytes gathered before hash and disk get them.
const BATCH: usize = 256 * 1024;

/// The one writer of a session. Dropped without `pause` or `commit` it keeps what came, as `pause` does.
pub(crate) struct Writer {
    inner: Option<Inner>,
}

struct Inner {
    registry: Registry,
    repo: RepoName,
    hold: Hold,
    upload: Box<dyn Upload>,
    hashing: Hashing,
    /// Received, and not yet given to hash and disk; small pieces are gathered in `tail`, which comes after.
    batch: Vec<Bytes>,
    tail: BytesMut,
    /// Bytes in `batch` and `tail`.
    batched: usize,
    len: u64,
    /// Bytes that the disk was given, and those of them that it surely has.
    handed: u64,
    stored: u64,
    /// Nobody knows the session's id: what is not committed is removed.
    transient: bool,
    origin: Origin,
}

/// Where content comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Pushed,
    /// From the upstream of a mirror.
    Fetched,
}

/// A hash that travels to a thread and back.
pub(super) enum Hashing {
    Idle(Hasher),
    Busy(JoinHandle<Hasher>),
    Lost,
}

impl Hashing {
    pub(super) async fn settle(&mut self) -> Result<Hasher> {
        match std::mem::replace(self, Hashing::Lost) {
            Hashing::Idle(hasher) => Ok(hasher),
            Hashing::Busy(task) => task.await.map_err(|_| Error::Aborted),
            Hashing::Lost => Err(Error::Aborted),
        }
    }

    /// Takes a batch as soon as the one before is done.
    pub(super) async fn feed(&mut self, batch: Vec<Bytes>) -> Result<()> {
        let mut hasher = self.settle().await?;
        *self = Hashing::Busy(tokio::task::spawn_blocking(move || {
            batch.iter().for_each(|chunk| hasher.update(chunk));
            hasher
        }));
        Ok(())
    }
}

impl Writer {
    pub(super) fn new(
        registry: Registry,
        repo: RepoName,
        hold: Hold,
        upload: Box<dyn Upload>,
        hasher: Hasher,
        len: u64,
    ) -> Self {
        let inner = Inner {
            registry,
            repo,
            hold,
            upload,
            hashing: Hashing::Idle(hasher),
            batch: Vec::new(),
            tail: BytesMut::new(),
            batched: 0,
            len,
            handed: len,
            stored: len,
            transient: false,
            origin: Origin::Pushed,
        };
        Writer { inner: Some(inner) }
    }

    fn inner(&mut self) -> Result<&mut Inner> {
        self.inner.as_mut().ok_or(Error::UploadUnknown)
    }

    /// Says that nobody can continue the session: dropped or paused, it is removed.
    pub(crate) fn transient(mut self) -> Self {
        if let Some(inner) = &mut self.inner {
            inner.transient = true;
        }
        self
    }

    /// Says that the content comes from the upstream, and that nobody can continue the session.
    pub(super) fn fetched(mut self) -> Self {
        if let Some(inner) = &mut self.inner {
            inner.origin = Origin::Fetched;
        }
        self.transient()
    }

    /// How many bytes can be read under the session's key.
    pub(super) fn stored(&self) -> u64 {
        self.inner.as_ref().map_or(0, |inner| inner.stored)
    }

    /// Stores what was gathered, and says how many bytes can be read then.
    pub(super) async fn settle(&mut self) -> Result<u64> {
        let inner = self.inner()?;
        let result = match inner.flush().await {
            Ok(()) => inner.upload.pause().await.map_err(Error::from),
            Err(e) => Err(e),
        };
        match result {
            Ok(stored) => {
                inner.stored = stored;
                Ok(stored)
            }
            Err(e) => Err(self.failed(e).await),
        }
    }

    /// Takes bytes over, and returns when there is room for more. After `NoSpace` and `QuotaExceeded` the session is gone, and what
    /// it held is free again; after any other error the session holds a prefix of what was written.
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let inner = self.inner()?;
        inner.len += bytes.len() as u64;
        inner.batched += bytes.len();
        inner.gather(bytes);
        if inner.batched < BATCH {
            return Ok(());
        }
        let result = inner.flush().await;
        match result {
            Err(e) => Err(self.failed(e).await),
            ok => ok,
        }
    }

    /// Says that `len` bytes will come. `QuotaExceeded` if it is known now that they do not fit; then the session is gone.
    pub(crate) async fn expect(&mut self, len: u64) -> Result<()> {
        let inner = self.inner()?;
        let checked = match inner.origin {
            Origin::Pushed => inner
                .registry
                .quota_has_room(&inner.repo, inner.len.saturating_add(len)),
            Origin::Fetched => Ok(()),
        };
        match checked {
            Err(e) => Err(self.failed(e).await),
            ok => ok,
        }
    }

    /// Ends this request's part, and says how many bytes the session has. They survive an end of the process, and can be
    /// continued.
    pub(crate) async fn pause(mut self) -> Result<u64> {
        let Some(inner) = self.inner.take() else {
            return Err(Error::UploadUnknown);
        };
        to_the_end(inner.pause()).await
    }

    /// Makes the session's content the blob `digest` of the repository, and says how many bytes it has. Durable when it
    /// returns. `DigestMismatch`, and everything that keeps the content from becoming durable, end the session.
    pub(crate) async fn commit(mut self, digest: &Digest) -> Result<u64> {
        let Some(inner) = self.inner.take() else {
            return Err(Error::UploadUnknown);
        };
        let digest = *digest;
        to_the_end(inner.commit(digest)).await
    }

    /// Ends the session and removes what it had.
    pub(crate) async fn abort(mut self) {
        if let Some(inner) = self.inner.take() {
            let _ = to_the_end(inner.discard()).await;
        }
    }

    /// Whoever fills the disk has to give the room back, or nobody could push again until the session expires.
    async fn failed(&mut self, error: Error) -> Error {
        if matches!(error, Error::NoSpace | Error::QuotaExceeded(_))
            && let Some(inner) = self.inner.take()
        {
            let _ = to_the_end(inner.discard()).await;
        }
        error
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let (Some(inner), Ok(runtime)) =
            (self.inner.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(inner.pause());
        }
    }
}

impl Inner {
    /// A piece costs an allocation and some hundred bytes, so a client that sends single bytes gets them copied together.
    fn gather(&mut self, bytes: Bytes) {
        if bytes.len() < PIECE {
            self.tail.extend_from_slice(&bytes);
        } else {
            self.end_tail();
            self.batch.push(bytes);
        }
    }

    fn end_tail(&mut self) {
        if !self.tail.is_empty() {
            self.batch.push(self.tail.split().freeze());
        }
    }

    async fn flush(&mut self) -> Result<()> {
        self.end_tail();
        if self.batch.is_empty() {
            return Ok(());
        }
        if self.origin == Origin::Pushed {
            self.registry.quota_has_room(&self.repo, self.len)?;
        }
        let batch = std::mem::take(&mut self.batch);
        self.batched = 0;
        self.hashing.feed(batch.clone()).await?;
        self.upload.write(batch).await?;
        // The disk takes a batch when it has stored the one before.
        self.stored = std::mem::replace(&mut self.handed, self.len);
        self.hold.progress(self.len);
        Ok(())
    }

    /// Hash and disk have everything, and agree on how much that is.
    async fn settle(&mut self) -> Result<Hasher> {
        self.flush().await?;
        let hasher = self.hashing.settle().await?;
        if self.upload.pause().await? != self.len {
            return Err(Error::Aborted);
        }
        Ok(hasher)
    }

    async fn pause(mut self) -> Result<u64> {
        if self.transient {
            self.discard().await?;
            return Ok(0);
        }
        match self.settle().await {
            Ok(hasher) => {
                self.hold.pause(Paused {
                    hasher,
                    len: self.len,
                    upload: Some(self.upload),
                });
                Ok(self.len)
            }
            Err(full @ (Error::NoSpace | Error::QuotaExceeded(_))) => {
                self.discard().await?;
                Err(full)
            }
            // The table forgets it; the disk has whole batches, once the one under way is written.
            Err(e) => {
                let _ = self.upload.pause().await;
                Err(e)
            }
        }
    }

    async fn commit(mut self, digest: Digest) -> Result<u64> {
        let result = match self.settle().await {
            Ok(hasher) if hasher.algorithm() != digest.algorithm() => Err(Error::Aborted),
            Ok(hasher) => match hasher.finish() {
                actual if actual == digest => return self.publish(digest).await,
                actual => Err(Error::mismatch(&digest, actual)),
            },
            Err(e) => Err(e),
        };
        match result {
            Err(Error::DigestMismatch { .. } | Error::NoSpace | Error::QuotaExceeded(_)) => {
                self.discard().await?;
            }
            _ if self.transient => self.discard().await?,
            _ => drop(self.upload.pause().await),
        }
        result
    }

    /// I1: the content gets its name first, then the repository's link to it.
    async fn publish(self, digest: Digest) -> Result<u64> {
        let Inner {
            registry,
            repo,
            hold,
            upload,
            len,
            origin,
            ..
        } = self;
        let digest_guard = registry.0.locks.digest(&digest).await;
        let result = registry
            .name_and_link(&repo, &digest, upload, len, origin)
            .await;
        drop(digest_guard);
        // What could not be flushed cannot be continued: who tries again begins anew. A drive that is away has kept nothing.
        if !matches!(result, Err(Error::Away(_))) {
            registry.remove_session(&repo, hold).await?;
        }
        result.map(|()| len)
    }

    async fn discard(self) -> Result<()> {
        let Inner {
            registry,
            repo,
            hold,
            mut upload,
            ..
        } = self;
        let _ = upload.pause().await; // no batch may be under way when the folder goes
        drop(upload);
        registry.remove_session(&repo, hold).await
    }
}
