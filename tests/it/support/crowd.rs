//! Clients that want nothing but to be a burden: thousands of connections from many addresses of the loopback network, on a
//! thread of their own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

/// What a slow connection does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Never says a word.
    Silent,
    /// Sends a request's head, a byte a second.
    Head,
    /// Sends the body of a request, a byte a second.
    Body,
}

/// Between two bytes.
const BEAT: Duration = Duration::from_secs(1);
/// Until a connection that was closed is opened again.
const AGAIN: Duration = Duration::from_secs(10);

/// Lives as long as the attack.
pub(crate) struct Crowd {
    over: Arc<AtomicBool>,
    opened: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

/// How many files this process may have open, after asking for as many as it can get.
pub(crate) fn room_for_files() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit");
    usize::try_from(hard).unwrap_or(usize::MAX)
}

impl Crowd {
    /// `count` connections, spread over `addresses` addresses 127.x.y.z, each opened again when the server closes it.
    pub(crate) fn gather(server: SocketAddr, count: usize, addresses: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let opened = Arc::new(AtomicUsize::new(0));
        let (ends, counter) = (over.clone(), opened.clone());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let mut members = JoinSet::new();
                for n in 0..count {
                    let [high, low] = u16::try_from(n % addresses)
                        .expect("fewer than 65536 addresses")
                        .to_be_bytes();
                    let from = Ipv4Addr::new(127, 77, high, low);
                    let kind = [Kind::Silent, Kind::Head, Kind::Body][n % 3];
                    members.spawn(member(server, from, kind, counter.clone()));
                    // Not all in one moment: the kernel's queue of connections is short.
                    if n % 50 == 0 {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
                while !ends.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        });
        Crowd {
            over,
            opened,
            thread: Some(thread),
        }
    }

    /// How many connections were opened so far, those included that were opened again.
    pub(crate) fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Err: it panicked, and said so.
            let _ = thread.join();
        }
    }
}

async fn member(server: SocketAddr, from: Ipv4Addr, kind: Kind, opened: Arc<AtomicUsize>) {
    loop {
        // Err: it was closed, which is why it comes again.
        let _ = burden(server, from, kind, &opened).await;
        tokio::time::sleep(AGAIN).await;
    }
}

async fn burden(
    server: SocketAddr,
    from: Ipv4Addr,
    kind: Kind,
    opened: &AtomicUsize,
) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    let mut stream = socket.connect(server).await?;
    opened.fetch_add(1, Ordering::Relaxed);
    match kind {
        Kind::Silent => {}
        Kind::Head => stream.write_all(b"GET /v2/ HTTP/1.1\r\nX: ").await?,
        Kind::Body => {
            stream
                .write_all(b"PUT /v2/slow/manifests/a HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\n\r\n")
                .await?;
        }
    }
    let mut byte = [0];
    loop {
        match tokio::time::timeout(BEAT, stream.read(&mut byte)).await {
            Ok(Ok(1..)) => {}
            // Closed.
            Ok(_) => return Ok(()),
            Err(_) if matches!(kind, Kind::Silent) => {}
            Err(_) => stream.write_all(b"x").await?,
        }
    }
}
