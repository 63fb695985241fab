//! Everything that can go wrong in the domain, one variant a thing that a client can be told.

use std::time::Duration;

use super::quota::QuotaExceeded;
use crate::oci::{Digest, ManifestError, Tag};
use crate::storage::{self, Away};
use crate::upstream;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the repository is unknown")]
    RepoUnknown,
    #[error("the manifest is unknown")]
    ManifestUnknown,
    #[error("the blob is unknown")]
    BlobUnknown,
    #[error("the upload session is unknown")]
    UploadUnknown,
    #[error("another request is writing to this upload session")]
    UploadBusy,
    /// The session goes on at `offset`, in bytes.
    #[error("the upload session continues at byte {offset}")]
    UploadRange { offset: u64 },
    #[error("the content has the digest {actual}, not {expected}")]
    DigestMismatch {
        expected: Box<Digest>,
        actual: Box<Digest>,
    },
    /// The range lies outside of a blob of `len` bytes.
    #[error("the range is not within {len} bytes")]
    RangeUnsatisfiable { len: u64 },
    #[error(transparent)]
    ManifestInvalid(#[from] ManifestError),
    #[error("the manifest has more than {limit} bytes")]
    ManifestTooLarge { limit: usize },
    /// The manifest refers to what is not in the repository.
    #[error("the manifest refers to unknown content: {0:?}")]
    ReferencesUnknown(Vec<Digest>),
    #[error("the manifest says that {digest} has {claimed} bytes, but it has {stored}")]
    SizeMismatch {
        digest: Digest,
        claimed: u64,
        stored: u64,
    },
    #[error("the configuration does not allow the layer address {0:?}")]
    UrlDenied(String),
    #[error("the manifest's state is not the one that the request asks for")]
    PreconditionFailed,
    /// It may neither be moved nor deleted.
    #[error("the tag {0} is immutable here (tags.immutable)")]
    TagImmutable(Tag),
    /// Nothing else is known, or its content is gone.
    #[error("there is nothing that can be brought back")]
    NothingToUndo,
    #[error("deleting is disabled")]
    DeleteDisabled,
    #[error("the registry is read-only")]
    ReadOnly,
    #[error("no space left")]
    NoSpace,
    /// There is so little room left, in bytes, that no upload is begun.
    #[error("the disk is nearly full")]
    NearlyFull { available: u64 },
    /// The repository is in a quota that has no room for it.
    #[error("{0}")]
    QuotaExceeded(Box<QuotaExceeded>),
    /// Nothing can be had or stored until the drive comes back.
    #[error(transparent)]
    Away(#[from] Away),
    #[error(transparent)]
    Storage(storage::Error),
    /// The upstream of this mirror could not give what is not here.
    #[error(transparent)]
    UpstreamFailed(upstream::Error),
    #[error("the upstream did not answer in time")]
    UpstreamTimeout,
    #[error("the upstream limits how much is fetched from it")]
    UpstreamLimited { retry_after: Duration },
    /// A task of this request panicked or was stopped.
    #[error("the work on this request was aborted")]
    Aborted,
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Self {
        match error {
            storage::Error::NoSpace => Error::NoSpace,
            storage::Error::Away(away) => Error::Away(away),
            other => Error::Storage(other),
        }
    }
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Gives "it is not there" the meaning that it has for the caller.
pub(super) fn or_unknown<T>(result: storage::Result<T>, unknown: Error) -> Result<T> {
    match result {
        Err(e) if e.is_not_found() => Err(unknown),
        other => Ok(other?),
    }
}

impl Error {
    /// Whether all of the storage is out of reach.
    pub(super) fn is_away(&self) -> bool {
        matches!(self, Error::Away(_))
    }

    /// Whether it says nothing of what was asked for, but only that the upstream could not be asked.
    pub(super) fn is_upstreams(&self) -> bool {
        matches!(
            self,
            Error::UpstreamFailed(_) | Error::UpstreamTimeout | Error::UpstreamLimited { .. }
        )
    }

    pub(super) fn mismatch(expected: &Digest, actual: Digest) -> Self {
        Error::DigestMismatch {
            expected: Box::new(*expected),
            actual: Box::new(actual),
        }
    }
}
