//! The server as a service: health, metrics, the log, the end, and how much memory it takes.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::MetadataExt,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::support::{
    http::{Client, with_query},
    image::{Blob, Image, assert_blob, open_upload, push_blob},
    seed::Rng,
    server::{Server, eventually, free_port, serve},
};

#[test]
fn a_server_says_that_it_lives_and_is_ready() {
    let (_server, client) = serve();
    for target in ["/healthz", "/readyz"] {
        let reply = client.get(target).send().expect(200);
        assert_eq!(reply.text(), "ok\n", "{target}");
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert!(client.head(target).send().expect(200).body.is_empty());
    }
}

/// An operator takes a server out of service by making a file.
#[test]
fn a_server_is_not_ready_while_a_file_says_so() {
    let server = Server::new();
    let file = server.dir().join("out-of-service");
    let path = serde_json::to_string(&file).unwrap();
    let server = server
        .set(
            "health.file",
            &format!("[{{ file: {path}, interval: 50ms, threshold: 2 }}]"),
        )
        .start();
    let client = server.client();
    client.get("/readyz").send().expect(200);
    fs::write(&file, "").unwrap();
    eventually("it notices", || {
        let reply = client.get("/readyz").send();
        (reply.status == 503).then(|| {
            let text = reply.text();
            assert!(!text.contains("/tmp"), "{text}");
        })
    });
    client.get("/healthz").send().expect(200);
    fs::remove_file(&file).unwrap();
    eventually("it is ready again", || {
        (client.get("/readyz").send().status == 200).then_some(())
    });
}

#[test]
fn a_server_is_not_ready_without_those_it_depends_on() {
    let other = Server::new().start();
    let addr = other.addr();
    let server = Server::new()
        .set(
            "health.http",
            &format!(
                "[{{ uri: \"http://{addr}/nowhere?key=hunter2\", statuscode: 404, interval: 50ms, headers: {{ X-Key: [hunter2] }} }}]"
            ),
        )
        .set(
            "health.tcp",
            &format!("[{{ addr: \"{addr}\", interval: 50ms }}]"),
        )
        .start();
    let client = server.client();
    eventually("both were looked at", || {
        other.log().contains("HEAD /nowhere").then_some(())
    });
    client.get("/readyz").send().expect(200);
    drop(other);
    let reply = eventually("it notices", || {
        let reply = client.get("/readyz").send();
        (reply.status == 503).then_some(reply)
    });
    assert!(!reply.text().contains(&addr.to_string()), "{reply:?}");
    eventually("both are logged", || {
        let log = server.log();
        let http = log.contains(&format!("not ready: http://{addr}: "));
        let tcp = log.contains(&format!("not ready: {addr}: "));
        (http && tcp).then_some(())
    });
    assert!(!server.log().contains("hunter2"), "{}", server.log());
}

#[test]
fn a_server_without_its_disk_lives_and_is_not_ready() {
    let mut server = Server::new()
        .set("health.storagedriver", "{ interval: 50ms, threshold: 2 }")
        .start();
    let client = server.client();
    client.get("/readyz").send().expect(200);
    // What a drive that was pulled looks like: the folders are gone, and nothing can be made there.
    let away = server.dir().join("away");
    fs::rename(server.tree(), &away).unwrap();
    fs::write(server.tree(), "no folder").unwrap();
    let reply = eventually("it notices", || {
        let reply = client.get("/readyz").send();
        (reply.status == 503).then_some(reply)
    });
    let text = reply.text();
    assert!(
        !text.contains("os error") && !text.contains("/tmp"),
        "{text}"
    );
    client.get("/healthz").send().expect(200);
    // And back.
    fs::remove_file(server.tree()).unwrap();
    fs::rename(&away, server.tree()).unwrap();
    eventually("it is ready again", || {
        (client.get("/readyz").send().status == 200).then_some(())
    });
    assert_eq!(server.ended(), None);
}

/// `name{labels}` -> value.
fn metrics(client: &Client, target: &str) -> BTreeMap<String, f64> {
    let reply = client.get(target).send().expect(200);
    let media_type = reply.header("content-type").unwrap_or_default();
    assert!(
        media_type.starts_with("application/openmetrics-text")
            || media_type.starts_with("text/plain"),
        "{media_type}"
    );
    let text = reply.text();
    assert!(text.ends_with("# EOF\n"), "{text}");
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
            let value = value.parse().unwrap_or_else(|_| panic!("{line:?}"));
            (name.to_owned(), value)
        })
        .collect()
}

