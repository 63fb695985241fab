//! A tree on a drive that may be unplugged: found by its marker, held by a descriptor, given up when it goes.
//!
//! Every path of a [`DriveStore`] begins at a descriptor of the drive's topmost folder. So nothing can be written beside the
//! drive, into the folder it was mounted on, however late its going is noticed. It is noticed within a second, or by the
//! first error; then the store answers every call with [`Away`], and lets go of the file system. What comes back is another
//! store: nobody can mix what was known of the one with what is on the other.

mod away;
mod marker;
mod mount;
mod upload;

use std::fs::File;
use std::future::Future;
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_blocking};
use uuid::Uuid;

use super::fs::{FsStore, OpenError};
use super::key::DATABASE_IN_USE;
use super::{Dir, Durability, Error, Key, Meta, Object, Result, Space, Store, Upload};
pub(crate) use away::Away;
pub(crate) use marker::Marker;
use mount::Mount;
use upload::{DriveUpload, Place};

/// How often the kernel is asked whether the drive is still there. It costs no access to the drive.
const LOOK: Duration = Duration::from_secs(1);
/// How long a drive may take to answer: disks that sleep need some seconds to spin up.
const PATIENCE: Duration = Duration::from_secs(15);

/// The drive that a tree belongs on.
pub(crate) struct Drive {
    place: PathBuf,
    id: Uuid,
    /// An attempt that the drive has not answered yet.
    pending: Option<JoinHandle<Result<DriveStore, AttachError>>>,
}

/// Why the drive's tree cannot be had now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    #[error(transparent)]
    Away(#[from] Away),
    /// Another process has it, or what this one did there before has not ended; or it cannot be had at all.
    #[error(transparent)]
    Refused(OpenError),
}

impl AttachError {
    /// What a client is to be told.
    pub(crate) fn away(&self) -> Away {
        match self {
            AttachError::Away(away) => *away,
            AttachError::Refused(_) => Away::Busy,
        }
    }
}

impl Drive {
    /// The drive with the marker `id`, which is to be mounted at `place`.
    pub(crate) fn new(place: PathBuf, id: Uuid) -> Self {
        Drive {
            place,
            id,
            pending: None,
        }
    }

    /// Takes the tree of the drive if it is there, is the right one, and works.
    ///
    /// # Errors
    /// Why not.
    pub(crate) async fn attach(&mut self) -> Result<DriveStore, AttachError> {
        let (place, id) = (self.place.clone(), self.id);
        // One that hangs is waited for, not started again: each would keep a thread.
        let mut job = self
            .pending
            .take()
            .unwrap_or_else(|| spawn_blocking(move || attach(&place, id)));
        match tokio::time::timeout(PATIENCE, &mut job).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Away::Failing.into()),
            Err(_) => {
                self.pending = Some(job);
                Err(Away::Silent.into())
            }
        }
    }
}

fn attach(place: &Path, id: Uuid) -> Result<DriveStore, AttachError> {
    let mount = Mount::at(place)?;
    let marker = Marker::read(&mount.path()).map_err(|e| Away::of(&e))?;
    match marker {
        Some(marker) if marker.id == id && marker.incoming.is_none() => {}
        Some(marker) if marker.id == id => return Err(Away::Unfinished.into()),
        _ => return Err(Away::Foreign.into()),
    }
    mount.look(place)?;
    let store = match FsStore::open_at(mount.descriptor()) {
        Ok(store) => store,
        Err(OpenError::InUse(_)) => {
            return Err(AttachError::Refused(OpenError::InUse(place.to_owned())));
        }
        Err(OpenError::Managed(_)) => {
            let file = place.join(DATABASE_IN_USE);
            return Err(AttachError::Refused(OpenError::Managed(file)));
        }
        Err(split @ OpenError::Split { .. }) => return Err(AttachError::Refused(split)),
        Err(OpenError::Io { source, .. }) => {
            log::warn!("the drive at {}: {source}", place.display());
            return Err(Away::of(&source).into());
        }
    };
    try_out(&mount).map_err(|e| Away::of(&e))?;
    let attached = Attached {
        store,
        mount: Arc::new(mount),
        uploads: Vec::new(),
    };
    Ok(DriveStore(Arc::new(Shared {
        place: place.to_owned(),
        state: Mutex::new(State::Attached(attached)),
        changed: Notify::new(),
        tried: tokio::sync::Mutex::default(),
    })))
}

