//! Public keys that tokens are signed with, and the names that tokens call them by.

use data_encoding::{BASE32, BASE64URL_NOPAD};
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk};
use ring::digest::{SHA256, digest};
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::OID_SIG_ED25519;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;

/// A key, and every `kid` it is known by.
pub(super) struct NamedKey {
    pub(super) key: DecodingKey,
    pub(super) names: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeyError {
    #[error("it cannot be read")]
    Unreadable,
    #[error(
        "its key is of a kind that tokens are not checked with here: RSA, P-256, P-384 and Ed25519 are"
    )]
    Kind,
}

impl NamedKey {
    /// The key of a certificate. Distribution 2 calls it by libtrust's fingerprint, distribution 3 by the thumbprint of
    /// RFC 7638.
    pub(super) fn of_certificate(der: &[u8]) -> Result<Self, KeyError> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| KeyError::Unreadable)?;
        let info = certificate.public_key();
        let bits = &*info.subject_public_key.data;
        let (key, mut names) = if info.algorithm.algorithm == OID_SIG_ED25519 {
            (
                DecodingKey::from_ed_der(bits),
                vec![ed25519_thumbprint(bits)],
            )
        } else {
            match info.parsed().map_err(|_| KeyError::Unreadable)? {
                PublicKey::RSA(rsa) => {
                    let (n, e) = (without_zeros(rsa.modulus), without_zeros(rsa.exponent));
                    (
                        DecodingKey::from_rsa_raw_components(n, e),
                        vec![rsa_thumbprint(n, e)],
                    )
                }
                PublicKey::EC(point) => {
                    let point = point.data();
                    (
                        DecodingKey::from_ec_der(point),
                        ec_thumbprints(point).ok_or(KeyError::Kind)?,
                    )
                }
                _ => return Err(KeyError::Kind),
            }
        };
        names.push(libtrust_fingerprint(info.raw));
        names.dedup();
        Ok(NamedKey { key, names })
    }

    /// A key of a JSON Web Key Set. It is known by its own `kid` first.
    pub(super) fn of_jwk(jwk: &Jwk) -> Result<Self, KeyError> {
        let decoded = |text: &str| {
            BASE64URL_NOPAD
                .decode(text.as_bytes())
                .map_err(|_| KeyError::Unreadable)
        };
        let (key, thumbprints) = match &jwk.algorithm {
            AlgorithmParameters::RSA(rsa) => {
                let (n, e) = (decoded(&rsa.n)?, decoded(&rsa.e)?);
                let (n, e) = (without_zeros(&n), without_zeros(&e));
                (
                    DecodingKey::from_rsa_raw_components(n, e),
                    vec![rsa_thumbprint(n, e)],
                )
            }
            AlgorithmParameters::EllipticCurve(ec) => {
                let point = [vec![4], decoded(&ec.x)?, decoded(&ec.y)?].concat();
                let names = ec_thumbprints(&point).ok_or(KeyError::Kind)?;
                (DecodingKey::from_ec_der(&point), names)
            }
            AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => {
                let x = decoded(&okp.x)?;
                (DecodingKey::from_ed_der(&x), vec![ed25519_thumbprint(&x)])
            }
            _ => return Err(KeyError::Kind),
        };
        let names = jwk.common.key_id.iter().cloned().chain(thumbprints);
        Ok(NamedKey {
            key,
            names: names.filter(|name| !name.is_empty()).collect(),
        })
    }
}

/// RFC 7638 with SHA-256: the members in the order of their names, without spaces.
pub(super) fn ed25519_thumbprint(key: &[u8]) -> String {
    let x = BASE64URL_NOPAD.encode(key);
    thumbprint(&format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#))
}

fn rsa_thumbprint(n: &[u8], e: &[u8]) -> String {
    let (n, e) = (BASE64URL_NOPAD.encode(n), BASE64URL_NOPAD.encode(e));
    thumbprint(&format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#))
}

/// Of an uncompressed point. The second is distribution's: it leaves out zeros at the beginning of a coordinate, which
/// makes another name in one of 128 cases.
fn ec_thumbprints(point: &[u8]) -> Option<Vec<String>> {
    let curve = match point.len() {
        65 => "P-256",
        97 => "P-384",
        _ => return None,
    };
    let (4, coordinates) = point.split_first()? else {
        return None;
    };
    let (x, y) = coordinates.split_at(coordinates.len() / 2);
    let named = |x, y| {
        let (x, y) = (BASE64URL_NOPAD.encode(x), BASE64URL_NOPAD.encode(y));
        thumbprint(&format!(
            r#"{{"crv":"{curve}","kty":"EC","x":"{x}","y":"{y}"}}"#
        ))
    };
    let mut names = vec![named(x, y), named(without_zeros(x), without_zeros(y))];
    names.dedup();
    Some(names)
}

fn thumbprint(json: &str) -> String {
    BASE64URL_NOPAD.encode(digest(&SHA256, json.as_bytes()).as_ref())
}

/// libtrust's: 240 bits of the SHA-256 of the key as in a certificate, in twelve groups of base32.
fn libtrust_fingerprint(public_key_info: &[u8]) -> String {
    let hash = digest(&SHA256, public_key_info);
    let text = BASE32.encode(&hash.as_ref()[..30]);
    let mut name = String::with_capacity(60);
    for (at, c) in text.chars().enumerate() {
        if at > 0 && at % 4 == 0 {
            name.push(':');
        }
        name.push(c);
    }
    name
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|&&byte| byte == 0).count();
    &number[zeros..]
}
