//! Webhooks: the events of CNCF distribution, delivered in order and again until they are taken, and never at the cost of
//! a request.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    migrate::docker_registry,
    support::{
        http::{Client, with_query},
        image::{Blob, Image, Manifest, OCI_INDEX, OCI_MANIFEST, open_upload, push_blob},
        server::{Server, eventually},
    },
};

/// A request that an endpoint got.
#[derive(Clone, Debug)]
struct Received {
    path: String,
    headers: String,
    body: Value,
}

/// A status, and where to go instead.
type Answer = (u16, Option<String>);

/// A webhook's server: records what it gets, and answers as told.
struct Endpoint {
    addr: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    stopped: Arc<AtomicBool>,
}

impl Endpoint {
    fn new() -> Self {
        Self::answering(|_, _| (200, None))
    }

    /// `answer` is asked with the number of the request, from 0, and its path.
    fn answering(answer: impl Fn(usize, &str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address");
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let stopped: Arc<AtomicBool> = Arc::default();
        let (log, stop, answer) = (received.clone(), stopped.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let (log, answer) = (log.clone(), answer.clone());
                let stream = stream.expect("a connection");
                thread::spawn(move || serve(stream, &log, &*answer));
            }
        });
        Endpoint {
            addr,
            received,
            stopped,
        }
    }

    fn url(&self) -> String {
        format!("http://{}/events", self.addr)
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// The events of all envelopes so far, once there are `count`.
    #[track_caller]
    fn events(&self, count: usize) -> Vec<Value> {
        eventually(&format!("{count} events"), || {
            let received = self.received();
            (received.len() >= count).then_some(())
        });
        self.received().iter().map(event).collect()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.addr);
    }
}

fn event(received: &Received) -> Value {
    let events = received.body["events"].as_array().expect("an envelope");
    assert_eq!(events.len(), 1, "one event an envelope: {received:?}");
    events[0].clone()
}

fn serve(stream: TcpStream, log: &Mutex<Vec<Received>>, answer: &dyn Fn(usize, &str) -> Answer) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match reader.read_line(&mut head) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        let headers = head.to_ascii_lowercase();
        let length = headers
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.trim().parse().expect("a length"));
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let path = head.split(' ').nth(1).expect("a path").to_owned();
        let number = {
            let mut log = log.lock().unwrap();
            log.push(Received {
                path: path.clone(),
                headers,
                body: serde_json::from_slice(&body).expect("JSON"),
            });
            log.len() - 1
        };
        let (status, location) = answer(number, &path);
        let location = location.map_or(String::new(), |to| format!("Location: {to}\r\n"));
        let text = format!("HTTP/1.1 {status} X\r\n{location}Content-Length: 0\r\n\r\n");
        if reader.get_mut().write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

/// A server whose only endpoint is `endpoint`, with more settings of it in YAML.
fn notifying(url: &str, more: &str) -> Server {
    let endpoints = format!("[{{name: hook, url: \"{url}\", timeout: 5s{more}}}]");
    Server::new().set("notifications.endpoints", &endpoints)
}

/// The same story for ours and for distribution's: one request after the other, with the status of each.
fn story(client: &Client) -> (Vec<u16>, usize) {
    let client = &Client::new(client.addr()).with_header("User-Agent", "story/1");
    let mut statuses = Vec::new();
    let image = Image::builder(1).layers(2).layer_size(100).build();
    for blob in image.blobs() {
        statuses.push(push_blob(client, "team/app", blob).status);
        let mount = format!(
            "/v2/other/blobs/uploads/?mount={}&from=team/app",
            blob.digest
        );
        statuses.push(client.post(&mount).send().status);
    }
    let manifest = &image.manifest;
    statuses.push(manifest.push(client, "team/app", "v1").status);
    statuses.push(manifest.push(client, "team/app", manifest.digest()).status);
    let accept = format!("{OCI_MANIFEST}, {OCI_INDEX}");
    let by_digest = format!("/v2/team/app/manifests/{}", manifest.digest());
    for target in ["/v2/team/app/manifests/v1", &by_digest] {
        for method in ["HEAD", "GET"] {
            let request = client.request(method, target).header("Accept", &accept);
            statuses.push(request.send().status);
        }
        let etag = format!("\"{}\"", manifest.digest());
        let request = client.get(target).header("Accept", &accept);
        statuses.push(request.header("If-None-Match", etag).send().status);
    }
    let layer = image.blobs().last().expect("a layer");
    let blob = format!("/v2/team/app/blobs/{}", layer.digest);
    statuses.push(client.head(&blob).send().status);
    statuses.push(client.get(&blob).send().status);
    statuses.push(client.get(&blob).header("Range", "bytes=0-3").send().status);
    let etag = format!("\"{}\"", layer.digest);
    statuses.push(
        client
            .get(&blob)
            .header("If-None-Match", etag)
            .send()
            .status,
    );
    let index = Manifest::index([manifest]).edit(|value| {
        value["manifests"][0]["annotations"] = json!({ "of": "one" });
        value["manifests"][0]["platform"] = json!({ "architecture": "arm64", "os": "linux" });
    });
    statuses.push(index.push(client, "team/app", "all").status);
    // What happens to nobody, and asks of nothing, is no event.
    statuses.push(client.get("/v2/team/app/manifests/none").send().status);
    statuses.push(client.get("/v2/team/app/tags/list").send().status);
    statuses.push(client.delete(&by_digest).send().status);
    statuses.push(client.delete(&blob).send().status);
    let events = 3 + 3 + 2 + 4 + 4 + 1 + 2 + 1;
    (statuses, events)
}

