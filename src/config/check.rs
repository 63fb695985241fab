//! What the keys say together: values that parse and cannot work.

use std::time::Duration;

use super::Config;
use super::address::{check_url, is_address};
use super::key::Importance;
use super::node::Origin;
use super::report::Report;
use crate::auth::Rules;
use crate::health::settings::Rhythm;
use crate::http::settings::Net;
use crate::registry::settings::Platforms;
use crate::upstream;

/// Checks `config`, and brings what has several spellings into one.
pub(super) fn check(config: &mut Config, report: &mut Report) {
    let mut checker = Checker {
        origins: config.origins.clone(),
        report,
    };
    checker.limits(config);
    checker.health(config);
    checker.addresses(config);
    checker.urls(config);
    super::check_tls::check(config, &mut checker);
    checker.manifests(config);
    checker.retention(config);
    checker.quotas(config);
    checker.auth(config);
    super::check_token::check(config, &mut checker);
    checker.proxy_and_notifications(config);
}

/// Reports with the origin of the key.
pub(super) struct Checker<'a> {
    origins: super::Origins,
    report: &'a mut Report,
}

impl Checker<'_> {
    pub(super) fn error(&mut self, key: &str, text: impl Into<String>) {
        let origin = origin_of(&self.origins, key);
        self.report.error(key, &origin, text);
    }

    /// Whether the file or a variable has the key, or one below it.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.origins.keys().any(|set| {
            set.strip_prefix(key)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }

    pub(super) fn warn(&mut self, key: &str, text: impl Into<String>) {
        let origin = origin_of(&self.origins, key);
        self.report.notice(Importance::Warning, key, &origin, text);
    }

    pub(super) fn note(&mut self, key: &str, text: impl Into<String>) {
        let origin = origin_of(&self.origins, key);
        self.report.notice(Importance::Info, key, &origin, text);
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
            (
                "health.storagedriver.threshold",
                config.health.storage.rhythm.threshold,
            ),
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
            ("gc.interval", config.registry.gc.interval),
            ("retention.interval", config.registry.retention.interval),
            (
                "health.storagedriver.interval",
                config.health.storage.rhythm.interval,
            ),
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
    }

    fn health(&mut self, config: &Config) {
        let health = &config.health;
        let missing = |what: &str| format!("is missing: {what}");
        for (i, check) in health.files.iter().enumerate() {
            let list = format!("health.file[{i}]");
            if check.file.as_os_str().is_empty() {
                self.error(&format!("{list}.file"), missing("the path to look for"));
            }
            self.rhythm(&list, check.rhythm);
        }
        for (i, check) in health.http.iter().enumerate() {
            let list = format!("health.http[{i}]");
            if let Err(why) = check_url(&check.uri) {
                let text = format!("expected a URL as `https://other.example.com/`, but {why}");
                self.error(&format!("{list}.uri"), text);
            }
            self.rhythm(&list, check.rhythm);
        }
        for (i, check) in health.tcp.iter().enumerate() {
            let list = format!("health.tcp[{i}]");
            if !is_address(&check.addr) {
                let text = "expected an address as `other.example.com:6379`";
                self.error(&format!("{list}.addr"), text);
            }
            self.rhythm(&list, check.rhythm);
        }
    }

    fn rhythm(&mut self, list: &str, rhythm: Rhythm) {
        if rhythm.interval < Duration::from_millis(1) {
            self.error(
                &format!("{list}.interval"),
                "expected 1ms or more, found less",
            );
        }
        if rhythm.threshold == 0 {
            self.error(&format!("{list}.threshold"), "expected 1 or more, found 0");
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

    fn retention(&mut self, config: &Config) {
        if !config.registry.retention.rules.is_empty() && !config.registry.delete_enabled {
            self.error(
                "retention.rules",
                "removes nothing while `storage.delete.enabled` is false",
            );
        }
        for (i, rule) in config.registry.retention.rules.iter().enumerate() {
            let names_tags = !rule.tags.is_empty() || !rule.keep.is_empty();
            if !rule.is_about_tags() && (names_tags || rule.untagged.is_none()) {
                self.error(
                    &format!("retention.rules[{i}]"),
                    "says nothing that keeps tags: it needs `keeplast`, `keeppushed`, `keeppulled` or `keepminors`",
                );
            }
        }
    }

    fn quotas(&mut self, config: &Config) {
        for (i, quota) in config.registry.quotas.iter().enumerate() {
            let missing = [
                ("repositories", quota.repositories.is_empty()),
                ("size", quota.size == 0),
            ];
            self.missing(&format!("quota[{i}]"), &missing);
        }
        if !config.registry.quotas.is_empty() && !config.registry.gc.enabled {
            self.warn(
                "quota",
                "what is deleted counts until garbage is collected, and `gc.enabled` is false",
            );
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
        // A list without rules lets nobody in, and is not the same as no list.
        if self.origins.contains_key("access") {
            config.auth.rules.get_or_insert_default();
        }
        if let Some(rules) = &config.auth.rules
            && let Err(errors) = Rules::parse(rules)
        {
            for error in errors {
                self.error(&error.key, error.text);
            }
        }
    }

    pub(super) fn missing(&mut self, section: &str, keys: &[(&str, bool)]) {
        for (name, _) in keys.iter().filter(|(_, missing)| *missing) {
            self.error(
                &format!("{section}.{name}"),
                format!("is missing: `{section}` needs it"),
            );
        }
    }

    fn upstream(&mut self, section: &str, upstream: &upstream::Settings) {
        if let Err(why) = check_url(&upstream.remote_url) {
            self.error(
                &format!("{section}.remoteurl"),
                format!("expected a URL as `https://registry-1.docker.io`, but {why}"),
            );
        }
        if upstream.exec_command.is_some() && upstream.username.is_some() {
            self.error(
                &format!("{section}.exec.command"),
                format!("cannot stand beside `{section}.username`; keep one of them"),
            );
        }
    }

    fn proxy_and_notifications(&mut self, config: &mut Config) {
        let proxy = &config.proxy;
        if !proxy.remote_url.is_empty() {
            self.upstream("proxy", proxy);
        }
        for (i, peer) in config.registry.scrub.peers.iter().enumerate() {
            self.upstream(&format!("scrub.peers[{i}]"), peer);
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
