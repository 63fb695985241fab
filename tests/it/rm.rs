//! `registry rm`: by tag, digest, repository and pattern, with a preview that tells the truth.

use std::collections::BTreeMap;

use serde_json::json;

use crate::support::{
    forgetful::{Forgetful, Luck},
    image::{Blob, Image, Manifest},
    seed::{Rng, seed},
    server::{Server, eventually},
    tree,
};

/// The bytes of all blobs on the disk, and how many there are.
fn blobs(server: &Server) -> (usize, usize) {
    let files: BTreeMap<String, Vec<u8>> = tree::shared_files(server.tree());
    let blobs = files
        .iter()
        .filter(|(path, _)| path.starts_with("docker/registry/v2/blobs/"));
    let sizes: Vec<usize> = blobs.map(|(_, content)| content.len()).collect();
    (sizes.len(), sizes.iter().sum())
}

/// `... room that comes back: 24.6 kB in 3 blobs` as the number of blobs and the size.
fn freed(said: &str) -> (String, usize) {
    let at = said.find("room that comes back: ").expect("a summary");
    let rest = &said[at + "room that comes back: ".len()..];
    let (size, rest) = rest.split_once(" in ").expect("a size");
    let count = rest.split(' ').next().expect("a number");
    (size.to_owned(), count.parse().expect("a number"))
}

/// As the command shows it.
fn size(bytes: usize) -> String {
    match bytes {
        0..1000 => format!("{bytes} B"),
        _ if bytes < 99_950 => format!("{:.1} kB", bytes as f64 / 1000.0),
        _ => format!("{:.0} kB", bytes as f64 / 1000.0),
    }
}

/// What the preview says is what a collection frees, whatever is shared with whom.
#[test]
fn the_preview_is_right_to_the_byte() {
    let server = Server::new().collects_when_told().start();
    let client = server.client();
    let shared = Blob::random(1, 10_000);
    let elsewhere = Blob::random(2, 20_000);
    let image = |seed: u64, layers: &[&Blob]| {
        let builder = Image::builder(seed).layers(1);
        let builder = layers
            .iter()
            .fold(builder, |builder, layer| builder.layer((*layer).clone()));
        builder.build()
    };
    // Two that go share a layer; one layer lives on in another repository, one in a tag that stays.
    let first = image(3, &[&shared, &elsewhere]);
    let second = image(4, &[&shared]);
    let kept = Blob::random(5, 30_000);
    let third = image(6, &[&kept]);
    let stays = image(7, &[&kept]);
    let other = image(8, &[&elsewhere]);
    first.push(&client, "team/app", "pr-1");
    second.push(&client, "team/app", "pr-2");
    third.push(&client, "team/app", "pr-3");
    stays.push(&client, "team/app", "latest");
    other.push(&client, "team/other", "latest");
    // And a signature, which goes with its image.
    let signature = Image::artifact(9, "application/vnd.example.signature", &first.manifest);
    signature.push(&client, "team/app", signature.digest());
    let before = tree::shared_files(server.tree());

    let preview = server.told(&["rm", "team/**:pr-*", "--dry-run"]);
    for tag in ["pr-1", "pr-2", "pr-3"] {
        assert!(
            preview.contains(&format!("tag team/app:{tag} ")),
            "{preview}"
        );
    }
    assert!(
        preview.contains(&format!("manifest team/app@{}", signature.digest())),
        "{preview}"
    );
    assert!(
        preview.contains("would remove 3 tags and 4 manifests"),
        "{preview}"
    );
    assert_eq!(tree::shared_files(server.tree()), before);

    let said = server.told(&["rm", "team/**:pr-*", "--yes", "--purge"]);
    assert!(said.contains("removed 3 tags and 4 manifests"), "{said}");
    let (count, bytes) = blobs(&server);
    server.told(&["garbage-collect", "-q"]);
    let (left, left_bytes) = blobs(&server);
    assert_eq!(freed(&preview), (size(bytes - left_bytes), count - left));
    assert_eq!(freed(&said), freed(&preview));
    stays.assert_pullable(&client, "team/app", "latest");
    other.assert_pullable(&client, "team/other", "latest");
    let tags = client.get("/v2/team/app/tags/list").send().json();
    assert_eq!(tags["tags"], json!(["latest"]));
    assert_eq!(tree::faults(server.tree()), Vec::<String>::new());
}

