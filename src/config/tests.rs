//! Whole configurations: text and variables in, `Config` or sentences out.

mod conffile;
mod explain;
mod properties;
mod refused;
mod variables;

use std::sync::Arc;
use std::time::Duration;

use super::key::Importance;
use super::report::Report;
use super::{Config, ConfigErrors, file};
use crate::http::settings::ClientAuth;

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
