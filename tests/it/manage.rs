//! Deleting tags, manifests and blobs, and what the next request sees (distribution-spec, "Content Management").

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use serde_json::json;

use crate::support::{
    http::{Client, with_query},
    image::{Blob, Image, Manifest, assert_blob, open_upload, push_blob, sha256},
    server::{Server, serve},
    tree,
};

fn manifest_at(repo: &str, reference: &str) -> String {
    format!("/v2/{repo}/manifests/{reference}")
}

fn blob_at(repo: &str, digest: &str) -> String {
    format!("/v2/{repo}/blobs/{digest}")
}

#[track_caller]
fn assert_gone(client: &Client, target: &str, code: &str) {
    client.get(target).send().expect_error(404, code);
    client.head(target).send().expect(404);
}

#[track_caller]
fn tags(client: &Client, repo: &str) -> serde_json::Value {
    let reply = client.get(&format!("/v2/{repo}/tags/list")).send();
    reply.expect(200).json()["tags"].clone()
}

#[test]
fn a_deleted_tag_is_gone_and_its_manifest_stays() {
    let (_server, client) = serve();
    let image = Image::new(1);
    for tag in ["v1", "v1.0", "v10"] {
        image.push(&client, "team/app", tag);
    }
    let reply = client.delete(&manifest_at("team/app", "v1")).send();
    assert!(reply.expect(202).body.is_empty());
    assert_gone(&client, &manifest_at("team/app", "v1"), "MANIFEST_UNKNOWN");
    assert_eq!(tags(&client, "team/app"), json!(["v1.0", "v10"]));
    for reference in ["v1.0", "v10", image.digest()] {
        image.assert_pullable(&client, "team/app", reference);
    }
    client
        .delete(&manifest_at("team/app", "v1"))
        .send()
        .expect_error(404, "MANIFEST_UNKNOWN");
}

/// RFC 9110, 13.1.1: who deletes what they have seen does not delete what came since.
#[test]
fn nothing_is_deleted_where_if_match_names_something_else() {
    let (_server, client) = serve();
    let (old, new) = (Image::new(61), Image::new(62));
    old.push(&client, "team/app", "v1");
    new.push(&client, "team/app", "v1");
    let layer = &new.layers[0].digest;
    let targets = [
        (manifest_at("team/app", "v1"), new.digest()),
        (blob_at("team/app", layer), layer),
        (manifest_at("team/app", new.digest()), new.digest()),
    ];
    for (target, _) in &targets {
        let delete = |value: &str| client.delete(target).header("If-Match", value).send();
        delete(&format!("\"{}\"", old.digest())).expect_error(412, "MANIFEST_INVALID");
        delete("\"x\"").expect(412);
        let stale = client.delete(target).header("If-None-Match", "*").send();
        stale.expect(412);
        client.get(target).send().expect(200);
    }
    // Where nothing is, there is nothing that a condition could be about.
    for target in [
        manifest_at("team/app", "v2"),
        manifest_at("team/app", &sha256(b"nothing")),
        blob_at("team/app", &sha256(b"nothing")),
        manifest_at("team/other", "v1"),
    ] {
        for value in ["*", "\"x\"", &format!("\"{}\"", old.digest())] {
            let reply = client.delete(&target).header("If-Match", value).send();
            assert_eq!(reply.status, 404, "{target} {value}: {reply:?}");
            let reply = client.get(&target).header("If-Match", value).send();
            assert_eq!(reply.status, 404, "{target} {value}: {reply:?}");
        }
    }
    for (target, digest) in &targets {
        let delete = || {
            client
                .delete(target)
                .header("If-Match", format!("\"{digest}\""))
        };
        delete().send().expect(202);
        // What is not there is no conflict.
        delete().send().expect(404);
    }
    old.assert_pullable(&client, "team/app", old.digest());
}

