//! How long a client may keep this server waiting: for the bytes of a body, or to take those of an answer.

use std::time::Duration;

use super::settings::Limits;

/// An allowance of waiting time, which bytes earn and waiting uses up.
///
/// Only time in which this server had nothing to do but wait for the client counts, so a slow disk here is nobody's fault
/// but ours. What was earned is capped: a client that was fast may rest, and not for ever.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// Bytes a second that are enough; 0 asks for none.
    rate: u64,
    stall: Duration,
    allowance: Duration,
}

impl Pace {
    /// The allowance begins with one `http.timeouts.stall`, and grows to this many.
    const MOST_STALLS: u32 = 5;

    pub(super) fn new(limits: &Limits) -> Self {
        Pace::of(limits.min_rate, limits.stall_timeout)
    }

    /// `rate` in bytes a second, and how long a wait may be at most.
    pub(super) fn of(rate: u64, stall: Duration) -> Self {
        Pace {
            rate,
            stall,
            allowance: stall,
        }
    }

    /// How long to wait now before the client is given up.
    pub(super) fn patience(&self) -> Duration {
        match self.rate {
            0 => self.stall,
            _ => self.stall.min(self.allowance),
        }
    }

    /// Giving up would be for too many waits, none of which was too long.
    pub(super) fn is_tired(&self) -> bool {
        self.patience() < self.stall
    }

    /// `bytes` went through, after this server had waited for that long.
    pub(super) fn moved(&mut self, bytes: usize, waited: Duration) {
        if self.rate == 0 {
            return;
        }
        let earned = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        let left = self.allowance.saturating_sub(waited);
        self.allowance = left
            .saturating_add(earned)
            .min(self.stall * Self::MOST_STALLS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pace(rate: u64) -> Pace {
        Pace::new(&Limits {
            min_rate: rate,
            stall_timeout: SECOND * 60,
            ..Limits::default()
        })
    }

    /// How long a client holds out that sends `bytes` after each `pause`.
    fn endures(mut pace: Pace, bytes: usize, pause: Duration) -> Option<Duration> {
        let mut time = Duration::ZERO;
        while pace.patience() > pause {
            pace.moved(bytes, pause);
            time += pause;
            if time > SECOND * 1_000_000 {
                return None;
            }
        }
        Some(time)
    }

    #[test]
    fn who_keeps_the_rate_is_never_given_up() {
        for (bytes, pause) in [(1024, 1), (11 * 1024, 10), (1 << 20, 59)] {
            assert_eq!(
                endures(pace(1024), bytes, SECOND * pause),
                None,
                "{bytes} {pause}"
            );
        }
    }

    #[test]
    fn who_does_not_is_given_up_after_the_allowance() {
        let end = endures(pace(1024), 1, SECOND).unwrap();
        assert!(end > SECOND * 50 && end <= SECOND * 61, "{end:?}");
        let end = endures(pace(1024), 512, SECOND).unwrap();
        assert!(end > SECOND * 110 && end <= SECOND * 125, "{end:?}");
        assert_eq!(endures(pace(0), 1, SECOND * 59), None);
        assert_eq!(endures(pace(0), 1, SECOND * 60), Some(Duration::ZERO));
    }

    #[test]
    fn what_was_earned_is_limited() {
        let mut pace = pace(1024);
        pace.moved(usize::MAX, Duration::ZERO);
        assert_eq!((pace.patience(), pace.is_tired()), (SECOND * 60, false));
        let end = endures(pace, 1, SECOND).unwrap();
        assert!(end > SECOND * 200 && end < SECOND * 310, "{end:?}");
    }
}
