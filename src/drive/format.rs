//! A new file system.

use std::path::Path;
use std::time::Duration;

use super::lsblk::Device;
use super::programs::run;
use super::{Error, Say};

/// What `blkid` finds on a device.
pub(super) struct Identity {
    pub(super) uuid: Option<String>,
    pub(super) file_system: Option<String>,
    pub(super) label: Option<String>,
}

/// Erases `device` and makes an ext4 file system on it. Whoever calls has asked.
///
/// # Errors
/// Those of the programs; the device may be erased then.
pub(crate) fn format(device: &Device, say: Say<'_>) -> Result<(), Error> {
    let path = device.path.as_path();
    say(&format!(
        "erasing {} and making an ext4 file system",
        path.display()
    ));
    // Remains of other file systems and of partition tables would make it ambiguous what this device is.
    wipe(path)?;
    if !device.children.is_empty() {
        let _ = run("blockdev", [Path::new("--rereadpt"), path]); // the kernel forgets them at the next start otherwise
    }
    // One percent for root keeps a full drive from becoming slow; an error stops all writing.
    let options = ["-q", "-F", "-L", "registry", "-m", "1", "-e", "remount-ro"];
    run("mkfs.ext4", options.iter().map(Path::new).chain([path]))?;
    settle();
    Ok(())
}

/// udev and desktops look at a device whenever something about it changed: what is busy may be free a moment later.
fn wipe(device: &Path) -> Result<(), Error> {
    const MOMENT: Duration = Duration::from_millis(500);
    let mut tries = 6;
    loop {
        tries -= 1;
        match run("wipefs", [Path::new("-a"), device]) {
            Err(Error::Program { reason, .. }) if tries > 0 && reason.contains("busy") => {
                std::thread::sleep(MOMENT);
            }
            other => return other.map(drop),
        }
    }
}

/// Waits until udev knows what was written to the devices, where there is udev.
pub(super) fn settle() {
    let _ = run("udevadm", ["settle", "--timeout=20"]);
}

/// Reads it from the device itself, since what udev remembers may be old. Needs root.
pub(super) fn identify(device: &Path) -> Result<Identity, Error> {
    let options = ["-p", "-o", "export"].map(Path::new);
    let text = run("blkid", options.into_iter().chain([device]))?;
    let value = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(str::to_owned)
    };
    Ok(Identity {
        uuid: value("UUID"),
        file_system: value("TYPE"),
        label: value("LABEL"),
    })
}
