//! Clients that ask for more than anybody needs, of memory above all.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::http::Client;
use crate::support::image::{Blob, Image, push_blob};
use crate::support::server::{Server, eventually};

/// What an attack may take, in KiB: all the room that there is for bodies, and as much again for what is around them.
const BOUND: u64 = 64 << 10;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![a, b, c, kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

fn field(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0, name.len() as u8];
    field.extend_from_slice(name.as_bytes());
    field.push(value.len() as u8);
    field.extend_from_slice(value.as_bytes());
    field
}

fn head(method: &str, path: &str) -> Vec<u8> {
    [
        field(":method", method),
        field(":scheme", "http"),
        field(":path", path),
        field(":authority", "x"),
    ]
    .concat()
}

/// An HTTP/2 connection that keeps to the windows and to nothing else.
struct Http2 {
    stream: TcpStream,
    window: Arc<AtomicI64>,
    settings: Arc<Mutex<Vec<(u16, u32)>>>,
}

impl Http2 {
    fn connect(server: &Server) -> Self {
        let mut stream = server.client().connect().expect("connects");
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .expect("sent");
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).expect("sent");
        let connection = Http2 {
            stream: stream.try_clone().expect("a second handle"),
            window: Arc::new(AtomicI64::new(65_535)),
            settings: Arc::default(),
        };
        let (window, settings) = (connection.window.clone(), connection.settings.clone());
        thread::spawn(move || {
            let mut head = [0; 9];
            // Err: the connection is over.
            while stream.read_exact(&mut head).is_ok() {
                let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                let mut payload = vec![0; len as usize];
                if stream.read_exact(&mut payload).is_err() {
                    return;
                }
                let number = |at: usize| {
                    u32::from_be_bytes(payload[at..at + 4].try_into().expect("four bytes"))
                };
                let answer = match (head[3], head[4]) {
                    (SETTINGS, 0) => {
                        let mut settings = settings.lock().expect("no panic");
                        for at in (0..payload.len()).step_by(6) {
                            let name = u16::from_be_bytes([payload[at], payload[at + 1]]);
                            settings.push((name, number(at + 2)));
                        }
                        frame(SETTINGS, 1, 0, &[])
                    }
                    (PING, 0) => frame(PING, 1, 0, &payload),
                    (WINDOW_UPDATE, _) if head[5..] == [0; 4] => {
                        window.fetch_add(number(0).into(), Ordering::Relaxed);
                        continue;
                    }
                    _ => continue,
                };
                if stream.write_all(&answer).is_err() {
                    return;
                }
            }
        });
        connection
    }

    /// Waits a while for room in the window. Says whether the server still takes bytes.
    fn send_data(&mut self, stream: u32, bytes: &[u8]) -> bool {
        let len = bytes.len() as i64;
        let started = Instant::now();
        while self.window.load(Ordering::Relaxed) < len {
            if started.elapsed() > Duration::from_secs(1) {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.window.fetch_sub(len, Ordering::Relaxed);
        self.send(&frame(DATA, 0, stream, bytes))
    }

    fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream
            .set_write_timeout(Some(Duration::from_secs(1)))
            .expect("a limit");
        self.stream.write_all(bytes).is_ok()
    }

    /// Whether the server ends it, in a while.
    fn is_ended(&mut self) -> bool {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(30) {
            if !self.send(&frame(PING, 0, 0, &[7; 8])) {
                return true;
            }
            thread::sleep(Duration::from_millis(50));
        }
        false
    }
}

fn http2_server() -> Server {
    Server::new().set("http.h2c.enabled", "true").start()
}

fn push_path() -> String {
    format!("/v2/a/blobs/uploads/?digest=sha256:{}", "0".repeat(64))
}

