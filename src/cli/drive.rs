//! `registry drive`: the images on an external drive.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Subcommand;

use crate::config::Config;
use crate::drive::{
    self, Both, Candidate, Done, Images, NeedsFormat, Presence, Setup, Status, Verdict,
};

/// The configuration of the package, read where no other is named.
const CONFIG: &str = "/etc/registry/config.yml";

#[derive(Subcommand)]
pub(super) enum DriveCommand {
    /// Show the drives of this machine, and which of them can hold the images
    List,
    /// Keep the images on a drive from now on; those that are here already move there
    ///
    /// Interrupted, by you or by a power cut, it goes on where it stopped when it is run again. Until all images are on the
    /// drive and were read back from it, the registry keeps the ones it has.
    Use {
        /// The drive, as `registry drive list` names it: /dev/sda1
        device: PathBuf,
        /// Erase the drive first, whatever is on it; asks for its name once more
        #[arg(long)]
        format: bool,
        /// The answer to that question, for scripts: the same DEVICE again
        #[arg(long, value_name = "DEVICE", requires = "format")]
        yes_erase: Option<PathBuf>,
        /// Where there are images both here and on the drive: serve the drive's, and set the others aside
        #[arg(long, conflicts_with = "format")]
        keep_drive: bool,
    },
    /// Say which drive the images are on, and how it is
    Status,
    /// Keep the images on this machine's own disk again; those on the drive stay there
    Release {
        /// Copy the images from the drive to this machine first
        #[arg(long)]
        copy_back: bool,
    },
}

/// Runs a subcommand, or asks what to do.
pub(super) fn run(command: Option<DriveCommand>, config: Option<&Path>) -> ExitCode {
    let result = setup(config).and_then(|setup| match command {
        None => wizard(&setup),
        Some(DriveCommand::List) => list(&setup),
        Some(DriveCommand::Use {
            device,
            format,
            yes_erase,
            keep_drive,
        }) => {
            let both = if keep_drive {
                Both::TakeTheDrives
            } else {
                Both::Refuse
            };
            use_drive(&setup, &device, format, yes_erase.as_deref(), both)
        }
        Some(DriveCommand::Status) => status(&setup),
        Some(DriveCommand::Release { copy_back }) => release(&setup, copy_back),
    });
    result.unwrap_or_else(|error| {
        eprintln!("registry: {error:#}");
        ExitCode::FAILURE
    })
}

fn setup(file: Option<&Path>) -> anyhow::Result<Setup> {
    let default = Path::new(CONFIG);
    let file = file.or_else(|| default.exists().then_some(default));
    let config = match Config::load(file, super::config::variables()) {
        Ok(config) => config,
        Err(errors) => {
            super::config::fail(file, &errors);
            bail!("the configuration says where the images are, and has errors");
        }
    };
    let Some(expectation) = config.storage.drive else {
        bail!("storage.filesystem.drive is empty: nothing could be remembered of a drive");
    };
    let root = std::path::absolute(&config.storage.root)?;
    // As systemd wants it, and as the kernel names mount points.
    let root = root.components().collect();
    Ok(Setup { root, expectation })
}

fn must_be_root() -> anyhow::Result<()> {
    if !nix::unistd::Uid::effective().is_root() {
        bail!("only root can do that: put sudo before the command");
    }
    Ok(())
}

fn say(text: &str) {
    println!("{text}");
    let _ = io::stdout().flush(); // progress, also into a pipe
}

fn size(bytes: u64) -> String {
    // As the packaging of drives counts.
    match bytes {
        0..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        1_000_000_000..1_000_000_000_000 => format!("{} GB", bytes / 1_000_000_000),
        _ => format!("{:.1} TB", bytes as f64 / 1e12),
    }
}

