//! The server whose images are on an external drive: what it does while the drive is away, and when it comes back.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::support::{
    http::{Client, with_query},
    image::{Blob, Image, assert_blob, open_upload},
    server::{Server, eventually},
    tree,
    usb::{UsbDrive, run, tear_out},
};

const ID: &str = "7b8d2c0e-3a51-4f6e-9d25-0c1f5a6b7c8d";
const ALICE: &str = "alice:$2y$05$BXbd5nEN1ZJKkAe3zoV6M.DvRtFPrN1AV.9NCqQKA3IyDOsTUVEaC\n";
const OTHER: &str = "00000000-3a51-4f6e-9d25-0c1f5a6b7c8d";

/// Marks a drive as `registry drive use` does.
fn mark(drive: &mut UsbDrive, marker: &str) {
    drive.with_mounted(|root| {
        fs::create_dir_all(root.join(".registry")).unwrap();
        fs::write(root.join(".registry/drive"), marker).unwrap();
    });
}

fn marked(id: &str) -> UsbDrive {
    let mut drive = UsbDrive::ext4(64);
    mark(&mut drive, &format!("id: {id}\n"));
    drive
}

/// A server that expects the drive `ID` at its tree, where nothing is mounted yet.
fn expecting() -> Server {
    let server = Server::new().ready_path("/healthz");
    let expectation = server.dir().join("drive.yml");
    let root = server.tree().display();
    fs::write(
        &expectation,
        format!("id: {ID}\nuuid: not-looked-at\nroot: {root}\n"),
    )
    .unwrap();
    let path = expectation.display().to_string();
    server.set("storage.filesystem.drive", &path)
}

#[track_caller]
fn assert_away(client: &Client, sentence: &str) {
    for request in [
        client.get("/v2/team/app/manifests/v1"),
        client.get("/v2/_catalog"),
        client.get("/v2/team/app/tags/list"),
        client.post("/v2/team/app/blobs/uploads/"),
        client.put("/v2/team/app/manifests/v1").body("{}"),
        client.delete("/v2/team/app/manifests/v1"),
        client.get("/readyz"),
    ] {
        let reply = request.send().expect_error(503, "UNAVAILABLE");
        let message = reply.json()["errors"][0]["message"].to_string();
        assert!(message.contains(sentence), "{message}");
        assert_eq!(reply.header("retry-after"), Some("10"));
    }
    client.get("/healthz").send().expect(200);
    client.get("/v2/").send().expect(200);
    let metrics = client.get("/metrics").send().expect(200).text();
    assert!(metrics.contains("\nregistry_drive_up 0\n"), "{metrics}");
}

/// Waits until the server serves nothing, for the reason that `sentence` is part of.
#[track_caller]
fn until_away(client: &Client, sentence: &str) {
    eventually(sentence, || {
        let reply = client.get("/readyz").send();
        let metrics = client.get("/metrics").send().expect(200).text();
        let up = metrics.contains("\nregistry_drive_up 0\n");
        (reply.status == 503 && reply.text().contains(sentence) && up).then_some(())
    });
    assert_away(client, sentence);
}

#[track_caller]
fn until_back(client: &Client) {
    eventually("the drive is served", || {
        (client.get("/readyz").send().status == 200).then_some(())
    });
    let metrics = client.get("/metrics").send().expect(200).text();
    assert!(metrics.contains("\nregistry_drive_up 1\n"), "{metrics}");
}

#[track_caller]
fn assert_empty(folder: &Path) {
    let found: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(found, Vec::<PathBuf>::new(), "written beside the drive");
}

#[test]
fn a_server_starts_without_its_drive_and_serves_it_when_it_comes() {
    let mut drive = marked(ID);
    let server = expecting().start();
    let client = server.client();
    assert_away(&client, "plug it in");
    assert_empty(server.tree());
    drive.mount(server.tree());
    until_back(&client);
    let image = Image::new(60);
    image.push(&client, "team/app", "v1");
    image.assert_pullable(&client, "team/app", "v1");
    let before = fs::metadata(server.tree().join("docker"));
    assert!(before.is_ok(), "on the drive");
}

