//! Folders whose names survive a power cut.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use super::owner::Owner;

/// How many folders are remembered as durable; forgetting one costs an `fsync` of its parent at its next use.
const REMEMBERED: usize = 4096;
/// How many folders are remembered as doubtful; with more, the whole file system is.
const DOUBTFUL: usize = 1024;

pub(super) struct Dirs {
    root: PathBuf,
    pub(super) owner: Owner,
    /// Folders known to have a durable name, and all their ancestors too.
    ///
    /// That a folder exists is not enough: who made it may be about to sync its parent, or was killed before it could.
    durable: Mutex<LruCache<PathBuf, ()>>,
    syncs: Mutex<HashMap<PathBuf, Arc<Sync>>>,
    /// A flush failed: what is visible may not be durable, and the next owner of the tree cannot tell what.
    failed: AtomicBool,
    /// Folders whose last flush failed: what came or went there can be seen, and may come back or go after a power cut.
    doubtful: Mutex<HashSet<PathBuf>>,
    /// Whether there are any, since there hardly ever are.
    doubts: AtomicBool,
}

/// Folders on the way to a path that have no durable name yet, the topmost first.
#[must_use]
pub(super) struct Made(Vec<PathBuf>);

impl Dirs {
    pub(super) fn new(root: PathBuf, owner: Owner) -> Self {
        let failed = AtomicBool::new(false);
        Dirs {
            root,
            owner,
            durable: Mutex::new(LruCache::unbounded()),
            syncs: Mutex::default(),
            failed,
            doubtful: Mutex::default(),
            doubts: AtomicBool::new(false),
        }
    }

    /// Makes a folder and its ancestors; nothing is synced yet.
    pub(super) fn make(&self, folder: &Path) -> io::Result<Made> {
        let mut durable = lock(&self.durable);
        let mut made: Vec<PathBuf> = folder
            .ancestors()
            .take_while(|path| *path != self.root && durable.get(*path).is_none())
            .map(Path::to_owned)
            .collect();
        drop(durable);
        if !made.is_empty() {
            self.owner.make_dirs(folder)?;
            made.reverse();
        }
        Ok(Made(made))
    }

    /// To be told of a folder whose name, and whose ancestors' names, were made durable otherwise.
    pub(super) fn remember(&self, folder: &Path) {
        let mut durable = lock(&self.durable);
        durable.put(folder.to_owned(), ());
        while durable.len() > REMEMBERED {
            durable.pop_lru();
        }
    }

    /// To be called when `folder` has been moved away or removed: the next of that name is another one.
    pub(super) fn forget(&self, folder: &Path) {
        let mut durable = lock(&self.durable);
        let gone: Vec<PathBuf> = durable
            .iter()
            .map(|(path, ())| path)
            .filter(|path| path.starts_with(folder))
            .cloned()
            .collect();
        for path in gone {
            durable.pop(&path);
        }
    }

    /// To be called when a folder that should exist does not: somebody else removed it, or one above it.
    pub(super) fn forget_way_to(&self, folder: &Path) {
        let mut durable = lock(&self.durable);
        for path in folder.ancestors().take_while(|path| *path != self.root) {
            durable.pop(path);
        }
    }

    /// Whether a flush failed since the start.
    pub(super) fn have_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// As if a flush had failed.
    pub(super) fn doubt(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    /// `fsync` of a folder. Whoever asks while one is under way waits for the next, and all who wait share it.
    pub(super) fn sync(&self, folder: &Path) -> io::Result<()> {
        let sync = lock(&self.syncs)
            .entry(folder.to_owned())
            .or_default()
            .clone();
        let result = sync.run(|| File::open(folder)?.sync_all());
        match &result {
            Ok(()) => self.set_doubtful(folder, false),
            Err(_) => {
                self.failed.store(true, Ordering::Relaxed);
                self.set_doubtful(folder, true);
            }
        }
        drop(sync);
        let mut syncs = lock(&self.syncs);
        if syncs
            .get(folder)
            .is_some_and(|sync| Arc::strong_count(sync) == 1)
        {
            syncs.remove(folder);
        }
        result
    }
}

impl Dirs {
    fn set_doubtful(&self, folder: &Path, doubtful: bool) {
        if !doubtful && !self.doubts.load(Ordering::Acquire) {
            return;
        }
        let mut folders = lock(&self.doubtful);
        if !doubtful {
            folders.remove(folder);
        } else if folders.len() < DOUBTFUL {
            folders.insert(folder.to_owned());
        } else {
            folders.insert(self.root.clone());
        }
        self.doubts.store(!folders.is_empty(), Ordering::Release);
    }

