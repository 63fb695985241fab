//! A store in memory, for tests of what lies above.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::{Body, Dir, Durability, Error, Key, Meta, Object, Result, Space, Store, Upload};

/// Path to content and time of writing.
type Tree = BTreeMap<String, (Bytes, SystemTime)>;

#[derive(Clone, Default)]
pub(crate) struct MemStore(Arc<Mutex<Tree>>);

impl MemStore {
    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: &Key) -> Result<(Bytes, SystemTime)> {
        let path = key.path();
        self.tree().get(&path).cloned().ok_or(Error::NotFound(path))
    }
}

#[async_trait]
impl Store for MemStore {
    async fn stat(&self, key: &Key) -> Result<Meta> {
        let (bytes, modified) = self.find(key)?;
        Ok(Meta {
            len: bytes.len() as u64,
            modified,
        })
    }

    async fn read(&self, key: &Key, range: Option<Range<u64>>) -> Result<Object> {
        let (bytes, modified) = self.find(key)?;
        let meta = Meta {
            len: bytes.len() as u64,
            modified,
        };
        let bytes = match range {
            Some(range) => bytes.slice(range.start as usize..range.end as usize),
            None => bytes,
        };
        Ok(Object {
            meta,
            body: Body::Bytes(bytes),
        })
    }

    async fn examine(&self, key: &Key) -> Result<Object> {
        self.read(key, None).await
    }

    async fn get(&self, key: &Key, limit: usize) -> Result<Bytes> {
        let (bytes, _) = self.find(key)?;
        if bytes.len() > limit {
            Err(Error::TooLarge {
                key: key.path(),
                limit,
            })
        } else {
            Ok(bytes)
        }
    }

    async fn put(&self, key: &Key, bytes: Bytes, _: Durability) -> Result<()> {
        self.tree().insert(key.path(), (bytes, SystemTime::now()));
        Ok(())
    }

    async fn rename(&self, from: &Key, to: &Key) -> Result<()> {
        let mut tree = self.tree();
        let moved = tree
            .remove(&from.path())
            .ok_or_else(|| Error::NotFound(from.path()))?;
        tree.insert(to.path(), moved);
        Ok(())
    }

    async fn delete(&self, key: &Key, _: Durability) -> Result<()> {
        self.tree().remove(&key.path());
        Ok(())
    }

    async fn remove(&self, dir: &Dir, _: Durability) -> Result<()> {
        let prefix = dir.path() + "/";
        self.tree().retain(|path, _| !path.starts_with(&prefix));
        Ok(())
    }

    async fn sync(&self, _: &Dir) -> Result<()> {
        Ok(())
    }

    async fn list(&self, dir: &Dir, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
        let prefix = dir.path() + "/";
        let tree = self.tree();
        let mut names: Vec<String> = tree
            .range(prefix.clone()..)
            .map_while(|(path, _)| path.strip_prefix(&prefix))
            .map(|rest| rest.split('/').next().unwrap_or(rest).to_owned())
            .collect();
        names.sort_unstable();
        names.dedup();
        names.retain(|name| after.is_none_or(|after| name.as_str() > after));
        names.truncate(limit);
        Ok(names)
    }

    async fn has(&self, dir: &Dir) -> Result<bool> {
        Ok(!self.list(dir, None, 1).await?.is_empty())
    }

    async fn upload(&self, key: &Key, at: u64) -> Result<Box<dyn Upload>> {
        let content = match self.find(key) {
            Ok((bytes, _)) if bytes.len() as u64 >= at => bytes.slice(..at as usize),
            Err(Error::NotFound(_)) if at == 0 => Bytes::new(),
            _ => return Err(Error::NotFound(key.path())),
        };
        self.put(key, content, Durability::Lazy).await?;
        Ok(Box::new(MemUpload {
            store: self.clone(),
            key: key.clone(),
        }))
    }

    async fn space(&self) -> Result<Option<Space>> {
        Ok(None)
    }

    async fn probe(&self) -> Result<()> {
        Ok(())
    }
}

struct MemUpload {
    store: MemStore,
    key: Key,
}

#[async_trait]
impl Upload for MemUpload {
    async fn write(&mut self, batch: Vec<Bytes>) -> Result<()> {
        let (old, _) = self.store.find(&self.key)?;
        let mut bytes = BytesMut::from(&old[..]);
        batch
            .iter()
            .for_each(|chunk| bytes.extend_from_slice(chunk));
        self.store
            .put(&self.key, bytes.freeze(), Durability::Lazy)
            .await
    }

    async fn pause(&mut self) -> Result<u64> {
        Ok(self.store.stat(&self.key).await?.len)
    }

    async fn commit(self: Box<Self>, target: &Key) -> Result<()> {
        let (bytes, _) = self.store.find(&self.key)?;
        self.store.put(target, bytes, Durability::Durable).await?;
        self.store.delete(&self.key, Durability::Lazy).await
    }
}
