//! One connection: plain TCP, TLS or a Unix socket, with a watch on how long nothing moves.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Buf as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::appetite::Appetite;
use super::inbound::{Greeting, Inbound};
use super::requests::Turn;
use super::seats::Sitter;
use super::settings::Limits;
use super::transport::Io;
use super::unreadable::{Announced, Answers, Refuse};
use super::watch::Watch;

/// What requests know of their connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    tls: bool,
    restricted: bool,
    own: bool,
    /// The common name of a client certificate that was verified.
    certificate: Option<Rc<str>>,
    requests: Rc<Cell<u32>>,
    begun: Rc<Cell<u32>>,
    /// Whom others see.
    sitter: Option<Arc<Sitter>>,
    announced: Announced,
    appetite: Appetite,
    id: u64,
}

impl Peer {
    /// `own`: the client sits on this machine.
    pub(crate) fn new(tls: bool, restricted: bool, own: bool) -> Self {
        static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
        Peer {
            tls,
            restricted,
            own,
            certificate: None,
            requests: Rc::default(),
            begun: Rc::default(),
            sitter: None,
            announced: Announced::default(),
            appetite: Appetite::default(),
            id: CONNECTIONS.fetch_add(1, Ordering::Relaxed),
        }
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.tls
    }

    /// Plain HTTP although this server has a certificate: `http.plain` says what it gets.
    pub(crate) fn is_restricted(&self) -> bool {
        self.restricted
    }

    /// `name`: the common name of a client certificate that was verified.
    pub(crate) fn with_certificate(mut self, name: Option<String>) -> Self {
        self.certificate = name.map(Rc::from);
        self
    }

    pub(super) fn with_sitter(mut self, sitter: Arc<Sitter>) -> Self {
        self.sitter = Some(sitter);
        self
    }

    pub(crate) fn is_own(&self) -> bool {
        self.own
    }

    pub(crate) fn certificate(&self) -> Option<&str> {
        self.certificate.as_deref()
    }

    pub(crate) fn begin_request(&self) -> Active {
        self.requests.set(self.requests.get() + 1);
        self.begun.set(self.begun.get().wrapping_add(1));
        if let Some(sitter) = &self.sitter {
            sitter.is_busy();
        }
        Active {
            requests: self.requests.clone(),
            sitter: self.sitter.clone(),
        }
    }

    /// To be told of each answer to HTTP/1, in order, before its first byte is written.
    pub(super) fn announced(&self) -> &Announced {
        &self.announced
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.requests.get() == 0
    }

    /// How many requests there were so far, to tell one from the next.
    pub(super) fn begun(&self) -> u32 {
        self.begun.get()
    }

    /// How many of them are over.
    pub(super) fn ended(&self) -> u32 {
        self.begun.get().wrapping_sub(self.requests.get())
    }

    /// Which of the bodies that come are wanted.
    pub(super) fn appetite(&self) -> &Appetite {
        &self.appetite
    }

    /// Of this connection, in this process.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn sitter(&self) -> Option<&Sitter> {
        self.sitter.as_deref()
    }
}

/// Lives as long as a request is served, its body included.
#[derive(Debug)]
pub(crate) struct Active {
    requests: Rc<Cell<u32>>,
    sitter: Option<Arc<Sitter>>,
}

impl Drop for Active {
    fn drop(&mut self) {
        self.requests.set(self.requests.get() - 1);
        if let (0, Some(sitter)) = (self.requests.get(), &self.sitter) {
            sitter.is_idle();
        }
    }
}

/// A stream for actix, which knows no timeout for a half-sent request head after the first one, nor for a client that
/// takes an answer and stops reading; and whose timeout of idle connections begins anew whenever the task is woken.
pub(crate) struct Connection {
    io: Io,
    peer: Peer,
    watch: Watch,
    inbound: Inbound,
    /// None of HTTP/2, where streams share the bytes.
    answers: Option<Answers>,
}