/// Whoever else comes is served, and the server has no more memory than it may.
#[track_caller]
fn assert_unharmed(server: &Server, memory_before: u64) {
    let client = server.client().with_timeout(Duration::from_secs(30));
    let image = Image::new(7);
    image.push(&client, "team/app", "v1");
    image.assert_pullable(&client, "team/app", "v1");
    let memory = server.memory_kib("VmHWM").saturating_sub(memory_before);
    eprintln!("{memory} KiB more");
    assert!(memory < BOUND, "{memory} KiB more");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[test]
fn uploads_on_one_http2_connection_wait_for_room() {
    let server = http2_server();
    let memory_before = server.memory_kib("VmRSS");
    let mut connections: Vec<Http2> = (0..4).map(|_| Http2::connect(&server)).collect();
    let post = head("POST", &push_path());
    for connection in &mut connections {
        let part = [7; 16_384];
        'streams: for n in 0..100 {
            let stream = 2 * n + 1;
            if !connection.send(&frame(HEADERS, END_HEADERS, stream, &post)) {
                break;
            }
            for _ in 0..15 {
                if !connection.send_data(stream, &part) {
                    break 'streams;
                }
            }
        }
        eventually("the limit is announced", || {
            let settings = connection.settings.lock().expect("no panic");
            settings.contains(&(3, 32)).then_some(())
        });
    }
    let files = std::fs::read_dir(format!("/proc/{}/fd", server.pid()))
        .expect("of the server")
        .count();
    assert!(files < 200, "{files} open files");
    // From another address: this one has its share of the room.
    let other = Client::new(server.addr()).at_address([127, 81, 0, 1].into());
    Image::new(8).push(&other, "team/other", "v1");
    drop(connections);
    assert_unharmed(&server, memory_before);
}

#[test]
fn more_requests_at_once_than_were_announced_end_the_connection() {
    let server = http2_server();
    let memory_before = server.memory_kib("VmRSS");
    let mut connection = Http2::connect(&server);
    let post = head("POST", &push_path());
    for n in 0..2000 {
        if !connection.send(&frame(HEADERS, END_HEADERS, 2 * n + 1, &post)) {
            break;
        }
    }
    assert!(connection.is_ended());
    assert_unharmed(&server, memory_before);
}

#[test]
fn a_header_block_without_measure_ends_the_connection_and_nothing_else() {
    let server = http2_server();
    let memory_before = server.memory_kib("VmRSS");
    let get = head("GET", "/v2/");
    let names: Vec<u8> = (0..40_000)
        .flat_map(|n| field(&format!("{n:05x}"), ""))
        .collect();
    // An entry of the dynamic table, and 60,000 times the byte that stands for it.
    let mut entry = vec![0x40, 1, b'x', 126];
    entry.extend([b'y'; 126]);
    let indexed = [entry, vec![0xbe; 60_000]].concat();
    for block in [names, indexed] {
        let block = [&get[..], &block].concat();
        let mut connection = Http2::connect(&server);
        let mut kind = HEADERS;
        for part in block.chunks(16_384) {
            if !connection.send(&frame(kind, 0, 1, part)) {
                break;
            }
            kind = CONTINUATION;
        }
        assert!(connection.is_ended());
    }
    assert_unharmed(&server, memory_before);
}

#[test]
fn bodies_on_many_connections_wait_outside() {
    let server = Server::new().start();
    let memory_before = server.memory_kib("VmRSS");
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n",
        push_path()
    );
    let open = |n: u8| {
        let client = Client::new(server.addr()).at_address([127, 82, 0, n % 8].into());
        let mut stream = client.connect().expect("connects");
        stream.write_all(request.as_bytes()).expect("sent");
        stream.set_nonblocking(true).expect("a mode");
        stream
    };
    let mut connections: Vec<TcpStream> = (0..400).map(|n| open(n as u8)).collect();
    // As much as is taken. Who loses the room comes again.
    let part = [7; 64 << 10];
    for _ in 0..10 {
        for (n, stream) in connections.iter_mut().enumerate() {
            match stream.write(&part) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => *stream = open(n as u8),
            }
        }
        thread::sleep(Duration::from_millis(100));
    }
    // And no more of it: who comes from elsewhere gets the room of one that sends nothing.
    let client = Client::new(server.addr())
        .at_address([127, 82, 1, 1].into())
        .with_timeout(Duration::from_secs(60));
    push_blob(&client, "team/app", &Blob::random(9, 100));
    let memory = server.memory_kib("VmHWM").saturating_sub(memory_before);
    eprintln!("{memory} KiB more");
    assert!(memory < BOUND, "{memory} KiB more");
}
