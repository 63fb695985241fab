//! An address and its protocols: TLS and plain HTTP on one port, told apart by their first byte.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpService, KeepAlive, Protocol, Request};
use actix_server::{GracefulShutdownSignal, ServerBuilder};
use actix_service::{
    IntoServiceFactory as _, Service, ServiceFactory, ServiceFactoryExt as _, fn_factory,
    fn_service, map_config,
};
use actix_web::App;
use actix_web::dev::{AppConfig, ServiceRequest};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::tls;

use super::Front;
use super::connection::{Connection, Peer, is_local};
use super::dispatch::{dispatch, preflight, refuse_unreadable};
use super::head::Head;
use super::pulse::Pulse;
use super::seats::{Seat, Seats};
use super::settings::{Limits, Plain};
use super::sockets::Socket;
use super::transport::Io;

/// The first byte of a TLS record that holds a handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// How an HTTP/2 connection without TLS begins.
const H2C_PREFACE: &[u8] = b"PRI * HTTP/2.0";
/// How long a refused upload is swallowed, and an end of a connection waited for.
const LINGER: Duration = Duration::from_secs(5);
/// What an HTTP/2 client may send ahead of the disk, for one request and for all of a connection. The protocol's 64 KiB
/// made uploads wait for each other's acknowledgements; much more is memory that slow disks fill.
const H2_STREAM_WINDOW: u32 = 1 << 20;
const H2_CONNECTION_WINDOW: u32 = 2 << 20;

/// One of the addresses, as its threads need it.
#[derive(Clone)]
pub(super) struct Listener {
    pub(super) front: Arc<Front>,
    pub(super) tls: Option<Arc<tls::Acceptor>>,
    pub(super) limits: Limits,
    pub(super) seats: Seats,
    pub(super) h2c: bool,
    pub(super) draining: GracefulShutdownSignal,
    pub(super) pulse: Pulse,
}

impl Listener {
    pub(super) fn add_to(
        &self,
        builder: ServerBuilder,
        socket: Socket,
    ) -> io::Result<ServerBuilder> {
        let listener = self.clone();
        match socket {
            Socket::Tcp(tcp) => builder.listen("http", tcp, move || {
                let listener = listener.clone();
                fn_factory(move || {
                    let listener = listener.clone();
                    async move {
                        let http = Rc::new(listener.http().await?);
                        Ok::<_, ()>(fn_service(move |io: TcpStream| {
                            let (listener, http) = (listener.clone(), http.clone());
                            async move {
                                let client = io.peer_addr().ok();
                                let own = io.local_addr().ok();
                                let is_own = client.is_some_and(|client| is_local(client, own));
                                let Some(seat) = listener.seats.take(client, is_own) else {
                                    return Ok(());
                                };
                                tokio::select! {
                                    done = listener.serve_tcp(&*http, io, &seat) => done,
                                    () = seat.lost() => Ok(()),
                                }
                            }
                        }))
                    }
                })
            }),
            Socket::Unix(unix) => builder.listen_uds("http", unix, move || {
                let listener = listener.clone();
                fn_factory(move || {
                    let listener = listener.clone();
                    async move {
                        let http = Rc::new(listener.http().await?);
                        Ok::<_, ()>(fn_service(move |io: UnixStream| {
                            let (listener, http) = (listener.clone(), http.clone());
                            async move {
                                let Some(seat) = listener.seats.take(None, true) else {
                                    return Ok(());
                                };
                                let peer =
                                    Peer::new(false, false, true).with_sitter(seat.sitter());
                                let io = Io::Unix(io);
                                tokio::select! {
                                    done = listener.serve(&*http, io, peer, Protocol::Http1, None) => done,
                                    () = seat.lost() => Ok(()),
                                }
                            }
                        }))
                    }
                })
            }),
        }
    }

    /// What speaks HTTP on a connection of a thread.
    async fn http(
        &self,
    ) -> Result<
        impl Service<(Connection, Protocol, Option<SocketAddr>), Response = (), Error = DispatchError>
        + use<>,
        (),
    > {
        self.pulse.join();
        let front = self.front.clone();
        let app = App::new().default_service(fn_service(move |request: ServiceRequest| {
            let front = front.clone();
            async move { Ok(dispatch(front, request).await) }
        }));
        let app = map_config(app.into_factory(), |()| AppConfig::default())
            .map_err(|error| error.error_response());
        let front = self.front.clone();
        let expect = fn_service(move |request: Request| {
            let front = front.clone();
            async move {
                let refused = preflight(front, Head::from(&request)).await.err();
                refused.map_or(Ok(request), Err)
            }
        });
        let draining = self.draining.clone();
        let http = HttpService::build()
            .keep_alive(KeepAlive::Timeout(self.limits.idle_timeout))
            .client_request_timeout(self.limits.header_timeout)
            .client_disconnect_timeout(LINGER)
            .h2_initial_window_size(H2_STREAM_WINDOW)
            .h2_initial_connection_window_size(H2_CONNECTION_WINDOW)
            .graceful_shutdown_signal(move || {
                let draining = draining.clone();
                async move { draining.notified().await }
            })
            .on_connect_ext(|connection: &Connection, extensions| {
                extensions.insert(connection.peer().clone());
            })
            .expect(expect)
            .finish(app);
        http.new_service(()).await
    }

