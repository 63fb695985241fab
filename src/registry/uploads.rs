//! Uploads: how a blob comes in.
//!
//! A batch of received bytes goes to the hash and to the disk at the same time, each on a thread of its own, while the
//! next batch arrives. So an upload holds two batches in memory, and no byte is read back.

use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::task::JoinHandle;

use super::error::or_unknown;
use super::sessions::{Held, Hold, Paused};
use super::{Error, Registry, Result, to_the_end};
use crate::oci::{Algorithm, Digest, Hasher, RepoName};
use crate::storage::{Body, Dir, Durability, Key, Upload, UploadId};

/// Pieces smaller than this many bytes are copied together.
const PIECE: usize = 4096;
/// Bytes gathered before hash and disk get them.
const BATCH: usize = 256 * 1024;

impl Registry {
    /// Opens a session. `algorithm` is the one its blob will be named by, if the client said so.
    pub(crate) async fn start_upload(
        &self,
        repo: &RepoName,
        algorithm: Option<Algorithm>,
    ) -> Result<UploadId> {
        self.writable()?;
        let id = UploadId::new();
        let now = OffsetDateTime::now_utc()
            .replace_nanosecond(0)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let started = now.format(&Rfc3339).unwrap_or_default();
        // The file first: the store may make its folder in one step. Without the second the session does not exist.
        let (data, note) = (
            Key::UploadData(repo.clone(), id),
            Key::UploadStarted(repo.clone(), id),
        );
        drop(self.store().upload(&data, 0).await?);
        self.store()
            .put(&note, started.into(), Durability::Lazy)
            .await?;
        let hasher = algorithm.unwrap_or(Algorithm::Sha256).hasher();
        self.0.sessions.insert(repo, id, Paused { hasher, len: 0 });
        Ok(id)
    }

    /// How many bytes the session has. `UploadUnknown`.
    pub(crate) async fn upload_offset(&self, repo: &RepoName, id: &UploadId) -> Result<u64> {
        match self.0.sessions.len_of(repo, id)? {
            Some(len) => Ok(len),
            None => self.len_on_disk(repo, id).await,
        }
    }

    /// Takes hold of a session to write at its end. `at` is where the client believes that to be: `UploadRange` says if it
    /// is wrong. `algorithm` is the one the blob will be named by, if that is known by now. `UploadUnknown`,
    /// `UploadBusy`.
    pub(crate) async fn resume_upload(
        &self,
        repo: &RepoName,
        id: &UploadId,
        at: Option<u64>,
        algorithm: Option<Algorithm>,
    ) -> Result<Writer> {
        self.writable()?;
        let (hold, paused) = match self.0.sessions.hold(repo, id)? {
            Held::Known(hold, paused) => (hold, Some(paused)),
            Held::Unknown(hold) => (hold, None),
        };
        // Once the session is held, opening its file must not go on for a caller who went away.
        let (this, repo) = (self.clone(), repo.clone());
        to_the_end(async move { this.take_up(repo, hold, paused, at, algorithm).await }).await
    }

    async fn take_up(
        &self,
        repo: RepoName,
        hold: Hold,
        paused: Option<Paused>,
        at: Option<u64>,
        algorithm: Option<Algorithm>,
    ) -> Result<Writer> {
        let len = match &paused {
            Some(paused) => paused.len,
            None => self.len_on_disk(&repo, hold.id()).await?,
        };
        hold.progress(len);
        if at.is_some_and(|at| at != len) {
            if let Some(paused) = paused {
                hold.pause(paused);
            }
            return Err(Error::UploadRange { offset: len });
        }
        let key = Key::UploadData(repo.clone(), *hold.id());
        let algorithm = algorithm
            .or_else(|| paused.as_ref().map(|p| p.hasher.algorithm()))
            .unwrap_or(Algorithm::Sha256);
        let hasher = match paused {
            Some(paused) if paused.hasher.algorithm() == algorithm => paused.hasher,
            // After a restart, or for a client that names another algorithm only now that all has been sent.
            _ => self.rehash(&key, len, algorithm).await?,
        };
        let upload = or_unknown(self.store().upload(&key, len).await, Error::UploadUnknown)?;
        let inner = Inner {
            registry: self.clone(),
            repo,
            hold,
            upload,
            hashing: Hashing::Idle(hasher),
            batch: Vec::new(),
            tail: BytesMut::new(),
            batched: 0,
            len,
            transient: false,
        };
        Ok(Writer { inner: Some(inner) })
    }

