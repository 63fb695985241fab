//! `/auth/token`: what docker's token protocol asks of a token server, with GET and with an OAuth2 form.
//!
//! Sources: distribution's "Token Authentication Specification" and "Oauth2 Token Authentication", RFC 6749 (4.3, 5, 6).

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use serde_json::json;

use crate::auth::{Identity, Issued, Presented, Scopes, Wish};

use super::dispatch::Call;
use super::reply::{Failure, Reply};

/// A form has a password, a refresh token of a kilobyte, and scopes.
const MAX_FORM: usize = 32 << 10;
const FORM: &str = "application/x-www-form-urlencoded";

/// Why a form is no request for a token: `error` of RFC 6749, 5.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormError {
    #[error("the body has to be a form, with Content-Type {FORM}")]
    Type,
    #[error("the form is larger than {MAX_FORM} bytes")]
    TooLarge,
    #[error("the form has no `{0}`")]
    Missing(&'static str),
    #[error("`grant_type` has to be `password` or `refresh_token`")]
    Grant,
}

impl FormError {
    pub(super) fn code(self) -> &'static str {
        match self {
            FormError::Type | FormError::TooLarge | FormError::Missing(_) => "invalid_request",
            FormError::Grant => "unsupported_grant_type",
        }
    }
}
