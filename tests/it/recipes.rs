//! The recipes of README's "Who may do what", taken from there and run.

use std::fs;

use serde_yaml::Value;

use crate::auth::{Home, basic};
use crate::support::http::Client;
use crate::support::image::{Image, open_upload};
use crate::support::server::Server;

/// The indented block that follows the paragraph that begins with `**NAME.**`.
fn recipe(name: &str) -> String {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let start = readme
        .find(&format!("**{name}.**"))
        .unwrap_or_else(|| panic!("README has no recipe {name:?}"));
    let lines = readme[start..].lines();
    let block: Vec<&str> = lines
        .skip_while(|line| !line.starts_with("    "))
        .map_while(|line| line.strip_prefix("    "))
        .collect();
    block.join("\n")
}

/// A server with it, and the files of users in `home`. `with_proxy`: what a proxy on this machine says is believed.
fn serve(name: &str, home: &Home, with_proxy: bool) -> Server {
    let folder = home.path("");
    let yaml = recipe(name).replace("/etc/registry/", &folder.display().to_string());
    let Value::Mapping(keys) = serde_yaml::from_str(&yaml).unwrap() else {
        panic!("{yaml}")
    };
    let mut server = Server::new();
    for (key, value) in &keys {
        let key = key.as_str().unwrap();
        // Beside what the tests need of http themselves.
        match (key, value) {
            ("http", Value::Mapping(http)) => {
                for (name, value) in http {
                    let path = format!("http.{}", name.as_str().unwrap());
                    server = server.set(&path, &serde_yaml::to_string(value).unwrap());
                }
            }
            _ => server = server.set(key, &serde_yaml::to_string(value).unwrap()),
        }
    }
    if with_proxy {
        server = server.set("http.trustedproxies", "[127.0.0.1]");
    }
    server.start()
}

fn from(client: &Client, address: &str) -> Client {
    client.clone().with_header("X-Forwarded-For", address)
}

fn alice(server: &Server) -> Client {
    server
        .client()
        .with_header("Authorization", &basic("alice", "secret"))
}

/// 202 when an upload may begin.
fn push(client: &Client, repo: &str) -> u16 {
    client
        .post(&format!("/v2/{repo}/blobs/uploads/"))
        .send()
        .status
}

fn pull(client: &Client, repo: &str) -> u16 {
    client.get(&format!("/v2/{repo}/manifests/1")).send().status
}

fn delete(client: &Client, repo: &str) -> u16 {
    client
        .delete(&format!("/v2/{repo}/manifests/1"))
        .send()
        .status
}

fn home(users: &[&str]) -> Home {
    let home = Home::new("");
    users.iter().for_each(|name| home.add_user(name, "secret"));
    home
}

#[test]
fn an_open_lan() {
    let home = home(&["alice"]);
    let server = serve("An open LAN", &home, true);
    let (lan, world) = (
        from(&server.client(), "192.168.1.5"),
        from(&server.client(), "8.8.8.8"),
    );
    Image::new(1).push(&lan, "a", "1");
    assert_eq!((pull(&lan, "a"), delete(&lan, "a")), (200, 401));
    assert_eq!((pull(&world, "a"), push(&world, "a")), (403, 403));
    assert_eq!(pull(&from(&alice(&server), "8.8.8.8"), "a"), 403);
    assert_eq!(delete(&from(&alice(&server), "192.168.1.5"), "a"), 202);
}

