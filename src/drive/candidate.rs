//! Which devices the images can be kept on, and why others cannot be used.

use std::fmt;
use std::path::{Path, PathBuf};

use super::lsblk::Device;
use super::speed;

/// A device, and what is to be said about using it.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) device: Device,
    /// How it is attached, in words.
    pub(crate) speed: Option<String>,
    pub(crate) verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As it is.
    Usable,
    /// After all that is on it has been erased.
    NeedsFormat(NeedsFormat),
    Refused(Refused),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NeedsFormat {
    Empty,
    /// What people's drives have, and what is wrong with it.
    Unsuitable(String, &'static str),
    Partitions(Vec<String>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Holds the running system, at this mount point.
    System(String),
    Mounted(String),
    /// Part of something larger.
    Member(String),
    Kind(String),
    ReadOnly,
    TooSmall,
}

/// File systems that keep their promises over a power cut, and know owners.
const GOOD: [&str; 4] = ["ext4", "btrfs", "xfs", "f2fs"];
/// Below this a drive is not worth a move, in bytes.
const SMALLEST: u64 = 32 << 20;
/// Where systems mount what they cannot do without.
const SYSTEM: [&str; 8] = [
    "/",
    "/boot",
    "/boot/firmware",
    "/boot/efi",
    "/usr",
    "/var",
    "[SWAP]",
    "/media/root-ro",
];

impl fmt::Display for NeedsFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NeedsFormat::Empty => f.write_str("has no file system yet"),
            NeedsFormat::Unsuitable(name, why) => write!(f, "has {name}, which {why}"),
            NeedsFormat::Partitions(names) => write!(f, "has partitions ({})", names.join(", ")),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::System(at) => write!(f, "the running system is on this disk ({at})"),
            Refused::Mounted(at) => {
                write!(f, "is in use at {at}; unmount it first: umount '{at}'")
            }
            Refused::Member(what) => write!(f, "is part of {what}"),
            Refused::Kind(kind) => write!(
                f,
                "is of the kind {kind}; only disks and their partitions are set up here. Mount it with /etc/fstab instead"
            ),
            Refused::ReadOnly => f.write_str("is write-protected"),
            Refused::TooSmall => f.write_str("is too small"),
        }
    }
}

/// The disks and partitions that a person would think of as drives; `place` is the directory of the images.
pub(crate) fn candidates(devices: &[Device], place: &Path) -> Vec<Candidate> {
    let drives = devices
        .iter()
        .filter(|disk| disk.kind == "disk" && disk.size > 0);
    let shown = drives.filter(|disk| {
        !["zram", "ram", "mtdblock"]
            .iter()
            .any(|p| disk.name().starts_with(p))
    });
    shown
        .flat_map(|disk| {
            let parts = disk.children.iter().filter(|child| child.kind == "part");
            let parts: Vec<&Device> = parts.collect();
            let devices = std::iter::once(disk).chain(parts);
            devices.map(move |device| candidate(disk, device, place))
        })
        .collect()
}

/// What is to be said of `device`, which is `disk` or lies on it.
pub(crate) fn candidate(disk: &Device, device: &Device, place: &Path) -> Candidate {
    Candidate {
        device: device.clone(),
        speed: speed::of(disk),
        verdict: judge(disk, device, place),
    }
}

fn judge(disk: &Device, device: &Device, place: &Path) -> Verdict {
    let refused = Verdict::Refused;
    let system = disk.all().into_iter().find_map(|part| {
        part.mounts()
            .find(|at| SYSTEM.contains(at))
            .map(str::to_owned)
    });
    if let Some(at) = system {
        return refused(Refused::System(at));
    }
    if !["disk", "part", "loop"].contains(&device.kind.as_str()) {
        return refused(Refused::Kind(device.kind.clone()));
    }
    for part in device.all() {
        if let Some(at) = part.mounts().find(|at| Path::new(at) != place) {
            return refused(Refused::Mounted(at.to_owned()));
        }
        if let Some(what) = member(part.file_system.as_deref()) {
            return refused(Refused::Member(what.to_owned()));
        }
        if !["disk", "part", "loop"].contains(&part.kind.as_str()) {
            return refused(Refused::Member(format!(
                "a volume ({})",
                part.path.display()
            )));
        }
    }
    if device.read_only {
        return refused(Refused::ReadOnly);
    }
    if device.size < SMALLEST {
        return refused(Refused::TooSmall);
    }
    if !device.children.is_empty() {
        let names = device.children.iter().map(|part| part.name().to_owned());
        return Verdict::NeedsFormat(NeedsFormat::Partitions(names.collect()));
    }
    match device.file_system.as_deref() {
        Some(good) if GOOD.contains(&good) && device.uuid.is_some() => Verdict::Usable,
        None => Verdict::NeedsFormat(NeedsFormat::Empty),
        Some(other) => {
            let (name, why) = unsuitable(other);
            Verdict::NeedsFormat(NeedsFormat::Unsuitable(name, why))
        }
    }
}

fn member(file_system: Option<&str>) -> Option<&'static str> {
    Some(match file_system? {
        "LVM2_member" | "LVM1_member" => "an LVM volume group",
        "linux_raid_member" | "isw_raid_member" | "ddf_raid_member" => "a RAID",
        "crypto_LUKS" | "BitLocker" => "an encrypted volume",
        "zfs_member" => "a ZFS pool",
        "bcache" => "a bcache set",
        "swap" => "the swap space",
        _ => return None,
    })
}

