//! A disk that loses power, mounted as a FUSE file system: it forgets whatever was not fsynced.
//!
//! ```ignore
//! let mut disk = Forgetful::mount();
//! let mut server = Server::new().root(disk.path()).start();
//! disk.cut_at(17);                     // the power goes at the 17th call that changes something
//! ...                                  // push
//! disk.wait_for_cut(patience);
//! server.kill();
//! disk.power_on(Luck::Random(seed));   // what was not synced is lost, or torn, or not
//! server.restart();
//! ```
//!
//! The rules are in `disk.rs`. What it cannot see: `syncfs(2)`, which the kernel does not hand to FUSE file systems (it
//! succeeds and makes nothing durable here), and `sync_file_range(2)`, which promises nothing anyway.

mod disk;
mod fuse;
mod tests;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, MutexGuard, Once, PoisonError},
    thread,
    time::{Duration, Instant},
};

use fuser::{BackgroundSession, Config, MountOption};
use tempfile::TempDir;

use self::{disk::Disk, fuse::Fuse};

/// The source of our mounts in `/proc/mounts`.
const NAME: &str = "registry-forgetful";

/// What becomes of everything that was not synced when the power goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Luck {
    /// All of it is lost.
    Lost,
    /// All of it happened to be written: as if only the process had died.
    Kept,
    /// Some of it is there: each name by itself, files torn. The same seed tears in the same way.
    Random(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SyncKind {
    File,
    /// fdatasync
    FileData,
    Directory,
}

impl SyncKind {
    fn name(self) -> &'static str {
        match self {
            Self::File => "fsync",
            Self::FileData => "fdatasync",
            Self::Directory => "fsync directory",
        }
    }
}

/// One fsync that the disk was asked for. The path is relative to the disk's root.
#[derive(Clone, Debug)]
pub(crate) struct Sync {
    pub(crate) kind: SyncKind,
    pub(crate) path: String,
}

/// The mounted disk. Dropping it unmounts; when the test has failed, the last operations are printed.
pub(crate) struct Forgetful {
    disk: Arc<Mutex<Disk>>,
    session: Option<BackgroundSession>,
    point: TempDir,
    /// Print the operations when a test fails.
    verbose: bool,
}

impl Forgetful {
    /// An empty disk, on. Needs `/dev/fuse` and the right to mount (root, or fusermount3).
    #[track_caller]
    pub(crate) fn mount() -> Self {
        static CLEAN: Once = Once::new();
        CLEAN.call_once(unmount_dead);
        let point = TempDir::with_prefix("registry-disk-").expect("a mount point");
        let (uid, gid) = (
            nix::unistd::getuid().as_raw(),
            nix::unistd::getgid().as_raw(),
        );
        let disk = Arc::new(Mutex::new(Disk::new(uid, gid)));
        let mut this = Self {
            disk,
            session: None,
            point,
            verbose: true,
        };
        this.attach();
        this
    }

    /// Nothing is printed when the test fails.
    pub(crate) fn quiet(mut self) -> Self {
        self.verbose = false;
        self
    }

