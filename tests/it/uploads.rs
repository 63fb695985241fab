//! Upload sessions: blobs in chunks, and what becomes of them when a connection or the server ends in the middle
//! (distribution-spec, "Pushing a blob in chunks" and "Cancel a blob upload").

use std::{thread, time::Duration};

use nix::sys::signal::Signal;

use crate::support::{
    http::{Client, Exchange, Response, with_query},
    image::{Algorithm, Blob, Image, assert_blob, open_upload, push_blob},
    seed::{Rng, seed},
    server::{Server, eventually, serve},
    tree,
};

/// Bytes that the session has, as the server says: `Range: 0-<last>`, where `0-0` says none or one.
#[track_caller]
fn range_end(reply: &Response) -> u64 {
    let range = reply.header("range").unwrap_or_else(|| panic!("{reply:?}"));
    let end = range
        .strip_prefix("0-")
        .unwrap_or_else(|| panic!("{reply:?}"));
    end.parse().unwrap_or_else(|_| panic!("{reply:?}"))
}

/// How many bytes a session has, for one that has more than one byte or none.
#[track_caller]
fn status(client: &Client, location: &str) -> u64 {
    match range_end(&client.get(location).send().expect(204)) {
        0 => 0,
        end => end + 1,
    }
}

#[track_caller]
fn close(client: &Client, location: &str, blob: &Blob) -> Response {
    client
        .put(&with_query(location, "digest", &blob.digest))
        .send()
        .expect(201)
}

/// Sends more of it, in one request that does not say where it belongs.
#[track_caller]
fn append(client: &Client, location: &str, bytes: impl Into<Vec<u8>>) -> Response {
    client.patch(location).body(bytes).send().expect(202)
}

/// Sends what the session does not have, ends it, and has the blob pulled.
#[track_caller]
fn finish(client: &Client, location: &str, blob: &Blob) {
    let has = usize::try_from(status(client, location)).expect("a length");
    append(client, location, &blob.bytes[has..]);
    close(client, location, blob);
    assert_blob(client, "team/app", blob);
}

/// Sends chunks with `Content-Range`, each to the location that the answer before gave.
#[track_caller]
fn send_chunks(client: &Client, mut location: String, blob: &Blob, sizes: &[usize]) -> String {
    let mut first = 0;
    for size in sizes {
        let chunk = &blob.bytes[first..first + size];
        let last = first + size - 1;
        let reply = client
            .patch(&location)
            .header("Content-Range", format!("{first}-{last}"))
            .header("Content-Type", "application/octet-stream")
            .body(chunk)
            .send()
            .expect(202);
        assert_eq!(range_end(&reply), last as u64);
        location = reply.location();
        first += size;
    }
    assert_eq!(first, blob.len());
    location
}

/// Begins a PATCH of the bytes from `from` on, sends those before `to`, and returns when the server has begun to store them.
#[track_caller]
fn half_sent(client: &Client, location: &str, blob: &Blob, from: usize, to: usize) -> Exchange {
    let mut exchange = client
        .patch(location)
        .header("Content-Range", format!("{from}-{}", blob.len() - 1))
        .start((blob.len() - from) as u64)
        .expect("sent");
    exchange.write(&blob.bytes[from..to]).expect("sent");
    wait_for_more(client, location, from);
    exchange
}

#[track_caller]
fn wait_for_more(client: &Client, location: &str, than: usize) {
    eventually("the server has some of it", || {
        (status(client, location) > than as u64).then_some(())
    });
}

/// Waits until nobody writes to the session any more, and says how many bytes it has.
#[track_caller]
fn settled(client: &Client, location: &str) -> usize {
    eventually("the session is free", || {
        let reply = client.patch(location).body(*b"").send();
        assert!(matches!(reply.status, 202 | 409), "{reply:?}");
        (reply.status == 202).then_some(())
    });
    usize::try_from(status(client, location)).expect("a length")
}

/// Drops a connection that has sent the bytes of `from..to`, and says where the session stands: what had not reached the
/// handler by then may be lost with the connection.
#[track_caller]
fn drop_connection(
    client: &Client,
    location: &str,
    exchange: Exchange,
    from: usize,
    to: usize,
) -> usize {
    drop(exchange);
    let has = settled(client, location);
    assert!((from + 1..=to).contains(&has), "{has} of {from}..{to}");
    has
}

