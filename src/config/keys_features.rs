//! The keys of `auth`, `proxy` and `notifications`.

use super::key::{Key, entered, items, names, refused, section, value};
use super::slot::Slot;
use crate::auth::settings::{Htpasswd, Token};
use crate::notifications::settings::Endpoint;
use crate::registry::Rule;

pub(super) static AUTH: &[Key] = &[
    section("none", &[]),
    entered("htpasswd", HTPASSWD, |c| {
        c.auth.htpasswd.get_or_insert_with(Htpasswd::default);
    }),
    entered("token", TOKEN, |c| {
        c.auth.token.get_or_insert_with(Token::default);
    }),
    refused(
        "silly",
        "it lets in whoever sends any Authorization header at all",
        "remove it, or write `auth: none` to let everybody in openly",
    ),
];

static HTPASSWD: &[Key] = &[
    value("realm", |c, _| {
        c.auth.htpasswd.as_mut().map(|h| Slot::Text(&mut h.realm))
    }),
    value("path", |c, _| {
        c.auth.htpasswd.as_mut().map(|h| Slot::Path(&mut h.path))
    }),
    value("groups", |c, _| {
        c.auth
            .htpasswd
            .as_mut()
            .map(|h| Slot::MaybePath(&mut h.groups))
    }),
    value("robots", |c, _| {
        c.auth
            .htpasswd
            .as_mut()
            .map(|h| Slot::MaybePath(&mut h.robots))
    }),
];

static TOKEN: &[Key] = &[
    value("realm", |c, _| {
        c.auth.token.as_mut().map(|t| Slot::Text(&mut t.realm))
    }),
    value("service", |c, _| {
        c.auth.token.as_mut().map(|t| Slot::Text(&mut t.service))
    }),
    value("issuer", |c, _| {
        c.auth.token.as_mut().map(|t| Slot::Text(&mut t.issuer))
    }),
    value("rootcertbundle", |c, _| {
        c.auth
            .token
            .as_mut()
            .map(|t| Slot::MaybePath(&mut t.root_cert_bundle))
    }),
    value("jwks", |c, _| {
        c.auth.token.as_mut().map(|t| Slot::MaybePath(&mut t.jwks))
    }),
    value("signingalgorithms", |c, _| {
        c.auth
            .token
            .as_mut()
            .map(|t| Slot::Texts(&mut t.signing_algorithms))
    }),
    value("autoredirect", |c, _| {
        c.auth
            .token
            .as_mut()
            .map(|t| Slot::Bool(&mut t.auto_redirect))
    }),
    value("autoredirectpath", |c, _| {
        c.auth
            .token
            .as_mut()
            .map(|t| Slot::MaybeText(&mut t.auto_redirect_path))
    }),
];

/// A key of a rule: one text or several.
macro_rules! rule {
    ($name:literal, $field:ident) => {
        value($name, |c, i| {
            let rule = c.auth.rules.as_mut()?.get_mut(i)?;
            Some(Slot::OneOrMore(&mut rule.$field))
        })
    };
}

pub(super) static ACCESS: &[Key] = &[
    rule!("who", who),
    rule!("from", from),
    rule!("repositories", repositories),
    rule!("allow", allow),
    rule!("deny", deny),
];

pub(super) static RETENTION: &[Key] = &[
    value("interval", |c, _| {
        Some(Slot::Span(&mut c.registry.retention.interval))
    }),
    items(
        "rules",
        RETENTION_RULE,
        |c| c.registry.retention.rules.len(),
        |c| c.registry.retention.rules.push(Rule::default()),
    ),
];

/// A key of a rule of retention.
macro_rules! keep {
    ($name:literal, $slot:ident, $field:ident) => {
        value($name, |c, i| {
            let rule = c.registry.retention.rules.get_mut(i)?;
            Some(Slot::$slot(&mut rule.$field))
        })
    };
}

static RETENTION_RULE: &[Key] = &[
    keep!("repositories", Patterns, repositories),
    keep!("tags", Patterns, tags),
    keep!("keep", Patterns, keep),
    keep!("keeplast", MaybeCount, keep_last),
    keep!("keeppushed", MaybeSpan, keep_pushed),
    keep!("keeppulled", MaybeSpan, keep_pulled),
    keep!("keepminors", MaybeCount, keep_minors),
    keep!("untagged", MaybeSpan, untagged),
];

