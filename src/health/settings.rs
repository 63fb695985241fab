//! What is looked at to call this server healthy.

use std::path::PathBuf;
use std::time::Duration;

use crate::secret::Secret;

/// `health`: what `/readyz` depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) storage: StorageCheck,
    pub(crate) files: Vec<FileCheck>,
    pub(crate) http: Vec<HttpCheck>,
    pub(crate) tcp: Vec<TcpCheck>,
}

/// How often something is looked at, and how often in a row it has to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rhythm {
    /// Default 10 s.
    pub(crate) interval: Duration,
    /// Failures in a row before the server calls itself unhealthy. Default 1: at once.
    pub(crate) threshold: usize,
}

impl Default for Rhythm {
    fn default() -> Self {
        Rhythm {
            interval: Duration::from_secs(10),
            threshold: 1,
        }
    }
}

/// Unhealthy while the storage cannot be written to. A full disk counts as healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StorageCheck {
    /// Default true.
    pub(crate) enabled: bool,
    /// The threshold is 3 by default.
    pub(crate) rhythm: Rhythm,
}

impl Default for StorageCheck {
    fn default() -> Self {
        StorageCheck {
            enabled: true,
            rhythm: Rhythm {
                threshold: 3,
                ..Rhythm::default()
            },
        }
    }
}

/// Unhealthy while the file exists: how an operator takes a server out of a balancer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FileCheck {
    pub(crate) file: PathBuf,
    pub(crate) rhythm: Rhythm,
}

/// Unhealthy while another server does not answer HEAD with the expected status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpCheck {
    pub(crate) uri: String,
    pub(crate) headers: Vec<(String, Vec<Secret>)>,
    /// Default 200.
    pub(crate) status: usize,
    /// For one answer. Default 5 s.
    pub(crate) timeout: Duration,
    pub(crate) rhythm: Rhythm,
}

impl Default for HttpCheck {
    fn default() -> Self {
        HttpCheck {
            uri: String::new(),
            headers: Vec::new(),
            status: 200,
            timeout: Duration::from_secs(5),
            rhythm: Rhythm::default(),
        }
    }
}

/// Unhealthy while nobody listens there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TcpCheck {
    /// `host:port`
    pub(crate) addr: String,
    /// For one connection. Default 5 s.
    pub(crate) timeout: Duration,
    pub(crate) rhythm: Rhythm,
}

impl Default for TcpCheck {
    fn default() -> Self {
        TcpCheck {
            addr: String::new(),
            timeout: Duration::from_secs(5),
            rhythm: Rhythm::default(),
        }
    }
}