#[test]
fn a_session_begins_empty_with_an_id_of_its_own() {
    let (_server, client) = serve();
    let mut ids = Vec::new();
    for target in [
        "/v2/team/app/blobs/uploads/",
        "/v2/team/app/blobs/uploads", // some clients forget the slash
        "/v2/team/app/blobs/uploads/",
    ] {
        let reply = client.post(target).send().expect(202);
        let id = reply
            .header("docker-upload-uuid")
            .expect("an id")
            .to_owned();
        assert!(reply.location().contains(&id), "{reply:?}");
        assert_eq!(reply.header("range"), Some("0-0"));
        assert_eq!(reply.header("content-length"), Some("0"));
        let status = client.get(&reply.location()).send().expect(204);
        assert_eq!(status.header("docker-upload-uuid"), Some(id.as_str()));
        assert_eq!(range_end(&status), 0);
        ids.push(id);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

#[test]
fn chunks_with_content_range_make_a_blob() {
    let (_server, client) = serve();
    let blob = Blob::random(1, 700_000);
    let location = open_upload(&client, "team/app");
    let location = send_chunks(
        &client,
        location,
        &blob,
        &[1, 65_536, 262_144, 262_143, 110_176],
    );
    assert_eq!(status(&client, &location), 700_000);
    let reply = close(&client, &location, &blob);
    assert_eq!(
        reply.location(),
        format!("/v2/team/app/blobs/{}", blob.digest)
    );
    assert_blob(&client, "team/app", &blob);
}

#[test]
fn chunks_without_content_range_are_appended() {
    let (_server, client) = serve();
    let blob = Blob::random(2, 300_000);
    let mut location = open_upload(&client, "team/app");
    let mut sent = 0;
    for chunk in blob.bytes.chunks(77_777) {
        let reply = append(&client, &location, chunk);
        sent += chunk.len();
        assert_eq!(range_end(&reply), sent as u64 - 1);
        assert_eq!(reply.header("content-length"), Some("0"));
        assert!(reply.header("docker-upload-uuid").is_some());
        location = reply.location();
    }
    close(&client, &location, &blob);
    assert_blob(&client, "team/app", &blob);
}

/// What docker does: one PATCH of unknown length for a whole layer.
#[test]
fn a_stream_of_unknown_length_makes_a_blob() {
    let (_server, client) = serve();
    for (seed, len, piece) in [(3, 5_000, 7), (4, 2_000_000, 32 * 1024), (5, 0, 1)] {
        let blob = Blob::random(seed, len);
        let location = open_upload(&client, "team/app");
        let reply = client
            .patch(&location)
            .chunked(blob.bytes.clone(), piece)
            .send()
            .expect(202);
        assert_eq!(range_end(&reply), (len as u64).saturating_sub(1));
        close(&client, &reply.location(), &blob);
        assert_blob(&client, "team/app", &blob);
        // The same in the closing PUT.
        let location = open_upload(&client, "team/other");
        client
            .put(&with_query(&location, "digest", &blob.digest))
            .chunked(blob.bytes.clone(), piece)
            .send()
            .expect(201);
        assert_blob(&client, "team/other", &blob);
    }
}

#[test]
fn the_last_chunk_may_come_with_the_closing_put() {
    let (_server, client) = serve();
    let blob = Blob::random(6, 300_000);
    for (n, range) in [Some("200000-299999"), None].into_iter().enumerate() {
        let repo = format!("team/app-{n}");
        let location = open_upload(&client, &repo);
        let reply = client
            .patch(&location)
            .header("Content-Range", "0-199999")
            .body(&blob.bytes[..200_000])
            .send()
            .expect(202);
        let mut put = client.put(&with_query(&reply.location(), "digest", &blob.digest));
        if let Some(range) = range {
            put = put.header("Content-Range", range);
        }
        put.body(&blob.bytes[200_000..]).send().expect(201);
        assert_blob(&client, &repo, &blob);
    }
}

#[test]
fn a_chunk_out_of_order_is_416_with_the_range_that_is_there() {
    let (_server, client) = serve();
    let blob = Blob::random(7, 1000);
    let location = open_upload(&client, "team/app");
    let refused = |range: &str, len: usize, has: u64| {
        let reply = client
            .patch(&location)
            .header("Content-Range", range)
            .body(vec![0; len])
            .send()
            .expect_error(416, "RANGE_INVALID");
        assert_eq!(range_end(&reply), has, "{range}");
        assert_eq!(
            status(&client, &reply.location()),
            if has == 0 { 0 } else { has + 1 }
        );
    };
    refused("100-199", 100, 0); // the first chunk begins with 0
    client
        .patch(&location)
        .header("Content-Range", "0-499")
        .body(&blob.bytes[..500])
        .send()
        .expect(202);
    refused("0-499", 500, 499); // again
    refused("400-599", 200, 499); // overlapping
    refused("501-600", 100, 499); // a gap
    // Also in the closing PUT.
    let reply = client
        .put(&with_query(&location, "digest", &blob.digest))
        .header("Content-Range", "600-999")
        .body(&blob.bytes[600..])
        .send()
        .expect_error(416, "RANGE_INVALID");
    assert_eq!(range_end(&reply), 499);
    // Nothing of all that was written.
    client
        .put(&with_query(&reply.location(), "digest", &blob.digest))
        .header("Content-Range", "500-999")
        .body(&blob.bytes[500..])
        .send()
        .expect(201);
    assert_blob(&client, "team/app", &blob);
}

#[test]
fn a_chunk_that_is_not_as_long_as_its_range_is_refused() {
    let (_server, client) = serve();
    let blob = Blob::random(8, 1000);
    let location = open_upload(&client, "team/app");
    for (range, len) in [("0-99", 99), ("0-99", 101), ("0-0", 2)] {
        client
            .patch(&location)
            .header("Content-Range", range)
            .body(&blob.bytes[..len])
            .send()
            .expect_error(400, "SIZE_INVALID");
        assert_eq!(status(&client, &location), 0, "{range}: {len}");
    }
    // A stream is only found out when it ends; what lies within its range may stay.
    for (range, len) in [("0-99", 60), ("0-99", 140)] {
        let location = open_upload(&client, "team/app");
        client
            .patch(&location)
            .header("Content-Range", range)
            .chunked(&blob.bytes[..len], 10)
            .send()
            .expect_error(400, "SIZE_INVALID");
        let has = usize::try_from(status(&client, &location)).unwrap();
        assert!(has <= 100, "{has}");
        finish(&client, &location, &blob);
    }
}

#[test]
fn an_empty_chunk_changes_nothing() {
    let (_server, client) = serve();
    let blob = Blob::random(9, 1000);
    let location = open_upload(&client, "team/app");
    let reply = append(&client, &location, *b"");
    assert_eq!(range_end(&reply), 0);
    append(&client, &location, blob.bytes.clone());
    let reply = append(&client, &location, *b"");
    assert_eq!(range_end(&reply), 999);
    close(&client, &location, &blob);
}

#[test]
fn a_cancelled_session_is_gone() {
    let (server, client) = serve();
    let blob = Blob::random(10, 1000);
    let location = open_upload(&client, "team/app");
    append(&client, &location, blob.bytes.clone());
    client.delete(&location).send().expect(204);
    assert_session_unknown(&client, &location, &blob);
    let left: Vec<String> = tree::snapshot(server.tree())
        .into_keys()
        .filter(|path| path.contains("_uploads/"))
        .collect();
    assert!(left.is_empty(), "{left:#?}");
}

#[track_caller]
fn assert_session_unknown(client: &Client, location: &str, blob: &Blob) {
    let unknown = "BLOB_UPLOAD_UNKNOWN";
    client.get(location).send().expect_error(404, unknown);
    client
        .patch(location)
        .body(*b"x")
        .send()
        .expect_error(404, unknown);
    client
        .put(&with_query(location, "digest", &blob.digest))
        .body(blob.bytes.clone())
        .send()
        .expect_error(404, unknown);
    client.delete(location).send().expect_error(404, unknown);
}

#[test]
fn a_finished_session_is_gone() {
    let (_server, client) = serve();
    let blob = Blob::random(11, 1000);
    let location = open_upload(&client, "team/app");
    client
        .put(&with_query(&location, "digest", &blob.digest))
        .body(blob.bytes.clone())
        .send()
        .expect(201);
    assert_session_unknown(&client, &location, &blob);
}

#[test]
fn a_session_belongs_to_one_repository() {
    let (_server, client) = serve();
    let blob = Blob::random(12, 1000);
    let location = open_upload(&client, "team/app");
    let elsewhere = location.replace("team/app", "team/other");
    assert_session_unknown(&client, &elsewhere, &blob);
    client
        .put(&with_query(&location, "digest", &blob.digest))
        .body(blob.bytes.clone())
        .send()
        .expect(201);
}

#[test]
fn a_wrong_digest_at_the_end_makes_no_blob() {
    let (server, client) = serve();
    let (blob, other) = (Blob::random(13, 1000), Blob::random(14, 1000));
    let location = open_upload(&client, "team/app");
    append(&client, &location, blob.bytes.clone());
    client
        .put(&with_query(&location, "digest", &other.digest))
        .send()
        .expect_error(400, "DIGEST_INVALID");
    for digest in [&blob.digest, &other.digest] {
        client
            .get(&format!("/v2/team/app/blobs/{digest}"))
            .send()
            .expect(404);
    }
    assert_eq!(tree::faults(server.tree()), Vec::<String>::new());
}

#[test]
fn the_closing_put_needs_a_digest() {
    let (_server, client) = serve();
    let blob = Blob::random(15, 1000);
    let location = open_upload(&client, "team/app");
    append(&client, &location, blob.bytes.clone());
    for query in ["", "digest=", "digest=md5:aa", "digest=sha256:zz"] {
        let mark = if location.contains('?') { '&' } else { '?' };
        client
            .put(&format!("{location}{mark}{query}"))
            .send()
            .expect_error(400, "DIGEST_INVALID");
    }
    // None of that ended the session.
    close(&client, &location, &blob);
    assert_blob(&client, "team/app", &blob);
}

/// `digest-algorithm` lets the server hash rightly from the first byte; without it it has to hash again, and does.
#[test]
fn a_session_may_be_named_by_sha512() {
    let (_server, client) = serve();
    for (n, query) in ["?digest-algorithm=sha512", "", "?digest-algorithm=sha256"]
        .into_iter()
        .enumerate()
    {
        let blob = Blob::with(Algorithm::Sha512, Rng::new(16).bytes(600_000));
        let repo = format!("team/app-{n}");
        let location = client
            .post(&format!("/v2/{repo}/blobs/uploads/{query}"))
            .send()
            .expect(202)
            .location();
        let location = send_chunks(&client, location, &blob, &[300_000, 200_000, 100_000]);
        let reply = close(&client, &location, &blob);
        assert_eq!(
            reply.header("docker-content-digest"),
            Some(blob.digest.as_str())
        );
        assert_blob(&client, &repo, &blob);
    }
    client
        .post("/v2/team/app/blobs/uploads/?digest-algorithm=md5")
        .send()
        .expect_error(400, "DIGEST_INVALID");
}

#[test]
fn a_minimal_chunk_is_announced_when_there_is_one() {
    let (_server, client) = serve();
    let reply = client
        .post("/v2/team/app/blobs/uploads/")
        .send()
        .expect(202);
    assert_eq!(reply.header("oci-chunk-min-length"), None);
    let server = Server::new().set("storage.minchunk", "1MiB").start();
    let reply = server
        .client()
        .post("/v2/team/app/blobs/uploads/")
        .send()
        .expect(202);
    assert_eq!(reply.header("oci-chunk-min-length"), Some("1048576"));
}

/// Registries that keep state in the address (distribution: `_state`) taught clients to send it back.
#[test]
fn a_location_with_foreign_parameters_is_the_same_session() {
    let (_server, client) = serve();
    let blob = Blob::random(17, 1000);
    let location = with_query(&open_upload(&client, "team/app"), "_state", "x.y_z==");
    append(&client, &location, blob.bytes.clone());
    assert_eq!(status(&client, &location), 1000);
    close(&client, &location, &blob);
}

#[test]
fn one_session_has_one_writer() {
    let (_server, client) = serve();
    let blob = Blob::random(18, 2_000_000);
    let location = open_upload(&client, "team/app");
    let mut first = half_sent(&client, &location, &blob, 0, 1_000_000);
    let busy = |reply: Response| {
        let reply = reply.expect(409);
        assert_eq!(reply.error_code().as_deref(), Some("BLOB_UPLOAD_INVALID"));
    };
    busy(client.patch(&location).body(*b"intruder").send());
    busy(
        client
            .put(&with_query(&location, "digest", &blob.digest))
            .body(*b"intruder")
            .send(),
    );
    busy(client.delete(&location).send());
    // The one that came first never notices.
    first.write(&blob.bytes[1_000_000..]).expect("sent");
    let reply = first.response().expect("an answer").expect(202);
    assert_eq!(range_end(&reply), 1_999_999);
    close(&client, &location, &blob);
    assert_blob(&client, "team/app", &blob);
}

/// Whoever wins: the session has whole chunks of the winners, and ends in a blob or in an error, never in wrong content.
#[test]
fn writers_at_once_never_mix_their_bytes() {
    let (server, client) = serve();
    let blob = Blob::random(19, 400_000);
    let location = open_upload(&client, "team/app");
    let mut first = 0;
    for chunk in blob.bytes.chunks(50_000) {
        let range = format!("{first}-{}", first + chunk.len() - 1);
        let replies: Vec<Response> = thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|_| {
                    let patch = client
                        .patch(&location)
                        .header("Content-Range", &range)
                        .body(chunk);
                    scope.spawn(move || patch.send())
                })
                .collect();
            writers.into_iter().map(|w| w.join().unwrap()).collect()
        });
        let taken = replies.iter().filter(|reply| reply.status == 202).count();
        assert_eq!(taken, 1, "{replies:#?}");
        for reply in &replies {
            assert!(matches!(reply.status, 202 | 409 | 416), "{reply:?}");
        }
        first += chunk.len();
    }
    close(&client, &location, &blob);
    assert_blob(&client, "team/app", &blob);
    assert_eq!(tree::faults(server.tree()), Vec::<String>::new());
}

