use proptest::prelude::*;

use super::*;
use crate::oci::Algorithm;

const DAY: Duration = Duration::from_secs(86_400);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + DAY * 20_000
}

/// A tag that was pushed and pulled so many days ago.
fn tag(name: &str, pushed: u32, pulled: Option<u32>) -> Candidate {
    Candidate {
        tag: name.parse().unwrap(),
        digest: Algorithm::Sha256.digest(name.as_bytes()),
        pushed: now() - DAY * pushed,
        pulled: pulled.map(|days| now() - DAY * days),
    }
}

fn gone(rules: &[Rule], tags: &[Candidate]) -> Vec<String> {
    let gone = expired(rules, &"team/app".parse().unwrap(), tags, now());
    gone.into_iter().map(|(tag, _)| tag.to_string()).collect()
}

fn patterns<T: std::str::FromStr<Err: std::fmt::Debug>>(texts: &[&str]) -> Vec<T> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn what_nothing_keeps_goes() {
    let tags = [
        tag("pr-1", 40, None),
        tag("pr-2", 30, Some(2)),
        tag("pr-3", 20, None),
        tag("pr-4", 1, None),
        tag("latest", 100, None),
    ];
    let rule = Rule {
        tags: patterns(&["pr-*"]),
        keep_last: Some(1),
        ..Rule::default()
    };
    assert_eq!(
        gone(std::slice::from_ref(&rule), &tags),
        ["pr-1", "pr-2", "pr-3"]
    );
    let more = Rule {
        keep_pushed: Some(DAY * 25),
        keep_pulled: Some(DAY * 7),
        ..rule.clone()
    };
    assert_eq!(gone(std::slice::from_ref(&more), &tags), ["pr-1"]);
    let always = Rule {
        keep: patterns(&["pr-1"]),
        ..more
    };
    assert_eq!(gone(&[always], &tags), [""; 0]);
    let elsewhere = Rule {
        repositories: patterns(&["other/**"]),
        ..rule.clone()
    };
    assert_eq!(gone(&[elsewhere], &tags), [""; 0]);
    let says_nothing = Rule {
        untagged: Some(DAY),
        ..Rule::default()
    };
    assert_eq!(gone(&[says_nothing, rule], &tags), ["pr-1", "pr-2", "pr-3"]);
}

#[test]
fn the_first_rule_about_a_tag_counts() {
    let tags = [tag("pr-1", 40, None), tag("a", 40, None)];
    let keeps = Rule {
        tags: patterns(&["pr-*"]),
        keep_pushed: Some(DAY * 50),
        ..Rule::default()
    };
    let takes = Rule {
        keep_pushed: Some(DAY),
        ..Rule::default()
    };
    assert_eq!(gone(&[keeps, takes], &tags), ["a"]);
}

#[test]
fn the_last_minors_are_counted_as_versions_are() {
    let names = [
        "v1.8.0",
        "v1.9.0",
        "v1.9.1",
        "v1.10.0",
        "v1.10.0-rc.1",
        "v2.0.0-beta",
        "2.0",
        "latest",
        "1.2.3.4",
    ];
    let tags: Vec<Candidate> = names.iter().map(|name| tag(name, 1, None)).collect();
    let rule = |n| Rule {
        keep_minors: Some(n),
        ..Rule::default()
    };
    assert_eq!(gone(&[rule(3)], &tags), ["v1.8.0"]);
    assert_eq!(gone(&[rule(2)], &tags), ["v1.8.0", "v1.9.0", "v1.9.1"]);
    // A preview keeps itself alive, and no release.
    assert_eq!(gone(&[rule(1)], &tags[..6]), ["v1.8.0", "v1.9.0", "v1.9.1"]);
}

#[test]
fn a_clock_that_was_set_back_removes_nothing() {
    let mut future = tag("a", 0, None);
    future.pushed = now() + DAY * 400;
    let rule = Rule {
        keep_pushed: Some(DAY),
        ..Rule::default()
    };
    assert_eq!(gone(&[rule], &[future]), [""; 0]);
}

proptest! {
    #[test]
    fn no_tag_panics_and_versions_are_read(major in 0u64..1000, minor in 0u64..1000, text in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,40}") {
        let _ = version(&text.parse().unwrap());
        let read = version(&format!("v{major}.{minor}").parse().unwrap()).unwrap();
        prop_assert_eq!((read.major, read.minor, read.patch), (major, minor, 0));
    }

    /// More that keeps never removes more, and the newest ones are always kept.
    #[test]
    fn keeping_more_removes_less(ages in proptest::collection::vec(0u32..100, 1..30), n in 1usize..10, days in 0u32..100) {
        let tags: Vec<Candidate> = ages.iter().enumerate().map(|(i, age)| tag(&format!("t{i}"), *age, None)).collect();
        let few = Rule { keep_last: Some(n), ..Rule::default() };
        let more = Rule { keep_pushed: Some(DAY * days), ..few.clone() };
        let (few, more) = (gone(&[few], &tags), gone(&[more], &tags));
        prop_assert_eq!(few.len(), tags.len().saturating_sub(n));
        prop_assert!(more.iter().all(|tag| few.contains(tag)));
    }
}
