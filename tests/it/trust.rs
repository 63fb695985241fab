//! The CA of the registry's own: `registry cert`, what clients make of it, and what plain HTTP from elsewhere is told.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::server::{Server, eventually};

/// A server with a CA in `tls` beside its tree.
fn server() -> Server {
    let server = Server::new();
    let folder = server.dir().join("tls");
    server
        .set("http.tls.selfsigned.enabled", "true")
        .set("http.tls.selfsigned.directory", folder.to_str().unwrap())
        .set("http.tls.selfsigned.names", "[pi.example.com, 203.0.113.9]")
}

/// One that takes nobody for a client of this machine.
fn server_for_others() -> Server {
    // YAML takes a bare off for false.
    server().set("http.plain", "'off'").start()
}

fn cert(server: &Server, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_registry"))
        .arg("cert")
        .args(arguments)
        .arg("--config")
        .arg(server.config_path())
        .env_clear()
        .output()
        .expect("the binary starts")
}

#[track_caller]
fn printed(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn said(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A program of this machine that ends well, or not.
fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

fn sha256(path: &Path) -> String {
    let sum = printed(&run("sha256sum", &[path.to_str().unwrap()]));
    sum.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn plain_http_from_elsewhere_is_told_how_to_trust_and_nothing_else() {
    let server = server_for_others();
    let (client, ca) = (server.client(), server.dir().join("tls/ca.crt"));
    let sum = sha256(&ca);

    let page = client.get("/").send();
    assert_eq!(page.status, 200);
    let line = page
        .text()
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("sh -c ").map(str::to_owned))
        .expect("the page has the line");
    assert!(line.contains(&format!(" s={sum};")), "{line}");

    let refusal = client.get("/v2/library/app/manifests/1").send();
    assert_eq!(refusal.status, 403);
    let json: Value = serde_json::from_slice(&refusal.body).unwrap();
    assert_eq!(json["errors"][0]["code"], "DENIED");
    assert_eq!(json["errors"][0]["detail"]["ca_sha256"], *sum);
    let message = json["errors"][0]["message"].as_str().unwrap();
    let port = server.addr().port();
    assert!(
        message.contains(&format!("https://127.0.0.1:{port}")) && message.contains(&sum),
        "{message}"
    );
    assert_eq!(client.get("/v2/").send().status, 403);
    assert_eq!(client.post("/v2/app/blobs/uploads/").send().status, 403);

    let browser = client
        .get("/v2/_catalog")
        .header("Accept", "text/html,application/xhtml+xml;q=0.9")
        .send();
    assert_eq!(browser.status, 403);
    assert!(browser.text().starts_with("<!doctype html>"));
    let policy = browser.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; style-src 'sha256-"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"));
    assert_eq!(browser.header("x-frame-options"), Some("DENY"));
    assert_eq!(browser.header("x-content-type-options"), Some("nosniff"));
    assert!(!browser.text().contains("<script") && !browser.text().contains(" style="));
    assert!(browser.text().contains(&sum));

    assert_eq!(client.get("/ca.crt").send().body, fs::read(&ca).unwrap());
    let script = client.get("/trust").send().text();
    let first = script
        .lines()
        .find(|line| !line.starts_with('#'))
        .unwrap_or_default();
    assert!(first.contains("for reading only"), "{first}");
    assert!(client.get("/trust.ps1").send().text().starts_with("throw "));
}

#[test]
fn over_tls_the_script_is_the_one_that_runs() {
    let server = server().start();
    let ca = server.dir().join("tls/ca.crt");
    let url = format!("https://localhost:{}/trust", server.addr().port());
    let script = printed(&run(
        "curl",
        &["-sS", "--cacert", ca.to_str().unwrap(), &url],
    ));
    assert!(!script.contains("for reading only"));
    assert!(script.contains(fs::read_to_string(&ca).unwrap().trim_end()));
    assert!(script.contains(&format!(" pi.example.com:{}", server.addr().port())));
    // And so it is for this machine, which plain HTTP on loopback is not kept from.
    let plain = server.client().get("/trust").send().text();
    assert_eq!(
        plain.replace("127.0.0.1", "localhost"),
        script.replace("127.0.0.1", "localhost")
    );
}

#[test]
fn the_script_is_plain_sh() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tls/trust/trust.sh");
    assert!(run("sh", &["-n", script]).status.success());
    if !is_installed("shellcheck") {
        eprintln!("skipped: no shellcheck here");
        return;
    }
    let output = run("shellcheck", &["--shell=sh", script]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

/// A root with nothing but busybox and a shell, and the programs of another system, played by scripts. Needs root.
struct OtherSystem(tempfile::TempDir);

impl OtherSystem {
    /// `programs` are names and what they do, in sh.
    #[track_caller]
    fn new(server: &Server, folders: &[&str], programs: &[(&str, &str)]) -> Self {
        let system = Self(tempfile::tempdir().unwrap());
        for folder in ["bin", "stubs", "tmp", "dev", "root", "var/lib"]
            .iter()
            .chain(folders)
        {
            fs::create_dir_all(system.path(folder)).unwrap();
        }
        let busybox = fs::read_link("/bin/busybox").unwrap_or_else(|_| "/bin/busybox".into());
        fs::copy(busybox, system.path("bin/busybox")).expect("busybox-static is installed");
        let setup = "/bin/busybox --install -s /bin && mknod -m 666 /dev/null c 1 3";
        system.run(&["/bin/busybox", "sh", "-c", setup]);
        // Busybox's own shell prefers what is in busybox to the scripts.
        let mut needed = vec!["/bin/dash".to_owned()];
        let libraries = printed(&run("ldd", &["/bin/dash"]));
        let words = libraries.split_whitespace();
        needed.extend(words.filter(|w| w.starts_with('/')).map(str::to_owned));
        for file in needed {
            let to = system.path(&file[1..]);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(&file, to).unwrap();
        }
        for (name, does) in programs {
            let path = system.path("stubs").join(name);
            let script = format!("#!/bin/sh\necho \"$(basename \"$0\") $*\" >>/ran\n{does}\n");
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let script = server.client().get("/trust").send();
        fs::write(system.path("trust"), script.body).unwrap();
        system
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    #[track_caller]
    fn sh(&self, script: &str) -> String {
        self.run(&["/bin/dash", "-c", script])
    }

    #[track_caller]
    fn run(&self, command: &[&str]) -> String {
        let output = Command::new("/usr/sbin/chroot")
            .arg(self.0.path())
            .args(command)
            .env_clear()
            .env("PATH", "/stubs:/bin")
            .env("HOME", "/root")
            .output()
            .expect("chroot");
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {text}");
        text
    }

    /// What the stubs were called with since the last time.
    fn ran(&self) -> String {
        let ran = fs::read_to_string(self.path("ran")).unwrap_or_default();
        let _ = fs::remove_file(self.path("ran"));
        ran
    }

    /// All files and folders, but those of the system itself.
    fn tree(&self) -> String {
        self.sh("find / -path /bin -prune -o -path /tmp -prune -o -path /ran -o -print | sort")
    }
}

#[test]
fn the_stores_of_other_systems_get_the_authority_and_lose_it_again() {
    let server = server().start();
    let ca = fs::read_to_string(server.dir().join("tls/ca.crt")).unwrap();
    for (name, anchors, program, undone) in [
        (
            "Fedora",
            "etc/pki/ca-trust/source/anchors",
            "update-ca-trust",
            "update-ca-trust ",
        ),
        (
            "Arch",
            "etc/ca-certificates/trust-source/anchors",
            "update-ca-trust",
            "update-ca-trust ",
        ),
        (
            "SUSE",
            "etc/pki/trust/anchors",
            "update-ca-certificates",
            "update-ca-certificates --fresh",
        ),
        (
            "Alpine",
            "usr/local/share/ca-certificates",
            "update-ca-certificates",
            "update-ca-certificates --fresh",
        ),
    ] {
        let system = OtherSystem::new(&server, &[anchors, "etc/containers"], &[(program, "")]);
        let before = system.tree();
        let said = system.sh("dash /trust --dry-run");
        assert!(said.contains("nothing was changed"), "{name}: {said}");
        assert_eq!(system.tree(), before, "{name}");
        assert_eq!(system.ran(), "", "{name}");

        let said = system.sh("dash /trust");
        assert!(said.contains("done: docker push"), "{name}: {said}");
        assert_eq!(system.ran(), format!("{program} \n"), "{name}");
        let files = fs::read_dir(system.path(anchors)).unwrap();
        let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{name}: {files:?}");
        assert_eq!(
            fs::read_to_string(&files[0]).unwrap().trim(),
            ca.trim(),
            "{name}"
        );
        let certs = system.sh("find /etc/containers/certs.d -name registry-ca.crt");
        assert!(certs.contains("/pi.example.com:"), "{name}: {certs}");
        for absent in [
            "etc/docker",
            "etc/containerd",
            "etc/rancher",
            "etc/buildkit",
        ] {
            assert!(!system.path(absent).exists(), "{name}: {absent}");
        }
        let after = system.tree();
        let said = system.sh("dash /trust");
        assert!(!said.contains("wrote:"), "{name}: {said}");
        assert_eq!(system.ran(), "", "{name}");
        assert_eq!(system.tree(), after, "{name}");

        system.sh("dash /trust --undo");
        assert_eq!(system.ran(), format!("{undone}\n"), "{name}");
        assert_eq!(system.tree(), before, "{name}");
    }
}

/// macOS has one store, and `security(1)` is its door.
#[test]
fn the_keychain_of_macos_gets_the_authority_and_loses_it_again() {
    const SECURITY: &str = r#"
case $1 in
    find-certificate) echo "SHA-1 hash: 00"; for c in /keychain/*; do [ ! -e "$c" ] || echo "SHA-256 hash: ${c##*/}"; done ;;
    add-trusted-cert)
        for last; do :; done
        sum=$(sed '/^-----/d' "$last" | base64 -d | sha256sum | cut -d ' ' -f 1 | tr a-f A-F)
        cp "$last" "/keychain/$sum" ;;
    delete-certificate) rm "/keychain/$3" ;;
    *) exit 1 ;;
esac"#;
    let server = server().start();
    let ca = fs::read_to_string(server.dir().join("tls/ca.crt")).unwrap();
    // Docker Desktop brings folders that Linux has too; they mean nothing there.
    let folders = ["keychain", "etc/docker", "usr/local/var"];
    let programs = [("uname", "echo Darwin"), ("security", SECURITY)];
    let system = OtherSystem::new(&server, &folders, &programs);
    let before = system.tree();
    let said = system.sh("dash /trust --dry-run");
    assert!(said.contains("would add the authority"), "{said}");
    assert_eq!(fs::read_dir(system.path("keychain")).unwrap().count(), 0);

    let said = system.sh("dash /trust");
    assert!(said.contains("restart of Docker Desktop"), "{said}");
    let added = fs::read_dir(system.path("keychain")).unwrap();
    let added: Vec<_> = added.map(|file| file.unwrap().path()).collect();
    assert_eq!(added.len(), 1);
    assert_eq!(fs::read_to_string(&added[0]).unwrap().trim(), ca.trim());
    let ran = system.ran();
    assert!(
        ran.contains(
            "security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain"
        ),
        "{ran}"
    );
    assert!(!system.path("etc/docker/certs.d").exists());

    let said = system.sh("dash /trust");
    assert!(said.contains("is there:    /Library"), "{said}");
    assert!(!system.ran().contains("add-trusted-cert"));
    system.sh("dash /trust --undo");
    let _ = system.ran();
    assert_eq!(fs::read_dir(system.path("keychain")).unwrap().count(), 0);
    assert_eq!(system.tree(), before);
}

