//! A mirror: content of another registry, pulled through this one, beside what is pushed to it.

use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    migrate::docker_registry,
    support::{
        http::{Client, Response},
        image::{Blob, Image, Manifest, OCI_INDEX, assert_blob, push_blob},
        server::Server,
        tree,
        upstream::{Answer, Gate, Upstream},
    },
    tls::local,
};

fn mirror(url: &str) -> Server {
    Server::new().set("proxy.remoteurl", url)
}

/// Waits for something that comes by itself, a minute at the most.
#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(60), "never: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn metric(client: &Client, series: &str) -> f64 {
    let text = client.get("/metrics").send().expect(200).text();
    let found = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
    found.unwrap_or(0.0)
}

fn get(client: &Client, repo: &str, reference: &str) -> Response {
    client
        .get(&format!("/v2/{repo}/manifests/{reference}"))
        .send()
}

#[test]
fn an_image_of_docker_registry_is_pulled_through_and_stays() {
    let mut upstream = docker_registry(Server::new()).start();
    let image = Image::new(1);
    image.push(&upstream.client(), "team/app", "v1");
    let other = Image::builder(2).docker().build();
    other.push(&upstream.client(), "team/app", "v2");

    let mut server = mirror(&format!("http://{}", upstream.addr())).start();
    let client = server.client();
    image.assert_pullable(&client, "team/app", "v1");
    image.assert_pullable(&client, "team/app", image.digest());
    let head = client.head("/v2/team/app/manifests/v2").send().expect(200);
    assert_eq!(head.header("docker-content-digest"), Some(other.digest()));
    let layer = &other.layers[0];
    let head = client
        .head(&format!("/v2/team/app/blobs/{}", layer.digest))
        .send()
        .expect(200);
    assert_eq!(
        head.header("content-length"),
        Some(layer.len().to_string().as_str())
    );
    other.assert_pullable(&client, "team/app", "v2");
    get(&client, "team/app", "v3").expect_error(404, "MANIFEST_UNKNOWN");
    get(&client, "nobody", "v3").expect_error(404, "MANIFEST_UNKNOWN");
    let unknown = Blob::new("unknown");
    client
        .get(&format!("/v2/team/app/blobs/{}", unknown.digest))
        .send()
        .expect_error(404, "BLOB_UNKNOWN");
    assert!(metric(&client, "registry_upstream_requests_total{result=\"ok\"}") > 4.0);
    assert!(
        metric(
            &client,
            "registry_upstream_requests_total{result=\"unknown\"}"
        ) > 2.0
    );
    assert!(metric(&client, "registry_upstream_bytes_total") > 8192.0);

    upstream.terminate();
    let stale = get(&client, "team/app", "v1").expect(200);
    assert_eq!(stale.body, image.manifest.bytes());
    image.assert_pullable(&client, "team/app", "v1");
    get(&client, "team/app", "v3").expect_error(502, "UNAVAILABLE");
    // Whoever pushes asks that way, and must not be kept from it.
    client.head("/v2/team/app/manifests/v3").send().expect(404);
    client
        .head(&format!("/v2/team/app/blobs/{}", unknown.digest))
        .send()
        .expect(404);

    // The same without a mirror, and after a restart.
    server.kill();
    let plain = Server::new().root(server.tree()).start();
    image.assert_pullable(&plain.client(), "team/app", "v1");
    assert_eq!(tree::faults(server.tree()), Vec::<String>::new());
    drop(plain);
    server.restart();
    other.assert_pullable(&server.client(), "team/app", "v2");
    let theirs = docker_registry(
        Server::new()
            .root(server.tree())
            .env("REGISTRY_LOG_LEVEL", "error"),
    );
    server.kill();
    other.assert_pullable(&theirs.start().client(), "team/app", "v2");
}

