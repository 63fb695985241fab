//! `registry garbage-collect [CONFIG]`: gets back the space of what nothing refers to, from the running server or, when
//! none runs, from the tree itself.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::ask::ask;
use crate::config::Config;
use crate::control::Request;
use crate::maintenance::{Collected, Event};
use crate::registry::{Amount, Settings};

/// What the command line asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) dry_run: bool,
    pub(crate) untagged: bool,
    pub(crate) forget_undo: bool,
    pub(crate) quiet: bool,
    /// In place of `gc.grace`.
    pub(crate) grace: Option<Duration>,
}

/// # Errors
/// The tree is in use by a server that cannot be reached, or cannot be read.
pub(crate) fn collect_garbage(file: Option<&Path>, options: Options) -> anyhow::Result<ExitCode> {
    let config = match Config::load(file, super::config::variables()) {
        Ok(config) => config,
        Err(errors) => return Ok(super::config::fail(file, &errors)),
    };
    let mut screen = Screen::new(options, &config.registry);
    let request = Request::GarbageCollect {
        dry_run: options.dry_run,
        untagged: options.untagged,
        forget_undo: options.forget_undo,
        grace: options
            .grace
            .map(|grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX)),
    };
    ask(&config, request, |event| screen.show(event))?;
    Ok(screen.end())
}

/// Says what happens: what was removed and the outcome to whoever reads the output, progress to who sits before it.
struct Screen {
    quiet: bool,
    grace: Duration,
    undo_keep: Duration,
    is_terminal: bool,
    outcome: ExitCode,
}

impl Screen {
    fn new(options: Options, settings: &Settings) -> Self {
        Screen {
            quiet: options.quiet,
            grace: options.grace.unwrap_or(settings.gc.grace),
            undo_keep: settings.undo_keep,
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
                    self.say(&summary(&collected, self.grace, self.undo_keep));
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
            Event::Looking
            | Event::Tag { .. }
            | Event::Spared { .. }
            | Event::Removed(_)
            | Event::Change { .. }
            | Event::Undone { .. }
            | Event::Done => {}
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

fn summary(collected: &Collected, grace: Duration, undo_keep: Duration) -> String {
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
    if collected.held_blobs > 0 {
        text += &format!(
            "\nkept for an undo: {} with {}, at most {} from their delete on (undo.keep); --forget-undo takes them",
            count(collected.held_blobs, "blob"),
            size(collected.held_bytes),
            span(undo_keep.as_secs())
        );
    }
    text
}

pub(super) fn count(n: u64, what: &str) -> String {
    if n == 1 {
        format!("1 {what}")
    } else {
        format!("{n} {what}s")
    }
}

pub(super) fn size(bytes: u64) -> String {
    Amount(bytes).to_string()
}

pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds.div_ceil(60)),
        7200..172_800 => format!("{} h", seconds.div_ceil(3600)),
        _ => format!("{} days", seconds.div_ceil(86_400)),
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
            [0, 119, 121, 3600, 7200, 604_800].map(span).join(", "),
            "0 s, 119 s, 3 min, 60 min, 2 h, 7 days"
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
            held_blobs: 1,
            held_bytes: 4000,
            ..Collected::default()
        };
        assert_eq!(
            summary(
                &collected,
                Duration::from_secs(3600),
                Duration::from_secs(7 * 86_400)
            ),
            "would free 2.5 MB: 1 blob, 2 manifests without a tag, 1 repository that is empty now\nin use: 7 blobs\n\
             left for now: 3 blobs with 10 B that nothing refers to, since clients may be about to use them (gc.grace: 60 min)\n\
             kept for an undo: 1 blob with 4.0 kB, at most 7 days from their delete on (undo.keep); --forget-undo takes them"
        );
    }
}
