//! One process owns a tree.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::owner::Owner;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, PosixFadviseAdvice};

/// Why a tree cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(
        "{0} is in use by another registry process; two on one directory would corrupt it. Stop that one first, or give \
         this one a directory of its own"
    )]
    InUse(PathBuf),
    #[error(
        "{0}: GitLab's metadata database manages this directory, and says what its images are: served from here, they would \
         be other ones. Import the images from GitLab (`skopeo sync`), or remove this file if the database is not used any \
         more"
    )]
    Managed(PathBuf),
    #[error(
        "{part} is on another file system than {root}, and files cannot get their names across two. Mount that disk at \
         {root} itself, or name the folder on it as storage.filesystem.rootdirectory"
    )]
    Split { root: PathBuf, part: PathBuf },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// An exclusive `flock`, released when dropped or when the process ends in any way. The file's text says whether the
/// last owner ended in order.
pub(super) struct Lock {
    file: Flock<File>,
    in_order: bool,
    doubt: bool,
}

/// Of one length, so that saying the other takes no room on a full disk.
const RUNNING: &str = "in use now    \n";
const ENDED: &str = "ended in order\n";

/// In our own folder.
const FILE: &str = "lock";

/// Reads the file again, from the device and not from the kernel's memory: it has what this process wrote, or this is
/// another device than it was.
pub(super) fn reread(own: &Path) -> io::Result<()> {
    let mut file = File::open(own.join(FILE))?;
    // Leaves what is not on the device yet, which is so for the first seconds alone.
    nix::fcntl::posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    match text == RUNNING {
        true => Ok(()),
        false => Err(io::Error::other("holds something else than was written")),
    }
}

impl Lock {
    /// Takes the one in `own`, our own folder.
    pub(super) fn take(own: &Path) -> Result<Self, OpenError> {
        let path = &own.join(FILE);
        let failed = |source| OpenError::Io {
            path: path.to_owned(),
            source,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
        let mut file = match Flock::lock(file.map_err(failed)?, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((_, Errno::EWOULDBLOCK)) => {
                let root = path.parent().and_then(Path::parent).unwrap_or(path);
                return Err(OpenError::InUse(root.to_owned()));
            }
            Err((_, errno)) => return Err(failed(errno.into())),
        };
        let mut text = String::new();
        // Unreadable text is that of an owner who did not end in order.
        let in_order = file.read_to_string(&mut text).is_ok() && text == ENDED;
        let mut lock = Lock {
            file,
            in_order,
            doubt: false,
        };
        lock.say(RUNNING).map_err(failed)?;
        Ok(lock)
    }

    /// The file belongs to whom the tree belongs to.
    pub(super) fn own(&self, owner: &Owner) -> io::Result<()> {
        owner.own_file(&self.file)
    }

    pub(super) fn ended_in_order(&self) -> bool {
        self.in_order
    }

    /// The next owner has to wait until everything is on the disk, even if this one ends in order.
    pub(super) fn doubt(&mut self) {
        self.doubt = true;
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        self.file.rewind()?;
        self.file.write_all(text.as_bytes())?;
        self.file.set_len(text.len() as u64)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if !self.doubt {
            let _ = self.say(ENDED); // else the next start waits for the disk once more, which harms nobody
        }
    }
}