impl Connection {
    /// Of HTTP/2, but for [`Connection::refusing`].
    pub(crate) fn new(io: Io, peer: Peer, limits: &Limits) -> Self {
        Connection {
            io,
            peer,
            watch: Watch::new(limits),
            inbound: Inbound::http2(),
            answers: None,
        }
    }

    /// Answers by `refuse` what actix cannot read a request from. For HTTP/1 alone.
    pub(super) fn refusing(mut self, refuse: Refuse) -> Self {
        self.inbound = Inbound::http1();
        self.answers = Some(Answers::new(self.peer.announced.clone(), refuse));
        self
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let answered = this.answers.as_ref().map(Answers::answered);
        match this.inbound.turn(answered, &this.peer) {
            Turn::Read => {}
            Turn::Wait => return this.wait(cx),
            Turn::End => return Poll::Ready(Ok(())),
            Turn::Held => {
                let held = this.inbound.take_held(buf.remaining());
                let passed = this.inbound.pass(&held, answered, &this.peer)?;
                buf.put_slice(&held[..passed]);
                this.watch.on_read(&this.peer);
                return Poll::Ready(Ok(()));
            }
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.io).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                this.watch.on_progress(&this.peer);
                // Bytes of HTTP/2 need not be those of a request.
                if this.answers.is_some() {
                    this.watch.on_read(&this.peer);
                }
                let came = &buf.filled()[before..];
                let passed = this.inbound.pass(came, answered, &this.peer)?;
                let is_early = passed == 0 && !came.is_empty() && !this.inbound.is_broken();
                buf.set_filled(before + passed);
                if is_early {
                    return this.wait(cx);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // As if the client had said that nothing more comes: actix then closes in order.
            Poll::Pending => this.watch.poll_expired(&this.peer, cx).map(Ok),
        }
    }
}

