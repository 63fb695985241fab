//! The service manager: sockets that it hands over, readiness that it waits for, and its watchdog. Without systemd every
//! function here does nothing.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::time::Duration;

use sd_notify::NotifyState;

/// The sockets of socket activation, with the names of their units' `FileDescriptorName=`. To be called once, at start.
///
/// # Errors
/// When the variables of socket activation make no sense.
pub(crate) fn inherited_sockets() -> io::Result<Vec<(OwnedFd, String)>> {
    let handed = sd_notify::listen_fds_with_names()?;
    #[expect(
        unsafe_code,
        reason = "a number becomes a descriptor; the standard library has no safe way for it"
    )]
    // SAFETY: LISTEN_PID says that the service manager opened these descriptors for this very process, and this is the
    // one place that takes them.
    let own = |(fd, name)| (unsafe { OwnedFd::from_raw_fd(fd) }, name);
    Ok(handed.map(own).collect())
}

pub(crate) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Followed by [`ready`] when it is done.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

pub(crate) fn stopping(status: &str) {
    notify(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// What `systemctl status` shows.
pub(crate) fn status(status: &str) {
    notify(&[NotifyState::Status(status)]);
}

/// How often to call [`alive`]: twice in the time after which systemd kills the process. None without a watchdog.
pub(crate) fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

pub(crate) fn alive() {
    notify(&[NotifyState::Watchdog]);
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log::debug!("cannot tell the service manager: {error}");
    }
}
