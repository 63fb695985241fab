//! What access control can be told.

use std::path::PathBuf;

/// `auth`: at most one of them is set; neither (`auth.none` or no `auth`) asks nobody who they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) htpasswd: Option<Htpasswd>,
    pub(crate) token: Option<Token>,
    /// `access`. None: what `auth` means in distribution, and without `auth` the built-in rules.
    pub(crate) rules: Option<Vec<RuleSettings>>,
}

/// One item of `access`, as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RuleSettings {
    /// At least one.
    pub(crate) who: Vec<String>,
    /// Default: anywhere.
    pub(crate) from: Vec<String>,
    /// Default: all of them, and what concerns the whole server.
    pub(crate) repositories: Vec<String>,
    /// This or `deny`.
    pub(crate) allow: Vec<String>,
    pub(crate) deny: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Htpasswd {
    pub(crate) realm: String,
    /// Need not be there yet.
    pub(crate) path: PathBuf,
    /// Apache's group file. Default: `groups` beside `path`.
    pub(crate) groups: Option<PathBuf>,
    /// The robots' keys, hashed. Default: `robots` beside `path`.
    pub(crate) robots: Option<PathBuf>,
}

impl Htpasswd {
    pub(crate) fn groups_path(&self) -> PathBuf {
        let beside = || self.path.with_file_name("groups");
        self.groups.clone().unwrap_or_else(beside)
    }

    /// Who was logged out: `logouts` beside `path`.
    pub(crate) fn logouts_path(&self) -> PathBuf {
        self.path.with_file_name("logouts")
    }

    pub(crate) fn robots_path(&self) -> PathBuf {
        let beside = || self.path.with_file_name("robots");
        self.robots.clone().unwrap_or_else(beside)
    }
}

/// `auth.token`: an external token server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Token {
    /// URL of the token server.
    pub(crate) realm: String,
    pub(crate) service: String,
    pub(crate) issuer: String,
    /// PEM certificates of the keys that sign tokens.
    pub(crate) root_cert_bundle: Option<PathBuf>,
    /// A JSON Web Key Set with the same.
    pub(crate) jwks: Option<PathBuf>,
    /// Empty: those of the keys.
    pub(crate) signing_algorithms: Vec<String>,
    /// Name this server's own host and `auto_redirect_path` as realm. Default false.
    pub(crate) auto_redirect: bool,
    /// Default none: `/auth/token`.
    pub(crate) auto_redirect_path: Option<String>,
}