impl Connection {
    /// Until something is written or wanted.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.peer.appetite().wait(cx);
        self.watch.poll_expired(&self.peer, cx).map(Ok)
    }

    fn written(
        &mut self,
        result: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.inbound.set_blocked(result.is_pending());
        match result {
            Poll::Ready(result) => {
                let written = result.as_ref().map_or(0, |written| *written);
                self.watch.on_written(&self.peer, written);
                self.peer.appetite().changed();
                Poll::Ready(result)
            }
            Poll::Pending => {
                self.watch.on_blocked();
                let expired = self.watch.poll_expired(&self.peer, cx);
                expired.map(|()| {
                    Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the client takes no bytes",
                    ))
                })
            }
        }
    }

    /// Writes what stands for the beginning of `buf`, if anything does.
    fn poll_greet(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Option<Poll<io::Result<usize>>> {
        let greeting = self.inbound.greeting(buf)?;
        let Greeting::Sending(out, replaced) = greeting else {
            return None;
        };
        let result = loop {
            if out.is_empty() {
                let replaced = *replaced;
                *greeting = Greeting::Sent;
                break Poll::Ready(Ok(replaced));
            }
            match Pin::new(&mut self.io).poll_write(cx, out) {
                Poll::Ready(Ok(n @ 1..)) => out.advance(n),
                // None written is an error to who is told.
                other => break other,
            }
        };
        Some(self.written(result, cx))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Some(result) = this.poll_greet(cx, buf) {
            return result;
        }
        let mut buf = buf;
        if let Some(answers) = &mut this.answers {
            match answers.next(buf) {
                Some(len) => buf = &buf[..len],
                // Has a limit of its own.
                None => return answers.poll_refuse(&mut this.io, cx),
            }
        }
        let result = Pin::new(&mut this.io).poll_write(cx, buf);
        if let (Some(answers), Poll::Ready(Ok(n))) = (&mut this.answers, &result) {
            answers.written(*n);
        }
        self.written(result, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = bufs.iter().find(|buf| !buf.is_empty());
        if let Some(result) = first.and_then(|buf| self.poll_greet(cx, buf)) {
            return result;
        }
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.written(result, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Whether a client sits on this machine: nobody else can have an address of its own as theirs.
pub(crate) fn is_local(client: SocketAddr, own: Option<SocketAddr>) -> bool {
    let client = client.ip().to_canonical();
    client.is_loopback() || own.is_some_and(|own| own.ip().to_canonical() == client)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;
    use tokio::time::Instant;

    use super::*;

    const SHORT: Duration = Duration::from_millis(60);
    const LONG: Duration = Duration::from_secs(60);

    fn pair(idle: Duration, stall: Duration) -> (Connection, UnixStream, Peer) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let peer = Peer::new(false, false, true);
        let limits = Limits {
            idle_timeout: idle,
            stall_timeout: stall,
            header_timeout: SHORT,
            ..Limits::default()
        };
        let connection = Connection::new(Io::Unix(ours), peer.clone(), &limits);
        (connection, theirs, peer)
    }

    #[tokio::test]
    async fn a_connection_without_a_request_ends_like_one_that_the_client_closed() {
        let (mut connection, mut client, _) = pair(SHORT, LONG);
        client.write_all(b"half a head").await.unwrap();
        let started = Instant::now();
        let mut read = Vec::new();
        connection.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"half a head");
        assert!(started.elapsed() >= SHORT);
    }

    #[tokio::test]
    async fn a_request_keeps_it_open_and_its_end_does_not() {
        let (mut connection, _client, peer) = pair(SHORT, LONG);
        let active = peer.begin_request();
        let mut byte = [0];
        let reading = tokio::time::timeout(SHORT * 4, connection.read(&mut byte)).await;
        assert!(reading.is_err(), "still open");
        drop(active);
        assert_eq!(connection.read(&mut byte).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_client_that_takes_no_bytes_is_left() {
        let (mut connection, client, peer) = pair(LONG, SHORT);
        let _active = peer.begin_request();
        let error = connection.write_all(&vec![0; 8 << 20]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(client);
    }

    #[tokio::test]
    async fn a_slow_client_is_not() {
        // The kernel says that there is room only when most of its buffer was taken, hence the pieces and the factor.
        let (mut connection, mut client, peer) = pair(LONG, SHORT * 16);
        let _active = peer.begin_request();
        let started = Instant::now();
        let sending = connection.write_all(&[7; 1 << 20]);
        let taking = async {
            let (mut got, mut buffer) = (0, vec![0; 32 << 10]);
            while got < 1 << 20 {
                tokio::time::sleep(SHORT).await;
                got += client.read(&mut buffer).await?;
            }
            Ok(())
        };
        tokio::try_join!(sending, taking).unwrap();
        assert!(started.elapsed() > SHORT * 16);
    }

    #[tokio::test]
    async fn the_head_of_a_later_request_has_its_time_whole() {
        let (connection, mut client, peer) = pair(LONG, LONG);
        let refuse: Refuse = Rc::new(|_| unreachable!("nothing is written"));
        let mut connection = connection.refusing(refuse);
        drop(peer.begin_request());
        let (mut read, started) = (Vec::new(), Instant::now());
        let dribbling = async {
            while client.write_all(b"x").await.is_ok() && started.elapsed() < LONG {
                tokio::time::sleep(SHORT / 6).await;
            }
        };
        tokio::select! {
            end = connection.read_to_end(&mut read) => assert!(end.unwrap() > 1),
            () = dribbling => unreachable!("the connection is there"),
        }
        assert!(started.elapsed() >= SHORT && started.elapsed() < LONG);
    }

    #[test]
    fn a_machine_knows_itself() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert!(is_local(at("127.0.0.1:1"), None) && is_local(at("[::1]:1"), None));
        assert!(is_local(at("[::ffff:127.0.0.1]:1"), None));
        assert!(is_local(
            at("[::ffff:10.0.0.5]:1"),
            Some(at("10.0.0.5:5000"))
        ));
        assert!(!is_local(at("10.0.0.6:1"), Some(at("10.0.0.5:5000"))));
        assert!(!is_local(at("10.0.0.6:1"), None));
    }
}