/// The sum of all lines of `name` with all of `labels`.
fn sum(metrics: &BTreeMap<String, f64>, name: &str, labels: &[&str]) -> f64 {
    metrics
        .iter()
        .filter(|(line, _)| line.split('{').next() == Some(name))
        .filter(|(line, _)| labels.iter().all(|label| line.contains(label)))
        .map(|(_, value)| value)
        .sum()
}

#[test]
fn metrics_count_requests_bytes_calls_and_uploads() {
    let (_server, client) = serve();
    let image = Image::builder(1).layer_size(100_000).build();
    let before = metrics(&client, "/metrics");
    image.push(&client, "team/app", "v1");
    for _ in 0..3 {
        client.get("/v2/team/app/manifests/v1").send().expect(200);
    }
    client.get("/v2/team/app/manifests/v2").send().expect(404);
    client.get("/v2/BAD/tags/list").send().expect(400);
    let open = open_upload(&client, "team/app");
    let after = metrics(&client, "/metrics");
    let grew = |name: &str, labels: &[&str]| sum(&after, name, labels) - sum(&before, name, labels);
    let requests = "registry_http_requests_total";
    for (operation, status, count) in [
        ("get-manifest", 200, 3.0),
        ("get-manifest", 404, 1.0),
        ("put-manifest", 201, 1.0),
        ("start-upload", 202, 4.0),
        ("finish-upload", 201, 3.0),
        ("unknown", 400, 1.0),
    ] {
        let operation = format!("operation=\"{operation}\"");
        let status = format!("status=\"{status}\"");
        assert_eq!(grew(requests, &[&operation, &status]), count, "{operation}");
    }
    let bytes = "registry_http_request_bytes_total";
    let pushed: usize = image.blobs().map(Blob::len).sum();
    assert_eq!(
        grew(bytes, &["operation=\"finish-upload\"", "direction=\"in\""]),
        pushed as f64
    );
    let sent = grew(bytes, &["operation=\"get-manifest\"", "direction=\"out\""]);
    assert!(sent >= 3.0 * image.manifest.blob.len() as f64, "{sent}");
    assert!(grew("registry_storage_calls_total", &[]) > 10.0);
    let duration = "registry_http_request_duration_seconds_count";
    assert_eq!(grew(duration, &["operation=\"put-manifest\""]), 1.0);
    assert_eq!(grew("registry_uploads_open", &[]), 1.0);
    client.delete(&open).send().expect(204);
    let last = metrics(&client, "/metrics");
    assert_eq!(
        sum(&last, "registry_uploads_open", &[]),
        sum(&before, "registry_uploads_open", &[])
    );
    assert!(sum(&last, "registry_disk_free_bytes", &[]) > 0.0);
    assert!(
        sum(&last, "registry_disk_total_bytes", &[]) >= sum(&last, "registry_disk_free_bytes", &[])
    );
    let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
    assert_eq!(sum(&last, "registry_build_info", &[&version]), 1.0);
}

/// What clients can choose is no label, so they cannot fill the memory.
#[test]
fn metrics_do_not_grow_with_names() {
    let (_server, client) = serve();
    let ask = |n: usize| {
        client.get(&format!("/v2/repo-{n}/tags/list")).send();
        client.get(&format!("/v2/repo/manifests/tag-{n}")).send();
        client.request("BREW", &format!("/nowhere/{n}")).send();
    };
    ask(0);
    metrics(&client, "/metrics");
    let before = metrics(&client, "/metrics").len();
    (1..50).for_each(ask);
    assert!(metrics(&client, "/metrics").len() <= before + 2);
}

#[test]
fn metrics_may_have_an_address_of_their_own() {
    let port = free_port();
    let server = Server::new()
        .set("http.debug.addr", &format!("127.0.0.1:{port}"))
        .set("http.debug.prometheus.enabled", "true")
        .set("http.debug.prometheus.path", "/numbers")
        .start();
    let client = server.client();
    client.get("/v2/").send().expect(200);
    client.get("/metrics").send().expect(404);
    client.get("/numbers").send().expect(404);
    let debug = Client::new(([127, 0, 0, 1], port).into());
    let found = metrics(&debug, "/numbers");
    assert!(
        sum(
            &found,
            "registry_http_requests_total",
            &["operation=\"ping\""]
        ) >= 1.0
    );
    debug.get("/healthz").send().expect(200);
}

