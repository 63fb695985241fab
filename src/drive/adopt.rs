//! A drive becomes the place of the images.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use uuid::Uuid;

use super::copy::{What, copy};
use super::expectation::Expectation;
use super::format::identify;
use super::lsblk::Device;
use super::service::{Systemd, is_in_fstab};
use super::stage::staged;
use super::{Error, Say, Setup, at, io_error, place, unit};
use crate::storage::{Hold, Marker, OpenError};

/// What to do where the directory and the drive both hold images, which cannot be merged: a tag can point to one alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Both {
    Refuse,
    /// Serve those on the drive; those in the directory are set aside.
    TakeTheDrives,
}

/// What was done, for people to be told.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Where the images as they were before are now.
    pub(crate) set_aside: Option<PathBuf>,
    /// What nothing here could do, as sentences with commands.
    pub(crate) by_hand: Vec<String>,
}

/// Makes `device`, whose file system is a good one, the place of the images; goes on where an earlier attempt stopped.
///
/// # Errors
/// What stopped it. Before the switch the registry is as it was; after it, the drive is what it waits for, and the next
/// attempt finishes what is left.
pub(crate) fn adopt(
    setup: &Setup,
    device: &Device,
    both: Both,
    say: Say<'_>,
) -> Result<Done, Error> {
    let found = identify(&device.path)?;
    let (Some(uuid), Some(file_system)) = (found.uuid, found.file_system) else {
        return Err(Error::Refused(format!(
            "{} has no file system with a UUID",
            device.path.display()
        )));
    };
    let root = &setup.root;
    let expected = Expectation::read(&setup.expectation)?.filter(|known| known.root == *root);
    if let Some(known) = &expected
        && known.uuid != uuid
    {
        return Err(Error::Refused(format!(
            "the images are on another drive already (UUID {}); give that one up first: registry drive release",
            known.uuid
        )));
    }
    let mounted = device.mounts().any(|at| Path::new(at) == root);
    if !mounted && place::is_mounted(root) {
        return Err(Error::Refused(format!(
            "something else is mounted at {root}; unmount it first: umount '{root}'",
            root = root.display()
        )));
    }
    let systemd = Systemd::running();
    let ran = systemd.as_ref().is_some_and(Systemd::is_serving);
    let mover = Mover {
        setup,
        uuid: &uuid,
        file_system: &file_system,
        both,
        say,
        systemd: systemd.as_ref(),
        owner: place::owner(root),
    };
    let moved = if mounted {
        mover.take(root, expected.as_ref(), true)
    } else {
        staged(&device.path, &file_system, |stage| {
            mover.take(stage, expected.as_ref(), false)
        })
    };
    if let Err(error) = moved {
        // Nothing was switched, or it was before: the service is as well as it was.
        if let Some(systemd) = &systemd {
            systemd.start(ran, say)?;
        }
        return Err(error);
    }
    let mut done = Done::default();
    if !mounted {
        done.set_aside = place::set_aside(root)?;
        mover.mount(device, &mut done)?;
    }
    match &systemd {
        Some(systemd) => systemd.start(ran, say)?,
        None => done.by_hand.push(format!(
            "systemd does not run here: start the registry as you always do (registry serve {})",
            "/etc/registry/config.yml"
        )),
    }
    Ok(done)
}

struct Mover<'a> {
    setup: &'a Setup,
    uuid: &'a str,
    file_system: &'a str,
    both: Both,
    say: Say<'a>,
    systemd: Option<&'a Systemd>,
    owner: (u32, u32),
}

