//! Who somebody is: passwords, robots, client certificates, and what they are told when they are nobody.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::http::Client;
use crate::support::image::Image;
use crate::support::server::{self, Server};

/// What the registry's own commands are run with: a configuration and its files in a folder.
pub(crate) struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new(access: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home { folder };
        let config = format!(
            "version: 0.1\nauth:\n  htpasswd:\n    realm: Registry\n    path: {}\n{access}\n",
            home.path("htpasswd").display()
        );
        fs::write(home.path("config.yml"), config).unwrap();
        home
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, args: &[&str], stdin: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_registry"))
            .args(args)
            .arg("--config")
            .arg(self.path("config.yml"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(stdin.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    }

    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str], stdin: &str) -> String {
        let output = self.run(args, stdin);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[track_caller]
    pub(crate) fn refused(&self, args: &[&str], stdin: &str) -> String {
        let output = self.run(args, stdin);
        assert!(!output.status.success(), "{args:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    pub(crate) fn add_user(&self, name: &str, password: &str) {
        self.ok(
            &["user", "add", name, "--password-stdin"],
            &format!("{password}\n"),
        );
    }

    /// A server with the same files.
    pub(crate) fn serve(&self, access: Option<&str>) -> Server {
        let mut server = Server::new().set("auth.htpasswd.realm", "Registry").set(
            "auth.htpasswd.path",
            &self.path("htpasswd").display().to_string(),
        );
        if let Some(access) = access {
            server = server.set("access", access);
        }
        server.start()
    }
}

pub(crate) fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", base64(format!("{name}:{password}").as_bytes()))
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let all = u32::from_be_bytes([
            0,
            chunk[0],
            chunk.get(1).copied().unwrap_or(0),
            chunk.get(2).copied().unwrap_or(0),
        ]);
        for i in 0..4 {
            let letter = LETTERS[(all >> (18 - 6 * i)) as usize & 63] as char;
            out.push(if i <= chunk.len() { letter } else { '=' });
        }
    }
    out
}

fn as_user(server: &Server, name: &str, password: &str) -> Client {
    server
        .client()
        .with_header("Authorization", &basic(name, password))
}

/// Waits until it is so.
#[track_caller]
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    server::eventually(what, || is_so().then_some(()));
}

fn status(client: &Client, path: &str) -> u16 {
    client.get(path).send().status
}

#[test]
fn with_passwords_alone_who_has_one_may_do_everything_and_nobody_else_anything() {
    let home = Home::new("");
    home.add_user("alice", "secret");
    let server = home.serve(None);
    let anonymous = server.client();
    for path in [
        "/v2/",
        "/v2/_catalog",
        "/v2/a/tags/list",
        "/v2/a/manifests/b",
        "/metrics",
    ] {
        let reply = anonymous.get(path).send().expect_error(401, "UNAUTHORIZED");
        assert_eq!(
            reply.header("www-authenticate"),
            Some("Basic realm=\"Registry\""),
            "{path}"
        );
        let message = &reply.json()["errors"][0]["message"];
        assert_eq!(message, "authentication required", "{path}");
    }
    // Machines have to see that it is well.
    for path in ["/healthz", "/readyz"] {
        anonymous.get(path).send().expect(200);
    }
    let alice = as_user(&server, "alice", "secret");
    alice.get("/v2/").send().expect(200);
    let image = Image::new(1);
    image.push(&alice, "team/app", "1");
    image.assert_pullable(&alice, "team/app", "1");
    alice
        .delete(&format!("/v2/team/app/manifests/{}", image.digest()))
        .send()
        .expect(202);
    for (name, password) in [
        ("alice", "Secret"),
        ("alice", ""),
        ("bob", "secret"),
        ("", "secret"),
    ] {
        let reply = as_user(&server, name, password).get("/v2/").send();
        assert_eq!(
            reply.expect(401).header("www-authenticate"),
            Some("Basic realm=\"Registry\"")
        );
    }
    let log = server.log();
    assert!(log.contains("user=alice"), "{log}");
    for line in [
        "log in",
        "put-manifest team/app 1",
        "delete-manifest team/app",
    ] {
        let found = log
            .lines()
            .find(|l| l.contains("audit") && l.contains(line));
        let found = found.unwrap_or_else(|| panic!("no audit of {line} in\n{log}"));
        assert!(
            found.contains("who=alice")
                && found.contains("from=127.0.0.1")
                && found.contains("result=ok"),
            "{found}"
        );
    }
    assert!(!log.contains("secret") && !log.contains("Secret"), "{log}");
}

