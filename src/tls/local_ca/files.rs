//! The folder of the CA: what lies in it, and how it is replaced.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::Error;

/// The CA's key and certificate, in one file so that they are replaced in one step. Private.
pub(super) const AUTHORITY: &str = "ca.pem";
/// The server's key and certificate, and the CA's certificate. Private.
pub(super) const SERVER: &str = "server.pem";
/// Copies of the public halves, for people and for `cert show`.
pub(super) const AUTHORITY_PUBLIC: &str = "ca.crt";
pub(super) const SERVER_PUBLIC: &str = "server.crt";

/// The folder, held by this process alone as long as this lives.
pub(super) struct Folder {
    path: PathBuf,
    lock: Flock<File>,
}

impl Folder {
    /// Makes it if it is missing, and waits for others who hold it.
    pub(super) fn hold(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Write {
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(path).map_err(failed)?;
        let folder = File::open(path).map_err(failed)?;
        let lock = Flock::lock(folder, FlockArg::LockExclusive)
            .map_err(|(_, errno)| failed(errno.into()))?;
        Ok(Folder {
            path: path.to_owned(),
            lock,
        })
    }

    /// A file that holds a key: whole, or not there at all, and readable by its owner alone.
    pub(super) fn write_private(&self, name: &str, content: &str) -> Result<(), Error> {
        self.write(name, content, 0o600)
    }

    /// As `write_private`, for everybody to read; not written when it says so already.
    pub(super) fn write_public(&self, name: &str, content: &str) -> Result<(), Error> {
        if fs::read(self.path.join(name)).is_ok_and(|found| found == content.as_bytes()) {
            return Ok(());
        }
        self.write(name, content, 0o644)
    }

    fn write(&self, name: &str, content: &str, mode: u32) -> Result<(), Error> {
        let path = self.path.join(name);
        // Nobody else writes here now; what a crash left is replaced.
        let temporary = self.path.join(format!(".{name}.new"));
        let all = || {
            match fs::remove_file(&temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&temporary)?;
            // The umask has no say in it.
            file.set_permissions(Permissions::from_mode(mode))?;
            // Root writes for the user of the service.
            let owner = self.lock.metadata()?;
            if nix::unistd::geteuid().is_root() {
                fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
            }
            file.write_all(content.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            self.lock.sync_all()
        };
        all().map_err(|source| Error::Write { path, source })
    }
}

/// None when there is no such file.
pub(super) fn read(folder: &Path, name: &str) -> Result<Option<String>, Error> {
    let path = folder.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path, source }),
    }
}
