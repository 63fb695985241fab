//! The images are on no drive any more.

use std::fs;
use std::path::Path;

use nix::mount::umount;

use super::adopt::{Done, hold};
use super::copy::{What, copy};
use super::expectation::Expectation;
use super::service::{Systemd, is_in_fstab};
use super::stage::staged;
use super::{Error, Say, Setup, at, io_error, lsblk, place};

/// What becomes of the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Images {
    /// They stay on the drive, for this machine or another to use it again.
    StayThere,
    /// They are copied into the directory; the drive keeps them too.
    ComeBack,
}

/// Stops expecting the drive. Goes on where an earlier attempt stopped.
///
/// # Errors
/// What stopped it. Until the last step the registry waits for its drive.
pub(crate) fn release(setup: &Setup, images: Images, say: Say<'_>) -> Result<Done, Error> {
    let root = &setup.root;
    let Some(expected) = Expectation::read(&setup.expectation)?.filter(|known| known.root == *root)
    else {
        return Err(Error::Refused(
            "the images are on no external drive; there is nothing to release".to_owned(),
        ));
    };
    let systemd = Systemd::running();
    let ran = systemd.as_ref().is_some_and(Systemd::is_serving);
    if let Some(systemd) = &systemd {
        systemd.stop(say)?;
    }
    let owner = owner_on_drive(root);
    let copied = place::sibling(root, "from-drive");
    // An earlier attempt may have brought them into place already.
    let is_back = !place::is_mounted(root) && place::has_images(root)?;
    if images == Images::ComeBack && !is_back {
        bring_back(root, &copied, &expected, say)?;
    }
    unmount(root, systemd.as_ref(), say)?;
    if images == Images::ComeBack && !is_back {
        let aside = place::set_aside(root)?;
        debug_assert!(aside.is_none());
        fs::remove_dir(root).map_err(at(root))?;
        fs::rename(&copied, root).map_err(at(root))?;
    }
    if images == Images::StayThere && !root.exists() {
        fs::create_dir_all(root).map_err(at(root))?;
    }
    place::give(root, owner)?;
    Expectation::remove(&setup.expectation).map_err(at(&setup.expectation))?;
    let mut done = Done::default();
    let aside = place::aside(root);
    if images == Images::StayThere && aside.exists() {
        done.set_aside = Some(aside);
    }
    if is_in_fstab(root) {
        done.by_hand.push(format!(
            "take the line of {} out of /etc/fstab, or the drive is mounted again at the next start",
            root.display()
        ));
    }
    match systemd {
        Some(systemd) => systemd.start(ran, say)?,
        None => done
            .by_hand
            .push("systemd does not run here: start the registry as you always do".to_owned()),
    }
    Ok(done)
}

/// Who owns the images now, since the empty directory below them may belong to root.
fn owner_on_drive(root: &Path) -> (u32, u32) {
    place::owner(root)
}

fn bring_back(root: &Path, to: &Path, expected: &Expectation, say: Say<'_>) -> Result<(), Error> {
    fs::create_dir_all(to).map_err(at(to))?;
    let bring = |drive: &Path| {
        let _held = hold(drive)?;
        say("copying the images back");
        let copied = copy(drive, to, What::Tree, say)?;
        say(&format!(
            "{} files ({} MB) were copied and read back",
            copied.files,
            copied.bytes >> 20
        ));
        Ok(())
    };
    if place::is_mounted(root) {
        return bring(root);
    }
    let devices = lsblk::list()?;
    let device = devices
        .iter()
        .flat_map(lsblk::Device::all)
        .find(|device| device.uuid.as_ref() == Some(&expected.uuid));
    match device {
        Some(device) => {
            let file_system = device.file_system.clone().unwrap_or_default();
            staged(&device.path, &file_system, bring)
        }
        None => Err(Error::Refused(format!(
            "the drive (UUID {}) is not there, so nothing can be copied from it: plug it in, or leave out --copy-back",
            expected.uuid
        ))),
    }
}

fn unmount(root: &Path, systemd: Option<&Systemd>, say: Say<'_>) -> Result<(), Error> {
    if let Some(systemd) = systemd {
        systemd.unmount(root)?;
    }
    if place::is_mounted(root) {
        say(&format!("unmounting {}", root.display()));
        umount(root).map_err(|e| {
            io_error(format!(
                "{} is still in use (stop the registry that serves it, then run this again)",
                root.display()
            ))(e.into())
        })?;
    }
    Ok(())
}
