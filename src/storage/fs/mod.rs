//! A local file system.
//!
//! How a file gets its name, always in this order, so that a crash or a power cut at any point leaves the old state or
//! the new one and never a torn file under a real name:
//!
//! 1. write it under a name that nobody reads (`.registry/tmp/<uuid>`, or an upload's `data`);
//! 2. `fdatasync` it;
//! 3. `rename` it to its name;
//! 4. `fsync` the folder that holds the name, and the folders that hold the names of folders made on the way.
//!
//! A durable call returns after step 4, a lazy one leaves out 2 and 4. Where the file is to be alone in a new folder, the
//! folder is a slot (`slots.rs`) and steps 3 and 4 are those of the folder.

mod dirs;
mod examine;
mod lock;
mod owner;
mod slots;
mod stream;
mod tree;
mod upload;
mod writeback;

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use nix::sys::statvfs::FsFlags;

use super::key::OWN;
use super::{Away, Body, Dir, Durability, Error, Key, Meta, Object, Result, Space, Store, Upload};
pub(crate) use lock::OpenError;
use tree::{RootGone, Tree};

/// Objects up to this size are read at once instead of streamed, in bytes.
const WHOLE: u64 = 64 * 1024;

/// A tree on a local disk, owned by this process as long as this lives. Cheap to clone.
#[derive(Clone)]
pub(crate) struct FsStore(Arc<Tree>);

impl FsStore {
    /// Takes the tree below `root`, which is made if it is missing.
    pub(crate) fn open(root: &Path) -> Result<Self, OpenError> {
        Ok(FsStore(Arc::new(Tree::open(root, None)?)))
    }

    /// Takes the tree below the folder that `root` is a descriptor of, whatever may be mounted over the folder's name later.
    pub(super) fn open_at(root: Arc<OwnedFd>) -> Result<Self, OpenError> {
        let path = descriptor_path(&root);
        Ok(FsStore(Arc::new(Tree::open(&path, Some(root))?)))
    }

    /// The next owner has to wait until everything is on the disk, even if this one ends in order.
    pub(super) fn doubt(&self) {
        self.0.dirs.doubt();
    }

    /// Makes slots now, which otherwise happens some time after the first need of one.
    #[cfg(test)]
    pub(super) fn with_slots(self) -> Self {
        self.0.prepare();
        self
    }

    /// Runs what may wait for the disk on a thread made for that.
    async fn blocking<T: Send + 'static>(
        &self,
        call: &'static str,
        path: String,
        work: impl FnOnce(&Arc<Tree>, &Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let tree = self.0.clone();
        let run = move || match work(&tree, &tree.root.join(&path)) {
            Ok(value) => Ok(value),
            Err(source) => {
                // Nothing is missing where nothing can be.
                let gone = match is_missing(&source) {
                    true => tree.is_there().err(),
                    false => None,
                };
                Err(fact(call, path, gone.unwrap_or(source)))
            }
        };
        join(call, tokio::task::spawn_blocking(run)).await
    }

    /// The same for what changes something, or says that it need not: not where the root was.
    async fn changing<T: Send + 'static>(
        &self,
        call: &'static str,
        path: String,
        work: impl FnOnce(&Arc<Tree>, &Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.blocking(call, path, |tree, path| {
            tree.is_there()?;
            work(tree, path)
        })
        .await
    }
}

/// Keeps every registry process off a tree without opening it.
#[expect(dead_code, reason = "held, not read")]
pub(crate) struct Hold(lock::Lock);

impl Hold {
    /// # Errors
    /// `InUse` if a process has it.
    pub(crate) fn take(root: &Path) -> Result<Self, OpenError> {
        let own = root.join(OWN);
        fs::create_dir_all(&own).map_err(|source| OpenError::Io {
            path: own.clone(),
            source,
        })?;
        let mut lock = lock::Lock::take(&own)?;
        lock.doubt();
        Ok(Hold(lock))
    }
}

/// The folder that a descriptor of this process is open for, as a path that leads nowhere else.
pub(super) fn descriptor_path(folder: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()))
}

type Joined<T> = std::result::Result<Result<T>, tokio::task::JoinError>;

/// Waits for a blocking task; a panic in it becomes an error of this call alone.
async fn join<T>(call: &'static str, task: impl Future<Output = Joined<T>>) -> Result<T> {
    match task.await {
        Ok(result) => result,
        Err(e) => Err(Error::Io {
            call,
            key: String::new(),
            source: io::Error::other(e),
        }),
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename
    )
}

fn fact(call: &'static str, key: String, source: io::Error) -> Error {
    match source.kind() {
        _ if source.get_ref().is_some_and(|inner| inner.is::<RootGone>()) => {
            Error::Away(Away::Gone)
        }
        _ if is_missing(&source) => Error::NotFound(key),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::NoSpace,
        _ => Error::Io { call, key, source },
    }
}

fn meta(file: &fs::Metadata) -> io::Result<Meta> {
    if !file.is_file() {
        return Err(io::ErrorKind::NotFound.into()); // a folder where a file should be is no object
    }
    Ok(Meta {
        len: file.len(),
        modified: file.modified()?,
    })
}

#[async_trait]
impl Store for FsStore {
    async fn stat(&self, key: &Key) -> Result<Meta> {
        self.blocking("stat", key.path(), |tree, path| {
            tree.dirs.settle(path)?;
            meta(&fs::metadata(path)?)
        })
        .await
    }

