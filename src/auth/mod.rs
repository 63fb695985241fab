//! Who may do what.
//!
//! ```text
//! Authorization, certificate -> identify -> Identity --.
//! connection, trusted proxies ----------> Place -------+-> permits -> Decision -> answer, or a Challenge
//! Op::access() -------------------------> Access ------'
//! ```
//!
//! Knows no HTTP but the values of two headers. `identify` may wait (a password is hashed on a thread of its own);
//! `permits` is a pure function of what was found.

#![allow(dead_code, reason = "passwords, robots and tokens come next")]

mod access;
mod challenge;
mod identity;
mod place;
mod rules;
pub(crate) mod settings;
#[cfg(test)]
mod tests;
pub(crate) mod token;
mod tokens;

use std::path::Path;

use crate::oci::RepoName;

pub(crate) use access::{Access, Action, Permission};
pub(crate) use challenge::Challenge;
pub(crate) use identity::Identity;
pub(crate) use place::{Hop, Network, Place};
pub(crate) use rules::{Decision, Reason, Rules};
pub(crate) use token::Scopes;
pub(crate) use tokens::{Fault, Realm};

use settings::Settings;
use token::TokenError;
use tokens::Tokens;

/// Access control: one for all addresses that are served.
#[derive(Debug)]
pub(crate) struct Auth {
    rules: Rules,
    /// Of the Basic challenge; none when nobody can have a password.
    realm: Option<String>,
    tokens: Tokens,
}

/// What a request says about who sends it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Presented<'a> {
    /// The value of `Authorization`.
    pub(crate) authorization: Option<&'a str>,
    /// The common name of a client certificate that was verified.
    pub(crate) certificate: Option<&'a str>,
}

/// Why nobody was identified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    /// One answer for all of them: wrong password, no such user, expired key, bad token.
    #[error("the credentials are wrong")]
    Credentials,
    /// In its own words for the log; clients are told that it is not good.
    #[error("the token is not good: {0}")]
    Token(#[source] TokenError),
    /// Nobody may do anything from there.
    #[error("nothing is allowed from {0}")]
    Place(Place),
}

impl Auth {
    /// `keys` is where the keys of our own tokens lie; without it there are no such tokens.
    ///
    /// # Errors
    /// A rule that cannot be understood, or keys that cannot be read.
    pub(crate) fn new(settings: &Settings, keys: Option<&Path>) -> Result<Self, AuthError> {
        let rules = match (&settings.rules, &settings.htpasswd, &settings.token) {
            (Some(rules), ..) => Rules::parse(rules).map_err(|mut errors| {
                let first = errors.swap_remove(0);
                AuthError(format!("{}: {}", first.key, first.text))
            })?,
            (None, Some(_), _) => Rules::of_users(),
            (None, None, Some(_)) => Rules::of_tokens(),
            (None, None, None) => Rules::open(),
        };
        let htpasswd = settings.htpasswd.as_ref();
        let keys = keys.filter(|_| htpasswd.is_some());
        Ok(Auth {
            tokens: Tokens::open(settings, &rules, keys)?,
            rules,
            realm: htpasswd.map(|htpasswd| htpasswd.realm.clone()),
        })
    }

    /// Who sends a request. Who says nothing is anonymous, and so is everybody where nobody can have credentials.
    ///
    /// # Errors
    /// Credentials came and are not good: the request is refused, also where anonymous would be let in.
    pub(crate) async fn identify(
        &self,
        presented: Presented<'_>,
        place: &Place,
    ) -> Result<Identity, Denied> {
        if self.rules.shuts_out(place) {
            return Err(Denied::Place(place.clone()));
        }
        match presented.authorization {
            Some(value) if bearer_token(value).is_some() && self.tokens.realm().is_some() => self
                .bearer(
                    bearer_token(value).unwrap_or_default(),
                    presented.certificate,
                ),
            Some(_) if self.realm.is_some() => Err(Denied::Credentials),
            _ => Ok(Identity::ANONYMOUS),
        }
    }

    /// Whether they may, and why.
    pub(crate) fn permits<'a>(
        &'a self,
        identity: &Identity,
        place: &Place,
        access: &Access<'_>,
    ) -> Decision<'a> {
        if access.action == Action::Ping && identity.is_anonymous() && identity.token.is_none() {
            // Clients ask once whether they need a token, and then believe the answer.
            if self.tokens.are_ours() && self.has_credentials() {
                return Decision::Denied(Reason::TokenWanted);
            }
        }
        self.rules.permits(identity, place, access)
    }

    /// Whether a repository is in the catalog that `identity` may see: a token limits what it can be used for, and the
    /// catalog is that already.
    pub(crate) fn may_see(&self, identity: &Identity, place: &Place, name: &RepoName) -> bool {
        let decision = self
            .rules
            .decide(identity, place, Some(name), Permission::Pull);
        matches!(decision, Decision::Allowed(_) | Decision::BeyondToken)
    }

    /// Whether `may_see` says yes to every name.
    pub(crate) fn may_see_all(&self, identity: &Identity, place: &Place) -> bool {
        let unlimited = Identity::of(identity.subject.clone());
        identity.token.is_none() && self.rules.may_pull_all(&unlimited, place)
    }

    /// Reads files of keys again.
    ///
    /// # Errors
    /// Those of the files; what was read before stays in use.
    pub(crate) fn reload_keys(&self) -> Result<(), AuthError> {
        self.tokens.reload()
    }

    pub(crate) fn may_pull(&self, identity: &Identity, place: &Place, name: &RepoName) -> bool {
        self.rules
            .decide(identity, place, Some(name), Permission::Pull)
            .is_allowed()
    }

    /// Whether `may_pull` says yes to every name.
    pub(crate) fn may_pull_all(&self, identity: &Identity, place: &Place) -> bool {
        self.rules.may_pull_all(identity, place)
    }

    /// Where a client that is challenged gets a token; none where there are no tokens.
    pub(crate) fn token_realm(&self) -> Option<Realm> {
        self.tokens.realm()
    }

    /// How to come back; none when no credentials would help, since there are none. `realm` is the URL of
    /// [`Auth::token_realm`].
    pub(crate) fn challenge(
        &self,
        access: &Access<'_>,
        fault: Fault,
        realm: Option<&str>,
    ) -> Option<Challenge> {
        if let Some(realm) = realm {
            // Not Basic beside it: docker would follow both, and send the password that it was not asked for.
            let bearer = challenge::bearer(realm, self.tokens.service(), access, fault);
            return Some(Challenge {
                headers: vec![bearer],
            });
        }
        self.basic_challenge()
    }

    /// How to send a password.
    pub(crate) fn basic_challenge(&self) -> Option<Challenge> {
        let realm = self.realm.as_deref()?;
        Some(Challenge {
            headers: vec![challenge::basic(realm)],
        })
    }
}

/// What keeps access control from working.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct AuthError(String);

impl AuthError {
    fn new(error: &dyn std::error::Error) -> Self {
        AuthError(token::with_causes(error))
    }
}

/// The token of `Authorization: Bearer TOKEN`.
fn bearer_token(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim())
        .filter(|token| !token.is_empty())
}
