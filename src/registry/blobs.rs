//! Blobs: what layers and configs are, and what a repository shows of them.

use std::ops::Range;

use super::error::or_unknown;
use super::quota::Item;
use super::verified::verifying;
use super::{Error, Registry, Result, Shown, to_the_end};
use crate::oci::{ByteRange, Digest, RepoName};
use crate::storage::{Body, Durability, Filled, Key};

/// A blob opened for reading.
pub(crate) struct Blob {
    /// Of the whole blob, in bytes.
    pub(crate) len: u64,
    /// What of it `body` holds.
    pub(crate) range: Range<u64>,
    /// Whether that is the answer to a range that was asked for.
    pub(crate) is_part: bool,
    pub(crate) body: Body,
}

/// Up to this many bytes, a blob is read to its end before a part of it goes out for the first time.
const SOON: u64 = 4 * 1024 * 1024;
/// A `link` is a digest, 71 or 135 bytes; more than this is none.
const LINK_LIMIT: usize = 256;

impl Registry {
    /// The size of a blob in bytes. `BlobUnknown` if the repository does not have it.
    pub(crate) async fn stat_blob(&self, repo: &RepoName, digest: &Digest) -> Result<u64> {
        let target = self.vouched_layer(repo, digest).await?;
        let meta = or_unknown(
            self.store().stat(&Key::Blob(target)).await,
            Error::BlobUnknown,
        )?;
        self.plausible(&target, meta.len)?;
        Ok(meta.len)
    }

    /// Opens a blob, or one range of it. `BlobUnknown`, `RangeUnsatisfiable`.
    ///
    /// Content that turns out not to be what the digest says ends in an error before its last byte.
    pub(crate) async fn open_blob(
        &self,
        repo: &RepoName,
        digest: &Digest,
        range: Option<ByteRange>,
    ) -> Result<Blob> {
        let target = self.vouched_layer(repo, digest).await?;
        let key = Key::Blob(target);
        let wanted = match range {
            None => None,
            Some(range) => {
                let len = or_unknown(self.store().stat(&key).await, Error::BlobUnknown)?.len;
                self.plausible(&target, len)?;
                // No range lies in an empty blob; all of it is what distribution answers, and clients that ask for
                // `bytes=0-` of everything count on.
                let within = |range: ByteRange| {
                    range
                        .within(len)
                        .map_err(|_| Error::RangeUnsatisfiable { len })
                };
                (len > 0).then(|| within(range)).transpose()?
            }
        };
        let object = or_unknown(
            self.store().read(&key, wanted.clone()).await,
            Error::BlobUnknown,
        )?;
        let len = object.meta.len;
        self.plausible(&target, len)?;
        let is_part = wanted.is_some();
        let range = wanted.unwrap_or(0..len);
        if range != (0..len) {
            self.verify_for_part(&target, len).await?;
        }
        let body = match object.body {
            body if range != (0..len) || self.0.verified.is_good(&target) => body,
            Body::Bytes(bytes) if self.0.verified.check(&target, &bytes) => Body::Bytes(bytes),
            Body::Bytes(_) => return Err(Error::BlobUnknown), // hidden from now on, as the log says
            Body::Stream(stream) => Body::Stream(verifying(self.clone(), target, stream)),
        };
        Ok(Blob {
            len,
            range,
            is_part,
            body,
        })
    }

    /// Takes a blob out of a repository; its content stays for others. `BlobUnknown`. Durable when it returns.
    pub(crate) async fn delete_blob(&self, repo: &RepoName, digest: &Digest) -> Result<()> {
        self.deletable()?;
        let (this, repo, digest) = (self.clone(), repo.clone(), *digest);
        to_the_end(async move {
            let _digest = this.0.locks.digest(&digest).await;
            let _repo = this.0.locks.own(&repo).await;
            let key = Key::Layer(repo.clone(), digest);
            or_unknown(this.store().stat(&key).await, Error::BlobUnknown)?;
            this.store().delete(&key, Durability::Durable).await?;
            this.uncharge(&repo, Item::Blob(digest));
            this.0.deleted.notify_one();
            Ok(())
        })
        .await
    }

    /// Shows a blob that `from` has (without `from`: that any repository has) in `repo` too, and says which repository had
    /// it. None if that cannot be done, and the blob has to be pushed. Durable when it returns.
    ///
    /// Only what lies in one of `shown` is found: whoever mounts a blob can read it from then on.
    pub(crate) async fn mount(
        &self,
        repo: &RepoName,
        digest: &Digest,
        from: Option<&RepoName>,
        shown: Shown<'_>,
    ) -> Result<Option<RepoName>> {
        self.writable()?;
        let source = match from {
            Some(from) if !shown.contains(from) => None,
            Some(from) => self
                .stat_blob(from, digest)
                .await
                .is_ok()
                .then(|| from.clone()),
            // What cannot be searched for is not found, and is pushed.
            None => self.find_blob(repo, digest, shown).await.unwrap_or(None),
        };
        let Some(source) = source else {
            return Ok(None);
        };
        let (this, repo, digest) = (self.clone(), repo.clone(), *digest);
        to_the_end(async move {
            let digest_guard = this.0.locks.digest(&digest).await;
            // Under the lock once more: it may have been deleted since.
            let Ok(target) = this.vouched_layer(&source, &digest).await else {
                return Ok(None);
            };
            let Ok(meta) = this.store().stat(&Key::Blob(target)).await else {
                return Ok(None);
            };
            let item = Item::Blob(digest);
            let is_new = this.charge(&repo, item, meta.len)?;
            let _repo = this.0.locks.share(&repo).await;
            let linked = async {
                this.unmark(&repo, Filled::Blob(digest)).await?;
                let link = Key::Layer(repo.clone(), digest);
                this.link(&link, &target).await
            };
            if let Err(e) = linked.await {
                this.uncharge_failed(&repo, item, is_new).await;
                return Err(e);
            }
            drop(digest_guard);
            Ok(Some(source))
        })
        .await
    }