    /// To be called by whoever looks at `path` before he says what he saw: somebody may count on it from then on, so what
    /// an earlier flush failed to make durable is flushed again first.
    ///
    /// # Errors
    /// It fails again: what is seen there cannot be promised.
    pub(super) fn settle(&self, path: &Path) -> io::Result<()> {
        if !self.doubts.load(Ordering::Acquire) {
            return Ok(());
        }
        let on_the_way: Vec<PathBuf> = {
            let folders = lock(&self.doubtful);
            path.ancestors()
                .take_while(|folder| folder.starts_with(&self.root))
                .filter(|folder| folders.contains(*folder))
                .map(Path::to_owned)
                .collect()
        };
        for folder in on_the_way {
            if folder == self.root {
                nix::unistd::syncfs(&File::open(&self.root)?)?;
                self.set_doubtful(&folder, false);
                continue;
            }
            match self.sync(&folder) {
                // It went, and the folder above it is the one that says so.
                Err(e) if e.kind() == io::ErrorKind::NotFound => self.set_doubtful(&folder, false),
                other => other?,
            }
        }
        Ok(())
    }
}

impl Made {
    /// Makes durable what came in `folder`, and the names of the folders on the way to it. After an error all of that is
    /// doubtful, also what was not tried any more: it can be seen.
    pub(super) fn sync(self, dirs: &Dirs, folder: &Path) -> io::Result<()> {
        let above = || self.0.iter().filter_map(|made| made.parent());
        let result = std::iter::once(folder)
            .chain(above())
            .try_for_each(|folder| dirs.sync(folder));
        match &result {
            Ok(()) => self.0.iter().for_each(|made| dirs.remember(made)),
            Err(_) => std::iter::once(folder)
                .chain(above())
                .for_each(|folder| dirs.set_doubtful(folder, true)),
        }
        result
    }
}

/// One folder's `fsync`, shared by all who need one that starts after they asked.
#[derive(Default)]
struct Sync {
    turns: Mutex<Turns>,
    ended: Condvar,
}

#[derive(Default)]
struct Turns {
    running: bool,
    started: u64,
    ended: u64,
    /// The last turn that failed, and how.
    failed: Option<(u64, Option<i32>)>,
}

impl Turns {
    /// For whoever waited for the turn `wanted`, or a later one. The kernel tells of an error once: a success after it says
    /// nothing of what the turn before lost.
    fn verdict(&self, wanted: u64) -> io::Result<()> {
        match self.failed {
            Some((turn, code)) if turn >= wanted => Err(from_code(code)),
            _ => Ok(()),
        }
    }
}

impl Sync {
    fn run(&self, fsync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut turns = lock(&self.turns);
        // A turn that is already running may have passed over what this caller did: the next one is the first good one.
        let wanted = turns.started + 1;
        while turns.running && turns.ended < wanted {
            turns = self
                .ended
                .wait(turns)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if turns.ended >= wanted {
            return turns.verdict(wanted);
        }
        turns.running = true;
        turns.started += 1;
        let turn = turns.started;
        drop(turns);
        let result = fsync();
        let mut turns = lock(&self.turns);
        turns.running = false;
        turns.ended = turn;
        if let Err(e) = &result {
            turns.failed = Some((turn, e.raw_os_error()));
        }
        self.ended.notify_all();
        result
    }
}

fn from_code(code: Option<i32>) -> io::Error {
    code.map_or_else(
        || io::Error::other("the shared fsync failed"),
        io::Error::from_raw_os_error,
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn a_sync_under_way_does_not_count_for_who_comes_later() {
        let sync = Sync::default();
        let (runs, started, go) = (AtomicUsize::new(0), Barrier::new(2), Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let fsync = || {
                    started.wait();
                    go.wait();
                    Ok(())
                };
                sync.run(fsync).unwrap();
            });
            started.wait();
            for _ in 0..8 {
                scope.spawn(|| {
                    sync.run(|| Ok(_ = runs.fetch_add(1, Ordering::SeqCst)))
                        .unwrap()
                });
            }
            go.wait();
        });
        let runs = runs.load(Ordering::SeqCst);
        assert!(
            (1..=8).contains(&runs),
            "{runs}: one later run may serve many, the first run serves none"
        );
    }