#[test]
fn a_password_is_sent_to_the_upstream_and_to_nobody_else() {
    let upstream = docker_registry(Server::new());
    let htpasswd = upstream.dir().join("htpasswd");
    let made = Command::new("htpasswd")
        .args(["-Bbn", "mirror", "s3cret-of-the-mirror"])
        .output()
        .expect("htpasswd (apt-get install apache2-utils)");
    fs::write(&htpasswd, made.stdout).unwrap();
    let upstream = upstream
        .set("auth.htpasswd.realm", "test")
        .set("auth.htpasswd.path", &htpasswd.to_string_lossy())
        .start();
    let login = upstream.client().with_header(
        "Authorization",
        "Basic bWlycm9yOnMzY3JldC1vZi10aGUtbWlycm9y",
    );
    let image = Image::new(3);
    image.push(&login, "private/app", "v1");

    let url = format!("http://{}", upstream.addr());
    let server = mirror(&url)
        .set("log.level", "debug")
        .set("proxy.username", "mirror")
        .set("proxy.password", "s3cret-of-the-mirror")
        .start();
    image.assert_pullable(&server.client(), "private/app", "v1");
    assert!(!server.log().contains("s3cret"), "{}", server.log());

    // Wrong, or none: nothing of it is shown, and nothing of why is told.
    let wrong = mirror(&url)
        .set("proxy.username", "mirror")
        .set("proxy.password", "wr0ng")
        .start();
    let refused = get(&wrong.client(), "private/app", "v1").expect_error(502, "UNAVAILABLE");
    assert!(!refused.text().contains("wr0ng") && !refused.text().contains("127.0.0.1"));
    assert!(
        wrong
            .log()
            .contains("refuses the user name and the password")
    );
    let none = mirror(&url).start();
    get(&none.client(), "private/app", "v1").expect_error(404, "MANIFEST_UNKNOWN");

    // A helper in place of the two.
    let helper = server.dir().join("docker-credential-test");
    fs::write(
        &helper,
        "#!/bin/sh\n[ \"$1\" = get ] && read -r url; echo \"$url\" >> \"$0.log\"\n\
         echo '{\"ServerURL\":\"x\",\"Username\":\"mirror\",\"Secret\":\"s3cret-of-the-mirror\"}'\n",
    )
    .unwrap();
    make_executable(&helper);
    let helped = mirror(&url)
        .set("proxy.exec.command", &helper.to_string_lossy())
        .start();
    image.assert_pullable(&helped.client(), "private/app", "v1");
    let calls = fs::read_to_string(format!("{}.log", helper.display())).unwrap();
    assert_eq!(calls, format!("{url}\n"), "once, with the upstream's URL");
}

fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// An upstream whose token server is another one, as Docker Hub's is.
#[test]
fn tokens_are_fetched_kept_and_fetched_again() {
    let (upstream, tokens) = (Upstream::start(), Upstream::start());
    let image = Image::new(4);
    upstream.add("library/app", "v1", &image);
    let realm = format!("{}/token", tokens.url());
    upstream.rule(move |asked| {
        let repo = asked.path.split('/').nth(3)?;
        let wanted = format!("Bearer token-for-library-{repo}");
        if asked.header("authorization") == Some(&wanted) {
            return None;
        }
        let challenge = format!(
            "Bearer realm=\"{realm}\",service=\"registry.test\",scope=\"repository:library/{repo}:pull\""
        );
        Some(Answer::status(401).header("WWW-Authenticate", &challenge))
    });
    let login = "Basic bWlycm9yOnMzY3JldC1vZi10aGUtbWlycm9y";
    tokens.rule(move |asked| {
        if asked.path.starts_with("/second") {
            return None;
        }
        let scope = "scope=repository%3Alibrary%2Fapp%3Apull";
        assert!(asked.path.contains("service=registry.test") && asked.path.contains(scope));
        assert_eq!(asked.header("authorization"), Some(login));
        Some(Answer::ok(
            r#"{"token":"token-for-library-app","expires_in":300}"#,
        ))
    });
    let server = mirror(&upstream.url())
        .set("proxy.username", "mirror")
        .set("proxy.password", "s3cret-of-the-mirror")
        .set("log.level", "debug")
        .start();
    image.assert_pullable(&server.client(), "library/app", "v1");
    assert_eq!(tokens.count("GET /token"), 1, "one for all of them");
    for asked in upstream.asked() {
        let sent = asked.header("authorization").unwrap_or_default();
        assert!(
            !sent.starts_with("Basic"),
            "the password is for the token server"
        );
    }
    // A token that the upstream takes no more is not sent again, but replaced.
    let (second, realm) = (Image::new(44), format!("{}/second", tokens.url()));
    upstream.add("library/app", "v2", &second);
    tokens.answer(
        "/second?service=s&scope=repository%3Alibrary%2Fapp%3Apull",
        Answer::ok(r#"{"access_token":"token-of-the-second"}"#),
    );
    upstream.no_rules();
    upstream.rule(move |asked| {
        let challenge = format!("Basic realm=x, Bearer realm=\"{realm}\", service=s");
        let outdated = asked.header("authorization") != Some("Bearer token-of-the-second");
        outdated.then(|| Answer::status(401).header("WWW-Authenticate", &challenge))
    });
    second.assert_pullable(&server.client(), "library/app", "v2");
    assert_eq!(tokens.count("GET /second"), 1);
    assert!(!server.log().contains("token-for-") && !server.log().contains("s3cret"));
}

#[test]
fn credentials_do_not_follow_a_redirect_to_another_host() {
    let (upstream, cdn) = (Upstream::start(), Upstream::start());
    let image = Image::new(5);
    upstream.add("app", "v1", &image);
    for blob in image.blobs() {
        cdn.answer(
            &format!("/cdn/{}", blob.digest),
            Answer::ok(blob.bytes.as_slice()),
        );
    }
    let away = cdn.url();
    upstream.rule(move |asked| {
        if asked.header("authorization").is_none() {
            return Some(Answer::status(401).header("WWW-Authenticate", "Basic realm=\"x\""));
        }
        let digest = asked.path.strip_prefix("/v2/app/blobs/")?;
        Some(Answer::status(307).header("Location", &format!("{away}/cdn/{digest}")))
    });
    let server = mirror(&upstream.url())
        .set("proxy.username", "mirror")
        .set("proxy.password", "s3cret")
        .start();
    image.assert_pullable(&server.client(), "app", "v1");
    assert_eq!(cdn.asked().len(), image.blobs().count());
    for asked in cdn.asked() {
        assert_eq!(asked.header("authorization"), None, "{}", asked.line());
    }
    // A circle ends.
    upstream.rule(|asked| {
        asked
            .path
            .contains("/circle")
            .then(|| Answer::status(302).header("Location", "/v2/app/manifests/circle"))
    });
    get(&server.client(), "app", "circle").expect_error(502, "UNAVAILABLE");
}

#[test]
fn many_who_pull_at_once_are_one_fetch_and_see_it_as_it_comes() {
    let upstream = Upstream::start();
    let gate = Gate::default();
    let blob = Blob::random(6, 5 << 20);
    let path = format!("/v2/app/blobs/{}", blob.digest);
    upstream.answer(
        &path,
        Answer::ok(blob.bytes.as_slice()).wait_after(3 << 20, &gate),
    );
    let image = Image::new(7);
    upstream.add("app", "v1", &image);
    let server = mirror(&upstream.url()).start();
    let client = server.client();
    let (told, arrived) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..12 {
            let (client, path, blob, told) = (client.clone(), &path, &blob, told.clone());
            scope.spawn(move || {
                let mut body = Vec::new();
                let reply = client
                    .get(path)
                    .try_download(&mut |piece: &[u8]| {
                        let before = body.len();
                        body.extend_from_slice(piece);
                        if before < 1 << 20 && body.len() >= 1 << 20 {
                            told.send(()).unwrap();
                        }
                    })
                    .unwrap();
                assert_eq!(reply.status, 200);
                assert!(body == blob.bytes, "{} bytes", body.len());
            });
        }
        // All of them have a part of it while the upstream still sends.
        for _ in 0..12 {
            arrived.recv_timeout(Duration::from_secs(60)).unwrap();
        }
        let tail = client.get(&path).header("Range", "bytes=100-299").send();
        assert_eq!(tail.expect(206).body, blob.bytes[100..300]);
        assert_eq!(tree::faults(server.tree()), Vec::<String>::new());
        gate.open();
    });
    assert_eq!(upstream.count(&format!("GET {path}")), 1);
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| get(&client, "app", "v1").expect(200));
        }
    });
    assert_eq!(upstream.count("GET /v2/app/manifests/"), 1);
    // The same content of another repository is shown there when the upstream has it there, and not fetched again.
    upstream.answer(
        &path.replace("app", "twin"),
        Answer::ok(blob.bytes.as_slice()),
    );
    assert_blob(&client, "twin", &blob);
    assert_eq!(upstream.count("GET /v2/twin/blobs/"), 0);
    client
        .get(&path.replace("app", "stranger"))
        .send()
        .expect_error(404, "BLOB_UNKNOWN");
}

#[test]
fn a_client_that_leaves_does_not_end_the_fetch() {
    let upstream = Upstream::start();
    let gate = Gate::default();
    let blob = Blob::random(8, 2 << 20);
    let path = format!("/v2/app/blobs/{}", blob.digest);
    upstream.answer(
        &path,
        Answer::ok(blob.bytes.as_slice()).wait_after(1 << 20, &gate),
    );
    let server = mirror(&upstream.url()).start();
    let left = server
        .client()
        .with_timeout(Duration::from_millis(300))
        .get(&path)
        .try_send();
    assert!(left.is_err(), "it waits for the rest");
    gate.open();
    until("the blob is here", || {
        server
            .log()
            .contains(&format!("{} of app was fetched", blob.digest))
    });
    upstream.remove(&path);
    assert_blob(&server.client(), "app", &blob);
    assert_eq!(upstream.count(&format!("GET {path}")), 1);
}