/// Tokens are signed all the same, and the keys for it are written where the drive is, once it is there.
#[test]
fn the_keys_of_tokens_are_not_written_beside_the_drive() {
    let mut drive = marked(ID);
    let server = expecting().set("auth.htpasswd.realm", "Registry").set(
        "access",
        "[{who: anyone, allow: pull}, {who: users, allow: all}]",
    );
    let htpasswd = server.dir().join("htpasswd");
    fs::write(&htpasswd, ALICE).unwrap();
    let server = server
        .set("auth.htpasswd.path", &htpasswd.display().to_string())
        .start();
    let client = server.client();
    let token = "/auth/token?service=registry&scope=repository:team/app:pull";
    client.get(token).send().expect(200);
    server.signal(Signal::SIGHUP);
    client.get(token).send().expect(200);
    assert_empty(server.tree());
    drive.mount(server.tree());
    let keys = server.tree().join(".registry/auth/token-keys.json");
    eventually("the keys are on the drive", || {
        server.signal(Signal::SIGHUP);
        keys.exists().then_some(())
    });
    client.get(token).send().expect(200);
}

/// Commands reach the server through a socket on the drive, which comes and goes with it.
#[test]
fn commands_reach_a_server_whose_drive_has_come_back() {
    let mut drive = marked(ID);
    let server = expecting();
    drive.mount(server.tree());
    let server = server.set("gc.grace", "0s").set("undo.keep", "0s").start();
    let client = server.client();
    until_back(&client);
    let (image, lost) = (Image::new(66), Image::new(67));
    image.push(&client, "team/app", "v1");
    lost.push(&client, "team/lost", "v1");
    drive.pull();
    until_away(&client, "plug it in");
    drive.plug();
    drive.mount(server.tree());
    until_back(&client);
    client
        .delete(&format!("/v2/team/lost/manifests/{}", lost.digest()))
        .send()
        .expect(202);
    server.told(&["garbage-collect"]);
    for blob in lost.blobs() {
        let hex = blob.digest.strip_prefix("sha256:").unwrap();
        let path = format!("docker/registry/v2/blobs/sha256/{}/{hex}", &hex[..2]);
        assert!(!server.tree().join(&path).exists(), "{path}");
    }
    image.assert_pullable(&client, "team/app", "v1");
}

#[test]
fn a_drive_that_is_pulled_during_pushes_loses_nothing_that_was_promised() {
    let mut drive = marked(ID);
    let mut server = expecting();
    drive.mount(server.tree());
    server.restart();
    let client = server.client();
    until_back(&client);
    let (image, later) = (Image::new(61), Image::new(62));
    image.push(&client, "team/app", "v1");
    let blob = Blob::random(63, 2_000_000);
    let session = open_upload(&client, "team/app");
    client
        .patch(&session)
        .body(&blob.bytes[..500_000])
        .send()
        .expect(202);
    // One that is in the middle of a request, and silent.
    let silent = open_upload(&client, "team/app");
    let mut patch = client.patch(&silent).start(2_000_000).expect("sent");
    patch.write(&blob.bytes[..600_000]).expect("sent");
    drive.pull();
    until_away(&client, "plug it in");
    assert_empty(server.tree());
    client
        .patch(&session)
        .body(&blob.bytes[500_000..])
        .send()
        .expect_error(503, "UNAVAILABLE");
    assert_empty(server.tree());
    // Back under another name, while a client still holds a connection of before.
    drive.plug();
    drive.mount(server.tree());
    until_back(&client);
    let _ = patch.write(&blob.bytes[600_000..]);
    assert!(!matches!(patch.response(), Ok(reply) if reply.status < 400));
    image.assert_pullable(&client, "team/app", "v1");
    // What was sent of the session is on the drive, or a part of it: it goes on from there.
    let status = client.get(&session).send().expect(204);
    let range = status.header("range").unwrap();
    let last: usize = range.strip_prefix("0-").unwrap().parse().unwrap();
    assert!(last < 500_000, "{range}");
    let from = if last == 0 { 0 } else { last + 1 };
    client
        .put(&with_query(&session, "digest", &blob.digest))
        .body(&blob.bytes[from..])
        .send()
        .expect(201);
    assert_blob(&client, "team/app", &blob);
    later.push(&client, "team/app", "v2");
    later.assert_pullable(&client, "team/app", "v2");
    assert!(server.terminate().success());
    assert_eq!(tree::faults(server.tree()), Vec::<String>::new());
    drive.pull();
    assert_empty(server.tree());
}

