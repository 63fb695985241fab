//! A drive mounted for ourselves alone: in a mount namespace of one thread, so that nobody else sees it, and so that it is
//! unmounted when this process ends in whatever way.

use std::fs;
use std::path::Path;
use std::thread;

use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};

use super::{Error, at, io_error};

const STAGE: &str = "/run/registry-drive";

/// Calls `work` with the folder that the file system of `device` is mounted on.
pub(super) fn staged<T: Send>(
    device: &Path,
    file_system: &str,
    work: impl FnOnce(&Path) -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let stage = Path::new(STAGE);
    fs::create_dir_all(stage).map_err(at(stage))?;
    let inside = || {
        let sealed = unshare(CloneFlags::CLONE_NEWNS).and_then(|()| {
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        });
        sealed.map_err(|e| io_error("a mount namespace")(e.into()))?;
        let flags = MsFlags::MS_NOATIME | MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
        mount(Some(device), stage, Some(file_system), flags, None::<&str>)
            .map_err(|e| io_error(format!("mounting {}", device.display()))(e.into()))?;
        let result = work(stage);
        let unmounted = umount(stage).map_err(|e| io_error(device.display())(e.into()));
        let value = result?;
        unmounted?;
        Ok(value)
    };
    thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|_| {
        Err(Error::Refused(
            "the work on the drive failed in a way it should not".to_owned(),
        ))
    })
}
