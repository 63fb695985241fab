//! What the keys say together: values that parse and cannot work.

use std::time::Duration;

use super::Config;
use super::key::Importance;
use super::node::Origin;
use super::report::Report;
use crate::http::settings::{ClientAuth, Net};
use crate::registry::settings::Platforms;

/// The names that rustls knows with ring, as IANA spells them.
const CIPHER_SUITES: [&str; 9] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// Checks `config`, and brings what has several spellings into one.
pub(super) fn check(config: &mut Config, report: &mut Report) {
    let mut checker = Checker {
        origins: config.origins.clone(),
        report,
    };
    checker.limits(config);
    checker.addresses(config);
    checker.urls(config);
    checker.tls(config);
    checker.manifests(config);
    checker.auth(config);
    checker.proxy_and_notifications(config);
}

struct Checker<'a> {
    origins: super::Origins,
    report: &'a mut Report,
}

impl Checker<'_> {
    fn error(&mut self, key: &str, text: impl Into<String>) {
        let origin = origin_of(&self.origins, key);
        self.report.error(key, &origin, text);
    }

    fn warn(&mut self, key: &str, text: impl Into<String>) {
        let origin = origin_of(&self.origins, key);
        self.report.notice(Importance::Warning, key, &origin, text);
    }

    fn limits(&mut self, config: &mut Config) {
        // Distribution takes 0 for "not set" here.
        if config.registry.catalog_max == 0 {
            config.registry.catalog_max =
                crate::registry::settings::Settings::default().catalog_max;
        }
        for (key, value) in [
            ("storage.filesystem.maxthreads", config.storage.max_threads),
            ("http.maxconnections", config.http.limits.max_connections),
            ("health.storagedriver.threshold", config.health.threshold),
        ] {
            if value == 0 {
                self.error(key, "expected 1 or more, found 0");
            }
        }
        let limits = &config.http.limits;
        for (key, value) in [
            ("http.timeouts.header", limits.header_timeout),
            ("http.timeouts.idle", limits.idle_timeout),
            ("http.timeouts.stall", limits.stall_timeout),
            (
                "storage.maintenance.uploadpurging.age",
                config.registry.purging.age,
            ),
            (
                "storage.maintenance.uploadpurging.interval",
                config.registry.purging.interval,
            ),
            ("health.storagedriver.interval", config.health.interval),
        ] {
            if value < Duration::from_millis(1) {
                self.error(key, "expected 1ms or more, found less");
            }
        }
        if config.registry.manifests.max_size == 0 {
            self.error(
                "validation.manifests.maxsize",
                "expected a size above 0; no manifest could be pushed",
            );
        }
        for (i, check) in config.health.files.iter().enumerate() {
            if check.file.as_os_str().is_empty() {
                self.error(
                    &format!("health.file[{i}].file"),
                    "is missing: the path to look for",
                );
            }
        }
    }

    fn addresses(&mut self, config: &mut Config) {
        let http = &config.http;
        if http.addr.is_empty() {
            self.error(
                "http.addr",
                "expected at least one address as `:5000`, found none",
            );
        }
        for addr in &http.addr {
            let valid = match http.net {
                Net::Tcp => is_address(addr),
                Net::Unix => addr.starts_with('/'),
            };
            if !valid {
                let form = match http.net {
                    Net::Tcp => {
                        "expected an address as `:5000`, `192.168.1.5:5000` or `[::1]:5000`"
                    }
                    Net::Unix => {
                        "expected a path as `/run/registry/http.sock`, since `http.net` is unix"
                    }
                };
                self.error(
                    "http.addr",
                    format!("{form}, found `{}`", addr.escape_debug()),
                );
            }
        }
        if let Some(addr) = &http.debug.addr {
            if !is_address(addr) {
                let found = addr.escape_debug();
                self.error(
                    "http.debug.addr",
                    format!("expected an address as `127.0.0.1:5001`, found `{found}`"),
                );
            } else if http.addr.contains(addr) {
                self.error(
                    "http.debug.addr",
                    "is one of `http.addr`; give it another port",
                );
            }
        }
        if !http.debug.prometheus_path.starts_with('/') {
            self.error(
                "http.debug.prometheus.path",
                "expected a path as `/metrics`",
            );
        }
        for (name, values) in &http.headers {
            let token =
                |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.is_empty() || !name.bytes().all(token) {
                self.error(
                    &format!("http.headers.{name}"),
                    "is no name that a header can have",
                );
            }
            let control = |c: char| c.is_control() && c != '\t';
            if values.iter().any(|value| value.contains(control)) {
                self.error(
                    &format!("http.headers.{name}"),
                    "has a control character in its value",
                );
            }
        }
    }

    fn urls(&mut self, config: &mut Config) {
        if let Some(host) = &config.http.host
            && let Err(why) = check_url(host)
        {
            let text = format!("expected a URL as `https://registry.example.com:5000`, but {why}");
            self.error("http.host", text);
        }
        let prefix = &mut config.http.prefix;
        if !prefix.is_empty() {
            if !prefix.starts_with('/')
                || prefix.contains(['?', '#', '%', ' '])
                || prefix.contains("//")
            {
                self.error("http.prefix", "expected a path as `/my/registry/`");
            }
            let end = prefix.trim_end_matches('/').len();
            prefix.truncate(end);
        }
    }

    fn tls(&mut self, config: &mut Config) {
        let Some(tls) = &mut config.http.tls else {
            return;
        };
        let (certificate, key) = (
            !tls.certificate.as_os_str().is_empty(),
            !tls.key.as_os_str().is_empty(),
        );
        match (certificate, key) {
            (true, true) => {}
            (true, false) => self.error(
                "http.tls.key",
                "is missing: `http.tls.certificate` needs its private key",
            ),
            (false, true) => self.error(
                "http.tls.certificate",
                "is missing: `http.tls.key` needs its certificate",
            ),
            (false, false) => {
                // They say who may connect: plain HTTP would let in everybody.
                for (name, set) in [
                    ("clientcas", !tls.client_cas.is_empty()),
                    ("clientauth", tls.client_auth.is_some()),
                ] {
                    if set {
                        let key = format!("http.tls.{name}");
                        self.error(&key, "needs `http.tls.certificate` and `http.tls.key`: without them there is no TLS");
                    }
                }
            }
        }
        let verifies = matches!(
            tls.client_auth,
            Some(ClientAuth::VerifyIfGiven | ClientAuth::RequireAndVerify)
        );
        if verifies && tls.client_cas.is_empty() {
            self.error(
                "http.tls.clientauth",
                "needs `http.tls.clientcas`, the authorities to verify with",
            );
        }
        if tls.client_auth.is_none() && !tls.client_cas.is_empty() {
            tls.client_auth = Some(ClientAuth::RequireAndVerify);
        }
        let asked = tls.cipher_suites.len();
        let mut unknown = Vec::new();
        tls.cipher_suites.retain(|name| {
            let known = CIPHER_SUITES.contains(&name.as_str());
            if !known {
                unknown.push(name.clone());
            }
            known
        });
        for name in unknown {
            // Key exchange without forward secrecy, CBC, RC4, 3DES: known in Go, gone from rustls.
            if name.starts_with("TLS_RSA_")
                || ["_CBC_", "_RC4_", "_3DES_"]
                    .iter()
                    .any(|part| name.contains(part))
            {
                self.warn(
                    "http.tls.ciphersuites",
                    format!("`{name}` is left out: it is not secure"),
                );
            } else {
                let text = format!(
                    "`{}` is unknown{}",
                    name.escape_debug(),
                    near(&name, &CIPHER_SUITES)
                );
                self.error("http.tls.ciphersuites", text);
            }
        }
        if asked > 0 && tls.cipher_suites.is_empty() {
            let text = format!(
                "none of them can be used; choose from {}",
                CIPHER_SUITES.join(", ")
            );
            self.error("http.tls.ciphersuites", text);
        }
        if !certificate && !key {
            config.http.tls = None;
        }
    }

    fn manifests(&mut self, config: &mut Config) {
        let rules = &config.registry.manifests;
        for (key, patterns) in [
            ("validation.manifests.urls.allow", &rules.allow_urls),
            ("validation.manifests.urls.deny", &rules.deny_urls),
        ] {
            for pattern in patterns {
                if let Err(err) = regex_lite::Regex::new(pattern) {
                    self.error(
                        key,
                        format!(
                            "`{}` is no regular expression: {err}",
                            pattern.escape_debug()
                        ),
                    );
                }
            }
        }
        let list = "validation.manifests.indexes.platformlist";
        match (rules.platforms, rules.platform_list.is_empty()) {
            (Platforms::List, true) => self.error(list, "is missing: `platforms: list` needs it"),
            (Platforms::All | Platforms::None, false) => {
                self.warn(list, "has no effect: it needs `platforms: list` beside it");
            }
            _ => {}
        }
        for (i, platform) in rules.platform_list.iter().enumerate() {
            if platform.architecture.is_empty() || platform.os.is_empty() {
                self.error(
                    &format!("{list}[{i}]"),
                    "needs both, `architecture` and `os`",
                );
            }
        }
    }

    fn auth(&mut self, config: &mut Config) {
        if let Some(htpasswd) = &config.auth.htpasswd {
            let missing = [
                ("realm", htpasswd.realm.is_empty()),
                ("path", htpasswd.path.as_os_str().is_empty()),
            ];
            self.missing("auth.htpasswd", &missing);
        }
        if let Some(token) = &config.auth.token {
            let missing = [
                ("realm", token.realm.is_empty()),
                ("service", token.service.is_empty()),
                ("issuer", token.issuer.is_empty()),
                (
                    "rootcertbundle",
                    token.root_cert_bundle.is_none() && token.jwks.is_none(),
                ),
            ];
            self.missing("auth.token", &missing);
        }
    }

    fn missing(&mut self, section: &str, keys: &[(&str, bool)]) {
        for (name, _) in keys.iter().filter(|(_, missing)| *missing) {
            self.error(
                &format!("{section}.{name}"),
                format!("is missing: `{section}` needs it"),
            );
        }
    }

    fn proxy_and_notifications(&mut self, config: &mut Config) {
        let proxy = &config.proxy;
        if !proxy.remote_url.is_empty()
            && let Err(why) = check_url(&proxy.remote_url)
        {
            self.error(
                "proxy.remoteurl",
                format!("expected a URL as `https://registry-1.docker.io`, but {why}"),
            );
        }
        if proxy.exec_command.is_some() && proxy.username.is_some() {
            self.error(
                "proxy.exec.command",
                "cannot stand beside `proxy.username`; keep one of them",
            );
        }
        for (i, endpoint) in config
            .notifications
            .endpoints
            .iter()
            .enumerate()
            .filter(|(_, e)| !e.disabled)
        {
            if endpoint.name.is_empty() {
                self.error(&format!("notifications.endpoints[{i}].name"), "is missing");
            }
            if let Err(why) = check_url(&endpoint.url) {
                let text =
                    format!("expected a URL as `https://listener.example.com/events`, but {why}");
                self.error(&format!("notifications.endpoints[{i}].url"), text);
            }
        }
    }
}