    /// Ends a session and removes what it had. `UploadUnknown`, `UploadBusy`.
    pub(crate) async fn cancel_upload(&self, repo: &RepoName, id: &UploadId) -> Result<()> {
        let hold = match self.0.sessions.hold(repo, id)? {
            Held::Known(hold, _) => hold,
            Held::Unknown(hold) => {
                self.len_on_disk(repo, id).await?;
                hold
            }
        };
        let (this, repo) = (self.clone(), repo.clone());
        to_the_end(async move { this.remove_session(&repo, hold).await }).await
    }

    /// Removes the sessions that nobody wrote to for `age`, of any process that ever used this tree, and says how many
    /// there were. With `dry_run` it removes nothing.
    ///
    /// The age is that of the wall clock, which jumps on a machine without a clock battery; so what this process wrote to
    /// is judged by the time it ran.
    pub(crate) async fn purge_uploads(&self, age: Duration, dry_run: bool) -> Result<usize> {
        let mut purged = 0;
        for (repo, parts) in self.walk().await? {
            if !parts.uploads {
                continue;
            }
            for name in self
                .store()
                .list(&Dir::Uploads(repo.clone()), None, usize::MAX)
                .await?
            {
                let Ok(id) = name.parse::<UploadId>() else {
                    continue;
                };
                if !self.is_abandoned(&repo, &id, age).await? {
                    continue;
                }
                purged += 1;
                log::info!(
                    "{} upload {id} in {repo}",
                    if dry_run { "would remove" } else { "removing" }
                );
                if !dry_run {
                    match self.cancel_upload(&repo, &id).await {
                        Err(Error::UploadUnknown) => {
                            self.store()
                                .remove(&Dir::Upload(repo.clone(), id), Durability::Lazy)
                                .await?;
                        }
                        Err(Error::UploadBusy) => {}
                        other => other?,
                    }
                }
            }
        }
        Ok(purged)
    }

    async fn is_abandoned(&self, repo: &RepoName, id: &UploadId, age: Duration) -> Result<bool> {
        if let Some(touched) = self.0.sessions.touched(id) {
            return Ok(touched.elapsed() >= age);
        }
        let mut last = SystemTime::UNIX_EPOCH;
        for key in [
            Key::UploadStarted(repo.clone(), *id),
            Key::UploadData(repo.clone(), *id),
        ] {
            match self.store().stat(&key).await {
                Ok(meta) => last = last.max(meta.modified),
                Err(e) if e.is_not_found() => {}
                Err(e) => return Err(e.into()),
            }
        }
        // An upload from the future tells of a clock that jumped: leave it.
        Ok(last.elapsed().is_ok_and(|idle| idle >= age))
    }

    async fn len_on_disk(&self, repo: &RepoName, id: &UploadId) -> Result<u64> {
        or_unknown(
            self.store()
                .stat(&Key::UploadStarted(repo.clone(), *id))
                .await,
            Error::UploadUnknown,
        )?;
        match self.store().stat(&Key::UploadData(repo.clone(), *id)).await {
            Ok(meta) => Ok(meta.len),
            Err(e) if e.is_not_found() => Ok(0),
            Err(e) => Err(e.into()),
        }
    }

    async fn rehash(&self, key: &Key, len: u64, algorithm: Algorithm) -> Result<Hasher> {
        let mut hashing = Hashing::Idle(algorithm.hasher());
        if len > 0 {
            match self.store().read(key, Some(0..len)).await?.body {
                Body::Bytes(bytes) => hashing.feed(vec![bytes]).await?,
                Body::Stream(mut stream) => {
                    while let Some(block) = stream.next().await {
                        hashing.feed(vec![block?]).await?;
                    }
                }
            }
        }
        hashing.settle().await
    }
}

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
    /// Nobody knows the session's id: what is not committed is removed.
    transient: bool,
}

/// A hash that travels to a thread and back.
enum Hashing {
    Idle(Hasher),
    Busy(JoinHandle<Hasher>),
    Lost,
}

impl Hashing {
    async fn settle(&mut self) -> Result<Hasher> {
        match std::mem::replace(self, Hashing::Lost) {
            Hashing::Idle(hasher) => Ok(hasher),
            Hashing::Busy(task) => task.await.map_err(|_| Error::Aborted),
            Hashing::Lost => Err(Error::Aborted),
        }
    }

