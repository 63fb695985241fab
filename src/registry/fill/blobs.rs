//! Blobs that come from the upstream: into an upload session, and from its file to everybody who waits.
//!
//! Clients read what is stored already instead of what arrives, so that a slow one neither holds up the others nor costs
//! memory, and one that comes late begins at the beginning.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::try_unfold;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::Mirror;
use super::flight::{Failure, Landing};
use crate::oci::{ByteRange, Digest, RepoName};
use crate::registry::blobs::Blob;
use crate::registry::error::or_unknown;
use crate::registry::quota::Item;
use crate::registry::{Error, Registry, Result, Writer};
use crate::storage::{self, Body, ByteStream, Filled, Key, UploadId};
use crate::upstream;

/// How often what came is made readable when little comes, and how often it is looked whether anybody waits.
const TICK: Duration = Duration::from_secs(1);
/// Attempts in a row that bring nothing, before a fetch that was cut off is given up.
const ATTEMPTS: u32 = 4;

/// A blob on its way.
pub(super) struct Fetch {
    repo: RepoName,
    digest: Digest,
    id: UploadId,
    /// In bytes, if the upstream says so.
    len: Option<u64>,
    /// Whoever waits has a receiver.
    progress: watch::Sender<Progress>,
}

#[derive(Clone, Debug, Default)]
struct Progress {
    /// Bytes that can be read.
    stored: u64,
    /// When it is over: the blob is in the repository, or why not.
    end: Option<Result<(), Failure>>,
}

impl Fetch {
    /// Waits for the end.
    async fn end(&self) -> Result<(), Failure> {
        let mut progress = self.progress.subscribe();
        let ended = progress.wait_for(|progress| progress.end.is_some()).await;
        match ended.map(|progress| progress.end.clone()) {
            Ok(Some(end)) => end,
            _ => Err(Error::Aborted.into()),
        }
    }
}

impl Registry {
    /// The size of a blob in bytes, here or at the upstream. `BlobUnknown`, also when the upstream does not answer.
    pub(crate) async fn pull_blob_size(&self, repo: &RepoName, digest: &Digest) -> Result<u64> {
        let here = self.stat_blob(repo, digest).await;
        let (Some(mirror), Err(Error::BlobUnknown)) = (self.mirror(), &here) else {
            self.note_blob(repo, digest);
            return here;
        };
        if mirror.upstream.away().is_some() {
            return here;
        }
        match mirror.upstream.blob_size(repo, digest).await {
            Ok(Some(len)) => Ok(len),
            Ok(None) => {
                let fetched = self.fetch_whole_blob(mirror, repo, digest).await;
                fetched.map_err(|failure| failure.into_error(Error::BlobUnknown))?;
                self.stat_blob(repo, digest).await
            }
            Err(_) => here,
        }
    }

    /// Opens a blob or one range of it, from the upstream if need be. Beside what `open_blob` says: `UpstreamFailed`,
    /// `UpstreamTimeout`, `UpstreamLimited`. What the upstream sends ends in an error before its last byte if it is not
    /// what the digest says.
    pub(crate) async fn pull_blob(
        &self,
        repo: &RepoName,
        digest: &Digest,
        range: Option<ByteRange>,
    ) -> Result<Blob> {
        let here = self.open_blob(repo, digest, range).await;
        let (Some(mirror), Err(Error::BlobUnknown)) = (self.mirror(), &here) else {
            self.note_blob(repo, digest);
            return here;
        };
        let unknown = |failure: Failure| failure.into_error(Error::BlobUnknown);
        let Some(fetch) = self
            .fetch_blob(mirror, repo, digest)
            .await
            .map_err(unknown)?
        else {
            return self.open_blob(repo, digest, range).await;
        };
        // Of nothing there is no last byte to hold back.
        let Some(len) = fetch.len.filter(|len| *len > 0) else {
            fetch.end().await.map_err(unknown)?;
            return self.open_blob(repo, digest, range).await;
        };
        let within = |range: ByteRange| range.within(len);
        let wanted = range
            .map(within)
            .transpose()
            .map_err(|_| Error::RangeUnsatisfiable { len })?;
        Ok(Blob {
            len,
            is_part: wanted.is_some(),
            range: wanted.clone().unwrap_or(0..len),
            body: Body::Stream(follow(self.clone(), fetch, len, wanted.unwrap_or(0..len))),
        })
    }

    fn note_blob(&self, repo: &RepoName, digest: &Digest) {
        if let Some(mirror) = self.mirror() {
            mirror.note_use(repo, Filled::Blob(*digest));
        }
    }

    /// As `fetch_blob`, to its end.
    pub(super) async fn fetch_whole_blob(
        &self,
        mirror: &Mirror,
        repo: &RepoName,
        digest: &Digest,
    ) -> Result<(), Failure> {
        match self.fetch_blob(mirror, repo, digest).await? {
            Some(fetch) => fetch.end().await,
            None => Ok(()),
        }
    }

