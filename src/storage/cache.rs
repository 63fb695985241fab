//! Remembers small objects and the sizes of large ones, so that a busy tag costs no system call.
//!
//! Right because one process owns a store: whatever changes goes through here and is forgotten before and after. (So a
//! caller must not drop a change half-way.) What does not exist is not remembered, nor are uploads under way.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use lru::LruCache;

use super::{Dir, Durability, Error, Key, Meta, Object, Result, Space, Store, Upload};

/// Objects above this size are not kept, in bytes.
const LARGEST: usize = 64 * 1024;
/// What the contents kept may come to, in bytes.
const BUDGET: usize = 2 * 1024 * 1024;
/// How many objects are remembered at the most; each costs some 200 bytes beside its content.
const ENTRIES: NonZeroUsize = NonZeroUsize::new(8192).expect("not zero");

pub(crate) struct Cached<S> {
    store: S,
    known: Shared,
}

#[derive(Clone)]
struct Shared(Arc<Mutex<Known>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Known {
    entries: LruCache<Key, Entry>,
    /// Bytes of content held.
    held: usize,
    /// Counts changes: what was read before a change must not be remembered after it.
    changes: u64,
}

#[derive(Clone, Default)]
struct Entry {
    meta: Option<Meta>,
    content: Option<Bytes>,
}

impl Entry {
    fn size(&self) -> usize {
        self.content.as_ref().map_or(0, Bytes::len)
    }
}

impl<S> Cached<S> {
    pub(crate) fn new(store: S) -> Self {
        let known = Known {
            entries: LruCache::new(ENTRIES),
            held: 0,
            changes: 0,
        };
        Cached {
            store,
            known: Shared(Arc::new(Mutex::new(known))),
        }
    }
}

impl Known {
    fn remember(&mut self, key: &Key, read_at: u64, fill: impl FnOnce(&mut Entry)) {
        if read_at != self.changes {
            return;
        }
        let mut entry = self.take(key);
        fill(&mut entry);
        self.held += entry.size();
        if let Some((_, evicted)) = self.entries.push(key.clone(), entry) {
            self.held -= evicted.size();
        }
        while self.held > BUDGET {
            let Some((_, evicted)) = self.entries.pop_lru() else {
                break;
            };
            self.held -= evicted.size();
        }
    }

    fn take(&mut self, key: &Key) -> Entry {
        let entry = self.entries.pop(key).unwrap_or_default();
        self.held -= entry.size();
        entry
    }

    fn forget(&mut self, key: &Key) {
        self.changes += 1;
        self.take(key);
    }

    fn forget_below(&mut self, dir: &Dir) {
        match dir {
            // Those that are removed all the time hold one object each that is ever remembered.
            Dir::Tag(repo, tag) => self.forget(&Key::Tag(repo.clone(), tag.clone())),
            Dir::Upload(repo, id) => self.forget(&Key::UploadStarted(repo.clone(), *id)),
            Dir::Blob(digest) => self.forget(&Key::Blob(*digest)),
            Dir::Layer(repo, digest) => self.forget(&Key::Layer(repo.clone(), *digest)),
            Dir::Revision(repo, digest) => self.forget(&Key::Revision(repo.clone(), *digest)),
            _ => {
                self.changes += 1;
                let below: Vec<Key> = self
                    .entries
                    .iter()
                    .map(|(key, _)| key)
                    .filter(|key| key.is_below(dir))
                    .cloned()
                    .collect();
                for key in below {
                    self.take(&key);
                }
            }
        }
    }
}

#[async_trait]
impl<S: Store> Store for Cached<S> {
    async fn stat(&self, key: &Key) -> Result<Meta> {
        let read_at = {
            let mut known = self.known.lock();
            if let Some(meta) = known.entries.get(key).and_then(|entry| entry.meta) {
                return Ok(meta);
            }
            known.changes
        };
        let meta = self.store.stat(key).await?;
        if matches!(key, Key::Blob(_)) {
            self.known
                .lock()
                .remember(key, read_at, |entry| entry.meta = Some(meta));
        }
        Ok(meta)
    }

    async fn read(&self, key: &Key, range: Option<Range<u64>>) -> Result<Object> {
        self.store.read(key, range).await
    }

    async fn examine(&self, key: &Key) -> Result<Object> {
        self.store.examine(key).await
    }

    async fn get(&self, key: &Key, limit: usize) -> Result<Bytes> {
        let read_at = {
            let mut known = self.known.lock();
            match known
                .entries
                .get(key)
                .and_then(|entry| entry.content.clone())
            {
                Some(content) if content.len() > limit => {
                    return Err(Error::TooLarge {
                        key: key.path(),
                        limit,
                    });
                }
                Some(content) => return Ok(content),
                None => known.changes,
            }
        };
        let content = self.store.get(key, limit).await?;
        if content.len() <= LARGEST && !matches!(key, Key::TagIndex(..)) {
            self.known
                .lock()
                .remember(key, read_at, |entry| entry.content = Some(content.clone()));
        }
        Ok(content)
    }

    async fn put(&self, key: &Key, bytes: Bytes, durability: Durability) -> Result<()> {
        self.known.lock().forget(key);
        let result = self.store.put(key, bytes, durability).await;
        self.known.lock().forget(key);
        result
    }

    async fn rename(&self, from: &Key, to: &Key) -> Result<()> {
        let forget = || {
            let mut known = self.known.lock();
            known.forget(from);
            known.forget(to);
        };
        forget();
        let result = self.store.rename(from, to).await;
        forget();
        result
    }

    async fn delete(&self, key: &Key, durability: Durability) -> Result<()> {
        self.known.lock().forget(key);
        let result = self.store.delete(key, durability).await;
        self.known.lock().forget(key);
        result
    }

    async fn remove(&self, dir: &Dir, durability: Durability) -> Result<()> {
        self.known.lock().forget_below(dir);
        let result = self.store.remove(dir, durability).await;
        self.known.lock().forget_below(dir);
        result
    }

    async fn sync(&self, dir: &Dir) -> Result<()> {
        self.store.sync(dir).await
    }

    async fn list(&self, dir: &Dir, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
        self.store.list(dir, after, limit).await
    }

    async fn has(&self, dir: &Dir) -> Result<bool> {
        self.store.has(dir).await
    }

    async fn upload(&self, key: &Key, at: u64) -> Result<Box<dyn Upload>> {
        let upload = self.store.upload(key, at).await?;
        Ok(Box::new(CachedUpload {
            upload,
            known: self.known.clone(),
        }))
    }

    async fn space(&self) -> Result<Option<Space>> {
        self.store.space().await
    }

    async fn probe(&self) -> Result<()> {
        self.store.probe().await
    }
}

/// What lies under the key of an upload is never remembered; what lay under its target has to be forgotten.
struct CachedUpload {
    upload: Box<dyn Upload>,
    known: Shared,
}

#[async_trait]
impl Upload for CachedUpload {
    async fn write(&mut self, batch: Vec<Bytes>) -> Result<()> {
        self.upload.write(batch).await
    }

    async fn pause(&mut self) -> Result<u64> {
        self.upload.pause().await
    }

    async fn commit(self: Box<Self>, target: &Key) -> Result<()> {
        self.known.lock().forget(target);
        let result = self.upload.commit(target).await;
        self.known.lock().forget(target);
        result
    }
}
