//! Pushing whole blobs and mounting them, and the addresses that a push hands out (distribution-spec, "Pushing a blob
//! monolithically" and "Mounting a blob from another repository").

use std::{fs, sync::Barrier, thread};

use serde_json::json;

use crate::support::{
    http::{Client, Response, with_query},
    image::{Algorithm, Blob, Image, Manifest, assert_blob, open_upload, push_blob, try_push_blob},
    seed::{Rng, seed},
    server::{Server, serve},
    tree,
};

/// What a 201 for a blob has to say.
#[track_caller]
fn assert_created(client: &Client, repo: &str, blob: &Blob, reply: &Response) {
    assert_eq!(
        reply.header("docker-content-digest"),
        Some(blob.digest.as_str())
    );
    let location = reply.location();
    assert_eq!(location, format!("/v2/{repo}/blobs/{}", blob.digest));
    assert_eq!(client.get(&location).send().expect(200).body, blob.bytes);
}

fn single_post(client: &Client, repo: &str, digest: &str, bytes: &[u8]) -> Response {
    client
        .post(&format!("/v2/{repo}/blobs/uploads/"))
        .query("digest", digest)
        .header("Content-Type", "application/octet-stream")
        .body(bytes)
        .send()
}

#[test]
fn a_blob_is_pushed_by_post_then_put() {
    let (_server, client) = serve();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        for len in [1, 5000, 3 * 1024 * 1024] {
            let blob = Blob::with(algorithm, Rng::new(len as u64).bytes(len));
            let reply = push_blob(&client, "team/app", &blob);
            assert_created(&client, "team/app", &blob, &reply);
        }
    }
}

#[test]
fn a_blob_is_pushed_by_a_single_post() {
    let (server, client) = serve();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        for len in [1, 5000, 3 * 1024 * 1024] {
            let blob = Blob::with(algorithm, Rng::new(len as u64).bytes(len));
            let reply = single_post(&client, "team/app", &blob.digest, &blob.bytes).expect(201);
            assert_created(&client, "team/app", &blob, &reply);
        }
    }
    assert_no_session_left(&server, "team/app");
}

#[track_caller]
fn assert_no_session_left(server: &Server, repo: &str) {
    let left: Vec<String> = tree::snapshot(server.tree())
        .into_keys()
        .filter(|path| path.contains(&format!("repositories/{repo}/_uploads/")))
        .collect();
    assert!(left.is_empty(), "{left:#?}");
}

#[test]
fn an_empty_blob_is_a_blob() {
    let (_server, client) = serve();
    let blob = Blob::new(*b"");
    let reply = push_blob(&client, "team/app", &blob);
    assert_created(&client, "team/app", &blob, &reply);
    let reply = single_post(&client, "team/other", &blob.digest, b"").expect(201);
    assert_created(&client, "team/other", &blob, &reply);
}

#[test]
fn a_digest_may_be_percent_encoded() {
    let (_server, client) = serve();
    let blob = Blob::random(1, 100);
    let encoded = blob.digest.replace(':', "%3A");
    let location = open_upload(&client, "team/app");
    let mark = if location.contains('?') { '&' } else { '?' };
    let reply = client
        .put(&format!("{location}{mark}digest={encoded}"))
        .body(blob.bytes.clone())
        .send()
        .expect(201);
    assert_created(&client, "team/app", &blob, &reply);
}

#[test]
fn pushing_what_is_there_already_succeeds() {
    let (_server, client) = serve();
    let blob = Blob::random(2, 1000);
    for _ in 0..3 {
        let reply = push_blob(&client, "team/app", &blob);
        assert_created(&client, "team/app", &blob, &reply);
        single_post(&client, "team/app", &blob.digest, &blob.bytes).expect(201);
    }
}

#[test]
fn content_that_is_not_what_the_digest_says_is_refused_and_forgotten() {
    let (server, client) = serve();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let (blob, other) = (
            Blob::with(algorithm, Rng::new(3).bytes(1000)),
            Blob::with(algorithm, Rng::new(4).bytes(1000)),
        );
        single_post(&client, "team/app", &blob.digest, &other.bytes)
            .expect_error(400, "DIGEST_INVALID");
        let location = open_upload(&client, "team/app");
        client
            .put(&with_query(&location, "digest", &blob.digest))
            .body(other.bytes.clone())
            .send()
            .expect_error(400, "DIGEST_INVALID");
        for digest in [&blob.digest, &other.digest] {
            client
                .get(&format!("/v2/team/app/blobs/{digest}"))
                .send()
                .expect_error(404, "BLOB_UNKNOWN");
        }
        push_blob(&client, "team/app", &blob);
        assert_blob(&client, "team/app", &blob);
    }
    assert_no_session_left(&server, "team/app");
    assert_eq!(tree::faults(server.tree()), Vec::<String>::new());
}

