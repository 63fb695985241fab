//! Counts and times the calls of a store, for `/metrics` and for the tests that keep the number of calls a request small.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Dir, Durability, Key, Meta, Object, Result, Space, Store, Upload};

/// Is told the name of each call, whether it succeeded (not finding something is a success), and how long it took.
pub(crate) type Observer = Arc<dyn Fn(&'static str, bool, Duration) + Send + Sync>;

pub(crate) struct Metered<S> {
    store: S,
    observer: Observer,
}

impl<S> Metered<S> {
    pub(crate) fn new(store: S, observer: Observer) -> Self {
        Metered { store, observer }
    }
}

async fn observe<T>(
    observer: &Observer,
    call: &'static str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let started = Instant::now();
    let result = work.await;
    observer(
        call,
        result.as_ref().err().is_none_or(super::Error::is_not_found),
        started.elapsed(),
    );
    result
}

#[async_trait]
impl<S: Store> Store for Metered<S> {
    async fn stat(&self, key: &Key) -> Result<Meta> {
        observe(&self.observer, "stat", self.store.stat(key)).await
    }

    async fn read(&self, key: &Key, range: Option<Range<u64>>) -> Result<Object> {
        observe(&self.observer, "read", self.store.read(key, range)).await
    }

    async fn examine(&self, key: &Key) -> Result<Object> {
        observe(&self.observer, "examine", self.store.examine(key)).await
    }

    async fn get(&self, key: &Key, limit: usize) -> Result<Bytes> {
        observe(&self.observer, "get", self.store.get(key, limit)).await
    }

    async fn put(&self, key: &Key, bytes: Bytes, durability: Durability) -> Result<()> {
        observe(
            &self.observer,
            "put",
            self.store.put(key, bytes, durability),
        )
        .await
    }

    async fn rename(&self, from: &Key, to: &Key) -> Result<()> {
        observe(&self.observer, "rename", self.store.rename(from, to)).await
    }

    async fn delete(&self, key: &Key, durability: Durability) -> Result<()> {
        observe(&self.observer, "delete", self.store.delete(key, durability)).await
    }

    async fn remove(&self, dir: &Dir, durability: Durability) -> Result<()> {
        observe(&self.observer, "remove", self.store.remove(dir, durability)).await
    }

    async fn sync(&self, dir: &Dir) -> Result<()> {
        observe(&self.observer, "sync", self.store.sync(dir)).await
    }

    async fn list(&self, dir: &Dir, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
        observe(&self.observer, "list", self.store.list(dir, after, limit)).await
    }

    async fn has(&self, dir: &Dir) -> Result<bool> {
        observe(&self.observer, "has", self.store.has(dir)).await
    }

    async fn upload(&self, key: &Key, at: u64) -> Result<Box<dyn Upload>> {
        let upload = observe(&self.observer, "upload", self.store.upload(key, at)).await?;
        Ok(Box::new(MeteredUpload {
            upload,
            observer: self.observer.clone(),
        }))
    }

    async fn space(&self) -> Result<Option<Space>> {
        observe(&self.observer, "space", self.store.space()).await
    }

    async fn probe(&self) -> Result<()> {
        observe(&self.observer, "probe", self.store.probe()).await
    }
}

struct MeteredUpload {
    upload: Box<dyn Upload>,
    observer: Observer,
}

#[async_trait]
impl Upload for MeteredUpload {
    async fn write(&mut self, batch: Vec<Bytes>) -> Result<()> {
        observe(&self.observer, "upload_write", self.upload.write(batch)).await
    }

    async fn pause(&mut self) -> Result<u64> {
        observe(&self.observer, "upload_pause", self.upload.pause()).await
    }

    async fn commit(self: Box<Self>, target: &Key) -> Result<()> {
        observe(&self.observer, "upload_commit", self.upload.commit(target)).await
    }
}