#[test]
fn the_commands_make_show_renew_and_export() {
    let server = server().start();
    let tls = server.dir().join("tls");
    let files = || {
        ["ca.pem", "ca.crt", "server.pem", "server.crt"]
            .map(|name| fs::read(tls.join(name)).unwrap())
    };
    let before = files();
    let shown = printed(&cert(&server, &["show"]));
    assert_eq!(printed(&cert(&server, &["init"])), shown, "made already");
    assert_eq!(files(), before);
    for expected in [
        "localhost",
        "pi.example.com",
        "127.0.0.1",
        "203.0.113.9",
        &sha256(&tls.join("ca.crt")),
    ] {
        assert!(shown.contains(expected), "{expected}\n{shown}");
    }
    let line = printed(&cert(&server, &["export", "--line"]));
    assert!(shown.contains(&format!("  {line}")), "{shown}");
    let ca = printed(&cert(&server, &["export", "--ca"]));
    assert_eq!(ca.as_bytes(), before[1]);
    for what in ["--certificate", "--trust-script", "--powershell"] {
        assert!(
            printed(&cert(&server, &["export", what])).contains(ca.trim_end()),
            "{what}"
        );
    }
    for secret in ["--ca", "--certificate", "--trust-script", "--powershell"] {
        assert!(!printed(&cert(&server, &["export", secret])).contains("PRIVATE"));
    }

    // Taken up by the server that runs.
    printed(&cert(&server, &["renew"]));
    let after = files();
    assert_eq!(after[0], before[0], "the CA stays");
    assert_ne!(after[2], before[2]);
    server.signal(Signal::SIGHUP);
    let served = || {
        let address = server.addr().to_string();
        let shown = Command::new("sh")
            .arg("-c")
            .arg("openssl s_client -connect \"$1\" </dev/null 2>/dev/null | openssl x509")
            .args(["sh", &address])
            .output()
            .unwrap();
        String::from_utf8_lossy(&shown.stdout).into_owned()
    };
    eventually("the new certificate is served", || {
        let new = String::from_utf8_lossy(&after[3]).into_owned();
        let served = served();
        (!served.is_empty() && new.starts_with(&served)).then_some(())
    });

    printed(&cert(&server, &["renew", "--ca"]));
    assert_ne!(files()[1], before[1]);
}