/// What is another in each run, given a name by where it first appears.
fn normalised(events: Vec<Value>, server: SocketAddr) -> Vec<Value> {
    let mut requests = Vec::new();
    let mut ids = Vec::new();
    events
        .into_iter()
        .map(|mut event| {
            let id = event["id"].take();
            let id = id.as_str().expect("an id").to_owned();
            assert!(uuid(&id) && !ids.contains(&id), "{id}");
            ids.push(id);
            let timestamp = event["timestamp"].take();
            let timestamp = timestamp.as_str().expect("a time");
            assert!(timestamp.starts_with("20") && timestamp.ends_with('Z'));
            let request = event["request"]["id"].as_str().expect("an id").to_owned();
            assert!(uuid(&request), "{request}");
            if !requests.contains(&request) {
                requests.push(request.clone());
            }
            let number = requests.iter().position(|known| *known == request);
            event["request"]["id"] = json!(number);
            let addr = event["request"]["addr"].take();
            let addr: SocketAddr = addr.as_str().expect("an address").parse().unwrap();
            assert!(addr.ip().is_loopback());
            let source = &mut event["source"];
            assert!(uuid(source["instanceID"].take().as_str().expect("an id")));
            assert!(!source["addr"].take().as_str().expect("a name").is_empty());
            let text = event.to_string().replace(&server.to_string(), "SERVER");
            serde_json::from_str(&text).expect("JSON")
        })
        .collect()
}

fn uuid(text: &str) -> bool {
    text.len() == 36 && text.matches('-').count() == 4
}

#[test]
fn events_are_those_of_distribution_field_for_field() {
    let mut told = Vec::new();
    for is_theirs in [false, true] {
        let endpoint = Endpoint::new();
        let more = ", headers: {Authorization: [Bearer t0ken], X-Two: [a, b]}";
        let mut server = notifying(&endpoint.url(), more)
            .set("notifications.events", "{includereferences: true}")
            .set("storage.delete", "{enabled: true}");
        if is_theirs {
            server = docker_registry(server);
        }
        let server = server.start();
        let (statuses, count) = story(&server.client());
        let events = normalised(endpoint.events(count), server.addr());
        assert_eq!(events.len(), count, "{events:#?}");
        for received in endpoint.received() {
            assert_eq!(received.path, "/events");
            for header in [
                "content-type: application/vnd.docker.distribution.events.v1+json\r\n",
                "authorization: bearer t0ken\r\n",
                "x-two: a\r\n",
                "x-two: b\r\n",
            ] {
                assert!(received.headers.contains(header), "{received:?}");
            }
        }
        told.push((statuses, events));
    }
    let (ours, theirs) = (&told[0], &told[1]);
    assert_eq!(ours.0, theirs.0, "the same requests, the same answers");
    for (ours, theirs) in ours.1.iter().zip(&theirs.1) {
        assert_eq!(ours, theirs);
    }
}

