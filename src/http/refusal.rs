//! From a failure to what the client is told: exhaustive, so that a new kind of failure does not compile until it has
//! its status, its code and its sentence. Nothing of the inside (paths, errors of the system) gets into them.

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::auth::Challenge;
use crate::oci::ErrorCode;
use crate::registry::Error;

mod body;

use super::admit::AsIf;
use super::reply::{Failure, Reply};
use super::route::OpError;
use super::unreadable::Unreadable;

/// More unknown references than this are not listed: a manifest can have tens of thousands.
const MAX_LISTED: usize = 100;

pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: ErrorCode,
    message: String,
    detail: Value,
    /// What the failure itself says in headers.
    headers: Vec<(HeaderName, HeaderValue)>,
    /// `error` of RFC 6749, 5.2, for who asked for a token.
    oauth: Option<&'static str>,
}

impl Refusal {
    fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Refusal {
            status,
            code,
            message: message.into(),
            detail: Value::Null,
            headers: Vec::new(),
            oauth: None,
        }
    }

    fn oauth(mut self, error: &'static str) -> Self {
        self.oauth = Some(error);
        self
    }

    fn detail(mut self, detail: Value) -> Self {
        self.detail = detail;
        self
    }

    fn challenge(self, challenge: &Challenge) -> Self {
        let headers = challenge.headers.iter();
        headers.fold(self, |refusal, header| {
            refusal.header(header::WWW_AUTHENTICATE, header.as_str())
        })
    }

    fn header(mut self, name: HeaderName, value: impl TryInto<HeaderValue>) -> Self {
        self.headers
            .extend(value.try_into().ok().map(|value| (name, value)));
        self
    }

    pub(crate) fn of(failure: &Failure) -> Self {
        match failure {
            Failure::Op(error) => bad_request_line(error),
            Failure::Unreadable(error) => unreadable(*error),
            Failure::Registry(error) => registry(error),
            Failure::Body(error) => body::of_upload(error),
            Failure::Manifest(error) => body::of_manifest(error),
            Failure::Busy => body::busy(),
            Failure::ChunkRange(_) => Refusal::new(
                StatusCode::BAD_REQUEST,
                ErrorCode::RangeInvalid,
                failure.to_string(),
            ),
            Failure::ChunkLength { .. } => {
                let message =
                    format!("{failure}; ask for the upload's status and send the rest from there");
                Refusal::new(StatusCode::BAD_REQUEST, ErrorCode::SizeInvalid, message)
            }
            Failure::Precondition => changed(),
            Failure::ConditionUnsupported => Refusal::new(
                StatusCode::BAD_REQUEST,
                ErrorCode::Unsupported,
                failure.to_string(),
            ),
            // The words of distribution, which people search for.
            Failure::Unauthorized { challenge, .. } => {
                unauthorized(ErrorCode::Unauthorized, "authentication required")
                    .challenge(challenge)
            }
            Failure::Insufficient { challenge, .. } => {
                unauthorized(ErrorCode::Denied, DENIED).challenge(challenge)
            }
            // The words of Docker Hub.
            Failure::LogIn { challenge, .. } => {
                let message = "incorrect username or password";
                unauthorized(ErrorCode::Unauthorized, message)
                    .challenge(challenge)
                    .oauth("invalid_grant")
            }
            Failure::Form(error) => Refusal::new(
                StatusCode::BAD_REQUEST,
                ErrorCode::Unsupported,
                error.to_string(),
            )
            .oauth(error.code()),
            Failure::TooManyAttempts { retry_after } => {
                let seconds = retry_after.as_secs_f64().ceil().max(1.0) as u64;
                let message = format!(
                    "too many log-ins with a wrong password: try again in {seconds} seconds"
                );
                Refusal::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    ErrorCode::TooManyRequests,
                    message,
                )
                .header(header::RETRY_AFTER, seconds.to_string())
            }
            Failure::Denied { .. } => denied(),
            Failure::Hidden {
                as_if: AsIf::Missing(error),
                ..
            } => registry(error),
            // Answered before it gets here.
            Failure::Hidden {
                as_if: AsIf::NoReferrers,
                ..
            } => denied(),
            Failure::PlainDenied { message, ca_sha256 } => {
                let refusal =
                    Refusal::new(StatusCode::FORBIDDEN, ErrorCode::Denied, message.as_str());
                match ca_sha256 {
                    Some(sum) => refusal.detail(json!({ "ca_sha256": sum })),
                    None => refusal,
                }
            }
            Failure::NoAuthority => Refusal::new(
                StatusCode::NOT_FOUND,
                ErrorCode::Unsupported,
                "this registry has no CA of its own: its owner gave it a certificate, and knows whom to trust for it",
            ),
            Failure::NoTrustScript => Refusal::new(
                StatusCode::NOT_FOUND,
                ErrorCode::Unsupported,
                "the path that this registry is served below cannot stand in a script: install /ca.crt by hand",
            ),
            Failure::Admin(error) => Refusal::new(error.status(), error.code(), error.to_string()),
            Failure::NotReady(_) => Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                ErrorCode::Unavailable,
                failure.to_string(),
            ),
            Failure::Panicked => Refusal::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                ErrorCode::Unknown,
                "the server failed in a way it should not; its log says more",
            ),
        }
    }

    pub(crate) fn into_reply(self) -> Reply {
        let error = |detail: &Value| {
            let mut error = json!({ "code": self.code.as_str(), "message": self.message });
            if !detail.is_null() {
                error["detail"] = detail.clone();
            }
            error
        };
        let errors: Vec<Value> = match &self.detail {
            // One error a reference, as the specification has it.
            Value::Array(details) => details.iter().map(error).collect(),
            detail => vec![error(detail)],
        };
        let mut json = json!({ "errors": errors });
        if let Some(error) = self.oauth {
            json["error"] = error.into();
            json["error_description"] = self.message.as_str().into();
        }
        let json = json.to_string();
        let mut reply = Reply::json(self.status, "application/json", json);
        reply.set(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for (name, value) in self.headers {
            reply.add(name, value);
        }
        reply
    }
}

