//! Who takes up connections, memory and time of the server, and whether the others notice.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::auth::{Home, basic};
use crate::support::crowd::{Crowd, room_for_files};
use crate::support::http::Client;
use crate::support::image::{Blob, Image, open_upload, push_blob};
use crate::support::server::{Server, eventually};

/// Requests that are measured at a time.
const SAMPLES: usize = 300;
/// What counts as the same on a machine that does other things as well: latencies below it say nothing of the server.
const NOISE: [(usize, Duration); 2] = [
    (50, Duration::from_millis(10)),
    (99, Duration::from_millis(100)),
];

/// How long requests take: the median and the 99th percentile are compared.
struct Latencies(Vec<Duration>);

impl Latencies {
    /// Of `ask`, on this thread.
    fn of(mut ask: impl FnMut()) -> Self {
        let mut all: Vec<Duration> = (0..SAMPLES)
            .map(|_| {
                let started = Instant::now();
                ask();
                let took = started.elapsed();
                // Some seconds together, or a burst would fall between two of what the others do.
                thread::sleep(Duration::from_millis(3));
                took
            })
            .collect();
        all.sort();
        Latencies(all)
    }

    fn percentile(&self, percent: usize) -> Duration {
        self.0[(self.0.len() - 1) * percent / 100]
    }

    /// Whether it took at most twice as long as `alone`, but for the noise.
    fn is_within_twice(&self, alone: &Latencies, what: &str) -> bool {
        NOISE.into_iter().all(|(percent, noise)| {
            let (alone, now) = (alone.percentile(percent), self.percentile(percent));
            eprintln!("{what}: p{percent} alone {alone:?}, now {now:?}");
            now <= alone * 2 + noise
        })
    }
}

/// Measures what `during` does until it is as fast as `alone`: what else this machine does comes and goes, and what an attack
/// costs does not.
#[track_caller]
fn assert_unnoticed(what: &str, alone: &Latencies, mut during: impl FnMut() -> Latencies) {
    let is_unnoticed = (0..4).any(|_| during().is_within_twice(alone, what));
    assert!(is_unnoticed, "{what}: who is served notices");
}

fn pulls(client: &Client, path: &str) -> Latencies {
    Latencies::of(|| {
        client.get(path).send().expect(200);
    })
}

fn metric(client: &Client, name: &str) -> u64 {
    let text = client.get("/metrics").send().expect(200).text();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0, |value| value.trim().parse().expect("a number"))
}

#[test]
fn ten_thousand_slow_connections_are_not_noticed() {
    let server = Server::new().start();
    Image::new(1).push(&server.client(), "team/app", "v1");
    let path = "/v2/team/app/manifests/v1";
    let count = (room_for_files().saturating_sub(1000)).min(10_000);
    eprintln!("slow connections: {count}");
    assert!(
        count > 1024,
        "this machine cannot even fill the server: ulimit -n"
    );

    // One that keeps its connection, and one that makes a new one each time.
    let clients = [server.client(), server.client().without_keep_alive()];
    let alone = clients.each_ref().map(|client| {
        pulls(client, path);
        pulls(client, path)
    });
    let memory_before = server.memory_kib("VmRSS");
    let crowd = Crowd::gather(server.addr(), count, 40);
    eventually("all of them came", || {
        (crowd.opened() >= count).then_some(())
    });
    eventually("the server is full", || {
        (metric(&server.client(), "registry_http_connections ") > 1000).then_some(())
    });
    for ((client, alone), what) in clients.iter().zip(&alone).zip(["kept", "new"]) {
        assert_unnoticed(what, alone, || pulls(client, path));
    }
    let memory = server.memory_kib("VmHWM") - memory_before;
    let turned_away = metric(
        &server.client(),
        "registry_http_connections_turned_away_total{reason=\"replaced\"}",
    );
    drop(crowd);
    assert!(turned_away > 500, "{turned_away}");
    // 1024 connections, at some 30 KiB each.
    assert!(memory < 64 << 10, "{memory} KiB more");
    assert!(server.log().contains("(http.maxconnections) are open"));
}

/// Many names, many addresses, each wrong password a new one: what is hashed for it is not taken from those who are served.
#[test]
fn password_spraying_is_not_noticed_by_who_is_served() {
    let home = Home::new("");
    // As long as a hash takes in a release build: this is not about the speed of debug builds.
    let users = (0..5).map(|n| (format!("user{n}"), format!("right{n}")));
    let users = users.chain([("alice".to_owned(), "secret".to_owned())]);
    let lines: Vec<String> = users
        .map(|(name, password)| format!("{name}:{}", bcrypt::hash(password, 6).unwrap()))
        .collect();
    fs::write(home.path("htpasswd"), lines.join("\n")).unwrap();
    let server = home.serve(None);
    let alice = server
        .client()
        .with_header("Authorization", &basic("alice", "secret"));
    Image::new(2).push(&alice, "team/app", "v1");
    let pull = || {
        alice.get("/v2/team/app/manifests/v1").send().expect(200);
    };
    Latencies::of(pull);
    let alone = Latencies::of(pull);
    let memory_before = server.memory_kib("VmRSS");

    let over = Arc::new(AtomicBool::new(false));
    let tried = Arc::new(AtomicUsize::new(0));
    let sprayers: Vec<_> = (0..32u8)
        .map(|n| {
            let (addr, over, tried) = (server.addr(), over.clone(), tried.clone());
            thread::spawn(move || {
                let client = Client::new(addr).at_address([127, 78, 0, n].into());
                while !over.load(Ordering::Relaxed) {
                    let attempt = tried.fetch_add(1, Ordering::Relaxed);
                    let guess = format!("guess-{attempt}");
                    let client = client.clone().with_header(
                        "Authorization",
                        &basic(&format!("user{}", attempt % 500), &guess),
                    );
                    // Err: the server is busy with others, which is the idea.
                    let Ok(reply) = client.get("/v2/").try_send() else {
                        continue;
                    };
                    assert!(matches!(reply.status, 401 | 429), "{}", reply.status);
                    if reply.status == 429 {
                        thread::sleep(Duration::from_millis(20));
                    }
                }
            })
        })
        .collect();
    eventually("they are at it", || {
        (tried.load(Ordering::Relaxed) > 100).then_some(())
    });
    assert_unnoticed("spraying", &alone, || Latencies::of(pull));
    let memory = server.memory_kib("VmHWM") - memory_before;
    let hashed = server.log().matches("wrong password or user").count();
    over.store(true, Ordering::Relaxed);
    for sprayer in sprayers {
        sprayer.join().expect("only refusals");
    }
    assert!(hashed > 10, "only {hashed} passwords were looked at");
    assert!(memory < 64 << 10, "{memory} KiB more");
}

