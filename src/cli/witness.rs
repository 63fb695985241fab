//! What commands and rules remove is told as what a request removes: to webhooks, and to the audit log.

use std::sync::Arc;

use crate::auth::{Hop, Place, audit};
use crate::maintenance::{By, Witness};
use crate::notifications::{Action, Actor, Notifier, Origin, Target};

pub(super) fn witness(notifier: Notifier) -> Witness {
    Arc::new(move |by, repo, tag, digest| {
        let who = match by {
            By::Command => "registry rm",
            By::Retention => "registry retention",
        };
        let what = match tag {
            Some(tag) => format!("delete-tag {repo}:{tag}"),
            None => format!("delete-manifest {repo} {digest}"),
        };
        audit::record(who, &Place::new(Hop::Own(None)), &what, "ok");
        if !notifier.is_active() {
            return;
        }
        let actor = Actor {
            name: Some(who.to_owned()),
        };
        let agent = format!("registry/{}", env!("CARGO_PKG_VERSION"));
        let origin = Origin::new(None, None, "DELETE", agent, actor);
        let target = match tag {
            Some(_) => Target {
                tag,
                ..Target::new(repo)
            },
            None => Target {
                digest: Some(digest),
                ..Target::new(repo)
            },
        };
        notifier.report(&origin, Action::Delete, &target);
    })
}

/// Where no server runs nobody listens.
pub(super) fn nobody() -> Witness {
    Arc::new(|_, _, _, _| {})
}
