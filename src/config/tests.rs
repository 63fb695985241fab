//! Whole configurations: text and variables in, `Config` or sentences out.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};

use super::key::{Importance, Key, Shape};
use super::keys::ROOT;
use super::lines::join;
use super::report::Report;
use super::{Config, ConfigErrors, file};
use crate::http::settings::{ClientAuth, Plain};

fn resolve(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let mut report = Report::default();
    let root = file::parse(&Arc::from("c.yml"), text, &mut report);
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::resolve(root, variables, report)
}

fn good(text: &str, variables: &[(&str, &str)]) -> Config {
    resolve(&format!("version: 0.1\n{text}"), variables).unwrap_or_else(|err| panic!("{err}"))
}

fn wrong(text: &str, variables: &[(&str, &str)]) -> String {
    match resolve(&format!("version: 0.1\n{text}"), variables) {
        Ok(_) => panic!("was taken: {text} {variables:?}"),
        Err(errors) => errors.to_string(),
    }
}

fn warnings(config: &Config) -> Vec<String> {
    let warnings = config
        .notices
        .iter()
        .filter(|notice| notice.importance == Importance::Warning);
    warnings.map(|notice| notice.about.to_string()).collect()
}

/// registry:2.8's, registry:3's and a development one of distribution, in its words.
const IMAGE_2: &str = "
log:
  fields:
    service: registry
storage:
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: /var/lib/registry
http:
  addr: :5000
  headers:
    X-Content-Type-Options: [nosniff]
health:
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
";

const IMAGE_3: &str = "
log:
  level: debug
  fields:
    service: registry
    environment: development
storage:
    delete:
      enabled: true
    cache:
        blobdescriptor: inmemory
    filesystem:
        rootdirectory: /var/lib/registry
    maintenance:
        uploadpurging:
            enabled: false
    tag:
      concurrencylimit: 5
http:
    addr: :5000
    debug:
        addr: :5001
        prometheus:
            enabled: true
            path: /metrics
    headers:
        X-Content-Type-Options: [nosniff]
health:
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
";

/// Debian's docker-registry, whose access control is refused until there is one.
const DEBIAN: &str = "
log:
  fields:
    service: registry
storage:
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: /var/lib/docker-registry
  delete:
    enabled: true
http:
  addr: :5000
  headers:
    X-Content-Type-Options: [nosniff]
auth:
  htpasswd:
    realm: basic-realm
    path: /etc/docker/registry
health:
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
";

#[test]
fn nothing_at_all_is_the_defaults() {
    let config = Config::load(None, std::iter::empty()).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(good("", &[]), Config::default());
    assert_eq!(
        good("http:\nstorage:\nauth:\n", &[]).http,
        Config::default().http
    );
}

#[test]
fn the_images_configurations_are_taken_as_they_are() {
    let two = good(IMAGE_2, &[]);
    assert_eq!(
        two.http.headers,
        [(
            "X-Content-Type-Options".to_owned(),
            vec!["nosniff".to_owned()]
        )]
    );
    assert_eq!(
        two.log.fields,
        [("service".to_owned(), "registry".to_owned())]
    );
    assert!(two.registry.delete_enabled, "our own default");
    let three = good(IMAGE_3, &[]);
    assert_eq!(three.http.debug.addr.as_deref(), Some(":5001"));
    assert!(!three.registry.purging.enabled);
    assert_eq!(three.log.level, log::LevelFilter::Debug);
    for config in [two, three] {
        assert_eq!(warnings(&config), [""; 0]);
    }
}

#[test]
fn debians_configuration_is_taken_with_its_access_control() {
    let config = good(DEBIAN, &[]);
    assert_eq!(warnings(&config), [""; 0]);
    let htpasswd = config.auth.htpasswd.unwrap();
    assert_eq!(htpasswd.realm, "basic-realm");
    assert_eq!(htpasswd.path.to_str(), Some("/etc/docker/registry"));
    assert_eq!(config.auth.rules, None);
}

