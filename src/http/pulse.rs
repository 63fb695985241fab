//! Whether every thread still turns: a thread that is stuck in a call answers nothing, though the others do.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The beats of all threads that [`Pulse::join`]ed.
#[derive(Clone)]
pub(crate) struct Pulse(Arc<Inner>);

struct Inner {
    start: Instant,
    /// When each thread last turned, in milliseconds since the start.
    beats: Mutex<Vec<Arc<AtomicU64>>>,
}

thread_local! {
    static JOINED: Cell<bool> = const { Cell::new(false) };
}

impl Pulse {
    const BEAT: Duration = Duration::from_secs(2);

    pub(super) fn new() -> Self {
        Pulse(Arc::new(Inner {
            start: Instant::now(),
            beats: Mutex::default(),
        }))
    }

    /// To be called on each thread of the server; later calls do nothing.
    pub(super) fn join(&self) {
        if JOINED.replace(true) {
            return;
        }
        let beat = Arc::new(AtomicU64::new(self.now()));
        self.0
            .beats
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(beat.clone());
        let pulse = self.clone();
        actix_rt::spawn(async move {
            loop {
                tokio::time::sleep(Self::BEAT).await;
                beat.store(pulse.now(), Ordering::Relaxed);
            }
        });
    }

    /// No thread has been stuck for longer than `limit`.
    pub(crate) fn is_alive(&self, limit: Duration) -> bool {
        let oldest = self
            .now()
            .saturating_sub((limit + Self::BEAT).as_millis() as u64);
        let beats = self.0.beats.lock().unwrap_or_else(PoisonError::into_inner);
        beats
            .iter()
            .all(|beat| beat.load(Ordering::Relaxed) >= oldest)
    }

    fn now(&self) -> u64 {
        self.0.start.elapsed().as_millis() as u64
    }
}
