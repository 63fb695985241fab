//! The head of a request, whichever of actix's request types it came in.

use std::net::SocketAddr;

use actix_web::HttpRequest;
use actix_web::http::header::{CONTENT_LENGTH, HeaderMap};
use actix_web::http::{Method, Uri, Version};

use super::connection::Peer;

#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) version: Version,
    pub(crate) headers: &'a HeaderMap,
    /// None on a Unix socket.
    pub(crate) client: Option<SocketAddr>,
    /// None only in tests.
    pub(crate) peer: Option<&'a Peer>,
}

impl<'a> From<&'a HttpRequest> for Head<'a> {
    fn from(request: &'a HttpRequest) -> Self {
        Head {
            method: request.method(),
            uri: request.uri(),
            version: request.version(),
            headers: request.headers(),
            client: request.peer_addr(),
            peer: request.conn_data::<Peer>(),
        }
    }
}

impl<'a> From<&'a actix_http::Request> for Head<'a> {
    fn from(request: &'a actix_http::Request) -> Self {
        Head {
            method: request.method(),
            uri: request.uri(),
            version: request.version(),
            headers: &request.head().headers,
            client: request.peer_addr(),
            peer: request.conn_data::<Peer>(),
        }
    }
}

impl Head<'_> {
    /// Whether a body may come. HTTP/2 says that of every request, and means it of few.
    pub(crate) fn may_have_body(&self) -> bool {
        self.version < Version::HTTP_2
            || matches!(*self.method, Method::POST | Method::PUT | Method::PATCH)
    }

    pub(crate) fn scheme(&self) -> &'static str {
        if self.peer.is_some_and(Peer::is_tls) {
            "https"
        } else {
            "http"
        }
    }

    pub(crate) fn content_length(&self) -> Option<u64> {
        self.headers
            .get(CONTENT_LENGTH)?
            .to_str()
            .ok()?
            .parse()
            .ok()
    }
}
