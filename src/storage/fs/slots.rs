//! Folders made ahead of need.
//!
//! In distribution's layout each blob and each link is the only file of a folder of its own. Made on demand, such a file
//! costs three flushes: of its content, of its folder, and of the folder above. A slot is a folder that holds an empty file
//! of the right name and was flushed when nobody waited; to fill it, flush the file, and rename the *folder* into place
//! leaves two. On a USB disk that is 10 to 20 ms less before each answer.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

/// Slots made at a time: a journal takes them all in one commit.
const BATCH: usize = 16;
/// Below this many left of a kind, more are made.
const LOW: usize = 8;
/// The file names that slots are made for: those of a blob and of a link.
const KINDS: [&str; 2] = ["data", "link"];

pub(super) struct Slots {
    folder: PathBuf,
    ready: Mutex<HashMap<&'static str, Vec<PathBuf>>>,
    filling: AtomicBool,
}

impl Slots {
    /// `folder` is empty, and on the same file system as what the slots are for.
    pub(super) fn new(folder: PathBuf) -> Self {
        Slots {
            folder,
            ready: Mutex::default(),
            filling: AtomicBool::new(false),
        }
    }

    /// A folder with a durable, empty file called `name` in it; the folder's own name is not durable. `None` if there is
    /// none just now, and the caller has to go the long way.
    pub(super) fn take(&self, name: &str) -> Option<PathBuf> {
        self.ready().get_mut(name)?.pop()
    }

    /// Whether it is time for `fill`; says so to one caller at a time.
    pub(super) fn is_low(&self) -> bool {
        let ready = self.ready();
        let low = KINDS
            .iter()
            .any(|kind| ready.get(kind).is_none_or(|slots| slots.len() < LOW));
        low && !self.filling.swap(true, Ordering::Acquire)
    }

    /// Makes a batch of each kind that is low. A failure leaves fewer slots, and nothing else.
    pub(super) fn fill(&self) {
        for kind in KINDS {
            if self
                .ready()
                .get(kind)
                .is_some_and(|slots| slots.len() >= LOW)
            {
                continue;
            }
            let made: Vec<PathBuf> = (0..BATCH).map_while(|_| self.make(kind).ok()).collect();
            let synced = made
                .into_iter()
                .take_while(|slot| sync(slot).is_ok())
                .collect::<Vec<_>>();
            self.ready().entry(kind).or_default().extend(synced);
        }
        self.filling.store(false, Ordering::Release);
    }

    fn make(&self, kind: &str) -> io::Result<PathBuf> {
        let slot = self.folder.join(Uuid::new_v4().to_string());
        fs::create_dir(&slot)?;
        File::create_new(slot.join(kind))?;
        Ok(slot)
    }

    fn ready(&self) -> MutexGuard<'_, HashMap<&'static str, Vec<PathBuf>>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_is_given_once_and_holds_one_empty_file() {
        let folder = tempfile::tempdir().unwrap();
        let slots = Slots::new(folder.path().to_owned());
        assert_eq!(slots.take("data"), None, "none was made yet");
        assert!(slots.is_low());
        assert!(!slots.is_low(), "one caller fills");
        slots.fill();
        let mut seen = std::collections::HashSet::new();
        while let Some(slot) = slots.take("link") {
            let files: Vec<_> = fs::read_dir(&slot)
                .unwrap()
                .map(|entry| entry.unwrap())
                .collect();
            assert_eq!(files.len(), 1);
            assert_eq!(files[0].file_name(), "link");
            assert_eq!(files[0].metadata().unwrap().len(), 0);
            assert!(seen.insert(slot));
        }
        assert_eq!(seen.len(), BATCH);
        assert!(slots.is_low());
        assert_eq!(slots.take("startedat"), None, "of that name there are none");
    }
}
