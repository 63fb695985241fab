//! What a token says (RFC 7519, and the `access` claim of distribution's "Docker Registry v2 Bearer token
//! specification").

use serde::{Deserialize, Serialize};

use super::TokenError;
use super::scope::{Scopes, or_default};

/// Seconds by which the clocks of issuer and registry may differ; distribution's figure.
pub(super) const LEEWAY: i64 = 60;

/// The claims that mean something here. Those that are missing are empty, and times that are missing are 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Claims {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) iss: String,
    /// Who asked for the token; empty for anonymous ones.
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) sub: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) aud: Audience,
    /// Seconds since 1970, as the others.
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) exp: i64,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) nbf: i64,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) access: Scopes,
}

/// One name or a list of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Audience::Several(Vec::new())
    }
}

impl Audience {
    fn has(&self, name: &str) -> bool {
        match self {
            Audience::One(one) => one == name,
            Audience::Several(several) => several.iter().any(|one| one == name),
        }
    }
}

impl Claims {
    /// Whether they are `issuer`'s, and meant for `service`.
    pub(super) fn check_names(&self, issuer: &str, service: &str) -> Result<(), TokenError> {
        if self.iss != issuer {
            return Err(TokenError::Issuer(self.iss.clone()));
        }
        if !self.aud.has(service) {
            return Err(TokenError::Audience);
        }
        Ok(())
    }

    /// Whether they hold at `now`, in seconds since 1970.
    pub(super) fn check_time(&self, now: i64) -> Result<(), TokenError> {
        if now > self.exp.saturating_add(LEEWAY) {
            return Err(TokenError::Expired);
        }
        if now < self.nbf.saturating_sub(LEEWAY) {
            return Err(TokenError::NotYet);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(json: &str) -> Claims {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn an_audience_is_one_or_several() {
        for (json, fits) in [
            (r#"{"iss":"i","aud":"s"}"#, true),
            (r#"{"iss":"i","aud":["other","s"]}"#, true),
            (r#"{"iss":"i","aud":["other"]}"#, false),
            (r#"{"iss":"i","aud":"ss"}"#, false),
            (r#"{"iss":"i","aud":[]}"#, false),
            (r#"{"iss":"i","aud":null}"#, false),
            (r#"{"iss":"i"}"#, false),
            (r#"{"iss":"I","aud":"s"}"#, false),
            (r#"{"aud":"s"}"#, false),
        ] {
            assert_eq!(claims(json).check_names("i", "s").is_ok(), fits, "{json}");
        }
        for json in [
            r#"{"aud":7}"#,
            r#"{"aud":["s",7]}"#,
            r#"{"exp":"9"}"#,
            r#"{"exp":1.5}"#,
        ] {
            assert!(serde_json::from_str::<Claims>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn clocks_may_differ_by_a_minute() {
        let claims = Claims {
            exp: 2000,
            nbf: 1000,
            ..Claims::default()
        };
        for (now, expected) in [
            (939, Err(TokenError::NotYet)),
            (940, Ok(())),
            (2060, Ok(())),
            (2061, Err(TokenError::Expired)),
        ] {
            assert_eq!(claims.check_time(now), expected, "{now}");
        }
    }

    #[test]
    fn a_token_without_an_end_has_ended_and_extremes_do_not_overflow() {
        assert_eq!(
            claims("{}").check_time(1_700_000_000),
            Err(TokenError::Expired)
        );
        let forever = claims(r#"{"exp":9223372036854775807,"nbf":-9223372036854775808}"#);
        assert_eq!(forever.check_time(1_700_000_000), Ok(()));
    }
}