    async fn read(&self, key: &Key, range: Option<Range<u64>>) -> Result<Object> {
        let opened = self.blocking("open", key.path(), |tree, path| {
            tree.dirs.settle(path)?;
            tree.quiet.disturb();
            let file = File::open(path)?;
            let meta = meta(&file.metadata()?)?;
            let range = range.unwrap_or(0..meta.len);
            stream::Reader::open(file, range, tree.quiet.clone()).map(|reader| (meta, reader))
        });
        let (meta, mut reader) = opened.await?;
        let body = match reader.take_whole() {
            Some(bytes) => Body::Bytes(bytes),
            None => Body::Stream(Box::pin(stream::FileStream::new(key.path(), reader))),
        };
        Ok(Object { meta, body })
    }

    async fn examine(&self, key: &Key) -> Result<Object> {
        let opened = self.blocking("open", key.path(), |_, path| {
            let file = File::open(path)?;
            Ok((meta(&file.metadata()?)?, file))
        });
        let (meta, file) = opened.await?;
        let quiet = self.0.quiet.clone();
        let body = Body::Stream(examine::stream(key.path(), file, meta.len, quiet));
        Ok(Object { meta, body })
    }

    async fn get(&self, key: &Key, limit: usize) -> Result<Bytes> {
        let read = self.blocking("read", key.path(), move |tree, path| {
            tree.dirs.settle(path)?;
            let file = File::open(path)?;
            let len = meta(&file.metadata()?)?.len;
            let mut bytes = Vec::with_capacity(len.min(limit as u64) as usize);
            file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
            Ok((bytes.len() <= limit).then(|| Bytes::from(bytes)))
        });
        read.await?.ok_or_else(|| Error::TooLarge {
            key: key.path(),
            limit,
        })
    }

    async fn put(&self, key: &Key, bytes: Bytes, durability: Durability) -> Result<()> {
        self.changing("write", key.path(), move |tree, path| {
            tree.quiet.disturb();
            tree.put(path, &bytes, durability)
        })
        .await
    }

    async fn rename(&self, from: &Key, to: &Key) -> Result<()> {
        let to = to.path();
        self.changing("rename", from.path(), move |tree, path| {
            tree.publish(path, &tree.root.join(to), Durability::Durable)?;
            tree.dirs.sync(path.parent().unwrap_or(&tree.root))
        })
        .await
    }

    async fn delete(&self, key: &Key, durability: Durability) -> Result<()> {
        let done = self.changing("delete", key.path(), move |tree, path| {
            match fs::remove_file(path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return tree.dirs.settle(path),
                other => other?,
            }
            match (durability, path.parent()) {
                (Durability::Durable, Some(folder)) => tree.dirs.sync(folder),
                _ => Ok(()),
            }
        });
        match done.await {
            Err(Error::NotFound(_)) => Ok(()),
            other => other,
        }
    }

    async fn remove(&self, dir: &Dir, durability: Durability) -> Result<()> {
        self.changing("remove", dir.path(), move |tree, path| {
            tree.remove(path, durability)
        })
        .await
    }

    async fn sync(&self, dir: &Dir) -> Result<()> {
        let synced = self.blocking("sync", dir.path(), |tree, path| {
            fs::metadata(path)?; // that it is not there is no failed flush
            tree.dirs.sync(path)
        });
        match synced.await {
            Err(Error::NotFound(_)) => Ok(()),
            other => other,
        }
    }

    async fn list(&self, dir: &Dir, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
        let after = after.map(str::to_owned);
        let listed = self.blocking("list", dir.path(), move |_, path| {
            let mut names = Vec::new();
            for entry in fs::read_dir(path)? {
                if let Ok(name) = entry?.file_name().into_string()
                    && after.as_ref().is_none_or(|after| &name > after)
                {
                    names.push(name);
                }
            }
            names.sort_unstable();
            names.truncate(limit);
            Ok(names)
        });
        match listed.await {
            Err(Error::NotFound(_)) => Ok(Vec::new()),
            other => other,
        }
    }

    async fn has(&self, dir: &Dir) -> Result<bool> {
        match self
            .blocking("stat", dir.path(), |_, path| {
                Ok(fs::metadata(path)?.is_dir())
            })
            .await
        {
            Err(Error::NotFound(_)) => Ok(false),
            other => other,
        }
    }

    async fn upload(&self, key: &Key, at: u64) -> Result<Box<dyn Upload>> {
        let file = self
            .changing("open", key.path(), move |tree, path| {
                upload::open(tree, path, at)
            })
            .await?;
        Ok(Box::new(upload::FsUpload::new(
            self.0.clone(),
            key.path(),
            file,
            at,
        )))
    }

    async fn space(&self) -> Result<Option<Space>> {
        let space = self.blocking("statvfs", String::new(), |tree, _| {
            let stat = nix::sys::statvfs::statvfs(&tree.root)?;
            #[allow(
                clippy::useless_conversion,
                reason = "the width differs between machines"
            )]
            let size = |blocks| u64::from(blocks).saturating_mul(u64::from(stat.fragment_size()));
            Ok(Space {
                total: size(stat.blocks()),
                available: size(stat.blocks_available()),
            })
        });
        space.await.map(Some)
    }

    async fn probe(&self) -> Result<()> {
        self.blocking("probe", OWN.to_owned(), |_, own| {
            // What the kernel makes of a drive whose writes failed.
            let flags = nix::sys::statvfs::statvfs(own)?.flags();
            if flags.contains(FsFlags::ST_RDONLY) {
                return Err(io::ErrorKind::ReadOnlyFilesystem.into());
            }
            lock::reread(own)
        })
        .await
    }
}