#[test]
fn a_drive_that_can_only_be_read_is_not_served_until_it_can_be_written() {
    let mut drive = marked(ID);
    let server = expecting().start();
    let client = server.client();
    drive.mount_with("ro", server.tree());
    until_away(&client, "can only be read");
    let options = [Path::new("-o"), Path::new("remount,rw"), server.tree()];
    run("mount", options);
    until_back(&client);
    let image = Image::new(64);
    image.push(&client, "team/app", "v1");
    drive.pull();
    until_away(&client, "plug it in");
    drive.plug();
    // The kernel makes a file system read-only when it finds it damaged.
    drive.mount_with("errors=remount-ro", server.tree());
    until_back(&client);
    let name = drive.device().file_name().unwrap().to_str().unwrap();
    fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "a test").unwrap();
    client
        .post("/v2/team/app/blobs/uploads/")
        .send()
        .expect_error(503, "UNAVAILABLE");
    until_away(&client, "can only be read");
    drive.pull();
    until_away(&client, "plug it in");
    drive.plug();
    drive.mount(server.tree());
    until_back(&client);
    image.assert_pullable(&client, "team/app", "v1");
}

#[test]
fn a_drive_that_is_not_the_registrys_own_is_left_alone() {
    let mut own = marked(ID);
    let mut foreign = marked(OTHER);
    let mut unknown = UsbDrive::ext4(64);
    let server = expecting().start();
    let client = server.client();
    for drive in [&mut foreign, &mut unknown] {
        drive.mount(server.tree());
        let before = listing(server.tree());
        until_away(&client, "another one");
        assert_eq!(listing(server.tree()), before, "something was written");
        drive.pull();
        until_away(&client, "plug it in");
    }
    // The move to it was interrupted.
    mark(
        &mut own,
        &format!("id: {ID}\nincoming: pi:/var/lib/registry\n"),
    );
    own.mount(server.tree());
    until_away(&client, "registry drive use");
    own.pull();
    own.plug();
    mark(&mut own, &format!("id: {ID}\n"));
    own.mount(server.tree());
    until_back(&client);
    Image::new(65).push(&client, "team/app", "v1");
}

