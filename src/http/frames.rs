//! What an HTTP/2 connection may ask for at once.
//!
//! actix tells clients the sizes of windows and nothing else, and what it builds on takes 16 MiB of headers for a request and
//! as many requests as come. So the bytes are looked at on their way: frame by frame (RFC 9113, section 4.1), and in header
//! blocks field by field (RFC 7541, section 6), without decoding what is in them. The limits are announced to the client in
//! the first SETTINGS; whoever keeps them never meets them here.

/// Requests of a connection that are under way at once, as it is announced: as many as an address may have uploads, so that
/// none of them waits for room while its bytes fill the window of the connection. Clients assume 100 before they know, and
/// open another connection for more.
pub(super) const MAX_STREAMS: u32 = 32;
/// A connection ends when it has so many: above what is announced, since a request that was refused before a handler saw it
/// is counted until the connection ends.
const TOO_MANY_STREAMS: u32 = 256;
/// Bytes of a header block as they come, and about those that are announced.
const MAX_BLOCK: u32 = 64 << 10;
/// Fields of a header block; HTTP/1 takes 96. The map that they are put into panics above 24,576 names, and an indexed field
/// is a single byte, so bytes alone bound neither names nor memory: with 4 KiB for the entry of a table, which is the size
/// of the table, and 64 KiB spelled out, a request's fields have at most 256 * 4 KiB + 64 KiB.
const MAX_FIELDS: u32 = 256;

/// `PRI * HTTP/2.0` and what follows it.
const PREFACE: usize = 24;
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;

const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

const SETTINGS_MAX_CONCURRENT_STREAMS: u16 = 3;
const SETTINGS_MAX_HEADER_LIST_SIZE: u16 = 6;

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Excess {
    #[error("a header block has more than {} KiB", MAX_BLOCK >> 10)]
    Block,
    #[error("a header block has more than {MAX_FIELDS} fields")]
    Fields,
    #[error("a header block is malformed")]
    Malformed,
    #[error(
        "more than {TOO_MANY_STREAMS} requests are under way, and {MAX_STREAMS} were announced"
    )]
    Streams,
    #[error("a client sends no PUSH_PROMISE")]
    Push,
}

/// The frames that come on a connection.
#[derive(Debug)]
pub(crate) struct Frames {
    /// Bytes before the first frame.
    preface: usize,
    head: [u8; HEAD],
    /// Bytes of `head` that are there.
    have: usize,
    part: Part,
    /// Of the frame's payload, those after `part`.
    rest: u32,
    /// The block that HEADERS began and END_HEADERS ends.
    block: Option<Block>,
    last_stream: u32,
    opened: u32,
    data: u64,
}

/// What the next bytes of a payload are.
#[derive(Debug)]
enum Part {
    /// Nothing that is looked at.
    Other,
    /// Before a header block: the length of its padding if `is_padded`, and a priority.
    BeforeBlock {
        left: u32,
        is_padded: bool,
        padding: u32,
    },
    Block {
        left: u32,
    },
}

#[derive(Debug)]
struct Block {
    /// Until END_HEADERS.
    is_open: bool,
    bytes: u32,
    fields: Fields,
}

impl Frames {
    pub(crate) fn new() -> Self {
        Frames {
            preface: PREFACE,
            head: [0; HEAD],
            have: 0,
            part: Part::Other,
            rest: 0,
            block: None,
            last_stream: 0,
            opened: 0,
            data: 0,
        }
    }

    /// Requests that began.
    pub(crate) fn opened(&self) -> u32 {
        self.opened
    }

    /// Bytes of DATA frames that came since this was asked last.
    pub(crate) fn take_data(&mut self) -> u64 {
        std::mem::take(&mut self.data)
    }