#[test]
fn a_deleted_manifest_takes_its_tags_and_no_others() {
    let (mut server, client) = serve();
    let (old, new) = (Image::new(2), Image::new(3));
    for tag in ["a", "b", "moved"] {
        old.push(&client, "team/app", tag);
    }
    new.push(&client, "team/app", "moved");
    new.push(&client, "team/app", "other");
    let reply = client.delete(&manifest_at("team/app", old.digest())).send();
    assert!(reply.expect(202).body.is_empty());
    for again in [false, true] {
        let client = server.client();
        for reference in ["a", "b", old.digest()] {
            assert_gone(
                &client,
                &manifest_at("team/app", reference),
                "MANIFEST_UNKNOWN",
            );
        }
        assert_eq!(tags(&client, "team/app"), json!(["moved", "other"]));
        for reference in ["moved", "other", new.digest()] {
            new.assert_pullable(&client, "team/app", reference);
        }
        // Its blobs are the repository's until something collects them.
        for blob in old.blobs() {
            assert_blob(&client, "team/app", blob);
        }
        if !again {
            client
                .delete(&manifest_at("team/app", old.digest()))
                .send()
                .expect_error(404, "MANIFEST_UNKNOWN");
            server.kill();
            server.restart();
        }
    }
}

#[test]
fn an_index_and_its_children_are_deleted_apart() {
    let (_server, client) = serve();
    let (a, b) = (Image::new(4), Image::new(5));
    a.push(&client, "team/app", a.digest());
    b.push(&client, "team/app", "b");
    let index = Manifest::index([&a.manifest, &b.manifest]);
    index.push(&client, "team/app", "multi");
    client
        .delete(&manifest_at("team/app", b.digest()))
        .send()
        .expect(202);
    let reply = client.get(&manifest_at("team/app", "multi")).send();
    assert_eq!(reply.expect(200).body, index.bytes());
    assert_gone(&client, &manifest_at("team/app", "b"), "MANIFEST_UNKNOWN");
    client
        .delete(&manifest_at("team/app", index.digest()))
        .send()
        .expect(202);
    assert_gone(
        &client,
        &manifest_at("team/app", "multi"),
        "MANIFEST_UNKNOWN",
    );
    a.assert_pullable(&client, "team/app", a.digest());
}

#[test]
fn a_manifest_of_one_repository_is_not_that_of_another() {
    let (_server, client) = serve();
    let image = Image::new(6);
    for repo in ["team/app", "team/app/below", "team/other"] {
        image.push(&client, repo, "v1");
    }
    client
        .delete(&manifest_at("team/app", image.digest()))
        .send()
        .expect(202);
    assert_gone(&client, &manifest_at("team/app", "v1"), "MANIFEST_UNKNOWN");
    for repo in ["team/app/below", "team/other"] {
        image.assert_pullable(&client, repo, "v1");
        image.assert_pullable(&client, repo, image.digest());
    }
}

#[test]
fn a_deleted_blob_is_gone_from_its_repository_alone() {
    let (mut server, client) = serve();
    let blob = Blob::random(7, 5000);
    for repo in ["team/app", "team/other"] {
        push_blob(&client, repo, &blob);
    }
    let reply = client.delete(&blob_at("team/app", &blob.digest)).send();
    assert!(reply.expect(202).body.is_empty());
    client
        .delete(&blob_at("team/app", &blob.digest))
        .send()
        .expect_error(404, "BLOB_UNKNOWN");
    for again in [false, true] {
        let client = server.client();
        assert_gone(&client, &blob_at("team/app", &blob.digest), "BLOB_UNKNOWN");
        assert_blob(&client, "team/other", &blob);
        if !again {
            server.kill();
            server.restart();
        }
    }
    push_blob(&server.client(), "team/app", &blob);
    assert_blob(&server.client(), "team/app", &blob);
}

#[test]
fn what_was_deleted_can_be_pushed_again() {
    let (server, client) = serve();
    let image = Image::new(8);
    for _ in 0..3 {
        image.push(&client, "team/app", "v1");
        image.assert_pullable(&client, "team/app", "v1");
        for blob in image.blobs() {
            client
                .delete(&blob_at("team/app", &blob.digest))
                .send()
                .expect(202);
        }
        client
            .delete(&manifest_at("team/app", image.digest()))
            .send()
            .expect(202);
        // Without its blobs it is refused again, as the first time.
        image
            .manifest
            .try_push(&client, "team/app", "v1")
            .unwrap()
            .expect_error(400, "MANIFEST_BLOB_UNKNOWN");
    }
    assert_eq!(tree::faults(server.tree()), Vec::<String>::new());
}

