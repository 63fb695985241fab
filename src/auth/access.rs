//! What is asked of the rules, and what they can give.

use std::fmt;
use std::str::FromStr;

use crate::oci::RepoName;

/// What an operation does to what, as the rules are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access<'a> {
    /// None for what concerns the whole server.
    pub(crate) repository: Option<&'a RepoName>,
    pub(crate) action: Action,
    /// A second repository that is read, if the asker may: the source of a mount. Whether they may is no reason to refuse
    /// the operation, which then goes on as if that repository had nothing.
    pub(crate) also_pull: Option<&'a RepoName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Health, the home page, and how to trust this server: says nothing about the content.
    Public,
    /// A token: who asks for it says who they are there and then.
    Token,
    /// Asks whether the credentials are good for anything.
    Ping,
    Catalog,
    Metrics,
    Pull,
    Push,
    Delete,
    /// Changes the server, or asks what only who may do that has to know.
    Admin,
}

impl Action {
    /// What a rule has to give for it; none where no rule is needed.
    pub(crate) fn permission(self) -> Option<Permission> {
        match self {
            Action::Public | Action::Token | Action::Ping => None,
            // Metrics tell how much there is, as the catalog does.
            Action::Catalog | Action::Metrics => Some(Permission::List),
            Action::Pull => Some(Permission::Pull),
            Action::Push => Some(Permission::Push),
            Action::Delete => Some(Permission::Delete),
            Action::Admin => Some(Permission::Admin),
        }
    }
}

/// What a rule, a robot's scope or a token can give: the words of `access:` and of tokens' `actions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Permission {
    /// Read a repository: manifests, blobs, tags, referrers.
    Pull,
    /// Write to it. Clients look at what they have written, so whoever is given this is given `Pull` with it.
    Push,
    Delete,
    /// See the catalog, which shows what one may pull, and the metrics.
    List,
    /// Change the server itself.
    Admin,
}

impl Permission {
    pub(crate) const ALL: [Permission; 5] = [
        Permission::Pull,
        Permission::Push,
        Permission::Delete,
        Permission::List,
        Permission::Admin,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Permission::Pull => "pull",
            Permission::Push => "push",
            Permission::Delete => "delete",
            Permission::List => "list",
            Permission::Admin => "admin",
        }
    }

    /// Whether it is about one repository, and not about the server.
    pub(crate) fn is_of_repository(self) -> bool {
        matches!(
            self,
            Permission::Pull | Permission::Push | Permission::Delete
        )
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Permission {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let found = Permission::ALL.into_iter().find(|p| p.as_str() == text);
        found.ok_or(())
    }
}

/// A set of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Permissions(u8);

impl Permissions {
    pub(crate) const NONE: Permissions = Permissions(0);
    pub(crate) const ALL: Permissions = Permissions(0b1_1111);

    pub(crate) fn contains(self, permission: Permission) -> bool {
        self.0 & (1 << permission as u8) != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub(crate) fn with(self, permission: Permission) -> Self {
        Permissions(self.0 | 1 << permission as u8)
    }

    /// With what comes with the others: who may push may pull.
    #[must_use]
    pub(crate) fn implied(self) -> Self {
        if self.contains(Permission::Push) {
            self.with(Permission::Pull)
        } else {
            self
        }
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL
            .into_iter()
            .filter(move |permission| self.contains(*permission))
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<T: IntoIterator<Item = Permission>>(permissions: T) -> Self {
        permissions
            .into_iter()
            .fold(Permissions::NONE, Permissions::with)
    }
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, permission) in self.iter().enumerate() {
            f.write_str(if i > 0 { ", " } else { "" })?;
            f.write_str(permission.as_str())?;
        }
        Ok(())
    }
}