    /// Some repository of `shown` that has the blob; `first` is asked first.
    async fn find_blob(
        &self,
        first: &RepoName,
        digest: &Digest,
        shown: Shown<'_>,
    ) -> Result<Option<RepoName>> {
        if shown.contains(first) && self.stat_blob(first, digest).await.is_ok() {
            return Ok(Some(first.clone()));
        }
        // Nearly always there is none, which saves the search; but who may not see all repositories must not learn
        // from the time it takes what lies in the others.
        if matches!(shown, Shown::All) && self.store().stat(&Key::Blob(*digest)).await.is_err() {
            return Ok(None);
        }
        let repos = self.all_repos().await?;
        // Those of the catalog first, then what clients are filling.
        let begun = self.0.catalog.begun();
        for repo in repos.iter().chain(&*begun) {
            if shown.contains(repo) && self.stat_blob(repo, digest).await.is_ok() {
                return Ok(Some(repo.clone()));
            }
        }
        Ok(None)
    }

    /// The digest under which the content of a repository's blob lies: its own, but for a link written by distribution
    /// for an upload of another algorithm, which points to the sha256 of it.
    pub(super) async fn layer(&self, repo: &RepoName, digest: &Digest) -> Result<Digest> {
        let link = self
            .read_link(&Key::Layer(repo.clone(), *digest))
            .await?
            .ok_or(Error::BlobUnknown)?;
        let target = match link {
            Some(target) if target.algorithm() != digest.algorithm() => target,
            // The path itself says what an empty or damaged link said.
            _ => *digest,
        };
        if self.0.verified.is_damaged(&target) {
            Err(Error::BlobUnknown)
        } else {
            Ok(target)
        }
    }

    /// The same, for somebody who is told that it is there, and will count on it.
    async fn vouched_layer(&self, repo: &RepoName, digest: &Digest) -> Result<Digest> {
        // Only for what is there, or asking for anything would fill the memory.
        let target = self.layer(repo, digest).await?;
        self.0.pins.vouch(digest).await;
        if target != *digest {
            self.0.pins.vouch(&target).await;
        }
        // Once more: it may have been swept before somebody vouched for it.
        self.layer(repo, digest).await
    }

    /// What a `link` says: `None` if there is none, `Some(None)` if it is damaged.
    pub(super) async fn read_link(&self, key: &Key) -> Result<Option<Option<Digest>>> {
        use crate::storage::Error as Storage;
        match self.store().get(key, LINK_LIMIT).await {
            Ok(text) => Ok(Some(
                std::str::from_utf8(&text)
                    .ok()
                    .and_then(|text| text.trim().parse().ok()),
            )),
            Err(Storage::NotFound(_)) => Ok(None),
            Err(Storage::TooLarge { .. }) => Ok(Some(None)),
            Err(e) => Err(e.into()),
        }
    }

    /// Writes a `link`, durably, unless it says so already: who wrote it then held the lock that the caller holds now,
    /// and made it durable before; if that failed, the store tried again before it let us read it.
    pub(super) async fn link(&self, key: &Key, target: &Digest) -> Result<()> {
        if self.read_link(key).await? == Some(Some(*target)) {
            return Ok(());
        }
        let text = target.to_string().into();
        self.store().put(key, text, Durability::Durable).await?;
        if let Key::Layer(repo, _) = key {
            self.0.catalog.begin(repo);
        }
        Ok(())
    }

    /// For somebody who reads a part, which cannot be compared with the digest: a small blob is read whole first. A large one
    /// is read whole beside, one at a time: until that has ended parts of it go out unproven, and clients check the whole.
    async fn verify_for_part(&self, digest: &Digest, len: u64) -> Result<()> {
        if self.0.verified.is_good(digest) {
            return Ok(());
        }
        if len <= SOON {
            return match self.is_sound(digest).await? {
                true => Ok(()),
                false => Err(Error::BlobUnknown),
            };
        }
        if let Ok(turn) = self.0.verifying.clone().try_acquire_owned() {
            let (this, digest) = (self.clone(), *digest);
            tokio::spawn(async move {
                if let Err(e) = this.is_sound(&digest).await {
                    log::warn!("{digest} could not be read to its end: {e}");
                }
                drop(turn);
            });
        }
        Ok(())
    }

    /// An empty file that should not be empty is what a power cut left of a blob on an old disk.
    fn plausible(&self, digest: &Digest, len: u64) -> Result<()> {
        if len == 0 && digest.algorithm().digest(b"") != *digest {
            self.0.verified.set_damaged(digest);
            return Err(Error::BlobUnknown);
        }
        Ok(())
    }

    /// Whether the stored content of a digest is what the digest says, by reading all of it if that is not known.
    pub(super) async fn is_sound(&self, digest: &Digest) -> Result<bool> {
        use futures_util::StreamExt;
        if self.0.verified.is_good(digest) {
            return Ok(true);
        }
        match self.store().read(&Key::Blob(*digest), None).await {
            Ok(object) => match object.body {
                Body::Bytes(bytes) => Ok(self.0.verified.check(digest, &bytes)),
                Body::Stream(stream) => {
                    let mut stream = verifying(self.clone(), *digest, stream);
                    while let Some(block) = stream.next().await {
                        if block.is_err() {
                            return Ok(false);
                        }
                    }
                    Ok(true)
                }
            },
            Err(e) if e.is_not_found() => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}
