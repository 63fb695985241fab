//! Where bytes lie. Knows keys, bytes and durability; knows nothing of HTTP or of what a manifest means.
//!
//! Every sentence in the docs of [`Store`] and [`Upload`] is a promise that `contract.rs` tests on every backend.

mod cache;
#[cfg(test)]
mod contract;
mod drive;
mod fs;
mod key;
#[cfg(test)]
mod mem;
mod meter;
pub(crate) mod settings;

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;

pub(crate) use cache::Cached;
pub(crate) use drive::{AttachError, Away, Drive, DriveStore, Marker};
pub(crate) use fs::{FsStore, Hold, OpenError};
pub(crate) use key::{
    BLOB, Dir, Filled, FilledKind, Key, LAYERS, LINK, MANIFESTS, Part, STARTED, UPLOADS, UploadId,
    content, control_socket, referrer_name, referrer_of, removal_of, staging, token_keys,
    unfinished, verify_report,
};
#[cfg(test)]
pub(crate) use mem::MemStore;
pub(crate) use meter::Metered;

/// When a change has to survive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Before the call returns.
    Durable,
    /// Some time later, or never: for what can be made again. It survives a crash of the process all the same.
    Lazy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// In bytes.
    pub(crate) len: u64,
    /// When the content was last written, by the clock of the store.
    pub(crate) modified: SystemTime,
}

/// An object opened for reading; `body` holds the bytes asked for, `meta` speaks of the whole object.
pub(crate) struct Object {
    pub(crate) meta: Meta,
    pub(crate) body: Body,
}

/// Bytes on their way out.
pub(crate) enum Body {
    Bytes(Bytes),
    Stream(ByteStream),
}

pub(crate) type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// Room on the device, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) total: u64,
    /// To an unprivileged process.
    pub(crate) available: u64,
}

/// What went wrong, as a fact about a key. What it means is for the caller to say.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0} does not exist")]
    NotFound(String),
    #[error("{key} has more than {limit} bytes")]
    TooLarge { key: String, limit: usize },
    #[error("no space left on the device")]
    NoSpace,
    /// The whole store is out of reach until its drive comes back.
    #[error(transparent)]
    Away(Away),
    #[error("{call} {key}: {source}")]
    Io {
        call: &'static str,
        key: String,
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Error::NotFound(_))
    }
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// A tree of objects addressed by [`Key`]. All methods may be called concurrently.
///
/// What `stat`, `read` and `get` tell of an object that was written or removed durably can be counted on: where the flush of
/// such a call failed, they flush again before they answer, and fail if that fails.
#[async_trait]
pub(crate) trait Store: Send + Sync + 'static {
    /// The size and age of an object; `NotFound` if there is none.
    async fn stat(&self, key: &Key) -> Result<Meta>;

    /// Opens an object, or the part of it in `range` (which has to lie inside). What was opened can be read to its end
    /// whatever happens to the key meanwhile.
    async fn read(&self, key: &Key, range: Option<Range<u64>>) -> Result<Object>;

    /// Opens the whole of an object for somebody who checks it and is in no hurry. It is read from the device, past what
    /// the system remembers of it, and only when little else is read or written; and it takes no room in the system's memory
    /// that it did not have before.
    async fn examine(&self, key: &Key) -> Result<Object>;

    /// A whole small object; `TooLarge` if it has more than `limit` bytes.
    async fn get(&self, key: &Key, limit: usize) -> Result<Bytes>;

    /// Writes a whole small object, replacing what was there. Atomic: whoever reads sees the old content or the new,
    /// also after a crash.
    async fn put(&self, key: &Key, bytes: Bytes, durability: Durability) -> Result<()>;

    /// Moves an object, replacing what is there. Atomic, and durable when it returns; `NotFound` if there is none.
    async fn rename(&self, from: &Key, to: &Key) -> Result<()>;

    /// Removes an object. Removing what is not there succeeds.
    async fn delete(&self, key: &Key, durability: Durability) -> Result<()>;

    /// Removes everything below `dir`, at once in the eyes of every reader, also after a crash. Removing what is not
    /// there succeeds.
    async fn remove(&self, dir: &Dir, durability: Durability) -> Result<()>;

    /// Makes durable which children `dir` has: what came and went with `Lazy`. A `dir` that does not exist has none.
    async fn sync(&self, dir: &Dir) -> Result<()>;

    /// The names of the children of `dir`, in byte order, sorted; at most `limit` of those that come after `after`.
    /// A `dir` that does not exist has none. Names that no key can have may be among them.
    async fn list(&self, dir: &Dir, after: Option<&str>, limit: usize) -> Result<Vec<String>>;

    /// Whether `dir` exists. A store without folders may say so only of one that holds an object.
    async fn has(&self, dir: &Dir) -> Result<bool>;

    /// Starts (`at` is 0) or continues the writing of a large object under a key of its own. What lies behind byte `at`
    /// is cut off; `NotFound` if there are fewer bytes than that.
    async fn upload(&self, key: &Key, at: u64) -> Result<Box<dyn Upload>>;

    /// Room on the device. `None` where that has no meaning.
    async fn space(&self) -> Result<Option<Space>>;

    /// Whether the store works at all, right now: it can be written to, and a few bytes of it are read from the device
    /// itself, past what is remembered of them. Writes nothing, so that it can be asked all day long and wear out no
    /// SD card.
    async fn probe(&self) -> Result<()>;
}

