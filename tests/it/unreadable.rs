//! What is no request gets an answer all the same: the specification's JSON, whatever of the head could be read, and the
//! end of the connection in a way that lets a client see it.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use crate::support::{
    http::Client,
    image::{Blob, push_blob},
    server::{Server, eventually, serve},
};

/// Sends `bytes`, and everything that comes back until the server closes.
fn exchange(client: &Client, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(client.addr()).expect("connects");
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a limit");
    stream.write_all(bytes).expect("sent");
    let mut answers = String::new();
    stream
        .read_to_string(&mut answers)
        .expect("closed in order");
    answers
}

#[track_caller]
fn assert_refused(answer: &str, status: &str, code: &str) {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with(&format!("http/1.1 {status} ")), "{answer}");
    let length = format!("content-length: {}\r\n", body.len());
    for line in [
        "content-type: application/json",
        "docker-distribution-api-version: registry/2.0",
        "x-content-type-options: nosniff",
        "connection: close",
        "date: ",
        length.trim_end(),
    ] {
        assert!(head.contains(line), "no {line:?} in {answer}");
    }
    let json: serde_json::Value = serde_json::from_str(body).expect(answer);
    assert_eq!(json["errors"][0]["code"], code, "{answer}");
    let message = json["errors"][0]["message"].as_str().expect("a sentence");
    assert!(message.len() > 10, "{answer}");
}

const MALFORMED: [&str; 12] = [
    "nonsense\r\n\r\n",
    "GET /v2/ HTTP/3.7\r\n\r\n",
    "G E T /v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /v2/ HTTP/1.1\r\n\r\n",
    "GET /v2/ HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "GET /v2/ HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
    "GET /v2/ HTTP/1.1\r\nHost: x\r\nX: \u{1}\r\n\r\n",
    "PUT /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5x\r\n\r\n",
    "PUT /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "PUT /v2/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n",
    "PUT /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    // The hello of a TLS client.
    "\u{16}\u{3}\u{1}\r\n\r\n",
];

#[test]
fn a_malformed_head_is_refused_like_any_other_mistake() {
    let (server, client) = serve();
    for request in MALFORMED {
        assert_refused(&exchange(&client, request.as_bytes()), "400", "UNSUPPORTED");
    }
    let metrics = client.get("/metrics").send().expect(200).text();
    let counted = format!(
        "registry_http_requests_total{{operation=\"unknown\",status=\"400\"}} {}",
        MALFORMED.len()
    );
    assert!(metrics.contains(&counted), "{metrics}");
    assert!(
        server.log().contains("unknown: UNSUPPORTED"),
        "{}",
        server.log()
    );
}

#[test]
fn a_head_that_is_too_large_is_refused_while_it_is_still_coming() {
    let (_server, client) = serve();
    let mut many = "GET /v2/ HTTP/1.1\r\nHost: x\r\n".to_owned();
    (0..200).for_each(|n| many.push_str(&format!("X-{n}: y\r\n")));
    assert_refused(
        &exchange(&client, (many + "\r\n").as_bytes()),
        "431",
        "UNSUPPORTED",
    );
    // Far more than the socket's buffers hold: what is not read yet must not tear the answer down.
    let mut endless = b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX: ".to_vec();
    endless.resize(8 << 20, b'y');
    assert_refused(&exchange(&client, &endless), "431", "UNSUPPORTED");
}

#[test]
fn a_head_that_does_not_come_is_told_so() {
    let server = Server::new().set("http.timeouts.header", "200ms").start();
    let answer = exchange(&server.client(), b"GET /v2/ HTTP/1.1\r\nHost:");
    assert_refused(&answer, "408", "UNSUPPORTED");
}

/// The answer that actix makes, as a blob: it arrives as what it is, also when it is the last thing of a connection.
#[test]
fn content_that_looks_like_a_refusal_is_content() {
    let (_server, client) = serve();
    let fake = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let blob = Blob::new(fake.repeat(5000));
    push_blob(&client, "team/app", &blob);
    let get = format!(
        "GET /v2/team/app/blobs/{} HTTP/1.1\r\nHost: x\r\n\r\n",
        blob.digest
    );
    let answers = exchange(&client, format!("{get}{get}nonsense\r\n\r\n").as_bytes());
    let content = std::str::from_utf8(&blob.bytes).expect("text");
    let (_, rest) = answers.split_once(content).expect("the first download");
    let (_, refusal) = rest.split_once(content).expect("the second download");
    assert_refused(refusal, "400", "UNSUPPORTED");
}

/// A client that ignores the end of the connection is not waited for without limit, and keeps nobody out.
#[test]
fn a_refused_client_that_stays_is_left() {
    // One more would take the place of the first.
    let server = Server::new().set("http.maxconnections", "8").start();
    let silent: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut stream = TcpStream::connect(server.addr()).expect("connects");
            stream.write_all(b"nonsense\r\n\r\n").expect("sent");
            stream
        })
        .collect();
    eventually("others are served again", || {
        let client = server.client().with_timeout(Duration::from_secs(20));
        let answer = client.get("/v2/").try_send().ok()?;
        (answer.status == 200).then_some(())
    });
    for mut stream in silent {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert_refused(&answer, "400", "UNSUPPORTED");
        let _ = stream.shutdown(Shutdown::Both);
    }
}
