//! `registry verify [REPO...]`: checks what is stored, by the running server or, when none runs, on the tree itself; and
//! mends what can be mended, when it is told to.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::account_file::ConfigArg;
use super::ask::ask;
use super::garbage::size;
use crate::config::Config;
use crate::control::Request;
use crate::maintenance::Event;
use crate::oci::RepoPattern;
use crate::registry::{Check, Finding, HealthReport, Mend, Outcome, Remedy};
use crate::storage::verify_report;

/// The command line.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Check these alone: team/app, team/*, team/**
    repositories: Vec<RepoPattern>,
    /// Say what can be mended, ask, and mend it
    #[arg(long)]
    repair: bool,
    /// Change nothing: leave damaged content where it is, and say what --repair would do
    #[arg(long, short)]
    dry_run: bool,
    /// With --repair, do not ask
    #[arg(long, short, requires = "repair")]
    yes: bool,
    /// Check nothing, and show what the last check of everything found
    #[arg(long, conflicts_with_all = ["repair", "dry_run", "repositories"])]
    report: bool,
    /// Say of what does no harm only how much there is
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    config: ConfigArg,
}

/// Damage is left.
const DAMAGED: u8 = 2;

/// # Errors
/// The tree is in use by a server that cannot be reached, or cannot be read.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = args.config.load()?;
    let root = &config.storage.root;
    if args.report {
        return report(root, args.quiet);
    }
    let check = Check {
        contents: true,
        dry_run: args.dry_run,
        repos: args.repositories.clone(),
        ..Check::default()
    };
    let mut screen = Screen::new(args.quiet);
    perform(&config, &check, &mut screen)?;
    let Some(mut outcome) = screen.outcome.take() else {
        return Ok(ExitCode::FAILURE);
    };
    if args.repair && !args.dry_run && screen.mendable > 0 {
        if !args.yes && !agreed(screen.mendable)? {
            return Ok(ExitCode::from(DAMAGED));
        }
        let mut screen = Screen::new(args.quiet);
        screen.is_mending = true;
        let mending = Check {
            contents: false,
            mend: Mend::All,
            ..check
        };
        perform(&config, &mending, &mut screen)?;
        match screen.outcome {
            Some(mended) => outcome = mended,
            None => return Ok(ExitCode::FAILURE),
        }
    }
    Ok(status(&outcome))
}

fn status(report: &HealthReport) -> ExitCode {
    if report.damage > report.mended {
        ExitCode::from(DAMAGED)
    } else {
        ExitCode::SUCCESS
    }
}

fn perform(config: &Config, check: &Check, screen: &mut Screen) -> anyhow::Result<()> {
    let request = Request::Verify {
        contents: check.contents,
        dry_run: check.dry_run,
        mend: check.mend == Mend::All,
        repos: check.repos.iter().map(|r| r.as_str().to_owned()).collect(),
    };
    ask(config, request, |event| screen.show(event))
}

/// Asks whoever sits at the terminal.
fn agreed(mendable: u64) -> anyhow::Result<bool> {
    let what = match mendable {
        1 => "the one that can be mended or removed".to_owned(),
        n => format!("the {n} that can be mended or removed"),
    };
    if !io::stdin().is_terminal() {
        bail!("nothing was mended: say --yes to go on with {what}, as said above");
    }
    print!("\nGo on with {what}, as said above? [y/N] ");
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// What the last check of everything found.
fn report(root: &Path, quiet: bool) -> anyhow::Result<ExitCode> {
    let path = verify_report(root);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => bail!(
            "{}: nothing has been checked yet; the server does it soon after its first start, and `registry verify` now",
            path.display()
        ),
        Err(e) => return Err(e).with_context(|| path.display().to_string()),
    };
    let report: HealthReport = serde_json::from_slice(&text)
        .with_context(|| format!("{}: is damaged; check again", path.display()))?;
    let mut screen = Screen::new(quiet);
    let when = UNIX_EPOCH + Duration::from_secs(report.ended);
    screen.say(&format!(
        "checked at {}{}",
        moment(when),
        if report.contents {
            ""
        } else {
            ", without reading all content"
        }
    ));
    for health in &report.repositories {
        let whole = format!(
            "{}: {} whole",
            health.repository,
            count(health.healthy, "tag")
        );
        match health.unhealthy {
            0 => screen.say(&whole),
            n => screen.say(&format!("{whole}, {n} not")),
        }
    }
    for finding in &report.findings {
        screen.show(Event::Finding(finding.clone()));
    }
    if report.unnamed > 0 {
        screen.say(&format!("and {} more", report.unnamed));
    }
    screen.say(&summary(&report));
    Ok(status(&report))
}

