//! One request after the other on an HTTP/1 connection.
//!
//! actix reads ahead: it decodes the next request while the one before is served, and what it knows of a request is kept
//! once for the connection, so that GET and HEAD in one packet made the answer to GET one without a body. Here it gets no
//! byte beyond the end of a request before the answer to it is written (RFC 9112, section 9.3.2, allows that), and no more of
//! a body than came with the head before somebody wants it. So the ends of requests have to be found. Where that is not
//! certain nothing is held back any more: actix will refuse what it cannot read, and close.

use bytes::Bytes;

/// actix refuses a head that is not whole by then.
const MAX_HEAD: usize = 128 << 10;
const MAX_HEADERS: usize = 96;

/// What comes on a connection.
#[derive(Debug)]
pub(crate) struct Requests {
    state: State,
    /// What came of a head so far, if not all.
    head: Vec<u8>,
    /// Requests that were passed on, from their head.
    passed: u32,
    /// A body comes that nobody has wanted yet: what [`super::appetite::Appetite::wants`] said before.
    unwanted: Option<u32>,
    /// What came too early.
    held: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A head begins, or goes on.
    Head,
    /// So many bytes of a body are to come.
    Body(u64),
    Chunks(Chunks),
    /// The chunks are malformed.
    Broken,
    /// The rest of the connection.
    Anything,
}

/// How far the answers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    /// Answers of which a byte was written, and those that are whole.
    pub(crate) begun: u32,
    pub(crate) whole: u32,
    /// No further request will be answered.
    pub(crate) is_last: bool,
}

/// What a reader gets next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// What comes.
    Read,
    /// What came before, of [`Requests::take_held`].
    Held,
    /// Nothing until something was written or wanted.
    Wait,
    /// The end.
    End,
}

impl Requests {
    pub(crate) fn new() -> Self {
        Requests {
            state: State::Head,
            head: Vec::new(),
            passed: 0,
            unwanted: None,
            held: Bytes::new(),
        }
    }

    /// `wants`: of the connection's appetite.
    pub(crate) fn turn(&mut self, answered: Answered, wants: u32) -> Turn {
        if self.state == State::Broken {
            return Turn::End;
        }
        if self.unwanted != Some(wants) || answered.begun >= self.passed || answered.is_last {
            self.unwanted = None;
        }
        match (self.unwanted, self.held.is_empty()) {
            (Some(_), _) => Turn::Wait,
            (None, true) => Turn::Read,
            (None, false) if self.is_over() && !self.is_answered(answered) => Turn::Wait,
            (None, false) => Turn::Held,
        }
    }

    pub(crate) fn take_held(&mut self, most: usize) -> Bytes {
        self.held.split_to(most.min(self.held.len()))
    }

    /// How many of the bytes that came may be passed on now; the rest is held. Without any left there is nothing to pass on,
    /// which is not the end of the connection.
    pub(crate) fn pass(&mut self, bytes: &[u8], answered: Answered, wants: u32) -> usize {
        let passed = self.advance(bytes, answered, wants);
        let rest = &bytes[passed..];
        if !rest.is_empty() && self.state != State::Broken {
            // What was held before comes after what was taken of it.
            self.held = [rest, &self.held].concat().into();
        }
        passed
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    /// A request came to its end, and the next one has not begun.
    fn is_over(&self) -> bool {
        self.state == State::Head && self.head.is_empty()
    }

    fn is_answered(&self, answered: Answered) -> bool {
        answered.is_last || answered.whole >= self.passed
    }

    fn advance(&mut self, bytes: &[u8], answered: Answered, wants: u32) -> usize {
        if answered.is_last {
            self.state = State::Anything;
        }
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match self.state {
                State::Anything => return bytes.len(),
                State::Broken => return at,
                State::Body(left) => {
                    let taken =
                        usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
                    at += taken;
                    self.state = match left - taken as u64 {
                        0 => State::Head,
                        left => State::Body(left),
                    };
                }
                State::Chunks(chunks) => {
                    let (taken, next) = chunks.read(rest);
                    at += taken;
                    self.state = next;
                }
                State::Head if self.is_over() && !self.is_answered(answered) => return at,
                State::Head => {
                    at += self.head(rest);
                    if self.has_body() {
                        self.unwanted = Some(wants);
                    }
                }
            }
        }
        // The end of a body is nothing that has to be wanted.
        if self.is_over() {
            self.unwanted = None;
        }
        at
    }

    fn has_body(&self) -> bool {
        matches!(self.state, State::Body(_) | State::Chunks(_))
    }

    /// Returns how many bytes belong to the head.
    fn head(&mut self, bytes: &[u8]) -> usize {
        let before = self.head.len();
        let parsed = if before == 0 {
            parse(bytes)
        } else {
            self.head.extend_from_slice(bytes);
            // A head ends with the end of a line.
            if bytes.contains(&b'\n') {
                parse(&self.head)
            } else {
                Parsed::Partial
            }
        };
        match parsed {
            Parsed::Head(len, state) => {
                self.head = Vec::new();
                self.passed = self.passed.wrapping_add(1);
                self.state = state;
                len - before
            }
            Parsed::Partial => {
                if before == 0 {
                    self.head = bytes.to_vec();
                }
                if self.head.len() >= MAX_HEAD {
                    self.give_up();
                }
                bytes.len()
            }
            Parsed::Malformed => {
                self.give_up();
                bytes.len()
            }
        }
    }

