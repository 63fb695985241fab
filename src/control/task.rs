//! From a request to the task that answers it.

use std::fmt::Display;
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use tokio::sync::mpsc::Sender;

use super::Request;
use crate::maintenance::{Event, How, Witness, collect, history, remove, undo, verify};
use crate::registry::{Check, Choice, Mend, Registry, Scope};

/// Does what a request asks for, and tells `events` of it, the outcome last. `alone`: no process serves the tree.
pub(crate) async fn carry_out(
    request: Request,
    registry: Registry,
    alone: bool,
    witness: &Witness,
    events: Sender<Event>,
) {
    if let Err(reason) = try_to(request, registry, alone, witness, &events).await {
        let _ = events.send(Event::Failed { reason }).await;
    }
}

async fn try_to(
    request: Request,
    registry: Registry,
    alone: bool,
    witness: &Witness,
    events: &Sender<Event>,
) -> Result<(), String> {
    let events = events.clone();
    match request {
        Request::GarbageCollect {
            dry_run,
            untagged,
            forget_undo,
            grace,
        } => {
            let scope = Scope {
                dry_run,
                untagged,
                forget_undo,
                alone,
                grace: grace.map(Duration::from_millis),
            };
            collect(registry, scope, events).await;
        }
        Request::Verify {
            contents,
            dry_run,
            mend,
            repos,
        } => {
            let repos: Result<Vec<_>, _> = repos.iter().map(|repo| read(repo)).collect();
            let scope = Check {
                contents,
                dry_run,
                mend: if mend { Mend::All } else { Mend::Nothing },
                repos: repos?,
                from: None,
            };
            verify(registry, scope, events).await;
        }
        Request::History { repository, tag } => {
            history(registry, read(&repository)?, read(&tag)?, events).await;
        }
        Request::Undo {
            repository,
            reference,
            to,
        } => {
            let to = to.as_deref().map(read).transpose()?;
            let (repo, reference) = (read(&repository)?, read(&reference)?);
            undo(registry, repo, reference, to, witness.clone(), events).await;
        }
        Request::Remove {
            patterns,
            older_than,
            not_after,
            force,
            purge,
            dry_run,
        } => {
            let patterns = patterns.iter().map(|text| read(text));
            let choice = Choice::Images {
                patterns: patterns.collect::<Result<_, _>>()?,
                older_than: older_than.map(Duration::from_secs),
                not_after: not_after.map(|at| UNIX_EPOCH + Duration::from_millis(at)),
                force,
            };
            let how = How { dry_run, purge };
            remove(registry, choice, how, witness.clone(), events).await;
        }
        Request::Retention { dry_run } => {
            let how = How {
                dry_run,
                purge: false,
            };
            remove(registry, Choice::Retention, how, witness.clone(), events).await;
        }
    }
    Ok(())
}

fn read<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|why| format!("{text:?}: {why}"))
}
