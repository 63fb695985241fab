//! Bearer tokens as identities, and identities as tokens.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::oci::{RepoName, RepoPattern};

use super::access::{Permission, Permissions};
use super::identity::{Grant, Identity, Subject};
use super::place::Place;
use super::rules::Rules;
use super::settings::{self, Settings};
use super::token::{
    ACCESS_LIFETIME, ANY, CATALOG, Holder, Issuer, KeyFile, REGISTRY, REPOSITORY, ResourceActions,
    SERVICE, Scopes, TokenError, Verifier, seconds_since_1970,
};
use super::{Auth, AuthError, Denied};

/// Who hands out tokens, and so whose are taken.
pub(super) enum Tokens {
    /// Nobody: there are passwords at most.
    None,
    External(External),
    Own(Issuer),
}

/// `auth.token`.
pub(super) struct External {
    settings: settings::Token,
    verifier: RwLock<Arc<Verifier>>,
}

/// Where a client gets a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Realm {
    Url(String),
    /// At this path of the host that was asked; something before this registry answers there.
    SameHost(String),
    /// From this registry.
    Here,
}

/// What is wrong with the token that came: `error` of a challenge (RFC 6750, 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// None came.
    None,
    Invalid,
    /// It is good, and for something else.
    Insufficient,
}

impl Fault {
    pub(super) fn as_str(self) -> Option<&'static str> {
        match self {
            Fault::None => None,
            Fault::Invalid => Some("invalid_token"),
            Fault::Insufficient => Some("insufficient_scope"),
        }
    }
}

/// A token that was asked for.
pub(crate) struct Issued {
    pub(crate) token: String,
    pub(crate) lifetime: Duration,
    /// What it grants: of what was asked for, that which the rules give.
    pub(crate) granted: Scopes,
    /// To get others with, where it was asked for. Anonymous ones need none.
    pub(crate) refresh: Option<String>,
}

impl Tokens {
    /// Our own are for one case: somebody may do something without a name, and somebody else has one. Docker and podman ask
    /// `GET /v2/` once whether they need a password; by Basic alone they could either never pull without one or never push
    /// with one.
    ///
    /// # Errors
    /// Keys that cannot be read.
    pub(super) fn open(
        settings: &Settings,
        rules: &Rules,
        keys: Option<KeyFile<'_>>,
    ) -> Result<Self, AuthError> {
        if let Some(token) = &settings.token {
            let verifier = Verifier::open(token)?;
            return Ok(Tokens::External(External {
                settings: token.clone(),
                verifier: RwLock::new(Arc::new(verifier)),
            }));
        }
        match keys {
            Some(file) if rules.know_names() && rules.know_strangers() => {
                let issuer = Issuer::open(file)?;
                Ok(Tokens::Own(issuer))
            }
            _ => Ok(Tokens::None),
        }
    }

    /// None where there are no tokens.
    pub(super) fn realm(&self) -> Option<Realm> {
        match self {
            Tokens::None => None,
            Tokens::Own(_) => Some(Realm::Here),
            Tokens::External(External { settings, .. }) => Some(if settings.auto_redirect {
                let path = settings.auto_redirect_path.as_deref();
                let path = path.filter(|path| !path.is_empty());
                Realm::SameHost(path.unwrap_or("/auth/token").to_owned())
            } else {
                Realm::Url(settings.realm.clone())
            }),
        }
    }

    pub(super) fn are_ours(&self) -> bool {
        matches!(self, Tokens::Own(_))
    }

    pub(super) fn service(&self) -> &str {
        match self {
            Tokens::External(External { settings, .. }) => &settings.service,
            Tokens::None | Tokens::Own(_) => SERVICE,
        }
    }

    pub(super) fn renew(&self) -> Result<(), AuthError> {
        match self {
            Tokens::Own(issuer) if issuer.wants_key() => Ok(issuer.reload()?),
            _ => Ok(()),
        }
    }

    /// Reads the files of keys again. Where they cannot be read, those of before stay in use.
    pub(super) fn reload(&self) -> Result<(), AuthError> {
        match self {
            Tokens::None => Ok(()),
            Tokens::Own(issuer) => Ok(issuer.reload()?),
            Tokens::External(External { settings, verifier }) => {
                let new = Verifier::open(settings)?;
                *verifier.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tokens::None => "None",
            Tokens::External(_) => "External",
            Tokens::Own(_) => "Own",
        })
    }
}

