//! A drive that can be plugged, pulled and broken: a loop device with a file system. Needs root.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

/// Its content outlives each plugging in; each time it may have another name, as USB disks do.
#[derive(Debug)]
pub(crate) struct UsbDrive {
    dir: TempDir,
    device: Option<PathBuf>,
    /// Where it was mounted by this test, the latest last.
    mounts: Vec<PathBuf>,
}

impl UsbDrive {
    /// Plugged in, without a file system.
    #[track_caller]
    pub(crate) fn blank(mebibytes: u64) -> Self {
        let dir = TempDir::with_prefix("registry-usb-").expect("a directory");
        fs::File::create(dir.path().join("image"))
            .and_then(|file| file.set_len(mebibytes << 20))
            .expect("the image");
        let mut drive = Self {
            dir,
            device: None,
            mounts: Vec::new(),
        };
        drive.plug();
        drive
    }

    /// Plugged in, with an ext4 file system.
    #[track_caller]
    pub(crate) fn ext4(mebibytes: u64) -> Self {
        let drive = Self::blank(mebibytes);
        run("mkfs.ext4", [OsStr::new("-q"), drive.device().as_os_str()]);
        drive
    }

    #[track_caller]
    pub(crate) fn device(&self) -> &Path {
        self.device.as_deref().expect("the drive is plugged in")
    }

    /// The UUID of its file system.
    #[track_caller]
    pub(crate) fn uuid(&self) -> String {
        let args = ["-p", "-s", "UUID", "-o", "value"].map(OsStr::new);
        let output = run("blkid", args.into_iter().chain([self.device().as_os_str()]));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Under whatever name is free.
    #[track_caller]
    pub(crate) fn plug(&mut self) {
        let image = self.dir.path().join("image");
        let args = ["--partscan", "--find", "--show"].map(OsStr::new);
        let output = run("losetup", args.into_iter().chain([image.as_os_str()]));
        self.device = Some(String::from_utf8_lossy(&output.stdout).trim().into());
    }

    /// Not mounted any more as far as this test did it, and the name is given up as soon as nobody has a file open.
    pub(crate) fn pull(&mut self) {
        for mount in std::mem::take(&mut self.mounts) {
            let _ = Command::new("umount").arg("-l").arg(mount).output();
        }
        if let Some(device) = self.device.take() {
            // A name that is used again would keep them.
            let _ = Command::new("partx").arg("-d").arg(&device).output();
            let _ = Command::new("losetup").arg("-d").arg(device).output();
        }
    }

    #[track_caller]
    pub(crate) fn mount(&mut self, place: &Path) {
        self.mount_with("rw", place);
    }

    #[track_caller]
    pub(crate) fn mount_with(&mut self, options: &str, place: &Path) {
        let options = [OsStr::new("-o"), OsStr::new(options)];
        let paths = [self.device().as_os_str(), place.as_os_str()];
        run("mount", options.into_iter().chain(paths));
        self.mounts.push(place.to_owned());
    }

    /// Writes to the drive while it is mounted nowhere else.
    #[track_caller]
    pub(crate) fn with_mounted<T>(&mut self, work: impl FnOnce(&Path) -> T) -> T {
        let place = self.dir.path().join("mount");
        fs::create_dir_all(&place).expect("a mount point");
        self.mount(&place);
        let result = work(&place);
        run("umount", [place.as_os_str()]);
        self.mounts.pop();
        result
    }
}

impl Drop for UsbDrive {
    fn drop(&mut self) {
        self.pull();
    }
}

/// Runs a program of the system to its good end.
#[track_caller]
pub(crate) fn run(program: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
    let mut command = Command::new(program);
    command.args(args);
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?} (needs root): {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// The file system at `place` stops to answer with anything but EIO, as it does when its device is torn out
/// (`EXT4_IOC_SHUTDOWN` without flushing anything).
#[track_caller]
pub(crate) fn tear_out(place: &Path) {
    const SCRIPT: &str = "import fcntl, os, struct, sys\n\
        fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
    run(
        "python3",
        [OsStr::new("-c"), OsStr::new(SCRIPT), place.as_os_str()],
    );
}
