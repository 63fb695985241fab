//! The rules as a table: who, from where, what, and the answer.

use std::sync::Arc;

use super::access::{Access, Action, Permission, Permissions};
use super::identity::{Grant, Identity, Subject};
use super::place::{Hop, Network, NetworkError, Place};
use super::rules::{Decision, Rules};
use super::settings::RuleSettings;
use crate::oci::RepoName;

fn rule(text: &str) -> RuleSettings {
    // `who; from; repositories; +allow` or `-deny`, lists by commas.
    let parts: Vec<&str> = text.split(';').map(str::trim).collect();
    let list = |text: &str| -> Vec<String> {
        let items = text.split(',').map(str::trim).filter(|t| !t.is_empty());
        items.map(str::to_owned).collect()
    };
    let [who, from, repositories, effect] = parts[..] else {
        panic!("four parts: {text}")
    };
    let (allow, deny) = match effect.split_at(1) {
        ("+", allow) => (list(allow), Vec::new()),
        (_, deny) => (Vec::new(), list(deny)),
    };
    RuleSettings {
        who: list(who),
        from: list(from),
        repositories: list(repositories),
        allow,
        deny,
    }
}

fn rules(texts: &[&str]) -> Rules {
    let settings: Vec<RuleSettings> = texts.iter().map(|text| rule(text)).collect();
    Rules::parse(&settings).unwrap()
}