#[test]
fn what_is_not_there_cannot_be_deleted() {
    let (_server, client) = serve();
    let image = Image::new(9);
    image.push(&client, "team/app", "v1");
    let missing = sha256(b"missing");
    for (target, code) in [
        (manifest_at("team/app", "v2"), "MANIFEST_UNKNOWN"),
        (manifest_at("team/app", &missing), "MANIFEST_UNKNOWN"),
        (manifest_at("team/unknown", "v1"), "MANIFEST_UNKNOWN"),
        (
            manifest_at("team/unknown", image.digest()),
            "MANIFEST_UNKNOWN",
        ),
        (blob_at("team/app", &missing), "BLOB_UNKNOWN"),
        (
            blob_at("team/unknown", &image.layers[0].digest),
            "BLOB_UNKNOWN",
        ),
        // A manifest is no blob, and the other way round.
        (blob_at("team/app", image.digest()), "BLOB_UNKNOWN"),
        (
            manifest_at("team/app", &image.layers[0].digest),
            "MANIFEST_UNKNOWN",
        ),
    ] {
        client.delete(&target).send().expect_error(404, code);
    }
    image.assert_pullable(&client, "team/app", "v1");
}

#[test]
fn sha512_content_is_deleted_like_any_other() {
    use crate::support::image::Algorithm;
    let (_server, client) = serve();
    let image = Image::builder(10)
        .algorithm(Algorithm::Sha512)
        .blob_algorithm(Algorithm::Sha512)
        .build();
    for blob in image.blobs() {
        push_blob(&client, "team/app", blob);
    }
    client
        .put(&format!(
            "{}?tag=v1",
            manifest_at("team/app", image.digest())
        ))
        .header("Content-Type", &image.manifest.media_type)
        .body(image.manifest.bytes())
        .send()
        .expect(201);
    image.assert_pullable(&client, "team/app", "v1");
    client
        .delete(&manifest_at("team/app", image.digest()))
        .send()
        .expect(202);
    assert_gone(&client, &manifest_at("team/app", "v1"), "MANIFEST_UNKNOWN");
    for blob in image.blobs() {
        client
            .delete(&blob_at("team/app", &blob.digest))
            .send()
            .expect(202);
        assert_gone(&client, &blob_at("team/app", &blob.digest), "BLOB_UNKNOWN");
    }
}

/// Readers see the manifest whole or not at all, under all of its names, and never again after the 202.
#[test]
fn a_delete_is_seen_at_once_by_everybody() {
    let (_server, client) = serve();
    for round in 0..10 {
        let image = Image::new(100 + round);
        let tags: Vec<String> = (0..5).map(|n| format!("t{n}")).collect();
        for tag in &tags {
            image.push(&client, "team/app", tag);
        }
        let deleted = AtomicBool::new(false);
        thread::scope(|scope| {
            for n in 0..3 {
                let (client, image, tags, deleted) = (client.clone(), &image, &tags, &deleted);
                scope.spawn(move || {
                    let reference = if n == 0 { image.digest() } else { &tags[n] };
                    let mut gone = false;
                    loop {
                        let after = deleted.load(Ordering::SeqCst);
                        let reply = client.get(&manifest_at("team/app", reference)).send();
                        match reply.status {
                            200 => {
                                assert!(!gone, "{reference} came back");
                                assert!(!after, "{reference} is there after the delete");
                                assert_eq!(reply.body, image.manifest.bytes());
                            }
                            404 => gone = true,
                            _ => panic!("{reply:?}"),
                        }
                        if after {
                            return;
                        }
                    }
                });
            }
            client
                .delete(&manifest_at("team/app", image.digest()))
                .send()
                .expect(202);
            deleted.store(true, Ordering::SeqCst);
        });
        for reference in tags.iter().map(String::as_str).chain([image.digest()]) {
            assert_gone(
                &client,
                &manifest_at("team/app", reference),
                "MANIFEST_UNKNOWN",
            );
        }
    }
    assert_eq!(tags(&client, "team/app"), json!([]));
}

