//! The keys of `http`.

use super::key::{Key, entered, ignored, names, section, value};
use super::slot::Slot;
use crate::http::settings::Tls;

pub(super) static HTTP: &[Key] = &[
    value("addr", |c, _| Some(Slot::OneOrMore(&mut c.http.addr))),
    value("net", |c, _| Some(Slot::Choice(&mut c.http.net))),
    value("prefix", |c, _| Some(Slot::Text(&mut c.http.prefix))),
    value("host", |c, _| Some(Slot::MaybeText(&mut c.http.host))),
    value("secret", |c, _| Some(Slot::Secret(&mut c.http.secret))),
    value("relativeurls", |c, _| {
        Some(Slot::Bool(&mut c.http.relative_urls))
    }),
    value("draintimeout", |c, _| {
        Some(Slot::Span(&mut c.http.drain_timeout))
    }),
    names("headers", |c, _| Some(Slot::Headers(&mut c.http.headers))),
    section(
        "http2",
        &[
            value("disabled", |c, _| Some(Slot::NotBool(&mut c.http.http2))),
            value("preferred", |c, _| {
                Some(Slot::Bool(&mut c.http.http2_preferred))
            }),
        ],
    ),
    section(
        "h2c",
        &[value("enabled", |c, _| Some(Slot::Bool(&mut c.http.h2c)))],
    ),
    value("plain", |c, _| Some(Slot::Choice(&mut c.http.plain))),
    value("trustedproxies", |c, _| {
        Some(Slot::Networks(&mut c.http.trusted_proxies))
    }),
    value("maxconnections", |c, _| {
        Some(Slot::Count(&mut c.http.limits.max_connections))
    }),
    value("maxconnectionsperaddress", |c, _| {
        Some(Slot::MaybeCount(
            &mut c.http.limits.max_connections_per_address,
        ))
    }),
    section("timeouts", TIMEOUTS),
    entered("tls", TLS, |c| {
        c.http.tls.get_or_insert_with(Tls::default);
    }),
    section("debug", DEBUG),
];

static TIMEOUTS: &[Key] = &[
    value("header", |c, _| {
        Some(Slot::Span(&mut c.http.limits.header_timeout))
    }),
    value("idle", |c, _| {
        Some(Slot::Span(&mut c.http.limits.idle_timeout))
    }),
    value("stall", |c, _| {
        Some(Slot::Span(&mut c.http.limits.stall_timeout))
    }),
    value("minrate", |c, _| {
        Some(Slot::Bytes(&mut c.http.limits.min_rate))
    }),
];

static TLS: &[Key] = &[
    value("certificate", |c, _| {
        c.http.tls.as_mut().map(|t| Slot::Path(&mut t.certificate))
    }),
    value("key", |c, _| {
        c.http.tls.as_mut().map(|t| Slot::Path(&mut t.key))
    }),
    value("clientcas", |c, _| {
        c.http.tls.as_mut().map(|t| Slot::Paths(&mut t.client_cas))
    }),
    value("clientauth", |c, _| {
        c.http
            .tls
            .as_mut()
            .map(|t| Slot::Choice(&mut t.client_auth))
    }),
    value("minimumtls", |c, _| {
        c.http.tls.as_mut().map(|t| Slot::Choice(&mut t.minimum))
    }),
    value("ciphersuites", |c, _| {
        c.http
            .tls
            .as_mut()
            .map(|t| Slot::Texts(&mut t.cipher_suites))
    }),
    section("selfsigned", SELF_SIGNED),
    section("letsencrypt", LETS_ENCRYPT),
];

/// `check_tls` says what becomes of them.
static LETS_ENCRYPT: &[Key] = &[
    value("hosts", |c, _| {
        c.http
            .tls
            .as_mut()
            .map(|t| Slot::Texts(&mut t.lets_encrypt_hosts))
    }),
    ignored("cachefile", NOT_FETCHED),
    ignored("email", NOT_FETCHED),
    ignored("directoryurl", NOT_FETCHED),
];
const NOT_FETCHED: &str = "certificates are not fetched";

static SELF_SIGNED: &[Key] = &[
    value("enabled", |c, _| {
        c.http
            .tls
            .as_mut()
            .map(|t| Slot::Bool(&mut t.self_signed.enabled))
    }),
    value("directory", |c, _| {
        c.http
            .tls
            .as_mut()
            .map(|t| Slot::Path(&mut t.self_signed.directory))
    }),
    value("names", |c, _| {
        c.http
            .tls
            .as_mut()
            .map(|t| Slot::Texts(&mut t.self_signed.names))
    }),
];

static DEBUG: &[Key] = &[
    value("addr", |c, _| Some(Slot::MaybeText(&mut c.http.debug.addr))),
    section(
        "prometheus",
        &[
            value("enabled", |c, _| {
                Some(Slot::Bool(&mut c.http.debug.prometheus))
            }),
            value("path", |c, _| {
                Some(Slot::Text(&mut c.http.debug.prometheus_path))
            }),
        ],
    ),
];
