//! What the storage backends can be told.

use std::path::PathBuf;

/// `storage.filesystem`: the tree on a local disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FsSettings {
    /// The directory that holds `docker/registry/v2`. Default `/var/lib/registry`, distribution's.
    pub(crate) root: PathBuf,
    /// `storage.filesystem.drive`: the file in which `registry drive use` wrote which external drive belongs at `root`. That
    /// there is none means that there is no such drive. Default `/etc/registry/drive.yml`.
    pub(crate) drive: Option<PathBuf>,
    /// Threads that may wait for the disk at once. Default 64: enough to keep a USB drive's queue full, few enough
    /// for a machine with 1 GB (distribution's default is 100).
    pub(crate) max_threads: usize,
}

impl Default for FsSettings {
    fn default() -> Self {
        FsSettings {
            root: PathBuf::from("/var/lib/registry"),
            drive: Some(PathBuf::from("/etc/registry/drive.yml")),
            max_threads: 64,
        }
    }
}
