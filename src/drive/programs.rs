//! The programs of the system that this module asks: `lsblk`, `mkfs.ext4`, `systemctl`.

use std::ffi::OsStr;
use std::io;
use std::process::{Command, Stdio};

use super::Error;

/// Runs one to its good end, and returns what it printed.
pub(super) fn run(
    program: &str,
    args: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Result<String, Error> {
    let failed = |reason: String| Error::Program {
        program: program.to_owned(),
        reason,
    };
    let output = Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => failed("it is not installed".to_owned()),
            _ => failed(e.to_string()),
        })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    Err(failed(if said.is_empty() {
        format!("it failed ({})", output.status)
    } else {
        said.to_owned()
    }))
}
