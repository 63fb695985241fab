//! `registry rm PATTERN...` and `registry retention`: what would go and how much room that is, and then its removal.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::{anyhow, bail};
use clap::Args;

use super::account_file::ConfigArg;
use super::ask::ask;
use super::garbage::{count, size};
use super::undo::date;
use crate::config::{Config, parse_span};
use crate::control::Request;
use crate::maintenance::{Event, RemovedImages};
use crate::oci::ImagePattern;

#[derive(Args)]
pub(super) struct RmArgs {
    /// REPO:TAG, REPO@DIGEST, or REPO for all of a repository; `*` stands for anything, `**` for any components of a name
    #[arg(required = true, value_name = "PATTERN")]
    patterns: Vec<String>,
    /// Only what was pushed longer ago than this, as 30d or 12h
    #[arg(long, value_name = "TIME")]
    older_than: Option<String>,
    /// Remove nothing, and say what would go
    #[arg(long, short)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Immutable tags (tags.immutable), too
    #[arg(long)]
    force: bool,
    /// Keep nothing for an undo: the room comes back with the next garbage collection
    #[arg(long)]
    purge: bool,
    #[command(flatten)]
    config: ConfigArg,
}

#[derive(Args)]
pub(super) struct RetentionArgs {
    /// Remove nothing, and say what would go
    #[arg(long, short)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    config: ConfigArg,
}

pub(super) fn rm(args: &RmArgs) -> anyhow::Result<ExitCode> {
    for text in &args.patterns {
        let pattern = text.parse::<ImagePattern>();
        pattern.map_err(|e| anyhow!("{text}: {e}"))?;
    }
    let older_than = args.older_than.as_deref().map(|text| {
        parse_span(text).map_err(|why| anyhow!("--older-than: {why}; write it as 30d or 12h"))
    });
    let older_than = older_than.transpose()?.map(|span| span.as_secs());
    let request = |dry_run, not_after| Request::Remove {
        patterns: args.patterns.clone(),
        older_than,
        not_after,
        force: args.force,
        purge: args.purge,
        dry_run,
    };
    let config = args.config.load()?;
    preview_and_remove(&config, args.dry_run, args.yes, request)
}

pub(super) fn retention(args: &RetentionArgs) -> anyhow::Result<ExitCode> {
    let config = args.config.load()?;
    if config.registry.retention.rules.is_empty() {
        bail!("the configuration has no retention.rules, so nothing is removed by itself");
    }
    let request = |dry_run, _| Request::Retention { dry_run };
    preview_and_remove(&config, args.dry_run, args.yes, request)
}

fn preview_and_remove(
    config: &Config,
    dry_run: bool,
    yes: bool,
    request: impl Fn(bool, Option<u64>) -> Request,
) -> anyhow::Result<ExitCode> {
    let mut began = None;
    if dry_run || !yes {
        let Some(preview) = run(config, request(true, None), true)? else {
            return Ok(ExitCode::FAILURE);
        };
        println!("{}", summary(&preview));
        if dry_run || preview.tags + preview.manifests == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        if !is_confirmed()? {
            println!("nothing was removed");
            return Ok(ExitCode::FAILURE);
        }
        began = Some(preview.began);
    }
    // What was shown is not shown again; without a preview everything is.
    let Some(removed) = run(config, request(false, began), began.is_none())? else {
        return Ok(ExitCode::FAILURE);
    };
    println!("{}", summary(&removed));
    Ok(ExitCode::SUCCESS)
}

fn run(config: &Config, request: Request, verbose: bool) -> anyhow::Result<Option<RemovedImages>> {
    let mut outcome = None;
    ask(config, request, |event| match event {
        Event::Tag {
            repository,
            tag,
            digest,
        } if verbose => say(&format!("tag {repository}:{tag} {digest}")),
        Event::Manifest { repository, digest } if verbose => {
            say(&format!("manifest {repository}@{digest}"));
        }
        Event::Spared { repository, tag } => {
            eprintln!(
                "warning: {repository}:{tag} stays: it is immutable (tags.immutable); --force takes it, too"
            );
        }
        Event::Removed(removed) => outcome = Some(removed),
        Event::Failed { reason } => eprintln!("registry: {reason}"),
        _ => {}
    })?;
    Ok(outcome)
}

fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}"); // a reader that went away (`| head`) is no failure
}

fn is_confirmed() -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        bail!("nobody is there to confirm it, so nothing was removed: add --yes");
    }
    print!("Remove this? [y/N] ");
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn summary(removed: &RemovedImages) -> String {
    if removed.tags + removed.manifests == 0 {
        return "nothing to remove".to_owned();
    }
    let verb = if removed.dry_run {
        "would remove"
    } else {
        "removed"
    };
    let mut text = format!(
        "{verb} {} and {}; room that comes back: {} in {}",
        count(removed.tags, "tag"),
        count(removed.manifests, "manifest"),
        size(removed.bytes),
        count(removed.blobs, "blob")
    );
    text += &match removed.undoable_until {
        Some(until) => format!(
            ", when it cannot be undone any more, {} (or `registry garbage-collect --forget-undo`)",
            date(until)
        ),
        None => ", with the next garbage collection".to_owned(),
    };
    if removed.kept > 0 {
        text += &format!(
            "\n{} stayed, being in use again",
            count(removed.kept, "of them")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_when_the_room_comes_back() {
        let mut removed = RemovedImages {
            dry_run: true,
            tags: 1,
            manifests: 2,
            blobs: 3,
            bytes: 4_000_000,
            undoable_until: Some(1_700_000_000),
            ..RemovedImages::default()
        };
        assert_eq!(
            summary(&removed),
            "would remove 1 tag and 2 manifests; room that comes back: 4.0 MB in 3 blobs, when it cannot be undone any more, \
             2023-11-14 22:13:20 UTC (or `registry garbage-collect --forget-undo`)"
        );
        (removed.dry_run, removed.undoable_until) = (false, None);
        assert!(summary(&removed).ends_with("3 blobs, with the next garbage collection"));
        assert_eq!(summary(&RemovedImages::default()), "nothing to remove");
    }
}
