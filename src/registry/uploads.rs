//! Uploads: how a blob comes in.
//!
//! A batch of received bytes goes to the hash and to the disk at the same time, each on a thread of its own, while the
//! next batch arrives. So an upload holds two batches in memory, and no byte is read back.

use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::error::or_unknown;
use super::quota::Item;
use super::sessions::{Held, Hold, Paused};
use super::writer::{Hashing, Origin, Writer};
use super::{Error, Registry, Result, to_the_end};
use crate::oci::{Algorithm, Digest, Hasher, RepoName};
use crate::storage::{Body, Dir, Durability, Filled, Key, Upload, UploadId};

impl Registry {
    /// Opens a session. `algorithm` is the one its blob will be named by, if the client said so.
    pub(crate) async fn start_upload(
        &self,
        repo: &RepoName,
        algorithm: Option<Algorithm>,
    ) -> Result<UploadId> {
        self.writable()?;
        self.quota_has_room(repo, 0)?;
        self.begin_upload(repo, algorithm).await
    }

    /// The same for content that nobody pushes, which no quota refuses.
    pub(super) async fn begin_upload(
        &self,
        repo: &RepoName,
        algorithm: Option<Algorithm>,
    ) -> Result<UploadId> {
        self.writable()?;
        self.room_for_upload().await?;
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
        let upload = self.store().upload(&data, 0).await?;
        let put = self
            .store()
            .put(&note, started.into(), Durability::Lazy)
            .await;
        if let Err(e) = put {
            // Nobody knows its id; on a full disk each try would leave a folder for a week.
            drop(upload);
            let folder = Dir::Upload(repo.clone(), id);
            let _ = self.store().remove(&folder, Durability::Lazy).await;
            return Err(e.into());
        }
        let paused = Paused {
            hasher: algorithm.unwrap_or(Algorithm::Sha256).hasher(),
            len: 0,
            upload: Some(upload),
        };
        self.0.sessions.insert(repo, id, paused);
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
        let (hasher, open) = match paused {
            Some(paused) => (Some(paused.hasher), paused.upload),
            None => (None, None),
        };
        let hasher = match hasher.filter(|hasher| hasher.algorithm() == algorithm) {
            Some(hasher) => hasher,
            // After a restart, or for a client that names another algorithm only now that all has been sent.
            None => self.rehash(&key, len, algorithm).await?,
        };
        let upload = match open {
            Some(upload) => upload,
            None => or_unknown(self.store().upload(&key, len).await, Error::UploadUnknown)?,
        };
        Ok(Writer::new(self.clone(), repo, hold, upload, hasher, len))
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
        for (repo, parts) in self.walk().await?.found {
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

impl Registry {
    /// Gives an upload's content its name, and the repository a link to it, if its quotas have room.
    pub(super) async fn name_and_link(
        &self,
        repo: &RepoName,
        digest: &Digest,
        upload: Box<dyn Upload>,
        len: u64,
        origin: Origin,
    ) -> Result<()> {
        let item = Item::Blob(*digest);
        let is_new = match origin {
            Origin::Pushed => self.charge(repo, item, len)?,
            Origin::Fetched => {
                self.charge_unasked(repo, item, len);
                false
            }
        };
        let named = self.name_charged(repo, digest, upload, len, origin).await;
        if named.is_err() {
            self.uncharge_failed(repo, item, is_new).await;
        }
        named
    }

    async fn name_charged(
        &self,
        repo: &RepoName,
        digest: &Digest,
        upload: Box<dyn Upload>,
        len: u64,
        origin: Origin,
    ) -> Result<()> {
        let key = Key::Blob(*digest);
        self.0.pins.vouch(digest).await;
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
        match origin {
            Origin::Pushed => self.unmark(repo, Filled::Blob(*digest)).await?,
            Origin::Fetched => self.mark_new_blob(repo, digest).await?,
        }
        let linked = self.link(&Key::Layer(repo.clone(), *digest), digest).await;
        if matches!(linked, Err(Error::NoSpace)) && stored.is_none() {
            // Nobody else can have linked it yet: give the room back.
            self.store().delete(&key, Durability::Lazy).await?;
        }
        linked
    }

    /// The session ends with this, whatever is left of its folder: that goes when it is a week old.
    pub(super) async fn remove_session(&self, repo: &RepoName, hold: Hold) -> Result<()> {
        let folder = Dir::Upload(repo.clone(), *hold.id());
        if let Err(e) = self.store().remove(&folder, Durability::Lazy).await {
            log::warn!("an upload that has ended could not be cleared away: {e}");
        }
        Ok(())
    }
}