fn moment(when: SystemTime) -> String {
    let when = OffsetDateTime::from(when);
    when.format(&Rfc3339).unwrap_or_default()
}

/// Says what is found to whoever reads the output, progress to who sits before it.
struct Screen {
    quiet: bool,
    is_terminal: bool,
    /// What is left as it is has been said before.
    is_mending: bool,
    mendable: u64,
    outcome: Option<HealthReport>,
}

impl Screen {
    fn new(quiet: bool) -> Self {
        Screen {
            quiet,
            is_terminal: io::stderr().is_terminal(),
            is_mending: false,
            mendable: 0,
            outcome: None,
        }
    }

    fn show(&mut self, event: Event) {
        match event {
            Event::Failed { reason } => {
                self.progress("");
                eprintln!("registry: {reason}");
            }
            Event::Checking {
                repositories,
                blobs,
                bytes,
                thousandths,
            } => self.progress(&format!(
                "{}.{} %: {blobs} blobs, {}; {repositories} repositories",
                thousandths / 10,
                thousandths % 10,
                size(bytes)
            )),
            Event::Finding(finding) => {
                self.mendable += u64::from(is_mendable(&finding));
                let is_old = self.is_mending && finding.outcome == Outcome::Open;
                if !is_old && (!self.quiet || !finding.fault.is_debris()) {
                    self.say(&finding.to_string());
                }
            }
            Event::Verified(report) => {
                self.say(&summary(&report));
                self.outcome = Some(report);
            }
            _ => {}
        }
    }

    fn say(&self, line: &str) {
        self.progress("");
        let _ = writeln!(io::stdout(), "{line}"); // a reader that went away (`| head`) is no failure
    }

    /// On a line of its own that the next one takes the place of.
    fn progress(&self, text: &str) {
        if self.is_terminal {
            let _ = write!(io::stderr(), "\r\x1b[K{text}");
        }
    }
}

fn is_mendable(finding: &Finding) -> bool {
    let is_possible = !matches!(finding.remedy, Remedy::Wait | Remedy::Leave | Remedy::Push);
    finding.outcome == Outcome::Open && is_possible
}

fn count(n: u64, what: &str) -> String {
    if n == 1 {
        format!("1 {what}")
    } else {
        format!("{n} {what}s")
    }
}

fn summary(report: &HealthReport) -> String {
    let mut text = String::new();
    if report.contents {
        text += &format!(
            "read {} of {}; ",
            size(report.bytes),
            count(report.blobs, "blob")
        );
    }
    text += &format!("whole: {}", count(report.healthy, "tag"));
    if report.unhealthy > 0 {
        text += &format!(", not whole: {}", count(report.unhealthy, "tag"));
    }
    if report.damage > 0 {
        text += &format!(
            "\ndamaged or missing: {}, mended: {}",
            report.damage, report.mended
        );
    }
    if report.debris > 0 {
        text += &format!("\nleft over, without harm: {}", report.debris);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_what_is_whole_and_what_is_not() {
        let report = HealthReport {
            contents: true,
            blobs: 3,
            bytes: 2_500_000,
            healthy: 1,
            unhealthy: 2,
            damage: 4,
            mended: 1,
            debris: 5,
            ..HealthReport::default()
        };
        assert_eq!(
            summary(&report),
            "read 2.5 MB of 3 blobs; whole: 1 tag, not whole: 2 tags\ndamaged or missing: 4, mended: 1\n\
             left over, without harm: 5"
        );
        assert_eq!(summary(&HealthReport::default()), "whole: 0 tags");
    }
}
