//! Pulling manifests and blobs (distribution-spec, "Pull"; RFC 9110 for conditions and ranges).

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use crate::support::{
    http::Client,
    image::{Algorithm, Blob, Image, Manifest, OCI_INDEX, OCI_MANIFEST, push_blob, sha256},
    seed::{Rng, seed},
    server::{Server, eventually, serve},
};

const OCTETS: &str = "application/octet-stream";

fn blob_at(repo: &str, blob: &Blob) -> String {
    format!("/v2/{repo}/blobs/{}", blob.digest)
}

fn manifest_at(repo: &str, reference: &str) -> String {
    format!("/v2/{repo}/manifests/{reference}")
}

/// A server, a client and an image under `team/app:v1`.
fn with_image(seed: u64) -> (Server, Client, Image) {
    let (server, client) = serve();
    let image = Image::new(seed);
    image.push(&client, "team/app", "v1");
    (server, client, image)
}

fn quoted(digest: &str) -> String {
    format!("\"{digest}\"")
}

#[test]
fn the_api_answers_at_v2_with_and_without_the_slash() {
    let (_server, client) = serve();
    for target in ["/v2/", "/v2", "/v2/?ns=docker.io"] {
        let reply = client.get(target).send().expect(200);
        assert_eq!(reply.text(), "{}", "{target}");
        assert_eq!(
            reply.header("docker-distribution-api-version"),
            Some("registry/2.0")
        );
        let head = client.head(target).send().expect(200);
        assert_eq!(head.header("content-length"), Some("2"));
    }
}

#[test]
fn a_manifest_is_pulled_by_tag_and_by_digest() {
    let (_server, client, image) = with_image(1);
    for reference in ["v1", image.digest(), &image.digest().replace(':', "%3A")] {
        let reply = client
            .get(&manifest_at("team/app", reference))
            .send()
            .expect(200);
        assert_eq!(reply.body, image.manifest.bytes(), "{reference}");
        assert_eq!(reply.header("content-type"), Some(OCI_MANIFEST));
        assert_eq!(reply.header("docker-content-digest"), Some(image.digest()));
        assert_eq!(
            reply.header("content-length"),
            Some(image.manifest.blob.len().to_string().as_str())
        );
        assert_eq!(reply.header("etag"), Some(quoted(image.digest()).as_str()));
    }
}

#[test]
fn a_blob_is_pulled_with_its_digest_length_and_type() {
    let (_server, client, image) = with_image(2);
    for blob in image.blobs() {
        for target in [
            blob_at("team/app", blob),
            blob_at("team/app", blob).replace("sha256:", "sha256%3a"),
        ] {
            let reply = client.get(&target).send().expect(200);
            assert_eq!(reply.body, blob.bytes, "{target}");
            assert_eq!(
                reply.header("docker-content-digest"),
                Some(blob.digest.as_str())
            );
            assert_eq!(
                reply.header("content-length"),
                Some(blob.len().to_string().as_str())
            );
            assert_eq!(reply.header("content-type"), Some(OCTETS));
            assert_eq!(reply.header("etag"), Some(quoted(&blob.digest).as_str()));
            assert_eq!(reply.header("accept-ranges"), Some("bytes"));
        }
    }
}

#[test]
fn head_says_what_get_would_say_without_the_body() {
    let (_server, client, image) = with_image(3);
    for target in [
        manifest_at("team/app", "v1"),
        manifest_at("team/app", image.digest()),
        blob_at("team/app", &image.layers[0]),
        blob_at("team/app", &image.config),
    ] {
        let get = client.get(&target).send().expect(200);
        let head = client.head(&target).send().expect(200);
        for name in [
            "docker-content-digest",
            "content-length",
            "content-type",
            "etag",
            "cache-control",
            "accept-ranges",
        ] {
            assert_eq!(head.header(name), get.header(name), "{name} of {target}");
        }
        assert!(head.body.is_empty());
        assert_eq!(
            head.header("content-length"),
            Some(get.body.len().to_string().as_str())
        );
    }
}

