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

mod access;
mod accounts;
pub(crate) mod audit;
mod backoff;
mod challenge;
mod credentials;
pub(crate) mod htpasswd;
mod identity;
mod log_in;
pub(crate) mod logouts;
pub(crate) mod password;
mod place;
mod remembered;
pub(crate) mod robots;
mod rules;
pub(crate) mod settings;
#[cfg(test)]
mod tests;
pub(crate) mod token;
mod tokens;
mod who;

use std::time::Duration;

use crate::oci::RepoName;

pub(crate) use access::{Access, Action, Permission, Permissions};
pub(crate) use accounts::{FileError, complaints};
pub(crate) use backoff::Source;
pub(crate) use challenge::Challenge;
pub(crate) use identity::{Identity, Subject};
pub(crate) use place::{Hop, Network, Place};
pub(crate) use rules::{Decision, Reason, Rules};
pub(crate) use token::{KeyFile, Scopes};
pub(crate) use tokens::{Fault, Realm};

use credentials::Credentials;
use log_in::LogIn;
use settings::Settings;
use token::TokenError;
use tokens::Tokens;

/// Access control: one for all addresses that are served.
#[derive(Debug)]
pub(crate) struct Auth {
    rules: Rules,
    /// `auth.htpasswd`; none when nobody can have a password.
    log_in: Option<LogIn>,
    /// Of the Basic challenge.
    realm: String,
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
    #[error("too many wrong passwords: wait {} seconds", retry_after.as_secs().max(1))]
    TooMany { retry_after: Duration },
    /// Nobody may do anything from there.
    #[error("nothing is allowed from {0}")]
    Place(Place),
}

impl Auth {
    /// `keys` is where the keys of our own tokens lie; without it there are no such tokens.
    ///
    /// # Errors
    /// A rule that cannot be understood, or keys that cannot be read.
    pub(crate) fn new(settings: &Settings, keys: Option<KeyFile<'_>>) -> Result<Self, AuthError> {
        let rules = match (&settings.rules, &settings.htpasswd, &settings.token) {
            (Some(rules), ..) => Rules::parse(rules).map_err(|mut errors| {
                let first = errors.swap_remove(0);
                AuthError::Rule(format!("{}: {}", first.key, first.text))
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
            log_in: htpasswd.map(LogIn::new).transpose()?,
            realm: htpasswd.map_or_else(String::new, |htpasswd| htpasswd.realm.clone()),
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
        self.admits(place)?;
        let credentials = presented.authorization.map(Credentials::parse);
        match (credentials, &self.log_in) {
            (Some(Credentials::Bearer(token)), _) if self.tokens.realm().is_some() => {
                self.bearer(token, presented.certificate)
            }
            (Some(Credentials::Basic { name, password }), Some(log_in)) => {
                log_in.check(name, password, place).await
            }
            (Some(Credentials::Bearer(_) | Credentials::Unreadable), Some(_)) => {
                Err(Denied::Credentials)
            }
            // Nobody here could check them, as in a registry without `auth` of distribution.
            _ => Ok(match presented.certificate {
                Some(name) => Identity::of(Subject::Certificate { name: name.into() }),
                None => Identity::ANONYMOUS,
            }),
        }
    }

    /// # Errors
    /// Nobody may do anything from there, so there is no use in asking who it is.
    pub(crate) fn admits(&self, place: &Place) -> Result<(), Denied> {
        match self.rules.shuts_out(place) {
            true => Err(Denied::Place(place.clone())),
            false => Ok(()),
        }
    }

    /// Checks a name and a password that came in another way than in `Authorization`.
    ///
    /// # Errors
    /// They are wrong, or too many were.
    #[allow(dead_code, reason = "asked by what issues tokens")]
    pub(crate) async fn log_in(
        &self,
        name: &str,
        password: &str,
        place: &Place,
    ) -> Result<Identity, Denied> {
        match &self.log_in {
            Some(log_in) => {
                let password = password.as_bytes().to_vec();
                log_in.check(name.to_owned(), password, place).await
            }
            None => Err(Denied::Credentials),
        }
    }

    fn anybody_can_log_in(&self) -> bool {
        self.log_in.as_ref().is_some_and(LogIn::has_accounts)
    }

    /// The user or robot of that name (as [`Identity::name`] spells it), if there still is one.
    pub(crate) fn subject(&self, name: &str) -> Option<Subject> {
        self.log_in.as_ref()?.subject(name)
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
            if self.tokens.are_ours() && self.anybody_can_log_in() {
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

    /// A new key for tokens of our own, if it is time for one. The old ones stay good for what they signed.
    ///
    /// # Errors
    /// Those of the file; the old key goes on.
    pub(crate) fn renew_keys(&self) -> Result<(), AuthError> {
        self.tokens.renew()
    }

    /// The same of one permission, for who is only thought of.
    pub(crate) fn decide<'a>(
        &'a self,
        identity: &Identity,
        place: &Place,
        repository: Option<&RepoName>,
        permission: Permission,
    ) -> Decision<'a> {
        self.rules.decide(identity, place, repository, permission)
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

    /// Whether the rules have something to give to `subject`, from anywhere.
    pub(crate) fn lets_in(&self, subject: &Subject) -> bool {
        self.rules.mention(&Identity::of(subject.clone()))
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
        self.log_in.as_ref().map(|_| Challenge {
            headers: vec![challenge::basic(&self.realm)],
        })
    }
}

/// What keeps access control from working.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthError {
    #[error("{0}")]
    Rule(String),
    #[error(transparent)]
    File(#[from] accounts::FileError),
    /// `auth.token`.
    #[error(transparent)]
    Token(#[from] token::SetupError),
    /// What our own tokens are signed with.
    #[error(transparent)]
    Keys(#[from] token::KeysetError),
    #[error("the system gives no randomness")]
    Randomness,
}
