//! A command's end.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::Request;
use crate::maintenance::Event;

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// No server listens there.
    #[error("no server listens on its control socket")]
    NoServer,
    #[error("the control socket of the running server: {0}")]
    Io(#[from] io::Error),
    /// It was stopped, or is older.
    #[error("the running server went away before it was done")]
    Ended,
}

/// Sends a request to the server at `path` and passes on what it tells. Returns after the last event.
///
/// # Errors
/// See [`CallError`].
pub(crate) fn call(
    path: &Path,
    request: &Request,
    mut tell: impl FnMut(Event),
) -> Result<(), CallError> {
    let mut stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Err(CallError::NoServer);
        }
        Err(e) => return Err(e.into()),
    };
    let mut line = serde_json::to_vec(request).map_err(io::Error::from)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    for line in BufReader::new(stream).lines() {
        let event: Event = serde_json::from_str(&line?).map_err(io::Error::from)?;
        let is_last = event.is_last();
        tell(event);
        if is_last {
            return Ok(());
        }
    }
    Err(CallError::Ended)
}