/// What distribution 2 cannot do.
#[test]
fn deleted_tags_and_tags_beside_a_digest_are_events() {
    let endpoint = Endpoint::new();
    let server = notifying(&endpoint.url(), ", ignore: {actions: [pull]}").start();
    let client = server.client();
    let image = Image::new(1);
    for blob in image.blobs() {
        push_blob(&client, "team/app", blob);
    }
    let blobs = image.blobs().count();
    let digest = image.digest();
    client
        .put(&format!("/v2/team/app/manifests/{digest}?tag=a&tag=b"))
        .header("Content-Type", OCI_MANIFEST)
        .body(image.manifest.bytes())
        .send()
        .expect(201);
    client.delete("/v2/team/app/manifests/a").send().expect(202);
    client.get("/v2/team/app/manifests/b").send().expect(200);
    let signature = Image::artifact(2, "application/x.signature", &image.manifest);
    for blob in signature.blobs() {
        push_blob(&client, "team/app", blob);
    }
    let more = signature.blobs().count();
    let signed = signature
        .manifest
        .push(&client, "team/app", signature.digest());
    signed.expect(201);
    let target = format!("/v2/team/app/manifests/{digest}");
    client.delete(&target).send().expect(202);
    let events = endpoint.events(blobs + 3 + more + 1 + 3);
    let told: Vec<(String, Value, Value)> = events
        .iter()
        .map(|event| {
            let target = &event["target"];
            let action = event["action"].as_str().expect("an action").to_owned();
            (action, target["digest"].clone(), target["tag"].clone())
        })
        .skip(blobs)
        .collect();
    let of = |action: &str, digest: &str, tag: &str| {
        let some = |text: &str| {
            if text.is_empty() {
                Value::Null
            } else {
                json!(text)
            }
        };
        (action.to_owned(), some(digest), some(tag))
    };
    assert_eq!(
        told[..3],
        [
            of("push", digest, "a"),
            of("push", digest, "b"),
            of("delete", "", "a")
        ]
    );
    assert_eq!(
        told[3 + more..],
        [
            of("push", signature.digest(), ""),
            of("delete", digest, ""),
            of("delete", "", "b"),
            of("delete", signature.digest(), ""),
        ]
    );
}

#[test]
fn what_is_ignored_or_disabled_is_not_sent() {
    let (some, none) = (Endpoint::new(), Endpoint::new());
    let endpoints = format!(
        "[{{name: some, url: \"{}\", ignoredmediatypes: [application/octet-stream], ignore: {{actions: [pull, mount]}}}}, \
          {{name: none, url: \"{}\", disabled: true}}]",
        some.url(),
        none.url()
    );
    let server = Server::new()
        .set("notifications.endpoints", &endpoints)
        .start();
    let client = server.client();
    let image = Image::new(1);
    image.push(&client, "team/app", "v1").expect(201);
    image.assert_pullable(&client, "team/app", "v1");
    client
        .delete(&format!("/v2/team/app/manifests/{}", image.digest()))
        .send()
        .expect(202);
    let events = some.events(3);
    let actions: Vec<&Value> = events.iter().map(|event| &event["action"]).collect();
    assert_eq!(actions, ["push", "delete", "delete"]);
    assert!(
        events[0]["target"].get("references").is_none(),
        "{events:?}"
    );
    assert!(none.received().is_empty());
}

#[test]
fn an_endpoint_that_fails_gets_everything_later_and_in_order() {
    // Refuses the first, and every third after it.
    let endpoint = Endpoint::answering(|number, _| (if number % 3 == 0 { 503 } else { 202 }, None));
    let server = notifying(&endpoint.url(), ", threshold: 2, backoff: 20ms").start();
    let client = server.client();
    let blobs: Vec<Blob> = (0..20).map(|seed| Blob::random(seed, 10)).collect();
    for blob in &blobs {
        push_blob(&client, "team/app", blob);
    }
    eventually("the queue is empty", || {
        metric(
            &client,
            "registry_notifications_events_total{type=\"Successes\",to=\"hook\"}",
        )
        .filter(|taken| *taken == 20.0)
    });
    let received = endpoint.received();
    let taken: Vec<Value> = received
        .iter()
        .enumerate()
        .filter(|(number, _)| number % 3 != 0)
        .map(|(_, received)| event(received)["target"]["digest"].clone())
        .collect();
    let pushed: Vec<&str> = blobs.iter().map(|blob| blob.digest.as_str()).collect();
    assert_eq!(taken, pushed);
    for (name, value) in [
        (
            "registry_notifications_events_total{type=\"Events\",to=\"hook\"}",
            20.0,
        ),
        (
            "registry_notifications_events_total{type=\"Failures\",to=\"hook\"}",
            (received.len() - 20) as f64,
        ),
        (
            "registry_notifications_events_total{type=\"Errors\",to=\"hook\"}",
            0.0,
        ),
        (
            "registry_notifications_events_total{type=\"Dropped\",to=\"hook\"}",
            0.0,
        ),
    ] {
        assert_eq!(metric(&client, name), Some(value), "{name}");
    }
    eventually("nothing waits", || {
        metric(&client, "registry_notifications_pending{to=\"hook\"}").filter(|left| *left == 0.0)
    });
}