#[test]
fn content_by_digest_never_changes_and_a_tag_may() {
    let (_server, client, image) = with_image(4);
    for target in [
        manifest_at("team/app", image.digest()),
        blob_at("team/app", &image.layers[0]),
    ] {
        let reply = client.get(&target).send().expect(200);
        let cache = reply.header("cache-control").unwrap_or_default();
        assert!(
            cache.contains("max-age=31536000") && cache.contains("immutable"),
            "{target}: {cache:?}"
        );
    }
    let reply = client
        .get(&manifest_at("team/app", "v1"))
        .send()
        .expect(200);
    let cache = reply.header("cache-control").unwrap_or_default();
    assert!(
        cache.contains("no-cache") || cache.contains("max-age=0"),
        "a tag has to be asked for again: {cache:?}"
    );
}

#[test]
fn who_has_it_already_is_told_so() {
    let (_server, client, image) = with_image(5);
    for (target, digest) in [
        (manifest_at("team/app", "v1"), image.digest()),
        (manifest_at("team/app", image.digest()), image.digest()),
        (
            blob_at("team/app", &image.layers[0]),
            &image.layers[0].digest,
        ),
    ] {
        let etag = quoted(digest);
        for known in [
            etag.clone(),
            format!("W/{etag}"),
            format!("\"other\", {etag}"),
            "*".to_owned(),
        ] {
            for method in ["GET", "HEAD"] {
                let reply = client
                    .request(method, &target)
                    .header("If-None-Match", &known)
                    .send()
                    .expect(304);
                assert!(reply.body.is_empty());
                assert_eq!(reply.header("etag"), Some(etag.as_str()), "{known}");
                assert_eq!(reply.header("docker-content-digest"), Some(digest));
            }
        }
        for unknown in ["\"other\"".to_owned(), quoted(&sha256(b"other"))] {
            let reply = client
                .get(&target)
                .header("If-None-Match", unknown)
                .send()
                .expect(200);
            assert!(!reply.body.is_empty());
        }
    }
}

#[test]
fn a_tag_that_moved_is_sent_to_who_has_the_old_one() {
    let (_server, client, old) = with_image(6);
    let new = Image::new(7);
    new.push(&client, "team/app", "v1");
    let reply = client
        .get(&manifest_at("team/app", "v1"))
        .header("If-None-Match", quoted(old.digest()))
        .send()
        .expect(200);
    assert_eq!(reply.body, new.manifest.bytes());
}

#[test]
fn what_is_not_there_is_not_modified_for_nobody() {
    let (_server, client, _image) = with_image(8);
    let missing = Blob::new(*b"missing");
    for target in [
        blob_at("team/app", &missing),
        manifest_at("team/app", &missing.digest),
        manifest_at("team/app", "v2"),
    ] {
        for known in [quoted(&missing.digest), "*".to_owned()] {
            client
                .get(&target)
                .header("If-None-Match", known)
                .send()
                .expect(404);
        }
    }
}

#[test]
fn one_range_of_a_blob_is_sent_as_206() {
    let (_server, client) = serve();
    let blob = Blob::random(9, 1000);
    push_blob(&client, "ranges", &blob);
    for (range, first, last) in [
        ("bytes=0-0", 0, 0),
        ("bytes=0-", 0, 999),
        ("bytes=0-999", 0, 999),
        ("bytes=10-19", 10, 19),
        ("bytes=990-5000", 990, 999),
        ("bytes=999-", 999, 999),
        ("bytes=-1", 999, 999),
        ("bytes=-10", 990, 999),
        ("bytes=-1000", 0, 999),
        ("bytes=-5000", 0, 999),
        ("Bytes=5-6", 5, 6),
        ("bytes=5-18446744073709551615", 5, 999),
    ] {
        let reply = client
            .get(&blob_at("ranges", &blob))
            .header("Range", range)
            .send()
            .expect(206);
        assert_eq!(
            reply.header("content-range"),
            Some(format!("bytes {first}-{last}/1000").as_str()),
            "{range}"
        );
        assert_eq!(reply.body, blob.bytes[first..=last], "{range}");
        assert_eq!(
            reply.header("docker-content-digest"),
            Some(blob.digest.as_str())
        );
        assert_eq!(reply.header("etag"), Some(quoted(&blob.digest).as_str()));
    }
}

