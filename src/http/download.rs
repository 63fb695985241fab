//! Bodies that are not in memory: a stream from the storage, and the length that HEAD tells.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_web::body::{BodySize, MessageBody};
use actix_web::http::StatusCode;
use bytes::Bytes;

use super::access_log::{Entry, Outcome};
use super::reply::BodyStream;
use crate::storage;

/// A body that is sent as it is read, and logs the request when it ends.
pub(super) struct Download {
    len: u64,
    sent: u64,
    stream: BodyStream,
    /// Read and not handed on yet.
    rest: Bytes,
    status: StatusCode,
    entry: Option<Entry>,
}

impl Download {
    /// HTTP/1.1 copies each piece into a buffer that it keeps up to 128 KiB: larger ones would cost an allocation each.
    pub(super) const PIECE: usize = 64 << 10;

    pub(super) fn new(len: u64, stream: BodyStream, entry: Entry, status: StatusCode) -> Self {
        Download {
            len,
            sent: 0,
            stream,
            rest: Bytes::new(),
            status,
            entry: Some(entry),
        }
    }

    fn end(&mut self, outcome: &Outcome) {
        if let Some(entry) = self.entry.take() {
            entry.write(None, self.status, self.sent, outcome);
        }
    }
}

impl MessageBody for Download {
    type Error = storage::Error;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.len)
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, storage::Error>>> {
        let this = &mut *self;
        while this.rest.is_empty() {
            match ready!(this.stream.as_mut().poll_next(cx)) {
                Some(Ok(bytes)) => this.rest = bytes,
                Some(Err(error)) => {
                    // The length is promised already: cutting the connection is the one way left to say it.
                    this.end(&Outcome::Cut(error.to_string()));
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    this.end(&Outcome::Answered);
                    return Poll::Ready(None);
                }
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(Self::PIECE));
        this.sent += piece.len() as u64;
        Poll::Ready(Some(Ok(piece)))
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        let outcome = if self.sent == self.len {
            Outcome::Answered
        } else {
            Outcome::ClientLeft
        };
        self.end(&outcome);
    }
}

/// No bytes, but the `Content-Length` of some.
pub(super) struct OnlyLength(pub(super) u64);

impl MessageBody for OnlyLength {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.0)
    }

    fn poll_next(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        Poll::Ready(None)
    }
}
