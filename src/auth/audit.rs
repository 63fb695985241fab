//! The audit log: who did what from where, and whether they could. Lines of the target `audit`, with `name=value` members
//! for the journal and its kin: `journalctl -u registry | grep audit`.

use super::identity::Identity;
use super::place::Place;

/// The target of its lines.
pub(crate) const TARGET: &str = "audit";

/// One thing that was done, or tried. `what` names it, `result` is `ok` or the reason why not.
pub(crate) fn record(who: &str, from: &Place, what: &str, result: &str) {
    let who = if who.is_empty() { "anonymous" } else { who };
    let from = from.to_string();
    let level = if result == "ok" {
        log::Level::Info
    } else {
        log::Level::Warn
    };
    log::log!(target: TARGET, level, who, from = from.as_str(), result; "{what}");
}

/// The same of somebody who was identified.
pub(crate) fn record_of(identity: &Identity, from: &Place, what: &str, result: &str) {
    record(&identity.name(), from, what, result);
}
