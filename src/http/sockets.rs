//! The sockets that are listened on: bound here, or handed over by systemd.

use std::fs;
use std::io;
use std::net::{TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::settings::{Net, Settings};

#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Everything that is listened on. Bound before anything slow happens, so that a port that is taken is said at once and
/// clients that come early wait instead of failing.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(super) main: Vec<Socket>,
    /// `http.debug.addr`.
    pub(super) debug: Vec<Socket>,
}

impl Sockets {
    /// `inherited` are systemd's, with the names of their units' `FileDescriptorName=`: those called `debug` stand for
    /// `http.debug.addr`, the others for `http.addr`, whose addresses are then not bound.
    ///
    /// # Errors
    /// Says which address could not be bound.
    pub(crate) fn open(settings: &Settings, inherited: Vec<(OwnedFd, String)>) -> io::Result<Self> {
        let mut sockets = Sockets {
            main: Vec::new(),
            debug: Vec::new(),
        };
        for (fd, name) in inherited {
            let to = if name == "debug" {
                &mut sockets.debug
            } else {
                &mut sockets.main
            };
            to.push(Socket::adopt(fd)?);
        }
        if sockets.main.is_empty() {
            for addr in &settings.addr {
                match settings.net {
                    Net::Tcp => sockets
                        .main
                        .extend(bind(addr)?.into_iter().map(Socket::Tcp)),
                    Net::Unix => sockets.main.push(Socket::Unix(bind_unix(Path::new(addr))?)),
                }
            }
        }
        if let (true, Some(addr)) = (sockets.debug.is_empty(), &settings.debug.addr) {
            sockets
                .debug
                .extend(bind(addr)?.into_iter().map(Socket::Tcp));
        }
        Ok(sockets)
    }

    /// The addresses as URLs, for the log.
    pub(crate) fn describe(&self, settings: &Settings) -> Vec<String> {
        let scheme = if settings.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let of = |socket: &Socket| match socket {
            Socket::Tcp(listener) => {
                let address = listener
                    .local_addr()
                    .map_or_else(|_| "?".to_owned(), |address| address.to_string());
                format!("{scheme}://{address}{}", settings.prefix)
            }
            Socket::Unix(listener) => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                format!("unix:{}", path.unwrap_or(Path::new("?")).display())
            }
        };
        self.main.iter().map(of).collect()
    }
}

impl Socket {
    fn adopt(fd: OwnedFd) -> io::Result<Self> {
        let tcp = TcpListener::from(fd);
        // A socket of another family has no address of this kind.
        let socket = match tcp.local_addr() {
            Ok(_) => Socket::Tcp(tcp),
            Err(_) => {
                let unix = UnixListener::from(OwnedFd::from(tcp));
                unix.local_addr()?;
                Socket::Unix(unix)
            }
        };
        Ok(socket)
    }
}

/// `host:port`, or `:port` for every address of the machine.
fn bind(addr: &str) -> io::Result<Vec<TcpListener>> {
    let failed = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot listen on {addr}: {error}"))
    };
    if let Some(port) = addr.strip_prefix(':') {
        // The IPv6 wildcard takes IPv4 too, unless the kernel has no IPv6 or keeps them apart.
        let port: u16 = port
            .parse()
            .map_err(|_| failed(io::ErrorKind::InvalidInput.into()))?;
        let both = TcpListener::bind(("::", port));
        return both
            .or_else(|_| TcpListener::bind(("0.0.0.0", port)))
            .map(|one| vec![one])
            .map_err(failed);
    }
    let mut listeners = Vec::new();
    let mut error = None;
    for address in addr.to_socket_addrs().map_err(failed)? {
        match TcpListener::bind(address) {
            Ok(listener) => listeners.push(listener),
            Err(e) => error = Some(e),
        }
    }
    match error {
        // `localhost` is two addresses, one of which a machine without IPv6 cannot bind.
        Some(error) if listeners.is_empty() => Err(failed(error)),
        Some(error) => {
            log::warn!("not listening on every address of {addr}: {error}");
            Ok(listeners)
        }
        None if listeners.is_empty() => Err(failed(io::ErrorKind::AddrNotAvailable.into())),
        None => Ok(listeners),
    }
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let failed = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("cannot listen on {}: {error}", path.display()),
        )
    };
    // Left behind by a process that was killed. Nothing but a socket is removed, and none that somebody answers on.
    if fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(failed(io::ErrorKind::AddrInUse.into()));
        }
        fs::remove_file(path).map_err(failed)?;
    }
    UnixListener::bind(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named() {
        let first = bind("127.0.0.1:0").unwrap();
        let addr = first[0].local_addr().unwrap().to_string();
        let error = bind(&addr).unwrap_err();
        assert!(error.to_string().contains(&addr), "{error}");
        assert!(bind(":port").is_err() && bind("127.0.0.1").is_err());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_or_a_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let live = bind_unix(&path).unwrap();
        assert_eq!(
            bind_unix(&path).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        drop(live);
        assert!(bind_unix(&path).is_ok());
        let file = dir.path().join("f");
        fs::write(&file, "x").unwrap();
        assert!(bind_unix(&file).is_err());
        assert_eq!(fs::read(&file).unwrap(), b"x");
    }

    #[test]
    fn inherited_sockets_stand_for_the_configured_ones() {
        let dir = tempfile::tempdir().unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let unix = UnixListener::bind(dir.path().join("s")).unwrap();
        let settings = Settings {
            addr: vec!["nowhere.invalid:1".to_owned()],
            ..Settings::default()
        };
        let inherited = vec![
            (tcp.into(), "registry".to_owned()),
            (unix.into(), "debug".to_owned()),
        ];
        let sockets = Sockets::open(&settings, inherited).unwrap();
        assert!(matches!(sockets.main[..], [Socket::Tcp(_)]));
        assert!(matches!(sockets.debug[..], [Socket::Unix(_)]));
    }
}
