//! Which tags rules keep. Pure: what is known of tags goes in, those that no rule keeps come out.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, SystemTime};

use semver::Version;

use super::Registry;
use crate::oci::{Digest, RepoName, RepoPattern, Tag, TagPattern};

/// `retention`: what is removed by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Retention {
    /// How often to look. Default 24 h.
    pub(crate) interval: Duration,
    /// Of those that are about a tag the first counts. Default none: nothing is removed.
    pub(crate) rules: Vec<Rule>,
}

impl Default for Retention {
    fn default() -> Self {
        Retention {
            interval: Duration::from_secs(24 * 3600),
            rules: Vec::new(),
        }
    }
}

/// A tag that is kept by nothing here goes, if anything here can keep one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    /// None: all.
    pub(crate) repositories: Vec<RepoPattern>,
    /// None: all.
    pub(crate) tags: Vec<TagPattern>,
    /// Keep these whatever else.
    pub(crate) keep: Vec<TagPattern>,
    /// Keep so many that were pushed last.
    pub(crate) keep_last: Option<usize>,
    /// Keep those that were pushed within this.
    pub(crate) keep_pushed: Option<Duration>,
    /// Keep those that were pulled within this.
    pub(crate) keep_pulled: Option<Duration>,
    /// Keep the versions of so many latest minors (Semantic Versioning 2.0.0), and what is no version.
    pub(crate) keep_minors: Option<usize>,
    /// Remove manifests without a tag after this time.
    pub(crate) untagged: Option<Duration>,
}

/// What is known of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) tag: Tag,
    pub(super) digest: Digest,
    pub(super) pushed: SystemTime,
    /// As far as it was noted; at the earliest when noting began.
    pub(super) pulled: Option<SystemTime>,
}

impl Rule {
    pub(super) fn is_about(&self, repo: &RepoName) -> bool {
        self.repositories.is_empty() || self.repositories.iter().any(|p| p.matches(repo))
    }

    fn is_about_tag(&self, tag: &Tag) -> bool {
        self.tags.is_empty() || self.tags.iter().any(|pattern| pattern.matches(tag))
    }

    /// Whether it can tell which tags to keep: with patterns of names alone it would be a delete.
    pub(crate) fn is_about_tags(&self) -> bool {
        self.keep_last.is_some()
            || self.keep_pushed.is_some()
            || self.keep_pulled.is_some()
            || self.keep_minors.is_some()
    }
}

impl Registry {
    pub(super) fn retention_rules(&self) -> impl Iterator<Item = &Rule> {
        self.settings().retention.rules.iter()
    }
}

/// The tags that go. What a clock that jumped calls the future is young.
pub(super) fn expired(
    rules: &[Rule],
    repo: &RepoName,
    tags: &[Candidate],
    now: SystemTime,
) -> Vec<(Tag, Digest)> {
    let mut left: Vec<&Candidate> = tags.iter().collect();
    let mut expired = Vec::new();
    let rules = rules
        .iter()
        .filter(|rule| rule.is_about(repo) && rule.is_about_tags());
    for rule in rules {
        let (mut mine, others): (Vec<&Candidate>, Vec<&Candidate>) =
            left.into_iter().partition(|c| rule.is_about_tag(&c.tag));
        left = others;
        mine.retain(|c| !rule.keep.iter().any(|pattern| pattern.matches(&c.tag)));
        let kept = kept(rule, &mine, now);
        let gone = mine.into_iter().filter(|c| !kept.contains(&c.tag));
        expired.extend(gone.map(|c| (c.tag.clone(), c.digest)));
    }
    expired.sort();
    expired
}

fn kept<'a>(rule: &Rule, tags: &[&'a Candidate], now: SystemTime) -> HashSet<&'a Tag> {
    let mut kept = HashSet::new();
    let is_within =
        |at: SystemTime, span: Duration| now.duration_since(at).map_or(true, |age| age < span);
    if let Some(n) = rule.keep_last {
        let mut newest = tags.to_vec();
        newest.sort_by_key(|c| (Reverse(c.pushed), c.tag.clone()));
        kept.extend(newest.into_iter().take(n).map(|c| &c.tag));
    }
    if let Some(span) = rule.keep_pushed {
        kept.extend(
            tags.iter()
                .filter(|c| is_within(c.pushed, span))
                .map(|c| &c.tag),
        );
    }
    if let Some(span) = rule.keep_pulled {
        let used = |c: &&&Candidate| {
            let at = c.pulled.map_or(c.pushed, |pulled| pulled.max(c.pushed));
            is_within(at, span)
        };
        kept.extend(tags.iter().filter(used).map(|c| &c.tag));
    }
    if let Some(n) = rule.keep_minors {
        let mut minors: BTreeMap<(u64, u64), Vec<&Tag>> = BTreeMap::new();
        let mut released = HashSet::new();
        for candidate in tags {
            match version(&candidate.tag) {
                None => _ = kept.insert(&candidate.tag),
                Some(version) => {
                    let minor = (version.major, version.minor);
                    minors.entry(minor).or_default().push(&candidate.tag);
                    if version.pre.is_empty() {
                        released.insert(minor);
                    }
                }
            }
        }
        let mut counted = 0;
        // Of a minor that was not released yet all previews stay, and it does not count.
        for (minor, tags) in minors.into_iter().rev() {
            if counted == n {
                break;
            }
            counted += usize::from(released.contains(&minor));
            kept.extend(tags);
        }
    }
    kept
}

/// `1.2.3`, `v1.2.3-rc.1`, and shorter ones: `1.2` stands for `1.2.0`.
fn version(tag: &Tag) -> Option<Version> {
    let text = tag.as_str();
    let text = text.strip_prefix('v').unwrap_or(text);
    let (numbers, pre) = match text.split_once('-') {
        Some((numbers, pre)) => (numbers, format!("-{pre}")),
        None => (text, String::new()),
    };
    let missing = match numbers.split('.').count() {
        1 => ".0.0",
        2 => ".0",
        _ => "",
    };
    Version::parse(&format!("{numbers}{missing}{pre}")).ok()
}

#[cfg(test)]
mod tests;