#[test]
fn rules_are_read_in_their_order_and_refused_by_their_place() {
    let rules = good(
        "access:\n- {who: [alice, 'group:team'], from: 10.0.0.0/8, repositories: team/**, allow: [pull, push]}\n\
         - who: anyone\n  deny: all\n",
        &[],
    );
    let rules = rules.auth.rules.unwrap();
    assert_eq!(rules[0].who, ["alice", "group:team"]);
    assert_eq!(rules[0].repositories, ["team/**"]);
    assert_eq!(rules[1].deny, ["all"]);
    // An empty list lets nobody in, and no list is something else.
    assert_eq!(good("access: []", &[]).auth.rules, Some(Vec::new()));
    assert_eq!(good("access:", &[]).auth.rules, None);
    for (text, key) in [
        (
            "access: [{who: a, allow: read}]",
            "c.yml:2: access[0].allow: ",
        ),
        (
            "access:\n- {who: a, allow: pull}\n- {who: a, from: lan, allow: pull}",
            "c.yml:4: access[1].from: ",
        ),
        (
            "access: [{allow: pull}]",
            "c.yml:2: access[0].who: is missing",
        ),
        (
            "access: [{who: a, repos: b, allow: pull}]",
            "c.yml:2: access[0].repos: unknown key",
        ),
        (
            "http: {trustedproxies: 10.0.0.1/8}",
            "c.yml:2: http.trustedproxies: ",
        ),
    ] {
        let err = wrong(text, &[]);
        assert!(err.contains(key), "{text}: {err}");
    }
}

#[test]
fn every_error_is_told_at_once_with_its_line() {
    let err = wrong(
        "http:\n  tls:\n    certifcate: /a\n  adr: :1\nstorage:\n  delete: {enabled: maybe}\ncertificate: /x\nzzz: 1\n",
        &[("REGISTRY_HTTP_DRAINTIMEOUT", "soon")],
    );
    let lines: Vec<&str> = err.lines().collect();
    assert_eq!(lines.len(), 6, "{err}");
    assert_eq!(
        lines[0],
        "c.yml:4: http.tls.certifcate: unknown key; did you mean `certificate`?"
    );
    assert_eq!(
        lines[1],
        "c.yml:5: http.adr: unknown key; did you mean `addr`?"
    );
    assert_eq!(
        lines[2],
        "c.yml:7: storage.delete.enabled: expected true or false, found the text `maybe`"
    );
    assert_eq!(
        lines[3],
        "c.yml:8: certificate: unknown key; did you mean `http.tls.certificate`?"
    );
    assert!(
        lines[4].starts_with("c.yml:9: zzz: unknown key; known here: log, storage, http"),
        "{err}"
    );
    assert!(
        lines[5].starts_with("REGISTRY_HTTP_DRAINTIMEOUT: http.draintimeout: "),
        "{err}"
    );
}

#[test]
fn a_file_needs_its_version_and_only_that_one() {
    let sentence = |text: &str| resolve(text, &[]).unwrap_err().to_string();
    assert!(sentence("").contains("version: is missing"));
    assert!(sentence("http: {addr: ':1'}").contains("version: is missing"));
    assert_eq!(
        sentence("version: 2\n"),
        "c.yml:1: version: expected 0.1, the only version there is, found the number 2"
    );
    assert!(sentence("- a").contains("expected sections"));
    assert!(sentence("a: [").starts_with("c.yml:"));
    assert!(resolve("version: '0.1'", &[]).is_ok());
    let config = good("", &[("REGISTRY_VERSION", "0.2")]);
    assert_eq!(
        warnings(&config),
        ["REGISTRY_VERSION: ignored: the version of the file cannot be overridden"]
    );
}

