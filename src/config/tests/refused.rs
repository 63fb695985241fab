//! What this version cannot do, and what may be left in place all the same.

use super::{good, resolve, wrong};
use crate::config::Config;

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
    assert!(!tls.self_signed.enabled);
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