#[test]
fn ranges_of_a_large_blob_are_right_at_every_edge() {
    let seed = seed("ranges_of_a_large_blob_are_right_at_every_edge");
    let mut rng = Rng::new(seed);
    let (_server, client) = serve();
    let blob = Blob::new(rng.bytes(3 * 1024 * 1024 + 17));
    push_blob(&client, "ranges", &blob);
    let edges: Vec<usize> = [64 * 1024, 256 * 1024, 1024 * 1024, 2 * 1024 * 1024]
        .into_iter()
        .flat_map(|edge| [edge - 1, edge, edge + 1])
        .collect();
    for n in 0..40 {
        let (a, b) = if n < 20 {
            (*rng.pick(&edges), *rng.pick(&edges))
        } else {
            (rng.index(blob.len()), rng.index(blob.len()))
        };
        let (first, last) = (a.min(b), a.max(b));
        let reply = client
            .get(&blob_at("ranges", &blob))
            .header("Range", format!("bytes={first}-{last}"))
            .send()
            .expect(206);
        assert!(
            reply.body == blob.bytes[first..=last],
            "bytes {first}-{last}, REGISTRY_SEED={seed}"
        );
    }
}

#[test]
fn a_range_with_an_end_that_no_number_holds_goes_to_the_end() {
    let (_server, client) = serve();
    let blob = Blob::random(10, 1000);
    push_blob(&client, "ranges", &blob);
    for (range, first) in [
        ("bytes=990-99999999999999999999999", 990),
        ("bytes=-99999999999999999999999", 0),
    ] {
        let request = client.get(&blob_at("ranges", &blob));
        let reply = request.header("Range", range).send().expect(206);
        assert_eq!(reply.body, blob.bytes[first..], "{range}");
    }
}

/// RFC 9110, 13.1.1.
#[test]
fn if_match_lets_only_that_content_be_read() {
    let (_server, client, image) = with_image(41);
    let blob = &image.layers[0];
    for (target, digest) in [
        (manifest_at("team/app", "v1"), image.digest()),
        (blob_at("team/app", blob), &*blob.digest),
    ] {
        for method in ["GET", "HEAD"] {
            for (value, status) in [
                (quoted(digest), 200),
                ("*".to_owned(), 200),
                (quoted(&sha256(b"other")), 412),
                (format!("W/{}", quoted(digest)), 412),
            ] {
                let request = client.request(method, &target).header("If-Match", &value);
                request.send().expect(status);
            }
        }
    }
}

#[test]
fn a_range_outside_of_the_blob_is_416_with_its_length() {
    let (_server, client) = serve();
    let blob = Blob::random(10, 1000);
    push_blob(&client, "ranges", &blob);
    for (blob, range) in [
        (&blob, "bytes=1000-"),
        (&blob, "bytes=1000-1001"),
        (&blob, "bytes=5000-"),
        (&blob, "bytes=-0"),
        (&blob, "bytes=5-4"),
        (&blob, "bytes=500-0"),
        (&blob, "bytes=99999999999999999999999-"),
    ] {
        let reply = client
            .get(&blob_at("ranges", blob))
            .header("Range", range)
            .send()
            .expect_error(416, "RANGE_INVALID");
        assert_eq!(
            reply.header("content-range"),
            Some(format!("bytes */{}", blob.len()).as_str()),
            "{range}"
        );
    }
}

/// As distribution does: clients that ask for `bytes=0-` of everything count on it.
#[test]
fn any_range_of_an_empty_blob_is_all_of_it() {
    let (_server, client) = serve();
    let empty = Blob::new(*b"");
    push_blob(&client, "ranges", &empty);
    for range in ["bytes=0-", "bytes=0-0", "bytes=-1"] {
        let at = blob_at("ranges", &empty);
        let reply = client.get(&at).header("Range", range).send().expect(200);
        assert!(reply.body.is_empty(), "{range}");
        assert_eq!(reply.header("content-range"), None, "{range}");
    }
}

/// RFC 9110, 14.2: what is no range that the server understands is ignored.
#[test]
fn what_is_no_byte_range_is_ignored() {
    let (_server, client) = serve();
    let blob = Blob::random(11, 1000);
    push_blob(&client, "ranges", &blob);
    for range in [
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=+1-2",
        "lines=0-1",
        "0-1",
        "bytes 0-1",
        "bytes=0-1,5-6", // a server may send it all; every client seen asking for several copes
        "bytes=0-0,-1",
    ] {
        let reply = client
            .get(&blob_at("ranges", &blob))
            .header("Range", range)
            .send()
            .expect(200);
        assert_eq!(reply.body, blob.bytes, "{range}");
    }
}

/// RFC 9110, 14.2: `Range` has a meaning for GET alone.
#[test]
fn head_ignores_a_range() {
    let (_server, client) = serve();
    let blob = Blob::random(12, 1000);
    push_blob(&client, "ranges", &blob);
    let reply = client
        .head(&blob_at("ranges", &blob))
        .header("Range", "bytes=0-9")
        .send()
        .expect(200);
    assert_eq!(reply.header("content-length"), Some("1000"));
}

