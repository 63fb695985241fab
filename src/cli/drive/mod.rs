//! `registry drive`: the images on an external drive.

mod words;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Subcommand;

use crate::config::Config;
use crate::drive::{self, Both, Candidate, Done, Images, Setup, Verdict};
use words::{advice, advice_to_format, describe, report, size};

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
    let config = match Config::load(file, crate::cli::config::variables()) {
        Ok(config) => config,
        Err(errors) => {
            crate::cli::config::fail(file, &errors);
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
        _ if candidate.device.is_mounted() => {
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