impl Mover<'_> {
    /// Brings the images to the drive, mounted at `drive`, and switches. `in_place`: it is mounted where it belongs.
    fn take(
        &self,
        drive: &Path,
        expected: Option<&Expectation>,
        in_place: bool,
    ) -> Result<(), Error> {
        let found = Marker::read(drive).map_err(at(drive))?;
        if let Some(known) = expected {
            return self.finish(drive, known, found);
        }
        let root = &self.setup.root;
        let here = origin(root);
        let (mut source, target) = (place::has_images(root)?, place::has_images(drive)?);
        source &= !in_place;
        let resumed = found
            .as_ref()
            .and_then(|marker| marker.incoming.as_ref())
            .filter(|_| !in_place);
        let take_the_drives = self.both == Both::TakeTheDrives;
        let copying = match resumed {
            _ if take_the_drives => false,
            Some(from) if *from != here => {
                return Err(Error::Refused(format!(
                    "the images of {from} were being moved to this drive, and that was not finished. Finish it there, or \
                     erase the drive with --format, or take what is on it with --keep-drive"
                )));
            }
            Some(_) if !source => {
                return Err(Error::Refused(format!(
                    "the move of the images in {} to this drive was interrupted, and they are not there any more. Put them \
                     back, or take what is on the drive with --keep-drive",
                    root.display()
                )));
            }
            Some(_) => true,
            None if source && target => {
                return Err(Error::Refused(format!(
                    "there are images both in {root} and on the drive, and they cannot be merged. To serve those on the drive \
                     and set the others aside, say --keep-drive; to erase those on the drive, say --format",
                    root = root.display()
                )));
            }
            None => source,
        };
        let marker = Marker {
            id: found.map_or_else(Uuid::new_v4, |marker| marker.id),
            incoming: copying.then_some(here),
        };
        marker.write(drive).map_err(at(drive))?;
        if copying && self.systemd.is_some_and(Systemd::is_serving) {
            (self.say)("copying the images while the registry goes on");
            copy(root, drive, What::Live, self.say)?;
        }
        if let Some(systemd) = self.systemd {
            systemd.stop(self.say)?;
        }
        // From here to the switch nobody may change anything.
        let held = root.exists().then(|| hold(root)).transpose()?;
        if copying {
            (self.say)("copying the images");
            let copied = copy(root, drive, What::Whole, self.say)?;
            (self.say)(&format!(
                "{} files ({} MB) were copied and read back from the drive",
                copied.files,
                copied.bytes >> 20
            ));
            if copied.damaged > 0 {
                (self.say)(&format!(
                    "{} of them were damaged before: the registry hides them until they are pushed again",
                    copied.damaged
                ));
            }
        }
        place::give(drive, self.owner)?;
        let expectation = Expectation {
            id: marker.id,
            uuid: self.uuid.to_owned(),
            root: root.clone(),
        };
        // The switch.
        expectation
            .write(&self.setup.expectation)
            .map_err(at(&self.setup.expectation))?;
        drop(held);
        self.finish(drive, &expectation, Some(marker))
    }

    /// After the switch: the drive is told that all is on it.
    fn finish(
        &self,
        drive: &Path,
        known: &Expectation,
        found: Option<Marker>,
    ) -> Result<(), Error> {
        let complete = Marker {
            id: known.id,
            incoming: None,
        };
        match found {
            Some(marker) if marker == complete => Ok(()),
            Some(marker) if marker.id == known.id => complete.write(drive).map_err(at(drive)),
            _ => Err(Error::Refused(
                "this drive has lost the mark of the registry: it was erased, or is a copy. To begin anew with it: registry \
                 drive release, then use it again"
                    .to_owned(),
            )),
        }
    }

    /// Mounts the drive, now and from now on.
    fn mount(&self, device: &Device, done: &mut Done) -> Result<(), Error> {
        let root = &self.setup.root;
        let (uuid, file_system) = (self.uuid, self.file_system);
        (self.say)(&format!("mounting the drive at {}", root.display()));
        match self.systemd {
            Some(systemd) if !is_in_fstab(root) => systemd.mount(uuid, root, file_system)?,
            _ => {
                let flags = MsFlags::MS_NOATIME | MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
                let mounted = mount(
                    Some(&device.path),
                    root,
                    Some(file_system),
                    flags,
                    None::<&str>,
                );
                mounted
                    .map_err(|e| io_error(format!("mounting at {}", root.display()))(e.into()))?;
                if !is_in_fstab(root) {
                    done.by_hand.push(format!(
                        "systemd does not run here, so the drive is mounted until the next start only. For all later ones, add \
                         this line to /etc/fstab:\n    {}",
                        unit::fstab_line(uuid, root, file_system)
                    ));
                }
            }
        }
        match Marker::read(root).map_err(at(root))? {
            Some(_) => Ok(()),
            None => Err(Error::Refused(format!(
                "the drive was to be mounted at {root}, and is not. What systemd says of it: systemctl status '{unit}'. Then run \
                 this again",
                root = root.display(),
                unit = unit::name(root),
            ))),
        }
    }
}

/// Keeps every registry off the images.
pub(super) fn hold(root: &Path) -> Result<Hold, Error> {
    Hold::take(root).map_err(|error| match error {
        OpenError::InUse(_) => Error::InUse(format!(
            "a registry is serving {}: stop it first (systemctl stop registry, or docker stop NAME), then run this again",
            root.display()
        )),
        managed @ OpenError::Managed(_) => Error::InUse(managed.to_string()),
        OpenError::Io { path, source } => at(&path)(source),
        split @ OpenError::Split { .. } => at(root)(std::io::Error::other(split)),
    })
}

/// This directory of this machine, among others.
fn origin(root: &Path) -> String {
    let name = fs::read_to_string("/etc/machine-id")
        .or_else(|_| fs::read_to_string("/proc/sys/kernel/hostname"))
        .unwrap_or_default();
    format!("{}:{}", name.trim(), root.display())
}
