//! Commands that the running server carries out or, when none runs, this process itself on the directory.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context as _, bail};
use nix::unistd::{Gid, Uid, geteuid, setgid, setgroups, setuid};

use super::attach::alone;
use super::witness::nobody;
use crate::config::Config;
use crate::control::{CallError, Request, call, carry_out};
use crate::maintenance::Event;
use crate::storage::control_socket;

/// # Errors
/// The tree is in use by a server that cannot be reached, or cannot be read.
pub(super) fn ask(
    config: &Config,
    request: Request,
    mut tell: impl FnMut(Event),
) -> anyhow::Result<()> {
    let root = &config.storage.root;
    if !root.is_dir() {
        bail!(
            "{}: is no directory; storage.filesystem.rootdirectory says where the images are",
            root.display()
        );
    }
    match call(&control_socket(root), &request, &mut tell) {
        Err(CallError::NoServer) => {}
        answered => return Ok(answered?),
    }
    act_as_owner_of(root)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let registry = runtime
        .block_on(alone(config))
        .context("no server was reached on its control socket")?;
    runtime.block_on(async {
        let (events, mut told) = tokio::sync::mpsc::channel(1);
        let show = async {
            while let Some(event) = told.recv().await {
                tell(event);
            }
        };
        let nobody = nobody();
        tokio::join!(carry_out(request, registry, true, &nobody, events), show);
    });
    Ok(())
}

/// Root would leave files in the tree that the server's own user cannot change.
fn act_as_owner_of(root: &Path) -> anyhow::Result<()> {
    let owner = std::fs::metadata(root)?;
    if !geteuid().is_root() || owner.uid() == 0 {
        return Ok(());
    }
    setgroups(&[Gid::from_raw(owner.gid())])
        .and_then(|()| setgid(Gid::from_raw(owner.gid())))
        .and_then(|()| setuid(Uid::from_raw(owner.uid())))
        .with_context(|| format!("cannot act as the owner of {}", root.display()))
}
