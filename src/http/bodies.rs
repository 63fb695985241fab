//! What is in memory as a whole while a client sends or takes it, and so has to be limited for all clients together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout, timeout_at};

use crate::oci::{Algorithm, Digest};

use super::payload::{BodyError, RequestBody};
use super::reply::Failure;

const KIB: usize = 1 << 10;

/// Bodies of manifests on their way in.
pub(super) struct Manifests {
    room: Arc<Semaphore>,
}

/// One that came, and its room.
pub(super) struct Manifest {
    pub(super) bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl Manifests {
    /// What all of them may hold together, in KiB, beside [`Self::FREE`] each.
    const ROOM: usize = 16 << 10;
    /// What each may have without asking, in bytes: nearly all manifests are smaller, and never wait for large ones.
    const FREE: usize = 16 * KIB;
    /// Room is taken in pieces of this many KiB.
    const STEP: usize = 64;
    /// How long one waits for room.
    const PATIENCE: Duration = Duration::from_secs(5);
    /// How long one may take, and for how many bytes a second more.
    const TIME: Duration = Duration::from_secs(60);
    const RATE: f64 = 16.0 * KIB as f64;

    pub(super) fn new() -> Self {
        Manifests {
            room: Arc::new(Semaphore::new(Self::ROOM)),
        }
    }

    /// A whole body of at most `limit` bytes. Nothing is held but what came.
    pub(super) async fn read(
        &self,
        body: &mut RequestBody,
        limit: usize,
    ) -> Result<Manifest, Failure> {
        let too_large = BodyError::TooLarge { limit };
        if body.length().is_some_and(|length| length > limit as u64) {
            return Err(too_large.into());
        }
        let started = Instant::now();
        let mut manifest = Manifest {
            bytes: Bytes::new(),
            _room: None,
        };
        let mut all = BytesMut::new();
        loop {
            let earned = Duration::from_secs_f64(body.received() as f64 / Self::RATE);
            let next = timeout_at(started + Self::TIME + earned, body.next()).await;
            let next = next.unwrap_or(Err(BodyError::TooSlow));
            let Some(bytes) = next.map_err(Failure::Manifest)? else {
                break;
            };
            let len = all.len().max(manifest.bytes.len()) + bytes.len();
            if len > limit {
                return Err(too_large.into());
            }
            self.make_room(&mut manifest._room, len).await?;
            if all.is_empty() && manifest.bytes.is_empty() {
                manifest.bytes = bytes; // shares the connection's read buffer, and is nearly always all
                continue;
            }
            if all.is_empty() {
                all.extend_from_slice(&std::mem::take(&mut manifest.bytes));
            }
            all.extend_from_slice(&bytes);
        }
        if !all.is_empty() {
            manifest.bytes = all.freeze();
        }
        Ok(manifest)
    }

    async fn make_room(
        &self,
        room: &mut Option<OwnedSemaphorePermit>,
        len: usize,
    ) -> Result<(), Failure> {
        let needed = len.saturating_sub(Self::FREE).div_ceil(KIB);
        let needed = needed.next_multiple_of(Self::STEP).min(Self::ROOM);
        let missing = needed - room.as_ref().map_or(0, |room| room.num_permits());
        if missing == 0 {
            return Ok(());
        }
        let more = self.room.clone().acquire_many_owned(missing as u32);
        let Ok(Ok(more)) = timeout(Self::PATIENCE, more).await else {
            return Err(Failure::Busy);
        };
        match room {
            Some(room) => room.merge(more),
            None => *room = Some(more),
        }
        Ok(())
    }
}

/// Lists on their way out.
pub(super) struct Lists {
    room: Arc<Semaphore>,
    /// Those that somebody takes now: who gets the same shares it.
    known: Mutex<HashMap<Digest, Weak<List>>>,
    turns: Semaphore,
}

struct List {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

struct Shared(Arc<List>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl Lists {
    /// What all of them may hold together, in KiB.
    const ROOM: usize = 16 << 10;
    /// Up to this many bytes a list is not counted: it fits into what the connection buffers anyway.
    const SMALL: usize = 64 * KIB;
    /// Lists that are read from the disk at once.
    const AT_ONCE: usize = 4;

    pub(super) fn new() -> Self {
        Lists {
            room: Arc::new(Semaphore::new(Self::ROOM)),
            known: Mutex::default(),
            turns: Semaphore::new(Self::AT_ONCE),
        }
    }

    /// To be waited for before a list is made that has to wait itself.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok() // nobody closes it
    }

    /// The bytes to send instead of `bytes`, which are the same. [`Failure::Busy`].
    pub(super) fn share(&self, bytes: Bytes) -> Result<Bytes, Failure> {
        if bytes.len() <= Self::SMALL {
            return Ok(bytes);
        }
        let digest = Algorithm::Sha256.digest(&bytes);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let list = match known.get(&digest).and_then(Weak::upgrade) {
            Some(list) => list,
            None => {
                known.retain(|_, list| list.strong_count() > 0);
                let needed = bytes.len().div_ceil(KIB).min(Self::ROOM);
                let room = self.room.clone().try_acquire_many_owned(needed as u32);
                let _room = room.map_err(|_| Failure::Busy)?;
                let list = Arc::new(List { bytes, _room });
                known.insert(digest, Arc::downgrade(&list));
                list
            }
        };
        Ok(Bytes::from_owner(Shared(list)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_list_is_in_memory_once_and_others_have_a_limit() {
        let lists = Lists::new();
        let list = |first: u8| Bytes::from(vec![first; 4 << 20]);
        let small = lists.share(Bytes::from_static(b"[]")).ok().unwrap();
        assert_eq!(small, "[]");
        let one = lists.share(list(0)).ok().unwrap();
        let same = lists.share(list(0)).ok().unwrap();
        assert_eq!((one.as_ptr(), one.len()), (same.as_ptr(), same.len()));
        let others: Vec<Bytes> = (1..4).map(|i| lists.share(list(i)).ok().unwrap()).collect();
        assert!(matches!(lists.share(list(9)), Err(Failure::Busy)));
        assert!(lists.share(list(0)).is_ok(), "it is there already");
        drop(others);
        assert_eq!(lists.share(list(9)).ok().unwrap(), list(9));
    }
}
