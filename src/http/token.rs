//! `/auth/token`: what docker's token protocol asks of a token server, with GET and with an OAuth2 form.
//!
//! Sources: distribution's "Token Authentication Specification" and "Oauth2 Token Authentication", RFC 6749 (4.3, 5, 6).

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use serde_json::json;

use crate::auth::{Denied, Identity, Scopes};
use crate::secret::Secret;

use super::admit::presented;
use super::dispatch::Call;
use super::payload::BodyError;
use super::reply::{Failure, Reply};
use super::route::OpError;

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

/// What a form asks for.
struct Form {
    grant: Grant,
    scopes: Scopes,
    offline: bool,
}

enum Grant {
    Password { user: String, password: Secret },
    Refresh(Secret),
}

pub(super) async fn get(call: &Call<'_>, scopes: &Scopes, offline: bool) -> Result<Reply, Failure> {
    let presented = presented(call.head);
    let identity = call.front.auth.identify(presented, &call.asker.place).await;
    let identity = identity.map_err(|denied| wrong(call, &denied))?;
    answer(call, &identity, scopes, offline, None)
}

pub(super) async fn post(call: &mut Call<'_>) -> Result<Reply, Failure> {
    let form = read(call).await?;
    let (auth, place) = (&call.front.auth, &call.asker.place);
    auth.admits(place).map_err(|denied| wrong(call, &denied))?;
    match form.grant {
        Grant::Password { user, password } => {
            let identity = auth.log_in(&user, password.expose(), place).await;
            let identity = identity.map_err(|denied| wrong(call, &denied))?;
            answer(call, &identity, &form.scopes, form.offline, None)
        }
        Grant::Refresh(token) => {
            let certificate = presented(call.head).certificate;
            let identity = auth.refresh(token.expose(), certificate);
            let identity = identity.map_err(|denied| wrong(call, &denied))?;
            // The same one comes back, if one is wanted.
            let token = form.offline.then_some(token);
            answer(call, &identity, &form.scopes, false, token)
        }
    }
}

fn wrong(call: &Call<'_>, denied: &Denied) -> Failure {
    let why = denied.to_string();
    match (denied, call.front.auth.basic_challenge()) {
        (Denied::TooMany { retry_after }, _) => Failure::TooManyAttempts {
            retry_after: *retry_after,
        },
        (Denied::Place(_), _) | (_, None) => Failure::Denied { why },
        (_, Some(challenge)) => Failure::LogIn { challenge, why },
    }
}

fn answer(
    call: &Call<'_>,
    identity: &Identity,
    scopes: &Scopes,
    offline: bool,
    refresh: Option<Secret>,
) -> Result<Reply, Failure> {
    let auth = &call.front.auth;
    let issued = auth
        .issue(identity, &call.asker.place, scopes, offline)
        .map_err(|denied| wrong(call, &denied))?
        // No token server here.
        .ok_or(OpError::Path)?;
    let mut body = json!({
        "token": issued.token,
        "access_token": issued.token,
        "token_type": "Bearer",
        // No `issued_at`: the clock of a machine without a battery would make clients take it for expired.
        "expires_in": issued.lifetime.as_secs(),
        "scope": issued.granted.to_string(),
    });
    let refresh = refresh.as_ref().map(Secret::expose);
    if let Some(refresh) = refresh.or(issued.refresh.as_deref()) {
        body["refresh_token"] = json!(refresh);
    }
    let mut reply = Reply::json(StatusCode::OK, "application/json", body.to_string());
    reply.set(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(reply)
}

async fn read(call: &mut Call<'_>) -> Result<Form, Failure> {
    let media_type = call.head.headers.get(header::CONTENT_TYPE);
    let media_type = media_type.and_then(|value| value.to_str().ok());
    let media_type = media_type.and_then(|value| value.split(';').next());
    if !media_type.is_some_and(|value| value.trim().eq_ignore_ascii_case(FORM)) {
        return Err(FormError::Type.into());
    }
    call.make_room(MAX_FORM as u64).await?;
    match call.body.read_all(MAX_FORM).await {
        Ok(body) => Ok(parse(&body)?),
        Err(BodyError::TooLarge { .. }) => Err(FormError::TooLarge.into()),
        Err(error) => Err(error.into()),
    }
}

/// The first of each counts.
fn parse(body: &[u8]) -> Result<Form, FormError> {
    let get = |name: &'static str| {
        let mut pairs = form_urlencoded::parse(body);
        let found = pairs.find(|(key, _)| key == name);
        found.map(|(_, value)| value.into_owned())
    };
    let need = |name| get(name).ok_or(FormError::Missing(name));
    let grant = match need("grant_type")?.as_str() {
        "password" => Grant::Password {
            user: need("username")?,
            password: Secret::new(need("password")?),
        },
        "refresh_token" => Grant::Refresh(Secret::new(need("refresh_token")?)),
        _ => return Err(FormError::Grant),
    };
    Ok(Form {
        grant,
        scopes: Scopes::parse([get("scope").unwrap_or_default().as_str()]),
        offline: get("access_type").is_some_and(|kind| kind == "offline"),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forms_as_docker_and_containerd_send_them() {
        let form = parse(
            b"access_type=offline&client_id=docker&grant_type=password&password=p%26+%2B&scope=repository%3Aa%2Fb%3Apull%2Cpush+\
              repository%3Ac%3Apull&service=registry&username=alice",
        )
        .unwrap();
        assert!(form.offline);
        assert_eq!(
            form.scopes.to_string(),
            "repository:a/b:pull,push repository:c:pull"
        );
        match form.grant {
            Grant::Password { user, password } => {
                assert_eq!((user.as_str(), password.expose()), ("alice", "p& +"));
            }
            Grant::Refresh(_) => panic!("a password"),
        }
        let form = parse(
            b"grant_type=refresh_token&refresh_token=x.y.z&client_id=containerd-client&service=r",
        );
        assert!(matches!(form.unwrap().grant, Grant::Refresh(token) if token.expose() == "x.y.z"));
    }

    #[test]
    fn what_is_missing_is_named() {
        for (body, error) in [
            ("", FormError::Missing("grant_type")),
            (
                "grant_type=password&username=a",
                FormError::Missing("password"),
            ),
            (
                "grant_type=password&password=a",
                FormError::Missing("username"),
            ),
            (
                "grant_type=refresh_token",
                FormError::Missing("refresh_token"),
            ),
            ("grant_type=authorization_code&code=x", FormError::Grant),
        ] {
            assert_eq!(parse(body.as_bytes()).map(|_| ()), Err(error), "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_form_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&body);
        }
    }
}