/// An address may have its share of the connections; who comes from another one gets in, also when they are all at work.
#[test]
fn an_address_has_its_share_and_no_more() {
    let server = Server::new().set("http.maxconnections", "16").start();
    // More than the kernel takes for a client that does not read.
    let blob = Blob::random(3, 16 << 20);
    push_blob(&server.client(), "team/app", &blob);
    let get = format!(
        "GET /v2/team/app/blobs/{} HTTP/1.1\r\nHost: x\r\n\r\n",
        blob.digest
    );
    // A download that has begun, and waits for its client.
    let at_work = |address: [u8; 4]| {
        let client = Client::new(server.addr()).at_address(address.into());
        let mut stream = client.connect().expect("connects");
        stream.write_all(get.as_bytes()).expect("sent");
        // Err: closed with the request unread.
        (stream.peek(&mut [0]).unwrap_or(0) == 1).then_some(stream)
    };
    // This machine's own addresses may have three quarters each.
    let first: Vec<_> = (0..13).filter_map(|_| at_work([127, 79, 0, 1])).collect();
    assert_eq!(
        first.len(),
        12,
        "all of them are at work, so one more is closed"
    );
    let second: Vec<_> = (0..4).filter_map(|_| at_work([127, 79, 0, 2])).collect();
    assert_eq!(second.len(), 4);
    let fresh = server.client().without_keep_alive();
    for _ in 0..20 {
        fresh.get("/v2/").send().expect(200);
    }
    let whole = |streams: Vec<TcpStream>| {
        let lengths = streams.into_iter().map(|mut stream| {
            stream.shutdown(Shutdown::Write).expect("said");
            let mut bytes = Vec::new();
            // Err: cut off.
            let _ = stream.read_to_end(&mut bytes);
            bytes.len()
        });
        lengths.filter(|len| *len > blob.len()).count()
    };
    let (first, second) = (whole(first), whole(second));
    assert!((8..12).contains(&first), "{first} of the first twelve");
    assert_eq!(second, 4, "who has less is left alone");
}

/// A body that dribbles is given up, one that is slow and steady is not, and what was sent is kept for both.
#[test]
fn slow_is_not_too_slow() {
    let server = Server::new()
        .set("http.timeouts.stall", "1s")
        .set("http.timeouts.minrate", "1KiB")
        .start();
    let send = |piece: usize, pieces: usize| {
        let upload = open_upload(&server.client(), "team/app");
        let mut stream = server.client().connect().expect("connects");
        let head = format!(
            "PATCH {upload} HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
            piece * pieces
        );
        stream.write_all(head.as_bytes()).expect("sent");
        let started = Instant::now();
        for _ in 0..pieces {
            thread::sleep(Duration::from_millis(100));
            // Err: given up.
            if stream.write_all(&vec![7; piece]).is_err() {
                break;
            }
        }
        let mut answer = [0; 12];
        // Err: closed with what it had sent unread, after the answer.
        let _ = stream.read_exact(&mut answer);
        (
            String::from_utf8_lossy(&answer).into_owned(),
            started.elapsed(),
        )
    };
    let (answer, took) = send(300, 30);
    assert_eq!(answer, "HTTP/1.1 202", "after {took:?}");
    assert!(took > Duration::from_secs(3));
    let (answer, took) = send(20, 100);
    assert_eq!(answer, "HTTP/1.1 408", "after {took:?}");
    assert!(took < Duration::from_secs(9), "{took:?}");
    assert!(server.log().contains("the body came too slowly"));
}

/// Nor does a head of a later request come for ever.
#[test]
fn a_dribbled_head_ends_the_connection() {
    let server = Server::new().set("http.timeouts.header", "500ms").start();
    let mut stream = server.client().connect().expect("connects");
    stream
        .write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\nGET /v2/ HTTP/1.1\r\nX: ")
        .expect("sent");
    let started = Instant::now();
    while stream.write_all(b"x").is_ok() && started.elapsed() < Duration::from_secs(30) {
        thread::sleep(Duration::from_millis(50));
    }
    assert!(started.elapsed() < Duration::from_secs(30));
}
