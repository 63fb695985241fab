//! The part of a check that reads content: each blob from the device, and once more before it is called damaged.

use std::sync::atomic::Ordering::Relaxed;

use futures_util::StreamExt;

use super::finding::Fault;
use super::{Stage, Stepped, Verification};
use crate::oci::{Algorithm, Digest, Hasher};
use crate::registry::{Registry, Result, to_the_end};
use crate::storage::{self, Body, ByteStream, Dir, Durability, Key, Meta};

/// Pieces of evidence kept of one digest; the last place is used again and again.
const EVIDENCE: u32 = 9;

/// A blob that is being read.
pub(super) struct Reading {
    digest: Digest,
    meta: Meta,
    stream: ByteStream,
    hasher: Hasher,
}

/// What reading all of it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    Gone,
    Bad(Fault, Meta),
}

impl Reading {
    /// `None` if there is nothing to read.
    async fn begin(registry: &Registry, digest: Digest) -> Result<Option<Self>> {
        let object = match registry.store().examine(&Key::Blob(digest)).await {
            Ok(object) => object,
            Err(e) if e.is_not_found() => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let stream = match object.body {
            Body::Stream(stream) => stream,
            Body::Bytes(bytes) => Box::pin(futures_util::stream::once(async { Ok(bytes) })),
        };
        Ok(Some(Reading {
            digest,
            meta: object.meta,
            stream,
            hasher: digest.algorithm().hasher(),
        }))
    }

    /// Reads one block: how many bytes it had, or what all of them say.
    async fn step(&mut self) -> Result<std::result::Result<u64, Verdict>> {
        match self.stream.next().await {
            Some(Ok(block)) => {
                let read = block.len() as u64;
                let hasher = std::mem::replace(&mut self.hasher, self.digest.algorithm().hasher());
                self.hasher = crate::registry::verified::hash(hasher, block).await?;
                Ok(Ok(read))
            }
            Some(Err(storage::Error::Away(away))) => Err(away.into()),
            Some(Err(e)) => {
                log::warn!("{} cannot be read: {e}", self.digest);
                Ok(Err(Verdict::Bad(Fault::UnreadableContent, self.meta)))
            }
            None if self.hasher.clone().finish() == self.digest => Ok(Err(Verdict::Good)),
            None => Ok(Err(Verdict::Bad(Fault::DamagedContent, self.meta))),
        }
    }
}

impl Registry {
    async fn judge(&self, digest: &Digest) -> Result<Verdict> {
        let Some(mut reading) = Reading::begin(self, *digest).await? else {
            return Ok(Verdict::Gone);
        };
        loop {
            if let Err(verdict) = reading.step().await? {
                return Ok(verdict);
            }
        }
    }

    /// Reads content that seems to be damaged once more; what is damaged indeed is hidden, and unless nothing may be
    /// changed moved to where nobody serves it from. `None` if it is sound, or gone.
    pub(crate) async fn confirm_damage(
        &self,
        digest: &Digest,
        may_move: bool,
    ) -> Result<Option<Fault>> {
        match self.judge(digest).await? {
            Verdict::Good => {
                self.0.verified.forget(digest);
                Ok(None)
            }
            Verdict::Gone => Ok(None),
            Verdict::Bad(fault, meta) => {
                let may_move =
                    may_move && fault == Fault::DamagedContent && self.writable().is_ok();
                let is_so = self.quarantine(digest, meta, may_move).await?;
                Ok(is_so.then_some(fault))
            }
        }
    }

