//! Early write-back: the disk works while the upload still arrives, so that the final `fdatasync` finds little to do.

use std::fs::File;

/// How much is written before the kernel is asked to start on it, in bytes: large enough for a disk to stream, small
/// enough that sixteen uploads at once leave a final sync short.
#[cfg(target_os = "linux")]
const STEP: u64 = 8 * 1024 * 1024;

pub(super) struct WriteBack {
    #[cfg_attr(not(target_os = "linux"), expect(dead_code))]
    started: u64,
}

impl WriteBack {
    pub(super) fn new(at: u64) -> Self {
        WriteBack { started: at }
    }

    /// To be told of each write; `len` is how long the file is now.
    #[cfg(target_os = "linux")]
    pub(super) fn wrote(&mut self, file: &File, len: u64) {
        use std::os::fd::AsRawFd;

        let new = len.saturating_sub(self.started);
        let (Ok(offset), Ok(count)) = (i64::try_from(self.started), i64::try_from(new)) else {
            return;
        };
        if new < STEP {
            return;
        }
        // SAFETY: takes a descriptor that `file` keeps open and three integers; touches no memory of ours. Its answer
        // does not matter: what cannot be started early is done by the final sync.
        #[allow(unsafe_code, reason = "neither std nor nix wraps sync_file_range")]
        unsafe {
            libc::sync_file_range(file.as_raw_fd(), offset, count, libc::SYNC_FILE_RANGE_WRITE);
        }
        self.started = len;
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn wrote(&mut self, _: &File, _: u64) {}
}
