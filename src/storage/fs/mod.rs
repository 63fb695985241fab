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
mod lock;
mod slots;
mod stream;
mod upload;
mod writeback;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use super::key::{OWN, blob_shards};
use super::{Body, Dir, Durability, Error, Key, Meta, Object, Result, Space, Store, Upload};
use dirs::Dirs;
pub(crate) use lock::OpenError;
use slots::{Slot, Slots};

/// Objects up to this size are read at once instead of streamed, in bytes.
const WHOLE: u64 = 64 * 1024;

/// A tree on a local disk, owned by this process as long as this lives. Cheap to clone.
#[derive(Clone)]
pub(crate) struct FsStore(Arc<Tree>);

struct Tree {
    root: PathBuf,
    dirs: Dirs,
    slots: Slots,
    /// Whether the folders of blobs were made ahead.
    spread: AtomicBool,
    /// Folders of uploads that began as slots: the entry of their file is durable.
    whole: Mutex<HashSet<PathBuf>>,
    lock: lock::Lock,
}

impl Drop for Tree {
    fn drop(&mut self) {
        if self.dirs.have_failed() {
            self.lock.doubt();
        }
    }
}

impl FsStore {
    /// Takes the tree below `root`, which is made if it is missing. Clears what an earlier process left half done, and
    /// after one that did not end in order waits until everything visible is on the disk: it may have renamed a file
    /// that no power cut can take away now, since others were promised what depends on it.
    pub(crate) fn open(root: &Path) -> Result<Self, OpenError> {
        let failed = |path: &Path, source| OpenError::Io {
            path: path.to_owned(),
            source,
        };
        let own = root.join(OWN);
        fs::create_dir_all(&own).map_err(|e| failed(&own, e))?;
        let mut lock = lock::Lock::take(&own.join("lock"))?;
        if !lock.ended_in_order() {
            let flushed = File::open(root).and_then(|folder| Ok(nix::unistd::syncfs(&folder)?));
            if let Err(e) = flushed {
                lock.doubt();
                return Err(failed(root, e));
            }
        }
        for name in ["tmp", "trash", "slots"] {
            let folder = own.join(name);
            empty(&folder).map_err(|e| failed(&folder, e))?;
        }
        Ok(FsStore(Arc::new(Tree {
            root: root.to_owned(),
            dirs: Dirs::new(root.to_owned()),
            slots: Slots::new(own.join("slots")),
            spread: AtomicBool::new(false),
            whole: Mutex::default(),
            lock,
        })))
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
            Err(source) => Err(fact(call, path, source)),
        };
        join(call, tokio::task::spawn_blocking(run)).await
    }
}

/// Makes a folder, or removes what is in it: an old one is kept, since a full disk may have no room for a new one.
fn empty(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        other => return other,
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            fs::remove_dir_all(path)?
        } else {
            fs::remove_file(path)?
        }
    }
    Ok(())
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

fn fact(call: &'static str, key: String, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename => {
            Error::NotFound(key)
        }
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

impl Tree {
    fn own(&self, folder: &str) -> PathBuf {
        self.root
            .join(OWN)
            .join(folder)
            .join(Uuid::new_v4().to_string())
    }

