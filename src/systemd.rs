//! The service manager: sockets that it hands over, readiness that it waits for, and its watchdog. Without systemd every
//! function here does nothing.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

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

/// The service serves. `status` is what `systemctl status` shows.
pub(crate) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Followed by [`ready`] when it is done.
pub(crate) fn reloading() {
    let status = NotifyState::Status("reading the certificates again");
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now, status]),
        Err(_) => notify(&[NotifyState::Reloading, status]),
    }
}

pub(crate) fn stopping(status: &str) {
    notify(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// What `systemctl status` shows.
pub(crate) fn status(status: &str) {
    notify(&[NotifyState::Status(status)]);
}

/// After how long without [`alive`] systemd kills the process. None without a watchdog.
pub(crate) fn watchdog_limit() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

pub(crate) fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// As long as this lives, and for `at_most`, systemd waits for a start or an end that takes longer than the unit allows
/// (`EXTEND_TIMEOUT_USEC`, sd_notify(3)). A thread of its own says so: what takes long may keep the others from it.
#[must_use]
pub(crate) struct Patience {
    /// Closed when this is dropped, which ends the thread.
    _alive: Option<mpsc::Sender<()>>,
}

impl Patience {
    /// What each message asks for, and how often it is said.
    const STEP: Duration = Duration::from_secs(30);
    const EVERY: Duration = Duration::from_secs(10);

    pub(crate) fn ask(at_most: Duration) -> Self {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Patience { _alive: None };
        }
        let (alive, over) = mpsc::channel();
        let until = Instant::now() + at_most;
        let extend = move || {
            loop {
                notify(&[NotifyState::ExtendTimeoutUsec(Self::STEP.as_micros() as u32)]);
                match over.recv_timeout(Self::EVERY) {
                    Err(mpsc::RecvTimeoutError::Timeout) if Instant::now() < until => {}
                    _ => return,
                }
            }
        };
        let thread = thread::Builder::new()
            .name("patience".to_owned())
            .spawn(extend);
        Patience {
            _alive: thread.is_ok().then_some(alive),
        }
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log::debug!("cannot tell the service manager: {error}");
    }
}