#[test]
fn without_a_ca_of_its_own_there_is_nothing_to_make() {
    let server = Server::new().start();
    let init = printed(&cert(&server, &["init"]));
    assert!(init.contains("http.tls.selfsigned.enabled"), "{init}");
    for arguments in [&["show"][..], &["renew"], &["export", "--ca"]] {
        let refused = said(&cert(&server, arguments));
        assert!(refused.contains("http.tls.selfsigned.enabled"), "{refused}");
    }
    let reply = server.client().get("/ca.crt").send();
    assert_eq!(reply.status, 404);
}

#[test]
fn a_renewal_that_fails_keeps_what_works() {
    let mut server = server().start();
    let tls = server.dir().join("tls");
    server.terminate();
    fs::write(tls.join("ca.pem"), "damaged").unwrap();
    server.restart();
    assert!(
        server.log().contains("the old one stays in use"),
        "{}",
        server.log()
    );
    let url = format!("https://localhost:{}/v2/", server.addr().port());
    let ca = tls.join("ca.crt");
    assert_eq!(
        printed(&run(
            "curl",
            &["-sS", "--cacert", ca.to_str().unwrap(), &url]
        )),
        "{}"
    );
    server.terminate();
    // Nothing to serve with: said, and nothing is made in its place.
    fs::remove_file(tls.join("server.pem")).unwrap();
    let (status, log) = server.run();
    assert!(!status.success());
    assert!(log.contains("ca.pem is damaged"), "{log}");
    assert_eq!(fs::read(tls.join("ca.pem")).unwrap(), b"damaged");
}