/// Where `key`, or the nearest section around it, was set.
pub(super) fn origin_of(origins: &super::Origins, key: &str) -> Origin {
    let mut key = key;
    loop {
        if let Some(origin) = origins.get(key) {
            return origin.clone();
        }
        match key.rfind(['.', '[']) {
            Some(end) => key = &key[..end],
            None => return Origin::Default,
        }
    }
}

/// `host:port`, `:port`, `[v6]:port`.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let port_valid =
        !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let host_valid = match host.strip_prefix('[') {
        // With a zone: link-local addresses need one.
        Some(v6) => v6.strip_suffix(']').is_some_and(|v6| {
            let (address, zone) = v6.split_once('%').unwrap_or((v6, "0"));
            address.parse::<std::net::Ipv6Addr>().is_ok() && !zone.is_empty()
        }),
        None => host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._*".contains(&b)),
    };
    port_valid && host_valid
}

/// `http(s)://host[:port][/path]`. Names no part of the URL: passwords stand in some.
fn check_url(text: &str) -> Result<(), &'static str> {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let rest = rest.ok_or("it does not begin with `https://` or `http://`")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("it has a user or password in it; there are keys or headers for that");
    }
    if authority.is_empty() || text.contains(|c: char| c.is_control() || c == ' ') {
        return Err("it names no host");
    }
    let has_port = if authority.starts_with('[') {
        !authority.ends_with(']')
    } else {
        authority.contains(':')
    };
    if authority.starts_with(':') || (has_port && !is_address(authority)) {
        return Err("its host or port is not valid");
    }
    Ok(())
}

fn near(name: &str, known: &[&str]) -> String {
    let best = known
        .iter()
        .map(|other| (strsim::osa_distance(other, &name.to_uppercase()), *other))
        .min();
    match best {
        Some((distance, other)) if distance <= 6 => format!("; did you mean `{other}`?"),
        _ => format!("; known are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::{check_url, is_address};

    #[test]
    fn addresses_are_host_and_port() {
        for good in [
            ":5000",
            "0.0.0.0:80",
            "[::]:5000",
            "[fe80::1%eth0]:5000",
            "registry.local:5000",
            "localhost:0",
        ] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "",
            "5000",
            ":",
            ":x",
            ":70000",
            "::1:5000",
            "[::1]",
            "[x]:1",
            "a b:1",
            "http://a:1",
            ":+1",
        ] {
            assert!(!is_address(bad), "{bad}");
        }
    }

    #[test]
    fn urls_have_a_scheme_and_a_host_and_no_password() {
        for good in [
            "https://a",
            "http://a:5000/x",
            "https://[::1]:5000",
            "https://[::1]/",
        ] {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "a:5000",
            "ftp://a",
            "https://",
            "https:///x",
            "https://:5000",
            "https://a:x",
            "https://u:p@a",
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }
}