/// The words of distribution.
const DENIED: &str = "requested access to the resource is denied";

fn denied() -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, ErrorCode::Denied, DENIED)
}

fn unauthorized(code: ErrorCode, message: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, code, message)
}

fn bad_request_line(error: &OpError) -> Refusal {
    let bad = |code| Refusal::new(StatusCode::BAD_REQUEST, code, error.to_string());
    match error {
        OpError::Name(name, _) => bad(ErrorCode::NameInvalid).detail(json!({ "name": name })),
        OpError::Tag(tag, _) => bad(ErrorCode::TagInvalid).detail(json!({ "tag": tag })),
        OpError::NoSuchTag(tag, _) => Refusal::new(
            StatusCode::NOT_FOUND,
            ErrorCode::ManifestUnknown,
            error.to_string(),
        )
        .detail(json!({ "tag": tag })),
        OpError::Digest(digest, _) => {
            bad(ErrorCode::DigestInvalid).detail(json!({ "digest": digest }))
        }
        OpError::DigestMissing => bad(ErrorCode::DigestInvalid),
        OpError::TagsOfTag => bad(ErrorCode::TagInvalid),
        OpError::Upload(_) => Refusal::new(
            StatusCode::NOT_FOUND,
            ErrorCode::BlobUploadUnknown,
            error.to_string(),
        ),
        OpError::PageSize(n) => bad(ErrorCode::PaginationNumberInvalid).detail(json!({ "n": n })),
        OpError::Method { allow, .. } => Refusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            ErrorCode::Unsupported,
            error.to_string(),
        )
        .header(header::ALLOW, *allow),
        OpError::Path | OpError::Version1 => Refusal::new(
            StatusCode::NOT_FOUND,
            ErrorCode::Unsupported,
            error.to_string(),
        ),
        OpError::TooLong => Refusal::new(
            StatusCode::URI_TOO_LONG,
            ErrorCode::Unsupported,
            error.to_string(),
        ),
    }
}

fn unreadable(error: Unreadable) -> Refusal {
    let (status, code) = match error {
        Unreadable::Malformed => (StatusCode::BAD_REQUEST, ErrorCode::Unsupported),
        Unreadable::HeadTooLarge => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            ErrorCode::Unsupported,
        ),
        Unreadable::HeadTimeout => (StatusCode::REQUEST_TIMEOUT, ErrorCode::Unsupported),
        Unreadable::Broken => (StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unknown),
    };
    Refusal::new(status, code, error.to_string())
}

fn changed() -> Refusal {
    let message = "what is here now is not what the request's If-Match or If-None-Match wants: get it again, and make the \
                   change with the new ETag";
    Refusal::new(
        StatusCode::PRECONDITION_FAILED,
        ErrorCode::ManifestInvalid,
        message,
    )
}