    /// Takes a batch as soon as the one before is done.
    async fn feed(&mut self, batch: Vec<Bytes>) -> Result<()> {
        let mut hasher = self.settle().await?;
        *self = Hashing::Busy(tokio::task::spawn_blocking(move || {
            batch.iter().for_each(|chunk| hasher.update(chunk));
            hasher
        }));
        Ok(())
    }
}

impl Writer {
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

    /// Takes bytes over, and returns when there is room for more. After `NoSpace` the session is gone, and what it held is
    /// free again; after any other error the session holds a prefix of what was written.
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

    /// Ends this request's part, and says how many bytes the session has. They survive an end of the process, and can be
    /// continued.
    pub(crate) async fn pause(mut self) -> Result<u64> {
        let Some(inner) = self.inner.take() else {
            return Err(Error::UploadUnknown);
        };
        to_the_end(inner.pause()).await
    }

    /// Makes the session's content the blob `digest` of the repository. Durable when it returns. `DigestMismatch` and
    /// `NoSpace` end the session.
    pub(crate) async fn commit(mut self, digest: &Digest) -> Result<()> {
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
        if matches!(error, Error::NoSpace)
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
        let batch = std::mem::take(&mut self.batch);
        self.batched = 0;
        self.hashing.feed(batch.clone()).await?;
        self.upload.write(batch).await?;
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
                });
                Ok(self.len)
            }
            Err(Error::NoSpace) => {
                self.discard().await?;
                Err(Error::NoSpace)
            }
            // The table forgets it; the disk has whole batches, once the one under way is written.
            Err(e) => {
                let _ = self.upload.pause().await;
                Err(e)
            }
        }
    }

    async fn commit(mut self, digest: Digest) -> Result<()> {
        let result = match self.settle().await {
            Ok(hasher) if hasher.algorithm() != digest.algorithm() => Err(Error::Aborted),
            Ok(hasher) => match hasher.finish() {
                actual if actual == digest => return self.publish(digest).await,
                actual => Err(Error::mismatch(&digest, actual)),
            },
            Err(e) => Err(e),
        };
        match result {
            Err(Error::DigestMismatch { .. } | Error::NoSpace) => self.discard().await?,
            _ if self.transient => self.discard().await?,
            _ => drop(self.upload.pause().await),
        }
        result
    }

    /// I1: the content gets its name first, then the repository's link to it.
    async fn publish(self, digest: Digest) -> Result<()> {
        let Inner {
            registry,
            repo,
            hold,
            upload,
            len,
            ..
        } = self;
        let digest_guard = registry.0.locks.digest(&digest).await;
        let result = registry.name_and_link(&repo, &digest, upload, len).await;
        drop(digest_guard);
        if matches!(result, Ok(()) | Err(Error::NoSpace)) {
            registry.remove_session(&repo, hold).await?;
        }
        result
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

impl Registry {
    async fn name_and_link(
        &self,
        repo: &RepoName,
        digest: &Digest,
        upload: Box<dyn Upload>,
        len: u64,
    ) -> Result<()> {
        let key = Key::Blob(*digest);
        let stored = match self.store().stat(&key).await {
            Ok(meta) => Some(meta.len),
            Err(e) if e.is_not_found() => None,
            Err(e) => return Err(e.into()),
        };
        if stored == Some(len) && self.0.verified.is_good(digest) {
            drop(upload);
        } else {
            // What lies there already and was not read since the start is replaced by what is known to be right.
            upload.commit(&key).await?;
            self.0.verified.set_good(digest);
        }
        let _repo = self.0.locks.share(repo).await;
        let linked = self.link(&Key::Layer(repo.clone(), *digest), digest).await;
        if matches!(linked, Err(Error::NoSpace)) && stored.is_none() {
            // Nobody else can have linked it yet: give the room back.
            self.store().delete(&key, Durability::Lazy).await?;
        }
        linked
    }

    /// The session ends with this, whatever is left of its folder: that goes when it is a week old.
    async fn remove_session(&self, repo: &RepoName, hold: Hold) -> Result<()> {
        let folder = Dir::Upload(repo.clone(), *hold.id());
        if let Err(e) = self.store().remove(&folder, Durability::Lazy).await {
            log::warn!("an upload that has ended could not be cleared away: {e}");
        }
        Ok(())
    }
}