/// The name that people know, and why the images cannot be there.
fn unsuitable(file_system: &str) -> (String, &'static str) {
    const NO_PROMISES: &str = "knows no owners and may lose or tear files when the power goes";
    let (name, why) = match file_system {
        "vfat" => (
            "FAT",
            "holds no file above 4 GB, knows no owners and may tear files when the power goes",
        ),
        "exfat" => ("exFAT", NO_PROMISES),
        "ntfs" => ("NTFS", NO_PROMISES),
        "hfsplus" | "apfs" => ("a file system of macOS", "Linux does not write to reliably"),
        "ext2" => ("ext2", "has no journal and is damaged by a power cut"),
        "ext3" => ("ext3", "is outdated; ext4 is what replaced it"),
        "iso9660" | "udf" | "squashfs" => (file_system, "is made to be read only"),
        other => (other, "was not tried with images"),
    };
    (name.to_owned(), why)
}

/// Why the images cannot be in a directory of a network or foreign file system that is mounted already.
pub(crate) fn unsuitable_mount(file_system: &str) -> Option<String> {
    let why = match file_system {
        "nfs" | "nfs4" | "cifs" | "smb3" | "smbfs" | "9p" | "fuse.sshfs" => {
            "is a network share: it may vanish while a push is being answered, and its locks and flushes cannot be relied on"
        }
        "exfat" | "vfat" | "ntfs" | "ntfs3" | "fuseblk" | "msdos" => {
            "knows no owners and may lose or tear files when the power goes"
        }
        _ => return None,
    };
    Some(format!("it has {file_system}, which {why}"))
}

impl Candidate {
    pub(crate) fn path(&self) -> &PathBuf {
        &self.device.path
    }
}

#[cfg(test)]
mod tests {
    use super::super::lsblk::pi;
    use super::*;

    fn verdicts(devices: &[Device]) -> Vec<(String, Verdict)> {
        candidates(devices, Path::new("/var/lib/registry"))
            .into_iter()
            .map(|c| (c.device.name().to_owned(), c.verdict))
            .collect()
    }

    fn with(change: impl FnOnce(&mut Device)) -> Verdict {
        let mut devices = pi();
        change(&mut devices[1]);
        judge(&devices[1], &devices[1], Path::new("/var/lib/registry"))
    }

    #[test]
    fn the_disk_of_the_system_is_refused_with_all_its_partitions() {
        let verdicts = verdicts(&pi());
        for (name, verdict) in &verdicts {
            assert_eq!(
                matches!(verdict, Verdict::Refused(Refused::System(_))),
                name.starts_with("mmcblk0"),
                "{name}: {verdict:?}"
            );
        }
        assert_eq!(verdicts.len(), 7);
        assert_eq!(verdicts[2], ("sdb".to_owned(), Verdict::Usable));
        let in_use = Verdict::Refused(Refused::Mounted("/media/pi/My Files".to_owned()));
        assert_eq!(verdicts[0].1, in_use, "of a disk whose partition is in use");
        assert_eq!(verdicts[1].1, in_use);
        assert!(verdicts[1].1.clone() != Verdict::Usable);
    }

    #[test]
    fn swap_makes_a_system_disk() {
        let verdict = with(|disk| {
            *disk = pi().remove(0);
            disk.children[0] = serde_json::from_str(
                r#"{"path":"/dev/sda1","type":"part","fstype":"swap","mountpoints":["[SWAP]"]}"#,
            )
            .unwrap();
        });
        assert_eq!(
            verdict,
            Verdict::Refused(Refused::System("[SWAP]".to_owned()))
        );
    }

    #[test]
    fn every_reason_is_said() {
        let has = |name: &'static str| move |d: &mut Device| d.file_system = Some(name.to_owned());
        for (verdict, words) in [
            (with(has("exfat")), "exFAT"),
            (with(has("ntfs")), "NTFS"),
            (with(has("vfat")), "FAT"),
            (with(has("ext2")), "no journal"),
            (with(has("crypto_LUKS")), "encrypted"),
            (with(has("LVM2_member")), "LVM"),
            (with(has("linux_raid_member")), "RAID"),
            (with(|d| d.file_system = None), "no file system"),
            (with(|d| d.read_only = true), "write-protected"),
            (with(|d| d.size = 1 << 20), "too small"),
            (with(|d| d.kind = "lvm".to_owned()), "fstab"),
        ] {
            let text = match verdict {
                Verdict::Usable => panic!("{words}: usable"),
                Verdict::NeedsFormat(needs) => needs.to_string(),
                Verdict::Refused(refused) => refused.to_string(),
            };
            assert!(text.contains(words), "{text}");
        }
        for good in GOOD {
            assert_eq!(with(has(good)), Verdict::Usable);
        }
        assert!(unsuitable_mount("cifs").is_some_and(|why| why.contains("network")));
        assert_eq!(unsuitable_mount("ext4"), None);
    }

    #[test]
    fn a_disk_with_partitions_is_not_taken_whole_by_mistake() {
        let mut disk = pi().remove(0);
        disk.children[0] = serde_json::from_str(
            r#"{"path":"/dev/sda1","type":"part","size":99999999999,"fstype":"ext4","uuid":"u"}"#,
        )
        .unwrap();
        let place = Path::new("/var/lib/registry");
        assert_eq!(
            judge(&disk, &disk, place),
            Verdict::NeedsFormat(NeedsFormat::Partitions(vec!["sda1".to_owned()]))
        );
        assert_eq!(judge(&disk, &disk.children[0], place), Verdict::Usable);
    }
}
