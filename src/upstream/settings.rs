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
    /// How long fetched content is kept after it was last asked for; zero keeps it. Default 168 h.
    pub(crate) ttl: Duration,
    /// `proxy.exec.command`: a program that speaks Docker's credential helper protocol, instead of a user name and a
    /// password. Default none.
    pub(crate) exec_command: Option<String>,
    /// `proxy.exec.lifetime`: how long its answer is used; zero asks it each time. Default none: for good.
    pub(crate) exec_lifetime: Option<Duration>,
    /// How long a fetch goes on for which no client waits any more. Default 5 min.
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
            exec_lifetime: None,
            cache_write_timeout: Duration::from_secs(300),
        }
    }
}