fn user(name: &str, groups: &[&str]) -> Identity {
    Identity::of(Subject::User {
        name: name.into(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
    })
}

fn grant(pattern: &str, permissions: &[Permission]) -> Grant {
    Grant {
        repositories: (!pattern.is_empty()).then(|| pattern.parse().unwrap()),
        permissions: permissions.iter().copied().collect(),
    }
}

fn robot(name: &str, scope: &[Grant]) -> Identity {
    Identity::of(Subject::Robot {
        name: name.into(),
        scope: scope.into(),
    })
}

fn at(address: &str) -> Place {
    Place::new(Hop::Address(address.parse().unwrap()))
}

fn name(text: &str) -> RepoName {
    text.parse().unwrap()
}

const ACTIONS: [(char, Action); 7] = [
    ('v', Action::Ping),
    ('c', Action::Catalog),
    ('m', Action::Metrics),
    ('g', Action::Pull),
    ('p', Action::Push),
    ('d', Action::Delete),
    ('h', Action::Public),
];

/// A letter for each action that is allowed: pin[g], [c]atalog, [m]etrics, [g]et, [p]ush, [d]elete, [h]ome.
fn allowed(rules: &Rules, identity: &Identity, place: &Place, repo: &str) -> String {
    let repo = name(repo);
    let may = |action: Action| {
        let is_of_repository = action
            .permission()
            .is_some_and(Permission::is_of_repository);
        let access = Access {
            repository: is_of_repository.then_some(&repo),
            action,
            also_pull: None,
        };
        rules.permits(identity, place, &access).is_allowed()
    };
    ACTIONS
        .into_iter()
        .filter(|(_, action)| may(*action))
        .map(|(letter, _)| letter)
        .collect()
}

#[test]
fn who_may_do_what_from_where() {
    let anonymous = Identity::ANONYMOUS;
    let (alice, bob) = (user("alice", &["team"]), user("bob", &[]));
    let ci = robot(
        "ci",
        &[grant("team/**", &[Permission::Pull, Permission::Push])],
    );
    let build = Identity::of(Subject::Certificate {
        name: "build-7".into(),
    });
    let (lan, loopback, world) = (at("192.168.1.5"), at("127.0.0.1"), at("203.0.113.9"));
    let unix = Place::new(Hop::Own(None));
    let own = Place::new(Hop::Own(Some("203.0.113.1".parse().unwrap())));

    let open = Rules::open();
    let of_users = Rules::of_users();
    let packaged = rules(&[
        "anyone; private; ; +pull, push, list",
        "users; private; ; +all",
    ]);
    let team = rules(&[
        "anyone; ; secret/**; -all",
        "group:team; private; team/**; +push, delete",
        "robots; 192.168.1.0/24; ; +push",
        "certificate:build-7; ; builds/*; +pull",
        "users; ; ; +pull, list",
        "bob; loopback; ; +admin, delete",
    ]);
    for (rules, identity, place, repo, expected) in [
        (&open, &anonymous, &lan, "a", "vcmgph"),
        (&open, &anonymous, &loopback, "a", "vcmgpdh"),
        (&open, &anonymous, &unix, "a", "vcmgpdh"),
        (&open, &anonymous, &own, "a", "vcmgpdh"),
        (&open, &anonymous, &world, "a", "h"),
        (&of_users, &anonymous, &loopback, "a", "h"),
        (&of_users, &bob, &world, "a/b", "vcmgpdh"),
        (&of_users, &build, &lan, "a", "h"),
        (&of_users, &ci, &world, "team/a", "vgph"),
        (&of_users, &ci, &world, "a", "vh"),
        (&packaged, &anonymous, &lan, "a", "vcmgph"),
        (&packaged, &anonymous, &world, "a", "h"),
        (&packaged, &bob, &lan, "a", "vcmgpdh"),
        (&packaged, &bob, &world, "a", "h"),
        (&packaged, &ci, &lan, "a", "vh"),
        (&packaged, &ci, &lan, "team/a", "vgph"),
        (&team, &anonymous, &lan, "team/a", "h"),
        (&team, &alice, &lan, "team/a", "vcmgpdh"),
        (&team, &alice, &lan, "team", "vcmgh"),
        (&team, &alice, &world, "team/a", "vcmgh"),
        (&team, &alice, &lan, "secret/a", "vcmh"),
        (&team, &bob, &lan, "team/a", "vcmgh"),
        (&team, &bob, &loopback, "team/a", "vcmgdh"),
        (&team, &bob, &loopback, "secret/a", "vcmh"),
        (&team, &ci, &lan, "team/a", "vgph"),
        (&team, &ci, &lan, "other", "vh"),
        (&team, &ci, &at("192.168.2.5"), "team/a", "h"),
        (&team, &build, &world, "builds/x", "vgh"),
        (&team, &build, &world, "builds/x/y", "vh"),
        (&team, &build, &world, "team/a", "vh"),
    ] {
        assert_eq!(
            allowed(rules, identity, place, repo),
            expected,
            "{identity:?} from {place} on {repo} by {rules:#?}"
        );
    }
}

#[test]
fn no_rule_is_no_permission() {
    let none = rules(&[]);
    for identity in [Identity::ANONYMOUS, user("alice", &["admin"])] {
        assert_eq!(allowed(&none, &identity, &at("127.0.0.1"), "a"), "h");
    }
    assert!(none.shuts_out(&at("127.0.0.1")));
}

/// A claim in a header that nobody vouches for takes rights away, and gives none.
#[test]
fn forged_addresses_only_take_away() {
    let claiming = |peer: &str, claimed: &[&str]| {
        let hop = |text: &str| match text {
            "unknown" => Hop::Unknown,
            text => Hop::Address(text.parse().unwrap()),
        };
        Place::claiming(hop(peer), claimed.iter().map(|text| hop(text)).collect())
    };
    let rules = rules(&[
        "anyone; 10.66.0.0/16; ; -push",
        "anyone; private; ; +pull, push",
    ]);
    for (place, expected) in [
        (claiming("10.0.0.1", &[]), "vgph"),
        (claiming("10.0.0.1", &["192.168.1.1"]), "vgph"),
        // The world, through a proxy that this server was not told about.
        (claiming("127.0.0.1", &["203.0.113.9"]), "h"),
        (claiming("127.0.0.1", &["unknown"]), "h"),
        // The world claims to be at home.
        (claiming("203.0.113.9", &["127.0.0.1"]), "h"),
        // Out of a network that a rule denies.
        (claiming("10.66.0.1", &["10.0.0.1"]), "vgh"),
        (claiming("10.0.0.1", &["10.66.0.1"]), "vgh"),
    ] {
        assert_eq!(
            allowed(&rules, &Identity::ANONYMOUS, &place, "a"),
            expected,
            "{place}"
        );
    }
}

#[test]
fn a_token_takes_away_and_gives_nothing() {
    let rules = rules(&["alice; ; ; +pull, push", "anonymous; ; public/*; +pull"]);
    let with = |subject: Identity, grants: &[Grant]| Identity {
        token: Some(Arc::from(grants)),
        ..subject
    };
    let everything = [grant("**", &Permission::ALL)];
    let place = at("203.0.113.9");
    let decide = |identity: &Identity, repo: &str, permission| {
        let repo = name(repo);
        match rules.decide(identity, &place, Some(&repo), permission) {
            Decision::Allowed(_) => "allowed",
            Decision::Denied(_) => "denied",
            Decision::BeyondToken => "beyond",
        }
    };
    use Permission::{Delete, Pull, Push};
    let alice = with(user("alice", &[]), &[grant("a", &[Pull])]);
    assert_eq!(decide(&alice, "a", Pull), "allowed");
    assert_eq!(decide(&alice, "a", Push), "beyond");
    assert_eq!(decide(&alice, "b", Pull), "beyond");
    assert_eq!(decide(&alice, "a", Delete), "denied");
    let mighty = with(Identity::ANONYMOUS, &everything);
    assert_eq!(decide(&mighty, "public/a", Pull), "allowed");
    assert_eq!(decide(&mighty, "a", Pull), "denied");
    let bare = with(user("alice", &[]), &[]);
    assert_eq!(decide(&bare, "a", Pull), "beyond");
    // By itself it is good for something only where it is all that counts.
    let of_tokens = Rules::of_tokens();
    let access = |repo| Access {
        repository: Some(repo),
        action: Action::Pull,
        also_pull: None,
    };
    let repo = name("a");
    assert!(
        of_tokens
            .permits(&mighty, &place, &access(&repo))
            .is_allowed()
    );
    assert!(
        !of_tokens
            .permits(&Identity::ANONYMOUS, &place, &access(&repo))
            .is_allowed()
    );
    assert!(
        !of_tokens
            .permits(&user("alice", &[]), &place, &access(&repo))
            .is_allowed()
    );
}

#[test]
fn to_may_pull_all_is_to_may_pull_each() {
    let place = at("10.0.0.1");
    for (texts, all) in [
        (&["anyone; ; ; +pull"][..], true),
        (&["anyone; ; **; +push"], true),
        (&["anyone; ; team/**; +pull", "anyone; ; ; +pull"], true),
        (&["anyone; ; team/**; -pull", "anyone; ; ; +pull"], false),
        (&["anyone; ; ; +pull", "anyone; ; team/**; -pull"], true),
        (&["anyone; ; team/**; -push", "anyone; ; ; +pull"], true),
        (&["anyone; ; team/**; +pull"], false),
        (&["alice; ; ; +pull"], false),
        (&["anyone; 10.0.0.2; ; +pull"], false),
    ] {
        let rules = rules(texts);
        assert_eq!(
            rules.may_pull_all(&Identity::ANONYMOUS, &place),
            all,
            "{texts:?}"
        );
        let team = name("team/x");
        let one = rules.decide(&Identity::ANONYMOUS, &place, Some(&team), Permission::Pull);
        assert!(!all || one.is_allowed(), "{texts:?}");
    }
    let rules = rules(&["anyone; ; ; +pull"]);
    for (scope, all) in [("**", true), ("team/**", false)] {
        let scope = [grant(scope, &[Permission::Pull])];
        assert_eq!(rules.may_pull_all(&robot("ci", &scope), &place), all);
        let token = Identity {
            token: Some(Arc::from(&scope[..])),
            ..user("alice", &[])
        };
        assert_eq!(rules.may_pull_all(&token, &place), all);
    }
}

#[test]
fn rules_that_cannot_work_are_refused_by_their_key() {
    for (text, key, words) in [
        ("; ; ; +pull", "access[0].who", "is missing"),
        ("a b:c; ; ; +pull", "access[0].who", "begins with none"),
        ("group:; ; ; +pull", "access[0].who", "is no name"),
        ("anyone; lan; ; +pull", "access[0].from", "private"),
        (
            "anyone; 10.0.0.1/8; ; +pull",
            "access[0].from",
            "10.0.0.0/8",
        ),
        (
            "anyone; ; Team/*; +pull",
            "access[0].repositories",
            "lowercase",
        ),
        (
            "anyone; ; ; +read",
            "access[0].allow",
            "`read` is none of pull",
        ),
        ("anyone; ; ; -", "access[0]", "needs `allow` or `deny`"),
        ("anyone; ; a/*; +admin", "access[0].allow", "whole server"),
        ("anyone; ; a/*; -list", "access[0].deny", "whole server"),
    ] {
        let errors = Rules::parse(&[rule(text)]).unwrap_err();
        assert_eq!(errors.len(), 1, "{text}: {errors:?}");
        assert_eq!(errors[0].key, key, "{text}");
        assert!(errors[0].text.contains(words), "{text}: {}", errors[0].text);
    }
    let both = RuleSettings {
        deny: vec!["push".to_owned()],
        ..rule("anyone; ; ; +pull")
    };
    assert!(
        Rules::parse(&[both]).unwrap_err()[0]
            .text
            .contains("two rules")
    );
}

#[test]
fn networks() {
    let hop = |text: &str| Hop::Address(text.parse().unwrap());
    for (network, inside, outside) in [
        (
            "private",
            &[
                "10.1.2.3",
                "172.16.0.1",
                "172.31.255.255",
                "192.168.0.1",
                "169.254.1.1",
                "127.9.9.9",
                "::1",
                "fd00::1",
                "fe80::1",
                "::ffff:10.0.0.1",
            ][..],
            &[
                "172.32.0.1",
                "11.0.0.1",
                "100.64.0.1",
                "8.8.8.8",
                "2001:db8::1",
                "::ffff:8.8.8.8",
                "0.0.0.0",
                "::",
            ][..],
        ),
        (
            "loopback",
            &["127.0.0.1", "::1", "::ffff:127.0.0.1"],
            &["10.0.0.1", "fe80::1"],
        ),
        (
            "10.0.0.0/8",
            &["10.255.0.1", "::ffff:10.0.0.1"],
            &["11.0.0.0", "a00::"],
        ),
        ("10.0.0.7", &["10.0.0.7"], &["10.0.0.8"]),
        ("::ffff:10.0.0.0/104", &["10.0.0.7"], &["11.0.0.8"]),
        (
            "2001:db8::/32",
            &["2001:db8:1::1"],
            &["2001:db9::1", "10.0.0.1"],
        ),
        ("0.0.0.0/0", &["8.8.8.8"], &["2001:db8::1"]),
        ("::/0", &["2001:db8::1"], &["8.8.8.8"]),
    ] {
        let network: Network = network.parse().unwrap();
        for address in inside {
            assert!(network.contains(&hop(address)), "{address} in {network}");
        }
        for address in outside {
            assert!(
                !network.contains(&hop(address)),
                "{address} not in {network}"
            );
        }
        assert!(!network.contains(&Hop::Unknown));
        assert_eq!(network.to_string().parse(), Ok(network));
    }
    for text in [
        "",
        "lan",
        "10.0.0.0/33",
        "10.0.0/8",
        "::/129",
        "10.0.0.0/-1",
        "::ffff:10.0.0.0/8",
    ] {
        assert_eq!(text.parse::<Network>(), Err(NetworkError::Format), "{text}");
    }
}

#[test]
fn permissions_are_a_set() {
    let set: Permissions = [Permission::Push, Permission::List].into_iter().collect();
    assert_eq!(set.to_string(), "push, list");
    assert_eq!(set.implied().to_string(), "pull, push, list");
    assert_eq!(Permissions::ALL.iter().count(), Permission::ALL.len());
}
