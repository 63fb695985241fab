//! What the server holds in memory for clients that take or send slowly.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use serde_json::json;

use crate::support::{
    http::Client,
    image::{Image, Manifest},
    server::{Server, eventually, serve},
};

const MIB: usize = 1 << 20;

/// A manifest of some four mebibytes, less than the limit.
fn large(image: &Image, filler: char) -> Manifest {
    image.manifest.edit(|manifest| {
        let text: String = std::iter::repeat_n(filler, 4 * MIB - 4096).collect();
        manifest["annotations"] = json!({ "filler": text });
    })
}

/// Connections that ask for `target` and take next to nothing of it.
fn slow_readers(server: &Server, target: &str, count: usize) -> Vec<TcpStream> {
    let begun = |_| {
        let mut stream = TcpStream::connect(server.addr()).expect("a server");
        write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        stream
    };
    let mut streams: Vec<TcpStream> = (0..count).map(begun).collect();
    let mut byte = [0];
    for stream in &mut streams {
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a socket");
        stream.read_exact(&mut byte).expect("the answer begins");
    }
    streams
}

/// KiB that the server took more than `before` at any time since.
fn grown(server: &Server, before: u64) -> u64 {
    server.memory_kib("VmHWM").saturating_sub(before)
}

#[test]
fn slow_readers_of_a_large_manifest_hold_a_piece_of_it_each() {
    let (mut server, client) = serve();
    let image = Image::new(1);
    image.push(&client, "team/app", "small");
    let manifest = large(&image, 'x');
    manifest.push(&client, "team/app", "large");
    server.restart(); // what the push took is no matter
    let target = "/v2/team/app/manifests/large";
    server.client().get(target).send().expect(200);
    let before = server.memory_kib("VmHWM");
    let readers = slow_readers(&server, target, 80);
    // All of them would be 320 MiB. Each has two blocks of 256 KiB on their way, and four at a time are looked through, which
    // takes a few times their size.
    let more = grown(&server, before);
    assert!(more < 144 << 10, "{more} KiB for {} readers", readers.len());
    let whole = server.client().get(target).send().expect(200);
    assert_eq!(whole.body, manifest.bytes());
    drop(readers);
    let log = || server.log().matches("the client left").count() >= 80;
    eventually("each of them leaves a line", || log().then_some(()));
}

#[test]
fn slow_readers_of_one_list_share_it() {
    let (server, client) = serve();
    let subject = Image::new(2);
    subject.push(&client, "team/app", "v1");
    for n in 0..3 {
        let referrer = Image::builder(3 + n)
            .artifact_type("application/vnd.example.sbom")
            .subject(&subject.manifest)
            .annotation("filler", &"y".repeat(MIB - 4096))
            .build();
        referrer.push(&client, "team/app", referrer.digest());
    }
    let target = format!("/v2/team/app/referrers/{}", subject.digest());
    let list = client.get(&target).send().expect(200);
    assert!(list.body.len() > 2 * MIB, "{}", list.body.len());
    let before = server.memory_kib("VmHWM");
    let readers = slow_readers(&server, &target, 40);
    // A copy for each would be 120 MiB.
    let more = grown(&server, before);
    assert!(more < 64 << 10, "{more} KiB for {} readers", readers.len());
    assert_eq!(client.get(&target).send().expect(200).body, list.body);
}

/// Sends all of a manifest's body but its end.
fn begin_push(client: &Client, n: usize, length: usize) -> Option<(u16, bool)> {
    let target = format!("/v2/team/app/manifests/t{n}");
    let mut push = client.put(&target).start(length as u64).ok()?;
    push.write(&vec![b' '; length - 1]).ok()?;
    // The rest never comes: an answer is a refusal.
    let reply = push.response().ok()?;
    Some((reply.status, reply.header("retry-after").is_some()))
}

#[test]
fn manifests_that_do_not_end_are_held_up_to_a_limit() {
    let (server, client) = serve();
    let image = Image::new(9);
    image.push(&client, "team/app", "before");
    let before = server.memory_kib("VmHWM");
    let pushes: Vec<_> = (0..60)
        .map(|n| {
            let client = server.client().with_timeout(Duration::from_secs(10));
            thread::spawn(move || begin_push(&client, n, 4 * MIB))
        })
        .collect();
    // Small ones do not wait for large ones.
    for n in 0..20 {
        image.manifest.push(&client, "team/app", &format!("v{n}"));
    }
    let answers: Vec<_> = pushes
        .into_iter()
        .map(|push| push.join().unwrap())
        .collect();
    // Four have room, and lose it to others; most never get any.
    let refused = answers.iter().flatten().count();
    assert!(refused > 0, "{answers:?}");
    for (status, has_retry_after) in answers.into_iter().flatten() {
        assert_eq!((status, has_retry_after), (503, true));
    }
    // All of them would be 240 MiB.
    let more = grown(&server, before);
    assert!(more < 64 << 10, "{more} KiB");
    let manifest = large(&image, 'z');
    eventually("there is room again", || {
        let push = client
            .put("/v2/team/app/manifests/large")
            .body(manifest.bytes());
        (push.send().status == 201).then_some(())
    });
}