#[test]
fn wrong_forms_name_what_was_expected_and_found() {
    for (text, expected) in [
        (
            "http: 5",
            "c.yml:2: http: expected a section with addr, net",
        ),
        (
            "http:\n  addr: {a: b}",
            "http.addr: expected a text, or a list of texts, found a section",
        ),
        (
            "http:\n  plain: sometimes",
            "expected one of off, loopback, pull, all, found the text `sometimes`",
        ),
        (
            "catalog: {maxentries: -1}",
            "expected a whole number, 0 or more, found the number -1",
        ),
        ("catalog: {maxentries: 1.5}", "found the number 1.5"),
        ("storage: {minchunk: 4M}", "`4M` lacks a known unit"),
        (
            "http: {draintimeout: 1.5}",
            "expected a duration as `168h`, `1h30m` or `10s`, found the number 1.5",
        ),
        (
            "http: {secret: [a, b]}",
            "http.secret: expected a text, found a list",
        ),
        (
            "storage: {maintenance: {readonly: true}}",
            "expected a section with enabled, found `true`",
        ),
        (
            "health: {file: {file: /x}}",
            "health.file: expected a list of sections, found a section",
        ),
        (
            "health: {file: [{interval: 1s}]}",
            "health.file[0].file: is missing",
        ),
        ("http: {addr: 5000}", "expected an address as `:5000`"),
        ("http: {addr: []}", "expected at least one address"),
        ("http: {net: unix}", "expected a path"),
        ("http: {host: registry.local}", "http.host: expected a URL"),
        ("http: {prefix: a/}", "http.prefix: expected a path"),
        (
            "http: {headers: {X-A: \"a\\nb\"}}",
            "http.headers.X-A: has a control character",
        ),
        ("http: {tls: {certificate: /c}}", "http.tls.key: is missing"),
        ("http: {tls: {key: /c}}", "http.tls.certificate: is missing"),
        (
            "http: {tls: {clientcas: [/c]}}",
            "http.tls.clientcas: needs `http.tls.certificate`",
        ),
        (
            "http: {tls: {certificate: /c, key: /k, clientauth: require-and-verify-client-cert}}",
            "needs `http.tls.clientcas`",
        ),
        (
            "http: {tls: {certificate: /c, key: /k, clientauth: yes-please}}",
            "expected one of request-client-cert",
        ),
        (
            "http: {tls: {certificate: /c, key: /k, ciphersuites: [TLS_AES_128_GCM_SHA257]}}",
            "did you mean `TLS_AES_128_GCM_SHA256`",
        ),
        (
            "http: {tls: {certificate: /c, key: /k, ciphersuites: [TLS_RSA_WITH_AES_128_CBC_SHA]}}",
            "none of them can be used",
        ),
        (
            "validation: {manifests: {urls: {allow: ['(']}}}",
            "`(` is no regular expression",
        ),
        (
            "validation: {manifests: {indexes: {platforms: list}}}",
            "platformlist: is missing",
        ),
        (
            "storage: {filesystem: {maxthreads: 0}}",
            "expected 1 or more",
        ),
        (
            "log: {level: loud}",
            "expected one of error, warn, info, debug, trace",
        ),
        ("log: !x y", "log: expected a section"),
    ] {
        let err = wrong(text, &[]);
        assert!(err.contains(expected), "{text}: {err}");
    }
}

#[test]
fn what_is_not_built_is_refused_with_a_way_out() {
    for (text, key, next) in [
        (
            "storage: s3",
            "storage.s3",
            "storage.filesystem.rootdirectory",
        ),
        (
            "storage: {s3: {bucket: b}}",
            "storage.s3",
            "storage.filesystem.rootdirectory",
        ),
        ("storage: {inmemory: }", "storage.inmemory", "tmpfs"),
        ("storage: {gcs: {bucket: b}}", "storage.gcs", "remove it"),
        (
            "middleware: {storage: [{name: cloudfront}]}",
            "middleware.storage",
            "remove it",
        ),
        (
            "auth: {silly: {realm: r, service: s}}",
            "auth.silly",
            "auth: none",
        ),
        (
            "http: {tls: {letsencrypt: {hosts: [a]}}}",
            "http.tls.letsencrypt",
            "certbot",
        ),
    ] {
        let err = wrong(text, &[]);
        assert!(
            err.contains(&format!("{key}: is not supported: ")) && err.contains(next),
            "{text}: {err}"
        );
    }
    // In a variable as well.
    for (name, value) in [
        ("REGISTRY_STORAGE", "s3"),
        ("REGISTRY_STORAGE_S3_BUCKET", "b"),
        ("REGISTRY_STORAGE_AZURE_ACCOUNT_NAME", "b"),
    ] {
        match resolve("version: 0.1", &[(name, value)]) {
            Ok(_) => panic!("{name}={value} was taken"),
            Err(errors) => assert!(
                errors.to_string().contains("is not supported"),
                "{name}: {errors}"
            ),
        }
    }
}