/// Lines of the log that `is_it`.
fn lines(server: &Server, is_it: impl Fn(&str) -> bool) -> Vec<String> {
    server
        .log()
        .lines()
        .filter(|line| is_it(line))
        .map(str::to_owned)
        .collect()
}

#[test]
fn each_request_leaves_one_line() {
    let (server, client) = serve();
    let image = Image::builder(2).layer_size(5000).build();
    image.push(&client, "team/app", "v1");
    let layer = &image.layers[0];
    client
        .get(&format!("/v2/team/app/blobs/{}", layer.digest))
        .send()
        .expect(200);
    client.get("/v2/team/app/manifests/v2").send().expect(404);
    client.get("/v2/_catalog").send().expect(200);
    for (operation, words) in [
        (
            "get-blob",
            vec!["team/app", &layer.digest, "status=200", "sent=5000", "ms="],
        ),
        ("put-manifest", vec!["team/app", "v1", "status=201", "ms="]),
        (
            "get-manifest",
            vec!["team/app", "v2", "status=404", "MANIFEST_UNKNOWN"],
        ),
        ("list-repositories", vec!["status=200", "client=127.0.0.1"]),
    ] {
        let found = eventually("the line is written", || {
            let found = lines(&server, |line| {
                line.contains(operation) && !line.contains("audit:")
            });
            (!found.is_empty()).then_some(found)
        });
        assert_eq!(found.len(), 1, "{operation}: {found:#?}");
        assert!(!found[0].contains("user="), "nobody said who: {}", found[0]);
        for word in words {
            assert!(found[0].contains(word), "{word:?} in {}", found[0]);
        }
    }
    assert_eq!(
        lines(&server, |line| line.contains("finish-upload")
            && !line.contains("audit:"))
        .len(),
        3
    );
}

#[test]
fn the_log_can_be_told_to_be_silent_about_requests() {
    for (server, is_silent) in [
        (Server::new().set("log.accesslog.disabled", "true"), true),
        (Server::new().set("log.level", "error"), true),
        (Server::new().env("RUST_LOG", "registry=warn"), true),
        (
            Server::new()
                .set("log.level", "error")
                .env("RUST_LOG", "info"),
            false,
        ),
        (Server::new(), false),
    ] {
        let mut server = server.start();
        server.client().get("/v2/_catalog").send().expect(200);
        assert!(server.terminate().success());
        let found = lines(&server, |line| line.contains("list-repositories"));
        assert_eq!(found.is_empty(), is_silent, "{found:#?}");
    }
}

#[test]
fn the_log_can_be_json() {
    let mut server = Server::new()
        .set("log.formatter", "json")
        .set("log.fields", "{ service: registry, place: lab }")
        .start();
    let client = server.client();
    client.get("/v2/team%0Aapp/tags/list").send().expect(400);
    client.get("/v2/_catalog").send().expect(200);
    assert!(server.terminate().success());
    let log = server.log();
    let mut found = 0;
    for line in log.lines() {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_eq!(value["service"], "registry", "{line}");
        assert_eq!(value["place"], "lab", "{line}");
        assert!(
            value["time"].is_string() && value["level"].is_string(),
            "{line}"
        );
        if line.contains("list-repositories") {
            assert_eq!(value["status"], 200, "{line}");
            found += 1;
        }
    }
    assert_eq!(found, 1, "{log}");
}

/// The journal wants a priority before each line, and brings its own time.
#[test]
fn under_the_journal_each_line_has_its_priority() {
    let server = Server::new();
    let log = server.dir().join("server.log");
    fs::write(&log, "").unwrap();
    let meta = fs::metadata(&log).unwrap();
    let stream = format!("{}:{}", meta.dev(), meta.ino());
    let mut server = server.env("JOURNAL_STREAM", &stream).start();
    server.client().get("/v2/_catalog").send().expect(200);
    assert!(server.terminate().success());
    let log = server.log();
    for line in log.lines() {
        let priority = line.get(..3).unwrap_or_default();
        assert!(["<3>", "<4>", "<6>", "<7>"].contains(&priority), "{line:?}");
    }
    let found = lines(&server, |line| line.contains("list-repositories"));
    assert!(found.len() == 1 && found[0].starts_with("<6>"), "{found:?}");
}

