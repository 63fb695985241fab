//! Answers: the headers every one of them has, and the one place where a failure becomes status, code and sentence.

use std::pin::Pin;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use bytes::Bytes;
use futures_core::Stream;

use crate::auth::Challenge;
use crate::oci::Digest;
use crate::{registry, storage};

use super::admin::AdminError;
use super::admit::AsIf;
use super::payload::BodyError;
use super::route::OpError;
use super::token::FormError;
use super::unreadable::Unreadable;

pub(crate) static CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
pub(crate) static API_VERSION: HeaderName =
    HeaderName::from_static("docker-distribution-api-version");
pub(crate) static UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");
pub(crate) static CHUNK_MIN: HeaderName = HeaderName::from_static("oci-chunk-min-length");
pub(crate) static SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
pub(crate) static TAG: HeaderName = HeaderName::from_static("oci-tag");
pub(crate) static FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// Content under its digest never changes.
pub(crate) const IMMUTABLE: HeaderValue = HeaderValue::from_static("max-age=31536000, immutable");
/// May be kept, but asked for again (by its entity tag) before each use.
pub(crate) const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");

/// The upstream could not say whether this is still right (RFC 7234, section 5.5.1).
pub(crate) const STALE: HeaderValue = HeaderValue::from_static("110 - \"Response is Stale\"");

/// Why a request is not answered with what it asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Op(#[from] OpError),
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error(transparent)]
    Registry(#[from] registry::Error),
    #[error(transparent)]
    Body(#[from] BodyError),
    /// Of a manifest: unlike an upload's, nothing of it is kept.
    #[error("{0}")]
    Manifest(BodyError),
    #[error("too much is in memory already that clients send or take slowly")]
    Busy,
    #[error("Content-Range is {0:?}, and has to be <first byte>-<last byte>")]
    ChunkRange(String),
    #[error("Content-Range says {range} bytes, but the body has {body}")]
    ChunkLength { range: u64, body: u64 },
    #[error("If-Match names nothing that could be stored here")]
    Precondition,
    #[error("If-None-Match is only understood as `*` when something is pushed or deleted")]
    ConditionUnsupported,
    /// Credentials are missing, wrong or not enough.
    #[error("not authorized: {why}")]
    Unauthorized { challenge: Challenge, why: String },
    /// The token of somebody with a name does not grant it.
    #[error("denied: {why}")]
    Insufficient { challenge: Challenge, why: String },
    /// Who asked for a token did not say who they are.
    #[error("not logged in: {why}")]
    LogIn { challenge: Challenge, why: String },
    #[error(transparent)]
    Form(#[from] FormError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error("too many wrong passwords for this user from this address")]
    TooManyAttempts { retry_after: Duration },
    /// And no credentials of this asker would help.
    #[error("denied: {why}")]
    Denied { why: String },
    /// The asker may not know whether it exists.
    #[error("hidden: {why}")]
    Hidden { as_if: AsIf, why: String },
    #[error("plain HTTP, which http.plain does not allow for this")]
    PlainDenied {
        message: String,
        ca_sha256: Option<String>,
    },
    #[error("http.tls.certificate is not by a CA of this machine's own")]
    NoAuthority,
    #[error("no name and path that can stand in a script")]
    NoTrustScript,
    #[error("not ready: {0}")]
    NotReady(String),
    #[error("the handler panicked")]
    Panicked,
}

impl From<storage::Error> for Failure {
    fn from(error: storage::Error) -> Self {
        Failure::Registry(registry::Error::from(error))
    }
}

pub(crate) type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes, storage::Error>> + Send>>;

pub(crate) enum ReplyBody {
    /// For statuses that have none.
    None,
    Bytes(Bytes),
    /// The length of a body that is not sent: the answer to HEAD.
    Length(u64),
    Stream {
        len: u64,
        stream: BodyStream,
    },
}

pub(crate) struct Reply {
    head: HttpResponse<()>,
    pub(crate) body: ReplyBody,
}

impl Reply {
    pub(crate) fn new(status: StatusCode) -> Self {
        Reply {
            head: HttpResponse::with_body(status, ()),
            body: ReplyBody::Bytes(Bytes::new()),
        }
    }

    pub(crate) fn no_content() -> Self {
        Reply {
            head: HttpResponse::with_body(StatusCode::NO_CONTENT, ()),
            body: ReplyBody::None,
        }
    }

    pub(crate) fn text(status: StatusCode, text: impl Into<Bytes>) -> Self {
        let mut reply = Reply::new(status);
        reply.set(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        reply.body = ReplyBody::Bytes(text.into());
        reply
    }

    pub(crate) fn json(
        status: StatusCode,
        media_type: &'static str,
        json: impl Into<Bytes>,
    ) -> Self {
        let mut reply = Reply::new(status);
        reply.set(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        reply.body = ReplyBody::Bytes(json.into());
        reply
    }

    #[cfg(test)]
    pub(crate) fn status(&self) -> StatusCode {
        self.head.status()
    }

    pub(crate) fn set(&mut self, name: HeaderName, value: HeaderValue) {
        self.head.headers_mut().insert(name, value);
    }

    /// Leaves the header out when the value is no header value; for values that come from a client.
    pub(crate) fn set_text(&mut self, name: HeaderName, value: impl TryInto<HeaderValue>) {
        if let Ok(value) = value.try_into() {
            self.set(name, value);
        }
    }

    pub(crate) fn add(&mut self, name: HeaderName, value: HeaderValue) {
        self.head.headers_mut().append(name, value);
    }

    /// `Docker-Content-Digest` and `ETag`.
    pub(crate) fn set_digest(&mut self, tag: &EntityTag) {
        self.set(CONTENT_DIGEST.clone(), tag.digest.clone());
        self.set(header::ETAG, tag.quoted.clone());
    }

    /// Turns the answer to GET into the one to HEAD.
    pub(crate) fn without_body(&mut self) {
        let len = match &self.body {
            ReplyBody::None => return,
            ReplyBody::Bytes(bytes) => bytes.len() as u64,
            ReplyBody::Length(len) | ReplyBody::Stream { len, .. } => *len,
        };
        self.body = ReplyBody::Length(len);
    }

    pub(crate) fn into_parts(self) -> (HttpResponse<()>, ReplyBody) {
        (self.head, self.body)
    }
}

/// A digest as two header values that share one allocation: `sha256:...` and `"sha256:..."`.
pub(crate) struct EntityTag {
    digest: HeaderValue,
    quoted: HeaderValue,
}

impl EntityTag {
    pub(crate) fn new(digest: &Digest) -> Self {
        let quoted = Bytes::from(format!("\"{digest}\""));
        let digest = quoted.slice(1..quoted.len() - 1);
        let value = |bytes| {
            HeaderValue::from_maybe_shared(bytes).unwrap_or_else(|_| HeaderValue::from_static(""))
        };
        EntityTag {
            digest: value(digest),
            quoted: value(quoted),
        }
    }

    pub(crate) fn into_digest(self) -> HeaderValue {
        self.digest
    }

    pub(crate) fn as_str(&self) -> &str {
        self.quoted.to_str().unwrap_or_default()
    }
}