#[test]
fn an_access_control_that_does_not_exist_is_never_passed_over() {
    assert!(
        wrong("auth: htpaswd", &[]).contains("auth.htpaswd: unknown key; did you mean `htpasswd`?")
    );
    assert!(
        wrong("", &[("REGISTRY_AUTH", "ldap")]).contains("REGISTRY_AUTH: auth.ldap: unknown key")
    );
    assert!(wrong("", &[("REGISTRY_AUTH_LDAP_URL", "x")]).contains("auth.ldap: unknown key"));
    assert!(
        wrong("auth: {none: , token: }", &[])
            .contains("auth: only one can be used, found none, token")
    );
    assert!(
        wrong("", &[("REGISTRY_STORAGE_DELET_ENABLED", "false")]).contains("did you mean `delete`")
    );
    assert_eq!(good("auth: none", &[]).auth, Config::default().auth);
}

#[test]
fn an_inert_part_may_be_left_in_place() {
    good(
        "proxy: {remoteurl: ''}\nnotifications: {endpoints: [{name: a, disabled: true, url: x}]}\nmiddleware: {}\n",
        &[],
    );
    let config = good(
        "http: {tls: {certificate: /c, key: /k, minimumtls: tls1.0, letsencrypt: {email: a@b}, \
         ciphersuites: [TLS_RSA_WITH_AES_128_CBC_SHA, TLS_AES_128_GCM_SHA256]}}\n\
         health: {http: [], tcp: []}\nredis: {addrs: [a]}\npolicy: {repository: {classes: [image]}}\n",
        &[],
    );
    let tls = config.http.tls.clone().unwrap();
    assert_eq!(tls.cipher_suites, ["TLS_AES_128_GCM_SHA256"]);
    let warned: Vec<String> = config
        .notices
        .iter()
        .map(|notice| notice.about.key.clone())
        .collect();
    for key in [
        "http.tls.letsencrypt",
        "http.tls.ciphersuites",
        "http.tls.minimumtls",
        "redis",
        "policy",
    ] {
        assert!(
            warned.iter().any(|warned| warned == key),
            "{key} in {warned:?}"
        );
    }
}

#[test]
fn client_certificates_are_required_when_there_are_authorities() {
    let config = good(
        "http: {tls: {certificate: /c, key: /k, clientcas: /ca}}",
        &[],
    );
    assert_eq!(
        config.http.tls.unwrap().client_auth,
        Some(ClientAuth::RequireAndVerify)
    );
}

#[test]
fn loglevel_counts_while_there_is_no_log_level() {
    assert_eq!(
        good("loglevel: error", &[]).log.level,
        log::LevelFilter::Error
    );
    assert_eq!(
        good("log: {level: warn}\nloglevel: error", &[]).log.level,
        log::LevelFilter::Warn
    );
}

#[test]
fn a_bare_number_is_nanoseconds_and_that_is_said() {
    let config = good("http: {draintimeout: 30}", &[]);
    assert_eq!(config.http.drain_timeout, Duration::from_nanos(30));
    assert!(
        warnings(&config)[0].contains("write `30s`"),
        "{:?}",
        config.notices
    );
    assert_eq!(
        warnings(&good("http: {draintimeout: 30000000000}", &[])),
        [""; 0]
    );
}