#[test]
fn if_range_decides_between_the_rest_and_the_whole() {
    let (_server, client) = serve();
    let blob = Blob::random(13, 1000);
    push_blob(&client, "ranges", &blob);
    let etag = quoted(&blob.digest);
    let ask = |condition: &str| {
        client
            .get(&blob_at("ranges", &blob))
            .header("Range", "bytes=500-")
            .header("If-Range", condition)
            .send()
    };
    assert_eq!(ask(&etag).expect(206).body, blob.bytes[500..]);
    for other in [
        quoted(&sha256(b"other")),
        format!("W/{etag}"),
        "Sat, 01 Jan 2022 00:00:00 GMT".to_owned(),
    ] {
        assert_eq!(ask(&other).expect(200).body, blob.bytes, "{other}");
    }
}

#[test]
fn sha512_content_is_pulled_by_its_digest() {
    let (_server, client) = serve();
    let image = Image::builder(14)
        .algorithm(Algorithm::Sha512)
        .blob_algorithm(Algorithm::Sha512)
        .build();
    image.push(&client, "team/app", image.digest());
    image.assert_pullable(&client, "team/app", image.digest());
    let layer = &image.layers[0];
    let reply = client
        .get(&blob_at("team/app", layer))
        .header("Range", "bytes=100-")
        .send()
        .expect(206);
    assert_eq!(reply.body, layer.bytes[100..]);
    assert_eq!(
        reply.header("docker-content-digest"),
        Some(layer.digest.as_str())
    );
    // Bytes have one digest an algorithm; a repository has them under the one that was pushed.
    client
        .get(&format!("/v2/team/app/blobs/{}", sha256(&layer.bytes)))
        .send()
        .expect_error(404, "BLOB_UNKNOWN");
}

#[test]
fn a_manifest_keeps_its_type_whatever_is_accepted() {
    let (_server, client, image) = with_image(15);
    let index = Manifest::index([&image.manifest]);
    index.push(&client, "team/app", "multi");
    for (reference, media_type) in [("v1", OCI_MANIFEST), ("multi", OCI_INDEX)] {
        for accept in [
            "*/*",
            "application/json",
            "application/vnd.docker.distribution.manifest.v2+json",
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            "text/html;q=0.5",
        ] {
            let reply = client
                .get(&manifest_at("team/app", reference))
                .header("Accept", accept)
                .send()
                .expect(200);
            assert_eq!(reply.header("content-type"), Some(media_type), "{accept}");
        }
    }
}

/// ctr asks for `bytes=0-` of everything; a manifest comes whole.
#[test]
fn a_range_of_a_manifest_is_ignored() {
    let (_server, client, image) = with_image(21);
    for range in ["bytes=0-", "bytes=5-9", "bytes=-1", "bytes=99999-"] {
        let reply = client
            .get(&manifest_at("team/app", "v1"))
            .header("Range", range)
            .send()
            .expect(200);
        assert_eq!(reply.body, image.manifest.bytes(), "{range}");
    }
}

/// Docker opens a connection for every request.
#[test]
fn many_short_connections_are_served() {
    let (_server, client, image) = with_image(22);
    let client = client.without_keep_alive();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let reply = client.get(&manifest_at("team/app", "v1")).send();
                    assert_eq!(reply.expect(200).body, image.manifest.bytes());
                }
            });
        }
    });
}

#[test]
fn bytes_go_out_as_they_are_whatever_encoding_is_accepted() {
    let (_server, client) = serve();
    let blob = Blob::new("compressible ".repeat(10_000));
    push_blob(&client, "team/app", &blob);
    let image = Image::new(16);
    image.push(&client, "team/app", "v1");
    for (target, bytes) in [
        (blob_at("team/app", &blob), &blob.bytes),
        (manifest_at("team/app", "v1"), &image.manifest.blob.bytes),
    ] {
        let reply = client
            .get(&target)
            .header("Accept-Encoding", "gzip, deflate, br, zstd")
            .send()
            .expect(200);
        assert_eq!(reply.header("content-encoding"), None);
        assert_eq!(&reply.body, bytes);
    }
}

