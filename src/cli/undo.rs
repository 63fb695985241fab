//! `registry history REPO:TAG` and `registry undo REPO:TAG`: what a tag pointed to, and bringing it back.

use std::process::ExitCode;

use anyhow::{anyhow, bail};
use clap::Args;
use time::OffsetDateTime;

use super::account_file::ConfigArg;
use super::ask::ask;
use crate::control::Request;
use crate::maintenance::{Event, Retagged};
use crate::oci::{Digest, Reference, RepoName, Tag};

#[derive(Args)]
pub(super) struct HistoryArgs {
    /// REPO:TAG
    image: String,
    #[command(flatten)]
    config: ConfigArg,
}

#[derive(Args)]
pub(super) struct UndoArgs {
    /// REPO:TAG, or REPO@DIGEST for a manifest that was deleted, and the tags that went with it
    image: String,
    /// The manifest that the tag is to point to [default: the last one that it pointed to, and does not now]
    #[arg(long, value_name = "DIGEST")]
    to: Option<String>,
    #[command(flatten)]
    config: ConfigArg,
}

pub(super) fn history(args: &HistoryArgs) -> anyhow::Result<ExitCode> {
    let (repo, reference) = image(&args.image)?;
    let Reference::Tag(tag) = reference else {
        bail!("{}: tags have a history; name one as REPO:TAG", args.image);
    };
    let config = args.config.load()?;
    let request = Request::History {
        repository: repo.to_string(),
        tag: tag.to_string(),
    };
    let (mut outcome, mut lines) = (ExitCode::FAILURE, Vec::new());
    ask(&config, request, |event| match event {
        Event::Done => outcome = ExitCode::SUCCESS,
        Event::Failed { reason } => eprintln!("registry: {reason}"),
        event => lines.extend(line(event)),
    })?;
    if outcome == ExitCode::SUCCESS && lines.is_empty() {
        bail!("nothing is known of {repo}:{tag}");
    }
    lines.iter().rev().for_each(|line| println!("{line}"));
    Ok(outcome)
}

pub(super) fn undo(args: &UndoArgs) -> anyhow::Result<ExitCode> {
    let (repo, reference) = image(&args.image)?;
    let to = args.to.as_deref().map(|text| {
        let digest = text.parse::<Digest>();
        digest.map_err(|e| anyhow!("--to {text}: {e}; `registry history` shows them"))
    });
    let to = to.transpose()?;
    if to.is_some() && matches!(reference, Reference::Digest(_)) {
        bail!("--to says what a tag is to point to: name one as REPO:TAG");
    }
    let config = args.config.load()?;
    let request = Request::Undo {
        repository: repo.to_string(),
        reference: reference.to_string(),
        to: to.map(|digest| digest.to_string()),
    };
    let mut outcome = ExitCode::FAILURE;
    ask(&config, request, |event| match event {
        Event::Undone {
            repository,
            digest,
            tags,
            restored,
            lost,
        } => {
            outcome = ExitCode::SUCCESS;
            say(&repository, &digest, &tags, &restored);
            for digest in lost {
                eprintln!(
                    "warning: {repository}@{digest} went with it, and cannot be brought back"
                );
            }
        }
        Event::Failed { reason } => eprintln!("registry: {}: {reason}", args.image),
        _ => {}
    })?;
    Ok(outcome)
}

fn say(repository: &str, digest: &str, tags: &[Retagged], restored: &[String]) {
    for Retagged { tag, before } in tags {
        match before {
            Some(before) if before == digest => {
                println!("{repository}:{tag} points to {digest} already");
            }
            Some(before) => {
                println!("{repository}:{tag} points to {digest} again, no more to {before}")
            }
            None => println!("{repository}:{tag} is back: {digest}"),
        }
    }
    let others = restored
        .iter()
        .filter(|other| *other != digest || tags.is_empty());
    others.for_each(|other| println!("{repository}@{other} is back"));
    if tags.is_empty() && restored.is_empty() {
        println!("{repository}@{digest} is there already");
    }
}

/// `REPO:TAG` or `REPO@DIGEST`.
fn image(text: &str) -> anyhow::Result<(RepoName, Reference)> {
    let parsed = match text.split_once('@') {
        Some((repo, digest)) => {
            let digest: Digest = digest.parse().map_err(|e| anyhow!("{text}: {e}"))?;
            (repo, Reference::Digest(digest))
        }
        None => match text.rsplit_once(':') {
            Some((repo, tag)) => {
                let tag: Tag = tag.parse().map_err(|e| anyhow!("{text}: {e}"))?;
                (repo, Reference::Tag(tag))
            }
            None => bail!("{text}: name a tag of it, as {text}:latest"),
        },
    };
    let (repo, reference) = parsed;
    let repo = repo.parse().map_err(|e| anyhow!("{text}: {e}"))?;
    Ok((repo, reference))
}

fn line(event: Event) -> Option<String> {
    let Event::Change {
        at,
        digest,
        what,
        state,
        until,
    } = event
    else {
        return None;
    };
    let state = match (state.as_str(), until) {
        ("current", _) => "the tag points to it".to_owned(),
        ("present", _) => "there".to_owned(),
        ("deleted", Some(until)) => format!("deleted, can be brought back until {}", date(until)),
        _ => "gone".to_owned(),
    };
    Some(format!("{}  {digest}  {what:8}  {state}", date(at)))
}

/// Of seconds since 1970; in UTC, since that is what a registry's clients agree on.
pub(super) fn date(seconds: u64) -> String {
    let date = i64::try_from(seconds).ok();
    let date = date.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    let Some(date) = date else {
        return "?".to_owned();
    };
    let (day, clock) = (date.date(), date.time());
    format!(
        "{day} {:02}:{:02}:{:02} UTC",
        clock.hour(),
        clock.minute(),
        clock.second()
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_image_is_a_tag_or_a_digest_of_a_repository() {
        let digest = format!("sha256:{}", "0".repeat(64));
        assert!(matches!(
            image("team/app:v1"),
            Ok((_, Reference::Tag(tag))) if tag.as_str() == "v1"
        ));
        assert!(matches!(
            image(&format!("app@{digest}")),
            Ok((_, Reference::Digest(_)))
        ));
        for bad in ["app", "app:", ":v1", "app@v1", "App:v1", ""] {
            assert!(image(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn dates_are_read_by_people() {
        assert_eq!(date(1_700_000_000), "2023-11-14 22:13:20 UTC");
        assert_eq!(date(u64::MAX), "?");
    }

    proptest! {
        #[test]
        fn no_image_panics(text in any::<String>()) {
            let _ = image(&text);
        }
    }
}