#[test]
fn users_come_change_and_go_while_it_runs() {
    let home = Home::new("");
    // The file is not there yet: nobody, and a word about it.
    let server = home.serve(None);
    assert!(server.log().contains("registry user add"));
    let alice = as_user(&server, "alice", "secret");
    alice.get("/v2/").send().expect(401);
    home.add_user("alice", "secret");
    let mode = fs::metadata(home.path("htpasswd"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640);
    eventually("alice is let in", || status(&alice, "/v2/") == 200);
    assert!(
        home.refused(&["user", "add", "alice", "--password-stdin"], "x")
            .contains("passwd")
    );
    home.add_user("bob", "secret");
    assert_eq!(home.ok(&["user", "list"], ""), "alice\nbob\n");
    home.ok(&["user", "passwd", "alice", "--password-stdin"], "other\n");
    eventually("the old password is useless", || {
        status(&alice, "/v2/") == 401
    });
    as_user(&server, "alice", "other")
        .get("/v2/")
        .send()
        .expect(200);
    home.ok(&["user", "remove", "bob"], "");
    let bob = as_user(&server, "bob", "secret");
    eventually("bob is not let in", || status(&bob, "/v2/") == 401);
    for (args, stdin, why) in [
        (&["user", "remove", "bob"][..], "", "not in"),
        (
            &["user", "passwd", "bob", "--password-stdin"],
            "x",
            "user add",
        ),
        (&["user", "add", "a:b", "--password-stdin"], "x", "colon"),
        (
            &["user", "add", "robot+x", "--password-stdin"],
            "x",
            "robots",
        ),
        (&["user", "add", "eve", "--password-stdin"], "", "empty"),
        (&["user", "add", "eve"], "", "--password-stdin"),
    ] {
        let told = home.refused(args, stdin);
        assert!(told.contains(why), "{args:?}: {told}");
    }
    assert_eq!(home.ok(&["user", "list"], ""), "alice\n");
}

#[test]
fn weak_hashes_let_nobody_in_and_are_named() {
    let home = Home::new("");
    home.add_user("alice", "secret");
    let good = fs::read_to_string(home.path("htpasswd")).unwrap();
    let weak = "bob:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\ncarol:$apr1$a$b\ndora:plain\n";
    fs::write(home.path("htpasswd"), good + weak).unwrap();
    let server = home.serve(None);
    let log = server.log();
    for (line, name, scheme) in [
        (2, "bob", "SHA-1"),
        (3, "carol", "MD5"),
        (4, "dora", "crypt"),
    ] {
        let found = log
            .lines()
            .find(|l| l.contains(&format!("htpasswd:{line}:")));
        let found = found.unwrap_or_else(|| panic!("line {line} is not named in\n{log}"));
        assert!(found.contains(name) && found.contains(scheme), "{found}");
    }
    as_user(&server, "dora", "plain")
        .get("/v2/")
        .send()
        .expect(401);
    as_user(&server, "alice", "secret")
        .get("/v2/")
        .send()
        .expect(200);
}

#[test]
fn robots_do_what_they_were_made_for_until_they_expire() {
    let access = "[{who: robots, allow: all}]";
    let home = Home::new(&format!("access: {access}"));
    let server = home.serve(Some(access));
    let add = |args: &[&str]| {
        let all = [&["robot", "add"][..], args].concat();
        home.ok(&all, "").trim().to_owned()
    };
    let key = add(&[
        "ci",
        "--repo",
        "team/**",
        "--allow",
        "push",
        "--expires",
        "90d",
    ]);
    let file = fs::read_to_string(home.path("robots")).unwrap();
    assert!(!file.contains(&key), "the key itself is nowhere");
    let ci = as_user(&server, "robot+ci", &key);
    eventually("the robot is let in", || status(&ci, "/v2/") == 200);
    let image = Image::new(2);
    image.push(&ci, "team/app", "1");
    image.assert_pullable(&ci, "team/app", "1");
    ci.post("/v2/other/blobs/uploads/")
        .send()
        .expect_error(403, "DENIED");
    ci.delete("/v2/team/app/manifests/1")
        .send()
        .expect_error(403, "DENIED");
    ci.get("/v2/_catalog").send().expect_error(403, "DENIED");
    let listed = home.ok(&["robot", "list"], "");
    assert!(
        listed.starts_with("robot+ci: pull, push in team/**, until 20"),
        "{listed}"
    );
    assert!(
        home.refused(
            &["robot", "add", "ci", "--repo", "a", "--allow", "pull"],
            ""
        )
        .contains("already")
    );
    let short = add(&[
        "short",
        "--repo",
        "**",
        "--allow",
        "pull",
        "--expires",
        "2s",
    ]);
    let short = as_user(&server, "robot+short", &short);
    eventually("the short one is let in", || status(&short, "/v2/") == 200);
    eventually("and expires", || status(&short, "/v2/") == 401);
    home.ok(&["robot", "remove", "ci"], "");
    eventually("the key is useless", || status(&ci, "/v2/") == 401);
}

#[test]
fn credentials_that_cannot_be_read_are_none() {
    let home = Home::new("");
    home.add_user("alice", "secret");
    let access = "[{who: users, allow: all}, {who: anyone, repositories: public/*, allow: pull}]";
    let server = home.serve(Some(access));
    let good = basic("alice", "secret");
    let path = "/v2/public/a/manifests/1";
    let ask = |headers: &[&str]| {
        let client = server.client();
        let request = headers.iter().fold(client.get(path), |request, header| {
            request.header("Authorization", header)
        });
        request.send().status
    };
    // Let in, and there is nothing.
    assert_eq!(ask(&[]), 404);
    assert_eq!(ask(&[&good]), 404);
    // What podman and skopeo send when they have none.
    assert_eq!(ask(&["Basic Og=="]), 404);
    // Wrong ones are told so, also where none would do.
    for header in [
        "Basic",
        "Basic !",
        "Digest x",
        "Bearer x",
        "x",
        "Basic YWxpY2U=",
    ] {
        assert_eq!(ask(&[header]), 401, "{header}");
    }
    // A proxy in front may have looked at the other one.
    assert_eq!(ask(&[&good, &good]), 401);
    assert_eq!(ask(&["Basic Og==", &good]), 401);
    // Neither ends a header early nor begins another one.
    let raw = format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {good}\r\n\tX\r\nConnection: close\r\n\r\n"
    );
    let reply = server.client().raw(raw.as_bytes()).unwrap();
    assert!([400, 401].contains(&reply.status), "{reply:?}");
}