    #[track_caller]
    fn attach(&mut self) {
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName(NAME.into()),
            MountOption::DefaultPermissions,
            MountOption::NoAtime,
        ];
        match fuser::spawn_mount(
            Fuse::new(Arc::clone(&self.disk)),
            self.point.path(),
            &config,
        ) {
            Ok(session) => self.session = Some(session),
            Err(e) => panic!(
                "cannot mount a FUSE file system (needs /dev/fuse, and root or fusermount3): {e}"
            ),
        }
    }

    /// Unmounts; lazily when somebody still has a file open.
    fn detach(&mut self) {
        if let Some(session) = self.session.take()
            && session.umount_and_join().is_err()
        {
            let _ = Command::new("umount")
                .arg("-l")
                .arg(self.point.path())
                .status();
        }
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        self.point.path()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // --- power ---

    /// The power goes now: every call fails with EIO until `power_on`.
    pub(crate) fn cut(&self) {
        self.disk().cut();
    }

    /// The power goes at the `n`-th mutating call from now (1 is the next), which has no effect any more.
    pub(crate) fn cut_at(&self, n: u64) {
        self.disk().cut_at(n);
    }

    pub(crate) fn is_off(&self) -> bool {
        !self.disk().powered
    }

    /// Waits until the cut that `cut_at` set has come; false when it has not within `patience`.
    pub(crate) fn wait_for_cut(&self, patience: Duration) -> bool {
        let started = Instant::now();
        while !self.is_off() {
            if started.elapsed() > patience {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// The machine boots: what survived is all there is, and it is mounted anew, with nothing in any cache. Whoever used the
    /// disk has to be dead by now.
    #[track_caller]
    pub(crate) fn power_on(&mut self, luck: Luck) {
        self.detach();
        self.disk().after_cut(luck);
        self.attach();
    }

    /// Everything visible becomes durable: what `syncfs(2)` does on other file systems.
    pub(crate) fn settle(&self) {
        self.disk().settle();
    }

    /// A view of the power and the faults for the threads that use the disk.
    pub(crate) fn probe(&self) -> Probe {
        Probe(Arc::clone(&self.disk))
    }

    // --- faults ---

    /// The `nth` mutating call from now fails with `errno`, once.
    pub(crate) fn fail_once(&self, nth: u64, errno: i32) {
        self.disk().fail(nth, 1, errno);
    }

    /// The `nth` mutating call from now fails with `errno`, and so do all after it.
    pub(crate) fn fail_from(&self, nth: u64, errno: i32) {
        self.disk().fail(nth, u64::MAX, errno);
    }

    /// Whether the call that `fail_once` or `fail_from` named has come.
    pub(crate) fn fault_reached(&self) -> bool {
        self.disk().fault_reached()
    }

    /// A drive that answers nothing, until what this returns is dropped.
    pub(crate) fn hang(&self) -> impl Drop + '_ {
        self.disk()
    }

    /// No space: whatever would take some answers ENOSPC.
    pub(crate) fn set_full(&self, full: bool) {
        self.disk().set_full(full);
    }

    /// No more faults.
    pub(crate) fn heal(&self) {
        self.disk().heal();
    }

    // --- counters ---

    /// How many calls have changed something, or tried to.
    pub(crate) fn calls(&self) -> u64 {
        self.disk().calls
    }

    /// The fsyncs since the last time this was asked.
    pub(crate) fn take_syncs(&self) -> Vec<Sync> {
        std::mem::take(&mut self.disk().syncs)
    }

    /// The last operations, one a line.
    pub(crate) fn log(&self) -> String {
        self.disk().log()
    }
}

impl Drop for Forgetful {
    fn drop(&mut self) {
        if thread::panicking() && self.verbose {
            eprintln!("--- the disk's last operations ---\n{}--- ---", self.log());
        }
        self.detach();
    }
}

/// Sees whether the power is on and whether a fault has come, while the disk itself belongs to somebody else.
#[derive(Clone)]
pub(crate) struct Probe(Arc<Mutex<Disk>>);

impl Probe {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_off(&self) -> bool {
        !self.disk().powered
    }

    pub(crate) fn fault_reached(&self) -> bool {
        self.disk().fault_reached()
    }
}

/// A test process that was killed leaves its mount behind, without anyone to answer. Clears those away.
fn unmount_dead() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        if let (Some(NAME), Some(point)) = (fields.next(), fields.next()) {
            let point = PathBuf::from(point);
            if fs::metadata(&point).is_err_and(|e| e.raw_os_error() == Some(libc::ENOTCONN)) {
                let _ = Command::new("umount").arg("-l").arg(&point).status();
                let _ = fs::remove_dir(&point);
            }
        }
    }
}
