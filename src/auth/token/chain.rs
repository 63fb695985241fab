//! Certificates that a token brings along (`x5c`, RFC 7515, 4.1.6), checked against `rootcertbundle`.

use std::time::Duration;

use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::TokenError;

/// A chain has the signer, two or three issuers, and seldom the root.
const MAX_LENGTH: usize = 8;

/// The certificates of `rootcertbundle`.
#[derive(Default)]
pub(super) struct Roots {
    certificates: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
}

impl Roots {
    /// One that can sign no other is still trusted by itself.
    pub(super) fn add(&mut self, certificate: CertificateDer<'static>) {
        if let Ok(anchor) = webpki::anchor_from_trusted_cert(&certificate) {
            self.anchors.push(anchor.to_owned());
        }
        self.certificates.push(certificate);
    }

    /// Whether the first of `chain` may sign tokens: it is one of these, or was issued by one of them by way of the others.
    /// As in distribution, it may have been made for any purpose. `now` is in seconds since 1970.
    pub(super) fn verify(&self, chain: &[Vec<u8>], now: i64) -> Result<(), TokenError> {
        let untrusted = |why: String| TokenError::Chain(why);
        let (leaf, issuers) = match chain.split_first() {
            Some(split) if chain.len() <= MAX_LENGTH => split,
            _ => return Err(untrusted(format!("it has {} certificates", chain.len()))),
        };
        if self.certificates.iter().any(|root| **root == **leaf) {
            let (_, leaf) = X509Certificate::from_der(leaf)
                .map_err(|_| untrusted("it cannot be read".to_owned()))?;
            let validity = leaf.validity();
            let is_valid =
                (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now);
            return match is_valid {
                true => Ok(()),
                false => Err(untrusted("its certificate is not valid now".to_owned())),
            };
        }
        let failed = |error: webpki::Error| untrusted(error.to_string());
        let leaf = CertificateDer::from(leaf.as_slice());
        let leaf = EndEntityCert::try_from(&leaf).map_err(failed)?;
        let issuers: Vec<CertificateDer<'_>> = issuers
            .iter()
            .map(|der| CertificateDer::from(der.as_slice()))
            .collect();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now.max(0).unsigned_abs()));
        leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &self.anchors,
            &issuers,
            now,
            AnyPurpose,
            None,
            None,
        )
        .map_err(failed)?;
        Ok(())
    }
}

struct AnyPurpose;

impl ExtendedKeyUsageValidator for AnyPurpose {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}
