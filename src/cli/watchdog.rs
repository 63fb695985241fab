//! Keeps systemd's watchdog quiet for as long as all is well.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::http::Pulse;
use crate::registry::{Current, Error};
use crate::systemd;

/// Tells systemd that all is well as long as it is: this thread and those of the server turn, and the storage answers.
/// Without that for `limit`, systemd kills the process and starts another. `status` is what it shows while all is well.
pub(super) async fn feed(limit: Duration, status: &str, registry: Current, pulse: Pulse) {
    // In the worst case that is still well, one message comes three quarters of the limit after the one before.
    let (pause, patience) = (limit / 4, limit / 2);
    let mut told = None;
    loop {
        sleep(pause).await;
        let mut answer = pin!(async { registry.get()?.probe().await });
        // One question at a time: each that is not answered keeps a thread.
        let answer = loop {
            match timeout(patience, &mut answer).await {
                Ok(answer) => break answer,
                Err(_) => tell(&mut told, "the storage does not answer".to_owned()),
            }
        };
        match answer {
            // A drive that is away is no reason to be killed: the next process would not find it either. Whoever keeps the
            // drive says it.
            Err(Error::Away(_)) if pulse.is_alive(patience) => systemd::alive(),
            Ok(()) if pulse.is_alive(patience) => {
                if told.take().is_some() {
                    log::info!("watchdog: all is well again");
                    systemd::status(status);
                }
                systemd::alive();
            }
            Ok(()) | Err(Error::Away(_)) => {
                tell(&mut told, "a thread of the server is stuck".to_owned())
            }
            Err(error) => {
                let error = anyhow::Error::from(error);
                tell(&mut told, format!("the storage fails: {error:#}"));
            }
        }
    }
}

/// Says once what is wrong, in the log and to systemd.
fn tell(told: &mut Option<String>, what: String) {
    if told.as_ref() != Some(&what) {
        log::error!("watchdog: {what}");
        systemd::status(&what);
        *told = Some(what);
    }
}
