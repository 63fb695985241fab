//! The tree itself, on the threads that may wait for the disk: how files get their names, and lose them.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::super::Durability;
use super::super::key::{BASE, DATABASE_IN_USE, OWN, blob_shards, trunk};
use super::dirs::{Dirs, Made};
use super::examine::Quiet;
use super::lock::{self, OpenError};
use super::owner::Owner;
use super::slots::{self, Slot, Slots};

/// A tree that this process owns.
pub(super) struct Tree {
    pub(super) root: PathBuf,
    /// Device and inode of the root.
    identity: (u64, u64),
    pub(super) dirs: Dirs,
    pub(super) quiet: Arc<Quiet>,
    slots: Slots,
    /// Whether the folders of blobs were made ahead.
    spread: AtomicBool,
    /// Folders of uploads that began as slots: the entry of their file is durable.
    whole: Mutex<HashSet<PathBuf>>,
    /// Whether something is left in the trash that could not be removed when its turn was.
    left: AtomicBool,
    lock: lock::Lock,
    /// What `root` leads through, if it is the path of a descriptor: kept open as long as anybody may use a path.
    #[expect(dead_code, reason = "held, not read")]
    pin: Option<Arc<OwnedFd>>,
}

impl Drop for Tree {
    fn drop(&mut self) {
        if self.dirs.have_failed() {
            self.lock.doubt();
        }
    }
}

impl Tree {
    /// Clears what an earlier process left half done, and
    /// after one that did not end in order waits until everything visible is on the disk: it may have renamed a file
    /// that no power cut can take away now, since others were promised what depends on it.
    pub(super) fn open(root: &Path, pin: Option<Arc<OwnedFd>>) -> Result<Self, OpenError> {
        let failed = |path: &Path, source| OpenError::Io {
            path: path.to_owned(),
            source,
        };
        let database = root.join(DATABASE_IN_USE);
        if database.exists() {
            return Err(OpenError::Managed(database));
        }
        let own = root.join(OWN);
        make_durably(&own).map_err(|e| failed(&own, e))?;
        one_file_system(root, &own)?;
        let mut lock = lock::Lock::take(&own)?;
        let flush = {
            let folder = File::open(root).map_err(|e| failed(root, e))?;
            move || Ok(nix::unistd::syncfs(&folder)?)
        };
        if !lock.ended_in_order() {
            if let Err(e) = flush() {
                lock.doubt();
                return Err(failed(root, e));
            }
        } else {
            // This registry left nothing to flush; another one that had the tree since may have. Nobody waits for it.
            std::thread::spawn(move || {
                flush().unwrap_or_else(|e: io::Error| {
                    log::error!("what was there at the start may not be on the disk: {e}");
                });
            });
        }
        for name in ["tmp", "trash", "slots"] {
            let folder = own.join(name);
            empty(&folder).map_err(|e| failed(&folder, e))?;
        }
        let identity = identity(root).map_err(|e| failed(root, e))?;
        let owner = Owner::of(&root.join(BASE), &own.join("tmp")).map_err(|e| failed(root, e))?;
        for name in [".", "tmp", "trash", "slots"] {
            let folder = own.join(name);
            owner.own_dir(&folder).map_err(|e| failed(&folder, e))?;
        }
        lock.own(&owner).map_err(|e| failed(&own, e))?;
        Ok(Tree {
            root: root.to_owned(),
            identity,
            dirs: Dirs::new(root.to_owned(), owner),
            quiet: Arc::default(),
            slots: Slots::new(own.join("slots"), owner),
            spread: AtomicBool::new(false),
            whole: Mutex::default(),
            left: AtomicBool::new(false),
            lock,
            pin,
        })
    }