    fn give_up(&mut self) {
        self.head = Vec::new();
        self.state = State::Anything;
    }
}

enum Parsed {
    /// So many bytes long, and what follows.
    Head(usize, State),
    Partial,
    Malformed,
}

/// Finds the end of a head as actix does, and of what follows what actix makes of it.
fn parse(bytes: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(_) => return Parsed::Malformed,
    };
    let value = |name: &str| {
        let mut values = request
            .headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value.trim_ascii());
        (values.next(), values.next().is_some())
    };
    let is_websocket = request.headers.iter().any(|header| {
        header.name.eq_ignore_ascii_case("upgrade")
            && header.value.trim_ascii().eq_ignore_ascii_case(b"websocket")
    });
    let state = match (value("transfer-encoding"), value("content-length")) {
        // Refused, all of them.
        ((_, true), _) | (_, (_, true)) | ((Some(_), _), (Some(_), _)) => State::Anything,
        ((Some(coding), _), _) if coding.eq_ignore_ascii_case(b"chunked") => {
            State::Chunks(Chunks::Size(None))
        }
        ((Some(_), _), _) => State::Anything,
        _ if is_websocket => State::Anything,
        (_, (Some(length), _)) if length != b"0" => {
            match std::str::from_utf8(length).map(str::parse::<u64>) {
                Ok(Ok(0)) => State::Head,
                Ok(Ok(length)) => State::Body(length),
                _ => State::Anything,
            }
        }
        _ if request.method == Some("CONNECT") => State::Anything,
        _ => State::Head,
    };
    Parsed::Head(len, state)
}

/// Where a chunked body is (RFC 9112, section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunks {
    /// In the digits of a size, if any came.
    Size(Option<u64>),
    /// White space after it.
    Space(u64),
    Extension(u64),
    /// The LF that ends the line of a size.
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// A trailer, or the end.
    Trailer,
    TrailerLine,
    TrailerLf,
    EndLf,
}

impl Chunks {
    /// Returns how many bytes belong to the body, and what follows.
    fn read(self, bytes: &[u8]) -> (usize, State) {
        let (mut at, mut chunks) = (0, self);
        while let Some(&byte) = bytes.get(at) {
            if let Chunks::Data(left) = chunks {
                let rest = bytes.len() - at;
                let taken = usize::try_from(left).map_or(rest, |left| left.min(rest));
                at += taken;
                chunks = match left - taken as u64 {
                    0 => Chunks::DataCr,
                    left => Chunks::Data(left),
                };
                continue;
            }
            match chunks.step(byte) {
                Some(next) => chunks = next,
                None if chunks == Chunks::EndLf && byte == b'\n' => return (at + 1, State::Head),
                None => return (at, State::Broken),
            }
            at += 1;
        }
        (at, State::Chunks(chunks))
    }

    /// None at the end, and for what cannot be there.
    fn step(self, byte: u8) -> Option<Self> {
        let after_size = |size| match byte {
            b'\t' | b' ' => Some(Chunks::Space(size)),
            b';' => Some(Chunks::Extension(size)),
            b'\r' => Some(Chunks::SizeLf(size)),
            _ => None,
        };
        match self {
            Chunks::Size(size) => match (char::from(byte).to_digit(16), size) {
                (Some(digit), None) => Some(Chunks::Size(Some(digit.into()))),
                (Some(digit), Some(size)) => {
                    let size = size.checked_mul(16)?;
                    Some(Chunks::Size(Some(size + u64::from(digit))))
                }
                (None, Some(size)) => after_size(size),
                (None, None) => None,
            },
            Chunks::Space(size) => after_size(size),
            Chunks::Extension(size) => match byte {
                b'\r' => Some(Chunks::SizeLf(size)),
                0..=8 | 10..=31 | 127 => None,
                _ => Some(self),
            },
            Chunks::SizeLf(0) => (byte == b'\n').then_some(Chunks::Trailer),
            Chunks::SizeLf(size) => (byte == b'\n').then_some(Chunks::Data(size)),
            Chunks::Data(_) => Some(self),
            Chunks::DataCr => (byte == b'\r').then_some(Chunks::DataLf),
            Chunks::DataLf => (byte == b'\n').then_some(Chunks::Size(None)),
            Chunks::Trailer if byte == b'\r' => Some(Chunks::EndLf),
            Chunks::TrailerLine if byte == b'\r' => Some(Chunks::TrailerLf),
            Chunks::Trailer | Chunks::TrailerLine => Some(Chunks::TrailerLine),
            Chunks::TrailerLf => (byte == b'\n').then_some(Chunks::Trailer),
            Chunks::EndLf => None,
        }
    }
}

#[cfg(test)]
mod tests;