    fn connection(
        &self,
        io: Io,
        peer: Peer,
        protocol: Protocol,
        client: Option<SocketAddr>,
    ) -> Connection {
        let connection = Connection::new(io, peer, &self.limits);
        if protocol == Protocol::Http2 {
            return connection;
        }
        let front = self.front.clone();
        connection.refusing(Rc::new(move |status| {
            refuse_unreadable(front.clone(), client, status)
        }))
    }

    async fn serve_tcp<H>(&self, http: &H, io: TcpStream, seat: &Seat) -> Result<(), ()>
    where
        H: Service<
                (Connection, Protocol, Option<SocketAddr>),
                Response = (),
                Error = DispatchError,
            >,
    {
        let client = io.peer_addr().ok();
        // Answers are written whole: waiting for more would only delay them.
        let _ = io.set_nodelay(true);
        let mut first = [0; H2C_PREFACE.len()];
        let mut peeked = 0;
        if self.tls.is_some() || self.h2c {
            peeked = match timeout(self.limits.header_timeout, io.peek(&mut first)).await {
                Ok(Ok(peeked @ 1..)) => peeked,
                _ => return Ok(()),
            };
        }
        match &self.tls {
            Some(acceptor) if first[0] == TLS_HANDSHAKE => {
                self.serve_tls(http, acceptor, io, client, seat).await
            }
            // Without a certificate a TLS hello is a malformed request: answered with 400 and closed at once.
            tls => {
                let is_h2 = self.h2c && first[..peeked] == *H2C_PREFACE;
                let own = io.local_addr().ok();
                let is_own = client.is_some_and(|client| is_local(client, own));
                let trusted = self.front.plain != Plain::Off && is_own;
                let peer =
                    Peer::new(false, tls.is_some() && !trusted, is_own).with_sitter(seat.sitter());
                let protocol = if is_h2 {
                    Protocol::Http2
                } else {
                    Protocol::Http1
                };
                self.serve(http, Io::Tcp(io), peer, protocol, client).await
            }
        }
    }

    async fn serve_tls<H>(
        &self,
        http: &H,
        acceptor: &tls::Acceptor,
        io: TcpStream,
        client: Option<SocketAddr>,
        seat: &Seat,
    ) -> Result<(), ()>
    where
        H: Service<
                (Connection, Protocol, Option<SocketAddr>),
                Response = (),
                Error = DispatchError,
            >,
    {
        let own = io.local_addr().ok();
        let handshake = TlsAcceptor::from(acceptor.config()).accept(io);
        let io = match timeout(self.limits.header_timeout, handshake).await {
            Ok(Ok(io)) => io,
            Ok(Err(error)) => {
                log_handshake(client, &error, self.front.trust.get().is_some());
                return Ok(());
            }
            Err(_) => {
                log::debug!("TLS handshake with {} took too long", shown(client));
                return Ok(());
            }
        };
        let protocol = match io.get_ref().1.alpn_protocol() {
            Some(b"h2") => Protocol::Http2,
            _ => Protocol::Http1,
        };
        let is_own = client.is_some_and(|client| is_local(client, own));
        let name = acceptor.client_name(io.get_ref().1);
        let peer = Peer::new(true, false, is_own)
            .with_certificate(name)
            .with_sitter(seat.sitter());
        self.serve(http, Io::Tls(Box::new(io)), peer, protocol, client)
            .await
    }

    async fn serve<H>(
        &self,
        http: &H,
        io: Io,
        peer: Peer,
        protocol: Protocol,
        client: Option<SocketAddr>,
    ) -> Result<(), ()>
    where
        H: Service<
                (Connection, Protocol, Option<SocketAddr>),
                Response = (),
                Error = DispatchError,
            >,
    {
        let connection = self.connection(io, peer.clone(), protocol, client);
        let served = http.call((connection, protocol, client));
        let result = match protocol {
            // actix ends HTTP/1 connections when the server drains, but not those of HTTP/2.
            Protocol::Http2 => tokio::select! {
                result = served => result,
                () = self.drained(&peer) => Ok(()),
            },
            _ => served.await,
        };
        if let Err(error) = result {
            log::debug!("connection with {}: {error}", shown(client));
        }
        Ok(())
    }

    /// Ends when the server drains and the connection has had nothing to do for a moment: long enough for the last
    /// answer to get out.
    async fn drained(&self, peer: &Peer) {
        const MOMENT: Duration = Duration::from_millis(200);
        self.draining.notified().await;
        let mut idle = 0;
        while idle < 2 {
            tokio::time::sleep(MOMENT).await;
            idle = if peer.is_idle() { idle + 1 } else { 0 };
        }
    }
}

/// `has_ca`: there is a line that makes clients trust this server.
fn log_handshake(client: Option<SocketAddr>, error: &io::Error, has_ca: bool) {
    let text = error.to_string();
    let client = shown(client);
    if text.contains("UnknownCA")
        || text.contains("BadCertificate")
        || text.contains("CertificateUnknown")
    {
        let next = if has_ca {
            "`registry cert show` prints the line to paste there"
        } else {
            "give it the CA"
        };
        log::info!("{client} does not trust this server's certificate: {next} ({text})");
    } else {
        log::debug!("TLS handshake with {client} failed: {text}");
    }
}

fn shown(client: Option<SocketAddr>) -> String {
    client.map_or_else(
        || "a local client".to_owned(),
        |client| client.ip().to_canonical().to_string(),
    )
}
