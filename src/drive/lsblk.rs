//! The block devices of the machine, as `lsblk --json` (util-linux, essential on Debian) tells of them.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Error;
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

    /// Itself and what lies on it.
    pub(crate) fn all(&self) -> Vec<&Device> {
        let below = self.children.iter().flat_map(Device::all);
        std::iter::once(self).chain(below).collect()
    }

    /// `sda1` of `/dev/sda1`
    pub(crate) fn name(&self) -> &str {
        let name = self.path.file_name().unwrap_or_default();
        name.to_str().unwrap_or_default()
    }
}

const COLUMNS: &str = "PATH,TYPE,SIZE,RO,FSTYPE,LABEL,UUID,TRAN,MODEL";

/// Every disk, with what lies on it.
pub(crate) fn list() -> Result<Vec<Device>, Error> {
    let ask = |mounts: &str| {
        let columns = format!("{COLUMNS},{mounts}");
        run("lsblk", ["--json", "-b", "-o", &columns])
    };
    let text = ask("MOUNTPOINTS").or_else(|_| ask("MOUNTPOINT"))?;
    parse(&text)
}

fn parse(text: &str) -> Result<Vec<Device>, Error> {
    let listing: Listing = serde_json::from_str(text).map_err(|e| Error::Program {
        program: "lsblk".to_owned(),
        reason: format!("its answer cannot be understood: {e}"),
    })?;
    Ok(listing.blockdevices)
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
pub(super) mod tests {
    use super::*;

    /// A Raspberry Pi with a card and a USB disk.
    pub(crate) const PI: &str = r#"{"blockdevices": [
        {"path":"/dev/sda","type":"disk","size":1000204886016,"ro":false,"fstype":null,"label":null,"uuid":null,
         "tran":"usb","model":"Portable SSD","mountpoints":[null],"children":[
            {"path":"/dev/sda1","type":"part","size":1000203837440,"ro":false,"fstype":"exfat","label":"My Files",
             "uuid":"1234-ABCD","tran":null,"model":null,"mountpoints":["/media/pi/My Files"]}]},
        {"path":"/dev/sdb","type":"disk","size":64000000000,"ro":false,"fstype":"ext4","label":"images","uuid":
         "0b0e6e0c-6a0f-4f0e-9a0b-7c1d2e3f4a5b","tran":"usb","model":"Stick","mountpoints":[null]},
        {"path":"/dev/mmcblk0","type":"disk","size":31914983424,"ro":false,"fstype":null,"label":null,"uuid":null,
         "tran":null,"model":null,"mountpoints":[null],"children":[
            {"path":"/dev/mmcblk0p1","type":"part","size":536870912,"ro":false,"fstype":"vfat","label":"bootfs",
             "uuid":"5DE4-665C","tran":null,"model":null,"mountpoints":["/boot/firmware"]},
            {"path":"/dev/mmcblk0p2","type":"part","size":31373918208,"ro":false,"fstype":"ext4","label":"rootfs",
             "uuid":"7295bbc3-bbc2-4267-9fa0-099e10ef5bf0","tran":null,"model":null,"mountpoints":["/"]},
            {"path":"/dev/mmcblk0p3","type":"part","size":4194304,"ro":false,"fstype":null,"label":null,"uuid":null,
             "tran":null,"model":null,"mountpoints":[null]}]}]}"#;

    pub(crate) fn pi() -> Vec<Device> {
        parse(PI).unwrap()
    }

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
