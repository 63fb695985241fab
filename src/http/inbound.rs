//! What a connection's client may send now: the rules of its protocol, asked before and after each read.

use std::io;

use bytes::Bytes;

use super::connection::Peer;
use super::frames::{Frames, announce, check_streams};
use super::requests::{Answered, Requests, Turn};

/// Bytes of HTTP/2 bodies that are taken before somebody wants one of them. Windows are larger, for the sake of speed, and a
/// thousand connections may fill theirs.
const UNWANTED: u64 = 64 << 10;

pub(super) enum Inbound {
    Http1(Requests),
    Http2(Box<Http2>),
}

pub(super) struct Http2 {
    frames: Frames,
    /// The client takes no bytes. Each request that it sends on makes some.
    is_blocked: bool,
    greeting: Greeting,
}

/// The server's first SETTINGS.
pub(super) enum Greeting {
    Awaited,
    /// What is left of it, and how many bytes that were to be written it stands for.
    Sending(Bytes, usize),
    Sent,
}

impl Inbound {
    pub(super) fn http1() -> Self {
        Inbound::Http1(Requests::new())
    }

    pub(super) fn http2() -> Self {
        Inbound::Http2(Box::new(Http2 {
            frames: Frames::new(),
            is_blocked: false,
            greeting: Greeting::Awaited,
        }))
    }

    /// Before a read. `answered` is of HTTP/1 alone.
    pub(super) fn turn(&mut self, answered: Option<Answered>, peer: &Peer) -> Turn {
        match (self, answered) {
            (Inbound::Http1(requests), Some(answered)) => {
                requests.turn(answered, peer.appetite().wants())
            }
            (Inbound::Http2(http2), _)
                if http2.is_blocked || peer.appetite().is_spoiled(UNWANTED) =>
            {
                Turn::Wait
            }
            _ => Turn::Read,
        }
    }

    /// What [`Turn::Held`] is about, and at most so many bytes.
    pub(super) fn take_held(&mut self, most: usize) -> Bytes {
        match self {
            Inbound::Http1(requests) => requests.take_held(most),
            Inbound::Http2(_) => Bytes::new(),
        }
    }

    /// After a read: how many of the bytes may be passed on. None of some that came: to be asked again for the others, unless
    /// [`Inbound::is_broken`].
    ///
    /// # Errors
    /// The connection ends.
    pub(super) fn pass(
        &mut self,
        bytes: &[u8],
        answered: Option<Answered>,
        peer: &Peer,
    ) -> io::Result<usize> {
        match (self, answered) {
            (Inbound::Http1(requests), Some(answered)) => {
                let passed = requests.pass(bytes, answered, peer.appetite().wants());
                if requests.is_broken() {
                    peer.appetite().set_malformed();
                }
                Ok(passed)
            }
            (Inbound::Http2(http2), _) => {
                let frames = &mut http2.frames;
                frames
                    .read(bytes)
                    .and_then(|()| check_streams(frames.opened(), peer.ended()))
                    .map_err(|excess| io::Error::new(io::ErrorKind::InvalidData, excess))?;
                peer.appetite().arrived(frames.take_data());
                Ok(bytes.len())
            }
            _ => Ok(bytes.len()),
        }
    }

    /// Nothing that comes can be understood.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self, Inbound::Http1(requests) if requests.is_broken())
    }

    /// Whether the client takes the bytes that it is sent.
    pub(super) fn set_blocked(&mut self, is_blocked: bool) {
        if let Inbound::Http2(http2) = self {
            http2.is_blocked = is_blocked;
        }
    }

    /// What to write first in place of the beginning of `buf`, if anything.
    pub(super) fn greeting(&mut self, buf: &[u8]) -> Option<&mut Greeting> {
        let Inbound::Http2(http2) = self else {
            return None;
        };
        if let Greeting::Awaited = http2.greeting {
            http2.greeting = match announce(buf) {
                Some((out, replaced)) => Greeting::Sending(out.into(), replaced),
                None => Greeting::Sent,
            };
        }
        match http2.greeting {
            Greeting::Sending(..) => Some(&mut http2.greeting),
            _ => None,
        }
    }
}
