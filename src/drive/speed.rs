//! How fast a disk is attached.

use std::fs;
use std::path::Path;

use super::lsblk::Device;

/// In words; `None` where the kernel does not say.
pub(super) fn of(disk: &Device) -> Option<String> {
    let node = Path::new("/sys/class/block").join(disk.name());
    let megabits = node.canonicalize().ok().and_then(|path| usb_speed(&path));
    words(megabits, disk.transport.as_deref(), disk.name())
}

/// Of the USB device that a block device is on, in Mb/s: the first folder above it that has a speed and is a USB device.
fn usb_speed(device: &Path) -> Option<u32> {
    let usb = device
        .ancestors()
        .find(|folder| folder.join("speed").exists() && folder.join("idVendor").exists())?;
    let text = fs::read_to_string(usb.join("speed")).ok()?;
    text.trim().parse::<f32>().ok().map(|speed| speed as u32)
}

fn words(usb: Option<u32>, transport: Option<&str>, name: &str) -> Option<String> {
    Some(match (usb, transport) {
        (Some(megabits @ 0..480), _) => format!("USB 1 ({megabits} Mb/s: far too slow)"),
        (Some(480), _) => {
            "USB 2 (480 Mb/s: slow; a blue USB 3 port is ten times faster)".to_owned()
        }
        (Some(megabits), _) => format!("USB 3 ({} Gb/s)", megabits / 1000),
        (None, Some("usb")) => "USB".to_owned(),
        (None, Some("sata" | "ata")) => "SATA".to_owned(),
        (None, Some("nvme")) => "NVMe".to_owned(),
        (None, Some("mmc")) => "SD card".to_owned(),
        (None, _) if name.starts_with("mmcblk") => "SD card".to_owned(),
        (None, Some(other)) => other.to_owned(),
        (None, None) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_speed_is_that_of_the_usb_device_and_not_of_something_above_it() {
        let root = tempfile::tempdir().unwrap();
        let disk = root.path().join("usb2/2-1/2-1:1.0/host0/block/sda");
        fs::create_dir_all(&disk).unwrap();
        let usb = root.path().join("usb2/2-1");
        fs::write(usb.join("speed"), "5000\n").unwrap();
        assert_eq!(
            usb_speed(&disk),
            None,
            "what has no vendor is no USB device"
        );
        fs::write(usb.join("idVendor"), "0bda\n").unwrap();
        fs::write(root.path().join("usb2/speed"), "10000\n").unwrap();
        fs::write(root.path().join("usb2/idVendor"), "1d6b\n").unwrap();
        assert_eq!(usb_speed(&disk), Some(5000));
        fs::write(usb.join("speed"), "1.5\n").unwrap();
        assert_eq!(usb_speed(&disk), Some(1));
    }

    #[test]
    fn speeds_have_the_names_that_ports_have() {
        for (usb, transport, name, said) in [
            (Some(480), Some("usb"), "sda", "USB 2"),
            (Some(5000), Some("usb"), "sda", "USB 3 (5 Gb/s)"),
            (Some(10_000), Some("usb"), "sda", "USB 3 (10 Gb/s)"),
            (Some(12), Some("usb"), "sda", "USB 1"),
            (None, Some("nvme"), "nvme0n1", "NVMe"),
            (None, Some("sata"), "sda", "SATA"),
            (None, None, "mmcblk0", "SD card"),
        ] {
            let words = words(usb, transport, name).unwrap();
            assert!(words.starts_with(said), "{words}");
        }
        assert_eq!(words(None, None, "vda"), None);
    }
}