#[test]
fn a_body_that_ends_early_is_no_blob() {
    let (server, client) = serve();
    let blob = Blob::random(5, 100_000);
    let cut = client.clone().without_keep_alive();
    let mut exchange = cut
        .post("/v2/team/app/blobs/uploads/")
        .query("digest", &blob.digest)
        .start(blob.len() as u64)
        .expect("sent");
    exchange.write(&blob.bytes[..50_000]).expect("sent");
    exchange.shutdown_write().expect("shut");
    // An answer or none: the client left.
    if let Ok(reply) = exchange.response() {
        assert!((400..500).contains(&reply.status), "{reply:?}");
    }
    client
        .get(&format!("/v2/team/app/blobs/{}", blob.digest))
        .send()
        .expect(404);
    push_blob(&client, "team/app", &blob);
    assert_eq!(tree::faults(server.tree()), Vec::<String>::new());
}

fn mount(client: &Client, repo: &str, query: &str) -> Response {
    client
        .post(&format!("/v2/{repo}/blobs/uploads/?{query}"))
        .send()
}

#[test]
fn a_blob_is_mounted_from_another_repository() {
    let (server, client) = serve();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let blob = Blob::with(algorithm, Rng::new(6).bytes(1000));
        push_blob(&client, "library/source", &blob);
        let (digest, encoded) = (&blob.digest, blob.digest.replace(':', "%3A"));
        for (n, query) in [
            format!("mount={digest}&from=library/source"),
            format!("from=library/source&mount={digest}"),
            format!("mount={encoded}&from=library%2Fsource"),
            format!("from=library%2fsource&mount={encoded}&origin=registry.example"),
        ]
        .into_iter()
        .enumerate()
        {
            let repo = format!("target-{n}");
            client
                .head(&format!("/v2/{repo}/blobs/{digest}"))
                .send()
                .expect(404);
            let reply = mount(&client, &repo, &query).expect(201);
            assert_created(&client, &repo, &blob, &reply);
            assert_no_session_left(&server, &repo);
            client
                .delete(&format!("/v2/{repo}/blobs/{digest}"))
                .send()
                .expect(202);
        }
    }
}

#[test]
fn a_mounted_blob_outlives_its_source() {
    let (_server, client) = serve();
    let blob = Blob::random(7, 1000);
    push_blob(&client, "source", &blob);
    mount(
        &client,
        "target",
        &format!("mount={}&from=source", blob.digest),
    )
    .expect(201);
    client
        .delete(&format!("/v2/source/blobs/{}", blob.digest))
        .send()
        .expect(202);
    assert_blob(&client, "target", &blob);
}

#[test]
fn a_mount_that_cannot_be_done_opens_an_upload() {
    let (_server, client) = serve();
    let here = Blob::random(8, 1000);
    // One for each: what fell back and was pushed is there for the next.
    let nowhere = [93, 94, 95].map(|seed| Blob::random(seed, 1000));
    push_blob(&client, "source", &here);
    client
        .delete(&format!("/v2/source/blobs/{}", here.digest))
        .send()
        .expect(202);
    for (n, (blob, from)) in [
        (&nowhere[0], "&from=source"),
        (&nowhere[1], "&from=unknown/repository"),
        (&nowhere[2], ""),
        (&here, "&from=source"), // it had it, once
    ]
    .into_iter()
    .enumerate()
    {
        let repo = format!("target-{n}");
        let reply = mount(&client, &repo, &format!("mount={}{from}", blob.digest)).expect(202);
        assert_eq!(reply.header("range"), Some("0-0"));
        assert!(reply.header("docker-upload-uuid").is_some());
        client
            .get(&format!("/v2/{repo}/blobs/{}", blob.digest))
            .send()
            .expect(404);
        // The session that it fell back to is a usable one.
        let reply = client
            .put(&with_query(&reply.location(), "digest", &blob.digest))
            .body(blob.bytes.clone())
            .send()
            .expect(201);
        assert_created(&client, &repo, blob, &reply);
    }
}

#[test]
fn a_mount_without_a_source_finds_one() {
    let (_server, client) = serve();
    let image = Image::new(10);
    image.push(&client, "some/where", "v1");
    for blob in image.blobs() {
        let reply = mount(&client, "target", &format!("mount={}", blob.digest)).expect(201);
        assert_created(&client, "target", blob, &reply);
    }
}