/// Writes a few bytes and waits until they are on the drive: the kernel's memory answers for a drive that is gone.
fn try_out(mount: &Mount) -> io::Result<()> {
    let path = mount.path().join(super::key::OWN).join("try");
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(Uuid::new_v4().as_bytes())?;
        file.sync_all()
    });
    match written {
        // Full is not broken.
        Err(e) if is_full(&e) => Ok(()),
        Err(e) => Err(e),
        Ok(()) => std::fs::remove_file(&path),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// The tree on a drive, from when the drive was found until it goes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DriveStore(Arc<Shared>);

struct Shared {
    place: PathBuf,
    state: Mutex<State>,
    changed: Notify,
    /// When the drive last proved, after an error, that it works.
    tried: tokio::sync::Mutex<Option<Instant>>,
}

enum State {
    Attached(Attached),
    Lost(Away),
}

struct Attached {
    store: FsStore,
    mount: Arc<Mount>,
    uploads: Vec<Weak<Place>>,
}

impl DriveStore {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attached(&self) -> Result<(FsStore, Arc<Mount>)> {
        match &*self.state() {
            State::Attached(attached) => Ok((attached.store.clone(), attached.mount.clone())),
            State::Lost(away) => Err(Error::Away(*away)),
        }
    }

    /// Watches the drive, and returns when it is lost, with the reason; the store serves nothing from then on.
    pub(crate) async fn lost(&self) -> Away {
        loop {
            let mount = match &*self.state() {
                State::Lost(away) => return *away,
                State::Attached(attached) => attached.mount.clone(),
            };
            tokio::select! {
                () = self.0.changed.notified() => {}
                () = tokio::time::sleep(LOOK) => {
                    let place = self.0.place.clone();
                    if let Err(away) = patiently(move || mount.look(&place)).await {
                        self.withdraw(away);
                    }
                }
            }
        }
    }

    /// Lets go of the file system, as soon as the calls under way have ended.
    fn withdraw(&self, away: Away) {
        let before = {
            let mut state = self.state();
            match &*state {
                State::Lost(_) => return,
                State::Attached(_) => std::mem::replace(&mut *state, State::Lost(away)),
            }
        };
        if let State::Attached(attached) = before {
            attached.store.doubt();
            let uploads = attached.uploads.iter().filter_map(Weak::upgrade);
            uploads.for_each(|place| place.withdraw(away));
        }
        self.0.changed.notify_one();
    }

    /// What an error means: that of one file, or of the drive? The first to meet one finds out for all.
    async fn judge(&self, error: Error) -> Error {
        if !matches!(error, Error::Io { .. }) {
            return error;
        }
        let mut tried = self.0.tried.lock().await;
        let mount = match &*self.state() {
            State::Lost(away) => return Error::Away(*away),
            State::Attached(attached) => attached.mount.clone(),
        };
        if tried.is_some_and(|tried| tried.elapsed() < LOOK) {
            return error;
        }
        let place = self.0.place.clone();
        let verdict = patiently(move || {
            mount.look(&place)?;
            try_out(&mount).map_err(|e| Away::of(&e))
        });
        match verdict.await {
            Ok(()) => {
                *tried = Some(Instant::now());
                error
            }
            Err(away) => {
                self.withdraw(away);
                Error::Away(away)
            }
        }
    }

    async fn on<T, W: Future<Output = Result<T>>>(
        &self,
        call: impl FnOnce(FsStore) -> W,
    ) -> Result<T> {
        let (store, _mount) = self.attached()?;
        match call(store).await {
            Err(error) => Err(self.judge(error).await),
            ok => ok,
        }
    }
}

/// Runs what should not wait for the drive, and may.
async fn patiently(work: impl FnOnce() -> Result<(), Away> + Send + 'static) -> Result<(), Away> {
    match tokio::time::timeout(PATIENCE, spawn_blocking(work)).await {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(_)) => Err(Away::Failing),
        Err(_) => Err(Away::Silent),
    }
}

#[async_trait]
impl Store for DriveStore {
    async fn stat(&self, key: &Key) -> Result<Meta> {
        self.on(|store| async move { store.stat(key).await }).await
    }

    async fn read(&self, key: &Key, range: Option<Range<u64>>) -> Result<Object> {
        self.on(|store| async move { store.read(key, range).await })
            .await
    }

    async fn examine(&self, key: &Key) -> Result<Object> {
        self.on(|store| async move { store.examine(key).await })
            .await
    }

    async fn get(&self, key: &Key, limit: usize) -> Result<Bytes> {
        self.on(|store| async move { store.get(key, limit).await })
            .await
    }

    async fn put(&self, key: &Key, bytes: Bytes, durability: Durability) -> Result<()> {
        self.on(|store| async move { store.put(key, bytes, durability).await })
            .await
    }

    async fn rename(&self, from: &Key, to: &Key) -> Result<()> {
        self.on(|store| async move { store.rename(from, to).await })
            .await
    }

    async fn delete(&self, key: &Key, durability: Durability) -> Result<()> {
        self.on(|store| async move { store.delete(key, durability).await })
            .await
    }

    async fn remove(&self, dir: &Dir, durability: Durability) -> Result<()> {
        self.on(|store| async move { store.remove(dir, durability).await })
            .await
    }

    async fn list(&self, dir: &Dir, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
        self.on(|store| async move { store.list(dir, after, limit).await })
            .await
    }

    async fn sync(&self, dir: &Dir) -> Result<()> {
        self.on(|store| async move { store.sync(dir).await }).await
    }

    async fn has(&self, dir: &Dir) -> Result<bool> {
        self.on(|store| async move { store.has(dir).await }).await
    }

    async fn upload(&self, key: &Key, at: u64) -> Result<Box<dyn Upload>> {
        let upload = self
            .on(|store| async move { store.upload(key, at).await })
            .await?;
        let upload = DriveUpload::new(self.clone(), upload);
        match &mut *self.state() {
            State::Lost(away) => return Err(Error::Away(*away)),
            State::Attached(attached) => {
                attached.uploads.retain(|place| place.strong_count() > 0);
                attached.uploads.push(Arc::downgrade(upload.place()));
            }
        }
        Ok(Box::new(upload))
    }

    async fn space(&self) -> Result<Option<Space>> {
        self.on(|store| async move { store.space().await }).await
    }

    async fn probe(&self) -> Result<()> {
        self.on(|store| async move { store.probe().await }).await
    }
}
