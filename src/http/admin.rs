//! What changes the server itself, for scripts: `/admin/readonly`.
//!
//! Browsers have no way here. Nobody is known by a cookie: a request says who it is from in its own headers, which a page
//! of another site cannot make a browser send without asking first (CORS), and nothing here says yes. Only where somebody
//! may do this without a name, a page whose name was made to point to this machine (DNS rebinding) could, so what comes
//! from a page is refused.

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName};
use serde::{Deserialize, Serialize};

use crate::oci::ErrorCode;

use super::dispatch::Call;
use super::payload::BodyError;
use super::reply::{Failure, Reply};

const JSON: &str = "application/json";
/// The body is one short object.
const MAX_BODY: usize = 1 << 10;

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request is none that changes something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AdminError {
    #[error("this is for programs, and not for a page in a browser")]
    Browser,
    #[error("the body has to be JSON, with Content-Type {JSON}")]
    Type,
    #[error("the body has to be {{\"readonly\": true}} or {{\"readonly\": false}}")]
    Body,
}

impl AdminError {
    pub(super) fn status(self) -> StatusCode {
        match self {
            AdminError::Browser => StatusCode::FORBIDDEN,
            AdminError::Type => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            AdminError::Body => StatusCode::BAD_REQUEST,
        }
    }

    pub(super) fn code(self) -> ErrorCode {
        match self {
            AdminError::Browser => ErrorCode::Denied,
            AdminError::Type | AdminError::Body => ErrorCode::Unsupported,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadOnly {
    readonly: bool,
}

pub(super) fn read_only(call: &Call<'_>) -> Result<Reply, Failure> {
    let readonly = call.front.registry()?.is_read_only();
    Ok(said(&ReadOnly { readonly }))
}

/// Changes that are under way come to their end; what comes later is refused, or taken again.
pub(super) async fn set_read_only(call: &mut Call<'_>) -> Result<Reply, Failure> {
    let headers = call.head.headers;
    if headers.contains_key(header::ORIGIN) || headers.contains_key(&SEC_FETCH_SITE) {
        return Err(AdminError::Browser.into());
    }
    let media_type = headers.get(header::CONTENT_TYPE);
    let media_type = media_type.and_then(|value| value.to_str().ok());
    let media_type = media_type.and_then(|value| value.split(';').next());
    if !media_type.is_some_and(|value| value.trim().eq_ignore_ascii_case(JSON)) {
        return Err(AdminError::Type.into());
    }
    call.make_room(MAX_BODY as u64).await?;
    let body = match call.body.read_all(MAX_BODY).await {
        Ok(body) => body,
        Err(BodyError::TooLarge { .. }) => return Err(AdminError::Body.into()),
        Err(error) => return Err(error.into()),
    };
    let wanted: ReadOnly = serde_json::from_slice(&body).map_err(|_| AdminError::Body)?;
    let registry = call.front.registry()?;
    if registry.is_read_only() != wanted.readonly {
        registry.set_read_only(wanted.readonly);
        let now = if wanted.readonly {
            "refused until this is switched back, or the server starts again"
        } else {
            "taken again"
        };
        log::info!("read-only: changes are {now}");
    }
    Ok(said(&wanted))
}

fn said(state: &ReadOnly) -> Reply {
    let body = serde_json::json!(state).to_string();
    let mut reply = Reply::json(StatusCode::OK, JSON, body);
    reply.set(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("no-store"),
    );
    reply
}
