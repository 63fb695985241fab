//! One connection: plain TCP, TLS or a Unix socket, with a watch on how long nothing moves.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::server::TlsStream;

/// What requests know of their connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    tls: bool,
    restricted: bool,
    requests: Rc<Cell<u32>>,
}

impl Peer {
    pub(crate) fn new(tls: bool, restricted: bool) -> Self {
        Peer {
            tls,
            restricted,
            requests: Rc::default(),
        }
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.tls
    }

    /// Plain HTTP from another machine although this server has a certificate: `http.plain` says what it gets.
    pub(crate) fn is_restricted(&self) -> bool {
        self.restricted
    }

    pub(crate) fn begin_request(&self) -> Active {
        self.requests.set(self.requests.get() + 1);
        Active(self.requests.clone())
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.requests.get() == 0
    }
}

/// Lives as long as a request is served, its body included.
#[derive(Debug)]
pub(crate) struct Active(Rc<Cell<u32>>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

pub(crate) enum Io {
    Tcp(TcpStream),
    /// Boxed: two kilobytes of state that plain connections need not carry.
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// A stream for actix, which knows no timeout for a half-sent request head after the first one, nor for a client that
/// takes an answer and stops reading; and whose timeout of idle connections begins anew whenever the task is woken.
pub(crate) struct Connection {
    io: Io,
    peer: Peer,
    watch: Watch,
}

impl Connection {
    /// `idle` without a request, `stall` with bytes that the client does not take.
    pub(crate) fn new(io: Io, peer: Peer, idle: Duration, stall: Duration) -> Self {
        let watch = Watch {
            idle,
            stall,
            moved: Instant::now(),
            blocked: false,
            timer: None,
        };
        Connection { io, peer, watch }
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }
}

struct Watch {
    idle: Duration,
    stall: Duration,
    /// When a byte last went through, in either direction.
    moved: Instant,
    /// Bytes wait to be written.
    blocked: bool,
    /// Not moved at each byte: it looks at `moved` when it fires, and goes on to when it would matter.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Watch {
    fn on_progress(&mut self) {
        self.moved = Instant::now();
    }

    /// Ready when nothing has moved for too long. To be called when the socket has nothing to do.
    fn poll_expired(&mut self, is_idle: bool, cx: &mut Context<'_>) -> Poll<()> {
        let limit = match (self.blocked, is_idle) {
            (true, _) => Some(self.stall),
            (false, true) => Some(self.idle),
            (false, false) => None,
        };
        let shortest = self.idle.min(self.stall);
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + shortest)));
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let end = limit.map_or(now + shortest, |limit| self.moved + limit);
            if end <= now {
                return Poll::Ready(());
            }
            timer.as_mut().reset(end.min(now + shortest));
        }
        Poll::Pending
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let result = match &mut this.io {
            Io::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_read(cx, buf),
            Io::Unix(io) => Pin::new(io).poll_read(cx, buf),
        };
        match result {
            Poll::Ready(result) => {
                this.watch.on_progress();
                Poll::Ready(result)
            }
            // As if the client had said that nothing more comes: actix then closes in order.
            Poll::Pending => this.watch.poll_expired(this.peer.is_idle(), cx).map(Ok),
        }
    }
}

impl Connection {
    fn written(
        &mut self,
        result: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(result) => {
                self.watch.blocked = false;
                self.watch.on_progress();
                Poll::Ready(result)
            }
            Poll::Pending => {
                if !self.watch.blocked {
                    self.watch.blocked = true;
                    self.watch.on_progress();
                }
                let expired = self.watch.poll_expired(self.peer.is_idle(), cx);
                expired.map(|()| {
                    Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the client takes no bytes",
                    ))
                })
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = match &mut self.io {
            Io::Tcp(io) => Pin::new(io).poll_write(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_write(cx, buf),
            Io::Unix(io) => Pin::new(io).poll_write(cx, buf),
        };
        self.written(result, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = match &mut self.io {
            Io::Tcp(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Io::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Io::Unix(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        };
        self.written(result, cx)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Tcp(io) => io.is_write_vectored(),
            Io::Tls(io) => io.is_write_vectored(),
            Io::Unix(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tcp(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
            Io::Unix(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tls(io) => Pin::new(io).poll_shutdown(cx),
            Io::Unix(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

/// Whether a client sits on this machine.
pub(crate) fn is_local(client: Option<SocketAddr>) -> bool {
    client.is_none_or(|client| client.ip().to_canonical().is_loopback())
}