fn describe(candidate: &Candidate) -> String {
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

fn advice(candidate: &Candidate) -> String {
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

fn list(setup: &Setup) -> anyhow::Result<ExitCode> {
    let found = drive::candidates(&drive::list()?, &setup.root);
    if found.is_empty() {
        say("This machine has no drives that could be used. Is yours plugged in, and switched on?");
    }
    for candidate in &found {
        say(&describe(candidate));
        say(&format!("    {}", advice(candidate)));
    }
    Ok(ExitCode::SUCCESS)
}

fn use_drive(
    setup: &Setup,
    device: &Path,
    format: bool,
    confirmed: Option<&Path>,
    both: Both,
) -> anyhow::Result<ExitCode> {
    refuse_what_is_no_drive(device)?;
    must_be_root()?;
    let candidate = look_at(setup, device)?;
    let candidate = match &candidate.verdict {
        Verdict::Refused(refused) => bail!("{} cannot be used: it {refused}", device.display()),
        Verdict::NeedsFormat(needs) if !format => {
            bail!(
                "{}: it {needs}. {}",
                device.display(),
                advice_to_format(&candidate)
            )
        }
        Verdict::Usable if !format => candidate,
        _ if candidate.device.mounts().next().is_some() => {
            bail!(
                "{} is in use and is not erased; give it up first: registry drive release",
                device.display()
            )
        }
        _ => {
            confirm(&candidate, confirmed)?;
            drive::format(&candidate.device, &say)?;
            look_at(setup, device)?
        }
    };
    let done = drive::adopt(setup, &candidate.device, both, &say)?;
    say(&format!(
        "The images are on {} now, at {}.",
        candidate.path().display(),
        setup.root.display()
    ));
    if let Some(aside) = &done.set_aside {
        say(&format!(
            "Those of before are still in {aside}. When you have seen that all is well, remove them: rm -r '{aside}'",
            aside = aside.display()
        ));
    }
    by_hand(&done);
    Ok(ExitCode::SUCCESS)
}

fn by_hand(done: &Done) {
    for sentence in &done.by_hand {
        say(&format!("Left to do: {sentence}"));
    }
}

fn advice_to_format(candidate: &Candidate) -> String {
    match &candidate.verdict {
        Verdict::NeedsFormat(NeedsFormat::Partitions(names)) => format!(
            "Use one of them (/dev/{}), or say --format to erase them all",
            names.join(", /dev/")
        ),
        _ => "Say --format to erase the drive and give it ext4; what is on it is lost".to_owned(),
    }
}

/// A network share or a folder is not a drive, and it helps to say why.
fn refuse_what_is_no_drive(device: &Path) -> anyhow::Result<()> {
    let text = device.to_string_lossy();
    if text.starts_with("//") || text.contains(":/") {
        bail!(
            "{text} is a network share: it may vanish while a push is being answered, and its locks and flushes cannot be relied \
             on. Use a drive that is plugged into this machine: registry drive list"
        );
    }
    if !device.exists() {
        bail!("there is no {text}; the drives of this machine: registry drive list");
    }
    if device.is_dir() {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let why = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|fields| fields.get(1).map(Path::new) == Some(device))
            .and_then(|fields| drive::unsuitable_mount(fields.get(2)?));
        match why {
            Some(why) => bail!("{text} cannot be used: {why}"),
            None => bail!("{text} is a folder; name the drive itself: registry drive list"),
        }
    }
    Ok(())
}

fn look_at(setup: &Setup, device: &Path) -> anyhow::Result<Candidate> {
    let devices = drive::list()?;
    let (disk, found) = drive::find(&devices, device).with_context(|| {
        format!(
            "{} is no drive; those of this machine: registry drive list",
            device.display()
        )
    })?;
    Ok(drive::candidate(disk, found, &setup.root))
}

/// Everything on the drive is about to be lost.
fn confirm(candidate: &Candidate, confirmed: Option<&Path>) -> anyhow::Result<()> {
    let path = candidate.path();
    if let Some(confirmed) = confirmed {
        if confirmed.canonicalize().ok().as_ref() == Some(path) || confirmed == path {
            return Ok(());
        }
        bail!(
            "--yes-erase names {}, and the drive is {}: nothing was erased",
            confirmed.display(),
            path.display()
        );
    }
    if !io::stdin().is_terminal() {
        bail!(
            "nobody is here to ask. For scripts: registry drive use {path} --format --yes-erase {path}",
            path = path.display()
        );
    }
    say(&describe(candidate));
    for part in &candidate.device.children {
        let label = part.label.as_deref().unwrap_or("without a label");
        say(&format!(
            "    {}  {}, {label}",
            part.path.display(),
            size(part.size)
        ));
    }
    let answer = ask(&format!(
        "EVERYTHING on it will be lost. To go on, type its name ({}): ",
        path.display()
    ))?;
    if Path::new(answer.trim()) != path {
        bail!("that is not its name: nothing was erased");
    }
    Ok(())
}

fn ask(question: &str) -> anyhow::Result<String> {
    print!("{question}");
    io::stdout().flush()?;
    let mut answer = String::new();
    if io::stdin().read_line(&mut answer)? == 0 {
        bail!("no answer came: nothing was changed");
    }
    Ok(answer.trim().to_owned())
}

fn wizard(setup: &Setup) -> anyhow::Result<ExitCode> {
    if !io::stdin().is_terminal() {
        eprintln!(
            "registry drive asks questions, and nobody is here to answer them. For scripts:\n\
             \x20   registry drive list\n\
             \x20   registry drive use DEVICE [--format --yes-erase DEVICE]\n\
             \x20   registry drive status\n\
             \x20   registry drive release [--copy-back]"
        );
        return Ok(ExitCode::from(2));
    }
    if drive::status(setup)?.is_some() {
        status(setup)?;
        say("\nTo keep the images on this machine's own disk again: registry drive release");
        return Ok(ExitCode::SUCCESS);
    }
    must_be_root()?;
    let found = drive::candidates(&drive::list()?, &setup.root);
    let (possible, refused): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|candidate| !matches!(candidate.verdict, Verdict::Refused(_)));
    for candidate in &refused {
        say(&format!(
            "    {}\n        {}",
            describe(candidate),
            advice(candidate)
        ));
    }
    if possible.is_empty() {
        say("There is no drive here that could be used. Plug one in, and run this again.");
        return Ok(ExitCode::FAILURE);
    }
    for (n, candidate) in possible.iter().enumerate() {
        say(&format!("[{}] {}", n + 1, describe(candidate)));
        if let Verdict::NeedsFormat(needs) = &candidate.verdict {
            say(&format!("        {needs}: it has to be erased first"));
        }
    }
    let answer =
        ask("Which drive shall hold the images? Its number, or nothing to leave all as it is: ")?;
    let Some(chosen) = answer
        .parse::<usize>()
        .ok()
        .and_then(|n| possible.get(n.checked_sub(1)?))
    else {
        say("Nothing was changed.");
        return Ok(ExitCode::SUCCESS);
    };
    let format = matches!(chosen.verdict, Verdict::NeedsFormat(_));
    use_drive(setup, chosen.path(), format, None, Both::Refuse)
}