#[test]
fn sessions_beside_each_other_do_not_mix() {
    let seed = seed("sessions_beside_each_other_do_not_mix");
    let (server, client) = serve();
    thread::scope(|scope| {
        for n in 0..8 {
            let client = client.clone();
            scope.spawn(move || {
                let mut rng = Rng::new(seed ^ n);
                let len = 50_000 + rng.index(300_000);
                let blob = Blob::new(rng.bytes(len));
                let location = open_upload(&client, "team/app");
                let mut at = 0;
                while at < blob.len() {
                    let len = (1 + rng.index(90_000)).min(blob.len() - at);
                    append(&client, &location, &blob.bytes[at..at + len]);
                    at += len;
                }
                close(&client, &location, &blob);
                assert_blob(&client, "team/app", &blob);
            });
        }
    });
    assert_eq!(tree::faults(server.tree()), Vec::<String>::new());
}

#[test]
fn an_upload_goes_on_after_a_dropped_connection() {
    let (_server, client) = serve();
    let blob = Blob::random(20, 3_000_000);
    for (n, ranged) in [true, false].into_iter().enumerate() {
        let repo = format!("team/app-{n}");
        let location = open_upload(&client, &repo);
        // Twice in the middle of a PATCH, at lengths that are no multiple of anything.
        let first = half_sent(&client, &location, &blob, 0, 1_234_567);
        let sent = drop_connection(&client, &location, first, 0, 1_234_567);
        let more = sent + 765_432;
        let second = half_sent(&client, &location, &blob, sent, more);
        let sent = drop_connection(&client, &location, second, sent, more);
        let mut rest = client.patch(&location);
        if ranged {
            rest = rest.header("Content-Range", format!("{sent}-{}", blob.len() - 1));
        }
        rest.body(&blob.bytes[sent..]).send().expect(202);
        close(&client, &location, &blob);
        assert_blob(&client, &repo, &blob);
    }
}

