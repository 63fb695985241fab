use std::io::Write as _;
use std::process::{Command, Stdio};

use super::*;

const PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";

fn trust(names: &[&str]) -> Trust {
    let mut known = Names::default();
    names.iter().for_each(|name| assert!(known.add(name)));
    Trust {
        ca_pem: PEM.to_owned(),
        sha256: "ab".repeat(32),
        fingerprint: "AB:CD".to_owned(),
        names: known,
    }
}

fn at(host: &str, port: u16, prefix: &str) -> Address {
    Address::new(host, port, prefix).unwrap()
}

/// `sh -n`: reads all of it and runs nothing.
fn is_shell(text: &str) -> bool {
    let mut sh = Command::new("sh")
        .arg("-n")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    sh.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    sh.wait().unwrap().success()
}

#[test]
fn the_name_for_others_is_the_one_that_needs_no_configuration() {
    for (names, expected) in [
        (
            &["pi", "pi.fritz.box", "pi.local", "10.0.0.1"][..],
            "pi.local",
        ),
        (&["localhost", "*.lan", "pi.fritz.box"], "pi.fritz.box"),
        (&["localhost", "127.0.0.1", "10.0.0.1"], "10.0.0.1"),
        (&["localhost"], "localhost"),
    ] {
        assert_eq!(trust(names).host(), expected);
    }
}

#[test]
fn an_address_is_what_images_are_called_by() {
    assert_eq!(at("Pi.local", 5000, "").of_images(), "pi.local:5000");
    assert_eq!(at("pi.local", 443, "/reg").of_images(), "pi.local");
    assert_eq!(at("pi.local", 443, "/reg").url(), "https://pi.local/reg");
    assert_eq!(at("[fd00::1]", 5000, "").url(), "https://[fd00::1]:5000");
    for (host, prefix) in [
        ("pi'; reboot; '", ""),
        ("pi.local", "/a'b"),
        ("pi.local", "/$(reboot)"),
        ("pi local", ""),
        ("", ""),
    ] {
        assert_eq!(Address::new(host, 5000, prefix), None, "{host} {prefix}");
    }
}

#[test]
fn the_line_and_the_script_are_shell_and_name_what_they_must() {
    let trust = trust(&[
        "pi",
        "pi.local",
        "localhost",
        "*.pi.lan",
        "10.0.0.1",
        "fd00::1",
        "fe80::1",
    ]);
    let at = at("pi.local", 5000, "/reg");
    let line = trust.line(&at);
    assert!(is_shell(&line) && !line.contains('\n'), "{line}");
    assert!(line.contains("u=https://pi.local:5000/reg "), "{line}");
    assert!(
        line.contains(&format!("s={} ", trust.sha256).replace(' ', ";")),
        "{line}"
    );
    let script = trust.script(&at);
    assert!(is_shell(&script));
    assert!(
        script.contains("hosts='pi.local:5000 pi:5000 10.0.0.1:5000 [fd00::1]:5000'\n"),
        "{script}"
    );
    assert!(script.contains("local_hosts='localhost:5000 127.0.0.1:5000'\n"));
    assert!(script.contains(&format!("<<'PEM'\n{PEM}PEM\n")), "{script}");
    for text in [script, trust.powershell(&at)] {
        assert!(!text.contains("@NAME@") && !text.contains("@CA@") && !text.contains("@ID@"));
        assert!(!text.contains("@FIRST@") && !text.contains("@HOSTS@"));
    }
}
