//! An upload on a drive, which is taken away from its writer when the drive goes: a client that is silent must not keep
//! the old file system busy while the new one waits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::super::{Error, Key, Result, Upload};
use super::{Away, DriveStore};

/// Where the upload is between the calls of its writer.
#[derive(Default)]
pub(super) struct Place(Mutex<Held>);

#[derive(Default)]
enum Held {
    #[default]
    Nothing,
    Upload(Box<dyn Upload>),
    Withdrawn(Away),
}

impl Place {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn withdraw(&self, away: Away) {
        *self.lock() = Held::Withdrawn(away);
    }
}

pub(super) struct DriveUpload {
    store: DriveStore,
    place: Arc<Place>,
}

impl DriveUpload {
    pub(super) fn new(store: DriveStore, upload: Box<dyn Upload>) -> Self {
        let place = Arc::new(Place(Mutex::new(Held::Upload(upload))));
        DriveUpload { store, place }
    }

    pub(super) fn place(&self) -> &Arc<Place> {
        &self.place
    }

    fn take(&self) -> Result<Taken> {
        let mut held = self.place.lock();
        match std::mem::take(&mut *held) {
            Held::Upload(upload) => Ok(Taken {
                place: self.place.clone(),
                upload: Some(upload),
            }),
            Held::Withdrawn(away) => {
                *held = Held::Withdrawn(away);
                Err(Error::Away(away))
            }
            Held::Nothing => Err(gone()),
        }
    }

    async fn judge<T>(&self, result: Result<T>) -> Result<T> {
        match result {
            Err(error) => Err(self.store.judge(error).await),
            ok => ok,
        }
    }
}

/// In use by a call; goes back to its place when the call ends, or is given up.
struct Taken {
    place: Arc<Place>,
    upload: Option<Box<dyn Upload>>,
}

impl Taken {
    fn upload(&mut self) -> Result<&mut Box<dyn Upload>> {
        self.upload.as_mut().ok_or_else(gone)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut held = self.place.lock();
        if let (Held::Nothing, Some(upload)) = (&*held, self.upload.take()) {
            *held = Held::Upload(upload);
        }
    }
}

fn gone() -> Error {
    Error::Io {
        call: "write",
        key: String::new(),
        source: std::io::Error::other("the upload has ended"),
    }
}

#[async_trait]
impl Upload for DriveUpload {
    async fn write(&mut self, batch: Vec<Bytes>) -> Result<()> {
        let mut taken = self.take()?;
        let result = taken.upload()?.write(batch).await;
        drop(taken);
        self.judge(result).await
    }

    async fn pause(&mut self) -> Result<u64> {
        let mut taken = self.take()?;
        let result = taken.upload()?.pause().await;
        drop(taken);
        self.judge(result).await
    }

    async fn commit(self: Box<Self>, target: &Key) -> Result<()> {
        let upload = self.take()?.upload.take().ok_or_else(gone)?;
        let result = upload.commit(target).await;
        self.judge(result).await
    }
}
