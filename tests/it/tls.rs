//! TLS and plain HTTP on one port, as curl and openssl see them, and `serve --local`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::sys::signal::Signal;

use crate::support::server::{Server, eventually};

/// Listens on a port of its own all the same: what `--local` sets gives way to the environment.
pub(crate) fn local(folder: &Path) -> Server {
    local_with(folder, &[])
}

fn local_with(folder: &Path, variables: &[(&str, &str)]) -> Server {
    let server = variables
        .iter()
        .fold(Server::new(), |server, (name, value)| {
            server.env(name, value)
        });
    server
        .env("REGISTRY_HTTP_ADDR", "127.0.0.1:0")
        .args([
            "serve".into(),
            "--local".into(),
            folder.as_os_str().to_owned(),
        ])
        .start()
}

fn curl(server: &Server, scheme: &str, path: &str, options: &[&str]) -> Output {
    let url = format!("{scheme}://localhost:{}{path}", server.addr().port());
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "20", "--resolve"])
        .arg(format!("localhost:{}:127.0.0.1", server.addr().port()));
    curl.args(options).arg(url).output().expect("curl runs")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A CA of its own, and what it says of `localhost`.
fn certificate(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let (key, certificate) = (
        folder.join(format!("{name}.key")),
        folder.join(format!("{name}.crt")),
    );
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args([
            "-subj",
            &format!("/CN={name}"),
            "-addext",
            "subjectAltName=DNS:localhost",
        ])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl runs");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    (certificate, key)
}

#[test]
fn local_serves_http_and_https_on_one_port_with_a_ca_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let server = local(&folder.path().join("data"));
    assert_eq!(text(&curl(&server, "http", "/v2/", &[])), "{}");
    let ca = folder.path().join("data/tls/ca.crt");
    let ca = ca.to_str().unwrap();
    let answer = curl(&server, "https", "/v2/", &["--cacert", ca]);
    assert_eq!(
        text(&answer),
        "{}",
        "{}",
        String::from_utf8_lossy(&answer.stderr)
    );
    let stranger = curl(&server, "https", "/v2/", &[]);
    assert_eq!(
        stranger.status.code(),
        Some(60),
        "curl trusts nobody who did not get the CA"
    );
    assert!(
        folder.path().join("data/docker").is_dir() || folder.path().join("data/.registry").is_dir()
    );
}

#[test]
fn local_keeps_its_certificate_and_its_keys_to_itself() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let tls = folder.path().join("tls");
    let mut server = local(folder.path());
    let ca = std::fs::read(tls.join("ca.crt")).unwrap();
    assert!(server.terminate().success());
    server.restart();
    assert_eq!(
        std::fs::read(tls.join("ca.crt")).unwrap(),
        ca,
        "a restart makes no other"
    );
    for entry in std::fs::read_dir(&tls).unwrap() {
        let entry = entry.unwrap();
        let content = std::fs::read_to_string(entry.path()).unwrap_or_default();
        if content.contains("PRIVATE KEY") {
            assert_eq!(
                entry.metadata().unwrap().mode() & 0o077,
                0,
                "{}",
                entry.path().display()
            );
        }
    }
}

#[test]
fn sighup_reads_certificates_again_and_keeps_the_old_one_when_the_new_is_broken() {
    let folder = tempfile::tempdir().unwrap();
    let (first, first_key) = certificate(folder.path(), "first");
    let (second, second_key) = certificate(folder.path(), "second");
    let (crt, key) = (
        folder.path().join("server.crt"),
        folder.path().join("server.key"),
    );
    let install = |from: &Path, from_key: &Path| {
        std::fs::copy(from, &crt).unwrap();
        std::fs::copy(from_key, &key).unwrap();
    };
    install(&first, &first_key);
    let server = Server::new()
        .set("http.tls.certificate", crt.to_str().unwrap())
        .set("http.tls.key", key.to_str().unwrap())
        .start();
    let trusted = |ca: &Path| {
        let answer = curl(
            &server,
            "https",
            "/v2/",
            &["--cacert", ca.to_str().unwrap()],
        );
        answer.status.success()
    };
    assert!(trusted(&first) && !trusted(&second));

    install(&second, &second_key);
    server.signal(Signal::SIGHUP);
    eventually("the new certificate is used", || {
        trusted(&second).then_some(())
    });
    assert!(!trusted(&first));

    std::fs::write(&crt, "not a certificate").unwrap();
    server.signal(Signal::SIGHUP);
    eventually("the refusal is in the log", || {
        server.log().contains("not reloaded").then_some(())
    });
    assert!(trusted(&second), "what worked goes on working");
}