#[test]
fn a_certificate_of_the_owners_is_shown_and_the_ca_is_not_used() {
    let made = server().start();
    let path = |name: &str| made.dir().join("tls").join(name);
    let own = server()
        .set("http.tls.certificate", path("server.crt").to_str().unwrap())
        .set("http.tls.key", path("server.pem").to_str().unwrap())
        .start();
    assert!(!own.dir().join("tls").exists());
    assert!(
        own.log().contains("http.tls.selfsigned: is not used"),
        "{}",
        own.log()
    );
    let shown = printed(&cert(&own, &["show"]));
    assert!(
        shown.contains("your own") && shown.contains("pi.example.com"),
        "{shown}"
    );
    assert_eq!(own.client().get("/trust").send().status, 404);
}

/// `registry:2` would fetch a certificate: whoever moves here gets TLS all the same, and is told with which one.
#[test]
fn a_configuration_with_lets_encrypt_gets_tls_by_the_ca_of_its_own() {
    let server = Server::new();
    let folder = server.dir().join("tls");
    let server = server
        .set("http.tls.letsencrypt.email", "admin@example.com")
        .set("http.tls.letsencrypt.cachefile", "/cache/letsencrypt")
        .set("http.tls.letsencrypt.hosts", "[registry.example.com]")
        .set("http.tls.selfsigned.directory", folder.to_str().unwrap())
        .start();
    let log = server.log();
    assert!(
        log.contains("http.tls.letsencrypt: certificates are not fetched")
            && log.contains("registry cert show"),
        "{log}"
    );
    let address = server.addr();
    let answer = printed(&run(
        "curl",
        &[
            "-sS",
            "--cacert",
            folder.join("ca.crt").to_str().unwrap(),
            "--connect-to",
            &format!(
                "registry.example.com:443:{}:{}",
                address.ip(),
                address.port()
            ),
            "-w",
            "%{http_code}",
            "https://registry.example.com/v2/",
        ],
    ));
    assert!(answer.ends_with("200"), "{answer}");
}