#[test]
fn what_something_else_leads_to_stays() {
    let server = Server::new().collects_when_told().start();
    let client = server.client();
    let (arm, amd, old) = (Image::new(10), Image::new(11), Image::new(12));
    for image in [&arm, &amd, &old] {
        image.push(&client, "app", image.digest());
    }
    let both = Manifest::index([&arm.manifest, &amd.manifest]);
    let one = Manifest::index([&arm.manifest, &old.manifest]);
    both.push(&client, "app", "both");
    one.push(&client, "app", "one");
    one.push(&client, "app", "alias");
    let said = server.told(&["rm", "app:one", "-y"]);
    assert!(said.contains("removed 1 tag and 0 manifests"), "{said}");
    let said = server.told(&["rm", "app:alias", "-y"]);
    assert!(said.contains("removed 1 tag and 2 manifests"), "{said}");
    for image in [&arm, &amd] {
        image.assert_pullable(&client, "app", image.digest());
    }
    let target = format!("/v2/app/manifests/{}", old.digest());
    client.get(&target).send().expect(404);
    server.told(&["undo", "app:alias"]);
    let reply = client.get("/v2/app/manifests/alias").send();
    assert_eq!(reply.expect(200).body, one.bytes());
    old.assert_pullable(&client, "app", old.digest());
}

#[test]
fn a_whole_repository_leaves_the_catalog_and_comes_back() {
    let mut server = Server::new().collects_when_told().start();
    let client = server.client();
    let (first, second) = (Image::new(13), Image::new(14));
    first.push(&client, "team/app", "v1");
    first.push(&client, "team/app", "v2");
    second.push(&client, "team/app", second.digest());
    second.push(&client, "team", "kept");
    server.kill();
    // Without a server, too.
    let said = server.told(&["rm", "team/app", "--yes"]);
    assert!(said.contains("removed 2 tags and 2 manifests"), "{said}");
    assert_eq!(freed(&said).1, 4, "{said}");
    server.told(&["garbage-collect", "-q"]);
    server.restart();
    let client = server.client();
    let listed = client.get("/v2/_catalog").send().json();
    assert_eq!(listed["repositories"], json!(["team"]));
    second.assert_pullable(&client, "team", "kept");
    server.told(&["undo", "team/app:v2"]);
    first.assert_pullable(&client, "team/app", "v2");
}

#[test]
fn a_manifest_goes_by_its_digest() {
    let server = Server::new().collects_when_told().start();
    let client = server.client();
    let (first, second) = (Image::new(15), Image::new(16));
    first.push(&client, "app", "a");
    first.push(&client, "app", "b");
    second.push(&client, "app", "c");
    let said = server.told(&["rm", &format!("app@{}", first.digest()), "-y"]);
    assert!(said.contains("removed 2 tags and 1 manifest"), "{said}");
    let tags = client.get("/v2/app/tags/list").send().json();
    assert_eq!(tags["tags"], json!(["c"]));
}

#[test]
fn immutable_tags_and_young_ones_stay() {
    let server = Server::new()
        .collects_when_told()
        .set("tags.immutable", "[v*]")
        .start();
    let client = server.client();
    let image = Image::new(17);
    image.push(&client, "app", "v1");
    image.push(&client, "app", "latest");
    let said = server.told(&["rm", "app", "-y", "--older-than", "1h"]);
    assert_eq!(said, "nothing to remove\n");
    let output = server.output_of(&["rm", "app", "-y"]);
    let warning = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        warning.contains("app:v1 stays: it is immutable"),
        "{warning}"
    );
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("removed 1 tag and 0 manifests"), "{said}");
    image.assert_pullable(&client, "app", "v1");
    let said = server.told(&["rm", "**:v*", "-y", "--force", "--older-than", "0s"]);
    assert!(said.contains("removed 1 tag and 1 manifest"), "{said}");
}

#[test]
fn without_a_yes_nothing_goes() {
    let server = Server::new().collects_when_told().start();
    let client = server.client();
    let image = Image::new(18);
    image.push(&client, "app", "v1");
    let output = server.output_of(&["rm", "app:v1"]);
    assert!(!output.status.success());
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(why.contains("add --yes"), "{why}");
    image.assert_pullable(&client, "app", "v1");
    for (args, expected) in [
        (&["App:v1"][..], "a pattern consists of"),
        (&["app:"], "a pattern of tags has"),
        (&["app", "--older-than", "soon"], "--older-than: "),
    ] {
        let output = server.output_of(&[&["rm"], args].concat());
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && why.contains(expected), "{why}");
    }
    assert_eq!(server.told(&["rm", "other:*", "-d"]), "nothing to remove\n");
}

