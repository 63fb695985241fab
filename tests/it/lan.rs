//! Two machines of a LAN: the line that the registry prints makes the other one trust it, for all clients that are there,
//! and nothing that came unverified is executed.
//!
//! `tests/lan/run` tells the stories, in namespaces of its own; it needs root and what `scripts/test-deps` installs.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// The script's exit status when there was nothing that it could run.
const NOTHING_RAN: i32 = 77;

#[test]
fn another_machine_trusts_the_registry_by_one_line() {
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lan/run"))
        .env("REGISTRY_BINARY", env!("CARGO_BIN_EXE_registry"))
        .stdin(Stdio::null())
        .output()
        .expect("tests/lan/run starts");
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    // Past the test runner, which shows the output of failed tests only: what was not tested has to be seen.
    for line in told.lines().filter(|line| line.starts_with("skip ")) {
        let _ = writeln!(std::io::stderr(), "lan: {line}");
    }
    if output.status.code() == Some(NOTHING_RAN) {
        return;
    }
    assert!(
        output.status.success(),
        "{}\n{told}\n{errors}",
        output.status
    );
    assert!(
        told.lines().any(|line| line.starts_with("ok ")),
        "no story was told\n{told}\n{errors}"
    );
}
