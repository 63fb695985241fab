//! One request, from its head to the last byte of the answer; the one place that logs a request and counts it.

use std::future::ready;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use actix_web::HttpResponse;
use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderValue, X_CONTENT_TYPE_OPTIONS};
use actix_web::http::{ConnectionType, Method, StatusCode, Version};
use bytes::Bytes;
use futures_util::{FutureExt as _, stream};

use crate::oci::RepoName;
use crate::registry::{self, Shown};

use super::access_log::{Entry, Outcome};
use super::admit::{AsIf, Asker, admit};
use super::connection::Peer;
use super::download::{Download, OnlyLength};
use super::head::Head;
use super::op::Op;
use super::pace::Pace;
use super::payload::{BodyError, RequestBody};
use super::refusal::Refusal;
use super::reply::{API_VERSION, Failure, Reply, ReplyBody};
use super::room::{Crowded, Whose};
use super::route::OpError;
use super::unreadable::Unreadable;
use super::{Front, admin, blobs, listings, manifests, pages, token, trust, uploads};

/// What a handler has to answer with.
pub(super) struct Call<'a> {
    pub(super) front: &'a Front,
    pub(super) head: &'a Head<'a>,
    pub(super) asker: &'a Asker,
    pub(super) body: &'a mut RequestBody,
}

impl Call<'_> {
    /// Whether the asker may pull a repository.
    pub(super) fn may_pull(&self) -> impl Fn(&RepoName) -> bool {
        |name| self.asker.may_pull(self.front, name)
    }

    /// Waits for room to receive `bytes` of the body, and takes it until the answer is made.
    ///
    /// # Errors
    /// [`Failure::Busy`]: too many wait.
    pub(super) async fn make_room(&mut self, bytes: u64) -> Result<(), Failure> {
        if let Some(peer) = self.head.peer {
            let whose = Whose::new(self.head.client, peer.id());
            let share = self.front.room.take(whose, bytes).await;
            self.body.hold(share.map_err(|Crowded| Failure::Busy)?);
        }
        Ok(())
    }

    /// The repositories for which [`Call::may_pull`] says yes, for verbs that look at several.
    pub(super) fn shown<'b>(&self, may_pull: &'b dyn Fn(&RepoName) -> bool) -> Shown<'b> {
        if self.asker.may_pull_all(self.front) {
            Shown::All
        } else {
            Shown::Only(may_pull)
        }
    }
}

pub(super) async fn dispatch(front: Arc<Front>, request: ServiceRequest) -> ServiceResponse {
    let (request, payload) = request.into_parts();
    let head = Head::from(&request);
    let active = head.peer.map(Peer::begin_request);
    let started = Instant::now();
    let mut body = RequestBody::new(
        payload,
        head.content_length(),
        Pace::new(&front.limits),
        head.peer
            .filter(|_| head.may_have_body())
            .map(|peer| peer.appetite().serve()),
    );
    let op = parse(&front, &head);
    let mut asker = None;
    let (mut reply, outcome) = match answer(&front, &head, &op, &mut body, &mut asker).await {
        Ok(reply) => (reply, Outcome::Answered),
        Err(failure) => {
            if !matches!(
                failure,
                Failure::Body(
                    BodyError::Incomplete
                        | BodyError::Malformed
                        | BodyError::Stalled(_)
                        | BodyError::TooSlow
                        | BodyError::Displaced
                ) | Failure::Manifest(_)
            ) {
                body.drain().await;
            }
            refuse(&front, &head, op.as_ref().ok(), failure)
        }
    };
    if *head.method == Method::HEAD {
        reply.without_body();
    }
    let entry = Entry {
        front: front.clone(),
        op: op.ok(),
        client: head.client,
        asker,
        started,
        received: body.received(),
        active,
    };
    let response = finish(&front, &head, reply, entry, outcome);
    ServiceResponse::new(request, response)
}

/// The decisions that need no body, for a client that waits with it for `100 Continue`.
///
/// # Errors
/// The answer: the body need not come.
pub(super) async fn preflight(front: Arc<Front>, head: Head<'_>) -> Result<(), HttpResponse> {
    let started = Instant::now();
    let op = parse(&front, &head);
    let mut asker = None;
    let Err(failure) = check(&front, &head, &op, &mut asker).await else {
        return Ok(());
    };
    let (reply, outcome) = refuse(&front, &head, op.as_ref().ok(), failure);
    let entry = Entry {
        front: front.clone(),
        op: op.ok(),
        client: head.client,
        asker,
        started,
        received: 0,
        active: None,
    };
    Err(finish(&front, &head, reply, entry, outcome))
}