/// Whoever guesses waits; others do not: neither the same user from elsewhere, nor others from the same address.
#[test]
fn guessing_is_slowed_down_for_the_guesser_alone() {
    let home = Home::new("");
    home.add_user("alice", "secret");
    home.add_user("bob", "secret");
    let server = Server::new()
        .set("auth.htpasswd.realm", "Registry")
        .set(
            "auth.htpasswd.path",
            &home.path("htpasswd").display().to_string(),
        )
        .set("http.trustedproxies", "127.0.0.1")
        .start();
    let from = |address: &str, name: &str, password: &str| {
        as_user(&server, name, password)
            .with_header("X-Forwarded-For", address)
            .get("/v2/")
            .send()
    };
    // Somebody is at work behind that address already.
    from("203.0.113.7", "bob", "secret").expect(200);
    let mut waited = None;
    for n in 0..20 {
        let reply = from("203.0.113.7", "alice", &format!("guess {n}"));
        if reply.status == 429 {
            waited = Some(reply);
            break;
        }
        reply.expect(401);
    }
    let reply = waited.expect("guessing goes on and on");
    let seconds: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=300).contains(&seconds), "{seconds}");
    reply.expect_error(429, "TOOMANYREQUESTS");
    from("203.0.113.7", "bob", "secret").expect(200);
    from("203.0.113.8", "alice", "secret").expect(200);
    from("198.51.100.1", "alice", "secret").expect(200);
    // The same wrong password again and again is an old machine, not a guess.
    for _ in 0..30 {
        from("203.0.113.9", "bob", "old password").expect(401);
    }
    from("203.0.113.9", "bob", "secret").expect(200);
}