fn registry(error: &Error) -> Refusal {
    let not_found = |code, message: &str| Refusal::new(StatusCode::NOT_FOUND, code, message);
    let bad = |code, message: String| Refusal::new(StatusCode::BAD_REQUEST, code, message);
    match error {
        Error::RepoUnknown => not_found(
            ErrorCode::NameUnknown,
            "this registry has no repository of that name",
        ),
        Error::ManifestUnknown => not_found(
            ErrorCode::ManifestUnknown,
            "the repository has no manifest of that tag or digest",
        ),
        Error::BlobUnknown => not_found(
            ErrorCode::BlobUnknown,
            "the repository has no blob of that digest",
        ),
        Error::UploadUnknown => not_found(
            ErrorCode::BlobUploadUnknown,
            "there is no such upload: it was finished, cancelled or abandoned for too long; start a new one",
        ),
        Error::UploadBusy => Refusal::new(
            StatusCode::CONFLICT,
            ErrorCode::BlobUploadInvalid,
            "another request is writing to this upload; wait until it ends",
        )
        .header(header::RETRY_AFTER, "1"),
        Error::UploadRange { offset } => {
            let message = format!(
                "the chunk does not begin where the upload ends: it has {offset} bytes so far"
            );
            Refusal::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                ErrorCode::RangeInvalid,
                message,
            )
            .detail(json!({ "offset": offset }))
        }
        Error::DigestMismatch { expected, actual } => {
            let message = format!(
                "the content has the digest {actual}, not {expected}: it was damaged on its way"
            );
            bad(ErrorCode::DigestInvalid, message)
                .detail(json!({ "expected": expected.to_string(), "actual": actual.to_string() }))
        }
        Error::RangeUnsatisfiable { len } => {
            let message = format!("the range lies outside of the content, which has {len} bytes");
            Refusal::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                ErrorCode::RangeInvalid,
                message,
            )
            .header(header::CONTENT_RANGE, format!("bytes */{len}"))
        }
        Error::ManifestInvalid(reason) => bad(ErrorCode::ManifestInvalid, reason.to_string()),
        Error::ManifestTooLarge { limit } => body::too_large(*limit),
        Error::ReferencesUnknown(digests) => {
            let message =
                "the manifest refers to content that the repository does not have: push it first"
                    .to_owned();
            let listed = digests
                .iter()
                .take(MAX_LISTED)
                .map(|digest| json!({ "digest": digest.to_string() }));
            bad(ErrorCode::ManifestBlobUnknown, message).detail(Value::Array(listed.collect()))
        }
        Error::SizeMismatch {
            digest,
            claimed,
            stored,
        } => {
            let message =
                format!("the manifest says that {digest} has {claimed} bytes, but it has {stored}");
            bad(ErrorCode::SizeInvalid, message).detail(json!({ "digest": digest.to_string() }))
        }
        Error::UrlDenied(url) => {
            let message = format!(
                "the manifest refers to {url:?}, which validation.manifests.urls does not allow"
            );
            bad(ErrorCode::ManifestInvalid, message).detail(json!({ "url": url }))
        }
        Error::PreconditionFailed => changed(),
        Error::TagImmutable(tag) => Refusal::new(
            StatusCode::CONFLICT,
            ErrorCode::Denied,
            format!("the tag {tag} is immutable here (tags.immutable): push under another tag"),
        )
        .detail(json!({ "tag": tag.as_str() })),
        Error::NothingToUndo => not_found(ErrorCode::ManifestUnknown, &error.to_string()),
        Error::DeleteDisabled => Refusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            ErrorCode::Unsupported,
            "this registry deletes nothing: storage.delete.enabled is false",
        )
        .header(header::ALLOW, "GET, HEAD"),
        Error::ReadOnly => Refusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            ErrorCode::Unsupported,
            "this registry is read-only for now",
        )
        .header(header::ALLOW, "GET, HEAD"),
        Error::NoSpace => Refusal::new(
            StatusCode::INSUFFICIENT_STORAGE,
            ErrorCode::Unavailable,
            "the registry's disk is full: delete images that are no longer needed, or give it a larger disk",
        ),
        Error::NearlyFull { available } => Refusal::new(
            StatusCode::INSUFFICIENT_STORAGE,
            ErrorCode::Unavailable,
            format!(
                "the registry's disk is nearly full, {} MB are free: delete images that are no longer needed, or give it a \
                 larger disk",
                available / 1_000_000
            ),
        )
        .detail(json!({ "available": available })),
        Error::QuotaExceeded(quota) => Refusal::new(
            StatusCode::FORBIDDEN,
            ErrorCode::Denied,
            format!(
                "{quota}; delete images that are no longer needed: their room is free again when garbage has been collected"
            ),
        )
        .detail(json!({
            "repositories": quota.repositories, "limit": quota.limit, "used": quota.used, "wanted": quota.wanted,
        })),
        Error::Away(away) => Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Unavailable,
            away.to_string(),
        )
        .header(header::RETRY_AFTER, "10"),
        Error::UpstreamFailed(_) => Refusal::new(
            StatusCode::BAD_GATEWAY,
            ErrorCode::Unavailable,
            "this is not here yet, and the registry that it would be fetched from cannot give it now; the log of this \
             registry says why",
        ),
        Error::UpstreamTimeout => Refusal::new(
            StatusCode::GATEWAY_TIMEOUT,
            ErrorCode::Unavailable,
            "this is not here yet, and the registry that it would be fetched from does not answer; try again later",
        ),
        Error::UpstreamLimited { retry_after } => Refusal::new(
            StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::TooManyRequests,
            "this is not here yet, and the registry that it would be fetched from limits how much it gives; try again \
             later, or give this registry an account there (proxy.username)",
        )
        .header(header::RETRY_AFTER, retry_after.as_secs().to_string()),
        Error::Aborted => Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::Unknown,
            "the registry could not finish this request; its log says why",
        ),
        Error::Storage(..) => Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::Unknown,
            "the registry cannot reach its storage; its log says why",
        ),
    }
}

#[cfg(test)]
mod tests;
