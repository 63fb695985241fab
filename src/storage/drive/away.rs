//! Why the drive that the tree belongs on cannot be used.

/// The text is for clients and for people at the machine alike; it names no path and no device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Away {
    #[error("the registry's drive is not there: plug it in and switch it on")]
    Missing,
    #[error("the drive in the place of the registry's own is another one: plug in the right one")]
    Foreign,
    /// Content was still being copied to it when the move was interrupted.
    #[error(
        "the move of the images to the drive was interrupted: run `registry drive use` again on the registry's machine"
    )]
    Unfinished,
    #[error(
        "the registry's drive can only be read: its file system is damaged or was mounted so; it has to be checked and \
         mounted again"
    )]
    ReadOnly,
    #[error("the registry's drive fails: it was unplugged, or it is broken")]
    Failing,
    /// Of a tree that belongs on no drive of its own.
    #[error(
        "the directory with the registry's images is not where it was: mount it or move it back, or restart the registry \
         if another one belongs there now"
    )]
    Gone,
    #[error("the registry's drive does not answer")]
    Silent,
    #[error(
        "the registry's drive came back, and is served as soon as what was under way has ended"
    )]
    Busy,
}

impl Away {
    /// What an error of the drive's file system says about the drive.
    pub(super) fn of(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::ReadOnlyFilesystem => Away::ReadOnly,
            _ => Away::Failing,
        }
    }
}
