//! Who asks.

use std::borrow::Cow;
use std::sync::Arc;

use crate::oci::{RepoName, RepoPattern};

use super::access::{Access, Permission, Permissions};

/// Who asks, and what their credential limits them to. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) subject: Subject,
    /// What a bearer token grants. It only ever takes away: the rules are asked about the subject all the same. None
    /// without a token.
    pub(crate) token: Option<Arc<[Grant]>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Anonymous,
    User {
        name: Arc<str>,
        groups: Arc<[String]>,
    },
    /// An API key: never more than its scope, whatever the rules say.
    Robot {
        name: Arc<str>,
        scope: Arc<[Grant]>,
    },
    /// The common name of a client certificate that `http.tls.clientcas` vouch for.
    Certificate {
        name: Arc<str>,
    },
}

/// A part of what there is, and what may be done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// None: what concerns the whole server (`registry:catalog:*` in a token).
    pub(crate) repositories: Option<RepoPattern>,
    pub(crate) permissions: Permissions,
}

impl Grant {
    fn covers(&self, repository: Option<&RepoName>, permission: Permission) -> bool {
        self.permissions.contains(permission)
            && match (&self.repositories, repository) {
                (Some(pattern), Some(name)) => pattern.matches(name),
                (None, None) => true,
                _ => false,
            }
    }
}

/// Whether one of `grants` covers it.
pub(crate) fn covered(
    grants: &[Grant],
    repository: Option<&RepoName>,
    permission: Permission,
) -> bool {
    grants
        .iter()
        .any(|grant| grant.covers(repository, permission))
}

impl Identity {
    pub(crate) const ANONYMOUS: Identity = Identity {
        subject: Subject::Anonymous,
        token: None,
    };

    pub(crate) fn of(subject: Subject) -> Self {
        Identity {
            subject,
            token: None,
        }
    }

    pub(crate) fn is_anonymous(&self) -> bool {
        self.subject == Subject::Anonymous
    }

    /// Whether the token that came, if one did, leaves room for it; whether the subject may is another question.
    pub(crate) fn token_grants(&self, access: &Access<'_>) -> bool {
        match (&self.token, access.action.permission()) {
            (Some(grants), Some(permission)) => covered(grants, access.repository, permission),
            _ => true,
        }
    }

    /// The name for logs, events and pages: `alice`, `robot+ci`, `CN=build-7`; empty for anonymous.
    pub(crate) fn name(&self) -> Cow<'_, str> {
        match &self.subject {
            Subject::Anonymous => Cow::Borrowed(""),
            Subject::User { name, .. } => Cow::Borrowed(name),
            Subject::Robot { name, .. } => Cow::Owned(format!("{ROBOT_PREFIX}{name}")),
            Subject::Certificate { name } => Cow::Owned(format!("CN={name}")),
        }
    }
}

/// What robots' names begin with when they log in: no shell, URL or client minds the sign.
pub(crate) const ROBOT_PREFIX: &str = "robot+";