/// A flood of guesses costs those who are known no more than their share of the machine.
#[test]
fn spraying_passwords_does_not_stop_who_is_served() {
    let home = Home::new("");
    home.add_user("alice", "secret");
    let server = home.serve(None);
    let alice = as_user(&server, "alice", "secret");
    alice.get("/v2/").send().expect(200);
    let until = Instant::now() + Duration::from_secs(3);
    let (served, sprayed) = thread::scope(|scope| {
        let sprayers: Vec<_> = (0..16)
            .map(|thread| {
                let server = &server;
                scope.spawn(move || {
                    let mut refused = 0;
                    while Instant::now() < until {
                        let name = format!("user{thread}-{refused}");
                        let reply = as_user(server, &name, "Password1").get("/v2/").send();
                        assert!([401, 429].contains(&reply.status), "{reply:?}");
                        refused += 1;
                    }
                    refused
                })
            })
            .collect();
        let mut served = 0u32;
        while Instant::now() < until {
            alice.get("/v2/").send().expect(200);
            served += 1;
        }
        (
            served,
            sprayers.into_iter().map(|s| s.join().unwrap()).sum::<u32>(),
        )
    });
    assert!(sprayed > 16, "{sprayed}");
    // Each would have waited for some of the hashes if it had needed one.
    assert!(served > 100, "{served} requests beside {sprayed} guesses");
}

/// A CA, and two certificates that it signed.
fn certificates(folder: &Path) {
    let openssl = |args: &[&str]| {
        let output = Command::new("openssl")
            .args(args)
            .current_dir(folder)
            .output()
            .expect("openssl runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    let new = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ];
    let req = |more: &[&str]| openssl(&[&["req"][..], &new, more].concat());
    req(&[
        "-x509", "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt",
    ]);
    req(&[
        "-x509",
        "-days",
        "2",
        "-subj",
        "/CN=build-7",
        "-keyout",
        "forged.key",
        "-out",
        "forged.crt",
    ]);
    fs::write(folder.join("localhost.ext"), "subjectAltName=DNS:localhost").unwrap();
    fs::write(folder.join("build-7.ext"), "extendedKeyUsage=clientAuth").unwrap();
    for name in ["localhost", "build-7"] {
        let (key, csr, crt, ext) = (
            format!("{name}.key"),
            format!("{name}.csr"),
            format!("{name}.crt"),
            format!("{name}.ext"),
        );
        req(&[
            "-subj",
            &format!("/O=lab/CN={name}"),
            "-keyout",
            &key,
            "-out",
            &csr,
        ]);
        openssl(&[
            "x509",
            "-req",
            "-in",
            &csr,
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-out",
            &crt,
            "-extfile",
            &ext,
        ]);
    }
}

#[test]
fn a_client_certificate_is_who_it_names() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let serve = |auth: &str| {
        Server::new()
            .set("http.plain", "loopback")
            .set("http.tls.certificate", &path("localhost.crt"))
            .set("http.tls.key", &path("localhost.key"))
            .set("http.tls.clientcas", &format!("[{}]", path("ca.crt")))
            .set("http.tls.clientauth", auth)
            .set(
                "access",
                "[{who: 'certificate:build-7', repositories: builds/*, allow: pull}]",
            )
            .start()
    };
    let ask = |server: &Server, certificate: Option<&str>, repo: &str| {
        let port = server.addr().port();
        let mut curl = Command::new("curl");
        curl.args([
            "-sS",
            "--max-time",
            "20",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--resolve",
            &format!("localhost:{port}:127.0.0.1"),
        ])
        .args(["--cacert", &path("ca.crt")]);
        if let Some(name) = certificate {
            curl.args([
                "--cert",
                &path(&format!("{name}.crt")),
                "--key",
                &path(&format!("{name}.key")),
            ]);
        }
        let output = curl
            .arg(format!("https://localhost:{port}/v2/{repo}/manifests/1"))
            .output()
            .expect("curl runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let server = serve("verify-client-cert-if-given");
    assert_eq!(
        ask(&server, Some("build-7"), "builds/a"),
        "404",
        "let in, and nothing there"
    );
    assert_eq!(
        ask(&server, Some("build-7"), "other"),
        "404",
        "and elsewhere it looks the same"
    );
    assert_eq!(ask(&server, None, "builds/a"), "403");
    assert!(server.log().contains("CN=build-7"), "{}", server.log());
    // Nobody checks whose certificate it is, so it is nobody's.
    let server = serve("request-client-cert");
    assert_eq!(ask(&server, Some("forged"), "builds/a"), "403");
}