/// A push and a delete of the same manifest at once: one of them is the last, and the disk agrees with itself.
#[test]
fn pushes_and_deletes_of_one_manifest_take_turns() {
    let (mut server, client) = serve();
    let image = Image::new(11);
    image.push(&client, "team/app", "v1");
    thread::scope(|scope| {
        for n in 0..4 {
            let (client, image) = (client.clone(), &image);
            scope.spawn(move || {
                for _ in 0..20 {
                    match n {
                        0 => {
                            image.manifest.push(&client, "team/app", "v1");
                        }
                        1 => {
                            image.manifest.push(&client, "team/app", "v2");
                        }
                        _ => {
                            let reference = if n == 2 { image.digest() } else { "v1" };
                            let reply = client.delete(&manifest_at("team/app", reference)).send();
                            assert!(matches!(reply.status, 202 | 404), "{reply:?}");
                        }
                    }
                }
            });
        }
    });
    assert_eq!(tree::faults(server.tree()), Vec::<String>::new());
    let before = tags(&client, "team/app");
    for tag in before.as_array().unwrap() {
        image.assert_pullable(&client, "team/app", tag.as_str().unwrap());
    }
    server.kill();
    server.restart();
    assert_eq!(tags(&server.client(), "team/app"), before);
}

#[test]
fn deletes_can_be_switched_off() {
    let server = Server::new().set("storage.delete.enabled", "false").start();
    let client = server.client();
    let image = Image::new(12);
    image.push(&client, "team/app", "v1");
    for target in [
        manifest_at("team/app", "v1"),
        manifest_at("team/app", image.digest()),
        manifest_at("team/app", "unknown"),
        blob_at("team/app", &image.layers[0].digest),
        blob_at("team/app", &sha256(b"missing")),
    ] {
        client
            .delete(&target)
            .send()
            .expect_error(405, "UNSUPPORTED");
    }
    image.assert_pullable(&client, "team/app", "v1");
    // An upload may be given up all the same.
    let location = open_upload(&client, "team/app");
    client.delete(&location).send().expect(204);
}

#[test]
fn a_read_only_registry_serves_and_changes_nothing() {
    let mut server = Server::new().start();
    let image = Image::new(13);
    image.push(&server.client(), "team/app", "v1");
    let open = open_upload(&server.client(), "team/app");
    let part = server.client().patch(&open).body(*b"begun").send();
    part.expect(202);
    assert!(server.terminate().success());
    let before = tree::shared_files(server.tree());
    let server = Server::new()
        .root(server.tree())
        .set("storage.maintenance.readonly.enabled", "true")
        .start();
    let client = server.client();
    let blob = Blob::random(14, 100);
    let refused = |method: &str, target: &str| {
        client
            .request(method, target)
            .body(blob.bytes.clone())
            .send()
            .expect_error(405, "UNSUPPORTED");
    };
    let uploads = "/v2/team/app/blobs/uploads/";
    refused("POST", uploads);
    refused("POST", &with_query(uploads, "digest", &blob.digest));
    refused("PATCH", &open);
    refused("PUT", &with_query(&open, "digest", &blob.digest));
    let mount = format!("{uploads}?mount={}&from=team/app", image.config.digest);
    refused("POST", &mount);
    for reference in ["v1", "v2", image.digest()] {
        image
            .manifest
            .try_push(&client, "team/app", reference)
            .unwrap()
            .expect_error(405, "UNSUPPORTED");
    }
    refused("DELETE", &manifest_at("team/app", "v1"));
    refused("DELETE", &manifest_at("team/app", image.digest()));
    refused("DELETE", &blob_at("team/app", &image.config.digest));
    image.assert_pullable(&client, "team/app", "v1");
    let digest = image.digest();
    client
        .get(&format!("/v2/team/app/referrers/{digest}"))
        .send()
        .expect(200);
    assert_eq!(tags(&client, "team/app"), json!(["v1"]));
    client.get("/v2/_catalog").send().expect(200);
    client.get("/readyz").send().expect(200);
    assert_eq!(tree::shared_files(server.tree()), before);
}
