//! Content that a client was told is here, and may be about to count on: a HEAD or GET that found it, a mount, an upload
//! that ended, a manifest that refers to it.
//!
//! Garbage collection leaves it alone for the grace, and at least until the collection under way ends. How long ago that
//! was is told by the time this process has run, never by the clock on the wall, which jumps on a machine without a clock
//! battery: what an earlier process may have told its clients is older than the grace once this one has run that long.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::marks::{Mark, mark};
use crate::oci::Digest;

/// How many digests are remembered at the most, at some 50 bytes each. When half as many are within their grace, all are
/// forgotten, and as after a start nothing is removed until the grace has passed.
const REMEMBERED: usize = 256 * 1024;
/// Above this many, those whose grace has passed are looked for.
const FEW: usize = 1024;

pub(super) struct Pins {
    grace: Duration,
    state: Mutex<State>,
    /// A sweep has ended.
    swept: Notify,
}

struct State {
    vouched: HashMap<Mark, Instant>,
    /// Since when nothing that was vouched for has been forgotten.
    since: Instant,
    /// When the collection under way began, or the last one did.
    collection: Option<Instant>,
    /// What is being removed just now.
    sweeping: Vec<Mark>,
    look_at: usize,
}

/// Content that may be removed: as long as this lives, nobody vouches for it.
pub(super) struct Condemned<'a> {
    pins: &'a Pins,
    what: Mark,
}

impl Pins {
    pub(super) fn new(grace: Duration) -> Self {
        let state = State {
            vouched: HashMap::new(),
            since: Instant::now(),
            collection: None,
            sweeping: Vec::new(),
            look_at: FEW,
        };
        Pins {
            grace,
            state: Mutex::new(state),
            swept: Notify::new(),
        }
    }

    pub(super) fn grace(&self) -> Duration {
        self.grace
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called before the look that finds the content, or is repeated after: what is found then stays. Waits for the
    /// removal under way, if it is of this.
    pub(super) async fn vouch(&self, digest: &Digest) {
        let what = mark(digest);
        loop {
            let mut swept = std::pin::pin!(self.swept.notified());
            // From here on it hears of a sweep that ends, so that none is missed between the look and the wait.
            swept.as_mut().enable();
            {
                let mut state = self.state();
                if !state.sweeping.contains(&what) {
                    state.vouch(what, self.grace);
                    return;
                }
            }
            swept.await;
        }
    }

    /// A collection begins: what is vouched for from now on stays until it has ended.
    pub(super) fn begin_collection(&self) {
        self.state().collection = Some(Instant::now());
    }

    /// How long to wait until what nobody vouches for may be removed.
    pub(super) fn not_before(&self, grace: Duration) -> Duration {
        grace.saturating_sub(self.state().since.elapsed())
    }

    /// The right to remove content, unless somebody was told of it within `grace`. `alone` is true where no process serves
    /// the tree: then no process has to have run that long.
    pub(super) fn condemn(
        &self,
        digest: &Digest,
        grace: Duration,
        alone: bool,
    ) -> Option<Condemned<'_>> {
        let what = mark(digest);
        let mut state = self.state();
        let is_pinned = state
            .vouched
            .get(&what)
            .is_some_and(|when| state.holds(*when, grace));
        let is_early = !alone && state.holds(state.since, grace);
        if is_pinned || is_early {
            return None;
        }
        state.sweeping.push(what);
        Some(Condemned { pins: self, what })
    }
}

impl State {
    fn vouch(&mut self, what: Mark, grace: Duration) {
        self.vouched.insert(what, Instant::now());
        if self.vouched.len() < self.look_at {
            return;
        }
        let mut vouched = std::mem::take(&mut self.vouched);
        vouched.retain(|_, when| self.holds(*when, grace));
        if vouched.len() > REMEMBERED / 2 {
            vouched = HashMap::new();
            self.since = Instant::now();
        }
        self.look_at = FEW.max(vouched.len() * 2);
        self.vouched = vouched;
    }

    /// Whether what was said at `when` still counts.
    fn holds(&self, when: Instant, grace: Duration) -> bool {
        when.elapsed() < grace || self.collection.is_some_and(|began| when > began)
    }
}

impl Drop for Condemned<'_> {
    fn drop(&mut self) {
        let mut state = self.pins.state();
        if let Some(at) = state.sweeping.iter().position(|what| *what == self.what) {
            state.sweeping.swap_remove(at);
        }
        drop(state);
        self.pins.swept.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    fn digest(n: u32) -> Digest {
        Algorithm::Sha256.digest(&n.to_be_bytes())
    }

    #[tokio::test]
    async fn what_is_vouched_for_stays_for_the_grace() {
        let pins = Pins::new(Duration::from_millis(30));
        assert!(
            pins.condemn(&digest(1), pins.grace(), false).is_none(),
            "it just started"
        );
        assert!(pins.condemn(&digest(1), pins.grace(), true).is_some());
        tokio::time::sleep(pins.not_before(pins.grace())).await;
        pins.vouch(&digest(1)).await;
        assert!(pins.condemn(&digest(1), pins.grace(), false).is_none());
        assert!(pins.condemn(&digest(2), pins.grace(), false).is_some());
        tokio::time::sleep(Duration::from_millis(31)).await;
        assert!(pins.condemn(&digest(1), pins.grace(), false).is_some());
    }

    #[tokio::test]
    async fn without_a_grace_it_stays_until_the_collection_ends() {
        let pins = Pins::new(Duration::ZERO);
        pins.vouch(&digest(1)).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        pins.begin_collection();
        assert!(pins.condemn(&digest(1), pins.grace(), false).is_some());
        tokio::time::sleep(Duration::from_millis(1)).await;
        pins.vouch(&digest(1)).await;
        assert!(pins.condemn(&digest(1), pins.grace(), false).is_none());
        tokio::time::sleep(Duration::from_millis(1)).await;
        pins.begin_collection();
        assert!(pins.condemn(&digest(1), pins.grace(), false).is_some());
    }

    #[tokio::test]
    async fn who_vouches_waits_for_the_sweep_under_way() {
        let pins = Pins::new(Duration::ZERO);
        let condemned = pins.condemn(&digest(1), pins.grace(), true).unwrap();
        pins.vouch(&digest(2)).await;
        let digest = digest(1);
        let mut vouching = std::pin::pin!(pins.vouch(&digest));
        let soon = tokio::time::timeout(Duration::from_millis(5), &mut vouching);
        assert!(soon.await.is_err());
        drop(condemned);
        vouching.await;
    }

    #[tokio::test]
    async fn more_than_can_be_remembered_is_as_after_a_start() {
        let pins = Pins::new(Duration::from_secs(3600));
        let started = pins.state().since;
        for n in 0..REMEMBERED as u32 + 1 {
            pins.vouch(&digest(n)).await;
            assert!(pins.state().vouched.len() <= REMEMBERED);
        }
        assert!(pins.state().since > started);
    }
}