#[test]
fn a_stream_of_unknown_length_goes_on_after_a_dropped_connection() {
    let (_server, client) = serve();
    let blob = Blob::random(21, 1_000_000);
    let location = open_upload(&client, "team/app");
    let mut exchange = client.patch(&location).start_chunked().expect("sent");
    exchange.write(&blob.bytes[..600_001]).expect("sent");
    wait_for_more(&client, &location, 0);
    let has = drop_connection(&client, &location, exchange, 0, 600_001);
    client
        .patch(&location)
        .chunked(&blob.bytes[has..], 10_000)
        .send()
        .expect(202);
    close(&client, &location, &blob);
    assert_blob(&client, "team/app", &blob);
}

/// The closing PUT fails in the middle: what it brought stays, and the upload can still be closed.
#[test]
fn a_closing_put_that_was_cut_can_be_repeated() {
    let (_server, client) = serve();
    let blob = Blob::random(22, 1_000_000);
    let location = open_upload(&client, "team/app");
    let mut put = client
        .put(&with_query(&location, "digest", &blob.digest))
        .start(blob.len() as u64)
        .expect("sent");
    put.write(&blob.bytes[..500_000]).expect("sent");
    wait_for_more(&client, &location, 0);
    let has = drop_connection(&client, &location, put, 0, 500_000);
    client
        .put(&with_query(&location, "digest", &blob.digest))
        .header("Content-Range", format!("{has}-999999"))
        .body(&blob.bytes[has..])
        .send()
        .expect(201);
    assert_blob(&client, "team/app", &blob);
}

