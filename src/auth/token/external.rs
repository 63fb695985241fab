//! `auth.token`: tokens of a server that somebody else runs, checked as CNCF distribution checks them.

use std::sync::Arc;

use jsonwebtoken::Algorithm;

use super::claims::Claims;
use super::crypto::{self, ACCEPTED};
use super::trusted::{SetupError, TrustedKeys};
use super::verified::Verified;
use super::{MAX_TOKEN, TokenError};
use crate::auth::settings::Token;

/// Checks tokens of one issuer for one service.
pub(crate) struct Verifier {
    issuer: String,
    service: String,
    algorithms: Vec<Algorithm>,
    keys: TrustedKeys,
    verified: Verified<Claims>,
}

impl Verifier {
    /// Reads the files of keys.
    ///
    /// # Errors
    /// A file that cannot be read, or no key in them.
    pub(crate) fn open(settings: &Token) -> Result<Self, SetupError> {
        crypto::install();
        let keys = TrustedKeys::read(settings)?;
        let is_chosen = |algorithm: &Algorithm| {
            let name = format!("{algorithm:?}");
            settings.signing_algorithms.is_empty() || settings.signing_algorithms.contains(&name)
        };
        Ok(Verifier {
            issuer: settings.issuer.clone(),
            service: settings.service.clone(),
            algorithms: ACCEPTED.into_iter().filter(is_chosen).collect(),
            keys,
            verified: Verified::new(),
        })
    }

    /// What `token` says, when it is this issuer's, meant for this service, and valid at `now` (seconds since 1970).
    ///
    /// # Errors
    /// Everything else.
    pub(crate) fn verify(&self, token: &str, now: i64) -> Result<Arc<Claims>, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLong);
        }
        let claims = self
            .verified
            .get_or(token, || self.verify_anew(token, now))?;
        claims.check_time(now)?;
        Ok(claims)
    }

    fn verify_anew(&self, token: &str, now: i64) -> Result<Claims, TokenError> {
        let header = super::header(token)?;
        let key = self.keys.find(&header, now)?;
        let claims: Claims = super::decode(token, &header, &key, &self.algorithms)?;
        claims.check_names(&self.issuer, &self.service)?;
        Ok(claims)
    }
}

#[cfg(test)]
mod tests;
