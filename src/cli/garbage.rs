//! `registry garbage-collect [CONFIG]`: gets back the space of what nothing refers to, from the running server or, when
//! none runs, from the tree itself.

use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::unistd::{Gid, Uid, geteuid, setgid, setgroups, setuid};

use super::attach::alone;
use crate::config::Config;
use crate::control::{CallError, Request, call};
use crate::maintenance::{Collected, Event, collect};
use crate::registry::Scope;
use crate::storage::control_socket;

/// What the command line asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) dry_run: bool,
    pub(crate) untagged: bool,
    pub(crate) quiet: bool,
}

/// # Errors
/// The tree is in use by a server that cannot be reached, or cannot be read.
pub(crate) fn collect_garbage(file: Option<&Path>, options: Options) -> anyhow::Result<ExitCode> {
    let config = match Config::load(file, super::config::variables()) {
        Ok(config) => config,
        Err(errors) => return Ok(super::config::fail(file, &errors)),
    };
    let root = &config.storage.root;
    if !root.is_dir() {
        bail!(
            "{}: is no directory; storage.filesystem.rootdirectory says where the images are",
            root.display()
        );
    }
    let mut screen = Screen::new(options.quiet, config.registry.gc.grace);
    let request = Request::GarbageCollect {
        dry_run: options.dry_run,
        untagged: options.untagged,
    };
    match call(&control_socket(root), &request, |event| screen.show(event)) {
        Ok(()) => return Ok(screen.end()),
        Err(CallError::NoServer) => {}
        Err(e) => return Err(e.into()),
    }
    act_as_owner_of(root)?;
    let scope = Scope {
        dry_run: options.dry_run,
        untagged: options.untagged,
        alone: true,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let registry = runtime
        .block_on(alone(&config))
        .context("no server was reached on its control socket")?;
    runtime.block_on(async {
        let (events, mut told) = tokio::sync::mpsc::channel(1);
        let show = async {
            while let Some(event) = told.recv().await {
                screen.show(event);
            }
        };
        tokio::join!(collect(registry, scope, events), show);
    });
    Ok(screen.end())
}

/// Root would leave files in the tree that the server's own user cannot change.
pub(super) fn act_as_owner_of(root: &Path) -> anyhow::Result<()> {
    let owner = std::fs::metadata(root)?;
    if !geteuid().is_root() || owner.uid() == 0 {
        return Ok(());
    }
    setgroups(&[Gid::from_raw(owner.gid())])
        .and_then(|()| setgid(Gid::from_raw(owner.gid())))
        .and_then(|()| setuid(Uid::from_raw(owner.uid())))
        .with_context(|| format!("cannot act as the owner of {}", root.display()))
}

/// Says what happens: what was removed and the outcome to whoever reads the output, progress to who sits before it.
struct Screen {
    quiet: bool,
    grace: Duration,
    is_terminal: bool,
    outcome: ExitCode,
}

impl Screen {
    fn new(quiet: bool, grace: Duration) -> Self {
        Screen {
            quiet,
            grace,
            is_terminal: io::stderr().is_terminal(),
            outcome: ExitCode::FAILURE,
        }
    }

    fn show(&mut self, event: Event) {
        match event {
            Event::Failed { reason } => {
                self.progress("");
                eprintln!("registry: {reason}");
            }
            Event::Collected(collected) => {
                self.outcome = ExitCode::SUCCESS;
                self.progress("");
                if !self.quiet {
                    self.say(&summary(&collected, self.grace));
                }
                for doubt in &collected.doubts {
                    eprintln!("warning: {doubt}");
                }
            }
            _ if self.quiet => {}
            Event::Checking { .. } | Event::Finding(_) | Event::Verified(_) => {}
            Event::Progress {
                repositories,
                manifests,
                blobs,
                bytes,
            } => self.progress(&format!(
                "{repositories} repositories, {manifests} manifests; {blobs} blobs, {}",
                size(bytes)
            )),
            Event::Blob { digest, bytes } => self.say(&format!("blob {digest} {}", size(bytes))),
            Event::Manifest { repository, digest } => {
                self.say(&format!("untagged manifest {repository}@{digest}"));
            }
            Event::Repository { repository } => self.say(&format!("emptied {repository}")),
            Event::Early { seconds } => self.say(&format!(
                "nothing can be removed for another {}: the server cannot know what its clients were told before it \
                 started (gc.grace)",
                span(seconds)
            )),
        }
    }

    fn say(&self, line: &str) {
        self.progress("");
        let _ = writeln!(io::stdout(), "{line}"); // a reader that went away (`| head`) is no failure
    }

    /// On a line of its own that the next one takes the place of.
    fn progress(&self, text: &str) {
        if self.is_terminal && !self.quiet {
            let _ = write!(io::stderr(), "\r\x1b[K{text}");
        }
    }

    fn end(self) -> ExitCode {
        self.outcome
    }
}

fn summary(collected: &Collected, grace: Duration) -> String {
    let Collected { blobs, bytes, .. } = collected;
    let verb = if collected.dry_run {
        "would free"
    } else {
        "freed"
    };
    let mut text = format!("{verb} {}: {}", size(*bytes), count(*blobs, "blob"));
    if collected.untagged > 0 {
        text += &format!(", {} without a tag", count(collected.untagged, "manifest"));
    }
    if collected.emptied > 0 {
        let emptied = match collected.emptied {
            1 => "1 repository that is empty now".to_owned(),
            n => format!("{n} repositories that are empty now"),
        };
        text += &format!(", {emptied}");
    }
    text += &format!("\nin use: {}", count(collected.kept, "blob"));
    if collected.young_blobs > 0 {
        text += &format!(
            "\nleft for now: {} with {} that nothing refers to, since clients may be about to use them (gc.grace: {})",
            count(collected.young_blobs, "blob"),
            size(collected.young_bytes),
            span(grace.as_secs())
        );
    }
    text
}

fn count(n: u64, what: &str) -> String {
    if n == 1 {
        format!("1 {what}")
    } else {
        format!("{n} {what}s")
    }
}

/// As disks are sold: 1 GB is 1000 MB.
pub(super) fn size(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, "B");
    for larger in ["kB", "MB", "GB", "TB"] {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    if unit == "B" || value >= 99.95 {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h", seconds.div_ceil(3600)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_read_well() {
        let sizes = [
            0,
            999,
            1000,
            1234,
            99_949,
            99_950,
            999_499,
            999_500,
            31_000_000_000,
        ];
        let read = sizes.map(size).join(", ");
        assert_eq!(
            read,
            "0 B, 999 B, 1.0 kB, 1.2 kB, 99.9 kB, 100 kB, 999 kB, 1.0 MB, 31.0 GB"
        );
        assert_eq!(
            [0, 119, 121, 3600, 7200].map(span).join(", "),
            "0 s, 119 s, 3 min, 60 min, 2 h"
        );
    }

    #[test]
    fn the_summary_says_what_was_and_what_was_not_done() {
        let collected = Collected {
            dry_run: true,
            blobs: 1,
            bytes: 2_500_000,
            untagged: 2,
            emptied: 1,
            kept: 7,
            young_blobs: 3,
            young_bytes: 10,
            ..Collected::default()
        };
        assert_eq!(
            summary(&collected, Duration::from_secs(3600)),
            "would free 2.5 MB: 1 blob, 2 manifests without a tag, 1 repository that is empty now\nin use: 7 blobs\n\
             left for now: 3 blobs with 10 B that nothing refers to, since clients may be about to use them (gc.grace: 60 min)"
        );
    }
}