fn status(setup: &Setup) -> anyhow::Result<ExitCode> {
    let Some(status) = drive::status(setup)? else {
        say(&format!(
            "The images are in {}, on this machine's own disk. Drives that could hold them: registry drive list",
            setup.root.display()
        ));
        return Ok(ExitCode::SUCCESS);
    };
    let (well, lines) = report(setup, &status);
    lines.iter().for_each(|line| say(line));
    Ok(if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Whether all is well, and what there is to say.
fn report(setup: &Setup, status: &Status) -> (bool, Vec<String>) {
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

fn release(setup: &Setup, copy_back: bool) -> anyhow::Result<ExitCode> {
    must_be_root()?;
    let images = if copy_back {
        Images::ComeBack
    } else {
        Images::StayThere
    };
    let done = drive::release(setup, images, &say)?;
    match images {
        Images::ComeBack => say(&format!(
            "The images are in {} again. Those on the drive are still there too.",
            setup.root.display()
        )),
        Images::StayThere => {
            say(&format!(
                "The registry keeps its images in {} again, and begins with none. Those on the drive are still there: `registry \
                 drive use` takes them up again, here or on another machine.",
                setup.root.display()
            ));
            if let Some(aside) = &done.set_aside {
                say(&format!(
                    "Those of before the drive are in {}. To serve them, stop the registry and move that directory to {}.",
                    aside.display(),
                    setup.root.display()
                ));
            }
        }
    }
    by_hand(&done);
    Ok(ExitCode::SUCCESS)
}
