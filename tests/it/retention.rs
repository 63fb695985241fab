//! `retention`: what goes by itself, and what a look before says of it.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::support::{
    image::Image,
    server::{Server, eventually},
    tree,
};

fn tags(server: &Server, repo: &str) -> serde_json::Value {
    let target = format!("/v2/{repo}/tags/list");
    server.client().get(&target).send().expect(200).json()["tags"].clone()
}

#[test]
fn rules_remove_by_themselves_what_nothing_keeps() {
    let rules =
        r#"[{repositories: team/**, tags: "pr-*", keeplast: 2}, {tags: "v*", keepminors: 1}]"#;
    let server = Server::new()
        .collects_when_told()
        .set("retention.rules", rules)
        .set("retention.interval", "300ms")
        .set("tags.immutable", "[v0.1.0]")
        .start();
    let client = server.client();
    let images: Vec<Image> = (1..5).map(Image::new).collect();
    for (n, image) in images.iter().enumerate() {
        image.push(&client, "team/app", &format!("pr-{n}"));
        image.push(&client, "other", &format!("pr-{n}"));
        for version in [format!("v1.{n}.0"), "latest".to_owned()] {
            image.push(&client, "team/app", &version);
        }
    }
    images[0].push(&client, "team/app", "v0.1.0");
    eventually("what nothing keeps is gone", || {
        (tags(&server, "team/app") == json!(["latest", "pr-2", "pr-3", "v0.1.0", "v1.3.0"]))
            .then_some(())
    });
    assert_eq!(
        tags(&server, "other"),
        json!(["pr-0", "pr-1", "pr-2", "pr-3"])
    );
    images[3].assert_pullable(&client, "team/app", "latest");
    images[0].assert_pullable(&client, "team/app", "v0.1.0");
    let gone = format!("/v2/team/app/manifests/{}", images[1].digest());
    eventually("so is what only it led to", || {
        (client.get(&gone).send().status == 404).then_some(())
    });
    // As any delete it can be undone; the next look takes it again.
    let log = server.log();
    assert!(
        log.contains("delete-tag team/app:pr-0") && log.contains("registry retention"),
        "{log}"
    );
    assert_eq!(tree::faults(server.tree()), Vec::<String>::new());
}

#[test]
fn a_look_before_removes_nothing_and_is_what_happens_then() {
    let server = Server::new()
        .collects_when_told()
        .set("retention.rules", r#"[{keeplast: 1, untagged: 0s}]"#)
        .set("retention.interval", "1000h")
        .start();
    let client = server.client();
    let (first, second, loose) = (Image::new(10), Image::new(11), Image::new(12));
    first.push(&client, "app", "a");
    thread::sleep(Duration::from_millis(5));
    second.push(&client, "app", "b");
    loose.push(&client, "app", loose.digest());
    let before = tree::settled(server.tree());
    let preview = server.told(&["retention", "--dry-run"]);
    assert!(preview.contains("tag app:a "), "{preview}");
    assert!(
        preview.contains(&format!("manifest app@{}", loose.digest())),
        "{preview}"
    );
    assert!(
        preview.contains("would remove 1 tag and 2 manifests"),
        "{preview}"
    );
    assert_eq!(tree::settled(server.tree()), before);
    let done = server.told(&["retention", "--yes"]);
    // Until when it can be undone is some moments later.
    let summary = |said: &str| {
        let line = said.lines().last().unwrap_or_default();
        line.split(", when").next().map(str::to_owned)
    };
    let removed = preview.replace("would remove", "removed");
    assert_eq!(summary(&removed), summary(&done));
    assert_eq!(tags(&server, "app"), json!(["b"]));
    server.told(&["undo", "app:a"]);
    first.assert_pullable(&client, "app", "a");
}

#[test]
fn what_is_pulled_stays_and_noting_it_writes_seldom() {
    let server = Server::new()
        .collects_when_told()
        .set("retention.rules", r#"[{keeppulled: 1h}]"#)
        .set("retention.interval", "1000h")
        .start();
    let client = server.client();
    let image = Image::new(20);
    image.push(&client, "app", "a");
    // What was pulled before is not known, so it may be in use.
    assert!(
        server
            .told(&["retention", "--dry-run"])
            .contains("nothing to remove")
    );
    let before = tree::settled(server.tree());
    for _ in 0..20 {
        image.assert_pullable(&client, "app", "a");
    }
    assert_eq!(
        tree::settled(server.tree()),
        before,
        "a pull writes nothing"
    );
}

#[test]
fn without_rules_nothing_goes() {
    let server = Server::new()
        .collects_when_told()
        .set("retention.interval", "10ms")
        .start();
    let client = server.client();
    let image = Image::new(30);
    image.push(&client, "app", "a");
    let why = server.refused(&["retention", "--dry-run"]);
    assert!(why.contains("no retention.rules"), "{why}");
    image.assert_pullable(&client, "app", "a");
}

#[test]
fn a_rule_that_keeps_nothing_is_refused() {
    let mut server = Server::new()
        .collects_when_told()
        .set("retention.rules", r#"[{tags: "pr-*"}]"#);
    let why = server.try_restart().expect_err("it does not start");
    let log = server.log();
    assert!(
        log.contains("retention.rules[0]") && log.contains("says nothing that keeps tags"),
        "{why}: {log}"
    );
}