/// Clients push the blobs of an image before its manifest.
#[test]
fn a_mount_without_a_source_finds_a_blob_whose_repository_has_no_manifest_yet() {
    let (mut server, mut client) = serve();
    let (old, new) = (Blob::random(91, 1000), Blob::random(92, 1000));
    push_blob(&client, "old/blobs", &old);
    for tree_is_walked in [false, true] {
        push_blob(&client, "new/blobs", &new);
        for blob in [&old, &new] {
            let target = format!("target{}", u8::from(tree_is_walked));
            let reply = mount(&client, &target, &format!("mount={}", blob.digest)).expect(201);
            assert_blob(&client, &target, blob);
            assert!(reply.location().ends_with(&blob.digest));
        }
        let catalog = client.get("/v2/_catalog").send().expect(200).json();
        assert_eq!(catalog["repositories"], json!([]));
        server.restart();
        client = server.client();
    }
}

#[test]
fn a_mount_into_the_same_repository_succeeds() {
    let (_server, client) = serve();
    let blob = Blob::random(11, 1000);
    push_blob(&client, "team/app", &blob);
    let query = format!("mount={}&from=team/app", blob.digest);
    let reply = mount(&client, "team/app", &query).expect(201);
    assert_created(&client, "team/app", &blob, &reply);
}

#[test]
fn a_manifest_may_refer_to_what_was_mounted() {
    let (_server, client) = serve();
    let image = Image::new(12);
    image.push(&client, "source", "v1");
    for blob in image.blobs() {
        let query = format!("mount={}&from=source", blob.digest);
        mount(&client, "target", &query).expect(201);
    }
    image.manifest.push(&client, "target", "v1");
    image.assert_pullable(&client, "target", "v1");
}

#[test]
fn a_client_that_waits_for_100_continue_is_told_to_go_on() {
    let (_server, client) = serve();
    let blob = Blob::random(13, 300_000);
    let location = open_upload(&client, "team/app");
    let reply = client
        .put(&with_query(&location, "digest", &blob.digest))
        .body(blob.bytes.clone())
        .expect_continue()
        .send()
        .expect(201);
    assert_created(&client, "team/app", &blob, &reply);
    let image = Image::new(14);
    for blob in image.blobs() {
        client
            .patch(&open_upload(&client, "team/app"))
            .body(blob.bytes.clone())
            .expect_continue()
            .send()
            .expect(202);
        push_blob(&client, "team/app", blob);
    }
    client
        .put("/v2/team/app/manifests/v1")
        .header("Content-Type", &image.manifest.media_type)
        .body(image.manifest.bytes())
        .expect_continue()
        .send()
        .expect(201);
}

/// The answer comes in place of `100 Continue`, so that gigabytes are not sent for nothing.
#[test]
fn a_client_that_waits_is_refused_before_it_sends() {
    let (_server, client) = serve();
    let blob = Blob::random(15, 1000);
    let unknown = "/v2/team/app/blobs/uploads/00000000-0000-4000-8000-000000000000";
    for (method, target, status, code) in [
        ("PATCH", unknown.to_owned(), 404, "BLOB_UPLOAD_UNKNOWN"),
        (
            "PUT",
            with_query(unknown, "digest", &blob.digest),
            404,
            "BLOB_UPLOAD_UNKNOWN",
        ),
        (
            "PUT",
            "/v2/BAD/manifests/v1".to_owned(),
            400,
            "NAME_INVALID",
        ),
    ] {
        let mut exchange = client
            .request(method, &target)
            .header("Expect", "100-continue")
            .start(1 << 30)
            .expect("sent");
        let head = exchange.response_head().expect("an answer");
        assert_eq!(head.status, status, "{method} {target}: {head:?}");
        drop(exchange);
        client
            .request(method, &target)
            .body(*b"x")
            .expect_continue()
            .send()
            .expect_error(status, code);
    }
}

/// Python clients send first and listen later: the answer has to reach them all the same.
#[test]
fn a_refusal_reaches_a_client_that_sends_everything_first() {
    let (_server, client) = serve();
    let client = client.without_keep_alive();
    let body = vec![7; 3 * 1024 * 1024];
    let digest = Blob::random(16, 1).digest;
    for (method, target, status) in [
        (
            "PUT",
            format!(
                "/v2/team/app/blobs/uploads/00000000-0000-4000-8000-000000000000?digest={digest}"
            ),
            404,
        ),
        ("PUT", "/v2/BAD/manifests/v1".to_owned(), 400),
        ("PUT", "/v2/team/app/manifests/v1".to_owned(), 400),
        (
            "POST",
            "/v2/team/app/blobs/uploads/?digest=md5:00".to_owned(),
            400,
        ),
    ] {
        let mut exchange = client
            .request(method, &target)
            .start(body.len() as u64)
            .expect("sent");
        exchange.write(&body).expect("the server takes it all");
        exchange.response().expect("an answer").expect(status);
    }
}

