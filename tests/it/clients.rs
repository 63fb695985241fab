//! The real clients (docker, podman, containerd, skopeo, ...) against the real binary, one test a family.
//!
//! `tests/clients/run` tells the stories, in namespaces of its own: it needs root and what `scripts/test-deps` installs. A client that
//! is not there is named on standard error and its stories are left out; `CLIENTS_REQUIRE=1` makes that a failure.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};

/// Its exit status when there was nothing that it could run.
const NOTHING_RAN: i32 = 77;

/// Each family has its namespaces, ports and folders to itself, so nothing but the machine limits how many run at the same time. More than
/// two engines at once starve each other into time-outs on the small machines that this is made for.
static PLACES: Mutex<u8> = Mutex::new(2);
static FREED: Condvar = Condvar::new();

struct Place;

impl Place {
    fn take() -> Place {
        let places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
        let mut places = FREED
            .wait_while(places, |places| *places == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *places -= 1;
        Place
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *PLACES.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        FREED.notify_one();
    }
}

fn family(name: &str) {
    let _place = Place::take();
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/run"))
        .arg(name)
        .env(
            "REGISTRY_CMD",
            concat!(env!("CARGO_BIN_EXE_registry"), " serve"),
        )
        .stdin(Stdio::null())
        .output()
        .expect("tests/clients/run starts");
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);

    // Past the test runner, which shows the output of failed tests only: what was not tested has to be seen.
    for line in told.lines().filter(|line| line.starts_with("skip ")) {
        let _ = writeln!(std::io::stderr(), "clients: {line}");
    }
    if output.status.code() == Some(NOTHING_RAN) {
        return;
    }
    assert!(
        output.status.success(),
        "{name}: {}\n{told}\n{errors}",
        output.status
    );
    // A script that ends well without a single story would prove nothing.
    assert!(
        told.lines().any(|line| line.starts_with("ok ")),
        "{name} told no story\n{told}\n{errors}"
    );
}

#[test]
fn buildah() {
    family("buildah");
}

#[test]
fn containerd() {
    family("containerd");
}

#[test]
fn cosign() {
    family("cosign");
}

#[test]
fn crane() {
    family("crane");
}

#[test]
fn gc() {
    family("gc");
}

#[test]
fn docker() {
    family("docker");
}

#[test]
fn docker28() {
    family("docker28");
}

#[test]
fn login() {
    family("login");
}

#[test]
fn notation() {
    family("notation");
}

#[test]
fn oras() {
    family("oras");
}

#[test]
fn podman() {
    family("podman");
}

#[test]
fn python() {
    family("python");
}

#[test]
fn skopeo() {
    family("skopeo");
}

#[test]
fn tokens() {
    family("tokens");
}

#[test]
fn tokens28() {
    family("tokens28");
}

/// A family that nobody runs would go unnoticed.
#[test]
fn every_family_has_its_test() {
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/run"))
        .arg("--list")
        .output()
        .expect("tests/clients/run starts");
    let listed = String::from_utf8_lossy(&output.stdout);
    let tests = include_str!("clients.rs");
    assert!(listed.lines().count() > 0, "no families listed");
    for name in listed.lines() {
        assert!(
            tests.contains(&format!("family(\"{name}\")")),
            "no test runs the family {name}"
        );
    }
}