/// A large object while it is written. Dropped without `commit` it stays under its key, holding some prefix of what was
/// written, at least all of it up to the last `pause`.
#[async_trait]
pub(crate) trait Upload: Send {
    /// Appends. Returns when the bytes are taken over, at most one batch ahead of what is stored; an error may be that
    /// of an earlier batch. After an error the object holds a prefix of what was written.
    async fn write(&mut self, batch: Vec<Bytes>) -> Result<()>;

    /// Waits until everything is stored (not: durable) and says how many bytes the object has now.
    async fn pause(&mut self) -> Result<u64>;

    /// Moves the object to `target`, replacing what is there. Atomic, and durable when it returns. After an error the
    /// object is still under its own key, empty if it could not be flushed, or it is under `target`.
    async fn commit(self: Box<Self>, target: &Key) -> Result<()>;
}

#[async_trait]
impl<S: Store + ?Sized> Store for std::sync::Arc<S> {
    async fn stat(&self, key: &Key) -> Result<Meta> {
        (**self).stat(key).await
    }
    async fn read(&self, key: &Key, range: Option<Range<u64>>) -> Result<Object> {
        (**self).read(key, range).await
    }
    async fn examine(&self, key: &Key) -> Result<Object> {
        (**self).examine(key).await
    }
    async fn get(&self, key: &Key, limit: usize) -> Result<Bytes> {
        (**self).get(key, limit).await
    }
    async fn put(&self, key: &Key, bytes: Bytes, durability: Durability) -> Result<()> {
        (**self).put(key, bytes, durability).await
    }
    async fn rename(&self, from: &Key, to: &Key) -> Result<()> {
        (**self).rename(from, to).await
    }
    async fn delete(&self, key: &Key, durability: Durability) -> Result<()> {
        (**self).delete(key, durability).await
    }
    async fn remove(&self, dir: &Dir, durability: Durability) -> Result<()> {
        (**self).remove(dir, durability).await
    }
    async fn sync(&self, dir: &Dir) -> Result<()> {
        (**self).sync(dir).await
    }
    async fn list(&self, dir: &Dir, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
        (**self).list(dir, after, limit).await
    }
    async fn has(&self, dir: &Dir) -> Result<bool> {
        (**self).has(dir).await
    }
    async fn upload(&self, key: &Key, at: u64) -> Result<Box<dyn Upload>> {
        (**self).upload(key, at).await
    }
    async fn space(&self) -> Result<Option<Space>> {
        (**self).space().await
    }
    async fn probe(&self) -> Result<()> {
        (**self).probe().await
    }
}