#[test]
fn texts_are_what_was_written() {
    let config = good(
        "http:\n  secret: 0x10 # no number\n  host: https://a\nlog: {fields: {zip: 01234, on: 1.10}}",
        &[],
    );
    assert_eq!(config.http.secret.unwrap().expose(), "0x10");
    for (payload, secret) in [
        ("0123", "0123"),
        ("1e5", "1e5"),
        ("true", "true"),
        ("'quo ted'", "quo ted"),
        ("*star", "*star"),
        ("#hash", "#hash"),
        ("{a: b}", "{a: b}"),
        ("a: b", "a: b"),
        ("[x", "[x"),
    ] {
        let config = good("http: {secret: old}", &[("REGISTRY_HTTP_SECRET", payload)]);
        assert_eq!(config.http.secret.unwrap().expose(), secret, "{payload}");
    }
    assert_eq!(
        good("http: {secret: old}", &[("REGISTRY_HTTP_SECRET", "")])
            .http
            .secret,
        None
    );
}

#[test]
fn variables_override_by_distributions_rules() {
    let config = good(
        IMAGE_3,
        &[
            ("REGISTRY_HTTP_ADDR", ":6000"),
            ("REGISTRY_HTTP_TLS_CERTIFICATE", "/c"),
            ("REGISTRY_HTTP_TLS_KEY", "/k"),
            ("REGISTRY_HTTP_TLS_CLIENTCAS_0", "/ca0"),
            ("REGISTRY_HTTP_TLS_CLIENTCAS_1", "/ca1"),
            ("REGISTRY_HTTP_HEADERS_X-CONTENT-TYPE-OPTIONS", "[other]"),
            ("REGISTRY_HTTP_HEADERS_Access-Control-Allow-Origin", "['*']"),
            ("REGISTRY_HTTP_RELATIVEURLS", "true"),
            ("REGISTRY_STORAGE_DELETE_ENABLED", "false"),
            (
                "REGISTRY_STORAGE_MAINTENANCE_READONLY",
                "{\"enabled\": true}",
            ),
            ("REGISTRY_STORAGE_MAINTENANCE_UPLOADPURGING_ENABLED", "true"),
            ("REGISTRY_LOG_FIELDS_SITE", "attic"),
            ("REGISTRY_HEALTH_FILECHECKERS_0_FILE", "/down"),
            ("REGISTRY_HEALTH_FILE_1_FILE", "/down2"),
            (
                "REGISTRY_NOTIFICATIONS_EVENTCONFIG_INCLUDEREFERENCES",
                "true",
            ),
            ("REGISTRY_NOTIFICATIONS_ENDPOINTS_0_DISABLED", "true"),
            (
                "REGISTRY_NOTIFICATIONS_ENDPOINTS_0_HEADERS_Authorization_0",
                "Bearer x",
            ),
            ("REGISTRY_CATALOG_MAXENTRIES", "5"),
            ("OTHER_HTTP_ADDR", ":7000"),
        ],
    );
    assert_eq!(config.http.addr, [":6000"]);
    assert_eq!(config.http.tls.unwrap().client_cas.len(), 2);
    assert_eq!(config.http.headers.len(), 2);
    assert_eq!(config.http.headers[0].1, ["other"]);
    assert_eq!(config.http.headers[1].0, "access-control-allow-origin");
    assert!(
        config.http.relative_urls && !config.registry.delete_enabled && config.registry.read_only
    );
    assert!(config.registry.purging.enabled);
    assert_eq!(
        config.log.fields.last().unwrap(),
        &("site".to_owned(), "attic".to_owned())
    );
    assert_eq!(config.log.fields.len(), 3);
    assert_eq!(config.health.files.len(), 2);
    assert!(config.notifications.include_references);
    assert_eq!(
        config.notifications.endpoints[0].headers[0].1[0].expose(),
        "Bearer x"
    );
    assert_eq!(config.registry.catalog_max, 5);
    let trap = good(
        "",
        &[("REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED", "true")],
    );
    assert!(trap.registry.read_only);
}

