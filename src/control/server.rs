//! The server's end.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::{REQUEST_LIMIT, carry_out};
use crate::maintenance::{Event, Witness};
use crate::registry::Registry;

/// A request is one short line: whoever takes longer is not one of ours.
const PATIENCE: Duration = Duration::from_secs(10);
/// Events that wait for a slow reader; then the task waits too.
const WAITING: usize = 64;

/// Listens at `path` until it is dropped. The caller owns the tree, so a socket found there is one that a killed process
/// left.
///
/// # Errors
/// The socket cannot be made: the path is too long for one, or its file system has none.
pub(crate) fn listen(
    path: &Path,
    registry: Registry,
    witness: Witness,
) -> io::Result<impl Future<Output = ()> + Send + use<>> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(accept(listener, registry, witness))
}

async fn accept(listener: UnixListener, registry: Registry, witness: Witness) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (registry, witness) = (registry.clone(), witness.clone());
                tokio::spawn(async move {
                    if let Err(e) = answer(stream, registry, witness).await {
                        log::debug!("a command went away: {e}");
                    }
                });
            }
            Err(e) => {
                log::warn!("the control socket: {e}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, registry: Registry, witness: Witness) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader.take(REQUEST_LIMIT));
    let mut line = String::new();
    match tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await {
        Ok(read) => _ = read?,
        Err(_) => return Ok(()),
    }
    // Now that its line has been read: what is left unread at the end would make the kernel take back the answer.
    if peer != 0 && peer != nix::unistd::geteuid().as_raw() {
        log::warn!("the control socket: a request of user {peer} is refused");
        let reason = "only root and the user that the registry runs as may do this".to_owned();
        return send(&mut writer, &Event::Failed { reason }).await;
    }
    let request = match serde_json::from_str(&line) {
        Ok(request) => request,
        Err(e) => {
            let reason =
                format!("the running server does not know this request; is it as new? ({e})");
            return send(&mut writer, &Event::Failed { reason }).await;
        }
    };
    let (events, mut told) = mpsc::channel(WAITING);
    let task = tokio::spawn(async move {
        carry_out(request, registry, false, &witness, events).await;
    });
    let mut rest = [0];
    loop {
        tokio::select! {
            event = told.recv() => match event {
                Some(event) => send(&mut writer, &event).await?,
                None => break,
            },
            // It says nothing more, so this is its end; that ends the task, at its next event.
            _ = reader.read(&mut rest) => break,
        }
    }
    drop(told);
    let _ = task.await;
    Ok(())
}

async fn send(stream: &mut (impl AsyncWriteExt + Unpin), event: &Event) -> io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    stream.write_all(&line).await
}