    /// That the root is the folder that was opened. Where it was moved, removed or unmounted, nothing is missing, and nothing may be
    /// made in its place.
    pub(super) fn is_there(&self) -> io::Result<()> {
        match identity(&self.root) {
            Ok(found) if found == self.identity => Ok(()),
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, RootGone)),
        }
    }

    /// A new name in one of our own folders.
    pub(super) fn own(&self, folder: &str) -> PathBuf {
        self.root
            .join(OWN)
            .join(folder)
            .join(Uuid::new_v4().to_string())
    }

    pub(super) fn whole(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What pushes would have to flush folders for, ahead of need.
    pub(super) fn prepare(&self) {
        self.slots.fill(|| self.is_there());
        if self.is_there().is_ok() && !self.spread.swap(true, Ordering::Relaxed) {
            match self.spread() {
                Ok(()) => log::debug!("folders are made ahead of need"),
                Err(e) => log::warn!("the folders of blobs could not be made ahead: {e}"),
            }
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
            self.is_there()?;
            self.dirs.owner.make_dirs(shard)?;
        }
        made.sync(&self.dirs, parent)?;
        shards.iter().for_each(|shard| self.dirs.remember(shard));
        Ok(())
    }

    /// A slot for a file in a folder that does not exist yet, if there is one.
    pub(super) fn slot_for(self: &Arc<Self>, target: &Path) -> Option<Slot> {
        let slot = self.slots.take(target);
        if self.slots.is_low() {
            let tree = self.clone();
            tokio::task::spawn_blocking(move || tree.prepare());
        }
        slot
    }

    pub(super) fn put(
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
            let mut file = match File::create_new(&staged) {
                // Somebody took our own corner for debris.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    fs::create_dir_all(staged.parent().unwrap_or(&self.root))?;
                    File::create_new(&staged)?
                }
                other => other?,
            };
            self.dirs.owner.own_file(&file)?;
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
    pub(super) fn publish_folder(&self, slot: &Slot) -> io::Result<()> {
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
        made.sync(&self.dirs, above)?;
        self.dirs.remember(file.parent().unwrap_or(&slot.target));
        Ok(())
    }

    /// Renames into `folder`, which is made if it is missing, even if somebody removed it behind our back.
    fn rename(&self, from: &Path, to: &Path, folder: &Path) -> io::Result<Made> {
        self.is_there()?;
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
    pub(super) fn publish(
        &self,
        staged: &Path,
        target: &Path,
        durability: Durability,
    ) -> io::Result<()> {
        let parent = target.parent().unwrap_or(&self.root);
        let made = self.rename(staged, target, parent)?;
        if durability == Durability::Durable {
            made.sync(&self.dirs, parent)?;
        }
        Ok(())
    }

    pub(super) fn remove(&self, folder: &Path, durability: Durability) -> io::Result<()> {
        let trash = self.own("trash");
        let moved = match fs::rename(folder, &trash) {
            // It is the trash that is not there: somebody took our own corner for debris.
            Err(e) if e.kind() == io::ErrorKind::NotFound && folder.exists() => {
                fs::create_dir_all(trash.parent().unwrap_or(&self.root))?;
                fs::rename(folder, &trash)
            }
            other => other,
        };
        match moved {
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return match durability {
                    Durability::Durable => self.dirs.settle(folder),
                    Durability::Lazy => Ok(()),
                };
            }
            other => other?,
        }
        self.dirs.forget(folder);
        self.whole().remove(folder);
        if durability == Durability::Durable {
            self.dirs.sync(folder.parent().unwrap_or(&self.root))?;
        }
        // It is gone for everybody; what stays of it in the trash goes with one of the next, or with the next start.
        if self.left.swap(false, Ordering::Relaxed) {
            let all = trash.parent().unwrap_or(&trash);
            self.left.store(empty(all).is_err(), Ordering::Relaxed);
        }
        match fs::remove_dir_all(&trash) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                log::warn!("{}: {e}", trash.display());
                self.left.store(true, Ordering::Relaxed);
            }
            _ => {}
        }
        Ok(())
    }
}

/// There is no root, or another folder in its place.
#[derive(Debug, thiserror::Error)]
#[error("the root is gone")]
pub(super) struct RootGone;

fn identity(folder: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(folder).map(|found| (found.dev(), found.ino()))
}

/// Makes a folder and those above it, and their names durable: the tree is worth nothing without its root.
fn make_durably(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder
        .ancestors()
        .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
        .collect();
    fs::create_dir_all(folder)?;
    for made in missing {
        let above = made.parent().filter(|path| !path.as_os_str().is_empty());
        File::open(above.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

/// Files get their names by renaming, which no two file systems can do together. A mount or a link to another disk for a
/// part of the tree would let the registry start, and each push fail.
fn one_file_system(root: &Path, own: &Path) -> Result<(), OpenError> {
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev());
    let ours = device(own).map_err(|source| OpenError::Io {
        path: own.to_owned(),
        source,
    })?;
    for part in trunk() {
        let path = root.join(part);
        // What is not there will be made here, and what cannot be looked at tells so when it is needed.
        if device(&path).is_ok_and(|device| device != ours) {
            return Err(OpenError::Split {
                root: root.to_owned(),
                part: path,
            });
        }
    }
    Ok(())
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
