//! Any text at all.

use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};

use super::{good, resolve};

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
