//! The one line that each request leaves in the log, and its place in the metrics.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use actix_web::http::StatusCode;
use log::Level;

use crate::auth::{Action, audit};
use crate::causes::WithCauses;
use crate::logging::ACCESS;
use crate::oci::ErrorCode;
use crate::registry;

use super::Front;
use super::admit::Asker;
use super::connection::Active;
use super::head::Head;
use super::op::Op;
use super::payload::BodyError;
use super::reply::Failure;

/// What is known of a request when its answer begins.
pub(super) struct Entry {
    pub(super) front: Arc<Front>,
    /// None when the request was none that this server knows.
    pub(super) op: Option<Op>,
    pub(super) client: Option<SocketAddr>,
    /// None when nobody looked at who it is.
    pub(super) asker: Option<Asker>,
    pub(super) started: Instant,
    pub(super) received: u64,
    /// Keeps the connection from counting as idle.
    #[expect(dead_code, reason = "held for its Drop")]
    pub(super) active: Option<Active>,
}

pub(super) enum Outcome {
    Answered,
    Refused(ErrorCode, Failure),
    /// The storage, or the upstream of a mirror, failed in the middle of the body.
    Cut(String),
    /// The client did not take the whole body; docker does that when it has a layer from elsewhere.
    ClientLeft,
}

impl Entry {
    /// `head` only while it is there: an operation that is not known is logged by its method and path.
    pub(super) fn write(
        &self,
        head: Option<&Head<'_>>,
        status: StatusCode,
        sent: u64,
        outcome: &Outcome,
    ) {
        let elapsed = self.started.elapsed();
        let name = self.op.as_ref().map_or("unknown", Op::name);
        self.front.metrics.request(
            name,
            status.as_u16(),
            self.received,
            sent,
            elapsed.as_secs_f64(),
        );
        self.audit(status, outcome);
        let level = level(self.op.as_ref(), outcome);
        if !log::log_enabled!(target: ACCESS, level) {
            return;
        }
        let mut what = String::with_capacity(160);
        what.push_str(name);
        match (&self.op, head) {
            (Some(op), _) => {
                let _ = target(&mut what, op);
            }
            (None, Some(head)) => {
                let path: Cow<'_, str> = head.uri.path().chars().take(200).collect();
                let _ = write!(what, " {} {path}", head.method);
            }
            (None, None) => {}
        }
        let why = match outcome {
            Outcome::Answered => String::new(),
            Outcome::Refused(code, failure) => {
                format!(": {} {}", code.as_str(), WithCauses(failure))
            }
            Outcome::Cut(error) => format!(": cut off: {error}"),
            Outcome::ClientLeft => ": the client left".to_owned(),
        };
        // Where a proxy that is trusted says who its client is, that one.
        let address = match &self.asker {
            Some(asker) => asker.place.address(),
            None => self.client.map(|client| client.ip().to_canonical()),
        };
        let client = address.map_or_else(|| "unix".to_owned(), |address| address.to_string());
        let user = self.asker.as_ref().map(|asker| asker.identity.name());
        let user = user.as_deref().filter(|user| !user.is_empty());
        log::log!(
            target: ACCESS,
            level,
            status = status.as_u16(),
            received = self.received,
            sent,
            ms = (elapsed.as_secs_f64() * 1e5).round() / 100.0,
            client = client.as_str(),
            user;
            "{what}{why}"
        );
    }
}

impl Entry {
    /// Changes, and what was refused of them. Not the first 401, which is how clients learn that they have to log in.
    fn audit(&self, status: StatusCode, outcome: &Outcome) {
        let (Some(op), Some(asker)) = (&self.op, &self.asker) else {
            return;
        };
        let is_change = match op.access().action {
            Action::Delete => true,
            Action::Admin => matches!(op, Op::SetReadOnly),
            Action::Push => matches!(op, Op::PutManifest { .. }) || status == StatusCode::FORBIDDEN,
            _ => false,
        };
        if !is_change || status == StatusCode::UNAUTHORIZED {
            return;
        }
        let mut what = op.name().to_owned();
        let _ = target(&mut what, op);
        let result = match outcome {
            Outcome::Refused(code, _) => code.as_str(),
            _ => "ok",
        };
        audit::record_of(&asker.identity, &asker.place, &what, result);
    }
}

/// What the operation is about, without the query, which may hold state of an upload.
fn target(out: &mut String, op: &Op) -> std::fmt::Result {
    if let Some(repo) = op.repository() {
        write!(out, " {repo}")?;
    }
    match op {
        Op::GetManifest { reference, .. }
        | Op::HeadManifest { reference, .. }
        | Op::PutManifest { reference, .. } => {
            write!(out, " {reference}")
        }
        Op::DeleteTag { tag, .. } => write!(out, " {tag}"),
        Op::DeleteManifest { digest, .. }
        | Op::GetBlob { digest, .. }
        | Op::HeadBlob { digest, .. }
        | Op::DeleteBlob { digest, .. }
        | Op::PushBlob { digest, .. }
        | Op::MountBlob { digest, .. }
        | Op::FinishUpload { digest, .. } => write!(out, " {digest}"),
        Op::UploadStatus { id, .. } | Op::AppendUpload { id, .. } | Op::CancelUpload { id, .. } => {
            write!(out, " {id}")
        }
        Op::ListReferrers { subject, .. } => write!(out, " {subject}"),
        Op::GetToken { scopes, .. } => {
            let scopes: String = scopes.to_string().chars().take(200).collect();
            write!(out, " {scopes}")
        }
        Op::PostToken
        | Op::Ping
        | Op::StartUpload { .. }
        | Op::ListTags { .. }
        | Op::ListRepositories { .. }
        | Op::Home
        | Op::GetCa
        | Op::GetTrustScript
        | Op::GetTrustPowershell
        | Op::Health
        | Op::Ready
        | Op::Metrics
        | Op::GetReadOnly
        | Op::SetReadOnly => Ok(()),
    }
}

/// Clients' mistakes are information; what an operator should look at is a warning, what they have to is an error.
fn level(op: Option<&Op>, outcome: &Outcome) -> Level {
    match outcome {
        Outcome::Answered | Outcome::ClientLeft => match op.map(|op| op.access().action) {
            // Asked every few seconds by machines.
            Some(Action::Metrics) => Level::Debug,
            Some(Action::Public) if matches!(op, Some(Op::Health | Op::Ready)) => Level::Debug,
            _ => Level::Info,
        },
        Outcome::Cut(_) => Level::Error,
        Outcome::Refused(_, failure) => match failure {
            Failure::Panicked => Level::Error,
            Failure::Registry(
                registry::Error::Storage(..)
                | registry::Error::NoSpace
                | registry::Error::NearlyFull { .. },
            ) => Level::Error,
            Failure::NotReady(_)
            | Failure::Registry(
                registry::Error::UpstreamFailed(_)
                | registry::Error::UpstreamTimeout
                | registry::Error::UpstreamLimited { .. },
            )
            | Failure::Registry(
                registry::Error::DigestMismatch { .. } | registry::Error::Away(_),
            )
            | Failure::Manifest(
                BodyError::Incomplete | BodyError::Stalled(_) | BodyError::TooSlow,
            )
            | Failure::Busy
            | Failure::Body(
                BodyError::Incomplete
                | BodyError::Stalled(_)
                | BodyError::TooSlow
                | BodyError::Displaced,
            ) => Level::Warn,
            _ => Level::Info,
        },
    }
}