    fn whole(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What pushes would have to flush folders for, ahead of need.
    fn prepare(&self) {
        self.slots.fill();
        if !self.spread.swap(true, Ordering::Relaxed)
            && let Err(e) = self.spread()
        {
            log::warn!("the folders of blobs could not be made ahead: {e}");
        }
    }

    /// Makes the folders that blobs are spread over: one flush now instead of one at the first blob of each.
    fn spread(&self) -> io::Result<()> {
        let shards: Vec<PathBuf> = blob_shards().map(|shard| self.root.join(shard)).collect();
        let Some(parent) = shards.first().and_then(|shard| shard.parent()) else {
            return Ok(());
        };
        let made = self.dirs.make(parent)?;
        for shard in &shards {
            fs::create_dir_all(shard)?;
        }
        self.dirs.sync(parent)?;
        made.sync(&self.dirs)?;
        shards.iter().for_each(|shard| self.dirs.remember(shard));
        Ok(())
    }

    /// A slot for a file in a folder that does not exist yet, if there is one.
    fn slot_for(self: &Arc<Self>, target: &Path) -> Option<Slot> {
        let slot = self.slots.take(target);
        if self.slots.is_low() {
            let tree = self.clone();
            tokio::task::spawn_blocking(move || tree.prepare());
        }
        slot
    }

    fn put(
        self: &Arc<Self>,
        target: &Path,
        bytes: &[u8],
        durability: Durability,
    ) -> io::Result<()> {
        let slot = match durability {
            Durability::Durable => self.slot_for(target),
            Durability::Lazy => None,
        };
        if let Some(slot) = slot {
            let result = (|| {
                let mut file = File::options()
                    .write(true)
                    .open(slot.folder.join(slot.file))?;
                file.write_all(bytes)?;
                file.sync_data()?;
                self.publish_folder(&slot)
            })();
            if result.is_err() {
                slots::discard(&slot.folder);
            }
            return result;
        }
        let staged = self.own("tmp");
        let result = (|| {
            let mut file = File::create_new(&staged)?;
            file.write_all(bytes)?;
            if durability == Durability::Durable {
                file.sync_data()?;
            }
            self.publish(&staged, target, durability)
        })();
        if result.is_err() {
            let _ = fs::remove_file(&staged); // best effort: the folder is emptied at the next start
        }
        result
    }

    /// Steps 3 and 4 with a folder that holds the synced file, durably, under its last name.
    fn publish_folder(&self, slot: &Slot) -> io::Result<()> {
        let above = slot.target.parent().unwrap_or(&self.root);
        let file = slot.target.join(slot.file);
        let made = match self.rename(&slot.folder, &slot.target, above) {
            Ok(made) => made,
            // Somebody else was quicker to make the folder: the file alone moves in.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                ) =>
            {
                self.publish(&slot.folder.join(slot.file), &file, Durability::Durable)?;
                slots::discard(&slot.folder);
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        self.dirs.sync(above)?;
        made.sync(&self.dirs)?;
        self.dirs.remember(file.parent().unwrap_or(&slot.target));
        Ok(())
    }

    /// Renames into `folder`, which is made if it is missing, even if somebody removed it behind our back.
    fn rename(&self, from: &Path, to: &Path, folder: &Path) -> io::Result<dirs::Made> {
        let made = self.dirs.make(folder)?;
        match fs::rename(from, to) {
            Ok(()) => Ok(made),
            Err(e) if e.kind() == io::ErrorKind::NotFound && from.exists() => {
                self.dirs.forget_way_to(folder);
                let made = self.dirs.make(folder)?;
                fs::rename(from, to).map(|()| made)
            }
            Err(e) => Err(e),
        }
    }

    /// Steps 3 and 4: `staged` is complete, and synced if it has to be.
    fn publish(&self, staged: &Path, target: &Path, durability: Durability) -> io::Result<()> {
        let parent = target.parent().unwrap_or(&self.root);
        let made = self.rename(staged, target, parent)?;
        if durability == Durability::Durable {
            self.dirs.sync(parent)?;
            made.sync(&self.dirs)?;
        }
        Ok(())
    }

    fn remove(&self, folder: &Path, durability: Durability) -> io::Result<()> {
        let trash = self.own("trash");
        match fs::rename(folder, &trash) {
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(());
            }
            other => other?,
        }
        self.dirs.forget(folder);
        self.whole().remove(folder);
        if durability == Durability::Durable {
            self.dirs.sync(folder.parent().unwrap_or(&self.root))?;
        }
        // It is gone for everybody; what stays of it in the trash goes with the next start.
        if let Err(e) = fs::remove_dir_all(&trash) {
            log::warn!("{}: {e}", trash.display());
        }
        Ok(())
    }
}

#[async_trait]
impl Store for FsStore {
    async fn stat(&self, key: &Key) -> Result<Meta> {
        self.blocking("stat", key.path(), |_, path| meta(&fs::metadata(path)?))
            .await
    }

    async fn read(&self, key: &Key, range: Option<Range<u64>>) -> Result<Object> {
        let opened = self.blocking("open", key.path(), |_, path| {
            let file = File::open(path)?;
            let meta = meta(&file.metadata()?)?;
            stream::Reader::open(file, range.unwrap_or(0..meta.len)).map(|reader| (meta, reader))
        });
        let (meta, mut reader) = opened.await?;
        let body = match reader.take_whole() {
            Some(bytes) => Body::Bytes(bytes),
            None => Body::Stream(Box::pin(stream::FileStream::new(key.path(), reader))),
        };
        Ok(Object { meta, body })
    }

    async fn get(&self, key: &Key, limit: usize) -> Result<Bytes> {
        let read = self.blocking("read", key.path(), move |_, path| {
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
        self.blocking("write", key.path(), move |tree, path| {
            tree.put(path, &bytes, durability)
        })
        .await
    }

    async fn delete(&self, key: &Key, durability: Durability) -> Result<()> {
        let done = self.blocking("delete", key.path(), move |tree, path| {
            fs::remove_file(path)?;
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
        self.blocking("remove", dir.path(), move |tree, path| {
            tree.remove(path, durability)
        })
        .await
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
            .blocking("open", key.path(), move |tree, path| {
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
            let size = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
            Ok(Space {
                total: size(stat.blocks()),
                available: size(stat.blocks_available()),
            })
        });
        space.await.map(Some)
    }

    async fn probe(&self) -> Result<()> {
        let probe = self.blocking("probe", OWN.to_owned(), |tree, _| {
            let path = tree.own("tmp");
            let written = fs::write(&path, b"probe").and_then(|()| fs::read(&path));
            let removed = fs::remove_file(&path);
            match written? == b"probe" {
                true => removed,
                false => Err(io::Error::other(
                    "read back something else than was written",
                )),
            }
        });
        probe.await
    }
}
