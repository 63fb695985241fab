//! What a certificate says.

use std::net::{IpAddr, Ipv6Addr};

use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::scope::Scope;
use crate::tls::names::Names;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Distinguished name, as `CN=...`.
    pub(crate) subject: String,
    /// Subject alternative names.
    pub(crate) names: Names,
    pub(crate) begins: OffsetDateTime,
    pub(crate) ends: OffsetDateTime,
    /// SHA-256 of the DER form, as browsers and openssl show it: `AB:CD:...`.
    pub(crate) fingerprint: String,
    /// What it may sign for, if it is a CA with constraints.
    pub(super) scope: Option<Scope>,
}

impl Facts {
    /// None for what is no certificate.
    pub(crate) fn of(der: &CertificateDer<'_>) -> Option<Facts> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let mut names = Names::default();
        let san = certificate.subject_alternative_name().ok().flatten();
        for name in san.iter().flat_map(|san| &san.value.general_names) {
            match name {
                GeneralName::DNSName(name) => {
                    names.add(name);
                }
                GeneralName::IPAddress(bytes) => {
                    let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                    let v6 = || <[u8; 16]>::try_from(*bytes).map(|v6| Ipv6Addr::from(v6).into());
                    if let Ok(address) = v4.or_else(|_| v6()) {
                        names.add_address(address);
                    }
                }
                _ => {}
            }
        }
        let validity = certificate.validity();
        Some(Facts {
            subject: certificate.subject().to_string(),
            names,
            begins: validity.not_before.to_datetime(),
            ends: validity.not_after.to_datetime(),
            fingerprint: colons(digest(&SHA256, der).as_ref()),
            scope: Scope::of_certificate(&certificate),
        })
    }
}

/// SHA-256 in hexadecimal digits, as `sha256sum` prints it.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let hash = digest(&SHA256, bytes);
    hash.as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn colons(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}
