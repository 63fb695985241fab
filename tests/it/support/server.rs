//! The real binary as a child process: on a free port, with a directory and a configuration of its own.
//!
//! ```ignore
//! let mut server = Server::new().set("http.relativeurls", "true").start();
//! let client = server.client();
//! server.kill();               // SIGKILL; a power cut for a process
//! server.restart();            // the same tree, a new port
//! let client = server.client();
//! ```

use std::{
    ffi::OsString,
    fs,
    io::{Read, Seek, SeekFrom},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_yaml::{Mapping, Value};
use tempfile::TempDir;

use super::http::Client;

/// How long a server may take to be ready, or to end, before a test fails. Far above what either takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often to look.
const POLL: Duration = Duration::from_millis(5);

/// A server to be: what it is started with.
#[derive(Debug)]
pub(crate) struct Server {
    /// Holds config.yml, the log and, unless told otherwise, the tree.
    dir: TempDir,
    root: PathBuf,
    config: Value,
    env: Vec<(OsString, OsString)>,
    args: Option<Vec<OsString>>,
    binary: PathBuf,
    /// Paths asked until one answers 200 (or 401: it is up and wants a password).
    ready: Vec<String>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    addr: SocketAddr,
}

impl Server {
    /// Not started yet. The tree is a fresh directory, deletes are allowed, the port is any free one.
    ///
    /// `TEST_SERVER_BINARY` names another registry to run the tests against (CNCF distribution).
    pub(crate) fn new() -> Self {
        let dir = TempDir::with_prefix("registry-it-").expect("a temporary directory");
        let root = dir.path().join("tree");
        fs::create_dir(&root).expect("the tree's directory");
        let mut server = Self {
            root: root.clone(),
            dir,
            config: Value::Mapping(Mapping::new()),
            env: Vec::new(),
            args: None,
            binary: env!("CARGO_BIN_EXE_registry").into(),
            ready: vec!["/readyz".into()],
            running: None,
        };
        if let Some(other) = std::env::var_os("TEST_SERVER_BINARY") {
            server.binary = other.into();
            server.ready = vec!["/v2/".into()];
        }
        server
            .set("version", "0.1")
            .set("log.level", "info")
            .set("storage.delete.enabled", "true")
            .set("http.addr", "127.0.0.1:0")
            .root(root)
    }

    /// A configuration key by its path (`http.tls.certificate`); `value` is YAML.
    pub(crate) fn set(mut self, path: &str, value: &str) -> Self {
        let value = serde_yaml::from_str(value).expect("a YAML value");
        let mut at = &mut self.config;
        for name in path.split('.') {
            if !at.is_mapping() {
                *at = Value::Mapping(Mapping::new());
            }
            let Value::Mapping(map) = at else {
                unreachable!("made a mapping above")
            };
            at = map
                .entry(Value::String(name.to_owned()))
                .or_insert(Value::Null);
        }
        *at = value;
        self
    }

    /// The tree lies here, and stays when the server is dropped.
    pub(crate) fn root(mut self, root: impl Into<PathBuf>) -> Self {
        self.root = root.into();
        let quoted = serde_yaml::to_string(&self.root).expect("a path is a YAML string");
        self.set("storage.filesystem.rootdirectory", &quoted)
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Another command line than `serve <config.yml>`.
    pub(crate) fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args = Some(args.into_iter().map(Into::into).collect());
        self
    }

    pub(crate) fn binary(mut self, binary: impl Into<PathBuf>) -> Self {
        self.binary = binary.into();
        self
    }

    /// What to ask instead of `/readyz`.
    pub(crate) fn ready_path(mut self, path: &str) -> Self {
        self.ready = vec![path.to_owned()];
        self
    }

    /// Starts it and waits until it is ready; panics with its log when it ends instead.
    #[track_caller]
    pub(crate) fn start(mut self) -> Self {
        self.restart();
        self
    }

    /// Starts it again on the same tree, with a new port. `Client`s made before are of no use afterwards.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        if let Err(e) = self.try_restart() {
            panic!("{e}\n{}", self.log());
        }
    }

    /// Like `restart`, but a server that refuses to start is the caller's to judge (`log` has its words).
    pub(crate) fn try_restart(&mut self) -> Result<(), String> {
        self.kill();
        let child = self.spawn();
        let started = Instant::now();
        // In `running` from here on, so that a failed start leaves no process behind.
        let running = self.running.insert(Running {
            child,
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        });
        let outcome = loop {
            if let Some(status) = running.child.try_wait().expect("waitpid") {
                break Err(format!(
                    "the server ended while it should have started: {status}"
                ));
            }
            if let Some(addr) = ready_at(running.child.id(), &self.ready, &self.config) {
                running.addr = addr;
                break Ok(());
            }
            if started.elapsed() > PATIENCE {
                break Err(format!("the server was not ready within {PATIENCE:?}"));
            }
            thread::sleep(POLL);
        };
        if outcome.is_err() {
            self.kill();
        }
        outcome
    }

    /// Runs it to its end (a configuration that is refused, `config check`): its status and its log.
    pub(crate) fn run(&mut self) -> (ExitStatus, String) {
        self.kill();
        let mut child = self.spawn();
        let status = wait(&mut child).unwrap_or_else(|| {
            child.kill().expect("kill");
            panic!("the server did not end within {PATIENCE:?}\n{}", self.log())
        });
        (status, self.log())
    }

    /// The configuration as a file, for commands that need no server.
    pub(crate) fn write_config(&self) {
        let text = serde_yaml::to_string(&self.config).expect("YAML");
        fs::write(self.config_path(), text).expect("config.yml");
    }

    fn spawn(&self) -> Child {
        let path = self.config_path();
        self.write_config();
        let log = || {
            fs::File::options()
                .create(true)
                .append(true)
                .open(self.log_path())
                .expect("the log file")
        };
        let mut command = Command::new(&self.binary);
        match &self.args {
            Some(args) => command.args(args),
            None => command.arg("serve").arg(&path),
        };
        // Nothing of the developer's environment configures the server under test.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("REGISTRY_")
                || name == "RUST_LOG"
                || name == "NOTIFY_SOCKET"
            {
                command.env_remove(name);
            }
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log());
        command
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", self.binary.display()))
    }

    /// A client of its own for the address of now.
    #[track_caller]
    pub(crate) fn client(&self) -> Client {
        Client::new(self.addr())
    }

    #[track_caller]
    pub(crate) fn addr(&self) -> SocketAddr {
        self.running.as_ref().expect("the server runs").addr
    }

    #[track_caller]
    pub(crate) fn pid(&self) -> u32 {
        self.running.as_ref().expect("the server runs").child.id()
    }

    /// `storage.filesystem.rootdirectory`.
    pub(crate) fn tree(&self) -> &Path {
        &self.root
    }

    /// A directory for the test's own files (certificates, htpasswd), beside the tree.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.dir.path().join("config.yml")
    }

    /// SIGKILL, now; nothing when it does not run.
    pub(crate) fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            // Err: it has ended by itself.
            let _ = running.child.kill();
            running.child.wait().expect("waitpid");
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("a pid is an i32");
        kill(Pid::from_raw(pid), signal).expect("kill");
    }

    /// SIGTERM, and waits for the end.
    #[track_caller]
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Waits for the end of a server that was told to end.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut running = self.running.take().expect("the server runs");
        match wait(&mut running.child) {
            Some(status) => status,
            None => {
                self.running = Some(running);
                self.kill();
                panic!("the server did not end within {PATIENCE:?}\n{}", self.log())
            }
        }
    }

    /// `None` while it runs; how it ended otherwise.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        match &mut self.running {
            Some(running) => running.child.try_wait().expect("waitpid"),
            None => Some(ExitStatus::from_raw(0)),
        }
    }

    /// Everything it and its predecessors wrote to stdout and stderr.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }

    /// A field of `/proc/<pid>/status` in KiB: `VmHWM` (peak memory), `VmRSS`.
    pub(crate) fn memory_kib(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .expect("status of the server");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
            .expect("field");
        line.trim().trim_end_matches(" kB").parse().expect("KiB")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let mut tail = String::new();
            if let Ok(mut log) = fs::File::open(self.log_path()) {
                let length = log.metadata().map_or(0, |meta| meta.len());
                let _ = log.seek(SeekFrom::Start(length.saturating_sub(16 * 1024)));
                let mut bytes = Vec::new();
                let _ = log.read_to_end(&mut bytes);
                tail = String::from_utf8_lossy(&bytes).into_owned();
            }
            eprintln!("--- end of the server's log ---\n{tail}--- ---");
        }
    }
}