/// OpenSSL and GnuTLS take the chain; with the CA's key somebody else's site cannot be played.
#[test]
fn clients_accept_the_chain_and_heed_its_constraints() {
    let server = server().start();
    let dir = server.dir();
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let (ca, chain) = (path("tls/ca.crt"), path("tls/server.crt"));
    printed(&run(
        "openssl",
        &["verify", "-x509_strict", "-CAfile", &ca, &chain],
    ));

    let stolen = fs::read_to_string(path("tls/ca.pem")).unwrap();
    let key = stolen.split("-----BEGIN CERTIFICATE-----").next().unwrap();
    fs::write(path("stolen.key"), key).unwrap();
    for (name, good) in [
        ("DNS:attic.local", true),
        ("DNS:pi.example.com", true),
        ("IP:192.168.7.7", true),
        ("DNS:www.example.org", false),
        ("IP:8.8.8.8", false),
    ] {
        fs::write(
            path("extensions"),
            format!("subjectAltName={name}\nextendedKeyUsage=serverAuth\n"),
        )
        .unwrap();
        printed(&run(
            "openssl",
            &[
                "req",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-subj",
                "/O=somebody",
                "-keyout",
                &path("forged.key"),
                "-out",
                &path("forged.csr"),
            ],
        ));
        printed(&run(
            "openssl",
            &[
                "x509",
                "-req",
                "-in",
                &path("forged.csr"),
                "-CA",
                &ca,
                "-CAkey",
                &path("stolen.key"),
                "-CAcreateserial",
                "-days",
                "2",
                "-extfile",
                &path("extensions"),
                "-out",
                &path("forged.crt"),
            ],
        ));
        let forged = path("forged.crt");
        let by_openssl = run("openssl", &["verify", "-CAfile", &ca, &forged]);
        assert_eq!(by_openssl.status.success(), good, "OpenSSL: {name}");
        if is_installed("certtool") {
            let by_gnutls = run(
                "certtool",
                &[
                    "--verify",
                    "--load-ca-certificate",
                    &ca,
                    "--infile",
                    &forged,
                ],
            );
            assert_eq!(by_gnutls.status.success(), good, "GnuTLS: {name}");
        } else {
            eprintln!("skipped: no certtool here");
        }
    }
}
