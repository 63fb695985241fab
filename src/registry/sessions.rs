//! The upload sessions that this process knows of. The disk knows of them too, so a restart loses none: a session that
//! is not in this table is taken up again from its folder, and hashed once more from there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{Error, Result};
use crate::oci::{Hasher, RepoName};
use crate::storage::UploadId;

/// How many sessions are remembered, at some 500 bytes each.
const REMEMBERED: usize = 8192;

/// The progress of a session that is just being taken up from the disk.
const NOT_KNOWN_YET: u64 = u64::MAX;

#[derive(Clone, Default)]
pub(super) struct Sessions(Arc<Mutex<HashMap<UploadId, Session>>>);

struct Session {
    repo: RepoName,
    state: State,
    touched: Instant,
}

enum State {
    Idle(Paused),
    /// Somebody writes; how far, in bytes.
    Busy(Arc<AtomicU64>),
}

/// Where a session goes on.
#[derive(Clone)]
pub(super) struct Paused {
    /// Over the first `len` bytes.
    pub(super) hasher: Hasher,
    /// In bytes.
    pub(super) len: u64,
}

/// The right to write to a session. Dropped without `pause`, the session has to be taken up from the disk again.
pub(super) struct Hold {
    sessions: Sessions,
    id: UploadId,
    progress: Arc<AtomicU64>,
    paused: Option<Paused>,
}

/// What is known of a session that nobody writes to.
pub(super) enum Held {
    Known(Hold, Paused),
    /// Nothing: if it exists, then on disk.
    Unknown(Hold),
}

impl Sessions {
    fn table(&self) -> MutexGuard<'_, HashMap<UploadId, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.table().len()
    }

    pub(super) fn insert(&self, repo: &RepoName, id: UploadId, paused: Paused) {
        let session = Session {
            repo: repo.clone(),
            state: State::Idle(paused),
            touched: Instant::now(),
        };
        let mut table = self.table();
        if table.len() >= REMEMBERED {
            // The disk knows them too.
            table.retain(|_, session| matches!(session.state, State::Busy(_)));
        }
        table.insert(id, session);
    }

    /// How far a session has come, in bytes; `None` if this table does not know it.
    pub(super) fn len_of(&self, repo: &RepoName, id: &UploadId) -> Result<Option<u64>> {
        match self.table().get(id) {
            None => Ok(None),
            Some(session) if session.repo != *repo => Err(Error::UploadUnknown),
            Some(Session {
                state: State::Idle(paused),
                ..
            }) => Ok(Some(paused.len)),
            Some(Session {
                state: State::Busy(progress),
                ..
            }) => Ok(Some(progress.load(Ordering::Relaxed)).filter(|len| *len != NOT_KNOWN_YET)),
        }
    }

    /// Takes hold of a session. `UploadBusy` if somebody has it, `UploadUnknown` if it is another repository's.
    pub(super) fn hold(&self, repo: &RepoName, id: &UploadId) -> Result<Held> {
        let progress = Arc::new(AtomicU64::new(NOT_KNOWN_YET));
        let busy = || Session {
            repo: repo.clone(),
            state: State::Busy(progress.clone()),
            touched: Instant::now(),
        };
        let mut table = self.table();
        let paused = match table.get(id) {
            Some(session) if session.repo != *repo => return Err(Error::UploadUnknown),
            Some(Session {
                state: State::Busy(_),
                ..
            }) => return Err(Error::UploadBusy),
            Some(Session {
                state: State::Idle(paused),
                ..
            }) => Some(paused.clone()),
            None => None,
        };
        table.insert(*id, busy());
        drop(table);
        let hold = Hold {
            sessions: self.clone(),
            id: *id,
            progress,
            paused: None,
        };
        Ok(match paused {
            Some(paused) => {
                hold.progress(paused.len);
                Held::Known(hold, paused)
            }
            None => Held::Unknown(hold),
        })
    }

    /// When the session was last written to, as far as this process knows.
    pub(super) fn touched(&self, id: &UploadId) -> Option<Instant> {
        self.table().get(id).map(|session| session.touched)
    }
}

impl Hold {
    pub(super) fn id(&self) -> &UploadId {
        &self.id
    }

    pub(super) fn progress(&self, len: u64) {
        self.progress.store(len, Ordering::Relaxed);
    }

    /// Gives the session back to whoever continues it.
    pub(super) fn pause(mut self, paused: Paused) {
        self.paused = Some(paused);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut table = self.sessions.table();
        match (self.paused.take(), table.get_mut(&self.id)) {
            (Some(paused), Some(session)) => {
                session.state = State::Idle(paused);
                session.touched = Instant::now();
            }
            _ => drop(table.remove(&self.id)),
        }
    }
}