impl Auth {
    /// Who holds `token`, and what it limits them to. `certificate` is that of the connection it came over.
    ///
    /// # Errors
    /// It is not good, or its holder's credential is not any more.
    pub(super) fn bearer(
        &self,
        token: &str,
        certificate: Option<&str>,
    ) -> Result<Identity, Denied> {
        match &self.tokens {
            Tokens::None => Err(Denied::Credentials),
            Tokens::External(External { verifier, .. }) => {
                let verifier = verifier
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                let claims = verifier
                    .verify(token, seconds_since_1970())
                    .map_err(Denied::Token)?;
                let subject = match claims.sub.as_str() {
                    "" => Subject::Anonymous,
                    name => Subject::User {
                        name: name.into(),
                        groups: Arc::default(),
                    },
                };
                Ok(limited(subject, &claims.access))
            }
            Tokens::Own(issuer) => {
                let token = issuer.verify(token).map_err(Denied::Token)?;
                let subject = self.holder(&token.holder, certificate)?;
                Ok(limited(subject, &token.access))
            }
        }
    }

    /// Who got a refresh token.
    ///
    /// # Errors
    /// As [`Auth::bearer`].
    pub(crate) fn refresh(
        &self,
        token: &str,
        certificate: Option<&str>,
    ) -> Result<Identity, Denied> {
        let Tokens::Own(issuer) = &self.tokens else {
            return Err(Denied::Credentials);
        };
        let holder = issuer.verify_refresh(token).map_err(Denied::Token)?;
        Ok(Identity::of(self.holder(&holder, certificate)?))
    }

    /// The holder of a token as they are now.
    fn holder(&self, holder: &Holder, certificate: Option<&str>) -> Result<Subject, Denied> {
        if holder.name.is_empty() {
            return Ok(Subject::Anonymous);
        }
        if holder.fingerprint == CERTIFICATE {
            // It has to be shown with the token.
            let subject = certificate.map(|name| Subject::Certificate { name: name.into() });
            return subject
                .filter(|subject| Identity::of(subject.clone()).name() == holder.name)
                .ok_or(Denied::Token(TokenError::Revoked));
        }
        self.log_in
            .as_ref()
            .and_then(|log_in| log_in.account(&holder.name))
            .filter(|(_, fingerprint)| *fingerprint == holder.fingerprint)
            .map(|(subject, _)| subject)
            .ok_or(Denied::Token(TokenError::Revoked))
    }

    /// A token for what `asked` and the rules have in common, at `place`; none where this registry hands out no tokens. That
    /// it may be nothing is no error: clients come with such a token and are told then.
    ///
    /// # Errors
    /// A token that came in place of a password: it would get another one with more in it.
    pub(crate) fn issue(
        &self,
        identity: &Identity,
        place: &Place,
        asked: &Scopes,
        offline: bool,
    ) -> Result<Option<Issued>, Denied> {
        let Tokens::Own(issuer) = &self.tokens else {
            return Ok(None);
        };
        if identity.token.is_some() {
            return Err(Denied::Credentials);
        }
        let name = identity.name().into_owned();
        let fingerprint = match &identity.subject {
            Subject::Anonymous => String::new(),
            Subject::Certificate { .. } => CERTIFICATE.to_owned(),
            Subject::User { .. } | Subject::Robot { .. } => {
                let log_in = self.log_in.as_ref();
                let account = log_in.and_then(|log_in| log_in.account(&name));
                account.ok_or(Denied::Credentials)?.1
            }
        };
        let holder = Holder { name, fingerprint };
        let granted = self.granted(identity, place, asked);
        let refresh = match offline && !identity.is_anonymous() {
            true => Some(
                issuer
                    .refresh_token(holder.clone())
                    .map_err(Denied::Token)?,
            ),
            false => None,
        };
        Ok(Some(Issued {
            token: issuer
                .access_token(holder, granted.clone())
                .map_err(Denied::Token)?,
            lifetime: ACCESS_LIFETIME,
            granted,
            refresh,
        }))
    }

