//! The files of users and robots, as the commands change them: under a lock, whole, and with the rights they had.

use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use nix::fcntl::{Flock, FlockArg};

use crate::auth::settings::Htpasswd;
use crate::config::Config;

/// Where the package has it.
const CONFIG: &str = "/etc/registry/config.yml";

#[derive(Args)]
pub(super) struct ConfigArg {
    /// The config.yml that says which files are used; by default /etc/registry/config.yml, if it is there
    #[arg(long, short, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigArg {
    /// # Errors
    /// A configuration that could not be served with.
    pub(super) fn load(&self) -> anyhow::Result<Config> {
        let default = Some(Path::new(CONFIG)).filter(|path| path.exists());
        let path = self.config.as_deref().or(default);
        Config::load(path, super::config::variables()).map_err(|errors| {
            let errors: Vec<String> = errors.errors.iter().map(ToString::to_string).collect();
            anyhow::Error::msg(errors.join("\n"))
        })
    }

    /// # Errors
    /// The same, and one without `auth.htpasswd`.
    pub(super) fn htpasswd(&self) -> anyhow::Result<Htpasswd> {
        match self.load()?.auth.htpasswd {
            Some(htpasswd) => Ok(htpasswd),
            None => bail!(
                "the configuration has no auth.htpasswd, so nobody could log in: add\n\n  auth:\n    htpasswd:\n      \
                 realm: Registry\n      path: /etc/registry/htpasswd\n\n(with -c FILE if it lies elsewhere than {CONFIG})"
            ),
        }
    }
}

/// What the file says; nothing if it is not there.
pub(super) fn read(path: &Path) -> anyhow::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        read => read.with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Replaces the file by what `change` makes of it: others see the old one or the new one, also after a power cut.
pub(super) fn edit(
    path: &Path,
    change: impl FnOnce(&str) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let opened = File::open(folder).with_context(|| format!("cannot open {}", folder.display()))?;
    let folder_meta = opened.metadata()?;
    // Two commands at the same time take turns.
    let lock = Flock::lock(opened, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    let changed = change(&read(path)?)?;
    let old = fs::metadata(path).ok();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = path.with_file_name(format!(".{name}.new"));
    let written = || -> std::io::Result<()> {
        let _ = fs::remove_file(&aside);
        let mut file = File::options().write(true).create_new(true).open(&aside)?;
        // Not for everybody's eyes; the group of the folder is the registry's, where the package made it.
        let mode = old.as_ref().map_or(0o640, |old| old.mode() & 0o7777);
        file.set_permissions(Permissions::from_mode(mode & 0o700))?;
        let (uid, gid) = match &old {
            Some(old) => (old.uid(), old.gid()),
            None => (folder_meta.uid(), folder_meta.gid()),
        };
        let made = file.metadata()?;
        if (made.uid(), made.gid()) != (uid, gid) {
            chown(&aside, Some(uid), Some(gid))?;
        }
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(changed.as_bytes())?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        lock.sync_all()
    };
    written().with_context(|| format!("cannot write {}", path.display()))
}
