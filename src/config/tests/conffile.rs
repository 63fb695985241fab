//! `packaging/config.yml` against the table of keys.

use super::resolve;
use crate::config::Config;
use crate::config::key::{Key, Shape};
use crate::config::keys::ROOT;
use crate::config::lines::join;

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

const CONFFILE: &str = include_str!("../../../packaging/config.yml");

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
    // In words, since they stand in place of auth.htpasswd and of http.tls.certificate.
    paths.retain(|path| {
        !path.starts_with("auth.token.")
            && !path.starts_with("http.tls.letsencrypt.")
            && path != "proxy.exec.lifetime" // which is null
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
