//! The one line that each request leaves in the log, and its place in the metrics.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use actix_web::http::StatusCode;
use log::Level;

use crate::auth::Action;
use crate::logging::ACCESS;
use crate::oci::ErrorCode;
use crate::registry;

use super::Front;
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
    pub(super) started: Instant,
    pub(super) received: u64,
    /// Keeps the connection from counting as idle.
    #[expect(dead_code, reason = "held for its Drop")]
    pub(super) active: Option<Active>,
}

pub(super) enum Outcome {
    Answered,
    Refused(ErrorCode, Failure),
    /// The storage failed in the middle of the body.
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
            Outcome::Refused(code, failure) => format!(": {} {}", code.as_str(), chain(failure)),
            Outcome::Cut(error) => format!(": cut off, the storage failed: {error}"),
            Outcome::ClientLeft => ": the client left".to_owned(),
        };
        let client = self.client.map_or_else(
            || "unix".to_owned(),
            |client| client.ip().to_canonical().to_string(),
        );
        log::log!(
            target: ACCESS,
            level,
            status = status.as_u16(),
            received = self.received,
            sent,
            ms = (elapsed.as_secs_f64() * 1e5).round() / 100.0,
            client = client.as_str();
            "{what}{why}"
        );
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
        | Op::Health
        | Op::Ready
        | Op::Metrics => Ok(()),
    }
}

/// Clients' mistakes are information; what an operator should look at is a warning, what they have to is an error.
fn level(op: Option<&Op>, outcome: &Outcome) -> Level {
    match outcome {
        Outcome::Answered | Outcome::ClientLeft => match op.map(|op| op.access().action) {
            // Asked every few seconds by machines.
            Some(Action::Metrics) => Level::Debug,
            Some(Action::Public) if !matches!(op, Some(Op::Home)) => Level::Debug,
            _ => Level::Info,
        },
        Outcome::Cut(_) => Level::Error,
        Outcome::Refused(_, failure) => match failure {
            Failure::Panicked | Failure::StorageNotReady(_) => Level::Error,
            Failure::Registry(
                registry::Error::Corrupt { .. }
                | registry::Error::Storage(..)
                | registry::Error::NoSpace,
            ) => Level::Error,
            Failure::NotReady(_)
            | Failure::Registry(registry::Error::DigestMismatch { .. })
            | Failure::Body(BodyError::Incomplete | BodyError::Stalled(_)) => Level::Warn,
            _ => Level::Info,
        },
    }
}

/// An error with its causes, which clients do not see.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