    /// Hides content, and moves it out of the way of all readers, also after a restart; the next push of it finds it
    /// missing. What cannot be read stays where it is: the drive may yet give it. False if it is not what was read any more.
    pub(super) async fn quarantine(
        &self,
        digest: &Digest,
        read: Meta,
        may_move: bool,
    ) -> Result<bool> {
        let (this, digest) = (self.clone(), *digest);
        to_the_end(async move {
            let _digest = this.0.locks.digest(&digest).await;
            // Past the cache: it is the file on the disk that counts.
            match this.store().examine(&Key::Blob(digest)).await {
                Ok(object) if object.meta == read => {}
                Ok(_) => return Ok(false),
                Err(e) if e.is_not_found() => return Ok(false),
                Err(e) => return Err(e.into()),
            }
            this.0.verified.hide(&digest);
            this.0.health.damaged.fetch_add(1, Relaxed);
            if !may_move {
                log::error!("the content stored as {digest} is damaged or cannot be read; it is hidden until it is pushed again");
                return Ok(true);
            }
            let mut place = Key::Quarantined(digest, 0);
            for n in 1..=EVIDENCE {
                match this.store().stat(&place).await {
                    Ok(_) => place = Key::Quarantined(digest, n),
                    Err(e) if e.is_not_found() => break,
                    Err(e) => return Err(e.into()),
                }
            }
            this.store().rename(&Key::Blob(digest), &place).await?;
            this.0.verified.forget(&digest);
            let folder = Dir::Blob(digest);
            if this.store().list(&folder, None, 1).await?.is_empty() {
                this.store().remove(&folder, Durability::Lazy).await?;
            }
            log::error!(
                "the content stored as {digest} is damaged ({} bytes); it was moved to {place}, and is missing until it is \
                 pushed again",
                read.len
            );
            Ok(true)
        })
        .await
    }

    /// Whether evidence of damage is kept of this digest.
    pub(super) async fn is_quarantined(&self, digest: &Digest) -> Result<bool> {
        match self.store().stat(&Key::Quarantined(*digest, 0)).await {
            Ok(_) => Ok(true),
            Err(e) if e.is_not_found() => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

impl Verification {
    /// Goes on with the blob that is being read, or the next one.
    pub(super) async fn contents(
        &mut self,
        mut shards: Vec<(Algorithm, u8)>,
        mut left: Vec<Digest>,
        reading: Option<Box<Reading>>,
    ) -> Result<Stepped> {
        let mut stepped = Stepped::Looked;
        let mut next = None;
        if let Some(mut reading) = reading {
            match reading.step().await? {
                Ok(bytes) => {
                    self.report.bytes += bytes;
                    self.registry.0.health.read.fetch_add(bytes, Relaxed);
                    stepped = Stepped::Read(bytes);
                    next = Some(reading);
                }
                Err(verdict) => self.judged(&reading.digest, verdict).await?,
            }
        } else if let Some(digest) = left.pop() {
            next = Reading::begin(&self.registry, digest).await?.map(Box::new);
            if next.is_none() {
                let folder = Dir::Blob(digest);
                if self.registry.store().has(&folder).await? {
                    self.debris(Fault::EmptyFolder, folder.to_string());
                }
            } else {
                self.report.blobs += 1;
            }
        } else if let Some(shard) = shards.pop() {
            left = self.shard(shard).await?;
        } else {
            return self.begin_repositories().await;
        }
        if next.is_none() && left.is_empty() {
            self.under_way.shards = super::report::shards().count() - shards.len();
            self.under_way.blobs = self.report.blobs;
            self.under_way.bytes = self.report.bytes;
        }
        self.stage = Stage::Contents {
            shards,
            left,
            reading: next,
        };
        Ok(stepped)
    }

    /// The blobs in one folder of them that are to be read.
    async fn shard(&mut self, (algorithm, first): (Algorithm, u8)) -> Result<Vec<Digest>> {
        let folder = Dir::Shard(algorithm, first);
        let names = self
            .registry
            .store()
            .list(&folder, None, usize::MAX)
            .await?;
        let mut digests = Vec::new();
        for name in names {
            match Digest::from_parts(algorithm, &name) {
                Ok(digest) if digest.bytes()[0] == first => {
                    if self
                        .wanted
                        .as_mut()
                        .is_none_or(|wanted| wanted.contains(&digest))
                    {
                        digests.push(digest);
                    }
                }
                _ => self.debris(Fault::StrangeName, format!("{folder}/{name}")),
            }
        }
        Ok(digests)
    }

    async fn judged(&mut self, digest: &Digest, verdict: Verdict) -> Result<()> {
        if matches!(verdict, Verdict::Good | Verdict::Gone) {
            return Ok(());
        }
        let may_move = !self.scope.dry_run;
        match self.registry.confirm_damage(digest, may_move).await? {
            Some(fault) => {
                self.bad.insert(*digest, fault);
                self.unnamed.insert(*digest);
            }
            None => log::warn!(
                "{digest} was not what it should be, and is now that it was read again: does the drive lie?"
            ),
        }
        Ok(())
    }
}
