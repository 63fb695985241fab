//! The keys of `health`.

use super::key::{Key, items, names, section, value};
use super::slot::Slot;
use crate::health::settings::{FileCheck, HttpCheck, TcpCheck};

pub(super) static HEALTH: &[Key] = &[
    section(
        "storagedriver",
        &[
            value("enabled", |c, _| {
                Some(Slot::Bool(&mut c.health.storage.enabled))
            }),
            value("interval", |c, _| {
                Some(Slot::Span(&mut c.health.storage.rhythm.interval))
            }),
            value("threshold", |c, _| {
                Some(Slot::Count(&mut c.health.storage.rhythm.threshold))
            }),
        ],
    ),
    items(
        "file",
        FILE,
        |c| c.health.files.len(),
        |c| c.health.files.push(FileCheck::default()),
    )
    .field("filecheckers"),
    items(
        "http",
        HTTP,
        |c| c.health.http.len(),
        |c| c.health.http.push(HttpCheck::default()),
    )
    .field("httpcheckers"),
    items(
        "tcp",
        TCP,
        |c| c.health.tcp.len(),
        |c| c.health.tcp.push(TcpCheck::default()),
    )
    .field("tcpcheckers"),
];

static FILE: &[Key] = &[
    value("file", |c, i| {
        c.health.files.get_mut(i).map(|f| Slot::Path(&mut f.file))
    }),
    value("interval", |c, i| {
        c.health
            .files
            .get_mut(i)
            .map(|f| Slot::Span(&mut f.rhythm.interval))
    }),
    value("threshold", |c, i| {
        c.health
            .files
            .get_mut(i)
            .map(|f| Slot::Count(&mut f.rhythm.threshold))
    }),
];

static HTTP: &[Key] = &[
    value("uri", |c, i| {
        c.health.http.get_mut(i).map(|h| Slot::Text(&mut h.uri))
    }),
    names("headers", |c, i| {
        c.health
            .http
            .get_mut(i)
            .map(|h| Slot::SecretHeaders(&mut h.headers))
    }),
    value("statuscode", |c, i| {
        c.health.http.get_mut(i).map(|h| Slot::Count(&mut h.status))
    }),
    value("timeout", |c, i| {
        c.health.http.get_mut(i).map(|h| Slot::Span(&mut h.timeout))
    }),
    value("interval", |c, i| {
        c.health
            .http
            .get_mut(i)
            .map(|h| Slot::Span(&mut h.rhythm.interval))
    }),
    value("threshold", |c, i| {
        c.health
            .http
            .get_mut(i)
            .map(|h| Slot::Count(&mut h.rhythm.threshold))
    }),
];

static TCP: &[Key] = &[
    value("addr", |c, i| {
        c.health.tcp.get_mut(i).map(|t| Slot::Text(&mut t.addr))
    }),
    value("timeout", |c, i| {
        c.health.tcp.get_mut(i).map(|t| Slot::Span(&mut t.timeout))
    }),
    value("interval", |c, i| {
        c.health
            .tcp
            .get_mut(i)
            .map(|t| Slot::Span(&mut t.rhythm.interval))
    }),
    value("threshold", |c, i| {
        c.health
            .tcp
            .get_mut(i)
            .map(|t| Slot::Count(&mut t.rhythm.threshold))
    }),
];