fn listing(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn a_drive_that_is_torn_out_is_given_up_and_taken_again() {
    let mut drive = marked(ID);
    let mut server = expecting();
    drive.mount(server.tree());
    server.restart();
    let client = server.client();
    until_back(&client);
    let (image, lost) = (Image::new(66), Image::new(67));
    image.push(&client, "team/app", "v1");
    tear_out(server.tree());
    // Whoever comes first finds out; nobody is told that anything succeeded.
    let blob = Blob::random(68, 100_000);
    client
        .post("/v2/team/app/blobs/uploads/")
        .query("digest", &blob.digest)
        .body(&blob.bytes[..])
        .send()
        .expect_error(503, "UNAVAILABLE");
    until_away(&client, "it was unplugged, or it is broken");
    // systemd unmounts what has lost its device.
    drive.pull();
    until_away(&client, "plug it in");
    drive.plug();
    drive.mount(server.tree());
    until_back(&client);
    image.assert_pullable(&client, "team/app", "v1");
    lost.push(&client, "team/app", "v2");
    lost.assert_pullable(&client, "team/app", "v2");
    assert!(server.terminate().success());
    assert_eq!(tree::faults(server.tree()), Vec::<String>::new());
}

/// A drive is not the cause of a restart, which would not bring it back; a service that waits for it is well.
#[test]
fn systemd_is_told_that_the_service_is_well_without_its_drive() {
    let mut drive = marked(ID);
    let server = expecting();
    let path = server.dir().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let mut server = server
        .env("NOTIFY_SOCKET", path.to_str().unwrap())
        .env("WATCHDOG_USEC", "400000")
        .start();
    let receive = || {
        let mut bytes = [0; 4096];
        let len = socket.recv(&mut bytes).expect("a word to systemd");
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    };
    let until = |what: &dyn Fn(&str) -> bool| {
        (0..1000)
            .map(|_| receive())
            .find(|told| what(told))
            .expect("told in time")
    };
    let ready = until(&|told| told.contains("READY=1"));
    assert!(ready.contains("STATUS=the registry's drive is not there"));
    for _ in 0..3 {
        until(&|told| told.contains("WATCHDOG=1"));
    }
    drive.mount(server.tree());
    until(&|told| told.contains("STATUS=") && told.contains("127.0.0.1"));
    drive.pull();
    until(&|told| told.contains("STATUS=the registry's drive is not there"));
    until(&|told| told.contains("WATCHDOG=1"));
    assert_eq!(server.ended(), None);
}

/// What systemd does to the directory of a sandboxed service whose drive was not there at its start: it is mounted on
/// itself in a namespace of its own, into which mounts of the machine propagate.
#[test]
fn a_drive_reaches_a_service_in_a_sandbox() {
    let mut drive = marked(ID);
    let server = expecting();
    let binary = env!("CARGO_BIN_EXE_registry");
    // The machine's side has to be shared, as systemd makes it.
    let machine = server.dir().join("machine");
    fs::create_dir(&machine).unwrap();
    run("mount", [Path::new("--bind"), &machine, &machine]);
    run("mount", [Path::new("--make-shared"), &machine]);
    let _mounted = Mounted(machine.clone());
    let root = machine.join("data");
    fs::create_dir(&root).unwrap();
    let expectation = server.dir().join("drive.yml");
    fs::write(
        &expectation,
        format!("id: {ID}\nuuid: x\nroot: {}\n", root.display()),
    )
    .unwrap();
    let script = format!(
        "mount --bind {root} {root} && exec {binary} serve {config}",
        root = root.display(),
        config = server.config_path().display()
    );
    let mut server = server.root(&root).binary("unshare").args([
        "--mount",
        "--propagation",
        "slave",
        "sh",
        "-c",
        &script,
    ]);
    server.restart();
    let client = server.client();
    assert_away(&client, "plug it in");
    for round in 0..2 {
        drive.mount(&root);
        until_back(&client);
        let image = Image::new(69 + round);
        image.push(&client, "team/app", "v1");
        image.assert_pullable(&client, "team/app", "v1");
        drive.pull();
        until_away(&client, "plug it in");
        drive.plug();
    }
    assert_empty(&root);
    server.kill();
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn an_expectation_that_cannot_be_understood_stops_the_server() {
    let server = expecting();
    fs::write(server.dir().join("drive.yml"), "half a fi").unwrap();
    let mut server = server;
    let (status, log) = server.run();
    assert!(!status.success());
    assert!(log.contains("drive.yml is damaged"), "{log}");
    assert!(log.contains("registry drive use"), "{log}");
}

#[test]
fn the_drive_of_another_directory_does_not_matter() {
    let server = Server::new();
    let expectation = server.dir().join("drive.yml");
    fs::write(
        &expectation,
        format!("id: {ID}\nuuid: x\nroot: /somewhere/else\n"),
    )
    .unwrap();
    let path = expectation.display().to_string();
    let server = server.set("storage.filesystem.drive", &path).start();
    let client = server.client();
    Image::new(59).push(&client, "team/app", "v1");
    let metrics = client.get("/metrics").send().expect(200).text();
    assert!(!metrics.contains("registry_drive_up"), "{metrics}");
}
