//! Bearer tokens: those of an external server (`auth.token`) and those that this registry hands out itself.
//!
//! Docker's protocol: a request without a token is answered with where to get one, and for what (`WWW-Authenticate`); the
//! client asks there, with its password or without, and comes back with a JSON Web Token that lists what it may do.

mod chain;
mod claims;
mod crypto;
mod external;
mod issuer;
mod key;
mod keyset;
mod scope;
mod trusted;
mod verified;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde::de::DeserializeOwned;

pub(crate) use crypto::Signing;
pub(crate) use external::Verifier;
pub(crate) use issuer::{ACCESS_LIFETIME, Holder, Issuer, KeyFile, SERVICE, seconds_since_1970};
pub(crate) use keyset::KeysetError;
pub(crate) use scope::{ANY, CATALOG, REGISTRY, REPOSITORY, ResourceActions, Scopes};
pub(crate) use trusted::SetupError;

/// Longer ones are not looked at: with a chain of certificates a token has some 5 KiB.
const MAX_TOKEN: usize = 32 << 10;

/// Why a token is not accepted. For the log: a client is told `invalid_token` and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("it has more than {MAX_TOKEN} bytes")]
    TooLong,
    #[error("it is no JSON Web Token that can be read")]
    Malformed,
    #[error("its algorithm is not one that is accepted, or not its key's")]
    Algorithm,
    #[error("it needs an extension that is not known here")]
    Critical,
    #[error("it is a token for something else")]
    Kind,
    #[error("it does not say which key signed it")]
    NoKey,
    #[error("its key {0:?} is not trusted")]
    UntrustedKey(String),
    #[error("its certificates are not trusted: {0}")]
    Chain(String),
    #[error("its signature is wrong")]
    Signature,
    #[error("its issuer is {0:?}")]
    Issuer(String),
    #[error("it is meant for another service")]
    Audience,
    #[error("it has expired")]
    Expired,
    #[error("it is not valid yet")]
    NotYet,
    #[error("its holder has another password by now, or none")]
    Revoked,
}

fn header(token: &str) -> Result<Header, TokenError> {
    // An algorithm that is not known, such as `none`, cannot be read either.
    let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
    // RFC 7515, 4.1.11: what is critical and not understood makes it invalid.
    if header.crit.is_some() {
        return Err(TokenError::Critical);
    }
    Ok(header)
}

/// Checks algorithm and signature. Claims are the caller's to check.
fn decode<T: DeserializeOwned>(
    token: &str,
    header: &Header,
    key: &DecodingKey,
    accepted: &[Algorithm],
) -> Result<T, TokenError> {
    let mut validation = Validation::new(header.alg);
    // One that is not of the key's kind is refused even when it is accepted with others.
    validation.algorithms = accepted
        .iter()
        .copied()
        .filter(|algorithm| algorithm.family() == key.family())
        .collect();
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    match jsonwebtoken::decode(token, key, &validation) {
        Ok(data) => Ok(data.claims),
        Err(error) => Err(match error.kind() {
            ErrorKind::InvalidSignature => TokenError::Signature,
            ErrorKind::InvalidAlgorithm
            | ErrorKind::MissingAlgorithm
            | ErrorKind::InvalidKeyFormat => TokenError::Algorithm,
            _ => TokenError::Malformed,
        }),
    }
}