/// The answer to what actix could read no request from, and answers with `status`.
pub(super) fn refuse_unreadable(
    front: Arc<Front>,
    client: Option<SocketAddr>,
    status: StatusCode,
) -> (HttpResponse<()>, Bytes) {
    let failure = Failure::Unreadable(Unreadable::of(status));
    let refusal = Refusal::of(&failure);
    let outcome = Outcome::Refused(refusal.code, failure);
    let (mut response, body) = refusal.into_reply().into_parts();
    let body = match body {
        ReplyBody::Bytes(bytes) => bytes,
        ReplyBody::None | ReplyBody::Length(_) | ReplyBody::Stream { .. } => Bytes::new(),
    };
    add_common_headers(&front, &mut response);
    let entry = Entry {
        front,
        op: None,
        client,
        asker: None,
        started: Instant::now(),
        received: 0,
        active: None,
    };
    entry.write(None, status, body.len() as u64, &outcome);
    (response, body)
}

async fn check(
    front: &Front,
    head: &Head<'_>,
    op: &Result<Op, OpError>,
    asker: &mut Option<Asker>,
) -> Result<(), Failure> {
    let op = op.as_ref().map_err(|error| Failure::Op(error.clone()))?;
    admit(front, head, op, asker).await?;
    match op {
        Op::PutManifest { .. } => {
            let limit = front.registry()?.manifest_limit();
            match head.content_length() {
                Some(length) if length > limit as u64 => Err(BodyError::TooLarge { limit }.into()),
                _ => Ok(()),
            }
        }
        Op::AppendUpload { repo, id } | Op::FinishUpload { repo, id, .. } => {
            front.registry()?.upload_offset(repo, id).await?;
            Ok(())
        }
        _ => Ok(()),
    }
}

fn parse(front: &Front, head: &Head<'_>) -> Result<Op, OpError> {
    let path = front
        .external
        .strip_prefix(head.uri.path())
        .ok_or(OpError::Path)?;
    let path = match &front.metrics_path {
        Some(metrics) if path == metrics => "/metrics",
        _ if path == "/metrics" => return Err(OpError::Path),
        _ => path,
    };
    Op::parse(head.method.as_str(), path, head.uri.query())
}

async fn answer(
    front: &Front,
    head: &Head<'_>,
    op: &Result<Op, OpError>,
    body: &mut RequestBody,
    asker: &mut Option<Asker>,
) -> Result<Reply, Failure> {
    let op = op.as_ref().map_err(|error| Failure::Op(error.clone()))?;
    let asker = match admit(front, head, op, asker).await {
        Ok(asker) => asker,
        Err(Failure::Hidden {
            as_if: AsIf::NoReferrers,
            ..
        }) => return Ok(listings::no_referrers(op)),
        Err(failure) => return Err(failure),
    };
    let call = Call {
        front,
        head,
        asker,
        body,
    };
    // A panic in one request must not end the others of its thread.
    let handled = AssertUnwindSafe(handle(call, op)).catch_unwind().await;
    handled.unwrap_or(Err(Failure::Panicked))
}

async fn handle(mut call: Call<'_>, op: &Op) -> Result<Reply, Failure> {
    match op {
        Op::Ping => Ok(pages::ping()),
        Op::GetManifest { repo, reference } | Op::HeadManifest { repo, reference } => {
            manifests::get(&call, repo, reference).await
        }
        Op::PutManifest {
            repo,
            reference,
            tags,
        } => manifests::put(&mut call, repo, reference, tags).await,
        Op::DeleteManifest { repo, digest } => manifests::delete(&call, repo, digest).await,
        Op::DeleteTag { repo, tag } => manifests::delete_tag(&call, repo, tag).await,
        Op::GetBlob { repo, digest } => blobs::get(&call, repo, digest).await,
        Op::HeadBlob { repo, digest } => blobs::head(&call, repo, digest).await,
        Op::DeleteBlob { repo, digest } => blobs::delete(&call, repo, digest).await,
        Op::StartUpload { repo, algorithm } => uploads::start(&call, repo, *algorithm).await,
        Op::PushBlob { repo, digest } => uploads::push(&mut call, repo, digest).await,
        Op::MountBlob {
            repo,
            digest,
            from,
            algorithm,
        } => uploads::mount(&call, repo, digest, from.as_ref(), *algorithm).await,
        Op::UploadStatus { repo, id } => uploads::status(&call, repo, id).await,
        Op::AppendUpload { repo, id } => uploads::append(&mut call, repo, id).await,
        Op::FinishUpload { repo, id, digest } => uploads::finish(&mut call, repo, id, digest).await,
        Op::CancelUpload { repo, id } => uploads::cancel(&call, repo, id).await,
        Op::ListTags { repo, page } => listings::tags(&call, repo, page).await,
        Op::ListRepositories { page } => listings::repositories(&call, page).await,
        Op::ListReferrers {
            repo,
            subject,
            artifact_type,
            n,
            last,
        } => {
            listings::referrers(
                &call,
                repo,
                subject,
                artifact_type.as_deref(),
                *n,
                last.as_ref(),
            )
            .await
        }
        Op::GetToken { scopes, offline } => token::get(&call, scopes, *offline).await,
        Op::PostToken => token::post(&mut call).await,
        Op::Home if trust::is_plain_from_elsewhere(call.head) => {
            Ok(trust::page(call.front, call.head, StatusCode::OK))
        }
        Op::Home => Ok(pages::home(&call)),
        Op::GetCa => trust::ca(&call),
        Op::GetTrustScript => trust::script(&call),
        Op::GetTrustPowershell => trust::powershell(&call),
        Op::Health => Ok(pages::health()),
        Op::Ready => pages::ready(&call),
        Op::Metrics => Ok(pages::metrics(&call).await),
        Op::GetReadOnly => admin::read_only(&call),
        Op::SetReadOnly => admin::set_read_only(&mut call).await,
    }
}

