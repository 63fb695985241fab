//! The systemd mount unit of the drive.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Where units of the administrator go.
pub(super) const FOLDER: &str = "/etc/systemd/system";
/// Device names are escaped as paths are; the dash in `by-uuid` too.
const BY_UUID: &str = "/dev/disk/by-uuid";

/// A path as systemd writes it in the name of a unit (systemd.unit(5), "String Escaping for Inclusion in Unit Names").
pub(super) fn escape(path: &Path) -> String {
    let mut escaped = String::new();
    let mut parts = path
        .as_os_str()
        .as_bytes()
        .split(|b| *b == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .peekable();
    if parts.peek().is_none() {
        return "-".to_owned();
    }
    for part in parts {
        if !escaped.is_empty() {
            escaped.push('-');
        }
        for byte in part {
            match byte {
                b'.' if escaped.is_empty() => escaped.push_str("\\x2e"),
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'.' => {
                    escaped.push(char::from(*byte));
                }
                other => escaped.push_str(&format!("\\x{other:02x}")),
            }
        }
    }
    escaped
}

/// The unit that mounts at `place`; systemd insists on this name.
pub(super) fn name(place: &Path) -> String {
    format!("{}.mount", escape(place))
}

fn device_unit(uuid: &str) -> String {
    escape(&Path::new(BY_UUID).join(uuid))
}

/// Owners and device files of another machine's making mean nothing here; an error must not go on being written over.
pub(super) fn options(file_system: &str) -> &'static str {
    match file_system {
        "ext4" => "noatime,nodev,nosuid,errors=remount-ro",
        _ => "noatime,nodev,nosuid",
    }
}

/// Mounted whenever the drive is plugged in, at boot or later: the device pulls the mount in, nobody else waits for it, and
/// so a machine boots at once without its drive. When the device goes, the mount goes, however busy it is, so that the next
/// plugging in finds its place free.
pub(super) fn text(uuid: &str, place: &Path, file_system: &str) -> String {
    let device = device_unit(uuid);
    format!(
        "# Written by `registry drive use`; `registry drive release` removes it.\n\
         [Unit]\n\
         Description=The drive with the registry's images\n\
         Wants=systemd-fsck@{device}.service\n\
         After=systemd-fsck@{device}.service\n\
         Before=registry.service\n\
         \n\
         [Mount]\n\
         What={BY_UUID}/{uuid}\n\
         Where={place}\n\
         Type={file_system}\n\
         Options={options}\n\
         LazyUnmount=yes\n\
         TimeoutSec=90\n\
         \n\
         [Install]\n\
         WantedBy={device}.device\n",
        // `%` begins a specifier.
        place = place.display().to_string().replace('%', "%%"),
        options = options(file_system),
    )
}

/// The line of `/etc/fstab` that does nearly the same, for machines without systemd.
pub(super) fn fstab_line(uuid: &str, place: &Path, file_system: &str) -> String {
    let place = place.display().to_string().replace(' ', "\\040");
    format!(
        "UUID={uuid} {place} {file_system} {},nofail,x-systemd.device-timeout=10s 0 2",
        options(file_system)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    #[test]
    fn names_are_those_of_systemd() {
        for (path, escaped) in [
            ("/", "-"),
            ("/var/lib/registry", "var-lib-registry"),
            ("/var//lib/registry/", "var-lib-registry"),
            ("/srv/my-images", "srv-my\\x2dimages"),
            ("/.hidden/a.b", "\\x2ehidden-a.b"),
            ("/ä b", "\\xc3\\xa4\\x20b"),
        ] {
            assert_eq!(escape(Path::new(path)), escaped);
        }
        assert_eq!(device_unit("1b2c-3d"), "dev-disk-by\\x2duuid-1b2c\\x2d3d");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn systemd_escape_agrees(path in "(/[-a-zA-Z0-9:_ .@%ä\\\\]{1,8}){1,4}") {
            prop_assume!(!path.split('/').any(|part| [".", ".."].contains(&part)));
            if let Ok(output) = Command::new("systemd-escape").args(["--path", "--", &path]).output() {
                let theirs = String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned();
                prop_assert_eq!(escape(Path::new(&path)), theirs);
            }
        }
    }

    #[test]
    fn the_unit_is_by_uuid_and_waited_for_by_nobody() {
        let text = text("aa-bb", Path::new("/var/lib/registry"), "ext4");
        for line in [
            "What=/dev/disk/by-uuid/aa-bb",
            "Where=/var/lib/registry",
            "Type=ext4",
            "Options=noatime,nodev,nosuid,errors=remount-ro",
            "LazyUnmount=yes",
            "WantedBy=dev-disk-by\\x2duuid-aa\\x2dbb.device",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(!text.contains("local-fs.target"));
        let line = fstab_line("aa-bb", Path::new("/srv/a b"), "xfs");
        assert_eq!(
            line,
            "UUID=aa-bb /srv/a\\040b xfs noatime,nodev,nosuid,nofail,x-systemd.device-timeout=10s 0 2"
        );
    }
}