/// What was acknowledged with a 202 is there after the process was killed, and the session goes on.
#[test]
fn an_upload_goes_on_after_the_server_was_killed() {
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let (mut server, client) = serve();
        let blob = Blob::with(algorithm, Rng::new(23).bytes(2_000_000));
        let location = open_upload(&client, "team/app");
        let acknowledged = 1_111_111;
        append(&client, &location, &blob.bytes[..acknowledged]);
        server.kill();
        server.restart();
        let client = server.client();
        assert_eq!(status(&client, &location), acknowledged as u64);
        client
            .patch(&location)
            .header("Content-Range", format!("{acknowledged}-1999999"))
            .body(&blob.bytes[acknowledged..])
            .send()
            .expect(202);
        server.kill();
        server.restart();
        let client = server.client();
        close(&client, &location, &blob);
        assert_blob(&client, "team/app", &blob);
    }
}

#[test]
fn an_upload_goes_on_after_the_server_was_killed_in_the_middle_of_a_chunk() {
    let (mut server, client) = serve();
    let blob = Blob::random(24, 3_000_000);
    let location = open_upload(&client, "team/app");
    append(&client, &location, &blob.bytes[..300_000]);
    let mut exchange = client
        .patch(&location)
        .start((blob.len() - 300_000) as u64)
        .expect("sent");
    exchange
        .write(&blob.bytes[300_000..2_000_000])
        .expect("sent");
    eventually("the server has some of it", || {
        (status(&client, &location) > 300_000).then_some(())
    });
    server.kill();
    drop(exchange);
    server.restart();
    let client = server.client();
    let has = usize::try_from(status(&client, &location)).unwrap();
    assert!(
        (300_000..=2_000_000).contains(&has),
        "{has} of the bytes are there"
    );
    client
        .patch(&location)
        .header("Content-Range", format!("{has}-{}", blob.len() - 1))
        .body(&blob.bytes[has..])
        .send()
        .expect(202);
    close(&client, &location, &blob);
    assert_blob(&client, "team/app", &blob);
}

