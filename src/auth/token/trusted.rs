//! The keys of an external token server, from the files that `auth.token` names.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{DecodingKey, Header};

use super::TokenError;
use super::chain::Roots;
use super::key::{KeyError, NamedKey};
use crate::auth::settings::Token;

/// Why `auth.token` cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is no JSON Web Key Set")]
    Jwks {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("{path} is not in PEM")]
    Pem { path: PathBuf, source: io::Error },
    #[error(
        "no key that tokens could be checked with: `rootcertbundle` has to name a file of certificates in PEM, or `jwks` a \
         JSON Web Key Set, with an RSA, P-256, P-384 or Ed25519 key"
    )]
    NoKey,
}

/// Keys by their names, and the certificates that may vouch for others.
#[derive(Default)]
pub(super) struct TrustedKeys {
    keys: HashMap<String, DecodingKey>,
    roots: Roots,
}

impl TrustedKeys {
    pub(super) fn read(settings: &Token) -> Result<Self, SetupError> {
        let mut trusted = TrustedKeys::default();
        if let Some(path) = &settings.root_cert_bundle {
            trusted.add_certificates(path)?;
        }
        if let Some(path) = &settings.jwks {
            trusted.add_jwks(path)?;
        }
        if trusted.keys.is_empty() {
            return Err(SetupError::NoKey);
        }
        Ok(trusted)
    }

    fn add_certificates(&mut self, path: &Path) -> Result<(), SetupError> {
        let text = read(path)?;
        for (at, certificate) in rustls_pemfile::certs(&mut &text[..]).enumerate() {
            let certificate = certificate.map_err(|source| SetupError::Pem {
                path: path.to_owned(),
                source,
            })?;
            self.add(NamedKey::of_certificate(&certificate), path, at);
            self.roots.add(certificate);
        }
        Ok(())
    }

    fn add_jwks(&mut self, path: &Path) -> Result<(), SetupError> {
        let set: JwkSet =
            serde_json::from_slice(&read(path)?).map_err(|source| SetupError::Jwks {
                path: path.to_owned(),
                source,
            })?;
        for (at, jwk) in set.keys.iter().enumerate() {
            self.add(NamedKey::of_jwk(jwk), path, at);
        }
        Ok(())
    }

    /// One that is of no use does not keep the others from being used.
    fn add(&mut self, named: Result<NamedKey, KeyError>, path: &Path, at: usize) {
        match named {
            Ok(NamedKey { key, names }) => {
                self.keys
                    .extend(names.into_iter().map(|name| (name, key.clone())));
            }
            Err(error) => log::warn!(
                "auth.token: number {} of {} is left out: {error}",
                at + 1,
                path.display()
            ),
        }
    }

    /// The key that has to have signed a token with this header: distribution's order is `x5c`, `jwk`, `kid`. `now` is in
    /// seconds since 1970.
    ///
    /// # Errors
    /// None of them is trusted.
    pub(super) fn find(&self, header: &Header, now: i64) -> Result<DecodingKey, TokenError> {
        if let Some(chain) = header.x5c.as_ref().filter(|chain| !chain.is_empty()) {
            return self.of_chain(chain, now);
        }
        if let Some(jwk) = &header.jwk {
            return match &jwk.common.x509_chain {
                Some(chain) if !chain.is_empty() => self.of_chain(chain, now),
                _ => self.of_jwk(jwk),
            };
        }
        let name = header.kid.as_ref().ok_or(TokenError::NoKey)?;
        self.named(name)
    }

    fn of_chain(&self, chain: &[String], now: i64) -> Result<DecodingKey, TokenError> {
        let bad = |why: &str| TokenError::Chain(why.to_owned());
        let chain = chain
            .iter()
            .map(|text| BASE64.decode(text.as_bytes()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| bad("it is not in base64"))?;
        self.roots.verify(&chain, now)?;
        let leaf = chain.first().ok_or(TokenError::NoKey)?;
        let named = NamedKey::of_certificate(leaf).map_err(|error| bad(&error.to_string()))?;
        Ok(named.key)
    }

    /// A key in a token says which one it is, and is never used itself.
    fn of_jwk(&self, jwk: &Jwk) -> Result<DecodingKey, TokenError> {
        let named = NamedKey::of_jwk(jwk).map_err(|_| TokenError::NoKey)?;
        let known = named.names.iter().find_map(|name| self.keys.get(name));
        let name = || named.names.first().cloned().unwrap_or_default();
        known
            .cloned()
            .ok_or_else(|| TokenError::UntrustedKey(name()))
    }

    fn named(&self, name: &str) -> Result<DecodingKey, TokenError> {
        let known = self.keys.get(name).cloned();
        known.ok_or_else(|| TokenError::UntrustedKey(name.chars().take(100).collect()))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, SetupError> {
    fs::read(path).map_err(|source| SetupError::Read {
        path: path.to_owned(),
        source,
    })
}