#[test]
fn a_bare_word_chooses_a_storage_and_keeps_what_is_not_its_own() {
    let file = "storage:\n  filesystem: {rootdirectory: /old}\n  delete: {enabled: false}\n";
    let config = good(file, &[("REGISTRY_STORAGE", "filesystem")]);
    assert_eq!(
        config.storage.root.to_str(),
        Some("/var/lib/registry"),
        "parameters are empty"
    );
    assert!(!config.registry.delete_enabled);
    let config = good(
        "storage: {s3: {bucket: b}, delete: {enabled: false}}",
        &[
            ("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", "/new"),
            ("REGISTRY_STORAGE", "filesystem"),
        ],
    );
    assert_eq!(
        config.storage.root.to_str(),
        Some("/new"),
        "applied in the order of the names"
    );
    let config = good(
        "storage: filesystem",
        &[("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", "/new")],
    );
    assert_eq!(config.storage.root.to_str(), Some("/new"));
    assert!(
        good(file, &[("REGISTRY_STORAGE", "{filesystem: }")])
            .registry
            .delete_enabled,
        "a section replaces"
    );
}

#[test]
fn unknown_variables_are_warned_of_and_wrong_ones_are_errors() {
    let config = good(
        "",
        &[
            ("REGISTRY_PORT", "tcp://10.0.0.1:5000"),
            ("REGISTRY_PORT_5000_TCP_ADDR", "10.0.0.1"),
            ("REGISTRY_HTTP_ADRR", ":1"),
            ("REGISTRY_HTTP_ADDR_X", ":1"),
            ("REGISTRY_", "x"),
            ("REGISTRY_HTTP__ADDR", "x"),
            ("REGISTRY_STORAGE_DELETE_FOO", "x"),
            ("REGISTRY_STORAGE_FILESYSTEM", "{foo: bar}"),
        ],
    );
    assert_eq!(config.http, Config::default().http);
    let warnings = warnings(&config);
    assert_eq!(warnings.len(), 8, "{warnings:#?}");
    assert!(warnings.contains(
        &"REGISTRY_HTTP_ADRR: ignored: no key here is called `adrr`; did you mean `addr`?".into()
    ));
    assert!(wrong("", &[("REGISTRY_HTTP_TLS_CLIENTCAS_1", "/x")]).contains("leaves a gap"));
    assert!(wrong("", &[("REGISTRY_HEALTH_FILE_X_FILE", "/x")]).contains("`X` is no index"));
    assert!(
        wrong("", &[("REGISTRY_STORAGE_DELETE_ENABLED", "maybe")])
            .starts_with("REGISTRY_STORAGE_DELETE_ENABLED: ")
    );
}

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

/// The path of each setting of the table.
fn settings(keys: &'static [Key], base: &str, found: &mut Vec<String>) {
    for key in keys {
        let path = join(base, key.name);
        match &key.shape {
            Shape::Value(_) | Shape::Names(_) | Shape::Items { .. } if !key.old => found.push(path),
            Shape::Section(section) | Shape::Types { section, .. } => {
                settings(section.keys, &path, found)
            }
            _ => {}
        }
    }
}

const CONFFILE: &str = include_str!("../../packaging/config.yml");

#[test]
fn the_conffile_is_the_defaults_with_tls_and_access_control() {
    let mut config = resolve(CONFFILE, &[]).unwrap_or_else(|err| panic!("{err}"));
    let tls = config.http.tls.take().unwrap_or_default();
    assert!(tls.self_signed.enabled && tls.certificate.as_os_str().is_empty());
    assert!(config.auth.htpasswd.is_some() && config.auth.rules.is_some());
    assert_eq!(
        Config {
            origins: Default::default(),
            auth: Default::default(),
            ..config
        },
        Config::default()
    );
}

