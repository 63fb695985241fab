//! How fast work goes on that nobody waits for.

use std::time::Duration;

/// Rests are not shorter, so that many small steps do not cost a timer each.
const SHORTEST: Duration = Duration::from_millis(4);
/// However long a step took.
const LONGEST: Duration = Duration::from_secs(2);

/// Rests as long as it worked: half of what a slow disk can do is left to requests, and on a fast one it does not matter.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    worked: Duration,
}

impl Pace {
    /// To be called after each step with how long it took.
    pub(crate) async fn rest(&mut self, took: Duration) {
        self.worked += took;
        if self.worked >= SHORTEST {
            tokio::time::sleep(self.worked.min(LONGEST)).await;
            self.worked = Duration::ZERO;
        }
    }
}
