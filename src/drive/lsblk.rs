//! The block devices of the machine, as `lsblk --json` (util-linux, essential on Debian) tells of them.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Error;
use super::format::identify;
use super::programs::run;

/// A disk, a partition, or what is made of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Device {
    pub(crate) path: PathBuf,
    /// `disk`, `part`, `loop`, `rom`, `crypt`, `lvm`, `raid1`, ...
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// In bytes.
    #[serde(deserialize_with = "number", default)]
    pub(crate) size: u64,
    #[serde(rename = "ro", deserialize_with = "flag", default)]
    pub(crate) read_only: bool,
    #[serde(rename = "fstype", default)]
    pub(crate) file_system: Option<String>,
    #[serde(default)]
    pub(crate) label: Option<String>,
    /// Of the file system.
    #[serde(default)]
    pub(crate) uuid: Option<String>,
    /// Of lsblk since 2.37; `[SWAP]` is one of them.
    #[serde(default)]
    mountpoints: Vec<Option<String>>,
    /// Of an older one.
    #[serde(default)]
    mountpoint: Option<String>,
    /// `usb`, `sata`, `nvme`, `mmc`
    #[serde(rename = "tran", default)]
    pub(crate) transport: Option<String>,
    #[serde(default)]
    pub(crate) model: Option<String>,
    /// The partitions of a disk, and what else lies on it.
    #[serde(default)]
    pub(crate) children: Vec<Device>,
}

#[derive(Deserialize)]
struct Listing {
    blockdevices: Vec<Device>,
}

/// Numbers and flags are texts in older versions.
#[derive(Deserialize)]
#[serde(untagged)]
enum Loose {
    Flag(bool),
    Number(u64),
    Text(String),
    Null(()),
}

fn number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Ok(match Loose::deserialize(deserializer)? {
        Loose::Number(number) => number,
        Loose::Text(text) => text.parse().unwrap_or(0),
        Loose::Flag(_) | Loose::Null(()) => 0,
    })
}

fn flag<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(match Loose::deserialize(deserializer)? {
        Loose::Flag(flag) => flag,
        Loose::Number(number) => number != 0,
        Loose::Text(text) => text == "1",
        Loose::Null(()) => false,
    })
}

impl Device {
    /// Where it is mounted, and `[SWAP]`.
    pub(crate) fn mounts(&self) -> impl Iterator<Item = &str> {
        let all = self.mountpoints.iter().flatten().chain(&self.mountpoint);
        all.map(String::as_str)
    }

    /// Whether it, or anything on it, is in use.
    pub(crate) fn is_mounted(&self) -> bool {
        self.all()
            .iter()
            .any(|device| device.mounts().next().is_some())
    }

    /// Itself and what lies on it.
    pub(crate) fn all(&self) -> Vec<&Device> {
        let below = self.children.iter().flat_map(Device::all);
        std::iter::once(self).chain(below).collect()
    }

    /// Reads from the device what lsblk could not say, since it asks udev, which is not everywhere. Needs root.
    fn look_closer(&mut self) {
        let may_have = ["disk", "part", "loop"].contains(&self.kind.as_str());
        let is_unknown = self.file_system.is_none() && self.children.is_empty() && self.size > 0;
        if may_have
            && is_unknown
            && let Ok(found) = identify(&self.path)
        {
            self.file_system = found.file_system;
            self.uuid = found.uuid;
            self.label = found.label;
        }
        self.children.iter_mut().for_each(Device::look_closer);
    }

    /// `sda1` of `/dev/sda1`
    pub(crate) fn name(&self) -> &str {
        let name = self.path.file_name().unwrap_or_default();
        name.to_str().unwrap_or_default()
    }
}

/// With NAME the answer is a tree.
const COLUMNS: &str = "NAME,PATH,TYPE,SIZE,RO,FSTYPE,LABEL,UUID,TRAN,MODEL";

/// Every disk, with what lies on it.
pub(crate) fn list() -> Result<Vec<Device>, Error> {
    let ask = |mounts: &str| {
        let columns = format!("{COLUMNS},{mounts}");
        run("lsblk", ["--json", "-b", "-o", &columns])
    };
    let text = ask("MOUNTPOINTS").or_else(|_| ask("MOUNTPOINT"))?;
    let mut devices = parse(&text)?;
    devices.iter_mut().for_each(Device::look_closer);
    Ok(devices)
}

fn parse(text: &str) -> Result<Vec<Device>, Error> {
    let listing: Listing = serde_json::from_str(text).map_err(|e| Error::Program {
        program: "lsblk".to_owned(),
        reason: format!("its answer cannot be understood: {e}"),
    })?;
    Ok(listing.blockdevices)
}

/// A Raspberry Pi with a card and two USB disks.
#[cfg(test)]
pub(super) fn pi() -> Vec<Device> {
    parse(include_str!("pi.json")).expect("what lsblk said")
}

/// The disk and the device at `path`, which may be a link such as those in `/dev/disk/by-id`.
pub(crate) fn find<'a>(devices: &'a [Device], path: &Path) -> Option<(&'a Device, &'a Device)> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    devices.iter().find_map(|disk| {
        let device = disk.all().into_iter().find(|device| device.path == path)?;
        Some((disk, device))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_and_partitions_are_found() {
        let devices = pi();
        let (disk, device) = find(&devices, Path::new("/dev/sda1")).unwrap();
        assert_eq!((disk.name(), device.name()), ("sda", "sda1"));
        assert_eq!(device.mounts().collect::<Vec<_>>(), ["/media/pi/My Files"]);
        assert_eq!(disk.mounts().count(), 0);
        assert_eq!(disk.all().len(), 2);
        assert!(find(&devices, Path::new("/dev/sdz")).is_none());
    }

    #[test]
    fn the_answer_of_an_older_version_says_the_same() {
        let old = r#"{"blockdevices": [{"path":"/dev/sda","type":"disk","size":"4096","ro":"1","fstype":"ext4",
            "label":null,"uuid":"u","tran":"usb","model":null,"mountpoint":"/mnt"}]}"#;
        let devices = parse(old).unwrap();
        assert_eq!((devices[0].size, devices[0].read_only), (4096, true));
        assert_eq!(devices[0].mounts().collect::<Vec<_>>(), ["/mnt"]);
        assert!(parse("lsblk: unknown column").is_err());
    }
}
