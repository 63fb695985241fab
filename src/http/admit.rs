//! Who asks, and whether they may: the one place for it, before any handler runs and before a byte of the body is read.

use actix_web::http::header::AUTHORIZATION;

use crate::auth::{Action, Decision, Denied, Fault, Identity, Place, Presented, Realm};
use crate::oci::RepoName;
use crate::registry;

use super::Front;
use super::connection::Peer;
use super::head::Head;
use super::op::Op;
use super::proxies;
use super::reply::Failure;
use super::route::TOKEN_PATH;
use super::settings::Plain;
use super::trust;

/// Who asks for an operation, from where.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    pub(crate) identity: Identity,
    pub(crate) place: Place,
}

impl Asker {
    pub(crate) fn may_pull(&self, front: &Front, name: &RepoName) -> bool {
        front.auth.may_pull(&self.identity, &self.place, name)
    }

    /// Whether there is nothing that they may not pull.
    pub(crate) fn may_pull_all(&self, front: &Front) -> bool {
        front.auth.may_pull_all(&self.identity, &self.place)
    }
}

/// Says in `asker` who asks, as far as that is known, whatever comes of it.
///
/// # Errors
/// Why not. What the asker may not know of looks as if it did not exist: [`Failure::Hidden`].
pub(super) async fn admit<'a>(
    front: &Front,
    head: &Head<'_>,
    op: &Op,
    asker: &'a mut Option<Asker>,
) -> Result<&'a Asker, Failure> {
    let access = op.access();
    let asker = asker.insert(Asker {
        identity: Identity::ANONYMOUS,
        place: proxies::place(head, &front.trusted_proxies),
    });
    over_plain(front, head, access.action)?;
    let is_open = match access.action {
        // Tokens are for asking who one is: their handler does it.
        Action::Public | Action::Token => true,
        Action::Metrics => front.open_metrics,
        _ => false,
    };
    if is_open {
        return Ok(asker);
    }
    asker.identity = match front.auth.identify(presented(head), &asker.place).await {
        Ok(identity) => identity,
        Err(denied @ Denied::Place(_)) => {
            return Err(Failure::Denied {
                why: denied.to_string(),
            });
        }
        Err(Denied::TooMany { retry_after }) => {
            return Err(Failure::TooManyAttempts { retry_after });
        }
        Err(denied) => {
            let fault = match denied {
                Denied::Token(_) => Fault::Invalid,
                _ => Fault::None,
            };
            return Err(unauthorized(front, head, op, fault, denied.to_string()));
        }
    };
    let Asker { identity, place } = &*asker;
    let why = match front.auth.permits(identity, place, &access) {
        Decision::Allowed(_) => return Ok(asker),
        Decision::BeyondToken => {
            let why = "the token does not grant it".to_owned();
            return Err(match identity.is_anonymous() {
                true => unauthorized(front, head, op, Fault::Insufficient, why),
                false => insufficient(front, head, op, why),
            });
        }
        Decision::Denied(reason) => reason.to_string(),
    };
    if identity.is_anonymous() {
        let fault = match identity.token {
            Some(_) => Fault::Insufficient,
            None => Fault::None,
        };
        return Err(unauthorized(front, head, op, fault, why));
    }
    let knows_of_it = access
        .repository
        .is_none_or(|name| front.auth.may_pull(identity, place, name));
    Err(match as_if_missing(op) {
        Some(as_if) if !knows_of_it => Failure::Hidden { as_if, why },
        // As distribution does: docker retries a 403 for as long as it retries anything, and gives up at once when this is what a
        // fresh token brings. That token grants what the rules give, so with one that grants this the answer below is final.
        _ if !identity.token_grants(&access) => insufficient(front, head, op, why),
        _ => Failure::Denied { why },
    })
}

/// What a request says about who sends it.
pub(super) fn presented<'a>(head: &Head<'a>) -> Presented<'a> {
    // What is no text is no credential either, and must not pass for none; and of two headers a proxy in front may have
    // looked at the other one.
    let mut authorization = head.headers.get_all(AUTHORIZATION);
    Presented {
        authorization: match (authorization.next(), authorization.next()) {
            (None, _) => None,
            (Some(value), None) => Some(value.to_str().unwrap_or("?")),
            (Some(_), Some(_)) => Some("?"),
        },
        certificate: head.peer.and_then(Peer::certificate),
    }
}

fn over_plain(front: &Front, head: &Head<'_>, action: Action) -> Result<(), Failure> {
    if !head.peer.is_some_and(Peer::is_restricted) {
        return Ok(());
    }
    match (front.plain, action) {
        (_, Action::Public) | (Plain::All, _) => Ok(()),
        (Plain::Pull, Action::Ping | Action::Token | Action::Catalog | Action::Pull) => Ok(()),
        (Plain::Pull | Plain::Loopback | Plain::Off, _) => Err(trust::refuse_plain(front, head)),
    }
}

/// To come back with credentials, or better ones; a plain no where there are none to have.
fn unauthorized(front: &Front, head: &Head<'_>, op: &Op, fault: Fault, why: String) -> Failure {
    let realm = front.auth.token_realm().map(|realm| match realm {
        Realm::Url(url) => url,
        Realm::SameHost(path) => front.external.same_host(head, &path),
        Realm::Here => front.external.url(head, TOKEN_PATH),
    });
    match front.auth.challenge(&op.access(), fault, realm.as_deref()) {
        Some(challenge) => Failure::Unauthorized { challenge, why },
        None => Failure::Denied { why },
    }
}

/// The token is good and does not grant it: to come back with one that does. No such token is to be had for who may not do
/// it, whoever it is given to, so for them this is a no.
fn insufficient(front: &Front, head: &Head<'_>, op: &Op, why: String) -> Failure {
    match unauthorized(front, head, op, Fault::Insufficient, why) {
        Failure::Unauthorized { challenge, why } => Failure::Insufficient { challenge, why },
        other => other,
    }
}

/// What a reader is told when there is no such repository; none for what is no reading.
fn as_if_missing(op: &Op) -> Option<AsIf> {
    match op {
        Op::GetManifest { .. } | Op::HeadManifest { .. } => {
            Some(AsIf::Missing(registry::Error::ManifestUnknown))
        }
        Op::GetBlob { .. } | Op::HeadBlob { .. } => {
            Some(AsIf::Missing(registry::Error::BlobUnknown))
        }
        Op::ListTags { .. } => Some(AsIf::Missing(registry::Error::RepoUnknown)),
        Op::ListReferrers { .. } => Some(AsIf::NoReferrers),
        _ => None,
    }
}

/// The answer to who asks for what they may not know of.
#[derive(Debug)]
pub(crate) enum AsIf {
    Missing(registry::Error),
    /// An empty list, since that is what nothing has.
    NoReferrers,
}

#[cfg(test)]
mod tests;
