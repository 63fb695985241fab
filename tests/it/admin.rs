//! What changes the server itself while it runs: `/admin/readonly`.

use serde_json::json;

use crate::auth::{Home, basic};
use crate::support::http::{Client, Response};
use crate::support::image::{Image, open_upload};
use crate::support::server::Server;

const PATH: &str = "/admin/readonly";
const RULES: &str = "[{who: admin, allow: all}, {who: users, allow: [push, delete, list]}]";

fn switch(client: &Client, to: bool) -> Response {
    let body = json!({ "readonly": to }).to_string().into_bytes();
    let request = client.put(PATH).header("Content-Type", "application/json");
    request.body(body).send()
}

#[test]
fn changes_are_refused_and_taken_again_without_a_restart() {
    let home = Home::new(&format!("access: {RULES}"));
    home.add_user("admin", "secret");
    home.add_user("alice", "secret");
    let mut server = home.serve(Some(RULES));
    let as_user = |server: &Server, name: &str| {
        server
            .client()
            .with_header("Authorization", &basic(name, "secret"))
    };
    let (admin, alice) = (as_user(&server, "admin"), as_user(&server, "alice"));
    let image = Image::new(1);
    image.push(&alice, "a", "1");
    let upload = open_upload(&alice, "a");

    assert_eq!(
        admin.get(PATH).send().expect(200).json(),
        json!({ "readonly": false })
    );
    switch(&alice, true).expect_error(403, "DENIED");
    server
        .client()
        .get(PATH)
        .send()
        .expect_error(401, "UNAUTHORIZED");
    assert_eq!(
        switch(&admin, true).expect(200).json(),
        json!({ "readonly": true })
    );
    let start = || alice.post("/v2/a/blobs/uploads/").send().status;
    assert_eq!(start(), 405);
    assert_eq!(alice.patch(&upload).body(vec![1]).send().status, 405);
    assert_eq!(alice.delete("/v2/a/manifests/1").send().status, 405);
    image.assert_pullable(&alice, "a", "1");
    assert_eq!(
        admin.get(PATH).send().expect(200).json(),
        json!({ "readonly": true })
    );
    switch(&admin, false).expect(200);
    assert_eq!(start(), 202);
    assert_eq!(alice.patch(&upload).body(vec![1]).send().status, 202);

    let log = server.log();
    assert!(log.contains("set-readonly"), "{log}");
    let audited = log
        .lines()
        .filter(|line| line.contains("audit") && line.contains("set-readonly"));
    let audited: Vec<&str> = audited.collect();
    assert!(
        audited.len() == 3 && audited[0].contains("alice") && audited[1].contains("admin"),
        "{audited:?}"
    );

    // What the configuration says counts again after a start.
    switch(&admin, true).expect(200);
    server.restart();
    let admin = as_user(&server, "admin");
    assert_eq!(
        admin.get(PATH).send().expect(200).json(),
        json!({ "readonly": false })
    );
}

/// Also where this machine may do everything without a name.
#[test]
fn pages_in_a_browser_cannot_switch_it() {
    let server = Server::new().start();
    let client = server.client();
    for (name, value) in [
        ("Origin", "http://evil.example"),
        ("Sec-Fetch-Site", "same-origin"),
    ] {
        let body = b"{\"readonly\": true}".to_vec();
        let request = client.put(PATH).header("Content-Type", "application/json");
        let reply = request
            .header(name, value)
            .body(body)
            .send()
            .expect_error(403, "DENIED");
        assert_eq!(reply.header("access-control-allow-origin"), None);
    }
    // What a form can send without asking.
    let reply = client
        .put(PATH)
        .header("Content-Type", "text/plain")
        .body(b"{\"readonly\": true}".to_vec())
        .send();
    reply.expect_error(415, "UNSUPPORTED");
    assert_eq!(client.post(PATH).send().status, 405);
    assert_eq!(
        client
            .request("OPTIONS", PATH)
            .send()
            .header("access-control-allow-methods"),
        None
    );
    let bad = client
        .put(PATH)
        .header("Content-Type", "application/json")
        .body(b"true".to_vec())
        .send();
    bad.expect_error(400, "UNSUPPORTED");
    assert_eq!(
        client.get(PATH).send().expect(200).json(),
        json!({ "readonly": false })
    );
}