#[test]
fn clients_that_know_both_get_http1_unless_http2_is_preferred() {
    for (preferred, disabled, expected) in [
        ("false", "false", "1.1"),
        ("true", "false", "2"),
        ("true", "true", "1.1"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let server = local_with(
            folder.path(),
            &[
                ("REGISTRY_HTTP_HTTP2_PREFERRED", preferred),
                ("REGISTRY_HTTP_HTTP2_DISABLED", disabled),
            ],
        );
        let ca = folder.path().join("tls/ca.crt");
        let options = [
            "--http2",
            "--cacert",
            ca.to_str().unwrap(),
            "-o",
            "/dev/null",
        ];
        let version = curl(
            &server,
            "https",
            "/v2/",
            &[&options[..], &["-w", "%{http_version}"]].concat(),
        );
        assert_eq!(text(&version), expected);
    }
    // Who knows nothing else gets it all the same.
    let folder = tempfile::tempdir().unwrap();
    let server = local(folder.path());
    let only = Command::new("sh")
        .arg("-c")
        .arg("openssl s_client -alpn h2 -connect \"$1\" </dev/null 2>/dev/null")
        .args(["sh", &server.addr().to_string()])
        .output()
        .expect("openssl runs");
    assert!(text(&only).contains("ALPN protocol: h2"), "{}", text(&only));
}

#[test]
fn a_large_blob_arrives_over_http2_as_it_does_over_http1() {
    let folder = tempfile::tempdir().unwrap();
    let server = local_with(folder.path(), &[("REGISTRY_HTTP_HTTP2_PREFERRED", "true")]);
    let ca = folder.path().join("tls/ca.crt");
    let ca = ca.to_str().unwrap();
    for (version, seed) in [("--http1.1", 7u32), ("--http2", 9)] {
        let content: Vec<u8> = (0..5_000_000u32)
            .map(|i| (i.wrapping_mul(seed) >> 5) as u8)
            .collect();
        let file = folder.path().join("blob");
        std::fs::write(&file, &content).unwrap();
        let digest = crate::support::image::Blob::new(content).digest;
        let path = format!("/v2/over/tls/blobs/uploads/?digest={digest}");
        let body = format!("@{}", file.display());
        let options = [
            version,
            "--cacert",
            ca,
            "-X",
            "POST",
            "--data-binary",
            &body,
            "-w",
            "%{http_code}",
        ];
        let headers = ["-H", "Content-Type: application/octet-stream"];
        let pushed = curl(
            &server,
            "https",
            &path,
            &[&options[..], &headers[..]].concat(),
        );
        assert_eq!(
            text(&pushed),
            "201",
            "{version}: {}",
            String::from_utf8_lossy(&pushed.stderr)
        );
        let copy = folder.path().join("copy");
        let blob = format!("/v2/over/tls/blobs/{digest}");
        let pulled = curl(
            &server,
            "https",
            &blob,
            &[version, "--cacert", ca, "-o", copy.to_str().unwrap()],
        );
        assert!(
            pulled.status.success(),
            "{version}: {}",
            String::from_utf8_lossy(&pulled.stderr)
        );
        assert!(
            std::fs::read(&copy).unwrap() == std::fs::read(&file).unwrap(),
            "{version}"
        );
    }
}
