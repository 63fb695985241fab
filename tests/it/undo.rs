//! Bringing back what was deleted or overwritten: `registry undo`, `registry history`.

use std::time::Duration;

use serde_json::json;

use crate::support::{
    forgetful::{Forgetful, Luck},
    image::{Image, Manifest},
    seed::{Rng, seed},
    server::{Server, eventually},
    tree,
};

/// Collects soon after a delete and when it is told to, and then at once.
fn told_to(server: Server) -> Server {
    server.collects_when_told().set("gc.delay", "10ms")
}

#[test]
fn an_overwritten_tag_goes_back() {
    let server = told_to(Server::new()).start();
    let client = server.client();
    let (first, second) = (Image::new(1), Image::new(2));
    first.push(&client, "team/app", "latest");
    second.push(&client, "team/app", "latest");
    let history = server.told(&["history", "team/app:latest"]);
    let lines: Vec<&str> = history.lines().collect();
    assert!(
        lines[0].contains(second.digest()) && lines[0].ends_with("the tag points to it"),
        "{history}"
    );
    assert!(
        lines[1].contains(first.digest()) && lines[1].ends_with("pushed    there"),
        "{history}"
    );
    server.told(&["garbage-collect", "-q", "-m"]);
    let said = server.told(&["undo", "team/app:latest"]);
    assert!(
        said.contains(first.digest()) && said.contains("again"),
        "{said}"
    );
    first.assert_pullable(&client, "team/app", "latest");
    let said = server.told(&["undo", "team/app:latest", "--to", second.digest()]);
    assert!(said.contains(second.digest()), "{said}");
    second.assert_pullable(&client, "team/app", "latest");
}

#[test]
fn a_deleted_manifest_comes_back_with_its_tags_its_images_and_its_signatures() {
    let mut server = told_to(Server::new()).start();
    let client = server.client();
    let (arm, amd) = (Image::new(3), Image::new(4));
    arm.push(&client, "app", arm.digest());
    amd.push(&client, "app", "amd");
    let index = Manifest::index([&arm.manifest, &amd.manifest]);
    index.push(&client, "app", "v1");
    index.push(&client, "app", "latest");
    let signature = Image::artifact(5, "application/vnd.example.signature", &index);
    signature.push(&client, "app", signature.digest());
    for digest in [index.digest(), arm.digest(), amd.digest()] {
        let target = format!("/v2/app/manifests/{digest}");
        client.delete(&target).send().expect(202);
    }
    server.told(&["garbage-collect", "-q", "-m"]);
    eventually("nobody sees the repository", || {
        let listed = client.get("/v2/_catalog").send().json();
        (listed["repositories"] == json!([])).then_some(())
    });
    let history = server.told(&["history", "app:v1"]);
    assert!(
        history.contains("deleted   deleted, can be brought back until"),
        "{history}"
    );
    server.kill();

    // Without a server, too.
    let said = server.told(&["undo", "app:v1"]);
    assert!(
        said.contains(&format!("app:v1 is back: {}", index.digest())),
        "{said}"
    );
    assert!(
        said.contains(&format!("app@{} is back", signature.digest())),
        "{said}"
    );
    server.restart();
    let client = server.client();
    let reply = client.get("/v2/app/manifests/v1").send();
    assert_eq!(reply.expect(200).body, index.bytes());
    for image in [&arm, &amd, &signature] {
        image.assert_pullable(&client, "app", image.digest());
    }
    let referrers = client
        .get(&format!("/v2/app/referrers/{}", index.digest()))
        .send();
    let listed = &referrers.expect(200).json()["manifests"];
    assert_eq!(listed.as_array().expect("a list").len(), 1);
    let said = server.told(&["undo", &format!("app@{}", index.digest())]);
    assert!(said.contains("app:latest is back"), "{said}");
    let tags = client.get("/v2/app/tags/list").send().json();
    assert_eq!(tags["tags"], json!(["latest", "v1"]));
    assert_eq!(tree::faults(server.tree()), Vec::<String>::new());
}