/// A port nobody listens on, for a second listener (`http.debug.addr`). From below the range that the kernel gives to
/// connections, and a different one each time.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let offset = u16::try_from(std::process::id() % 10_000).expect("below 10,000");
    for _ in 0..10_000 {
        let port = 20_000 + (offset + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

fn wait(child: &mut Child) -> Option<ExitStatus> {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().expect("waitpid") {
            return Some(status);
        }
        thread::sleep(POLL);
    }
    None
}

/// The address on which process `pid` serves the registry, once it is ready there. The server is told to take any port
/// and the kernel which one it took, so that tests running beside each other never meet.
fn ready_at(pid: u32, ready: &[String], config: &Value) -> Option<SocketAddr> {
    let debug = config
        .get("http")
        .and_then(|http| http.get("debug")?.get("addr")?.as_str());
    listeners(pid)
        .into_iter()
        .filter(|addr| debug.is_none_or(|d| !d.ends_with(&format!(":{}", addr.port()))))
        .find(|addr| {
            let client = Client::new(*addr).without_keep_alive();
            ready.iter().any(|path| {
                client
                    .get(path)
                    .try_send()
                    .is_ok_and(|reply| matches!(reply.status, 200 | 401))
            })
        })
}

/// Where process `pid` listens (IPv4, TCP).
fn listeners(pid: u32) -> Vec<SocketAddr> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    let sockets: Vec<String> = entries
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| {
            Some(
                link.to_str()?
                    .strip_prefix("socket:[")?
                    .strip_suffix(']')?
                    .to_owned(),
            )
        })
        .collect();
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, "0A", _, _, _, _, _, inode, ..] = fields[..] else {
                return None;
            };
            if !sockets.iter().any(|socket| socket == inode) {
                return None;
            }
            let (ip, port) = local.split_once(':')?;
            // The address is printed as one number in the machine's byte order.
            let ip = Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?.to_ne_bytes());
            let ip = if ip.is_unspecified() {
                Ipv4Addr::LOCALHOST
            } else {
                ip
            };
            Some(SocketAddr::from((ip, u16::from_str_radix(port, 16).ok()?)))
        })
        .collect()
}

/// A server with the default configuration of these tests, and a client of it.
#[track_caller]
pub(crate) fn serve() -> (Server, Client) {
    let server = Server::new().start();
    let client = server.client();
    (server, client)
}

/// Asks until there is an answer, for what another process does in its own time; panics when it never comes.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        assert!(
            started.elapsed() < PATIENCE,
            "{what}: not within {PATIENCE:?}"
        );
        thread::sleep(POLL);
    }
}
