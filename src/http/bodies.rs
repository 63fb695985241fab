//! Lists are in memory as a whole while clients take them, and so have to be limited for all clients together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::oci::{Algorithm, Digest};

use super::reply::Failure;

const KIB: usize = 1 << 10;

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
