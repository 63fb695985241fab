//! A store on which everything takes a while, so that others come between.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use crate::storage::{self, Dir, Durability, Key, Meta, Object, Space, Store, Upload};

/// A number that looks random, from a seed.
#[derive(Clone)]
pub(super) struct Dice(pub(super) Arc<AtomicU64>);

impl Dice {
    pub(super) fn roll(&self, sides: u64) -> u64 {
        let mut n = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (n ^ (n >> 31)) % sides
    }

    pub(super) fn pick<T: Clone>(&self, of: &[T]) -> Option<T> {
        let at = self.roll(of.len().max(1) as u64) as usize;
        of.get(at).cloned()
    }
}

/// A store whose calls let others go first, as a disk's would.
pub(super) struct Slow<S> {
    pub(super) store: S,
    pub(super) dice: Dice,
}

impl<S> Slow<S> {
    async fn wait(&self) {
        for _ in 0..self.dice.roll(4) {
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl<S: Store> Store for Slow<S> {
    async fn stat(&self, key: &Key) -> storage::Result<Meta> {
        self.wait().await;
        self.store.stat(key).await
    }
    async fn read(&self, key: &Key, range: Option<Range<u64>>) -> storage::Result<Object> {
        self.wait().await;
        self.store.read(key, range).await
    }
    async fn examine(&self, key: &Key) -> storage::Result<Object> {
        self.wait().await;
        self.store.examine(key).await
    }
    async fn rename(&self, from: &Key, to: &Key) -> storage::Result<()> {
        self.wait().await;
        let result = self.store.rename(from, to).await;
        self.wait().await;
        result
    }
    async fn get(&self, key: &Key, limit: usize) -> storage::Result<Bytes> {
        self.wait().await;
        self.store.get(key, limit).await
    }
    async fn put(&self, key: &Key, bytes: Bytes, how: Durability) -> storage::Result<()> {
        self.wait().await;
        let result = self.store.put(key, bytes, how).await;
        self.wait().await;
        result
    }
    async fn delete(&self, key: &Key, how: Durability) -> storage::Result<()> {
        self.wait().await;
        let result = self.store.delete(key, how).await;
        self.wait().await;
        result
    }
    async fn remove(&self, dir: &Dir, how: Durability) -> storage::Result<()> {
        self.wait().await;
        let result = self.store.remove(dir, how).await;
        self.wait().await;
        result
    }
    async fn sync(&self, dir: &Dir) -> storage::Result<()> {
        self.store.sync(dir).await
    }
    async fn list(&self, dir: &Dir, after: Option<&str>, n: usize) -> storage::Result<Vec<String>> {
        self.wait().await;
        let result = self.store.list(dir, after, n).await;
        self.wait().await;
        result
    }
    async fn has(&self, dir: &Dir) -> storage::Result<bool> {
        self.store.has(dir).await
    }
    async fn upload(&self, key: &Key, at: u64) -> storage::Result<Box<dyn Upload>> {
        self.store.upload(key, at).await
    }
    async fn space(&self) -> storage::Result<Option<Space>> {
        self.store.space().await
    }
    async fn probe(&self) -> storage::Result<()> {
        self.store.probe().await
    }
}