#[test]
fn an_upload_goes_on_after_the_server_was_stopped_and_started() {
    let (mut server, client) = serve();
    let blob = Blob::random(25, 2_000_000);
    let (begun, untouched) = (
        open_upload(&client, "team/app"),
        open_upload(&client, "team/app"),
    );
    append(&client, &begun, &blob.bytes[..999_999]);
    assert!(server.terminate().success());
    server.restart();
    let client = server.client();
    assert_eq!(status(&client, &begun), 999_999);
    assert_eq!(status(&client, &untouched), 0);
    client
        .put(&with_query(&begun, "digest", &blob.digest))
        .body(&blob.bytes[999_999..])
        .send()
        .expect(201);
    client
        .put(&with_query(&untouched, "digest", &blob.digest))
        .body(blob.bytes.clone())
        .send()
        .expect(201);
    assert_blob(&client, "team/app", &blob);
}

/// A stopping server ends an upload that hangs after its limit, and forgets nothing of it.
#[test]
fn an_upload_that_hangs_while_the_server_stops_can_be_resumed() {
    let mut server = Server::new().set("http.draintimeout", "1s").start();
    let client = server.client();
    let blob = Blob::random(26, 2_000_000);
    let location = open_upload(&client, "team/app");
    let exchange = half_sent(&client, &location, &blob, 0, 1_000_000);
    server.signal(Signal::SIGTERM);
    server.wait();
    drop(exchange);
    server.restart();
    let client = server.client();
    let has = usize::try_from(status(&client, &location)).unwrap();
    assert!((1..=1_000_000).contains(&has), "{has}");
    finish(&client, &location, &blob);
}