    fn granted(&self, identity: &Identity, place: &Place, asked: &Scopes) -> Scopes {
        let allows = |repository: Option<&RepoName>, permission| {
            self.rules
                .decide(identity, place, repository, permission)
                .is_allowed()
        };
        let grant = |scope: &ResourceActions| {
            let asks = |action: &str| scope.actions.iter().any(|one| one == action || one == ANY);
            if scope.kind == REGISTRY && scope.name == CATALOG {
                return (asks(ANY) && allows(None, Permission::List)).then(|| scope.clone());
            }
            let name = scope.name.parse::<RepoName>().ok()?;
            if scope.kind != REPOSITORY {
                return None;
            }
            let given = REPOSITORY_PERMISSIONS
                .into_iter()
                .filter(|permission| asks(permission.as_str()) && allows(Some(&name), *permission));
            let actions: Vec<String> = given.map(|given| given.as_str().to_owned()).collect();
            (!actions.is_empty()).then(|| ResourceActions {
                actions,
                ..scope.clone()
            })
        };
        Scopes(asked.0.iter().filter_map(grant).collect())
    }
}

/// In place of a fingerprint: no account has one that is as short.
const CERTIFICATE: &str = "certificate";

const REPOSITORY_PERMISSIONS: [Permission; 3] =
    [Permission::Pull, Permission::Push, Permission::Delete];

fn limited(subject: Subject, access: &Scopes) -> Identity {
    Identity {
        subject,
        token: Some(grants(access)),
    }
}

/// What a token grants. As in distribution, pushing takes `push` and `pull` of the same repository.
fn grants(access: &Scopes) -> Arc<[Grant]> {
    let mut grants: Vec<Grant> = Vec::new();
    let allows = |resource: &ResourceActions, action: &str| {
        let needed = ResourceActions {
            actions: vec![action.to_owned()],
            ..resource.clone()
        };
        access.allow(&Scopes(vec![needed]))
    };
    for resource in &access.0 {
        if resource.kind == REGISTRY && resource.name == CATALOG && allows(resource, ANY) {
            grants.push(Grant {
                repositories: None,
                permissions: Permissions::NONE.with(Permission::List),
            });
        }
        let (REPOSITORY, Ok(name)) = (resource.kind.as_str(), resource.name.parse::<RepoName>())
        else {
            continue;
        };
        let permissions = REPOSITORY_PERMISSIONS
            .into_iter()
            .filter(|permission| allows(resource, permission.as_str()))
            .filter(|permission| *permission != Permission::Push || allows(resource, "pull"));
        grants.push(Grant {
            repositories: Some(RepoPattern::from(&name)),
            permissions: permissions.collect(),
        });
    }
    grants.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(access: &str, repository: Option<&str>, permission: Permission) -> bool {
        let name = repository.map(|name| name.parse().unwrap());
        let grants = grants(&Scopes::parse([access]));
        super::super::identity::covered(&grants, name.as_ref(), permission)
    }

    #[test]
    fn what_a_token_grants() {
        use Permission::{Admin, Delete, List, Pull, Push};
        for (access, repository, granted) in [
            ("repository:a/b:pull", Some("a/b"), vec![Pull]),
            ("repository:a/b:pull,push", Some("a/b"), vec![Pull, Push]),
            (
                "repository:a/b:pull repository:a/b:push",
                Some("a/b"),
                vec![Pull, Push],
            ),
            ("repository:a/b:push", Some("a/b"), vec![]),
            ("repository:a/b:delete", Some("a/b"), vec![Delete]),
            ("repository:a/b:*", Some("a/b"), vec![Pull, Push, Delete]),
            ("repository(plugin):a/b:pull", Some("a/b"), vec![Pull]),
            ("repository:a/b:pull", Some("a"), vec![]),
            ("repository:a:*", Some("a/b"), vec![]),
            ("repository:A:*", Some("a"), vec![]),
            ("registry:catalog:*", None, vec![List]),
            ("registry:catalog:*", Some("catalog"), vec![]),
            ("registry:catalog:pull", None, vec![]),
            ("registry:other:*", None, vec![]),
            ("repository:a/b:admin,list", Some("a/b"), vec![]),
            ("", Some("a/b"), vec![]),
        ] {
            let found: Vec<_> = [Pull, Push, Delete, List, Admin]
                .into_iter()
                .filter(|permission| covers(access, repository, *permission))
                .collect();
            assert_eq!(found, granted, "{access} {repository:?}");
        }
    }
}