#[test]
fn nobody_forges_a_line_of_the_log() {
    let (mut server, client) = serve();
    for target in [
        "/v2/team%0A2026-01-01%20INFO%20forged/tags/list",
        "/v2/team/app/manifests/v1%0D%0Aforged",
        "/nowhere%0Aforged",
        "/v2/_catalog?n=1%0Aforged",
        "/v2/team/app/manifests/%1B%5B31mforged",
    ] {
        let reply = client
            .get(target)
            .header("User-Agent", "forged \u{1b}[31m")
            .send();
        assert!((400..500).contains(&reply.status));
    }
    assert!(server.terminate().success());
    let log = server.log();
    for line in log.lines() {
        assert!(!line.starts_with("forged"), "{log}");
        assert!(!line.contains('\u{1b}'), "{line:?}");
    }
}

#[test]
fn an_idle_server_ends_at_once_and_in_order() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (mut server, client) = serve();
        client.get("/v2/").send().expect(200);
        // Connections that are open and idle, also before their first byte, are nothing to wait for.
        let silent = TcpStream::connect(server.addr()).unwrap();
        let started = Instant::now();
        server.signal(signal);
        let status = server.wait();
        assert!(status.success(), "{signal}: {status}");
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "{signal}: {:?}",
            started.elapsed()
        );
        drop(silent);
        assert!(!server.log().contains("panicked"));
    }
}

/// Waits until the server takes no new connections: it knows that it has to end.
fn wait_until_it_drains(server: &Server) {
    let addr = server.addr();
    eventually("new connections are refused", || {
        TcpStream::connect(addr).is_err().then_some(())
    });
}

#[test]
fn a_server_that_ends_finishes_the_uploads_in_flight() {
    let (mut server, client) = serve();
    let blobs: Vec<Blob> = (0..3).map(|n| Blob::random(3 + n, 2_000_000)).collect();
    let session = open_upload(&client, "team/app");
    let mut patch = client
        .patch(&session)
        .start(blobs[0].len() as u64)
        .expect("sent");
    patch.write(&blobs[0].bytes[..1_000_000]).expect("sent");
    let mut put = client
        .put(&with_query(
            &open_upload(&client, "team/app"),
            "digest",
            &blobs[1].digest,
        ))
        .start(blobs[1].len() as u64)
        .expect("sent");
    put.write(&blobs[1].bytes[..1_000_000]).expect("sent");
    let mut stream = client
        .post("/v2/team/app/blobs/uploads/")
        .query("digest", &blobs[2].digest)
        .start_chunked()
        .expect("sent");
    stream.write(&blobs[2].bytes[..1_000_000]).expect("sent");
    // All three are under way: their first bytes are on the disk.
    let data = server
        .tree()
        .join("docker/registry/v2/repositories/team/app/_uploads");
    eventually("the server has some of each", || {
        let begun = fs::read_dir(&data)
            .ok()?
            .filter_map(|entry| entry.ok()?.path().join("data").metadata().ok())
            .filter(|meta| meta.len() > 0)
            .count();
        (begun == 3).then_some(())
    });
    server.signal(Signal::SIGTERM);
    wait_until_it_drains(&server);
    assert_eq!(server.ended(), None, "{}", server.log());
    patch.write(&blobs[0].bytes[1_000_000..]).expect("sent");
    put.write(&blobs[1].bytes[1_000_000..]).expect("sent");
    stream.write(&blobs[2].bytes[1_000_000..]).expect("sent");
    stream.end().expect("sent");
    let reply = patch.response().expect("an answer").expect(202);
    assert_eq!(reply.header("range"), Some("0-1999999"));
    put.response().expect("an answer").expect(201);
    stream.response().expect("an answer").expect(201);
    let status = server.wait();
    assert!(status.success(), "{status}\n{}", server.log());
    server.restart();
    let client = server.client();
    for blob in &blobs[1..] {
        assert_blob(&client, "team/app", blob);
    }
    client
        .put(&with_query(&session, "digest", &blobs[0].digest))
        .send()
        .expect(201);
    assert_blob(&client, "team/app", &blobs[0]);
}