/// POST, PATCH, status, closing PUT, manifest PUT and mount: every place that hands out an address.
fn locations(client: &Client) -> Vec<(&'static str, String)> {
    let location = |what, reply: Response| {
        let location = reply.header("location").map(str::to_owned);
        (
            what,
            location.unwrap_or_else(|| panic!("{what}: {reply:?}")),
        )
    };
    let blob = Blob::random(17, 1000);
    let post = client
        .post("/v2/team/app/blobs/uploads/")
        .send()
        .expect(202);
    // The prefix of a proxy is not for this server.
    let session = post.location().replace("/outer/", "/");
    let patch = client
        .patch(&session)
        .body(blob.bytes.clone())
        .send()
        .expect(202);
    let status = client.get(&session).send().expect(204);
    let refused = client
        .patch(&session)
        .header("Content-Range", "0-9")
        .body(*b"0123456789")
        .send()
        .expect(416);
    let put = client
        .put(&with_query(&session, "digest", &blob.digest))
        .send()
        .expect(201);
    let query = format!("mount={}&from=team/app", blob.digest);
    let mounted = mount(client, "team/other", &query).expect(201);
    let image = Image::new(18);
    for blob in image.blobs() {
        client
            .post("/v2/team/app/blobs/uploads/")
            .query("digest", &blob.digest)
            .body(blob.bytes.clone())
            .send()
            .expect(201);
    }
    let manifest = image.manifest.push(client, "team/app", "v1");
    vec![
        location("POST", post),
        location("PATCH", patch),
        location("status", status),
        location("416", refused),
        location("PUT", put),
        location("mount", mounted),
        location("manifest", manifest),
    ]
}

#[track_caller]
fn assert_locations(client: &Client, start: &str) {
    for (what, location) in locations(client) {
        assert!(
            location.starts_with(&format!("{start}/v2/team/")),
            "{what}: {location}, and not {start}/v2/team/..."
        );
    }
}

#[test]
fn locations_name_the_host_that_the_client_named() {
    let (server, client) = serve();
    assert_locations(&client, &format!("http://{}", server.addr()));
    let client = client.with_header("Host", "registry.lan:5000");
    assert_locations(&client, "http://registry.lan:5000");
}

#[test]
fn locations_follow_the_proxies_before_the_server() {
    let (server, _) = serve();
    for (headers, start) in [
        (
            vec![
                ("X-Forwarded-Proto", "https"),
                ("X-Forwarded-Host", "reg.example"),
            ],
            "https://reg.example".to_owned(),
        ),
        (
            vec![("X-Forwarded-Proto", "https"), ("Host", "reg.example")],
            "https://reg.example".to_owned(),
        ),
        (
            vec![("X-Forwarded-Proto", "https")],
            format!("https://{}", server.addr()),
        ),
        (
            vec![
                ("X-Forwarded-Proto", "https, http"),
                ("X-Forwarded-Host", "outer.example:8443, inner"),
            ],
            "https://outer.example:8443".to_owned(),
        ),
        (
            vec![("Forwarded", "for=192.168.0.1;proto=https;host=reg.example")],
            "https://reg.example".to_owned(),
        ),
        (
            vec![(
                "Forwarded",
                "host=\"reg.example:8443\";Proto=https, for=10.0.0.1;host=inner",
            )],
            "https://reg.example:8443".to_owned(),
        ),
    ] {
        let client = headers
            .iter()
            .fold(server.client(), |client, (name, value)| {
                client.with_header(name, value)
            });
        assert_locations(&client, &start);
    }
}

/// A header of the client must not be able to break a header of the server.
#[test]
fn a_host_that_is_none_gets_into_no_location() {
    let (server, _) = serve();
    for (name, value) in [
        ("X-Forwarded-Host", "evil.example/path\"<x>"),
        ("X-Forwarded-Host", "a b"),
        ("X-Forwarded-Proto", "javascript"),
        ("Forwarded", "host=\"evil/../x\";proto=gopher"),
    ] {
        let client = server.client().with_header(name, value);
        for (what, location) in locations(&client) {
            let path = location
                .strip_prefix(&format!("http://{}", server.addr()))
                .unwrap_or(&location);
            assert!(
                path.starts_with("/v2/team/"),
                "{name}: {value}: {what}: {location}"
            );
        }
    }
}

