use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::*;

const ALL: [&str; 4] = [AUTHORITY, SERVER, AUTHORITY_PUBLIC, SERVER_PUBLIC];

fn machine(names: &[&str]) -> Machine {
    let mut machine = Machine {
        hostname: Some("pi".to_owned()),
        ..Machine::default()
    };
    names
        .iter()
        .for_each(|name| assert!(machine.names.add(name)));
    machine
}

fn pi() -> Machine {
    machine(&["pi", "pi.local", "localhost", "127.0.0.1", "192.168.1.5"])
}

fn now() -> OffsetDateTime {
    clock::now()
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Place(tempfile::tempdir().unwrap())
    }

    fn ca(&self) -> LocalCa {
        LocalCa::new(self.0.path(), &[])
    }

    fn make(&self, machine: &Machine, now: OffsetDateTime) -> (Issued, Change) {
        self.ca().make(machine, now, Change::None).unwrap()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.path().join(name)).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.0.path().join(name)).unwrap();
    }

    /// Everything fits together: what a client needs, and what the next renewal needs.
    #[track_caller]
    fn assert_whole(&self) {
        let server = self.ca().read_server().unwrap().unwrap();
        let authority = self.ca().read_authority().unwrap().unwrap();
        assert!(server.usable);
        assert_eq!(server.ca.as_ref().unwrap(), &first(&authority.pem).unwrap());
        assert_eq!(self.read(AUTHORITY_PUBLIC), authority.pem);
        assert_eq!(self.read(SERVER_PUBLIC), server.pem);
        assert!(!self.read(AUTHORITY_PUBLIC).contains("PRIVATE"));
        assert!(!self.read(SERVER_PUBLIC).contains("PRIVATE"));
    }
}

#[test]
fn made_once_with_private_keys() {
    let place = Place::new();
    let (issued, change) = place.make(&pi(), now());
    assert_eq!(change, Change::Authority(Reason::Missing));
    assert_eq!(issued.server.names, pi().names);
    assert!(issued.left_out.is_empty());
    place.assert_whole();
    let before = ALL.map(|name| place.read(name));
    assert_eq!(place.make(&pi(), now()).1, Change::None);
    assert_eq!(ALL.map(|name| place.read(name)), before);
    for entry in fs::read_dir(place.0.path()).unwrap() {
        let entry = entry.unwrap();
        let text = fs::read_to_string(entry.path()).unwrap();
        let expected = if text.contains("PRIVATE KEY") {
            0o600
        } else {
            0o644
        };
        assert_eq!(
            entry.metadata().unwrap().mode() & 0o777,
            expected,
            "{entry:?}"
        );
    }
}

#[test]
fn whatever_a_crash_left_is_made_whole() {
    // In the order of the writes: what the first n of them left of a first boot.
    for n in 0..=ALL.len() {
        let place = Place::new();
        place.make(&pi(), now());
        let authority = place.read(AUTHORITY);
        ALL[n..].iter().for_each(|name| place.remove(name));
        place.write(".server.pem.new", "half a file");
        place.make(&pi(), now());
        place.assert_whole();
        assert_eq!(
            place.read(AUTHORITY) == authority,
            n > 0,
            "a CA that is there stays"
        );
    }
    // And of a new CA in the place of an old one.
    for n in 0..=ALL.len() {
        let (place, newer) = (Place::new(), Place::new());
        place.make(&pi(), now());
        newer.make(&pi(), now());
        ALL[..n]
            .iter()
            .for_each(|name| place.write(name, &newer.read(name)));
        let (_, change) = place.make(&pi(), now());
        place.assert_whole();
        if n == 1 {
            assert_eq!(change, Change::Server(Reason::OtherAuthority));
        }
    }
}

#[test]
fn what_the_machine_gains_is_a_reason_and_what_it_loses_is_none() {
    let place = Place::new();
    let (first, _) = place.make(&pi(), now());
    let more = machine(&["pi", "attic.local", "192.168.1.77", "fe80::1"]);
    let (second, change) = place.make(&more, now());
    let gained = machine(&["attic.local", "192.168.1.77", "fe80::1"]).names;
    assert_eq!(change, Change::Server(Reason::Names(gained)));
    assert_eq!(second.server.names, more.names, "those of now alone");
    assert_eq!(
        first.ca, second.ca,
        "clients that trusted the CA still trust"
    );
    assert_eq!(place.make(&machine(&["pi"]), now()).1, Change::None);
}

