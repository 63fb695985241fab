//! What `registry config explain` prints.

use super::{good, resolve, wrong};
use crate::config::Config;
use crate::http::settings::Plain;

#[test]
fn secrets_are_shown_nowhere() {
    let text = "http: {secret: hunter2}\n\
                proxy: {username: u, password: hunter2}\n\
                notifications: {endpoints: [{name: n, disabled: true, headers: {Authorization: [hunter2]}}]}\n\
                redis: {password: hunter2}\n";
    let config = good(text, &[("REGISTRY_REDIS_PASSWORD", "hunter2")]);
    let explained = config.explain();
    assert!(
        !explained.contains("hunter2") && !format!("{config:?}").contains("hunter2"),
        "{explained}"
    );
    assert!(
        explained.contains("secret: (set)") && explained.contains("password: (set)"),
        "{explained}"
    );
    for (text, key) in [
        ("http: {secret: {hunter2: 1}}", "http.secret"),
        (
            "proxy: {remoteurl: 'https://u:hunter2@a'}",
            "proxy.remoteurl",
        ),
        (
            "notifications: {endpoints: [{name: n, url: 'https://u:hunter2@a'}]}",
            "notifications.endpoints[0].url",
        ),
        (
            "notifications: {endpoints: [{headers: hunter2}]}",
            "notifications.endpoints[0].headers",
        ),
    ] {
        let err = wrong(text, &[]);
        assert!(err.contains(key) && !err.contains("hunter2"), "{err}");
    }
}

#[test]
fn what_is_explained_resolves_to_the_same() {
    let text = "
log: {level: debug, fields: {a b: 'c, d', e: '#'}, formatter: json}
loglevel: warn
auth: none
http:
  addr: [':5000', '[::1]:5001']
  headers: {X-A: ['a, b', ' c ', 'true'], X-B: ['12']}
  prefix: /a/b/
  plain: off
  net: tcp
  tls: {certificate: /c d, key: '/k: x', clientcas: [/a, '/b#c']}
  debug: {addr: 'localhost:1'}
storage: {filesystem: {rootdirectory: '/ä/\\u0007'}, minchunk: 5MiB, cache: {blobdescriptor: redis}}
health: {file: [{file: /a}, {file: /b, interval: 1ms}]}
validation: {manifests: {indexes: {platforms: list, platformlist: [{architecture: arm64, os: linux}]}, urls: {deny: ['^[a-z]{2,}$', '.*']}}}
notifications: {endpoints: [{name: n, disabled: true, ignore: {actions: [pull]}}]}
";
    let config = good(
        text,
        &[
            ("REGISTRY_HTTP_ADDR", "[':7000']"),
            ("REGISTRY_NONSENSE", "x"),
        ],
    );
    let explained = config.explain();
    let again = resolve(&explained, &[]).unwrap_or_else(|err| panic!("{err}\n{explained}"));
    let settings = |config: Config| Config {
        notices: Vec::new(),
        origins: Default::default(),
        ..config
    };
    assert_eq!(settings(again), settings(config.clone()), "{explained}");
    assert_eq!(config.http.plain, Plain::Off);
    for line in [
        "  level: debug",
        "# c.yml:3",
        "# REGISTRY_HTTP_ADDR",
        "# cache: has no effect",
        "# default",
    ] {
        assert!(explained.contains(line), "{line} in\n{explained}");
    }
    assert!(
        explained.contains("# warning: REGISTRY_NONSENSE: ignored"),
        "{explained}"
    );
}
