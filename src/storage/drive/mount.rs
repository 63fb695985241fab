//! A mounted file system, held by a descriptor: whatever is mounted over its place, or taken away from there, paths through
//! the descriptor lead to this file system and to no other.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat, major, minor, stat};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use super::super::fs::descriptor_path;
use super::Away;

pub(super) struct Mount {
    fd: Arc<OwnedFd>,
    /// The kernel's number of the mount; not given to another one while the descriptor is open.
    id: u64,
    /// Where the kernel shows the block device, and stops to when the device is gone; `None` for file systems without one.
    device: Option<PathBuf>,
}

const BLOCK_DEVICES: &str = "/sys/dev/block";

impl Mount {
    /// What is mounted at `place`. `Missing` if that is nothing: the folder belongs to the file system around it.
    pub(super) fn at(place: &Path) -> Result<Self, Away> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = open(place, flags, Mode::empty()).map_err(|_| Away::Missing)?;
        let inside = fstat(&fd).map_err(|_| Away::Failing)?;
        let around = stat(place.parent().unwrap_or(place)).map_err(|_| Away::Missing)?;
        // Not whether it is a mount point: a service manager may mount the folder on itself.
        if inside.st_dev == around.st_dev {
            return Err(Away::Missing);
        }
        let id = mount_id(&fd).map_err(|_| Away::Failing)?;
        let (major, minor) = (major(inside.st_dev), minor(inside.st_dev));
        // Without the folder (a container may hide it) nothing is said by what is not in it.
        let device = (major != 0)
            .then(|| Path::new(BLOCK_DEVICES).join(format!("{major}:{minor}")))
            .filter(|device| device.exists());
        let fd = Arc::new(fd);
        Ok(Mount { fd, id, device })
    }

    pub(super) fn descriptor(&self) -> Arc<OwnedFd> {
        self.fd.clone()
    }

    /// A path to the topmost folder that cannot lead elsewhere. For this process, as long as this lives.
    pub(super) fn path(&self) -> PathBuf {
        descriptor_path(&self.fd)
    }

    /// Whether it is still what is mounted at `place`, and can be written to as far as the kernel knows. Asks no device.
    pub(super) fn look(&self, place: &Path) -> Result<(), Away> {
        if self.device.as_ref().is_some_and(|device| !device.exists()) {
            return Err(Away::Missing);
        }
        let now = Mount::at(place)?;
        if now.id != self.id {
            return Err(Away::Missing); // what is there instead, the next attempt to take it will say
        }
        let stat = fstatvfs(&self.fd).map_err(|_| Away::Failing)?;
        if stat.flags().contains(FsFlags::ST_RDONLY) {
            return Err(Away::ReadOnly);
        }
        Ok(())
    }
}

fn mount_id(fd: &OwnedFd) -> io::Result<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    info.lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
        .ok_or_else(|| io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_no_mounted_file_system() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Mount::at(folder.path()).err(), Some(Away::Missing));
        let absent = folder.path().join("absent");
        assert_eq!(Mount::at(&absent).err(), Some(Away::Missing));
    }

    #[test]
    fn a_mounted_file_system_is_itself_and_no_other() {
        let proc = Mount::at(Path::new("/proc")).unwrap();
        assert_eq!(proc.look(Path::new("/proc")), Ok(()));
        assert_eq!(proc.look(Path::new("/dev")), Err(Away::Missing));
        assert!(proc.path().join("self").exists());
    }

    #[test]
    fn a_device_that_the_kernel_does_not_show_any_more_is_gone() {
        let mut dev = Mount::at(Path::new("/proc")).unwrap();
        dev.device = Some(Path::new(BLOCK_DEVICES).join("4095:1048575"));
        assert_eq!(dev.look(Path::new("/proc")), Err(Away::Missing));
    }
}