#[test]
fn unknown_content_is_404_with_the_code_of_its_kind() {
    let (_server, client, image) = with_image(17);
    let missing = sha256(b"missing");
    for (target, code) in [
        (manifest_at("team/app", "v2"), "MANIFEST_UNKNOWN"),
        (manifest_at("team/app", &missing), "MANIFEST_UNKNOWN"),
        (manifest_at("team/other", "v1"), "MANIFEST_UNKNOWN"),
        (format!("/v2/team/app/blobs/{missing}"), "BLOB_UNKNOWN"),
        (
            blob_at("team/other", &image.layers[0]), // there, but not in this repository
            "BLOB_UNKNOWN",
        ),
        (
            blob_at("team", &image.layers[0]), // a folder on the disk, not a repository
            "BLOB_UNKNOWN",
        ),
        (
            format!("/v2/team/app/blobs/{}", image.digest()), // a manifest is no blob
            "BLOB_UNKNOWN",
        ),
        (
            manifest_at("team/app", &image.layers[0].digest), // nor a blob a manifest
            "MANIFEST_UNKNOWN",
        ),
    ] {
        let reply = client.get(&target).send().expect_error(404, code);
        let head = client.head(&target).send().expect(404);
        assert!(head.body.is_empty());
        assert_eq!(
            head.header("content-length"),
            Some(reply.body.len().to_string().as_str())
        );
        assert_eq!(reply.header("docker-content-digest"), None);
    }
}

/// Proxies and mirrors add parameters (`ns`), old uploads have their own.
#[test]
fn parameters_that_nobody_knows_are_ignored() {
    let (_server, client, image) = with_image(18);
    for target in [
        manifest_at("team/app", "v1"),
        blob_at("team/app", &image.config),
    ] {
        client
            .get(&format!("{target}?ns=docker.io&origin=x&=&%zz"))
            .send()
            .expect(200);
    }
}

#[test]
fn a_client_that_goes_away_in_the_middle_harms_nobody() {
    let (mut server, client) = serve();
    let blob = Blob::random(19, 8 * 1024 * 1024);
    push_blob(&client, "team/app", &blob);
    for _ in 0..8 {
        let mut exchange = client
            .get(&blob_at("team/app", &blob))
            .start(0)
            .expect("sent");
        assert_eq!(exchange.response_head().expect("a head").status, 200);
        drop(exchange);
    }
    let reply = client.get(&blob_at("team/app", &blob)).send().expect(200);
    assert!(reply.body == blob.bytes);
    // Each is logged, as what it is.
    let left = eventually("the log knows them all", || {
        let log = server.log();
        let lines: Vec<String> = log
            .lines()
            .filter(|line| line.contains("get-blob"))
            .map(str::to_owned)
            .collect();
        (lines.len() >= 9).then_some(lines)
    });
    assert_eq!(left.len(), 9, "{left:#?}");
    assert_eq!(server.ended(), None);
}

/// Docker, skopeo and containerd try TLS first with an insecure registry: silence would cost them seconds.
#[test]
fn a_tls_hello_on_a_plain_port_is_answered_at_once() {
    let (server, client) = serve();
    let mut stream = TcpStream::connect(server.addr()).expect("connects");
    // A record header, and the beginning of a ClientHello of TLS 1.0 to 1.3.
    let mut hello = vec![
        0x16, 0x03, 0x01, 0x00, 0x35, 0x01, 0x00, 0x00, 0x31, 0x03, 0x03,
    ];
    hello.extend([7; 32]);
    hello.extend([
        0x00, 0x00, 0x04, 0x13, 0x01, 0x13, 0x02, 0x01, 0x00, 0x00, 0x04,
    ]);
    hello.extend([0x00, 0x2b, 0x00, 0x00]);
    stream.write_all(&hello).expect("sent");
    stream
        .set_read_timeout(Some(Duration::from_secs(4)))
        .expect("a timeout");
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer);
    assert!(
        !answer.is_empty() || ended.is_ok(),
        "no answer for 4 seconds: {ended:?}"
    );
    client.get("/v2/").send().expect(200);
}

#[test]
fn an_http_1_0_client_is_served() {
    let (_server, client, image) = with_image(20);
    let request = format!(
        "GET {} HTTP/1.0\r\n\r\n",
        blob_at("team/app", &image.layers[0])
    );
    let reply = client
        .raw(request.as_bytes())
        .expect("an answer")
        .expect(200);
    assert_eq!(reply.body, image.layers[0].bytes);
}
