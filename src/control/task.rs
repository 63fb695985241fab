//! From a request to the task that answers it.

use std::fmt::Display;
use std::str::FromStr;

use tokio::sync::mpsc::Sender;

use super::Request;
use crate::maintenance::{Event, collect, history, undo, verify};
use crate::registry::{Check, Mend, Registry, Scope};

/// Does what a request asks for, and tells `events` of it, the outcome last. `alone`: no process serves the tree.
pub(crate) async fn carry_out(
    request: Request,
    registry: Registry,
    alone: bool,
    events: Sender<Event>,
) {
    if let Err(reason) = try_to(request, registry, alone, &events).await {
        let _ = events.send(Event::Failed { reason }).await;
    }
}

async fn try_to(
    request: Request,
    registry: Registry,
    alone: bool,
    events: &Sender<Event>,
) -> Result<(), String> {
    let events = events.clone();
    match request {
        Request::GarbageCollect {
            dry_run,
            untagged,
            forget_undo,
        } => {
            let scope = Scope {
                dry_run,
                untagged,
                forget_undo,
                alone,
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
            undo(registry, read(&repository)?, read(&reference)?, to, events).await;
        }
    }
    Ok(())
}

fn read<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|why| format!("{text:?}: {why}"))
}
