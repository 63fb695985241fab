//! A file on its way to a socket: read one block ahead, on a thread that may wait for the disk.

use std::fs::File;
use std::future::Future;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use tokio::task::{JoinHandle, spawn_blocking};

use super::super::Error;
use super::examine::Quiet;
use super::{WHOLE, fact};

/// Bytes of a large file read at a time.
const BLOCK: u64 = 256 * 1024;

/// A file and the bytes still wanted of it; the first block is read with the opening, which saves small files a trip.
pub(super) struct Reader {
    file: File,
    left: u64,
    first: Option<Bytes>,
    quiet: Arc<Quiet>,
}

impl Reader {
    pub(super) fn open(mut file: File, range: Range<u64>, quiet: Arc<Quiet>) -> io::Result<Self> {
        if range.start > 0 {
            file.seek(SeekFrom::Start(range.start))?;
        }
        let mut reader = Reader {
            file,
            left: range.end - range.start,
            first: None,
            quiet,
        };
        if reader.left > WHOLE {
            // Advice: a file system that takes none reads as well.
            let _ = posix_fadvise(
                &reader.file,
                0,
                0,
                PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL,
            );
        }
        reader.first = Some(reader.block()?);
        Ok(reader)
    }

    /// All that is wanted, if the first block was all.
    pub(super) fn take_whole(&mut self) -> Option<Bytes> {
        if self.left == 0 {
            self.first.take()
        } else {
            None
        }
    }

    fn block(&mut self) -> io::Result<Bytes> {
        let wanted = if self.first.is_none() && self.left <= WHOLE {
            self.left
        } else {
            self.left.min(BLOCK)
        };
        self.quiet.disturb();
        let mut bytes = Vec::with_capacity(wanted as usize);
        Read::take(&mut self.file, wanted).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != wanted {
            // Somebody else cut the file: what was promised to the client cannot be sent.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= wanted;
        Ok(Bytes::from(bytes))
    }
}

pub(super) struct FileStream {
    key: String,
    state: State,
}

enum State {
    Reading(JoinHandle<(io::Result<Bytes>, Reader)>),
    /// Holds a block that is ready while the next one is not asked for yet.
    Ready(Reader),
    Ended,
}

impl FileStream {
    pub(super) fn new(key: String, reader: Reader) -> Self {
        FileStream {
            key,
            state: State::Ready(reader),
        }
    }
}

fn read_ahead(mut reader: Reader) -> State {
    if reader.left == 0 {
        return State::Ended;
    }
    State::Reading(spawn_blocking(move || (reader.block(), reader)))
}

impl Stream for FileStream {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let (block, state) = match std::mem::replace(&mut self.state, State::Ended) {
            State::Ended => return Poll::Ready(None),
            State::Ready(mut reader) => (
                Ok(reader.first.take().unwrap_or_default()),
                read_ahead(reader),
            ),
            State::Reading(mut task) => match Pin::new(&mut task).poll(cx) {
                Poll::Pending => {
                    self.state = State::Reading(task);
                    return Poll::Pending;
                }
                Poll::Ready(Err(panic)) => (Err(io::Error::other(panic)), State::Ended),
                Poll::Ready(Ok((Err(e), _))) => (Err(e), State::Ended),
                Poll::Ready(Ok((Ok(block), reader))) => (Ok(block), read_ahead(reader)),
            },
        };
        self.state = state;
        Poll::Ready(Some(block.map_err(|e| fact("read", self.key.clone(), e))))
    }
}
