//! What webhooks can be told.

use std::time::Duration;

use crate::secret::Secret;

/// `notifications`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Name the blobs of a manifest in its event. Default false.
    pub(crate) include_references: bool,
    pub(crate) endpoints: Vec<Endpoint>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) name: String,
    pub(crate) disabled: bool,
    pub(crate) url: String,
    /// Sent along; secret since this is where the receiver's token stands.
    pub(crate) headers: Vec<(String, Vec<Secret>)>,
    /// Default 1 s.
    pub(crate) timeout: Duration,
    /// Failures before a pause of `backoff`. Default 10.
    pub(crate) threshold: usize,
    /// Default 1 s.
    pub(crate) backoff: Duration,
    /// `ignoredmediatypes`, the older spelling of the next: no events for either.
    pub(crate) ignored_media_types: Vec<String>,
    pub(crate) ignore_media_types: Vec<String>,
    /// `push`, `pull`, `delete` ...: no events for these.
    pub(crate) ignore_actions: Vec<String>,
}

impl Default for Endpoint {
    fn default() -> Self {
        let second = Duration::from_secs(1);
        Endpoint {
            name: String::new(),
            disabled: false,
            url: String::new(),
            headers: Vec::new(),
            timeout: second,
            threshold: 10,
            backoff: second,
            ignored_media_types: Vec::new(),
            ignore_media_types: Vec::new(),
            ignore_actions: Vec::new(),
        }
    }
}
