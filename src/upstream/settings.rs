//! What pulling through an upstream registry can be told.

use std::time::Duration;

use crate::secret::Secret;

/// `proxy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `https://registry-1.docker.io`; empty while nothing is mirrored.
    pub(crate) remote_url: String,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Secret>,
    /// How long a fetched blob is kept; zero keeps it. Default 168 h.
    pub(crate) ttl: Duration,
    /// A credential helper's name. Default none.
    pub(crate) exec_command: Option<String>,
    /// How long its answer is used; zero is for good.
    pub(crate) exec_lifetime: Duration,
    /// Default 5 min.
    pub(crate) cache_write_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            remote_url: String::new(),
            username: None,
            password: None,
            ttl: Duration::from_secs(168 * 3600),
            exec_command: None,
            exec_lifetime: Duration::ZERO,
            cache_write_timeout: Duration::from_secs(300),
        }
    }
}
