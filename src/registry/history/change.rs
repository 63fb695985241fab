//! The lines of a tag's history.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::oci::Digest;

/// What happened to a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum What {
    Pushed,
    /// By `undo`.
    Restored,
    Deleted,
}

/// One line of a tag's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) at: SystemTime,
    /// What the tag pointed to from then on; of a delete: until then.
    pub(crate) digest: Digest,
    pub(crate) what: What,
}

/// The same on the disk.
#[derive(Serialize, Deserialize)]
struct Line {
    /// Milliseconds since 1970.
    at: u64,
    digest: String,
    what: What,
}

impl Change {
    pub(super) fn to_line(&self) -> String {
        let line = Line {
            at: to_millis(self.at),
            digest: self.digest.to_string(),
            what: self.what,
        };
        serde_json::to_string(&line).map_or_else(|_| String::new(), |line| line + "\n")
    }

    pub(super) fn parse(line: &str) -> Option<Self> {
        let line: Line = serde_json::from_str(line).ok()?;
        Some(Change {
            at: from_millis(line.at),
            digest: line.digest.parse().ok()?,
            what: line.what,
        })
    }
}

pub(in super::super) fn to_millis(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What no clock can show is the latest that one does.
pub(in super::super) fn from_millis(millis: u64) -> SystemTime {
    let latest = Duration::from_secs(253_402_300_799); // the year 9999
    UNIX_EPOCH + Duration::from_millis(millis).min(latest)
}

/// By time, each once; what the tag points to now comes last, whatever the clock said then.
pub(super) fn in_order(mut changes: Vec<Change>, now: Option<Digest>) -> Vec<Change> {
    changes.sort_by_key(|change| to_millis(change.at));
    let mut ordered: Vec<Change> = Vec::with_capacity(changes.len());
    for change in changes {
        // The layout's note on what was restored is some moments younger than ours, and what was noted at a delete may
        // still lie where distribution put it.
        let close = |a: SystemTime| {
            let apart = to_millis(change.at).abs_diff(to_millis(a));
            apart < 2000
        };
        let is_known = ordered.iter().any(|known| {
            let same = known.digest == change.digest && close(known.at);
            same && change.what == What::Pushed && known.what != What::Deleted
        });
        if !is_known {
            ordered.push(change);
        }
    }
    if let Some(now) = now
        && let Some(at) = ordered
            .iter()
            .rposition(|c| c.digest == now && c.what != What::Deleted)
    {
        let last = ordered.remove(at);
        ordered.push(last);
    }
    ordered
}

/// When each manifest was last replaced or deleted; `None` for what is there now.
pub(in super::super) fn ends(changes: &[Change]) -> Vec<(Digest, Option<SystemTime>)> {
    let mut ends: Vec<(Digest, Option<SystemTime>)> = Vec::new();
    for (i, change) in changes.iter().enumerate() {
        let end = match (change.what, changes.get(i + 1)) {
            (What::Deleted, _) => Some(change.at),
            (_, Some(next)) => Some(next.at.max(change.at)),
            (_, None) => None,
        };
        ends.retain(|(digest, _)| *digest != change.digest);
        ends.push((change.digest, end));
    }
    ends
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::oci::Algorithm;

    fn digest(n: u8) -> Digest {
        Algorithm::Sha256.digest(&[n])
    }

    fn change(at: u64, n: u8, what: What) -> Change {
        Change {
            at: from_millis(at * 10_000),
            digest: digest(n),
            what,
        }
    }

    #[test]
    fn what_a_tag_points_to_now_is_last_and_has_no_end() {
        use What::{Deleted, Pushed, Restored};
        let changes = vec![
            change(3, 3, Pushed),
            change(1, 1, Pushed),
            change(2, 1, Deleted),
            change(9, 2, Pushed),
        ];
        let ordered = in_order(changes, Some(digest(3)));
        let digests: Vec<_> = ordered.iter().map(|c| c.digest).collect();
        assert_eq!(digests, [digest(1), digest(1), digest(2), digest(3)]);
        let at = |n: u64| Some(from_millis(n * 10_000));
        assert_eq!(
            ends(&ordered),
            [(digest(1), at(2)), (digest(2), at(9)), (digest(3), None)]
        );
        // The same note twice, of the layout and of ours.
        let mut twice = vec![change(5, 1, Restored), change(5, 1, Pushed)];
        twice[1].at += Duration::from_millis(30);
        assert_eq!(in_order(twice, Some(digest(1))).len(), 1);
    }

    proptest! {
        #[test]
        fn lines_are_read_as_they_were_written(at in any::<u64>(), n in any::<u8>(), what in 0..3) {
            let what = [What::Pushed, What::Restored, What::Deleted][what as usize];
            let change = Change { at: from_millis(at), digest: digest(n), what };
            prop_assert_eq!(Change::parse(&change.to_line()), Some(change));
        }

        #[test]
        fn no_line_panics(line in any::<String>()) {
            let _ = Change::parse(&line);
        }
    }
}