#[test]
fn a_fetch_that_nobody_waits_for_is_given_up_in_the_end() {
    let upstream = Upstream::start();
    let gate = Gate::default();
    let blob = Blob::random(9, 1 << 20);
    let path = format!("/v2/app/blobs/{}", blob.digest);
    upstream.answer(
        &path,
        Answer::ok(blob.bytes.as_slice()).wait_after(1000, &gate),
    );
    let server = mirror(&upstream.url())
        .set("proxy.cachewritetimeout", "1s")
        .start();
    let left = server
        .client()
        .with_timeout(Duration::from_millis(300))
        .get(&path)
        .try_send();
    assert!(left.is_err());
    until("it is given up", || {
        server
            .log()
            .contains(&format!("{} of app was not fetched", blob.digest))
    });
    assert_eq!(metric(&server.client(), "registry_uploads_open"), 0.0);
    gate.open();
    upstream.add_blob("app", &blob);
    assert_blob(&server.client(), "app", &blob);
}

#[test]
fn what_is_not_what_its_digest_says_is_neither_kept_nor_served_whole() {
    let upstream = Upstream::start();
    let good = Image::new(10);
    upstream.add("app", "v1", &good);
    let server = mirror(&upstream.url()).start();
    let client = server.client();
    let blob = &good.layers[0];
    let path = format!("/v2/app/blobs/{}", blob.digest);
    let mut wrong = blob.bytes.clone();
    *wrong.last_mut().unwrap() ^= 1;
    for chunked in [false, true] {
        let answer = Answer::ok(wrong.as_slice());
        upstream.answer(&path, if chunked { answer.chunked() } else { answer });
        match client.get(&path).try_send() {
            Ok(reply) => assert_eq!(reply.status, 502, "{chunked}"),
            Err(_) => assert!(!chunked, "cut off before its last byte"),
        }
    }
    upstream.answer(&path, Answer::ok(&blob.bytes[..100]));
    assert!(
        client
            .get(&path)
            .try_send()
            .map_or(true, |r| r.status != 200)
    );

    // Manifests: by digest, by tag, one that is none, one without end.
    let evil = Image::new(11).manifest;
    let manifest = format!("/v2/app/manifests/{}", good.digest());
    let answer = |bytes: &[u8]| Answer::ok(bytes).header("Content-Type", &evil.media_type);
    upstream.answer(&manifest, answer(evil.bytes()));
    get(&client, "app", good.digest()).expect_error(502, "UNAVAILABLE");
    let lie = answer(evil.bytes()).header("Docker-Content-Digest", good.digest());
    upstream.answer("/v2/app/manifests/v1", lie);
    get(&client, "app", "v1").expect_error(502, "UNAVAILABLE");
    upstream.answer("/v2/app/manifests/v1", answer(b"<html>"));
    get(&client, "app", "v1").expect_error(502, "UNAVAILABLE");
    upstream.answer("/v2/app/manifests/v1", answer(&vec![b' '; 5 << 20]));
    get(&client, "app", "v1").expect_error(502, "UNAVAILABLE");

    upstream.add("app", "v1", &good);
    good.assert_pullable(&client, "app", "v1");
    assert_eq!(tree::faults(server.tree()), Vec::<String>::new());
}

#[test]
fn a_connection_that_breaks_is_taken_up_where_it_broke() {
    let upstream = Upstream::start();
    let blob = Blob::random(12, 3 << 20);
    let path = format!("/v2/app/blobs/{}", blob.digest);
    upstream.add_blob("app", &blob);
    let whole = blob.bytes.clone();
    upstream.rule(move |asked| {
        // The first time only: what asks for the rest says from where.
        let first = asked.path.contains("/blobs/") && asked.header("range").is_none();
        first.then(|| Answer::ok(whole.as_slice()).cut_after(2 << 20))
    });
    let server = mirror(&upstream.url()).start();
    assert_blob(&server.client(), "app", &blob);
    let asked = upstream.asked();
    let gets: Vec<_> = asked.iter().filter(|asked| asked.method == "GET").collect();
    assert_eq!(gets.len(), 2);
    let from = gets[1].header("range").unwrap();
    assert!(from.starts_with("bytes=") && from.ends_with('-'), "{from}");
    assert_eq!(gets[1].path, path);
}