#[test]
fn the_conffile_has_every_setting_with_its_default() {
    let active: String = CONFFILE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with('#') => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let mut config = resolve(&active, &[]).unwrap_or_else(|err| panic!("{err}\n{active}"));
    // Both ways to a certificate are shown there.
    config.notices.retain(|notice| {
        !notice
            .to_string()
            .contains("http.tls.selfsigned: is not used")
    });
    assert_eq!(config.notices, []);
    let mut paths = Vec::new();
    settings(ROOT, "", &mut paths);
    // In words, since it stands in place of auth.htpasswd.
    paths.retain(|path| {
        !path.starts_with("auth.token.") && path != "proxy.exec.lifetime" // which is null
    });
    for path in &paths {
        assert!(config.origins.contains_key(path), "{path} is missing");
    }
    // The examples; everything else has to be what is used without it.
    config.http.host = None;
    config.http.secret = None;
    config.http.headers.clear();
    config.http.tls = None;
    config.http.debug.addr = None;
    config.proxy.remote_url.clear();
    (config.proxy.username, config.proxy.password) = (None, None);
    config.http.trusted_proxies.clear();
    config.auth = Default::default();
    assert_eq!(
        Config {
            origins: Default::default(),
            ..config
        },
        Config::default()
    );
    for section in ["auth.htpasswd", "auth.token"] {
        assert!(CONFFILE.contains(section), "{section}");
    }
}

#[test]
fn every_setting_can_be_named_by_a_variable() {
    let mut paths = Vec::new();
    settings(ROOT, "", &mut paths);
    assert!(paths.len() > 60, "{}", paths.len());
    for path in paths {
        let name = format!("REGISTRY_{}", path.to_uppercase().replace('.', "_"));
        match resolve("version: 0.1", &[(&name, "!nonsense {? [a] : b}")]) {
            // A text can be anything; otherwise a variable that arrives is an error here, one that does not a warning.
            Ok(config) => assert_eq!(
                config.origins[&path].to_string(),
                name,
                "{:?}",
                config.notices
            ),
            Err(errors) => assert!(
                errors.to_string().contains(&format!("{name}: ")),
                "{errors}"
            ),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in any::<String>(), value in any::<String>()) {
        let _ = resolve(&text, &[]);
        let _ = resolve("version: 0.1", &[("REGISTRY_HTTP", &value), ("REGISTRY_STORAGE", &value)]);
    }

    #[test]
    fn nor_does_what_looks_like_a_configuration(
        text in "(((  ){0,3}(- )?(http|tls|addr|log|fields|storage|filesystem|auth|none|file|health|x): ?(\\[|\\{|'|:5000|1s|true|\\|)?)\n){0,12}",
        name in "REGISTRY(_(HTTP|TLS|CLIENTCAS|HEALTH|FILE|HEADERS|X-A|STORAGE|AUTH|REDIS|LOG|FIELDS|[0-2]|[a-z])){1,5}",
        value in "[\\[\\]{}:, a1'\"#*&!|>-]{0,12}",
    ) {
        if let Ok(config) = resolve(&format!("version: 0.1\n{text}"), &[(&name, &value)]) {
            prop_assert!(resolve(&config.explain(), &[]).is_ok());
        }
    }

    #[test]
    fn a_variable_gives_what_the_file_would(seconds in 1u64..1_000_000, word in "[a-zA-Z0-9 :#,\\[\\]{}'\"*&!|>%@-]{1,20}") {
        let span = format!("{seconds}s");
        let by_variable = good("", &[("REGISTRY_HTTP_DRAINTIMEOUT", &span)]);
        let by_file = good(&format!("http: {{draintimeout: {span}}}"), &[]);
        prop_assert_eq!(by_variable.http, by_file.http);
        // Any text survives being printed and read.
        let quoted = serde_json::to_string(&word).unwrap_or_default();
        let config = good(&format!("storage: {{filesystem: {{rootdirectory: {quoted}}}}}"), &[]);
        let again = resolve(&config.explain(), &[]).unwrap_or_else(|err| panic!("{err}"));
        prop_assert_eq!(again.storage, config.storage);
    }
}