fn metric(client: &Client, name: &str) -> Option<f64> {
    let text = client.get("/metrics").send().expect(200).text();
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// Neither one that is not there nor one that never answers.
#[test]
fn a_dead_endpoint_delays_no_request_and_no_end() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = |listener: &TcpListener| format!("http://{}/", listener.local_addr().unwrap());
    let endpoints = format!(
        "[{{name: silent, url: \"{}\", timeout: 60s}}, {{name: gone, url: \"{}\", threshold: 1, backoff: 60s}}]",
        url(&silent),
        url(&gone)
    );
    drop(gone);
    let mut server = Server::new()
        .set("notifications.endpoints", &endpoints)
        .set("http.draintimeout", "1s")
        .start();
    let client = server.client();
    let started = Instant::now();
    let image = Image::new(1);
    image.push(&client, "team/app", "v1").expect(201);
    image.assert_pullable(&client, "team/app", "v1");
    eventually("the failure is said", || {
        server
            .log()
            .contains("gone did not take an event")
            .then_some(())
    });
    assert!(server.terminate().success());
    assert!(started.elapsed() < Duration::from_secs(30));
    let log = server.log();
    for name in ["silent", "gone"] {
        let lost = format!("were not delivered to {name} and are lost");
        assert!(log.contains(&lost), "{log}");
    }
}

#[test]
fn what_waits_when_the_server_is_told_to_stop_is_delivered() {
    let endpoint = Endpoint::answering(|_, _| {
        thread::sleep(Duration::from_millis(50));
        (200, None)
    });
    let mut server = notifying(&endpoint.url(), "").start();
    let client = server.client();
    for seed in 0..20 {
        push_blob(&client, "team/app", &Blob::random(seed, 10));
    }
    assert!(server.terminate().success());
    assert_eq!(endpoint.received().len(), 20);
    assert!(!server.log().contains("are lost"), "{}", server.log());
}

/// Headers carry tokens: they are for the server that was named, and for no log.
#[test]
fn secrets_go_to_the_endpoint_alone() {
    let other = Endpoint::new();
    let elsewhere = other.url();
    let endpoint = Endpoint::answering(move |number, path| match (number, path) {
        (0, _) => (307, Some(elsewhere.clone())),
        (1, _) => (302, Some("/moved".to_owned())),
        (_, path) if path.starts_with("/events") => (308, Some("/moved".to_owned())),
        _ => (200, None),
    });
    let more = ", threshold: 1, backoff: 10ms, headers: {X-Token: [hunter2]}";
    let url = format!("{}?key=hunter3", endpoint.url());
    let mut server = notifying(&url, more).env("RUST_LOG", "trace").start();
    let client = server.client();
    let location = open_upload(&client, "team/app");
    let blob = Blob::new(*b"content");
    client
        .put(&with_query(&location, "digest", &blob.digest))
        .body(blob.bytes.clone())
        .send()
        .expect(201);
    eventually("the event arrives where the endpoint says", || {
        let received = endpoint.received();
        received
            .iter()
            .any(|received| received.path == "/moved" && received.headers.contains("hunter2"))
            .then_some(())
    });
    assert!(server.terminate().success());
    assert!(other.received().is_empty(), "no other server is told");
    let log = server.log();
    assert!(log.contains("redirects to other servers"), "{log}");
    assert!(!log.contains("hunter"), "{log}");
}

#[test]
fn a_header_that_is_none_is_said_without_its_value() {
    let mut server = notifying("http://127.0.0.1:9/", ", headers: {\"X Y\": [hunter2]}");
    let (status, log) = server.run();
    assert!(!status.success());
    assert!(log.contains("X Y") && !log.contains("hunter2"), "{log}");
}
