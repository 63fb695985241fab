//! Answers commands about what tags pointed to, and brings it back.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc::Sender;

use super::event::Retagged;
use super::{By, Event, Witness};
use crate::oci::{Digest, Reference, RepoName, Tag};
use crate::registry::{Error, Past, Registry, State, What};

/// Tells each change of a tag, the oldest first.
pub(crate) async fn history(registry: Registry, repo: RepoName, tag: Tag, events: Sender<Event>) {
    match registry.history(&repo, &tag).await {
        Ok(history) => {
            for past in history {
                if events.send(Event::change(&past)).await.is_err() {
                    return;
                }
            }
            let _ = events.send(Event::Done).await;
        }
        Err(e) => fail(&e, &events).await,
    }
}

/// Brings back a tag, or a manifest.
pub(crate) async fn undo(
    registry: Registry,
    repo: RepoName,
    what: Reference,
    to: Option<Digest>,
    witness: Witness,
    events: Sender<Event>,
) {
    match registry.undo(&repo, &what, to).await {
        Ok(undone) => {
            for (tag, _) in &undone.tags {
                witness(By::Undo, &repo, Some(tag), &undone.digest);
            }
            for digest in &undone.restored {
                witness(By::Undo, &repo, None, digest);
            }
            let tags = undone.tags.iter().map(|(tag, before)| Retagged {
                tag: tag.to_string(),
                before: before.map(|digest| digest.to_string()),
            });
            let event = Event::Undone {
                repository: repo.to_string(),
                digest: undone.digest.to_string(),
                tags: tags.collect(),
                restored: undone.restored.iter().map(Digest::to_string).collect(),
                lost: undone.lost.iter().map(Digest::to_string).collect(),
            };
            let _ = events.send(event).await;
        }
        Err(e) => fail(&e, &events).await,
    }
}

pub(super) async fn fail(error: &Error, events: &Sender<Event>) {
    let reason = match error {
        Error::ReferencesUnknown(missing) => {
            let missing: Vec<String> = missing.iter().map(Digest::to_string).collect();
            format!("this content is gone: {}", missing.join(", "))
        }
        other => other.to_string(),
    };
    let _ = events.send(Event::Failed { reason }).await;
}

impl Event {
    fn change(past: &Past) -> Self {
        let (state, until) = match past.state {
            State::Current => ("current", None),
            State::Present => ("present", None),
            State::Deleted { until } => ("deleted", Some(until)),
            State::Gone => ("gone", None),
        };
        let what = match past.change.what {
            What::Pushed => "pushed",
            What::Restored => "restored",
            What::Deleted => "deleted",
        };
        Event::Change {
            at: seconds(past.change.at),
            digest: past.change.digest.to_string(),
            what: what.to_owned(),
            state: state.to_owned(),
            until: until.map(seconds),
        }
    }
}

pub(super) fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