    #[test]
    fn a_failed_sync_fails_for_its_caller_and_not_for_later_ones() {
        let sync = Sync::default();
        assert!(sync.run(|| Err(io::Error::from_raw_os_error(5))).is_err());
        assert!(sync.run(|| Ok(())).is_ok());
    }

    #[test]
    fn a_failed_sync_fails_for_all_who_wait_for_it_whatever_comes_after() {
        let sync = Sync::default();
        let (first, go) = (Barrier::new(2), Barrier::new(2));
        let waited = std::thread::scope(|scope| {
            scope.spawn(|| {
                sync.run(|| {
                    first.wait();
                    go.wait();
                    Ok(())
                })
            });
            first.wait();
            // Asked while the first turn ran: the second is theirs, and it fails.
            let mut turns = lock(&sync.turns);
            assert!(turns.running && turns.started == 1);
            drop(turns);
            let waiting = scope.spawn(|| sync.run(|| Err(io::Error::from_raw_os_error(5))));
            go.wait();
            let result = waiting.join().unwrap();
            turns = lock(&sync.turns);
            assert_eq!(turns.failed, Some((2, Some(5))));
            drop(turns);
            assert!(sync.run(|| Ok(())).is_ok(), "the third turn is another's");
            result
        });
        assert_eq!(waited.unwrap_err().raw_os_error(), Some(5));
        // Who wanted the second turn and wakes up after the third had ended.
        let turns = lock(&sync.turns);
        assert_eq!(turns.verdict(2).unwrap_err().raw_os_error(), Some(5));
        assert!(turns.verdict(3).is_ok());
    }

    #[test]
    fn what_could_not_be_flushed_is_flushed_before_anybody_is_told_of_it() {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs::new(root.path().to_owned(), Owner::default());
        let folder = root.path().join("a");
        fs::create_dir(&folder).unwrap();
        let below = folder.join("b/c");
        dirs.settle(&below).unwrap();

        dirs.set_doubtful(&folder, true);
        assert!(dirs.doubts.load(Ordering::Relaxed));
        dirs.settle(&root.path().join("elsewhere/c")).unwrap();
        assert!(
            lock(&dirs.doubtful).contains(&folder),
            "nobody looked there"
        );
        dirs.settle(&below).unwrap();
        assert!(!dirs.doubts.load(Ordering::Relaxed));

        // As long as it cannot be flushed, nothing is said of what is in it; a folder has no inode number to open here.
        dirs.set_doubtful(&folder, true);
        fs::remove_dir(&folder).unwrap();
        std::os::unix::fs::symlink(&folder, &folder).unwrap();
        assert!(dirs.settle(&below).is_err());
        fs::remove_file(&folder).unwrap();
        dirs.settle(&below).unwrap();
        assert!(!dirs.doubts.load(Ordering::Relaxed), "it went");

        for n in 0..DOUBTFUL + 5 {
            dirs.set_doubtful(&root.path().join(n.to_string()), true);
        }
        assert!(lock(&dirs.doubtful).len() <= DOUBTFUL + 1);
        dirs.settle(&below).unwrap();
    }

    #[test]
    fn a_folder_is_durable_once_and_again_after_it_was_moved_away() {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs::new(root.path().to_owned(), Owner::default());
        let folder = root.path().join("a/b");
        let made = dirs.make(&folder).unwrap();
        assert_eq!(made.0, [root.path().join("a"), folder.clone()]);
        made.sync(&dirs, &folder).unwrap();
        assert!(dirs.make(&folder).unwrap().0.is_empty());
        std::fs::remove_dir(&folder).unwrap();
        dirs.forget(&folder);
        assert_eq!(dirs.make(&folder).unwrap().0, [folder]);
    }
}