/// As docker does it: asked for a token, it gets one without a name for the pull and one with a password for the push.
#[test]
fn a_password_to_push() {
    let home = home(&["alice"]);
    let server = serve("A password to push", &home, true);
    let lan = from(&server.client(), "192.168.1.5");
    Image::new(1).push(&alice(&server), "a", "1");
    assert_eq!((pull(&lan, "a"), push(&lan, "a")), (200, 401));
    let challenge = lan.get("/v2/").send().expect_error(401, "UNAUTHORIZED");
    let challenge = challenge.header("www-authenticate").unwrap();
    assert!(
        challenge.starts_with("Bearer realm=") && challenge.contains("/auth/token"),
        "{challenge}"
    );
    let token = |client: &Client| {
        let path = "/auth/token?service=registry&scope=repository:a:pull,push";
        let token = client.get(path).send().expect(200).json()["token"].clone();
        lan.clone().with_header(
            "Authorization",
            &format!("Bearer {}", token.as_str().unwrap()),
        )
    };
    let (anonymous, named) = (token(&lan), token(&from(&alice(&server), "192.168.1.5")));
    assert_eq!((pull(&anonymous, "a"), push(&anonymous, "a")), (200, 401));
    open_upload(&named, "a");
    let world = from(&server.client(), "8.8.8.8");
    assert_eq!(pull(&world, "a"), 401);
    assert_eq!(delete(&from(&alice(&server), "8.8.8.8"), "a"), 202);
}

#[test]
fn repositories_of_teams() {
    let home = home(&["alice", "bob", "root"]);
    fs::write(home.path("groups"), "team: alice\nops: root\n").unwrap();
    let server = serve("Repositories of teams", &home, false);
    let as_user = |name: &str| {
        server
            .client()
            .with_header("Authorization", &basic(name, "secret"))
    };
    let (alice, bob, root) = (as_user("alice"), as_user("bob"), as_user("root"));
    for repo in ["team/app", "base/os", "secret"] {
        Image::new(1).push(&root, repo, "1");
    }
    assert_eq!(
        (
            push(&alice, "team/app"),
            push(&alice, "base/os"),
            push(&alice, "secret")
        ),
        (202, 403, 403)
    );
    assert_eq!(
        (
            pull(&bob, "team/app"),
            pull(&bob, "base/os"),
            push(&bob, "team/app")
        ),
        (404, 200, 403)
    );
    assert_eq!(pull(&server.client(), "base/os"), 401);
    assert_eq!(
        (delete(&bob, "team/app"), delete(&alice, "team/app")),
        (403, 202)
    );
}

#[test]
fn a_machine_that_builds() {
    let home = home(&["alice"]);
    let key = home.ok(
        &[
            "robot",
            "add",
            "ci",
            "--repo",
            "team/**",
            "--allow",
            "push",
            "--expires",
            "90d",
        ],
        "",
    );
    let command = "registry robot add ci --repo 'team/**' --allow push --expires 90d";
    assert!(
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"))
            .unwrap()
            .contains(command)
    );
    let server = serve("A machine that builds", &home, true);
    let robot = server
        .client()
        .with_header("Authorization", &basic("robot+ci", key.trim()));
    let (builder, other) = (from(&robot, "192.168.7.9"), from(&robot, "192.168.1.5"));
    Image::new(1).push(&builder, "team/app", "1");
    assert_eq!(
        (pull(&builder, "team/app"), delete(&builder, "team/app")),
        (200, 403)
    );
    assert_eq!(push(&builder, "base/os"), 403);
    assert_eq!(push(&other, "team/app"), 403);
    assert_eq!(delete(&alice(&server), "team/app"), 202);
}

#[test]
fn behind_a_proxy() {
    let home = home(&[]);
    let server = serve("Behind a proxy", &home, false);
    let (near, far) = (
        from(&server.client(), "192.168.3.4"),
        from(&server.client(), "8.8.8.8"),
    );
    Image::new(1).push(&near, "a", "1");
    assert_eq!(
        (pull(&near, "a"), pull(&far, "a"), push(&far, "a")),
        (200, 403, 403)
    );
    let upload = near.post("/v2/a/blobs/uploads/").send().expect(202);
    let location = upload.header("location").unwrap();
    assert!(
        location.starts_with("https://registry.example.com/v2/a/"),
        "{location}"
    );
}