    /// The fetch of a blob that the repository does not have, which begins unless it is under way; `None` if the repository
    /// has the blob now.
    async fn fetch_blob(
        &self,
        mirror: &Mirror,
        repo: &RepoName,
        digest: &Digest,
    ) -> Result<Option<Arc<Fetch>>, Failure> {
        let under_way = mirror.blobs.find(digest).is_some();
        if !under_way
            && !self.0.verified.is_damaged(digest)
            && let Some(meta) = self.vouched_blob(digest).await
        {
            // The content is here for another repository: the upstream has to say that this one has it, too.
            let size = mirror.upstream.blob_size(repo, digest).await?;
            if size.is_none_or(|size| size == meta.len) {
                self.show_fetched(repo, digest).await?;
                return Ok(None);
            }
        }
        let (this, at, place) = (self.clone(), repo.clone(), mirror.fetches.clone());
        let (upstream, digest) = (mirror.upstream.clone(), *digest);
        let work = move |landing| async move {
            // Closed by nobody.
            let place = place.acquire_owned().await.map_err(|_| Error::Aborted)?;
            this.begin_fetch(upstream, at, digest, landing, place).await
        };
        let fetch = mirror.blobs.join(digest, work).await?;
        if fetch.repo != *repo {
            mirror.upstream.blob_size(repo, &digest).await?;
            // A repository shows a blob when the content is there, which clients need not wait for.
            let (this, repo, fetch) = (self.clone(), repo.clone(), fetch.clone());
            tokio::spawn(async move {
                if fetch.end().await.is_ok()
                    && let Err(e) = this.show_fetched(&repo, &fetch.digest).await
                {
                    log::warn!("{} could not be shown in {repo}: {e}", fetch.digest);
                }
            });
        }
        Ok(Some(fetch))
    }

    /// Content that is here, and stays: nobody may sweep it before it is linked.
    async fn vouched_blob(&self, digest: &Digest) -> Option<storage::Meta> {
        let key = Key::Blob(*digest);
        self.store().stat(&key).await.ok()?;
        self.0.pins.vouch(digest).await;
        self.store().stat(&key).await.ok()
    }

    /// Links content that is here into a repository that has it at the upstream.
    async fn show_fetched(&self, repo: &RepoName, digest: &Digest) -> Result<()> {
        let (this, repo, digest) = (self.clone(), repo.clone(), *digest);
        crate::registry::to_the_end(async move {
            let digest_guard = this.0.locks.digest(&digest).await;
            // Under the lock once more: nobody else used it, and it may have been removed since.
            let stored = or_unknown(
                this.store().stat(&Key::Blob(digest)).await,
                Error::BlobUnknown,
            )?;
            this.charge_unasked(&repo, Item::Blob(digest), stored.len);
            let _repo = this.0.locks.share(&repo).await;
            this.mark_new_blob(&repo, &digest).await?;
            this.link(&Key::Layer(repo, digest), &digest).await?;
            drop(digest_guard);
            Ok(())
        })
        .await
    }

    async fn begin_fetch(
        self,
        upstream: upstream::Upstream,
        repo: RepoName,
        digest: Digest,
        landing: Landing<Digest, Arc<Fetch>>,
        place: OwnedSemaphorePermit,
    ) -> Result<Arc<Fetch>, Failure> {
        let body = upstream.blob(&repo, &digest, 0).await?;
        let algorithm = digest.algorithm();
        let id = self.begin_upload(&repo, Some(algorithm)).await?;
        let writer = self
            .resume_upload(&repo, &id, Some(0), Some(algorithm))
            .await?
            .fetched();
        let fetch = Arc::new(Fetch {
            repo,
            digest,
            id,
            len: body.len,
            progress: watch::Sender::default(),
        });
        let followed = fetch.clone();
        tokio::spawn(async move {
            let end = self.receive(&upstream, &followed, body, writer).await;
            match &end {
                Ok(()) => log::info!("{digest} of {} was fetched", followed.repo),
                Err(e) => log::warn!("{digest} of {} was not fetched: {e}", followed.repo),
            }
            // Who comes from here on finds the blob, or begins anew.
            drop(landing);
            followed
                .progress
                .send_modify(|progress| progress.end = Some(end));
            drop(place);
        });
        Ok(fetch)
    }