#[test]
fn http_host_says_where_the_server_is() {
    let server = Server::new()
        .set("http.host", "https://reg.example:8443")
        .start();
    let client = server
        .client()
        .with_header("X-Forwarded-Host", "other.example");
    assert_locations(&client, "https://reg.example:8443");
}

#[test]
fn http_relativeurls_makes_locations_paths() {
    let server = Server::new().set("http.relativeurls", "true").start();
    assert_locations(&server.client(), "");
    let proxied = server
        .client()
        .with_header("X-Forwarded-Proto", "https")
        .with_header("X-Forwarded-Host", "reg.example");
    assert_locations(&proxied, "");
}

#[test]
fn identical_pushes_at_once_all_succeed() {
    let (server, client) = serve();
    let image = Image::builder(19).layers(3).layer_size(200_000).build();
    let index = Manifest::index([&image.manifest]);
    let at_once = 8;
    let start = Barrier::new(at_once);
    thread::scope(|scope| {
        for n in 0..at_once {
            let (client, image, index, start) = (client.clone(), &image, &index, &start);
            scope.spawn(move || {
                // Half of them into one repository, half into one each.
                let repo = if n % 2 == 0 {
                    "shared".to_owned()
                } else {
                    format!("own-{n}")
                };
                start.wait();
                for blob in image.blobs() {
                    client
                        .head(&format!("/v2/{repo}/blobs/{}", blob.digest))
                        .send();
                    let reply = if n % 4 < 2 {
                        try_push_blob(&client, &repo, blob).expect("an answer")
                    } else {
                        single_post(&client, &repo, &blob.digest, &blob.bytes)
                    };
                    reply.expect(201);
                }
                for _ in 0..3 {
                    image.manifest.push(&client, &repo, image.digest());
                    image.manifest.push(&client, &repo, "v1");
                    index.push(&client, &repo, "latest");
                    client
                        .head(&format!("/v2/{repo}/manifests/latest"))
                        .send()
                        .expect(200);
                }
                image.assert_pullable(&client, &repo, "v1");
            });
        }
    });
    assert_no_session_left(&server, "shared");
    assert_eq!(tree::faults(server.tree()), Vec::<String>::new());
}

/// What buildx does: the same mounts from one source by many connections at once.
#[test]
fn identical_mounts_at_once_all_succeed() {
    let (server, client) = serve();
    let blobs: Vec<Blob> = (0..4).map(|n| Blob::random(20 + n, 5000)).collect();
    for blob in &blobs {
        push_blob(&client, "source", blob);
    }
    let start = Barrier::new(8);
    thread::scope(|scope| {
        for _ in 0..8 {
            let (client, blobs, start) = (client.clone(), &blobs, &start);
            scope.spawn(move || {
                start.wait();
                for blob in blobs {
                    let query = format!("mount={}&from=source", blob.digest);
                    mount(&client, "target", &query).expect(201);
                    assert_blob(&client, "target", blob);
                }
            });
        }
    });
    assert_eq!(tree::faults(server.tree()), Vec::<String>::new());
}

/// A push does not lose to a delete of the same content that runs beside it: after a 201 the blob can be pulled unless a
/// later delete was acknowledged.
#[test]
fn pushes_and_deletes_of_one_blob_take_turns() {
    let (server, client) = serve();
    let mut rng = Rng::new(seed("pushes_and_deletes_of_one_blob_take_turns"));
    let blob = Blob::new(rng.bytes(3000));
    let start = Barrier::new(4);
    thread::scope(|scope| {
        for n in 0..4 {
            let (client, blob, start) = (client.clone(), &blob, &start);
            scope.spawn(move || {
                start.wait();
                for _ in 0..25 {
                    if n % 2 == 0 {
                        push_blob(&client, "team/app", blob);
                    } else {
                        let reply = client
                            .delete(&format!("/v2/team/app/blobs/{}", blob.digest))
                            .send();
                        assert!(matches!(reply.status, 202 | 404), "{reply:?}");
                    }
                    let reply = client
                        .get(&format!("/v2/team/app/blobs/{}", blob.digest))
                        .send();
                    match reply.status {
                        200 => assert!(reply.body == blob.bytes),
                        404 => {}
                        _ => panic!("{reply:?}"),
                    }
                }
            });
        }
    });
    push_blob(&client, "team/app", &blob);
    assert_blob(&client, "team/app", &blob);
    assert_eq!(tree::faults(server.tree()), Vec::<String>::new());
    assert!(fs::exists(server.tree().join("docker/registry/v2/blobs")).unwrap());
}
