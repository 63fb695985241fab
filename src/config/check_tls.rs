//! What the keys of `http.tls` say together.

use super::Config;
use super::check::Checker;
use crate::http::settings::ClientAuth;
use crate::tls::is_certificate_name;

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

pub(super) fn check(config: &mut Config, checker: &mut Checker<'_>) {
    let Some(tls) = &mut config.http.tls else {
        return;
    };
    let (certificate, key) = (
        !tls.certificate.as_os_str().is_empty(),
        !tls.key.as_os_str().is_empty(),
    );
    let lets_encrypt = checker.is_set("http.tls.letsencrypt");
    if lets_encrypt && !certificate && !key {
        // Whoever asks for it asks for TLS: plain HTTP would be less than that.
        tls.self_signed.enabled = true;
        let hosts = tls.lets_encrypt_hosts.drain(..);
        tls.self_signed.names.extend(hosts);
        checker.warn(
            "http.tls.letsencrypt",
            format!(
                "certificates are not fetched; one by this machine's own CA in {} is used, which clients come to trust by \
                 the line of `registry cert show`. For a public one, let an ACME client (certbot, lego) write the files that \
                 `http.tls.certificate` and `.key` name",
                tls.self_signed.directory.display()
            ),
        );
    } else if lets_encrypt {
        checker.warn(
            "http.tls.letsencrypt",
            "certificates are not fetched; `http.tls.certificate` and `.key` are what is used",
        );
    }
    match (certificate, key) {
        (true, true) if tls.self_signed.enabled => checker.note(
            "http.tls.selfsigned",
            "is not used: `http.tls.certificate` is there",
        ),
        (true, true) => {}
        (true, false) => checker.error(
            "http.tls.key",
            "is missing: `http.tls.certificate` needs its private key",
        ),
        (false, true) => checker.error(
            "http.tls.certificate",
            "is missing: `http.tls.key` needs its certificate",
        ),
        (false, false) if tls.self_signed.enabled => {}
        (false, false) => {
            // They say who may connect: plain HTTP would let in everybody.
            for (name, set) in [
                ("clientcas", !tls.client_cas.is_empty()),
                ("clientauth", tls.client_auth.is_some()),
            ] {
                if set {
                    let key = format!("http.tls.{name}");
                    checker.error(&key, "needs `http.tls.certificate` and `http.tls.key`: without them there is no TLS");
                }
            }
        }
    }
    let verifies = matches!(
        tls.client_auth,
        Some(ClientAuth::VerifyIfGiven | ClientAuth::RequireAndVerify)
    );
    if verifies && tls.client_cas.is_empty() {
        checker.error(
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
            checker.warn(
                "http.tls.ciphersuites",
                format!("`{name}` is left out: it is not secure"),
            );
        } else {
            let text = format!(
                "`{}` is unknown{}",
                name.escape_debug(),
                near(&name, &CIPHER_SUITES)
            );
            checker.error("http.tls.ciphersuites", text);
        }
    }
    if asked > 0 && tls.cipher_suites.is_empty() {
        let text = format!(
            "none of them can be used; choose from {}",
            CIPHER_SUITES.join(", ")
        );
        checker.error("http.tls.ciphersuites", text);
    }
    for name in &tls.self_signed.names {
        if !is_certificate_name(name) {
            let found = name.escape_debug();
            checker.error(
                "http.tls.selfsigned.names",
                format!("expected names as `pi.example.com` and addresses as `192.168.1.5`, found `{found}`"),
            );
        }
    }
    if !tls.self_signed.directory.is_absolute() {
        checker.error(
            "http.tls.selfsigned.directory",
            "expected an absolute path as `/etc/registry/tls`",
        );
    }
    if !certificate && !key && !tls.self_signed.enabled {
        config.http.tls = None;
    }
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
