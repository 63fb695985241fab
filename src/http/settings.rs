//! What the HTTP server can be told.

use std::path::PathBuf;
use std::time::Duration;

use crate::auth::Network;
use crate::secret::Secret;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `http.addr`: `host:port` or `:port` (every address of the machine); paths when `net` is unix. Default `:5000`.
    pub(crate) addr: Vec<String>,
    /// Default tcp.
    pub(crate) net: Net,
    /// Path that everything is served below: empty, or `/` and no `/` at its end. Default empty.
    pub(crate) prefix: String,
    /// The URL that clients reach this server by, for absolute `Location`s. Default: what the request says.
    pub(crate) host: Option<String>,
    /// Key of the state in upload URLs, shared by servers behind one balancer. Default: random at each start.
    pub(crate) secret: Option<Secret>,
    /// `Location` without scheme and host. Default false.
    pub(crate) relative_urls: bool,
    /// How long requests may go on after SIGTERM. Default 60 s, below systemd's 90 s until SIGKILL.
    pub(crate) drain_timeout: Duration,
    /// Headers added to every response. Default none.
    pub(crate) headers: Vec<(String, Vec<String>)>,
    /// Default true.
    pub(crate) http2: bool,
    /// Whether clients that know both get HTTP/2. Default false: their uploads are faster over HTTP/1.1
    /// (docs/performance.md).
    pub(crate) http2_preferred: bool,
    /// HTTP/2 without TLS, by prior knowledge. Default false.
    pub(crate) h2c: bool,
    /// Who may speak plain HTTP to a port that has TLS. Default loopback.
    pub(crate) plain: Plain,
    /// Proxies that are believed about whom they speak for (`X-Forwarded-For`, `Forwarded`). Default none.
    pub(crate) trusted_proxies: Vec<Network>,
    /// None: plain HTTP only.
    pub(crate) tls: Option<Tls>,
    pub(crate) debug: Debug,
    pub(crate) limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            addr: vec![":5000".to_owned()],
            net: Net::Tcp,
            prefix: String::new(),
            host: None,
            secret: None,
            relative_urls: false,
            drain_timeout: Duration::from_secs(60),
            headers: Vec::new(),
            http2: true,
            http2_preferred: false,
            h2c: false,
            plain: Plain::Loopback,
            trusted_proxies: Vec::new(),
            tls: None,
            debug: Debug::default(),
            limits: Limits::default(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Net {
    Tcp,
    Unix,
}

/// What plain HTTP gets on a port that also has TLS; without a certificate everything is plain and this says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plain {
    /// Nobody is served.
    Off,
    /// This machine is.
    Loopback,
    /// This machine is; others may pull.
    Pull,
    /// Everybody is.
    All,
}

/// `http.tls`. `certificate` and `key` are both set or both empty: a file that sets one of them is refused. Without them
/// `self_signed` is enabled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tls {
    /// PEM, the server's certificate first, then its issuers.
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// PEM files of the authorities that client certificates are checked against. Default none.
    pub(crate) client_cas: Vec<PathBuf>,
    /// Default: require and verify when `client_cas` has any, otherwise none are asked for.
    pub(crate) client_auth: Option<ClientAuth>,
    /// Default 1.2.
    pub(crate) minimum: MinimumTls,
    /// IANA names, all of them known to the TLS library; empty means its own choice. Default empty.
    pub(crate) cipher_suites: Vec<String>,
    pub(crate) self_signed: SelfSigned,
    /// `http.tls.letsencrypt.hosts`: no certificates are fetched, so these are names of the self-signed one. Default none.
    pub(crate) lets_encrypt_hosts: Vec<String>,
}

/// `http.tls.selfsigned`: a certificate by a CA of this machine's own, where none was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SelfSigned {
    /// Default false.
    pub(crate) enabled: bool,
    /// Where the CA and the certificate are, and their keys. Default `/etc/registry/tls`.
    pub(crate) directory: PathBuf,
    /// Names and addresses that the machine cannot know. Default none.
    pub(crate) names: Vec<String>,
}

impl Default for SelfSigned {
    fn default() -> Self {
        SelfSigned {
            enabled: false,
            directory: PathBuf::from("/etc/registry/tls"),
            names: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientAuth {
    Request,
    RequireAny,
    VerifyIfGiven,
    RequireAndVerify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum MinimumTls {
    #[default]
    Tls12,
    Tls13,
}

/// `http.debug`: health and metrics at an address of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Debug {
    /// Default none: they are served at `http.addr`.
    pub(crate) addr: Option<String>,
    /// Default true (distribution's default is false).
    pub(crate) prometheus: bool,
    /// Default `/metrics`.
    pub(crate) prometheus_path: String,
}

impl Default for Debug {
    fn default() -> Self {
        Debug {
            addr: None,
            prometheus: true,
            prometheus_path: "/metrics".to_owned(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Open connections; a further one takes the place of another, or is closed. Default 1024: above any LAN.
    pub(crate) max_connections: usize,
    /// From one address, or one IPv6 network of 64 bits. Default: a quarter of them. This machine and trusted proxies may have
    /// three quarters.
    pub(crate) max_connections_per_address: Option<usize>,
    /// From the first byte of a request to the end of its head. Default 20 s.
    pub(crate) header_timeout: Duration,
    /// A connection without a request. Default 120 s: actix pings HTTP/2 peers at this pace and closes when the answer,
    /// queued behind upload data on a slow link, is late; less than 75 s cut real uploads.
    pub(crate) idle_timeout: Duration,
    /// A body in either direction of which no byte moves. Default 60 s.
    pub(crate) stall_timeout: Duration,
    /// Bytes a second that a body has to move on average, over what is waited for it; 0 is any. Default 1 KiB: between the
    /// 240 B of other servers and the 4 KiB or so that each of five layers gets on a link of 200 kbit/s.
    pub(crate) min_rate: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_connections: 1024,
            max_connections_per_address: None,
            header_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(120),
            stall_timeout: Duration::from_secs(60),
            min_rate: 1 << 10,
        }
    }
}