#[test]
fn a_mirror_that_is_killed_shows_nothing_half() {
    let upstream = Upstream::start();
    let gate = Gate::default();
    let image = Image::builder(13).layers(1).layer_size(2 << 20).build();
    upstream.add("app", "v1", &image);
    let layer = &image.layers[0];
    let path = format!("/v2/app/blobs/{}", layer.digest);
    upstream.answer(
        &path,
        Answer::ok(layer.bytes.as_slice()).wait_after(1 << 20, &gate),
    );
    let mut server = mirror(&upstream.url()).start();
    get(&server.client(), "app", "v1").expect(200);
    let waiting = server.client().with_timeout(Duration::from_millis(500));
    assert!(waiting.get(&path).try_send().is_err());
    server.kill();
    gate.open();
    assert_eq!(tree::faults(server.tree()), Vec::<String>::new());
    upstream.rule(|asked| asked.path.contains("/blobs/").then(Answer::hang_up));
    server.restart();
    server
        .client()
        .get(&path)
        .send()
        .expect_error(502, "UNAVAILABLE");
    upstream.no_rules();
    until("the upstream is asked again", || {
        server.client().get(&path).send().status == 200
    });
    image.assert_pullable(&server.client(), "app", "v1");
}

#[test]
fn a_tag_follows_the_upstream_and_survives_its_absence() {
    let upstream = Upstream::start();
    let (old, new) = (Image::new(14), Image::new(15));
    upstream.add("app", "latest", &old);
    let mut server = mirror(&upstream.url()).start();
    let client = server.client();
    let digest = |client: &Client| {
        let reply = get(client, "app", "latest").expect(200);
        let warning = reply.header("warning").map(str::to_owned);
        (
            reply.header("docker-content-digest").unwrap().to_owned(),
            warning,
        )
    };
    assert_eq!(digest(&client), (old.digest().to_owned(), None));
    old.assert_pullable(&client, "app", "latest");

    // Asked by HEAD, with what is known; and not at all for some seconds.
    upstream.forget_asked();
    until("the upstream is asked whether it is still right", || {
        digest(&client);
        upstream.count("HEAD /v2/app/manifests/latest") == 1
    });
    let asked = upstream.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let known = format!("\"{}\"", old.digest());
    assert_eq!(asked[0].header("if-none-match"), Some(known.as_str()));
    // The answer to that condition.
    upstream.rule(|asked| (asked.method == "HEAD").then(|| Answer::status(304)));
    until("it is asked again", || {
        assert_eq!(digest(&client), (old.digest().to_owned(), None));
        upstream.count("HEAD /v2/app/manifests/latest") == 2
    });
    upstream.no_rules();

    upstream.add("app", "latest", &new);
    until("the new image", || {
        digest(&client) == (new.digest().to_owned(), None)
    });
    new.assert_pullable(&client, "app", "latest");
    old.assert_pullable(&client, "app", old.digest());

    // Away, limited, broken, or without the tag: the last word counts, with a warning.
    let stale = (
        new.digest().to_owned(),
        Some("110 - \"Response is Stale\"".to_owned()),
    );
    for broken in [
        Answer::hang_up(),
        Answer::status(429).header("Retry-After", "1"),
        Answer::status(500),
        Answer::status(401),
        Answer::status(404),
    ] {
        upstream.rule(move |_| Some(broken.clone()));
        // Not only as long as the process remembers.
        server.restart();
        let client = server.client();
        until("a stale answer", || digest(&client) == stale);
        new.assert_pullable(&client, "app", "latest");
        upstream.no_rules();
        until("a fresh one", || {
            digest(&client) == (new.digest().to_owned(), None)
        });
    }
}

#[test]
fn an_upstream_that_limits_is_left_alone() {
    let upstream = Upstream::start();
    let image = Image::new(16);
    upstream.add("app", "v1", &image);
    let server = mirror(&upstream.url()).start();
    let client = server.client();
    image.assert_pullable(&client, "app", "v1");
    upstream.rule(|_| Some(Answer::status(429).header("Retry-After", "1000")));
    let limited = get(&client, "app", "v2").expect_error(429, "TOOMANYREQUESTS");
    assert_eq!(limited.header("retry-after"), Some("1000"));
    upstream.forget_asked();
    until("the word on v1 is old", || {
        get(&client, "app", "v1")
            .expect(200)
            .header("warning")
            .is_some()
    });
    for _ in 0..20 {
        image.assert_pullable(&client, "app", "v1");
        client
            .head(&format!("/v2/app/blobs/{}", Blob::new("x").digest))
            .send()
            .expect(404);
    }
    assert_eq!(upstream.asked().len(), 0, "{:?}", upstream.asked());
}

