//! Several requests in one packet: each is answered as if it had come alone, or the connection ends after a whole answer.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use crate::support::http::Client;
use crate::support::image::{Blob, Image, OCI_MANIFEST, open_upload, push_blob};
use crate::support::server::serve;

const END: &str = "GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

/// Sends `bytes` in one piece; the statuses and bodies of the answers to requests of these methods. Panics when what comes
/// back is anything but whole answers, as lengths say it.
#[track_caller]
fn exchange(client: &Client, bytes: &[u8], methods: &[&str]) -> Vec<(u16, Vec<u8>)> {
    let mut stream = client.connect().expect("connects");
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a limit");
    stream.write_all(bytes).expect("sent");
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("closed in order");
    let mut rest = &all[..];
    let mut answers = Vec::new();
    for method in methods {
        if rest.is_empty() {
            break;
        }
        let shown = String::from_utf8_lossy(rest);
        let end = rest.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no head: {shown}")) + 4;
        let head = String::from_utf8_lossy(&rest[..end]).to_ascii_lowercase();
        let status = head.get(9..12).and_then(|status| status.parse().ok());
        let status: u16 = status.unwrap_or_else(|| panic!("no answer: {shown}"));
        let length = head.split_once("content-length: ").map_or(0, |(_, rest)| {
            let (length, _) = rest.split_once("\r\n").expect("a line");
            length.parse().expect("a length")
        });
        let body = if *method == "HEAD" { 0 } else { length };
        assert!(rest.len() >= end + body, "{method} is cut off: {shown}");
        answers.push((status, rest[end..end + body].to_vec()));
        rest = &rest[end + body..];
    }
    assert!(
        rest.is_empty(),
        "too much: {}",
        String::from_utf8_lossy(rest)
    );
    answers
}

#[test]
fn each_request_in_a_packet_gets_its_own_answer() {
    let (_server, client) = serve();
    let image = Image::new(1);
    image.push(&client, "team/app", "v1");
    let blob = Blob::random(2, 3 << 20);
    push_blob(&client, "team/app", &blob);
    let manifest = "/v2/team/app/manifests/v1";
    let blob_path = format!("/v2/team/app/blobs/{}", blob.digest);
    let whole = client.get(manifest).send().expect(200).body;
    for (first, second) in [
        (("GET", manifest), ("HEAD", "/v2/")),
        (("GET", "/v2/team/app/tags/list"), ("HEAD", "/v2/")),
        (("HEAD", manifest), ("GET", manifest)),
        (("GET", blob_path.as_str()), ("HEAD", manifest)),
        (("HEAD", blob_path.as_str()), ("HEAD", manifest)),
        (("GET", "/v2/none/manifests/v1"), ("HEAD", manifest)),
    ] {
        let bytes = request(first.0, first.1) + &request(second.0, second.1) + END;
        let answers = exchange(&client, bytes.as_bytes(), &[first.0, second.0, "GET"]);
        assert_eq!(answers.len(), 3, "{first:?} {second:?}");
        for ((method, path), (status, body)) in [first, second].into_iter().zip(&answers) {
            let alone = client.request(method, path).send();
            assert_eq!(
                (*status, body),
                (alone.status, &alone.body),
                "{method} {path}"
            );
        }
        assert_eq!(answers[2], (200, b"{}".to_vec()));
    }
    let bytes = request("GET", manifest).repeat(19) + END;
    let answers = exchange(&client, bytes.as_bytes(), &["GET"; 20]);
    assert_eq!(answers.len(), 20);
    assert!(
        answers[..19]
            .iter()
            .all(|answer| *answer == (200, whole.clone()))
    );
}

#[test]
fn a_body_ends_where_it_ends_and_what_follows_is_a_request() {
    let (_server, client) = serve();
    let image = Image::new(3);
    image.push(&client, "team/app", "v1");
    let manifest = image.manifest.bytes();
    let put = |framing: &str| {
        format!("PUT /v2/team/app/manifests/v2 HTTP/1.1\r\nHost: x\r\nContent-Type: {OCI_MANIFEST}\r\n{framing}\r\n\r\n")
            .into_bytes()
    };
    let (first, second) = manifest.split_at(40);
    let sized = [
        put(&format!("Content-Length: {}", manifest.len())),
        manifest.to_vec(),
    ]
    .concat();
    let chunked = [
        put("Transfer-Encoding: chunked"),
        format!("{:x};a=b\r\n", first.len()).into_bytes(),
        first.to_vec(),
        format!("\r\n{:X}\r\n", second.len()).into_bytes(),
        second.to_vec(),
        b"\r\n0\r\nTrailer: x\r\n\r\n".to_vec(),
    ]
    .concat();
    for put in [sized, chunked] {
        let head = request("HEAD", "/v2/team/app/manifests/v2");
        let get = request("GET", "/v2/team/app/manifests/v2");
        let bytes = [&put, head.as_bytes(), get.as_bytes(), &put, END.as_bytes()].concat();
        let answers = exchange(&client, &bytes, &["PUT", "HEAD", "GET", "PUT", "GET"]);
        let statuses: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
        assert_eq!(statuses, [201, 200, 200, 201, 200]);
        assert_eq!(answers[2].1, manifest);
    }
    // Refused before its body is read: what follows is answered, or the connection ends.
    let body = request("GET", "/v2/smuggled/tags/list");
    let refused = format!(
        "PUT /v2/UPPER/manifests/x HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}{END}",
        body.len()
    );
    let answers = exchange(&client, refused.as_bytes(), &["PUT", "GET"]);
    assert_eq!(answers[0].0, 400);
    assert!(
        answers
            .get(1)
            .is_none_or(|answer| *answer == (200, b"{}".to_vec()))
    );
}

#[test]
fn what_is_no_request_is_refused_after_the_answer_before_it() {
    let (_server, client) = serve();
    for first in ["HEAD", "GET"] {
        let bytes = request(first, "/v2/team/app/manifests/v1") + "nonsense\r\n\r\n";
        let answers = exchange(&client, bytes.as_bytes(), &[first, "GET"]);
        assert_eq!(answers.len(), 2);
        assert_eq!((answers[0].0, answers[1].0), (404, 400));
        assert!(!answers[1].1.is_empty(), "the reason");
    }
}

#[test]
fn malformed_chunks_are_refused_and_what_came_before_is_kept() {
    let (_server, client) = serve();
    let upload = open_upload(&client, "team/app");
    let bytes = format!(
        "PATCH {upload} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\nnonsense\r\n"
    );
    let answers = exchange(&client, bytes.as_bytes(), &["PATCH"]);
    assert_eq!(answers[0].0, 400);
    let json: serde_json::Value = serde_json::from_slice(&answers[0].1).expect("the reason");
    assert_eq!(json["errors"][0]["code"], "BLOB_UPLOAD_INVALID");
    let message = json["errors"][0]["message"].as_str().expect("a sentence");
    assert!(message.contains("transfer encoding"), "{message}");
    let status = client.get(&upload).send().expect(204);
    assert_eq!(status.header("range"), Some("0-3"));
}