#[test]
fn what_the_ca_may_not_sign_is_left_out_and_told() {
    let place = Place::new();
    place.make(&machine(&["pi", "203.0.113.5"]), now());
    let elsewhere = machine(&["pi", "203.0.113.6", "attic", "attic.local"]);
    let (issued, _) = place.make(&elsewhere, now());
    assert_eq!(issued.left_out, machine(&["attic", "203.0.113.6"]).names);
    assert_eq!(issued.server.names, machine(&["pi", "attic.local"]).names);
    assert_eq!(place.make(&elsewhere, now()).1, Change::None, "told once");
    let asked = Change::Authority(Reason::Asked);
    let (issued, _) = place.ca().make(&elsewhere, now(), asked).unwrap();
    assert!(issued.left_out.is_empty());
    place.assert_whole();
}

#[test]
fn the_calendar_is_followed() {
    let place = Place::new();
    let made = now();
    let (issued, _) = place.make(&pi(), made);
    let ends = issued.server.ends;
    assert!(
        issued.server.begins < made - Duration::days(300),
        "backdated"
    );
    assert!(ends - issued.server.begins <= Duration::days(825), "Apple");
    assert_eq!(place.make(&pi(), ends - Duration::days(31)).1, Change::None);
    assert_eq!(
        place.make(&pi(), ends - Duration::days(29)).1,
        Change::Server(Reason::Ends(ends))
    );
    // A clock that was years ahead by mistake, and is right again.
    let (_, change) = place.make(&pi(), made);
    assert!(
        matches!(change, Change::Server(Reason::Begins(_))),
        "{change:?}"
    );
    // Near the end of the CA: the certificate does not outlive it, and is not made again each minute.
    let late = issued.ca.ends - Duration::days(10);
    let (issued, _) = place.make(&pi(), late);
    assert_eq!(issued.server.ends, issued.ca.ends);
    assert_eq!(place.make(&pi(), late).1, Change::None);
}

#[test]
fn a_certificate_that_cannot_be_used_is_replaced() {
    let (place, other) = (Place::new(), Place::new());
    place.make(&pi(), now());
    other.make(&pi(), now());
    let key_of_another = other.read(SERVER);
    let key_end = key_of_another.find(BEGIN_CERTIFICATE).unwrap();
    let own = place.read(SERVER);
    let mixed = key_of_another[..key_end].to_owned() + &own[own.find(BEGIN_CERTIFICATE).unwrap()..];
    for (text, reason) in [
        (mixed.as_str(), Reason::Unusable),
        ("", Reason::Missing),
        ("no PEM", Reason::Missing),
        (&own[..own.len() / 2], Reason::Missing),
    ] {
        place.write(SERVER, text);
        assert_eq!(place.make(&pi(), now()).1, Change::Server(reason));
        place.assert_whole();
    }
}

#[test]
fn a_damaged_ca_is_never_replaced_silently() {
    let place = Place::new();
    place.make(&pi(), now());
    place.write(AUTHORITY, "damaged");
    let error = place.ca().make(&pi(), now(), Change::None).unwrap_err();
    assert!(matches!(error, Error::Bad { .. }), "{error}");
    assert_eq!(place.read(AUTHORITY), "damaged");
    let asked = Change::Authority(Reason::Asked);
    place.ca().make(&pi(), now(), asked).unwrap();
    place.assert_whole();
}

#[test]
fn the_owner_may_keep_the_cas_key_elsewhere() {
    let place = Place::new();
    let (before, _) = place.make(&pi(), now());
    place.remove(AUTHORITY);
    let (issued, change) = place.make(&pi(), now());
    assert_eq!((issued.server, change), (before.server, Change::None));
    let more = machine(&["pi", "attic.local"]);
    let error = place.ca().make(&more, now(), Change::None).unwrap_err();
    assert!(matches!(error, Error::KeyGone { .. }), "{error}");
    assert!(!place.0.path().join(AUTHORITY).exists());
}

#[test]
fn looking_makes_nothing() {
    let place = Place::new();
    let error = place.ca().look().unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
    assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 0);
    let (issued, _) = place.make(&pi(), now());
    // As somebody who may not read the keys.
    for name in [AUTHORITY, SERVER] {
        fs::set_permissions(place.0.path().join(name), fs::Permissions::from_mode(0o000)).unwrap();
    }
    let seen = place.ca().look().unwrap();
    assert_eq!((seen.ca, seen.server), (issued.ca, issued.server));
}