#[test]
fn what_is_pushed_here_stays_ours() {
    let upstream = Upstream::start();
    let (theirs, ours) = (Image::new(17), Image::new(18));
    upstream.add("app", "latest", &theirs);
    upstream.add("app", "same", &theirs);
    let mut server = mirror(&upstream.url()).start();
    let client = server.client();
    theirs.assert_pullable(&client, "app", "latest");
    theirs.assert_pullable(&client, "app", "same");

    // Beside, over a tag that was fetched, over one with the same content, and into a repository of ours.
    ours.push(&client, "app", "patched");
    ours.push(&client, "app", "latest");
    theirs.push(&client, "app", "same");
    ours.push(&client, "ours/only", "v1");
    upstream.forget_asked();
    upstream.add("app", "same", &Image::new(19));
    upstream.add("app", "patched", &theirs);
    for _ in 0..2 {
        let client = server.client();
        ours.assert_pullable(&client, "app", "patched");
        ours.assert_pullable(&client, "app", "latest");
        theirs.assert_pullable(&client, "app", "same");
        ours.assert_pullable(&client, "ours/only", "v1");
        server.restart();
    }
    assert_eq!(upstream.count("HEAD /v2/app/manifests/"), 0);
    assert_eq!(upstream.count("GET /v2/app/manifests/"), 0);

    // Until it is deleted: then the name is the upstream's again.
    let client = server.client();
    client.delete("/v2/app/manifests/latest").send().expect(202);
    theirs.assert_pullable(&client, "app", "latest");
}

/// A client asks by HEAD what it has to push, and does not push what is there.
#[test]
fn a_push_may_build_on_what_only_the_upstream_has() {
    let upstream = Upstream::start();
    let base = Image::new(20);
    upstream.add("app", "base", &base);
    let server = mirror(&upstream.url()).start();
    let client = server.client();
    let layer = &base.layers[0];
    client
        .head(&format!("/v2/app/blobs/{}", layer.digest))
        .send()
        .expect(200);
    let derived = Image::builder(21).layer(layer.clone()).build();
    for blob in derived.blobs().filter(|blob| blob.digest != layer.digest) {
        push_blob(&client, "app", blob);
    }
    derived.manifest.push(&client, "app", "derived");
    upstream.rule(|_| Some(Answer::hang_up()));
    derived.assert_pullable(&client, "app", "derived");
    // Pushing goes on without the upstream.
    let alone = Image::new(22);
    alone.push(&client, "app", "alone");
    alone.assert_pullable(&client, "app", "alone");
    // What nobody has is still missed.
    let missing = Image::new(23);
    client
        .put("/v2/app/manifests/missing")
        .header("Content-Type", &missing.manifest.media_type)
        .body(missing.manifest.bytes())
        .send()
        .expect_error(400, "MANIFEST_BLOB_UNKNOWN");
}

#[test]
fn what_was_fetched_expires_and_what_was_pushed_does_not() {
    let upstream = Upstream::start();
    let (fetched, kept, pushed) = (Image::new(24), Image::new(25), Image::new(26));
    upstream.add("app", "fetched", &fetched);
    upstream.add("app", "kept", &kept);
    let server = mirror(&upstream.url()).set("proxy.ttl", "4s").start();
    let client = server.client();
    pushed.push(&client, "app", "pushed");
    // Pushed on what was fetched.
    fetched.assert_pullable(&client, "app", "fetched");
    let derived = Image::builder(27).layer(fetched.layers[0].clone()).build();
    derived.push(&client, "app", "derived");
    kept.assert_pullable(&client, "app", "kept");
    upstream.rule(|_| Some(Answer::hang_up()));
    until("the image that nobody asks for is gone", || {
        // Asked for by tag alone: what it refers to stays along with it.
        get(&client, "app", "kept").expect(200);
        server.log().contains("app:fetched has expired")
    });
    until("its manifest is gone, too", || {
        get(&client, "app", "kept").expect(200);
        client
            .head(&format!("/v2/app/manifests/{}", fetched.digest()))
            .send()
            .status
            == 404
    });
    kept.assert_pullable(&client, "app", "kept");
    pushed.assert_pullable(&client, "app", "pushed");
    derived.assert_pullable(&client, "app", "derived");
    assert_eq!(tree::faults(server.tree()), Vec::<String>::new());
    upstream.no_rules();
    until("it can be fetched again", || {
        get(&client, "app", "fetched").status == 200
    });
    fetched.assert_pullable(&client, "app", "fetched");
}

