//! The service and its mount unit, where systemd runs.

use std::fs;
use std::path::Path;

use super::programs::run;
use super::{Error, Say, at, durably, unit};

const SERVICE: &str = "registry.service";
const SOCKET: &str = "registry.socket";
const MOUNTS: &str = "/etc/fstab";

/// systemd, as far as it is asked here.
pub(super) struct Systemd;

impl Systemd {
    /// `None` where it does not run: containers, image builds, other init systems.
    pub(super) fn running() -> Option<Self> {
        let runs = Path::new("/run/systemd/system").is_dir();
        (runs && run("systemctl", ["--version"]).is_ok()).then_some(Systemd)
    }

    pub(super) fn is_serving(&self) -> bool {
        is("is-active", SERVICE) || is("is-active", SOCKET)
    }

    /// A socket that stayed would start the service again.
    pub(super) fn stop(&self, say: Say<'_>) -> Result<(), Error> {
        for unit in [SOCKET, SERVICE] {
            if is("is-active", unit) {
                say(&format!("stopping {unit}"));
                run("systemctl", ["stop", unit])?;
            }
        }
        Ok(())
    }

    /// Starts what is meant to run: what is enabled, and the service if it `ran` before.
    pub(super) fn start(&self, ran: bool, say: Say<'_>) -> Result<(), Error> {
        for unit in [SOCKET, SERVICE] {
            if is("is-enabled", unit) || (ran && unit == SERVICE) {
                say(&format!("starting {unit}"));
                run("systemctl", ["start", unit])?;
            }
        }
        Ok(())
    }

    /// Has the drive mounted at `root` now and whenever it is plugged in.
    pub(super) fn mount(&self, uuid: &str, root: &Path, file_system: &str) -> Result<(), Error> {
        let name = unit::name(root);
        let path = Path::new(unit::FOLDER).join(&name);
        let text = unit::text(uuid, root, file_system);
        if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            durably::write(&path, &text).map_err(at(&path))?;
        }
        run("systemctl", ["daemon-reload"])?;
        run("systemctl", ["enable", &name])?;
        run("systemctl", ["start", &name])?;
        Ok(())
    }

    /// Undoes `mount`.
    pub(super) fn unmount(&self, root: &Path) -> Result<(), Error> {
        let name = unit::name(root);
        let path = Path::new(unit::FOLDER).join(&name);
        if path.exists() {
            run("systemctl", ["disable", "--now", &name])?;
            durably::remove(&path).map_err(at(&path))?;
            run("systemctl", ["daemon-reload"])?;
        }
        Ok(())
    }
}

fn is(question: &str, unit: &str) -> bool {
    run("systemctl", [question, "--quiet", unit]).is_ok()
}

/// Whether the administrator has `root` mounted by `/etc/fstab`.
pub(super) fn is_in_fstab(root: &Path) -> bool {
    let text = fs::read_to_string(MOUNTS).unwrap_or_default();
    text.lines().any(|line| {
        !line.trim_start().starts_with('#')
            && line.split_whitespace().nth(1).map(Path::new) == Some(root)
    })
}
