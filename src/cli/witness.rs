//! What commands and rules remove or bring back is told as what a request does: to webhooks, and to the audit log.

use std::sync::Arc;

use crate::auth::{Hop, Place, audit};
use crate::maintenance::{By, Witness};
use crate::notifications::{Action, Actor, Notifier, Origin, Target};

pub(super) fn witness(notifier: Notifier) -> Witness {
    Arc::new(move |by, repo, tag, digest| {
        let (who, action) = match by {
            By::Command => ("registry rm", Action::Delete),
            By::Retention => ("registry retention", Action::Delete),
            By::Undo => ("registry undo", Action::Push),
        };
        let verb = if by == By::Undo { "undo" } else { "delete" };
        let what = match tag {
            Some(tag) => format!("{verb}-tag {repo}:{tag}"),
            None => format!("{verb}-manifest {repo} {digest}"),
        };
        audit::record(who, &Place::new(Hop::Own(None)), &what, "ok");
        if !notifier.is_active() {
            return;
        }
        let actor = Actor {
            name: Some(who.to_owned()),
        };
        let agent = format!("registry/{}", env!("CARGO_PKG_VERSION"));
        let method = if by == By::Undo { "PUT" } else { "DELETE" };
        let origin = Origin::new(None, None, method, agent, actor);
        // As of requests: a tag that is deleted has no digest.
        let has_digest = tag.is_none() || by == By::Undo;
        let target = Target {
            tag,
            digest: has_digest.then_some(digest),
            ..Target::new(repo)
        };
        notifier.report(&origin, action, &target);
    })
}

/// Where no server runs nobody listens.
pub(super) fn nobody() -> Witness {
    Arc::new(|_, _, _, _| {})
}
