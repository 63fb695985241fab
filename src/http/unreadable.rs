//! Answers to what is no request: a malformed line or header, a head that is too large or comes too slowly.
//!
//! actix answers those itself, with a status and no body, before any service could have a say. Its answer is told from
//! ours by counting: each answer that a handler makes is announced here before its first byte, with the length of its
//! body, so that what begins where none is announced can only be actix's own. That one is always the connection's last:
//! it gets the body of the specification, and the connection is closed in a way that lets the client read it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::requests::Answered;

/// How long a refused client may go on sending. An end of the connection before that could destroy the answer on its way.
const LINGER: Duration = Duration::from_secs(5);
const END_OF_HEAD: &[u8] = b"\r\n\r\n";
/// How actix says that an answer is the connection's last.
const CLOSE: &[u8] = b"\r\nconnection: close\r\n";

/// What actix could not read a request from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error(
        "the request cannot be read: its first line, a header or the framing of its body is malformed"
    )]
    Malformed,
    #[error("the head of the request is too large: 128 KiB and 96 headers are the limit")]
    HeadTooLarge,
    #[error("the head of the request did not come in time")]
    HeadTimeout,
    #[error("the connection's state is broken")]
    Broken,
}

impl Unreadable {
    pub(super) fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Unreadable::HeadTooLarge,
            StatusCode::REQUEST_TIMEOUT => Unreadable::HeadTimeout,
            status if status.is_server_error() => Unreadable::Broken,
            _ => Unreadable::Malformed,
        }
    }
}

/// The answers of handlers that are not on the wire yet; clones are of the same connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Announced(Rc<RefCell<VecDeque<u64>>>);

impl Announced {
    /// A handler's answer comes next, with so many bytes after its head.
    pub(super) fn push(&self, body: u64) {
        self.0.borrow_mut().push_back(body);
    }
}

/// Makes the head and the body for a status of actix's.
pub(super) type Refuse = Rc<dyn Fn(StatusCode) -> (HttpResponse<()>, Bytes)>;

/// Watches what actix writes to an HTTP/1 connection.
pub(super) struct Answers {
    announced: Announced,
    refuse: Refuse,
    state: State,
    answered: Answered,
    /// The answer under way is none that something follows (RFC 9110, section 15.2).
    is_final: bool,
}

enum State {
    /// An answer begins.
    Start,
    /// This many bytes of an announced answer are still to come.
    Announced(u64),
    /// In place of so many bytes of actix's.
    Refusing(usize, Refusing),
    /// Nothing more can be told apart.
    Opaque,
}

enum Refusing {
    Sending(Bytes),
    Closing,
    /// The client's bytes are swallowed until it has seen the answer, or this is up.
    Lingering(Pin<Box<Sleep>>),
}

impl Answers {
    pub(super) fn new(announced: Announced, refuse: Refuse) -> Self {
        Answers {
            announced,
            refuse,
            state: State::Start,
            answered: Answered {
                begun: 0,
                whole: 0,
                is_last: false,
            },
            is_final: true,
        }
    }

    /// How far the answers are that were written.
    pub(super) fn answered(&self) -> Answered {
        self.answered
    }

