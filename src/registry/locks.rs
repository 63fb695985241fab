//! Who waits for whom.
//!
//! * A digest's lock is held while content gets its name and is linked, so that a second push of the same content
//!   answers only when the first one's is durable.
//! * A repository's lock is shared by those who add a link to a blob, and held alone by those who change manifests and
//!   tags: a manifest is accepted only when every link it counts on is durable.
//!
//! Both are taken in this order, and never two of a kind by one request.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::oci::{Digest, RepoName};

/// Locks are striped: two names may share one, which costs a wait and no memory.
const STRIPES: usize = 256;

pub(super) struct Locks {
    hash: RandomState,
    digests: Vec<Arc<Mutex<()>>>,
    repos: Vec<Arc<RwLock<()>>>,
}

/// Content of this digest is being named or linked by nobody else.
pub(super) struct DigestGuard(#[expect(dead_code, reason = "held, not read")] OwnedMutexGuard<()>);
/// Manifests and tags of the repository stay as they are.
pub(super) struct SharedGuard(
    #[expect(dead_code, reason = "held, not read")] OwnedRwLockReadGuard<()>,
);
/// Nobody else changes the repository.
pub(super) struct RepoGuard(
    #[expect(dead_code, reason = "held, not read")] OwnedRwLockWriteGuard<()>,
);

impl Default for Locks {
    fn default() -> Self {
        Locks {
            hash: RandomState::new(),
            digests: (0..STRIPES).map(|_| Arc::default()).collect(),
            repos: (0..STRIPES).map(|_| Arc::default()).collect(),
        }
    }
}

impl Locks {
    fn stripe(&self, name: impl Hash) -> usize {
        (self.hash.hash_one(name) % STRIPES as u64) as usize
    }

    pub(super) async fn digest(&self, digest: &Digest) -> DigestGuard {
        DigestGuard(self.digests[self.stripe(digest)].clone().lock_owned().await)
    }

    pub(super) async fn share(&self, repo: &RepoName) -> SharedGuard {
        SharedGuard(self.repos[self.stripe(repo)].clone().read_owned().await)
    }

    pub(super) async fn own(&self, repo: &RepoName) -> RepoGuard {
        RepoGuard(self.repos[self.stripe(repo)].clone().write_owned().await)
    }
}
