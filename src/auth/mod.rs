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

use crate::oci::RepoName;

pub(crate) use access::{Access, Action, Permission};
pub(crate) use challenge::Challenge;
pub(crate) use identity::Identity;
pub(crate) use place::{Hop, Network, Place};
pub(crate) use rules::{Decision, Rules};

use settings::Settings;

/// Access control: one for all addresses that are served.
#[derive(Debug)]
pub(crate) struct Auth {
    rules: Rules,
    /// Of the Basic challenge; none when nobody can have a password.
    realm: Option<String>,
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
    /// Nobody may do anything from there.
    #[error("nothing is allowed from {0}")]
    Place(Place),
}

impl Auth {
    /// # Errors
    /// A rule that cannot be understood.
    pub(crate) fn new(settings: &Settings) -> Result<Self, AuthError> {
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
        Ok(Auth {
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
        self.rules.permits(identity, place, access)
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

    /// How to come back; none when no credentials would help, since there are none. `insufficient` when a good token came
    /// that grants something else.
    pub(crate) fn challenge(&self, _access: &Access<'_>, _insufficient: bool) -> Option<Challenge> {
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