    /// How much of `buf` is to be written as it is; none when it is to be replaced.
    pub(super) fn next(&mut self, buf: &[u8]) -> Option<usize> {
        if matches!(self.state, State::Start) {
            self.state = self.begin(buf);
            self.answered.is_last |= matches!(self.state, State::Opaque | State::Refusing(..));
        }
        match self.state {
            State::Announced(left) => {
                Some(usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len())))
            }
            State::Refusing(..) => None,
            State::Start | State::Opaque => Some(buf.len()),
        }
    }

    fn begin(&mut self, buf: &[u8]) -> State {
        // actix makes heads whole before it writes.
        let Some(end) = buf
            .windows(END_OF_HEAD.len())
            .position(|window| window == END_OF_HEAD)
        else {
            return State::Opaque;
        };
        let end = end + END_OF_HEAD.len();
        let head = &buf[..end];
        let status = head.get(9..12).unwrap_or_default();
        self.is_final = status != b"100";
        if !self.is_final {
            return State::Announced(end as u64);
        }
        self.answered.begun = self.answered.begun.wrapping_add(1);
        self.answered.is_last |= head
            .windows(CLOSE.len())
            .any(|window| window.eq_ignore_ascii_case(CLOSE));
        if let Some(body) = self.announced.0.borrow_mut().pop_front() {
            return State::Announced(end as u64 + body);
        }
        let status = match StatusCode::from_bytes(status) {
            Ok(status) if head.starts_with(b"HTTP/1.") && !status.is_success() => status,
            _ => return State::Opaque,
        };
        let (response, body) = (self.refuse)(status);
        let answer = replace(head, &response, &body);
        State::Refusing(end, Refusing::Sending(answer))
    }

    /// So many bytes of those that `next` let through were written.
    pub(super) fn written(&mut self, n: usize) {
        if let State::Announced(left) = &mut self.state {
            *left = left.saturating_sub(n as u64);
            if *left == 0 {
                self.state = State::Start;
                if self.is_final {
                    self.answered.whole = self.answered.whole.wrapping_add(1);
                }
            }
        }
    }

    /// Sends the refusal, closes, and waits until the client has it. Returns what actix is to count as written.
    ///
    /// # Errors
    /// Those of the connection.
    pub(super) fn poll_refuse<I>(
        &mut self,
        io: &mut I,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let State::Refusing(replaced, refusing) = &mut self.state else {
            return Poll::Ready(Ok(0));
        };
        loop {
            match refusing {
                Refusing::Sending(answer) if answer.is_empty() => {
                    ready!(Pin::new(&mut *io).poll_flush(cx))?;
                    *refusing = Refusing::Closing;
                }
                Refusing::Sending(answer) => {
                    match ready!(Pin::new(&mut *io).poll_write(cx, answer))? {
                        0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                        n => answer.advance(n),
                    }
                }
                Refusing::Closing => {
                    ready!(Pin::new(&mut *io).poll_shutdown(cx))?;
                    let end = Instant::now() + LINGER;
                    *refusing = Refusing::Lingering(Box::pin(sleep_until(end)));
                }
                Refusing::Lingering(end) => {
                    let mut swallowed = [0; 4096];
                    let mut swallowed = ReadBuf::new(&mut swallowed);
                    let done = match Pin::new(&mut *io).poll_read(cx, &mut swallowed) {
                        Poll::Ready(Ok(())) => swallowed.filled().is_empty(),
                        Poll::Ready(Err(_)) => true,
                        Poll::Pending if end.as_mut().poll(cx).is_pending() => {
                            return Poll::Pending;
                        }
                        Poll::Pending => true,
                    };
                    if done || end.is_elapsed() {
                        let replaced = *replaced;
                        self.state = State::Opaque;
                        return Poll::Ready(Ok(replaced));
                    }
                }
            }
        }
    }
}

/// actix's status line and date, our headers and body.
fn replace(head: &[u8], response: &HttpResponse<()>, body: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(512 + body.len());
    let mut lines = head.split_inclusive(|byte| *byte == b'\n');
    out.extend_from_slice(lines.next().unwrap_or_default());
    let is_kept = |line: &&[u8]| {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        name.eq_ignore_ascii_case(b"date")
    };
    for line in lines.filter(is_kept) {
        out.extend_from_slice(line);
    }
    for (name, value) in response.headers() {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(
        format!(
            "content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        )
        .as_bytes(),
    );
    out.extend_from_slice(body);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\ndate: now\r\n\r\n";

    fn answers() -> (Announced, Answers) {
        let announced = Announced::default();
        let refuse = |status| {
            (
                HttpResponse::with_body(status, ()),
                Bytes::from_static(b"why"),
            )
        };
        (announced.clone(), Answers::new(announced, Rc::new(refuse)))
    }

    #[test]
    fn a_body_that_looks_like_actixs_answer_is_a_body() {
        let (announced, mut answers) = answers();
        announced.push(2 * OWN.len() as u64);
        let head: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
        for part in [head, OWN, OWN] {
            assert_eq!(answers.next(part), Some(part.len()));
            answers.written(part.len());
        }
        assert_eq!(answers.next(OWN), None);
    }

    #[test]
    fn answers_one_after_the_other_are_told_apart_wherever_they_are_cut() {
        let (announced, mut answers) = answers();
        announced.push(3);
        announced.push(0);
        let mut wire = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\n\r\nabcHTTP/1.1 202 Accepted\r\n\r\n".to_vec();
        let ours = wire.len();
        wire.extend_from_slice(OWN);
        let mut at = 0;
        while let Some(n) = answers.next(&wire[at..]) {
            let taken = n.min(7);
            answers.written(taken);
            at += taken;
        }
        assert_eq!(at, ours);
    }

    #[test]
    fn the_refusal_keeps_the_status_line_and_the_date() {
        let response = HttpResponse::with_body(StatusCode::BAD_REQUEST, ());
        let text = replace(OWN, &response, b"why");
        assert_eq!(
            std::str::from_utf8(&text).unwrap(),
            "HTTP/1.1 400 Bad Request\r\ndate: now\r\ncontent-length: 3\r\nconnection: close\r\n\r\nwhy"
        );
    }
}