/// A client that stops sending does not hold its session for ever.
#[test]
fn a_client_that_falls_silent_is_told_so() {
    let server = Server::new().set("http.timeouts.stall", "1s").start();
    let client = server.client();
    let blob = Blob::random(27, 1_000_000);
    let location = open_upload(&client, "team/app");
    let exchange = half_sent(&client, &location, &blob, 0, 600_000);
    let reply = exchange.response().expect("an answer");
    assert_eq!(reply.status, 408, "{reply:?}");
    assert_eq!(settled(&client, &location), 600_000);
    append(&client, &location, &blob.bytes[600_000..]);
    close(&client, &location, &blob);
}

/// Slow, but never silent: no limit is on how long a push takes in all.
#[test]
fn a_slow_client_is_waited_for() {
    let server = Server::new()
        .set("http.timeouts.stall", "2s")
        .set("http.timeouts.minrate", "1B") // by default it is not quite that slow
        .start();
    let client = server.client();
    let blob = Blob::random(28, 8);
    let location = open_upload(&client, "team/app");
    let mut exchange = client.patch(&location).start(8).expect("sent");
    for byte in &blob.bytes {
        exchange.write(&[*byte]).expect("sent");
        // Not to wait for something, but to be slow: together longer than the limit.
        thread::sleep(Duration::from_millis(350));
    }
    exchange.response().expect("an answer").expect(202);
    close(&client, &location, &blob);
    assert_blob(&client, "team/app", &blob);
}

/// Docker tries the next repository after a refused mount, and cancels the session that it got.
#[test]
fn the_session_of_a_refused_mount_can_be_cancelled() {
    let (_server, client) = serve();
    let blob = Blob::random(29, 1000);
    let location = client
        .post(&format!(
            "/v2/team/app/blobs/uploads/?mount={}&from=unknown",
            blob.digest
        ))
        .send()
        .expect(202)
        .location();
    client.delete(&location).send().expect(204);
    assert_session_unknown(&client, &location, &blob);
    // A repository with nothing but uploads is none.
    client
        .get("/v2/team/app/tags/list")
        .send()
        .expect_error(404, "NAME_UNKNOWN");
}

#[test]
fn a_push_in_pieces_of_everything_makes_an_image() {
    let seed = seed("a_push_in_pieces_of_everything_makes_an_image");
    let mut rng = Rng::new(seed);
    let (_server, client) = serve();
    let image = Image::builder(rng.next())
        .layers(4)
        .layer_size(150_000)
        .build();
    for blob in image.blobs() {
        let location = open_upload(&client, "team/app");
        let mut at = 0;
        while rng.chance(80) && at < blob.len() {
            let len = 1 + rng.index(blob.len() - at);
            let patch = client.patch(&location);
            let part = &blob.bytes[at..at + len];
            let patch = match rng.below(3) {
                0 => patch.body(part),
                1 => patch.chunked(part, 1 + rng.index(70_000)),
                _ => patch
                    .header("Content-Range", format!("{at}-{}", at + len - 1))
                    .body(part),
            };
            patch.send().expect(202);
            at += len;
        }
        client
            .put(&with_query(&location, "digest", &blob.digest))
            .body(&blob.bytes[at..])
            .send()
            .expect(201);
    }
    image.manifest.push(&client, "team/app", "v1");
    image.assert_pullable(&client, "team/app", "v1");
    push_blob(&client, "team/app", &image.config);
}
