//! A small real disk: an ext4 file system in a file, loop-mounted.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// Mounted until it is dropped. Needs root.
pub(crate) struct LoopDisk {
    dir: TempDir,
}

impl LoopDisk {
    #[track_caller]
    pub(crate) fn ext4(mebibytes: u64) -> Self {
        let dir = TempDir::with_prefix("registry-loop-").expect("a directory");
        let image = dir.path().join("image");
        fs::File::create(&image)
            .and_then(|file| file.set_len(mebibytes << 20))
            .expect("the image");
        let disk = Self { dir };
        fs::create_dir(disk.path()).expect("the mount point");
        // -m 0: nothing is reserved for root, which the server under test may be.
        run(Command::new("mkfs.ext4")
            .args(["-q", "-m", "0"])
            .arg(&image));
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&image)
            .arg(disk.path()));
        disk
    }

    /// What a power cut now would leave: a copy of the device, mounted, its journal replayed. What the kernel only has in
    /// memory is not in it. Nobody may be writing meanwhile.
    #[track_caller]
    pub(crate) fn after_cut(&self) -> Self {
        let dir = TempDir::with_prefix("registry-loop-").expect("a directory");
        let image = dir.path().join("image");
        run(Command::new("cp")
            .arg("--sparse=always")
            .arg(self.dir.path().join("image"))
            .arg(&image));
        let copy = Self { dir };
        fs::create_dir(copy.path()).expect("the mount point");
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&image)
            .arg(copy.path()));
        copy
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    /// Bytes that an ordinary process could still write.
    pub(crate) fn free(&self) -> u64 {
        let stat = nix::sys::statvfs::statvfs(&self.path()).expect("statvfs");
        #[allow(
            clippy::useless_conversion,
            reason = "the width differs between machines"
        )]
        let (blocks, size) = (
            u64::from(stat.blocks_available()),
            u64::from(stat.fragment_size()),
        );
        blocks * size
    }

    /// A file of `len` bytes that really takes them.
    #[track_caller]
    pub(crate) fn fill(&self, name: &str, len: u64) {
        let mut file = fs::File::create(self.path().join(name)).expect("the filler");
        let block = vec![0x5a; 64 * 1024];
        let mut left = len;
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
            file.write_all(&block[..part]).expect("room for the filler");
            left -= part as u64;
        }
        file.sync_all().expect("room for the filler");
    }

    /// Takes every byte that is left, and says how many that were.
    pub(crate) fn fill_up(&self, name: &str) -> usize {
        let mut total = 0;
        let mut file = fs::File::create(self.path().join(name)).expect("a file without data");
        let mut block = vec![0x5a; 1 << 20];
        while !block.is_empty() {
            match file.write(&block) {
                Ok(written) => total += written,
                Err(_) => block.truncate(block.len() / 2),
            }
        }
        // What does not fit any more is an error here, too.
        let _ = file.sync_all();
        total
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.path().join(name)).expect("the filler");
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let umount = |args: &[&str]| {
            Command::new("umount")
                .args(args)
                .arg(self.path())
                .status()
                .is_ok_and(|status| status.success())
        };
        if is_mounted(&self.path()) && !umount(&[]) {
            umount(&["-l"]);
        }
    }
}

fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    mounts
        .lines()
        .any(|line| line.split(' ').nth(1).map(Path::new) == Some(path))
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?} (needs root): {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
