//! What access control can be told.

use std::path::PathBuf;

/// `auth`: at most one of them is set; neither (`auth.none` or no `auth`) lets everybody do everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) htpasswd: Option<Htpasswd>,
    pub(crate) token: Option<Token>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Htpasswd {
    pub(crate) realm: String,
    pub(crate) path: PathBuf,
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
