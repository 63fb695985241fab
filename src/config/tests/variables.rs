//! `REGISTRY_*`, over a file and without one.

use super::{IMAGE_3, good, warnings, wrong};
use crate::config::Config;

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
