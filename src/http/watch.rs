//! When a connection on which nothing moves, or too little, is given up.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::connection::Peer;
use super::pace::Pace;
use super::settings::Limits;

/// How long nothing may move on a connection, and what may take how long.
pub(super) struct Watch {
    /// Without a request.
    idle: Duration,
    /// For a request's head, from its first byte.
    header: Duration,
    /// How often to look, at least.
    shortest: Duration,
    /// With bytes that the client does not take.
    pace: Pace,
    /// When a byte last went through, in either direction.
    moved: Instant,
    /// Since when bytes wait to be written.
    blocked: Option<Instant>,
    /// Since when a head comes, and how many requests there were before it.
    head: Option<(u32, Instant)>,
    /// Not moved at each byte: it looks at `moved` when it fires, and goes on to when it would matter.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Watch {
    pub(super) fn new(limits: &Limits) -> Self {
        Watch {
            idle: limits.idle_timeout,
            header: limits.header_timeout,
            shortest: limits
                .idle_timeout
                .min(limits.stall_timeout)
                .min(limits.header_timeout),
            pace: Pace::new(limits),
            moved: Instant::now(),
            blocked: None,
            head: None,
            timer: None,
        }
    }

    pub(super) fn on_progress(&mut self, peer: &Peer) {
        self.moved = Instant::now();
        if let Some(sitter) = peer.sitter() {
            sitter.moved(self.moved.into_std());
        }
    }

    /// The client took so many bytes.
    pub(super) fn on_written(&mut self, peer: &Peer, bytes: usize) {
        let waited = self.blocked.take().map(|since| since.elapsed());
        self.pace.moved(bytes, waited.unwrap_or_default());
        self.on_progress(peer);
    }

    /// The client takes none.
    pub(super) fn on_blocked(&mut self) {
        self.blocked.get_or_insert_with(Instant::now);
    }

    /// Bytes came. That of the first request's head is actix's business, which answers it.
    pub(super) fn on_read(&mut self, peer: &Peer) {
        let begun = peer.begun();
        if begun == 0 || !peer.is_idle() {
            self.head = None;
        } else if self.head.is_none_or(|(before, _)| before != begun) {
            self.head = Some((begun, self.moved));
        }
    }

    fn end(&self, peer: &Peer) -> Option<Instant> {
        if let Some(blocked) = self.blocked {
            return Some(blocked + self.pace.patience());
        }
        if !peer.is_idle() {
            return None;
        }
        let idle = self.moved + self.idle;
        Some(match self.head {
            Some((before, since)) if before == peer.begun() => idle.min(since + self.header),
            _ => idle,
        })
    }

    /// Ready when nothing has moved for too long. To be called when the socket has nothing to do.
    pub(super) fn poll_expired(&mut self, peer: &Peer, cx: &mut Context<'_>) -> Poll<()> {
        let end = self.end(peer);
        let shortest = self.shortest;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + shortest)));
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let end = end.unwrap_or(now + shortest);
            if end <= now {
                return Poll::Ready(());
            }
            timer.as_mut().reset(end.min(now + shortest));
        }
        Poll::Pending
    }
}