#[test]
fn what_room_is_needed_for_is_gone() {
    let server = told_to(Server::new()).start();
    let client = server.client();
    let image = Image::new(6);
    image.push(&client, "app", "v1");
    let target = format!("/v2/app/manifests/{}", image.digest());
    client.delete(&target).send().expect(202);
    let said = server.told(&["garbage-collect"]);
    assert!(said.contains("kept for an undo: "), "{said}");
    server.told(&["garbage-collect", "-q", "--forget-undo"]);
    let why = server.refused(&["undo", "app:v1"]);
    assert!(why.contains("nothing that can be brought back"), "{why}");
    let why = server.refused(&["history", "app:v1"]);
    assert!(why.contains("nothing is known of app:v1"), "{why}");
    for (args, expected) in [
        (&["undo", "app"][..], "name a tag of it, as app:latest"),
        (
            &["undo", "app:v1", "--to", "v0"],
            "`registry history` shows them",
        ),
        (&["history", "App:v1"], "a repository name consists of"),
    ] {
        let why = server.refused(args);
        assert!(why.contains(expected), "{why}");
    }
}

#[test]
fn without_a_time_to_keep_it_nothing_is_kept() {
    let server = told_to(Server::new()).set("undo.keep", "0s").start();
    let client = server.client();
    let image = Image::new(7);
    image.push(&client, "app", "v1");
    client.delete("/v2/app/manifests/v1").send().expect(202);
    let target = format!("/v2/app/manifests/{}", image.digest());
    client.delete(&target).send().expect(202);
    let files = tree::snapshot(server.tree());
    assert!(!files.keys().any(|path| path.contains("/_history/")));
    eventually("its blobs are gone", || {
        let files = tree::snapshot(server.tree());
        let is_blob = |path: &String| path.starts_with("docker/registry/v2/blobs/");
        (!files.keys().any(is_blob)).then_some(())
    });
    server.refused(&["undo", "app:v1"]);
}

#[test]
fn an_immutable_tag_is_not_moved_by_an_undo() {
    let mut server = told_to(Server::new()).start();
    let (first, second) = (Image::new(8), Image::new(9));
    first.push(&server.client(), "app", "v1");
    second.push(&server.client(), "app", "v1");
    server.kill();
    let mut server = server.set("tags.immutable", "[v1]");
    server.restart();
    let why = server.refused(&["undo", "app:v1"]);
    assert!(why.contains("the tag v1 is immutable here"), "{why}");
    second.assert_pullable(&server.client(), "app", "v1");
}

/// Whoever got a 202 for a delete can have it back, whatever the power does after that.
#[test]
fn what_was_deleted_comes_back_after_power_cuts() {
    let seed = seed("what_was_deleted_comes_back_after_power_cuts");
    let mut rng = Rng::new(seed);
    let mut disk = Forgetful::mount();
    let mut server = told_to(Server::new()).root(disk.path()).start();
    for round in 0..6 {
        let client = server.client();
        let images: Vec<Image> = (0..4).map(|n| Image::new(100 * round + n)).collect();
        let tag = format!("t{round}");
        for image in &images {
            image.push(&client, "app", &tag);
            image.push(&client, "app", &format!("{tag}-own"));
            let signature =
                Image::artifact(rng.next(), "application/vnd.example.sbom", &image.manifest);
            signature.push(&client, "app", signature.digest());
        }
        // The pushes are acknowledged; what a tag pointed to before is not promised until it is deleted.
        disk.settle();
        let reference = if rng.chance(50) {
            tag.clone()
        } else {
            images[3].digest().to_owned()
        };
        let target = format!("/v2/app/manifests/{reference}");
        client.delete(&target).send().expect(202);
        if rng.chance(50) {
            std::thread::sleep(Duration::from_millis(rng.below(50)));
        }
        disk.cut();
        server.kill();
        let luck = if rng.chance(50) {
            Luck::Lost
        } else {
            Luck::Random(rng.next())
        };
        disk.power_on(luck);
        server.restart();
        let client = server.client();
        client.get(&target).send().expect(404);
        // This file system has no sockets.
        server.terminate();
        let said = server.told(&["undo", &format!("app:{tag}")]);
        assert!(
            said.contains(images[3].digest()),
            "REGISTRY_SEED={seed}, {luck:?}: {said}"
        );
        let said = server.told(&["undo", &format!("app:{tag}"), "--to", images[1].digest()]);
        assert!(said.contains(images[1].digest()), "{said}");
        server.restart();
        let client = server.client();
        images[1].assert_pullable(&client, "app", &tag);
        images[3].assert_pullable(&client, "app", images[3].digest());
        let target = format!("/v2/app/referrers/{}", images[3].digest());
        let listed = client.get(&target).send().expect(200).json();
        assert_eq!(
            listed["manifests"].as_array().map(Vec::len),
            Some(1),
            "{listed}"
        );
        let faults = tree::faults(disk.path());
        assert!(
            faults.is_empty(),
            "REGISTRY_SEED={seed}, {luck:?}: {faults:?}"
        );
    }
}
