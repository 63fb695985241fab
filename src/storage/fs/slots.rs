//! Folders made ahead of need.
//!
//! In distribution's layout each blob, each link and each tag has a folder of its own. Made on demand, such a file costs
//! three flushes: of its content, of its folder, and of the folder above. A slot is a folder that holds an empty file of
//! the right name and was flushed when nobody waited; to fill it, flush the file, and rename the *folder* into place
//! leaves two. On a USB disk that is 10 to 20 ms less before each answer.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::super::key::ALONE as KINDS;
use super::owner::Owner;

/// Slots made at a time: a journal takes them all in one commit.
const BATCH: usize = 16;
/// Below this many left of a kind, more are made.
const LOW: usize = 8;

pub(super) struct Slots {
    folder: PathBuf,
    owner: Owner,
    ready: Mutex<HashMap<&'static str, Vec<PathBuf>>>,
    filling: AtomicBool,
}

/// A folder that holds a durable, empty file. Its own name is not durable yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// Where the folder is now.
    pub(super) folder: PathBuf,
    /// Where it belongs.
    pub(super) target: PathBuf,
    /// The file, below both.
    pub(super) file: &'static str,
}

impl Slots {
    /// `folder` is empty, and on the same file system as what the slots are for.
    pub(super) fn new(folder: PathBuf, owner: Owner) -> Self {
        Slots {
            folder,
            owner,
            ready: Mutex::default(),
            filling: AtomicBool::new(false),
        }
    }

    /// A slot for a file in a folder that does not exist yet. `None` if it does, or if there is no slot just now: then the
    /// caller goes the long way.
    pub(super) fn take(&self, target: &Path) -> Option<Slot> {
        KINDS.iter().find_map(|kind| {
            let levels = Path::new(kind).components().count();
            let folder = target
                .ancestors()
                .nth(levels)
                .filter(|_| target.ends_with(kind))?;
            let slot = (!folder.exists()).then(|| self.ready().get_mut(kind)?.pop())??;
            Some(Slot {
                folder: slot,
                target: folder.to_owned(),
                file: kind,
            })
        })
    }

    /// Whether it is time for `fill`; says so to one caller at a time.
    pub(super) fn is_low(&self) -> bool {
        let ready = self.ready();
        let low = KINDS
            .iter()
            .any(|kind| ready.get(kind).is_none_or(|slots| slots.len() < LOW));
        low && !self.filling.swap(true, Ordering::Acquire)
    }

    /// Makes a batch of each kind that is low, while `is_there` says that there is something to make them in. A failure leaves
    /// fewer slots, and nothing else.
    pub(super) fn fill(&self, is_there: impl Fn() -> io::Result<()>) {
        for kind in KINDS {
            if self
                .ready()
                .get(kind)
                .is_some_and(|slots| slots.len() >= LOW)
            {
                continue;
            }
            let make = |_| is_there().and_then(|()| self.make(kind)).ok();
            let made: Vec<PathBuf> = (0..BATCH).map_while(make).collect();
            // Each can be taken as soon as it is flushed: on a slow disk a batch is a while.
            for slot in made {
                match sync(&slot, kind) {
                    Ok(()) => self.ready().entry(kind).or_default().push(slot),
                    Err(_) => discard(&slot),
                }
            }
        }
        self.filling.store(false, Ordering::Release);
    }

    fn make(&self, kind: &str) -> io::Result<PathBuf> {
        let slot = self.folder.join(Uuid::new_v4().to_string());
        let file = slot.join(kind);
        let made = self
            .owner
            .make_dirs(file.parent().unwrap_or(&slot))
            .and_then(|()| File::create_new(&file))
            .and_then(|file| self.owner.own_file(&file));
        match made {
            Ok(()) => Ok(slot),
            Err(e) => {
                discard(&slot);
                Err(e)
            }
        }
    }

    fn ready(&self) -> MutexGuard<'_, HashMap<&'static str, Vec<PathBuf>>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Best effort: the folder of all slots is emptied at the next start.
pub(super) fn discard(slot: &Path) {
    let _ = fs::remove_dir_all(slot);
}

/// Flushes the folders from that of the file up to the slot itself.
fn sync(slot: &Path, kind: &str) -> io::Result<()> {
    let file = slot.join(kind);
    file.ancestors()
        .skip(1)
        .take(Path::new(kind).components().count())
        .try_for_each(|f| File::open(f)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_is_given_once_and_holds_one_empty_file() {
        let root = tempfile::tempdir().unwrap();
        let slots = Slots::new(root.path().join("slots"), Owner::default());
        let target = root.path().join("a/link");
        assert_eq!(slots.take(&target), None, "none was made yet");
        assert!(slots.is_low());
        assert!(!slots.is_low(), "one caller fills");
        slots.fill(|| Ok(()));
        let mut seen = std::collections::HashSet::new();
        while let Some(slot) = slots.take(&target) {
            let files: Vec<_> = fs::read_dir(&slot.folder)
                .unwrap()
                .map(|entry| entry.unwrap())
                .collect();
            assert_eq!(files.len(), 1);
            assert_eq!(files[0].file_name(), "link");
            assert_eq!(files[0].metadata().unwrap().len(), 0);
            assert_eq!(slot.target, root.path().join("a"));
            assert!(seen.insert(slot.folder));
        }
        assert_eq!(seen.len(), BATCH);
        assert!(slots.is_low());
        assert_eq!(
            slots.take(&root.path().join("a/startedat")),
            None,
            "of that name there are none"
        );
    }

    #[test]
    fn the_deepest_folder_that_is_missing_decides() {
        let root = tempfile::tempdir().unwrap();
        let slots = Slots::new(root.path().join("slots"), Owner::default());
        slots.fill(|| Ok(()));
        let target = root.path().join("v1/current/link");
        assert_eq!(
            slots.take(&target).map(|slot| slot.file),
            Some("current/link")
        );
        fs::create_dir(root.path().join("v1")).unwrap();
        assert_eq!(slots.take(&target).map(|slot| slot.file), Some("link"));
        fs::create_dir(root.path().join("v1/current")).unwrap();
        assert_eq!(slots.take(&target), None);
    }
}