#[test]
fn what_is_removed_is_in_the_audit_log_and_what_came_back_in_the_metrics() {
    let server = Server::new().collects_when_told().start();
    let client = server.client();
    let image = Image::new(19);
    image.push(&client, "app", "v1");
    server.told(&["rm", "app:v1", "-y", "--purge"]);
    let log = server.log();
    for what in [
        "delete-tag app:v1".to_owned(),
        format!("delete-manifest app {}", image.digest()),
    ] {
        let line = log.lines().find(|line| line.contains(&what));
        let line = line.unwrap_or_else(|| panic!("{what} is not in the log: {log}"));
        assert!(
            line.contains("audit") && line.contains("registry rm"),
            "{line}"
        );
    }
    let other = Image::new(21);
    other.push(&client, "other", "v1");
    server.told(&["rm", "other:v1", "-y"]);
    server.told(&["undo", "other:v1"]);
    assert!(server.log().contains("undo-tag other:v1"));
    server.told(&["rm", "other:v1", "-y", "--purge"]);
    let (count, bytes) = blobs(&server);
    server.told(&["garbage-collect", "-q"]);
    assert_eq!(blobs(&server), (0, 0));
    eventually("the metrics have it", || {
        let text = client.get("/metrics").send().expect(200).text();
        let has = |line: String| text.lines().any(|l| l == line);
        let is_counted = has(format!("registry_gc_freed_blobs_total {count}"))
            && has(format!("registry_gc_freed_bytes_total {bytes}"));
        let ran = text
            .lines()
            .find(|l| l.starts_with("registry_gc_last_run_seconds "));
        (is_counted && ran.is_some_and(|line| !line.ends_with(" 0.0"))).then_some(())
    });
}

#[test]
fn a_collection_can_be_told_another_grace() {
    let server = Server::new().set("gc.interval", "1000h").start();
    let client = server.client();
    let image = Image::new(20);
    image.push(&client, "app", "v1");
    server.told(&["rm", "app:v1", "-y", "--purge"]);
    let said = server.told(&["garbage-collect"]);
    assert!(said.contains("freed 0 B"), "{said}");
    let said = server.told(&["garbage-collect", "--grace", "0s"]);
    assert!(
        said.contains("freed ") && !said.contains("freed 0 B"),
        "{said}"
    );
    assert_eq!(blobs(&server), (0, 0));
}

/// Wherever the power fails: what is left is whole, and what is gone comes back.
#[test]
fn a_removal_that_is_cut_short_breaks_nothing() {
    let seed = seed("a_removal_that_is_cut_short_breaks_nothing");
    let mut rng = Rng::new(seed);
    let mut disk = Forgetful::mount();
    let mut server = Server::new().collects_when_told().root(disk.path()).start();
    let mut gone = 0;
    for round in 0..6 {
        let client = server.client();
        let mut pushed = Vec::new();
        for n in 0..3 {
            let image = Image::new(1000 + 10 * round + n);
            image.push(&client, "app", image.digest());
            let index = Manifest::index([&image.manifest]);
            index.push(&client, "app", &format!("r{round}-{n}"));
            pushed.push((format!("r{round}-{n}"), index, image));
        }
        disk.settle();
        // This file system has no sockets.
        server.terminate();
        disk.cut_at(1 + rng.below(400));
        server.output_of(&["rm", &format!("app:r{round}-*"), "-y"]);
        disk.cut();
        let luck = if rng.chance(50) {
            Luck::Lost
        } else {
            Luck::Random(rng.next())
        };
        disk.power_on(luck);
        let faults = tree::faults(disk.path());
        assert!(
            faults.is_empty(),
            "REGISTRY_SEED={seed}, {luck:?}: {faults:?}"
        );
        server.restart();
        let client = server.client();
        let is_there = |tag: &str| {
            let target = format!("/v2/app/manifests/{tag}");
            client.get(&target).send().status == 200
        };
        let lost: Vec<&str> = pushed
            .iter()
            .filter(|(tag, _, _)| !is_there(tag))
            .map(|(tag, _, _)| tag.as_str())
            .collect();
        gone += lost.len();
        server.terminate();
        for tag in lost {
            server.told(&["undo", &format!("app:{tag}")]);
        }
        server.restart();
        let client = server.client();
        for (tag, index, image) in &pushed {
            let reply = client.get(&format!("/v2/app/manifests/{tag}")).send();
            assert_eq!(
                reply.expect(200).body,
                index.bytes(),
                "REGISTRY_SEED={seed}"
            );
            image.assert_pullable(&client, "app", image.digest());
        }
    }
    eprintln!("{gone} of 18 tags were gone");
}