/// A key of a registry that mends this one.
macro_rules! peer {
    ($name:literal, $slot:ident, $field:ident) => {
        value($name, |c, i| {
            let peer = c.registry.scrub.peers.get_mut(i)?;
            Some(Slot::$slot(&mut peer.$field))
        })
    };
}

pub(super) static PEER: &[Key] = &[
    peer!("remoteurl", Text, remote_url),
    peer!("username", MaybeText, username),
    peer!("password", Secret, password),
    section(
        "exec",
        &[
            peer!("command", MaybeText, exec_command),
            peer!("lifetime", MaybeSpan, exec_lifetime),
        ],
    ),
];

pub(super) static QUOTA: &[Key] = &[
    value("repositories", |c, i| {
        let quota = c.registry.quotas.get_mut(i)?;
        Some(Slot::Patterns(&mut quota.repositories))
    }),
    value("size", |c, i| {
        let quota = c.registry.quotas.get_mut(i)?;
        Some(Slot::Bytes(&mut quota.size))
    }),
];

pub(super) static PROXY: &[Key] = &[
    value("remoteurl", |c, _| {
        Some(Slot::Text(&mut c.proxy.remote_url))
    }),
    value("username", |c, _| {
        Some(Slot::MaybeText(&mut c.proxy.username))
    }),
    value("password", |c, _| Some(Slot::Secret(&mut c.proxy.password))),
    value("ttl", |c, _| Some(Slot::Span(&mut c.proxy.ttl))),
    section(
        "exec",
        &[
            value("command", |c, _| {
                Some(Slot::MaybeText(&mut c.proxy.exec_command))
            }),
            value("lifetime", |c, _| {
                Some(Slot::MaybeSpan(&mut c.proxy.exec_lifetime))
            }),
        ],
    ),
    value("cachewritetimeout", |c, _| {
        Some(Slot::Span(&mut c.proxy.cache_write_timeout))
    }),
];

pub(super) static NOTIFICATIONS: &[Key] = &[
    section(
        "events",
        &[value("includereferences", |c, _| {
            Some(Slot::Bool(&mut c.notifications.include_references))
        })],
    )
    .field("eventconfig"),
    items(
        "endpoints",
        ENDPOINT,
        |c| c.notifications.endpoints.len(),
        |c| c.notifications.endpoints.push(Endpoint::default()),
    ),
];

static ENDPOINT: &[Key] = &[
    value("name", |c, i| {
        c.notifications
            .endpoints
            .get_mut(i)
            .map(|e| Slot::Text(&mut e.name))
    }),
    value("disabled", |c, i| {
        c.notifications
            .endpoints
            .get_mut(i)
            .map(|e| Slot::Bool(&mut e.disabled))
    }),
    value("url", |c, i| {
        c.notifications
            .endpoints
            .get_mut(i)
            .map(|e| Slot::Text(&mut e.url))
    }),
    names("headers", |c, i| {
        c.notifications
            .endpoints
            .get_mut(i)
            .map(|e| Slot::SecretHeaders(&mut e.headers))
    }),
    value("timeout", |c, i| {
        c.notifications
            .endpoints
            .get_mut(i)
            .map(|e| Slot::Span(&mut e.timeout))
    }),
    value("threshold", |c, i| {
        c.notifications
            .endpoints
            .get_mut(i)
            .map(|e| Slot::Count(&mut e.threshold))
    }),
    value("backoff", |c, i| {
        c.notifications
            .endpoints
            .get_mut(i)
            .map(|e| Slot::Span(&mut e.backoff))
    }),
    value("ignoredmediatypes", |c, i| {
        c.notifications
            .endpoints
            .get_mut(i)
            .map(|e| Slot::Texts(&mut e.ignored_media_types))
    }),
    section(
        "ignore",
        &[
            value("mediatypes", |c, i| {
                c.notifications
                    .endpoints
                    .get_mut(i)
                    .map(|e| Slot::Texts(&mut e.ignore_media_types))
            }),
            value("actions", |c, i| {
                c.notifications
                    .endpoints
                    .get_mut(i)
                    .map(|e| Slot::Texts(&mut e.ignore_actions))
            }),
        ],
    ),
];
