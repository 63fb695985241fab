//! How the drive is, in facts.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};

use super::candidate::{Candidate, candidate};
use super::expectation::Expectation;
use super::{Error, Setup, lsblk, place};
use crate::storage::Marker;

#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) expected: Expectation,
    /// The device with the expected file system, if one is plugged in.
    pub(crate) device: Option<Candidate>,
    pub(crate) presence: Presence,
    /// Of what is mounted: all and what is left, in bytes.
    pub(crate) space: Option<(u64, u64)>,
    /// What the kernel counted since the file system was last checked; ext4 alone says.
    pub(crate) errors: Option<u64>,
    /// Images of before the move, which could be removed.
    pub(crate) set_aside: Option<PathBuf>,
}

/// What is at the place of the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Right,
    ReadOnly,
    /// The move to it has not ended.
    Unfinished,
    Other,
    NotMounted,
    /// The file system answers with errors.
    Broken,
}

/// `None` if no drive is expected.
///
/// # Errors
/// Those of `lsblk` and of the expectation.
pub(crate) fn status(setup: &Setup) -> Result<Option<Status>, Error> {
    let Some(expected) =
        Expectation::read(&setup.expectation)?.filter(|known| known.root == setup.root)
    else {
        return Ok(None);
    };
    let root = &setup.root;
    let devices = lsblk::list()?;
    let device = devices.iter().find_map(|disk| {
        let has_it = |device: &&lsblk::Device| device.uuid.as_ref() == Some(&expected.uuid);
        let device = disk.all().into_iter().find(has_it)?;
        Some(candidate(disk, device, root))
    });
    let presence = presence(root, &expected);
    let space = (presence != Presence::NotMounted)
        .then(|| statvfs(root).ok())
        .flatten()
        .map(|stat| {
            #[allow(
                clippy::useless_conversion,
                reason = "the width differs between machines"
            )]
            let size = |blocks| u64::from(blocks).saturating_mul(u64::from(stat.fragment_size()));
            (size(stat.blocks()), size(stat.blocks_available()))
        });
    let errors = device.as_ref().and_then(|found| errors(&found.device));
    let aside = place::aside(root);
    Ok(Some(Status {
        expected,
        device,
        presence,
        space,
        errors,
        set_aside: aside.exists().then_some(aside),
    }))
}

fn presence(root: &Path, expected: &Expectation) -> Presence {
    if !place::is_mounted(root) {
        return Presence::NotMounted;
    }
    match Marker::read(root) {
        Err(_) => Presence::Broken,
        Ok(Some(marker)) if marker.id == expected.id && marker.incoming.is_some() => {
            Presence::Unfinished
        }
        Ok(Some(marker)) if marker.id == expected.id => match statvfs(root) {
            Ok(stat) if stat.flags().contains(FsFlags::ST_RDONLY) => Presence::ReadOnly,
            Ok(_) => Presence::Right,
            Err(_) => Presence::Broken,
        },
        Ok(_) => Presence::Other,
    }
}

fn errors(device: &lsblk::Device) -> Option<u64> {
    let path = Path::new("/sys/fs/ext4")
        .join(device.name())
        .join("errors_count");
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
