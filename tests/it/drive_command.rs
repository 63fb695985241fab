//! `registry drive`: how a drive becomes the place of the images, on a machine with drives of its own.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::Duration,
};

use crate::support::{
    image::Image,
    machine::Machine,
    seed::{Rng, seed},
    server::eventually,
    usb::{UsbDrive, run},
};

/// The content below a directory: what has to be the same after a move.
fn content(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let base = root.join("docker");
    let (mut found, mut folders) = (BTreeMap::new(), vec![base]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let below = path.strip_prefix(root).unwrap().to_owned();
                found.insert(below, fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// What a machine sees below a directory, on its own mounts.
fn content_on(machine: &Machine, root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let pid = machine.run(["sh", "-c", "readlink /proc/self/ns/mnt"]);
    assert!(pid.starts_with("mnt:"), "{pid}");
    let copy = machine.dir().join("seen");
    let _ = fs::remove_dir_all(&copy);
    let script = format!(
        "mkdir {copy} && cp -r {root}/docker {copy}/",
        copy = copy.display(),
        root = root.display()
    );
    machine.run(["sh", "-c", &script]);
    content(&copy)
}

/// Pushes through a server of the machine, and stops it.
fn fill(machine: &Machine, images: &[(&str, &Image)]) {
    let mut server = machine.server().start();
    for (tag, image) in images {
        image.push(&server.client(), "team/app", tag);
    }
    assert!(server.terminate().success());
}

#[track_caller]
fn assert_served(machine: &Machine, images: &[(&str, &Image)]) {
    let mut server = machine.server().start();
    let client = server.client();
    eventually("the images are served", || {
        (client.get("/readyz").send().status == 200).then_some(())
    });
    for (tag, image) in images {
        image.assert_pullable(&client, "team/app", tag);
    }
    assert!(server.terminate().success());
}

fn device(drive: &UsbDrive) -> &str {
    drive.device().to_str().unwrap()
}

#[track_caller]
fn must(machine: &Machine, args: &[&str]) -> String {
    let (success, said) = machine.drive(args);
    assert!(success, "{args:?}: {said}");
    said
}

#[track_caller]
fn refused(machine: &Machine, args: &[&str], reason: &str) {
    let (success, said) = machine.drive(args);
    assert!(!success, "{args:?}: {said}");
    assert!(said.contains(reason), "{args:?}: {said}");
}

#[test]
fn the_images_move_to_a_new_drive_and_are_served_from_there() {
    let machine = Machine::new().with_systemd();
    let drive = UsbDrive::blank(64);
    let (first, second, third) = (Image::new(70), Image::new(71), Image::new(72));
    fill(&machine, &[("v1", &first), ("v2", &second)]);
    let before = content(&machine.root());
    let name = device(&drive);
    refused(&machine, &["use", name], "has no file system yet");
    refused(
        &machine,
        &["use", name, "--format"],
        "nobody is here to ask",
    );
    refused(
        &machine,
        &["use", name, "--format", "--yes-erase", "/dev/sda"],
        "nothing was erased",
    );
    let said = must(&machine, &["use", name, "--format", "--yes-erase", name]);
    assert!(said.contains("rm -r"), "{said}");
    assert!(machine.is_active(), "{}", machine.systemctl_log());
    assert!(machine.systemctl_log().contains("stop registry.service"));
    assert!(
        !machine.root().join("docker").exists(),
        "seen from outside, it is the empty mount point"
    );
    assert_eq!(content_on(&machine, &machine.root()), before);
    let aside = machine.dir().join("data.before-drive");
    assert_eq!(content(&aside), before, "until somebody removes them");
    // The unit is one that systemd understands.
    let units = machine.run(["sh", "-c", "cat /etc/systemd/system/*.mount"]);
    assert!(
        units.contains(&format!("What=/dev/disk/by-uuid/{}", drive.uuid())),
        "{units}"
    );
    assert!(
        units.contains("noatime") && units.contains("LazyUnmount=yes"),
        "{units}"
    );
    let status = must(&machine, &["status"]);
    assert!(
        status.contains("the registry can use it") && status.contains("label registry"),
        "{status}"
    );
    assert_served(&machine, &[("v1", &first), ("v2", &second)]);
    fill(&machine, &[("v3", &third)]);
    // Once more does no harm; another drive is not taken beside it.
    must(&machine, &["use", name]);
    let other = UsbDrive::ext4(64);
    refused(
        &machine,
        &["use", device(&other)],
        "on another drive already",
    );
    assert_served(&machine, &[("v1", &first), ("v3", &third)]);

    // Back again, with what came since.
    let said = must(&machine, &["release", "--copy-back"]);
    assert!(said.contains("again"), "{said}");
    assert!(machine.is_active());
    assert!(!machine.expectation().exists());
    assert_served(&machine, &[("v1", &first), ("v2", &second), ("v3", &third)]);
    assert!(
        machine.root().join("docker").exists(),
        "on the machine's own disk"
    );
    let status = must(&machine, &["status"]);
    assert!(status.contains("on this machine's own disk"), "{status}");
    refused(&machine, &["release"], "nothing to release");
    let units = machine.run(["sh", "-c", "ls /etc/systemd/system"]);
    assert_eq!(units.trim(), "", "the unit is gone");
}

#[test]
fn a_drive_with_images_is_taken_up_by_another_machine() {
    let mut drive = UsbDrive::ext4(64);
    let (image, other) = (Image::new(73), Image::new(74));
    {
        let machine = Machine::new().with_systemd();
        fill(&machine, &[("v1", &image)]);
        must(&machine, &["use", device(&drive)]);
        let said = must(&machine, &["release"]);
        assert!(said.contains("begins with none"), "{said}");
        let mut server = machine.server().start();
        eventually("it begins with none", || {
            let client = server.client();
            (client.get("/readyz").send().status == 200).then_some(())
        });
        server
            .client()
            .get("/v2/team/app/tags/list")
            .send()
            .expect(404);
        server.terminate();
    }
    drive.pull();
    drive.plug();
    let machine = Machine::new();
    fill(&machine, &[("v2", &other)]);
    let before = content(&machine.root());
    refused(&machine, &["use", device(&drive)], "--keep-drive");
    assert_eq!(content(&machine.root()), before);
    let said = must(&machine, &["use", device(&drive), "--keep-drive"]);
    // Without systemd it is mounted, and what is left to do is said.
    assert!(
        said.contains("/etc/fstab") && said.contains(&drive.uuid()),
        "{said}"
    );
    assert_served(&machine, &[("v1", &image)]);
    assert_eq!(content(&machine.dir().join("data.before-drive")), before);
    must(&machine, &["release"]);
}

#[test]
fn what_cannot_be_used_is_refused_with_the_reason() {
    let machine = Machine::new();
    let drive = UsbDrive::blank(64);
    let name = device(&drive);
    for (program, args, reason) in [
        (
            "mkfs.ext4",
            &["-q", "-t", "ext2", "-O", "^has_journal", "-F"][..],
            "no journal",
        ),
        ("mkfs.vfat", &[][..], "FAT"),
        ("mkswap", &[][..], "swap space"),
    ] {
        run("wipefs", ["-a", name]);
        run(program, args.iter().copied().chain([name]));
        refused(&machine, &["use", name], reason);
    }
    run("wipefs", ["-a", name]);
    run("mkfs.ext4", ["-q", name]);
    machine.run(["mount", name, "/mnt"]);
    refused(&machine, &["use", name], "is in use at /mnt");
    refused(
        &machine,
        &["use", name, "--format", "--yes-erase", name],
        "is in use at /mnt",
    );
    refused(&machine, &["use", "/mnt"], "name the drive itself");
    machine.run(["umount", "/mnt"]);
    run("blockdev", ["--setro", name]);
    refused(&machine, &["use", name], "write-protected");
    run("blockdev", ["--setrw", name]);
    let root = machine.run(["findmnt", "-no", "SOURCE", "/"]);
    refused(
        &machine,
        &["use", root.trim()],
        "the running system is on this disk",
    );
    refused(&machine, &["use", "//nas/share"], "network share");
    refused(&machine, &["use", "nas:/share"], "network share");
    refused(&machine, &["use", "/dev/nothing"], "registry drive list");
    // A registry that serves the directory is not pulled out from under its clients where nobody can stop it.
    let server = machine.server().start();
    refused(&machine, &["use", name], "stop it first");
    server.client().get("/readyz").send().expect(200);
    assert!(!machine.expectation().exists());
}

#[test]
fn a_disk_with_partitions_is_used_by_partition_or_erased_whole() {
    let machine = Machine::new();
    let drive = UsbDrive::blank(128);
    let name = device(&drive);
    run(
        "sh",
        [
            "-c",
            &format!("printf 'label: gpt\\n,64M\\n,\\n' | sfdisk -q {name}"),
        ],
    );
    run("partx", ["-u", name]);
    let second = format!("{name}p2");
    eventually("the kernel knows the partitions", || {
        Path::new(&second).exists().then_some(())
    });
    refused(&machine, &["use", name], "Use one of them");
    run("mkfs.ext4", ["-q", &second]);
    must(&machine, &["use", &second]);
    refused(
        &machine,
        &["use", name, "--format", "--yes-erase", name],
        "is in use",
    );
    must(&machine, &["release"]);
    must(&machine, &["use", name, "--format", "--yes-erase", name]);
    let status = must(&machine, &["status"]);
    assert!(status.contains(&format!("{name}  ")), "{status}");
    must(&machine, &["release"]);
}

#[test]
fn a_drive_without_room_is_not_taken() {
    let machine = Machine::new();
    let drive = UsbDrive::ext4(34);
    let large = Image::builder(75).layer_size(40_000_000).build();
    fill(&machine, &[("v1", &large)]);
    refused(&machine, &["use", device(&drive)], "MB of room");
    assert_served(&machine, &[("v1", &large)]);
}

#[test]
fn without_a_terminal_nothing_is_asked() {
    let machine = Machine::new();
    refused(&machine, &[], "registry drive use DEVICE");
    let list = must(&machine, &["list"]);
    assert!(
        !list.contains("/dev/loop"),
        "only what people call drives: {list}"
    );
}

#[test]
fn on_a_terminal_the_name_has_to_be_typed_before_anything_is_erased() {
    let machine = Machine::new();
    let drive = UsbDrive::blank(64);
    let name = device(&drive);
    let format = ["use", name, "--format"];
    let (success, said) = machine.drive_on_terminal(&format, &["yes"]);
    assert!(
        !success && said.contains("EVERYTHING") && said.contains("nothing was erased"),
        "{said}"
    );
    refused(&machine, &["use", name], "has no file system yet");
    let (success, said) = machine.drive_on_terminal(&format, &[name]);
    assert!(success && said.contains("The images are on"), "{said}");
    must(&machine, &["release"]);
}

/// What `registry drive` alone asks, and what it does with the answers.
#[test]
fn the_wizard_shows_the_drives_and_takes_the_chosen_one() {
    let blank = UsbDrive::blank(64);
    let mut good = UsbDrive::ext4(64);
    let mut busy = UsbDrive::ext4(64);
    let (first, second, third) = (device(&blank), device(&good), device(&busy));
    let machine = Machine::new().with_systemd().with_drives(&[
        Path::new(first),
        Path::new(second),
        Path::new(third),
    ]);
    let (first, second) = (first.to_owned(), second.to_owned());
    let third = third.to_owned();
    let elsewhere = machine.dir().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    machine.run(["mount".as_ref(), third.as_ref(), elsewhere.as_os_str()]);
    let image = Image::new(76);
    fill(&machine, &[("v1", &image)]);
    let before = content(&machine.root());
    let wizard = |answers: &[&str]| machine.drive_on_terminal(&[], answers);

    // Nothing, nonsense and a number that is not there change nothing.
    for answer in ["", "0", "3", "all", "-1"] {
        let (success, said) = wizard(&[answer]);
        assert!(success && said.contains("Nothing was changed."), "{said}");
        for line in [
            format!("[1] {first}  67 MB, Stick"),
            "has no file system yet: it has to be erased first".to_owned(),
            format!("[2] {second}  67 MB, Stick, ext4"),
            format!("{third}  67 MB, Stick, ext4"),
            format!("is in use at {}", elsewhere.display()),
        ] {
            assert!(said.contains(&line), "{line}: {said}");
        }
    }
    assert!(!machine.expectation().exists());

    // The one without a file system: its name, or nothing happens.
    let (success, said) = wizard(&["1", "yes"]);
    assert!(!success && said.contains("nothing was erased"), "{said}");
    assert!(!machine.expectation().exists());
    assert_eq!(content(&machine.root()), before);
    let (success, said) = wizard(&["1", &first]);
    assert!(success && said.contains("EVERYTHING"), "{said}");
    assert!(said.contains(&format!("The images are on {first} now")));
    assert_eq!(content_on(&machine, &machine.root()), before);

    // With a drive in use it asks nothing, and says how to go back.
    let (success, said) = wizard(&[]);
    assert!(
        success && said.contains("the registry can use it"),
        "{said}"
    );
    assert!(said.contains("registry drive release"), "{said}");
    must(&machine, &["release", "--copy-back"]);

    // The one that is ready is taken as it is.
    let uuid = good.uuid();
    let (success, said) = wizard(&["2"]);
    assert!(success && !said.contains("EVERYTHING"), "{said}");
    assert_eq!(good.uuid(), uuid, "it was not formatted");
    assert_served(&machine, &[("v1", &image)]);
    must(&machine, &["release", "--copy-back"]);
    assert_served(&machine, &[("v1", &image)]);
    machine.run(["umount".as_ref(), elsewhere.as_os_str()]);
    good.pull();
    busy.pull();
}

#[test]
fn the_wizard_says_so_where_no_drive_can_be_used() {
    let drive = UsbDrive::ext4(64);
    let machine = Machine::new().with_drives(&[drive.device()]);
    let elsewhere = machine.dir().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    machine.run([
        "mount".as_ref(),
        device(&drive).as_ref(),
        elsewhere.as_os_str(),
    ]);
    let (success, said) = machine.drive_on_terminal(&[], &[]);
    assert!(
        !success && said.contains("no drive here that could be used"),
        "{said}"
    );
    assert!(said.contains("unmount it first"), "{said}");
    machine.run(["umount".as_ref(), elsewhere.as_os_str()]);
}

/// Where the images are, whatever was interrupted: complete in the directory until the switch, complete on the drive after it.
#[track_caller]
fn assert_nothing_lost(
    machine: &Machine,
    drive: &mut UsbDrive,
    before: &BTreeMap<PathBuf, Vec<u8>>,
    when: &str,
) {
    if machine.expectation().exists() {
        drive.with_mounted(|root| assert!(content(root) == *before, "{when}: on the drive"));
    } else {
        assert!(
            content(&machine.root()) == *before,
            "{when}: in the directory"
        );
    }
}

/// Each call that changes a disk is the last one of a first attempt; the second one finishes.
#[test]
fn a_move_killed_at_any_step_goes_on() {
    let image = Image::new(76);
    let template = Machine::new();
    fill(&template, &[("v1", &image)]);
    let before = content(&template.root());
    for call in ["rename", "fsync", "syncfs", "mount,umount2"] {
        for n in 1.. {
            let machine = Machine::new().with_systemd();
            fs::remove_dir(machine.root()).unwrap();
            run("cp", [Path::new("-a"), &template.root(), &machine.root()]);
            let mut drive = UsbDrive::ext4(40);
            let name = device(&drive).to_owned();
            let mut args: Vec<std::ffi::OsString> =
                vec!["strace".into(), "-f".into(), "-qq".into()];
            args.push(format!("-einject={call}:signal=KILL:when={n}").into());
            args.push(format!("-etrace={call}").into());
            args.push("-o".into());
            args.push(machine.dir().join("strace.log").into());
            args.extend(machine.drive_args(&["use", &name]));
            let output = machine.command(&args).output().unwrap();
            let killed = !output.status.success();
            let when = format!("{call} {n}");
            if killed {
                let log = fs::read_to_string(machine.dir().join("strace.log")).unwrap();
                assert!(
                    log.contains("SIGKILL"),
                    "{when}: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
                assert_nothing_lost(&machine, &mut drive, &before, &when);
                must(&machine, &["use", &name]);
            }
            assert!(content_on(&machine, &machine.root()) == before, "{when}");
            assert!(machine.is_active(), "{when}");
            if n % 7 == 1 {
                assert_served(&machine, &[("v1", &image)]);
            }
            if !killed {
                eprintln!("{call}: {} steps", n - 1);
                assert!(n > 1, "{call}: strace killed nothing");
                break;
            }
        }
    }
}

/// As above at moments that nobody chose, with a server in between, as a reboot would start it.
#[test]
fn a_move_killed_again_and_again_arrives() {
    let mut rng = Rng::new(seed("a_move_killed_again_and_again_arrives"));
    let machine = Machine::new().with_systemd();
    let images: Vec<(String, Image)> = (0..6)
        .map(|n| {
            (
                format!("v{n}"),
                Image::builder(80 + n).layer_size(1_500_000).build(),
            )
        })
        .collect();
    let images: Vec<(&str, &Image)> = images
        .iter()
        .map(|(tag, image)| (tag.as_str(), image))
        .collect();
    fill(&machine, &images);
    let drive = UsbDrive::ext4(128);
    let mut attempts = 0;
    loop {
        let mut child = machine
            .drive_command(&["use", device(&drive)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        if attempts < 12 {
            thread::sleep(Duration::from_millis(rng.below(400)));
            child.kill().unwrap();
        }
        attempts += 1;
        if child.wait().unwrap().success() {
            break;
        }
        assert!(attempts < 40, "it does not arrive");
        let mut server = machine.server().start();
        let client = server.client();
        if client.get("/readyz").send().status == 200 {
            for (tag, image) in &images {
                image.assert_pullable(&client, "team/app", tag);
            }
        }
        server.kill();
    }
    assert_served(&machine, &images);
    let status = must(&machine, &["status"]);
    assert!(status.contains("the registry can use it"), "{status}");
}
