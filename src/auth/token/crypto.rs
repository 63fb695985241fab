//! What `jsonwebtoken` signs and verifies with: ring, as everything else here. It brings two other libraries of its own,
//! and a place for a third.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{self, Signer, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::signature as with;

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    // JWKs are read, and never made, by it.
    key_utils: KeyUtils::new_unimplemented(),
};

/// Before the first token is signed or verified; as often as one likes.
pub(super) fn install() {
    // Fails when it is installed already.
    let _ = PROVIDER.install_default();
}

/// What is known of the names of algorithms (RFC 7518, 3.1; RFC 8037, 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signing {
    Accepted,
    /// With a secret that both sides know.
    Shared,
    Unsupported,
    Unknown,
}

impl Signing {
    pub(crate) const ACCEPTED: [&str; 9] = [
        "EdDSA", "ES256", "ES384", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
    ];

    pub(crate) fn of(name: &str) -> Self {
        match name {
            name if Self::ACCEPTED.contains(&name) => Signing::Accepted,
            "HS256" | "HS384" | "HS512" => Signing::Shared,
            "ES512" => Signing::Unsupported,
            _ => Signing::Unknown,
        }
    }
}

/// What external token servers may sign with. HMAC is not among them: whoever can check such a token can forge it, and
/// a public key taken for its secret is the oldest of attacks. ring has no P-521, so ES512 is not either.
pub(super) const ACCEPTED: [Algorithm; 9] = [
    Algorithm::EdDSA,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    let how = match algorithm {
        Algorithm::EdDSA => How::Key(&with::ED25519),
        Algorithm::ES256 => How::Key(&with::ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => How::Key(&with::ECDSA_P384_SHA384_FIXED),
        Algorithm::RS256 => How::Rsa(&with::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => How::Rsa(&with::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => How::Rsa(&with::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => How::Rsa(&with::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => How::Rsa(&with::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => How::Rsa(&with::RSA_PSS_2048_8192_SHA512),
        _ => return Err(ErrorKind::InvalidAlgorithm.into()),
    };
    if algorithm.family() != key.family() {
        return Err(ErrorKind::InvalidKeyFormat.into());
    }
    Ok(Box::new(Check {
        algorithm: *algorithm,
        how,
        key: key.clone(),
    }))
}

enum How {
    Key(&'static dyn with::VerificationAlgorithm),
    Rsa(&'static with::RsaParameters),
}

struct Check {
    algorithm: Algorithm,
    how: How,
    key: DecodingKey,
}

impl Verifier<Vec<u8>> for Check {
    fn verify(&self, message: &[u8], signed: &Vec<u8>) -> Result<(), signature::Error> {
        let verified = match (&self.how, self.key.kind()) {
            (How::Key(algorithm), DecodingKeyKind::SecretOrDer(key)) => {
                with::UnparsedPublicKey::new(*algorithm, key).verify(message, signed)
            }
            (How::Rsa(parameters), DecodingKeyKind::SecretOrDer(key)) => {
                with::UnparsedPublicKey::new(*parameters, key).verify(message, signed)
            }
            (How::Rsa(parameters), DecodingKeyKind::RsaModulusExponent { n, e }) => {
                with::RsaPublicKeyComponents { n, e }.verify(parameters, message, signed)
            }
            (How::Key(_), DecodingKeyKind::RsaModulusExponent { .. }) => {
                return Err(signature::Error::new());
            }
        };
        verified.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Check {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// Our own tokens are signed with Ed25519, and nothing else is signed here. The key is the seed, then the public key.
fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    if *algorithm != Algorithm::EdDSA {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    let invalid = || Error::from(ErrorKind::InvalidEddsaKey);
    let (seed, public) = key.as_bytes().split_at_checked(32).ok_or_else(invalid)?;
    let pair = with::Ed25519KeyPair::from_seed_and_public_key(seed, public);
    Ok(Box::new(Sign(pair.map_err(|_| invalid())?)))
}

struct Sign(with::Ed25519KeyPair);

impl Signer<Vec<u8>> for Sign {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        Ok(self.0.sign(message).as_ref().to_vec())
    }
}

impl JwtSigner for Sign {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_the_algorithms() {
        assert_eq!(ACCEPTED.map(|one| format!("{one:?}")), Signing::ACCEPTED);
    }
}