    /// Looks at the next bytes.
    ///
    /// # Errors
    /// They must not be given to who decodes them.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) -> Result<(), Excess> {
        let preface = self.preface.min(bytes.len());
        self.preface -= preface;
        bytes = &bytes[preface..];
        while !bytes.is_empty() {
            if self.have < HEAD {
                let taken = (HEAD - self.have).min(bytes.len());
                self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
                self.have += taken;
                bytes = &bytes[taken..];
                if self.have == HEAD {
                    self.begin()?;
                }
            } else {
                let taken = self.payload(bytes)?;
                bytes = &bytes[taken..];
            }
            self.end_if_over();
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), Excess> {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = self.head;
        let len = u32::from_be_bytes([0, a, b, c]);
        let stream = u32::from_be_bytes([s0, s1, s2, s3]) & (u32::MAX >> 1);
        (self.part, self.rest) = (Part::Other, len);
        match kind {
            DATA => self.data += u64::from(len),
            PUSH_PROMISE => return Err(Excess::Push),
            HEADERS => {
                if stream > self.last_stream {
                    (self.last_stream, self.opened) = (stream, self.opened.wrapping_add(1));
                }
                self.block = Some(Block {
                    is_open: flags & END_HEADERS == 0,
                    bytes: 0,
                    fields: Fields::default(),
                });
                let is_padded = flags & PADDED != 0;
                let priority = if flags & PRIORITY == 0 { 0 } else { 5 };
                let left = (u32::from(is_padded) + priority).min(len);
                self.rest = len - left;
                self.part = if left == 0 {
                    self.enter_block(0)
                } else {
                    Part::BeforeBlock {
                        left,
                        is_padded,
                        padding: 0,
                    }
                };
                self.add_to_block(len)?;
            }
            CONTINUATION => {
                // Without a block it is refused by who decodes.
                if let Some(block) = &mut self.block {
                    block.is_open = flags & END_HEADERS == 0;
                    (self.part, self.rest) = (Part::Block { left: len }, 0);
                    self.add_to_block(len)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn add_to_block(&mut self, len: u32) -> Result<(), Excess> {
        let Some(block) = &mut self.block else {
            return Ok(());
        };
        block.bytes = block.bytes.saturating_add(len);
        if block.bytes > MAX_BLOCK {
            return Err(Excess::Block);
        }
        Ok(())
    }

    /// The block, which all of the payload is but for the padding at its end.
    fn enter_block(&mut self, padding: u32) -> Part {
        // More padding than payload is refused by who decodes.
        let left = self.rest.saturating_sub(padding);
        self.rest -= left;
        Part::Block { left }
    }

    fn payload(&mut self, bytes: &[u8]) -> Result<usize, Excess> {
        match &mut self.part {
            Part::BeforeBlock {
                left,
                is_padded,
                padding,
            } => {
                if std::mem::take(is_padded) {
                    *padding = u32::from(bytes[0]);
                }
                *left -= 1;
                if *left == 0 {
                    let padding = *padding;
                    self.part = self.enter_block(padding);
                }
                Ok(1)
            }
            Part::Block { left } if *left > 0 => {
                let taken = bytes.len().min(*left as usize);
                *left -= taken as u32;
                if let Some(block) = &mut self.block {
                    block.fields.read(&bytes[..taken])?;
                }
                Ok(taken)
            }
            Part::Block { .. } | Part::Other => {
                let taken = bytes.len().min(self.rest as usize);
                self.rest -= taken as u32;
                Ok(taken)
            }
        }
    }

    fn end_if_over(&mut self) {
        let left = match self.part {
            Part::Other => 0,
            Part::BeforeBlock { left, .. } | Part::Block { left } => left,
        };
        if self.have == HEAD && left == 0 && self.rest == 0 {
            self.have = 0;
            if self.block.as_ref().is_some_and(|block| !block.is_open) {
                self.block = None;
            }
        }
    }
}

/// Counts the fields of a header block.
#[derive(Debug, Default)]
struct Fields {
    count: u32,
    at: At,
}

/// What the next byte of a block is.
#[derive(Clone, Copy, Debug, Default)]
enum At {
    #[default]
    Field,
    /// A further byte of a number.
    Number {
        value: u32,
        shift: u32,
        of: Number,
    },
    /// A string's length begins, and so many strings follow it.
    Length {
        more: u8,
    },
    String {
        left: u32,
        more: u8,
    },
}

#[derive(Clone, Copy, Debug)]
enum Number {
    /// Of a field in a table, or a size of the table: nothing follows.
    Alone,
    /// Of a name in a table: the value follows.
    Name,
    /// Of the bytes in a string.
    Length { more: u8 },
}

impl Fields {
    fn read(&mut self, mut bytes: &[u8]) -> Result<(), Excess> {
        while let Some((&byte, rest)) = bytes.split_first() {
            if let At::String { left, more } = self.at {
                let taken = bytes.len().min(left as usize);
                self.at = string(left - taken as u32, more);
                bytes = &bytes[taken..];
                continue;
            }
            self.at = self.step(byte)?;
            bytes = rest;
        }
        Ok(())
    }

    fn step(&mut self, byte: u8) -> Result<At, Excess> {
        match self.at {
            At::Field => {
                let (bits, of) = match byte {
                    0x80.. => (7, Number::Alone),
                    0x40.. => (6, Number::Name),
                    0x20.. => (5, Number::Alone),
                    _ => (4, Number::Name),
                };
                if !(0x20..0x40).contains(&byte) {
                    self.count += 1;
                }
                if self.count > MAX_FIELDS {
                    return Err(Excess::Fields);
                }
                Ok(number(byte, bits, of))
            }
            At::Number { value, shift, of } => {
                // Four bytes hold whatever is allowed here.
                if shift > 21 {
                    return Err(Excess::Malformed);
                }
                let value = value + (u32::from(byte & 0x7f) << shift);
                Ok(if byte & 0x80 == 0 {
                    after(value, of)
                } else {
                    let shift = shift + 7;
                    At::Number { value, shift, of }
                })
            }
            At::Length { more } => Ok(number(byte, 7, Number::Length { more })),
            At::String { .. } => Ok(self.at),
        }
    }
}

/// A number in the last `bits` of `byte`, and those that follow if they are all set (RFC 7541, section 5.1).
fn number(byte: u8, bits: u32, of: Number) -> At {
    let mask = (1 << bits) - 1;
    match u32::from(byte) & mask {
        value if value == mask => At::Number {
            value,
            shift: 0,
            of,
        },
        value => after(value, of),
    }
}

fn after(value: u32, of: Number) -> At {
    match of {
        Number::Alone => At::Field,
        Number::Name if value == 0 => At::Length { more: 1 },
        Number::Name => At::Length { more: 0 },
        Number::Length { more } => string(value, more),
    }
}

fn string(left: u32, more: u8) -> At {
    match (left, more) {
        (0, 0) => At::Field,
        (0, more) => At::Length { more: more - 1 },
        _ => At::String { left, more },
    }
}

/// Whether a connection has too many requests: `opened` began and `ended` are over.
///
/// # Errors
/// Then it ends.
pub(crate) fn check_streams(opened: u32, ended: u32) -> Result<(), Excess> {
    if opened.wrapping_sub(ended) > TOO_MANY_STREAMS {
        return Err(Excess::Streams);
    }
    Ok(())
}

/// The limits, added to the SETTINGS that a server begins with: `bytes` is what is about to be written. Returns what to write
/// in place of how many of them; none when they are something else.
pub(crate) fn announce(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
    let [a, b, c, SETTINGS, flags, 0, 0, 0, 0] = *head else {
        return None;
    };
    let len = u32::from_be_bytes([0, a, b, c]) as usize;
    let settings = rest.get(..len)?;
    if flags & ACK != 0 {
        return None;
    }
    let mut payload = settings.to_vec();
    for (name, value) in [
        (SETTINGS_MAX_CONCURRENT_STREAMS, MAX_STREAMS),
        (SETTINGS_MAX_HEADER_LIST_SIZE, MAX_BLOCK),
    ] {
        payload.extend_from_slice(&name.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    let [_, a, b, c] = u32::try_from(payload.len()).ok()?.to_be_bytes();
    let mut out = vec![a, b, c, SETTINGS, flags, 0, 0, 0, 0];
    out.append(&mut payload);
    Some((out, HEAD + len))
}

#[cfg(test)]
mod tests;
