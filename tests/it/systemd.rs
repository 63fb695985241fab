//! Under systemd: what it is told, the sockets that it hands over, its watchdog. This file plays systemd.

use std::{
    fs::File,
    net::TcpListener,
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::support::{
    forgetful::Forgetful,
    http::Client,
    image::open_upload,
    server::{Server, eventually},
};

/// The socket that services send their state to.
struct Manager {
    socket: UnixDatagram,
    path: String,
    _dir: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let dir = tempfile::TempDir::with_prefix("registry-notify-").unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        Self {
            socket,
            path: path.to_str().unwrap().to_owned(),
            _dir: dir,
        }
    }

    /// The next message, its fields a line each, if one has come.
    fn message(&self) -> Option<String> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    /// Waits for a message with such a line; others before it are passed over, and returned too.
    #[track_caller]
    fn until(&self, line: &str) -> Vec<String> {
        let mut all = Vec::new();
        eventually(line, || {
            let message = self.message()?;
            let found = message.lines().any(|l| l.starts_with(line));
            all.push(message);
            found.then_some(())
        });
        all
    }

    /// How often `line` comes within `time`.
    fn count(&self, line: &str, time: Duration) -> usize {
        let until = Instant::now() + time;
        let mut count = 0;
        while Instant::now() < until {
            count += self
                .message()
                .map_or(0, |m| usize::from(m.lines().any(|l| l == line)));
        }
        count
    }
}

#[test]
fn systemd_is_told_what_the_service_does() {
    let manager = Manager::new();
    let mut server = Server::new().env("NOTIFY_SOCKET", &manager.path).start();
    let start = manager.until("READY=1");
    assert!(start[0].starts_with("STATUS=opening "), "{start:?}");
    let ready = start.last().unwrap();
    let status = format!("STATUS=serving {} on http://", server.tree().display());
    assert!(ready.contains(&status), "{ready}");

    server.signal(Signal::SIGHUP);
    let reloading = manager.until("RELOADING=1");
    let reloading = reloading.last().unwrap();
    assert!(reloading.contains("\nMONOTONIC_USEC="), "{reloading}");
    assert!(
        manager
            .until("READY=1")
            .last()
            .unwrap()
            .contains("STATUS=serving ")
    );

    server.terminate();
    let stopping = manager.until("STOPPING=1");
    let stopping = stopping.last().unwrap();
    assert!(
        stopping.contains("STATUS=requests in flight "),
        "{stopping}"
    );
}

/// Ready is who can serve: the first request after the message is answered, without a second attempt.
#[test]
fn ready_is_said_when_requests_are_answered() {
    let manager = Manager::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let folder = tempfile::tempdir().unwrap();
    let mut service = Command::new(env!("CARGO_BIN_EXE_registry"))
        .arg("serve")
        .env("NOTIFY_SOCKET", &manager.path)
        .env("REGISTRY_HTTP_ADDR", format!("127.0.0.1:{port}"))
        .env("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", folder.path())
        .stderr(Stdio::null())
        .spawn()
        .map(Service)
        .unwrap();
    manager.until("READY=1");
    let client = Client::new(([127, 0, 0, 1], port).into());
    client.get("/readyz").send().expect(200);
    service.stop();
}

/// An upload that is still arriving keeps the end waiting, and systemd is asked to wait too.
#[test]
fn systemd_is_asked_for_time_while_requests_finish() {
    let manager = Manager::new();
    let mut server = Server::new()
        .set("http.draintimeout", "30s")
        .env("NOTIFY_SOCKET", &manager.path)
        .start();
    let client = server.client();
    let session = open_upload(&client, "a/b");
    manager.until("READY=1");
    let mut upload = client.patch(&session).start(1_000_000).unwrap();
    upload.write(&[7; 500_000]).unwrap();
    server.signal(Signal::SIGTERM);
    manager.until("STOPPING=1");
    manager.until("EXTEND_TIMEOUT_USEC=");
    upload.write(&[7; 500_000]).unwrap();
    assert_eq!(upload.response().unwrap().status, 202);
    assert!(server.wait().success());
}

#[test]
fn the_watchdog_is_fed_while_the_storage_answers_and_not_while_it_hangs() {
    let manager = Manager::new();
    let disk = Forgetful::mount();
    let limit = Duration::from_secs(2);
    let server = Server::new()
        .root(disk.path())
        .env("NOTIFY_SOCKET", &manager.path)
        .env("WATCHDOG_USEC", &limit.as_micros().to_string())
        .start();
    manager.until("WATCHDOG=1");
    assert!(
        manager.count("WATCHDOG=1", limit * 2) >= 2,
        "{}",
        server.log()
    );

    let hung = disk.hang();
    manager.until("STATUS=the storage does not answer");
    assert_eq!(manager.count("WATCHDOG=1", limit * 2), 0);

    drop(hung);
    manager.until("STATUS=serving ");
    manager.until("WATCHDOG=1");
}

/// What the watchdog asks all day long must not wear out an SD card.
#[test]
fn the_watchdog_writes_nothing() {
    let manager = Manager::new();
    let disk = Forgetful::mount();
    let server = Server::new()
        .root(disk.path())
        .env("NOTIFY_SOCKET", &manager.path)
        .env("WATCHDOG_USEC", "1000000")
        .start();
    // What a start does in the background.
    let mut calls = disk.calls();
    eventually("nothing is written any more", || {
        thread::sleep(Duration::from_millis(500));
        let before = std::mem::replace(&mut calls, disk.calls());
        (before == calls).then_some(())
    });
    while manager.message().is_some() {}
    for _ in 0..4 {
        manager.until("WATCHDOG=1");
    }
    assert_eq!(disk.calls(), calls, "{}\n{}", disk.log(), server.log());
}

/// A process that is ended with the test.
struct Service(Child);

impl Service {
    /// As systemd starts it for a socket unit: the listening socket as descriptor 3, and three variables that say so.
    fn activated(listener: &TcpListener, tree: &std::path::Path, log: &File) -> Self {
        let socket = OwnedFd::from(listener.try_clone().unwrap());
        // LISTEN_PID is the number of the process that the shell becomes.
        let script = r#"exec 3<&0 0</dev/null; LISTEN_PID=$$ exec "$0" serve"#;
        Command::new("sh")
            .args(["-c", script, env!("CARGO_BIN_EXE_registry")])
            .env("LISTEN_FDS", "1")
            .env("LISTEN_FDNAMES", "registry")
            // Taken by nobody: the socket stands for it.
            .env("REGISTRY_HTTP_ADDR", "nowhere.invalid:5000")
            .env("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", tree)
            .stdin(socket)
            .stderr(log.try_clone().unwrap())
            .spawn()
            .map(Service)
            .unwrap()
    }

    fn stop(&mut self) {
        kill(
            Pid::from_raw(i32::try_from(self.0.id()).unwrap()),
            Signal::SIGTERM,
        )
        .unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// systemd holds the port: clients that come while no process serves it wait for the next one.
#[test]
fn a_restart_with_a_socket_unit_refuses_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let log = File::create(dir.path().join("log")).unwrap();
    let tree = dir.path().join("tree");
    for _ in 0..2 {
        let client = thread::spawn(move || Client::new(addr).get("/v2/").try_send());
        let mut service = Service::activated(&listener, &tree, &log);
        let reply = client.join().unwrap();
        assert_eq!(
            reply.map(|reply| reply.status).ok(),
            Some(200),
            "{}",
            std::fs::read_to_string(dir.path().join("log")).unwrap()
        );
        service.stop();
    }
}
