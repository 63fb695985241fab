//! What is said of drives, for people who have never mounted one.

use crate::drive::{Candidate, NeedsFormat, Presence, Setup, Status, Verdict};

pub(super) fn size(bytes: u64) -> String {
    // As the packaging of drives counts.
    match bytes {
        0..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        1_000_000_000..1_000_000_000_000 => format!("{} GB", bytes / 1_000_000_000),
        _ => format!("{:.1} TB", bytes as f64 / 1e12),
    }
}

pub(super) fn describe(candidate: &Candidate) -> String {
    let device = &candidate.device;
    let mut text = format!("{}  {}", device.path.display(), size(device.size));
    for (name, value) in [
        ("", device.model.as_deref()),
        ("", device.file_system.as_deref()),
        ("label ", device.label.as_deref()),
        ("UUID ", device.uuid.as_deref()),
        ("", candidate.speed.as_deref()),
        ("mounted at ", device.mounts().next()),
    ] {
        if let Some(value) = value.map(str::trim).filter(|value| !value.is_empty()) {
            text.push_str(&format!(", {name}{value}"));
        }
    }
    text
}

pub(super) fn advice(candidate: &Candidate) -> String {
    let path = candidate.path().display();
    match &candidate.verdict {
        Verdict::Usable => format!("can be used: registry drive use {path}"),
        Verdict::NeedsFormat(NeedsFormat::Partitions(names)) => format!(
            "has partitions: use one of them ({}), or erase them all: registry drive use {path} --format",
            names.join(", ")
        ),
        Verdict::NeedsFormat(needs) => {
            format!("{needs}. To erase it and use it: registry drive use {path} --format")
        }
        Verdict::Refused(refused) => format!("cannot be used: it {refused}"),
    }
}

pub(super) fn advice_to_format(candidate: &Candidate) -> String {
    match &candidate.verdict {
        Verdict::NeedsFormat(NeedsFormat::Partitions(names)) => format!(
            "Use one of them (/dev/{}), or say --format to erase them all",
            names.join(", /dev/")
        ),
        _ => "Say --format to erase the drive and give it ext4; what is on it is lost".to_owned(),
    }
}

/// Whether all is well, and what there is to say.
pub(super) fn report(setup: &Setup, status: &Status) -> (bool, Vec<String>) {
    let root = setup.root.display();
    let uuid = &status.expected.uuid;
    let mut lines = vec![match &status.device {
        Some(found) => format!("The images belong on {}", describe(found)),
        None => {
            format!("The images belong on the drive with the UUID {uuid}, which is not plugged in.")
        }
    }];
    let (mut well, words) = match (status.presence, &status.device) {
        (Presence::Right, _) => (
            true,
            format!("It is mounted at {root}, and the registry can use it."),
        ),
        (Presence::ReadOnly, _) => (
            false,
            format!(
                "It is mounted at {root}, but can only be read. If the kernel did that, the file system is damaged: stop the \
                 registry, unmount it (umount '{root}'), check it (fsck -f /dev/disk/by-uuid/{uuid}), and plug it in again."
            ),
        ),
        (Presence::Unfinished, _) => (
            false,
            "The move of the images to it was interrupted: run `registry drive use` with it again."
                .to_owned(),
        ),
        (Presence::Other, _) => (
            false,
            format!(
                "Something else is mounted at {root}: unmount that (umount '{root}'), and mount the right drive."
            ),
        ),
        (Presence::Broken, _) => (
            false,
            format!(
                "It is mounted at {root}, and answers with errors: the drive or its cable is broken, or was pulled."
            ),
        ),
        (Presence::NotMounted, None) => (
            false,
            "The registry serves nothing until it is: plug it in, and switch it on.".to_owned(),
        ),
        (Presence::NotMounted, Some(_)) => (
            false,
            format!(
                "It is plugged in, but not mounted at {root}. Pull it out and put it in again, or run `registry drive use` with \
                 it again."
            ),
        ),
    };
    lines.push(words);
    if let Some((total, free)) = status.space {
        lines.push(format!("{} of {} are free.", size(free), size(total)));
        if free < total / 20 {
            lines.push("That is little: delete images that are no longer needed.".to_owned());
        }
    }
    if let Some(errors) = status.errors.filter(|errors| *errors > 0) {
        well = false;
        lines.push(format!(
            "The kernel found {errors} errors in its file system. Stop the registry, unmount the drive (umount '{root}'), and check \
             it: fsck -f /dev/disk/by-uuid/{uuid}"
        ));
    }
    if let Some(aside) = &status.set_aside {
        lines.push(format!(
            "The images as they were before the move are in {aside}; to remove them: rm -r '{aside}'",
            aside = aside.display()
        ));
    }
    (well, lines)
}
