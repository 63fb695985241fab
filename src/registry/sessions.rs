//! The upload sessions that this process knows of. The disk knows of them too, so a restart loses none: a session that
//! is not in this table is taken up again from its folder, and hashed once more from there.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{Error, Result};
use crate::oci::{Hasher, RepoName};
use crate::storage::{Upload, UploadId};

/// How many sessions are remembered, at some 500 bytes each.
const REMEMBERED: usize = 8192;
/// How many of those that nobody writes to keep their file open.
const OPEN: usize = 128;

/// The progress of a session that is just being taken up from the disk.
const NOT_KNOWN_YET: u64 = u64::MAX;

#[derive(Clone, Default)]
pub(super) struct Sessions(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    sessions: HashMap<UploadId, Session>,
    /// Those that nobody writes to and whose file is open, the one that was longest left alone first.
    open: VecDeque<UploadId>,
}

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
pub(super) struct Paused {
    /// Over the first `len` bytes.
    pub(super) hasher: Hasher,
    /// In bytes.
    pub(super) len: u64,
    /// Its file, still open. The kernel tells of a write that failed later to those who had the file open then, and forgets
    /// it with the file: what was hashed on its way there may be counted on only while this is kept.
    pub(super) upload: Option<Box<dyn Upload>>,
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

impl Table {
    /// Leaves a session to whoever continues it. What is returned is to be dropped without the lock: closing a file may take
    /// its time.
    #[must_use]
    fn leave(&mut self, id: UploadId, session: Session) -> Vec<Session> {
        let mut closed = Vec::new();
        if self.sessions.len() >= REMEMBERED {
            // The disk knows them too.
            let idle =
                |_: &UploadId, session: &mut Session| matches!(session.state, State::Idle(_));
            closed.extend(self.sessions.extract_if(idle).map(|(_, session)| session));
            self.open.clear();
        }
        self.sessions.insert(id, session);
        self.open.push_back(id);
        if self.open.len() > OPEN
            && let Some(oldest) = self.open.pop_front()
        {
            // It is read and hashed again when somebody comes back to it.
            closed.extend(self.sessions.remove(&oldest));
        }
        closed
    }

    fn take(&mut self, id: &UploadId) -> Option<Session> {
        let session = self.sessions.remove(id)?;
        if let Some(at) = self.open.iter().position(|open| open == id) {
            self.open.remove(at);
        }
        Some(session)
    }
}

impl Sessions {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.table().sessions.len()
    }

    pub(super) fn insert(&self, repo: &RepoName, id: UploadId, paused: Paused) {
        let session = Session {
            repo: repo.clone(),
            state: State::Idle(paused),
            touched: Instant::now(),
        };
        let closed = self.table().leave(id, session);
        drop(closed);
    }

    /// How far a session has come, in bytes; `None` if this table does not know it.
    pub(super) fn len_of(&self, repo: &RepoName, id: &UploadId) -> Result<Option<u64>> {
        match self.table().sessions.get(id) {
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
        let mut table = self.table();
        match table.sessions.get(id) {
            Some(session) if session.repo != *repo => return Err(Error::UploadUnknown),
            Some(Session {
                state: State::Busy(_),
                ..
            }) => return Err(Error::UploadBusy),
            _ => {}
        }
        let paused = match table.take(id).map(|session| session.state) {
            Some(State::Idle(paused)) => Some(paused),
            _ => None,
        };
        let busy = Session {
            repo: repo.clone(),
            state: State::Busy(progress.clone()),
            touched: Instant::now(),
        };
        table.sessions.insert(*id, busy);
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
        self.table().sessions.get(id).map(|session| session.touched)
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
        let closed = match (self.paused.take(), table.take(&self.id)) {
            (Some(paused), Some(session)) => table.leave(
                self.id,
                Session {
                    repo: session.repo,
                    state: State::Idle(paused),
                    touched: Instant::now(),
                },
            ),
            (_, session) => session.into_iter().collect(),
        };
        drop(table);
        drop(closed);
    }
}