#[test]
fn a_server_that_ends_finishes_the_downloads_in_flight() {
    let (mut server, client) = serve();
    // More than the buffers of both sides hold.
    let blob = Blob::random(6, 24 * 1024 * 1024);
    push_blob(&client, "team/app", &blob);
    let mut stream = TcpStream::connect(server.addr()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let target = format!("/v2/team/app/blobs/{}", blob.digest);
    write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut first = [0; 1000];
    stream.read_exact(&mut first).unwrap();
    server.signal(Signal::SIGTERM);
    wait_until_it_drains(&server);
    let mut all = first.to_vec();
    stream.read_to_end(&mut all).unwrap();
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    assert!(
        all[end + 4..] == blob.bytes,
        "{} bytes",
        all.len() - end - 4
    );
    assert!(server.wait().success());
}

#[test]
fn a_server_that_ends_waits_for_a_silent_upload_no_longer_than_told() {
    let mut server = Server::new().set("http.draintimeout", "1s").start();
    let client = server.client();
    let session = open_upload(&client, "team/app");
    let mut patch = client.patch(&session).start(2_000_000).expect("sent");
    patch.write(&vec![7; 600_000]).expect("sent");
    eventually("the server has some of it", || {
        let status = client.get(&session).send().expect(204);
        (status.header("range") != Some("0-0")).then_some(())
    });
    let started = Instant::now();
    server.signal(Signal::SIGTERM);
    let status = server.wait();
    assert!(status.success(), "{status}");
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn a_tree_that_does_not_exist_is_made() {
    let server = Server::new();
    let root = server.dir().join("not/yet/there");
    let server = server.root(&root).start();
    let image = Image::new(7);
    image.push(&server.client(), "team/app", "v1");
    image.assert_pullable(&server.client(), "team/app", "v1");
    assert!(root.join("docker/registry/v2/blobs").is_dir());
}

#[test]
fn two_servers_do_not_get_one_address() {
    let (server, _client) = serve();
    let mut second = Server::new().set("http.addr", &server.addr().to_string());
    let (status, log) = second.run();
    assert!(!status.success());
    assert!(log.contains(&server.addr().to_string()), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn headers_of_the_configuration_are_sent_with_every_answer() {
    let server = Server::new()
        .set(
            "http.headers",
            "{ Access-Control-Allow-Origin: ['*'], X-Lab: [one, two] }",
        )
        .start();
    let client = server.client();
    for target in ["/v2/", "/v2/BAD/tags/list", "/nowhere", "/healthz"] {
        let reply = client.get(target).send();
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
        assert_eq!(reply.header_values("x-lab"), ["one", "two"], "{target}");
    }
}

#[test]
fn who_opens_the_address_in_a_browser_is_told_what_it_is() {
    let (server, client) = serve();
    let text = client.get("/").send().expect(200).text();
    assert!(text.contains("container registry"), "{text}");
    assert!(
        text.contains(&format!("docker push {}", server.addr())),
        "{text}"
    );
}

/// MiB that each of the pushes has. `TEST_PUSH_MIB=1024` is what the specification of this server speaks of.
fn push_mib() -> usize {
    let told = std::env::var("TEST_PUSH_MIB").ok();
    told.map_or(32, |text| text.parse().expect("TEST_PUSH_MIB is a number"))
}

/// At most 64 MiB with 16 pushes at once, whatever their size.
#[test]
fn memory_is_bounded_with_many_pushes_at_once() {
    const MIB: usize = 1024 * 1024;
    let (server, client) = serve();
    let parts = push_mib();
    let pattern = Rng::new(8).bytes(MIB);
    thread::scope(|scope| {
        for n in 0..16_u64 {
            let (client, pattern) = (client.clone(), &pattern);
            scope.spawn(move || {
                // Each part is the pattern with another beginning.
                let part = |i: usize| {
                    let mut part = pattern.clone();
                    part[..8].copy_from_slice(&n.to_le_bytes());
                    part[8..16].copy_from_slice(&(i as u64).to_le_bytes());
                    part
                };
                let location = open_upload(&client, &format!("team/app-{}", n % 3));
                let mut hash = Sha256::new();
                // All the ways in which clients send: one PATCH with and without length, many PATCHes.
                if n % 3 == 2 {
                    for i in 0..parts {
                        let part = part(i);
                        hash.update(&part);
                        client.patch(&location).body(part).send().expect(202);
                    }
                } else {
                    let patch = client.patch(&location);
                    let mut exchange = if n % 3 == 0 {
                        patch.start((parts * MIB) as u64)
                    } else {
                        patch.start_chunked()
                    }
                    .expect("sent");
                    for i in 0..parts {
                        let part = part(i);
                        hash.update(&part);
                        exchange.write(&part).expect("sent");
                    }
                    exchange.end().expect("sent");
                    exchange.response().expect("an answer").expect(202);
                }
                let hex: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
                client
                    .put(&with_query(&location, "digest", &format!("sha256:{hex}")))
                    .send()
                    .expect(201);
            });
        }
    });
    let peak = server.memory_kib("VmHWM");
    eprintln!(
        "16 pushes of {parts} MiB at once: {} MiB at the most",
        peak / 1024
    );
    assert!(peak <= 64 * 1024, "{peak} KiB");
}
