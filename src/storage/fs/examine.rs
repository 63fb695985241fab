//! A file read to be checked: from the device, when nobody else needs it, and without a trace in the page cache.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::try_unfold;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use tokio::task::JoinHandle;

use super::super::{ByteStream, Error};
use super::fact;

/// Bytes read at a time: a disk that turns should not have to look for less.
const BLOCK: u64 = 1 << 20;
/// How long the disk has to be left alone before a block is read,
const PAUSE: Duration = Duration::from_millis(50);
/// and for how long that is waited for, for a whole block: whatever else goes on, one is read now and then. For a small
/// file nobody has to wait.
const LONGEST: Duration = Duration::from_secs(1);

/// When content was last read or written for somebody who waits.
pub(super) struct Quiet {
    start: Instant,
    /// In milliseconds since `start`, plus one; 0 is never.
    last: AtomicU64,
}

impl Default for Quiet {
    fn default() -> Self {
        Quiet {
            start: Instant::now(),
            last: AtomicU64::new(0),
        }
    }
}

impl Quiet {
    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    pub(super) fn disturb(&self) {
        self.last.store(self.now() + 1, Ordering::Relaxed);
    }

    /// How long it is still to be waited for.
    fn left(&self) -> Duration {
        match self.last.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            last => {
                PAUSE.saturating_sub(Duration::from_millis(self.now().saturating_sub(last - 1)))
            }
        }
    }

    /// Waits before so many bytes are read.
    async fn wait(&self, bytes: u64) {
        let longest = LONGEST.mul_f64(bytes as f64 / BLOCK as f64);
        let began = Instant::now();
        loop {
            let left = self.left().min(longest.saturating_sub(began.elapsed()));
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }
}

/// The first `len` bytes of `file`, one block ahead of whoever takes them.
pub(super) fn stream(key: String, file: File, len: u64, quiet: Arc<Quiet>) -> ByteStream {
    // What the kernel reads ahead by itself could not be told from what somebody uses. Advice: it may be declined.
    let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM);
    let state = Examined {
        key,
        len,
        quiet,
        at: 0,
        file: Arc::new(file),
        ahead: None,
    };
    Box::pin(try_unfold(state, Examined::next))
}

struct Examined {
    key: String,
    len: u64,
    quiet: Arc<Quiet>,
    /// Where the block after the one ahead begins.
    at: u64,
    file: Arc<File>,
    ahead: Option<Ahead>,
}

/// Ends with whoever reads.
struct Ahead(JoinHandle<io::Result<Bytes>>);

impl Drop for Ahead {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Examined {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, Error> {
        let Some(mut ahead) = self.ahead.take().or_else(|| self.read_ahead()) else {
            return Ok(None);
        };
        let block = (&mut ahead.0)
            .await
            .unwrap_or_else(|e| Err(io::Error::other(e)));
        let block = block.map_err(|e| fact("examine", self.key.clone(), e))?;
        self.ahead = self.read_ahead();
        Ok(Some((block, self)))
    }

    fn read_ahead(&mut self) -> Option<Ahead> {
        let (file, quiet, at) = (self.file.clone(), self.quiet.clone(), self.at);
        let wanted = BLOCK.min(self.len - at);
        if wanted == 0 {
            return None;
        }
        self.at += wanted;
        Some(Ahead(tokio::spawn(async move {
            quiet.wait(wanted).await;
            let read = tokio::task::spawn_blocking(move || block(&file, at, wanted));
            read.await.unwrap_or_else(|e| Err(io::Error::other(e)))
        })))
    }
}

fn block(file: &File, at: u64, wanted: u64) -> io::Result<Bytes> {
    // All of these are advice: a file system that takes none reads as well.
    let forget = || {
        // All of the file, where its end is too far for the machine's numbers (32 bits).
        let (at, wanted) = offset(at).zip(offset(wanted)).unwrap_or((0, 0));
        let _ = posix_fadvise(file, at, wanted, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    };
    let was_in_memory = is_in_memory(file, at);
    forget();
    let mut bytes = vec![0; wanted as usize];
    let read = file.read_exact_at(&mut bytes, at);
    if !was_in_memory {
        forget();
    }
    read.map(|()| Bytes::from(bytes))
}

fn offset(at: u64) -> Option<libc::off_t> {
    libc::off_t::try_from(at).ok()
}

/// Whether the kernel has the page of byte `at` in its memory, since somebody uses it.
#[expect(
    unsafe_code,
    reason = "preadv2 has no safe wrapper in what we depend on"
)]
fn is_in_memory(file: &File, at: u64) -> bool {
    use std::os::fd::AsRawFd as _;
    let Some(at) = offset(at) else {
        return false;
    };
    let mut byte = 0_u8;
    let into = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    // SAFETY: `into` names one byte that outlives the call, and the descriptor is open as long as `file` is borrowed.
    let read = unsafe { libc::preadv2(file.as_raw_fd(), &raw const into, 1, at, libc::RWF_NOWAIT) };
    read == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_checks_waits_for_others_and_not_for_ever() {
        let quiet = Quiet::default();
        let waited = async || {
            let began = Instant::now();
            quiet.wait(BLOCK).await;
            began.elapsed()
        };
        assert!(waited().await < PAUSE, "nobody was here");
        quiet.disturb();
        assert!(waited().await >= PAUSE - Duration::from_millis(1));
        quiet.disturb();
        let busy = async {
            loop {
                quiet.disturb();
                tokio::time::sleep(PAUSE / 5).await;
            }
        };
        tokio::select! {
            () = busy => {}
            waited = waited() => assert!(waited >= LONGEST, "{waited:?}"),
        }
    }
}