#[test]
fn lists_have_what_is_here_and_what_the_upstream_has() {
    let upstream = Upstream::start();
    let image = Image::new(28);
    upstream.add("app", "b", &image);
    upstream.answer(
        "/v2/app/tags/list?n=1000",
        Answer::ok(r#"{"name":"app","tags":["d","b","not a tag"]}"#)
            .header("Link", "</v2/app/tags/list?n=1000&last=d>; rel=\"next\""),
    );
    upstream.answer(
        "/v2/app/tags/list?n=1000&last=d",
        Answer::ok(r#"{"name":"app","tags":["f"]}"#),
    );
    let signature = Image::artifact(29, "application/x-signature", &image.manifest);
    let list = json!({"schemaVersion": 2, "mediaType": OCI_INDEX,
        "manifests": [signature.manifest.descriptor()]});
    upstream.answer(
        &format!("/v2/app/referrers/{}", image.digest()),
        Answer::ok(list.to_string()).header("Content-Type", OCI_INDEX),
    );
    let server = mirror(&upstream.url()).start();
    let client = server.client();
    image.assert_pullable(&client, "app", "b");
    Image::new(30).push(&client, "app", "c");
    let tags = |query: &str| {
        let target = format!("/v2/app/tags/list{query}");
        let reply = client.get(&target).send().expect(200);
        assert_eq!(reply.header("warning"), None);
        (reply.json()["tags"].clone(), reply.next_page().is_some())
    };
    assert_eq!(tags(""), (json!(["b", "c", "d", "f"]), false));
    assert_eq!(tags("?n=2"), (json!(["b", "c"]), true));
    assert_eq!(tags("?n=2&last=c"), (json!(["d", "f"]), false));
    assert_eq!(
        upstream.count("GET /v2/app/tags/list"),
        2,
        "two pages, once"
    );

    let own = Image::artifact(31, "application/x-sbom", &image.manifest);
    own.push(&client, "app", own.digest());
    let referrers = |query: &str| {
        let target = format!("/v2/app/referrers/{}{query}", image.digest());
        let reply = client.get(&target).send().expect(200);
        let list = reply.json()["manifests"].as_array().unwrap().clone();
        let mut digests: Vec<String> = list
            .iter()
            .map(|entry| entry["digest"].as_str().unwrap().to_owned())
            .collect();
        digests.sort();
        digests
    };
    let mut both = vec![own.digest().to_owned(), signature.digest().to_owned()];
    both.sort();
    assert_eq!(referrers(""), both);
    assert_eq!(
        referrers("?artifactType=application/x-sbom"),
        [own.digest().to_owned()]
    );

    let catalog = client.get("/v2/_catalog").send().expect(200).json();
    assert_eq!(catalog["repositories"], json!(["app"]));
    client
        .get("/v2/nobody/tags/list")
        .send()
        .expect_error(404, "NAME_UNKNOWN");

    upstream.rule(|_| Some(Answer::hang_up()));
    get(&client, "app", "unknown").expect_error(502, "UNAVAILABLE");
    let own = client.get("/v2/app/tags/list").send().expect(200);
    assert_eq!(own.json()["tags"], json!(["b", "c"]));
    assert!(own.header("warning").is_some());
}

#[test]
fn an_index_brings_the_image_that_is_asked_for() {
    let upstream = Upstream::start();
    let (arm, amd) = (Image::new(32), Image::new(33));
    let index = Manifest::index([&arm.manifest, &amd.manifest]);
    upstream.add_manifest("multi", "latest", &index);
    upstream.add("multi", "arm", &arm);
    let server = mirror(&upstream.url()).start();
    let client = server.client();
    let got = get(&client, "multi", "latest").expect(200);
    assert_eq!(got.body, index.bytes());
    arm.assert_pullable(&client, "multi", arm.digest());
    upstream.rule(|_| Some(Answer::hang_up()));
    arm.assert_pullable(&client, "multi", arm.digest());
    get(&client, "multi", amd.digest()).expect_error(502, "UNAVAILABLE");
}

#[test]
fn damaged_content_is_fetched_again() {
    let upstream = Upstream::start();
    let image = Image::builder(34).layer_size(1 << 20).build();
    upstream.add("app", "v1", &image);
    let mut server = mirror(&upstream.url()).start();
    image.assert_pullable(&server.client(), "app", "v1");
    server.kill();
    for digest in [image.digest(), &image.layers[0].digest] {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let path = format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
        let path = server.tree().join(path);
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    server.restart();
    let client = server.client();
    // The first time it is noticed while it is sent.
    let layer = format!("/v2/app/blobs/{}", image.layers[0].digest);
    assert!(client.get(&layer).try_send().is_err());
    image.assert_pullable(&client, "app", "v1");
}

#[test]
fn an_upstream_that_is_down_does_not_keep_a_mirror_from_starting() {
    let nobody = Upstream::start();
    let url = nobody.url();
    drop(nobody);
    let server = mirror(&url).start();
    let client = server.client();
    get(&client, "app", "v1").expect_error(502, "UNAVAILABLE");
    let image = Image::new(35);
    image.push(&client, "app", "v1");
    image.assert_pullable(&client, "app", "v1");
}

#[test]
fn a_mirror_that_is_read_only_fetches_nothing() {
    let upstream = Upstream::start();
    upstream.add("app", "v1", &Image::new(36));
    let server = mirror(&upstream.url())
        .set("storage.maintenance.readonly.enabled", "true")
        .start();
    get(&server.client(), "app", "v1").expect_error(404, "MANIFEST_UNKNOWN");
    assert_eq!(upstream.asked().len(), 0);
}

#[test]
fn the_mirror_that_was_here_before_is_taken_over() {
    let upstream = Upstream::start();
    let (old, new, pushed) = (Image::new(37), Image::new(38), Image::new(39));
    // Distribution does not start without it.
    upstream.answer("/v2/", Answer::ok("{}"));
    upstream.add("app", "latest", &old);
    let mut theirs = docker_registry(mirror(&upstream.url())).start();
    old.assert_pullable(&theirs.client(), "app", "latest");
    let state = theirs.tree().join("scheduler-state.json");
    until("distribution has noted what it fetched", || {
        let noted = fs::read_to_string(&state).unwrap_or_default();
        old.blobs().all(|blob| noted.contains(&blob.digest)) && noted.contains(old.digest())
    });
    theirs.terminate();
    let before = fs::read(&state).unwrap();
    // By one that was no mirror, in between.
    let plain = Server::new().root(theirs.tree()).start();
    pushed.push(&plain.client(), "app", "pushed");
    drop(plain);

    upstream.add("app", "latest", &new);
    upstream.add("app", "pushed", &new);
    let ours = mirror(&upstream.url()).root(theirs.tree()).start();
    let client = ours.client();
    new.assert_pullable(&client, "app", "latest");
    pushed.assert_pullable(&client, "app", "pushed");
    assert_eq!(fs::read(&state).unwrap(), before, "it is distribution's");
}

#[test]
fn an_upstream_over_https_is_trusted_as_the_machine_trusts_it() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = local(folder.path());
    let image = Image::new(40);
    image.push(&upstream.client(), "app", "v1");
    let url = format!("https://localhost:{}", upstream.addr().port());
    let authority = folder.path().join("tls/ca.crt");
    let server = mirror(&url)
        .env("SSL_CERT_FILE", &authority.to_string_lossy())
        .start();
    image.assert_pullable(&server.client(), "app", "v1");
    let stranger = mirror(&url).start();
    get(&stranger.client(), "app", "v1").expect_error(502, "UNAVAILABLE");
    assert!(stranger.log().contains("certificate"), "{}", stranger.log());
}

/// As the mirror of another registry's name, and by its own.
#[test]
fn skopeo_pulls_through() {
    let upstream = docker_registry(Server::new()).start();
    let image = Image::new(41);
    image.push(&upstream.client(), "library/app", "v1");
    let server = mirror(&format!("http://{}", upstream.addr())).start();
    let registries = server.dir().join("registries.conf");
    fs::write(
        &registries,
        format!(
            "[[registry]]\nlocation = \"docker.io\"\nblocked = false\n\
             [[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n",
            server.addr()
        ),
    )
    .unwrap();
    for (n, source) in [
        format!("docker://{}/library/app:v1", server.addr()),
        "docker://docker.io/library/app:v1".to_owned(),
        format!("docker://docker.io/library/app@{}", image.digest()),
    ]
    .iter()
    .enumerate()
    {
        let mut skopeo = Command::new("skopeo");
        skopeo.arg("--registries-conf").arg(&registries).args([
            "--insecure-policy",
            "copy",
            source,
        ]);
        if n == 0 {
            skopeo.arg("--src-tls-verify=false");
        }
        let copied = skopeo
            .arg(format!(
                "dir:{}",
                server.dir().join(n.to_string()).display()
            ))
            .output()
            .expect("skopeo (apt-get install skopeo)");
        assert!(copied.status.success(), "{source}: {copied:?}");
        let manifest = fs::read(server.dir().join(format!("{n}/manifest.json"))).unwrap();
        assert_eq!(manifest, image.manifest.bytes(), "{source}");
    }
}

#[test]
fn memory_does_not_grow_with_what_is_fetched() {
    let upstream = Upstream::start();
    let blobs: Vec<Blob> = (0..6).map(|n| Blob::random(50 + n, 24 << 20)).collect();
    for blob in &blobs {
        upstream.add_blob("app", blob);
    }
    let server = mirror(&upstream.url()).start();
    let client = server.client();
    // The first one pays for what is made once.
    assert_blob(&client, "app", &blobs[0]);
    let before = server.memory_kib("VmHWM");
    thread::scope(|scope| {
        for blob in &blobs[1..] {
            for _ in 0..3 {
                scope.spawn(|| assert_blob(&client, "app", blob));
            }
        }
    });
    let grown = server.memory_kib("VmHWM").saturating_sub(before) / 1024;
    assert!(grown < 48, "{grown} MiB for 120 MiB in 5 fetches");
    assert_eq!(upstream.count("GET /v2/app/blobs/"), blobs.len());
}