    async fn receive(
        &self,
        upstream: &upstream::Upstream,
        fetch: &Fetch,
        mut body: upstream::Body,
        mut writer: Writer,
    ) -> Result<(), Failure> {
        let patience = self
            .mirror()
            .map_or(Duration::ZERO, |mirror| mirror.patience);
        let mut received = 0;
        let mut failures = 0;
        let mut waited_for = Instant::now();
        let result = loop {
            if fetch.progress.receiver_count() > 0 {
                waited_for = Instant::now();
            } else if waited_for.elapsed() > patience {
                break Err(upstream::Error::Timeout.into());
            }
            match tokio::time::timeout(TICK, body.chunk()).await {
                Ok(Ok(Some(bytes))) => {
                    received += bytes.len() as u64;
                    if fetch.len.is_some_and(|len| received > len) {
                        let why = "a blob that is longer than was announced";
                        break Err(upstream::Error::Mismatch(why).into());
                    }
                    if let Err(e) = writer.write(bytes).await {
                        break Err(e.into());
                    }
                    failures = 0;
                    fetch.tell(writer.stored());
                }
                Ok(Ok(None)) if fetch.len.is_none_or(|len| received == len) => break Ok(()),
                Ok(Ok(None)) => {
                    let why = "a blob that is shorter than was announced";
                    break Err(upstream::Error::Mismatch(why).into());
                }
                // Little comes: what came should be of use.
                Err(_) => match writer.settle().await {
                    Ok(stored) => fetch.tell(stored),
                    Err(e) => break Err(e.into()),
                },
                Ok(Err(error)) => {
                    failures += 1;
                    log::info!(
                        "{} was cut off after {received} bytes: {error}",
                        fetch.digest
                    );
                    match resume(upstream, fetch, received, failures, error).await {
                        Ok(rest) => body = rest,
                        Err(error) => break Err(error.into()),
                    }
                }
            }
        };
        match result {
            Ok(()) => writer
                .commit(&fetch.digest)
                .await
                .map(|_| ())
                .map_err(|e| match e {
                    Error::DigestMismatch { .. } => {
                        upstream::Error::Mismatch("a blob that has another digest").into()
                    }
                    other => other.into(),
                }),
            Err(failure) => {
                writer.abort().await;
                Err(failure)
            }
        }
    }
}

impl Fetch {
    fn tell(&self, stored: u64) {
        self.progress.send_if_modified(|progress| {
            let is_news = stored > progress.stored;
            progress.stored = progress.stored.max(stored);
            is_news
        });
    }
}

/// The rest of a blob after a connection broke, some time later each time.
async fn resume(
    upstream: &upstream::Upstream,
    fetch: &Fetch,
    received: u64,
    mut failures: u32,
    mut error: upstream::Error,
) -> Result<upstream::Body, upstream::Error> {
    while error.is_transient() && failures < ATTEMPTS {
        tokio::time::sleep(TICK * (1 << (failures - 1))).await;
        match upstream.blob(&fetch.repo, &fetch.digest, received).await {
            Ok(body) => return Ok(body),
            Err(another) => (error, failures) = (another, failures + 1),
        }
    }
    Err(error)
}

/// What a client gets of a fetch: the bytes of `range`, of `len` in all, as they become readable.
fn follow(registry: Registry, fetch: Arc<Fetch>, len: u64, range: Range<u64>) -> ByteStream {
    let state = Follower {
        progress: fetch.progress.subscribe(),
        registry,
        fetch,
        len,
        range,
        open: None,
    };
    Box::pin(try_unfold(state, Follower::next))
}

struct Follower {
    registry: Registry,
    fetch: Arc<Fetch>,
    progress: watch::Receiver<Progress>,
    len: u64,
    /// What has not been sent yet.
    range: Range<u64>,
    /// A part of it.
    open: Option<ByteStream>,
}

impl Follower {
    async fn next(mut self) -> storage::Result<Option<(Bytes, Self)>> {
        loop {
            if self.range.is_empty() {
                return Ok(None);
            }
            if let Some(open) = &mut self.open {
                if let Some(bytes) = open.next().await.transpose()? {
                    self.range.start += bytes.len() as u64;
                    return Ok(Some((bytes, self)));
                }
                self.open = None;
                continue;
            }
            let progress = self.progress.borrow_and_update().clone();
            let (key, until) = match progress.end {
                Some(Ok(())) => (Key::Blob(self.fetch.digest), self.range.end),
                Some(Err(failure)) => return Err(cut(&self.fetch, &failure.to_string())),
                // The last byte waits until it is known that all are right.
                None => (
                    Key::UploadData(self.fetch.repo.clone(), self.fetch.id),
                    progress.stored.min(self.len - 1).min(self.range.end),
                ),
            };
            if until > self.range.start {
                let part = self.range.start..until;
                match self.registry.store().read(&key, Some(part)).await {
                    Ok(object) => {
                        self.open = Some(match object.body {
                            Body::Stream(stream) => stream,
                            Body::Bytes(bytes) => {
                                Box::pin(futures_util::stream::once(async { Ok(bytes) }))
                            }
                        });
                        continue;
                    }
                    // It is on its way to its last name: the end is near.
                    Err(e) if e.is_not_found() && !matches!(key, Key::Blob(_)) => {}
                    Err(e) => return Err(e),
                }
            }
            if self.progress.changed().await.is_err() {
                return Err(cut(&self.fetch, "it was stopped"));
            }
        }
    }
}

fn cut(fetch: &Fetch, why: &str) -> storage::Error {
    storage::Error::Io {
        call: "fetch",
        key: fetch.digest.to_string(),
        source: std::io::Error::other(why.to_owned()),
    }
}
