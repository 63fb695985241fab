//! Making the CA's certificate, and the server's.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

use super::facts::sha256;
use super::scope::Scope;
use crate::tls::machine::Machine;
use crate::tls::names::Names;

const CA_LIFETIME: Duration = Duration::days(3650);
/// Apple's clients refuse server certificates that are valid for more than 825 days, and the past counts.
const LEAF_LIFETIME: Duration = Duration::days(455);
/// Both begin in the past, for clients whose clock is behind: a machine without a battery wakes up where its system was
/// built.
const BACKDATED: Duration = Duration::days(365);

/// A certificate and its private key, as PEM.
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// A CA for `machine` (ECDSA on P-256), that can sign for TLS servers within its scope and for nothing else.
pub(super) fn authority(machine: &Machine, now: OffsetDateTime) -> Result<Pair, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut ca = CertificateParams::default();
    // Two CAs of one machine, an old one and its successor, must not have the same name.
    let id = sha256(key.public_key_raw());
    let host = machine.hostname.as_deref().unwrap_or("localhost");
    ca.distinguished_name = called(&format!("registry CA of {host} {}", &id[..8]));
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    ca.name_constraints = Some(Scope::of_machine(&machine.names).constraints());
    (ca.not_before, ca.not_after) = (now - BACKDATED, now + CA_LIFETIME);
    let issuer = CertifiedIssuer::self_signed(ca, key)?;
    Ok(Pair {
        certificate: issuer.pem(),
        key: issuer.key().serialize_pem(),
    })
}

/// A server certificate for `names`, which the CA must be allowed to sign. It does not outlive the CA, which ends at
/// `ca_ends`.
pub(super) fn leaf(
    ca: &CertificateDer<'_>,
    ca_key: &str,
    ca_ends: OffsetDateTime,
    names: &Names,
    now: OffsetDateTime,
) -> Result<Pair, rcgen::Error> {
    let issuer = Issuer::from_ca_cert_der(ca, KeyPair::from_pem(ca_key)?)?;
    let mut leaf = CertificateParams::new(names.texts().collect::<Vec<_>>())?;
    // What old clients look at; the alternative names are what counts. At most 64 characters fit.
    let common = names.dns.first().filter(|name| name.len() <= 64);
    leaf.distinguished_name = called(common.map_or("localhost", String::as_str));
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    leaf.not_before = now - BACKDATED;
    leaf.not_after = (now + LEAF_LIFETIME).min(ca_ends);
    let key = KeyPair::generate()?;
    Ok(Pair {
        certificate: leaf.signed_by(&key, &issuer)?.pem(),
        key: key.serialize_pem(),
    })
}

fn called(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
