//! A large file while it is written.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_blocking};

use super::super::key::BLOB;
use super::super::{Durability, Error, Key, Result, Upload};
use super::slots::{self, Slot};
use super::tree::Tree;
use super::writeback::WriteBack;
use super::{fact, join};

/// Uploads remembered as slots; one that is forgotten costs a flush more at its end.
const WHOLE_LIMIT: usize = 4096;

/// Opens a file for appending at byte `at`, cutting off what lies behind; makes it when `at` is 0.
pub(super) fn open(tree: &Arc<Tree>, path: &Path, at: u64) -> io::Result<File> {
    if at == 0
        && let Some(folder) = path.parent()
        && !folder.exists()
    {
        let slot = tree.slot_for(path);
        let owner = tree.dirs.owner;
        owner.make_dirs(folder.parent().unwrap_or(folder))?;
        match slot {
            Some(slot) => {
                std::fs::rename(&slot.folder, folder)
                    .inspect_err(|_| slots::discard(&slot.folder))?;
                let mut whole = tree.whole();
                if whole.len() >= WHOLE_LIMIT {
                    whole.clear();
                }
                whole.insert(folder.to_owned());
            }
            None => owner.make_dirs(folder)?,
        }
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create(at == 0)
        .truncate(false)
        .open(path)?;
    if at == 0 {
        tree.dirs.owner.own_file(&file)?;
    }
    let len = file.metadata()?.len();
    if len < at {
        return Err(io::ErrorKind::NotFound.into());
    }
    if len > at {
        file.set_len(at)?;
    }
    file.seek(SeekFrom::Start(at))?;
    Ok(file)
}

pub(super) struct FsUpload {
    tree: Arc<Tree>,
    key: String,
    state: State,
}

/// The file travels to the writing thread and back, so that two writes can never meet.
enum State {
    Idle(Box<Writing>),
    Busy(JoinHandle<Result<Box<Writing>>>),
    Failed,
}

struct Writing {
    file: File,
    len: u64,
    write_back: WriteBack,
}

impl FsUpload {
    pub(super) fn new(tree: Arc<Tree>, key: String, file: File, at: u64) -> Self {
        let writing = Writing {
            file,
            len: at,
            write_back: WriteBack::new(at),
        };
        FsUpload {
            tree,
            key,
            state: State::Idle(Box::new(writing)),
        }
    }

    /// Waits for the batch under way.
    async fn settle(&mut self) -> Result<Box<Writing>> {
        if let State::Busy(task) = &mut self.state {
            let result = join("write", task).await;
            self.state = State::Failed;
            return result;
        }
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Idle(writing) => Ok(writing),
            _ => Err(Error::Io {
                call: "write",
                key: self.key.clone(),
                source: io::Error::other("an earlier write failed"),
            }),
        }
    }
}

impl Writing {
    fn append(&mut self, batch: &[Bytes]) -> io::Result<()> {
        let result = self.write_all(batch);
        match result {
            Ok(()) => {
                self.len += batch.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
                self.write_back.wrote(&self.file, self.len);
            }
            // So that the length on disk is that of whole batches, which were hashed.
            Err(_) => self.file.set_len(self.len)?,
        }
        result
    }

    fn write_all(&mut self, batch: &[Bytes]) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = batch.iter().map(|chunk| IoSlice::new(chunk)).collect();
        let mut rest = &mut slices[..];
        IoSlice::advance_slices(&mut rest, 0); // drops empty ones at the front
        while !rest.is_empty() {
            match self.file.write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => IoSlice::advance_slices(&mut rest, n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Upload for FsUpload {
    async fn write(&mut self, batch: Vec<Bytes>) -> Result<()> {
        let mut writing = self.settle().await?;
        let key = self.key.clone();
        self.tree.quiet.disturb();
        self.state = State::Busy(spawn_blocking(move || match writing.append(&batch) {
            Ok(()) => Ok(writing),
            Err(e) => Err(fact("write", key, e)),
        }));
        Ok(())
    }

    async fn pause(&mut self) -> Result<u64> {
        let writing = self.settle().await?;
        let len = writing.len;
        self.state = State::Idle(writing);
        Ok(len)
    }

    async fn commit(mut self: Box<Self>, target: &Key) -> Result<()> {
        let writing = self.settle().await?;
        let (tree, target, key) = (self.tree.clone(), target.path(), self.key.clone());
        let commit = move || {
            tree.is_there()?;
            let (staged, target) = (tree.root.join(key), tree.root.join(target));
            // Before the sync of the data, so that a journal takes new folders along with it.
            drop(
                tree.dirs
                    .make(target.parent().and_then(Path::parent).unwrap_or(&tree.root))?,
            );
            if let Err(e) = writing.file.sync_data() {
                // The kernel tells of lost writes once, and takes the pages for written from then on: neither another
                // flush nor reading them back would notice. So nothing of it may be continued.
                let _ = writing.file.set_len(0);
                return Err(e);
            }
            match (staged.parent(), target.parent()) {
                (Some(from), Some(to)) if !to.exists() && tree.whole().contains(from) => {
                    let slot = Slot {
                        folder: from.to_owned(),
                        target: to.to_owned(),
                        file: BLOB,
                    };
                    tree.publish_folder(&slot)?;
                    tree.whole().remove(from);
                    clear(to, &target);
                    Ok(())
                }
                _ => tree.publish(&staged, &target, Durability::Durable),
            }
        };
        let key = self.key.clone();
        join(
            "commit",
            spawn_blocking(move || commit().map_err(|e| fact("commit", key, e))),
        )
        .await
    }
}

/// Removes what an upload had beside its data. What stays does no harm, so nothing waits for it.
fn clear(folder: &Path, keep: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path() != keep {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