fn refuse(front: &Front, head: &Head<'_>, op: Option<&Op>, failure: Failure) -> (Reply, Outcome) {
    let refusal = Refusal::of(&failure);
    let code = refusal.code;
    let mut reply = refusal.into_reply();
    if let (
        Failure::Registry(registry::Error::UploadRange { offset }),
        Some(Op::AppendUpload { repo, id } | Op::FinishUpload { repo, id, .. }),
    ) = (&failure, op)
    {
        uploads::describe(front, head, &mut reply, repo, id, *offset);
    }
    if matches!(failure, Failure::PlainDenied { .. }) && trust::wants_html(head) {
        reply = trust::page(front, head, StatusCode::FORBIDDEN);
    }
    (reply, Outcome::Refused(code, failure))
}

/// The headers of every answer.
fn add_common_headers(front: &Front, response: &mut HttpResponse<()>) {
    let headers = response.headers_mut();
    headers.insert(
        API_VERSION.clone(),
        HeaderValue::from_static("registry/2.0"),
    );
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    for (name, values) in &front.headers {
        headers.remove(name);
        values
            .iter()
            .for_each(|value| headers.append(name.clone(), value.clone()));
    }
}

/// The answer as actix takes it.
fn finish(
    front: &Front,
    head: &Head<'_>,
    reply: Reply,
    entry: Entry,
    outcome: Outcome,
) -> HttpResponse {
    let (mut response, body) = reply.into_parts();
    add_common_headers(front, &mut response);
    if let Some(peer) = head.peer.filter(|_| head.version < Version::HTTP_2) {
        let is_bodiless = *head.method == Method::HEAD;
        peer.announced().push(match &body {
            _ if is_bodiless => 0,
            ReplyBody::None | ReplyBody::Length(_) => 0,
            ReplyBody::Bytes(bytes) => bytes.len() as u64,
            ReplyBody::Stream { len, .. } => *len,
        });
    }
    if let Outcome::Refused(_, Failure::Body(error) | Failure::Manifest(error)) = &outcome
        && *error == BodyError::Malformed
    {
        // Nobody knows where the next request begins.
        response
            .head_mut()
            .set_connection_type(ConnectionType::Close);
    }
    let status = response.status();
    match body {
        ReplyBody::None => {
            entry.write(Some(head), status, 0, &outcome);
            response.set_body(BoxBody::new(()))
        }
        // In slices: HTTP/1.1 copies what it is given into a buffer of the connection, whole.
        ReplyBody::Bytes(bytes) if bytes.len() > Download::PIECE => {
            let len = bytes.len() as u64;
            let stream = Box::pin(stream::once(ready(Ok(bytes))));
            response.set_body(BoxBody::new(Download::new(len, stream, entry, status)))
        }
        ReplyBody::Bytes(bytes) => {
            entry.write(Some(head), status, bytes.len() as u64, &outcome);
            response.set_body(BoxBody::new(bytes))
        }
        ReplyBody::Length(len) => {
            entry.write(Some(head), status, 0, &outcome);
            response.set_body(BoxBody::new(OnlyLength(len)))
        }
        // Logged when its last byte is out, or the client is gone.
        ReplyBody::Stream { len, stream } => {
            response.set_body(BoxBody::new(Download::new(len, stream, entry, status)))
        }
    }
}
