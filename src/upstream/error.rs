//! Why the upstream did not give what was asked for.

use std::time::Duration;

/// For the log. It names neither credentials nor addresses that could hold some, and clients see less of it still.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("the upstream does not have it")]
    Unknown,
    /// With the credentials that there are, or for want of any. Registries say so of names that they do not have, too.
    #[error("the upstream does not show it to us")]
    Denied,
    /// The credentials themselves are wrong, or could not be had.
    #[error("the upstream cannot be logged in to: {0}")]
    Credentials(&'static str),
    #[error("the upstream limits how much is fetched from it")]
    Limited { retry_after: Duration },
    #[error("the upstream did not answer in time")]
    Timeout,
    #[error("the upstream cannot be reached: {0}")]
    Unreachable(String),
    #[error("the upstream failed with status {0}")]
    Failed(u16),
    #[error("the upstream's answer makes no sense: {0}")]
    Malformed(&'static str),
    /// The content is not what its digest or its length says.
    #[error("what the upstream sent is not what was asked for: {0}")]
    Mismatch(&'static str),
}

impl Error {
    /// The label in the metrics.
    pub(super) fn result(&self) -> &'static str {
        match self {
            Error::Unknown => "unknown",
            Error::Denied | Error::Credentials(_) => "denied",
            Error::Limited { .. } => "limited",
            Error::Timeout | Error::Unreachable(_) => "unreachable",
            Error::Failed(_) | Error::Malformed(_) | Error::Mismatch(_) => "failed",
        }
    }

    /// Whether the same request may well succeed a little later.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(
            self,
            Error::Timeout | Error::Unreachable(_) | Error::Failed(_) | Error::Limited { .. }
        )
    }

    /// Whether the upstream said that there is no such thing for us.
    pub(crate) fn is_unknown(&self) -> bool {
        matches!(self, Error::Unknown | Error::Denied)
    }

    /// From the library's error, without the address.
    pub(super) fn of(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            return Error::Timeout;
        }
        let error = error.without_url();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = cause.to_string(); // the last one is the one that says something
            source = cause.source();
        }
        Error::Unreachable(text)
    }
}
