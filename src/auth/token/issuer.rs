//! Tokens of our own: short ones for requests, and the long ones that `docker login` keeps in place of a password.
//!
//! A token says who asked and for what, and never decides by itself: at each use the one who asked is looked up again and
//! the rules are asked again, with the address of that moment. So a changed rule, a removed user and a stolen token that is
//! used from elsewhere need no list of revoked tokens. What ends all tokens of a credential is a change of the credential
//! itself, which they carry a fingerprint of.
//!
//! # Clocks
//! A Raspberry Pi has no battery for its clock: it begins somewhere in the past, and jumps when the network comes. The age
//! of a token that this process handed out is therefore measured by the clock that only ever runs forward; the wall clock is
//! asked about tokens from before a restart alone. Clients are told for how long a token is good, and not when it was made,
//! so that their clock does not have to agree with this one. A refresh token has an end and no beginning.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, Header};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::causes::WithCauses;

use super::claims::LEEWAY;
use super::crypto;
use super::keyset::{Keyset, KeysetError};
use super::scope::Scopes;
use super::verified::Verified;
use super::{MAX_TOKEN, TokenError};

/// `service` of the challenge and `aud` of the tokens. One name for all, since each registry has keys of its own, and a
/// name that follows the host would make another service of each way to reach it.
pub(crate) const SERVICE: &str = "registry";
const ISSUER: &str = "registry";

/// How long a token is good: clients ask for another one with each command anyway, and before it ends (docker wants a
/// minute at least).
pub(crate) const ACCESS_LIFETIME: Duration = Duration::from_secs(300);
/// How long one stays logged in.
const REFRESH_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// `typ` (RFC 9068, and one like it): one can never stand for the other.
const ACCESS: &str = "at+jwt";
const REFRESH: &str = "refresh+jwt";

/// Who asked for a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    /// As they log in; empty for anonymous.
    #[serde(rename = "sub")]
    pub(crate) name: String,
    /// Of the credential: another password, another fingerprint.
    pub(crate) fingerprint: String,
}

/// A token for requests, verified.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AccessToken {
    #[serde(flatten)]
    pub(crate) holder: Holder,
    pub(crate) access: Scopes,
    iss: String,
    aud: String,
    iat: i64,
    exp: i64,
    /// The process that made it, and how long it had run then.
    run: String,
    uptime: i64,
}

#[derive(Serialize, Deserialize)]
struct RefreshToken {
    #[serde(flatten)]
    holder: Holder,
    iss: String,
    aud: String,
    exp: i64,
}

/// A moment by both clocks, in seconds: since 1970, and since the start of this process.
#[derive(Clone, Copy, Debug)]
struct Moment {
    wall: i64,
    uptime: i64,
}

/// The file of the keys of our own tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyFile<'a> {
    pub(crate) path: &'a Path,
    /// Not while the drive that it lies on is away: the file is looked for later then.
    pub(crate) is_reachable: bool,
}

pub(crate) struct Issuer {
    /// None when the keys end with the process.
    path: Option<PathBuf>,
    keys: RwLock<Arc<Keyset>>,
    verified: Verified<AccessToken>,
    run: String,
    started: Instant,
}

impl Issuer {
    /// With the keys in the file at `file`, which are made there when there are none. Where no file can be made, one
    /// signs with a key that ends with this process, and says so.
    ///
    /// # Errors
    /// A file of keys that cannot be read.
    pub(crate) fn open(file: KeyFile<'_>) -> Result<Self, KeysetError> {
        crypto::install();
        let now = seconds_since_1970();
        let path = file.path;
        let found = file.is_reachable.then(|| Keyset::open(path, now));
        let (keys, path) = match found.unwrap_or_else(|| Keyset::in_memory(now)) {
            Ok(keys) => (keys, Some(path.to_owned())),
            Err(error @ KeysetError::Write { .. }) => {
                log::warn!("{}: log-ins end when the registry does", WithCauses(&error));
                (Keyset::in_memory(now)?, None)
            }
            Err(error) => return Err(error),
        };
        Ok(Issuer {
            path,
            keys: RwLock::new(Arc::new(keys)),
            verified: Verified::new(),
            run: Uuid::new_v4().to_string(),
            started: Instant::now(),
        })
    }

    /// Reads the file of keys again, and adds a key when the last one has signed for long enough. Those that it does not
    /// hold any more are forgotten, with everything that they signed.
    ///
    /// # Errors
    /// Those of the file; the keys of before stay in use.
    pub(crate) fn reload(&self) -> Result<(), KeysetError> {
        if let Some(path) = &self.path {
            let keys = Keyset::open(path, seconds_since_1970())?;
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
            self.verified.forget();
        }
        Ok(())
    }

    /// Whether it is time for another key: [`Issuer::reload`] makes it.
    pub(crate) fn wants_key(&self) -> bool {
        let keys = self.keys();
        self.path.is_some() && (!keys.is_saved || keys.is_old(seconds_since_1970()))
    }

    /// A token for requests, good for [`ACCESS_LIFETIME`].
    ///
    /// # Errors
    /// Nothing that a caller could do anything about.
    pub(crate) fn access_token(
        &self,
        holder: Holder,
        access: Scopes,
    ) -> Result<String, TokenError> {
        self.access_token_at(self.now(), holder, access)
    }

    /// A token to get others with.
    ///
    /// # Errors
    /// As before.
    pub(crate) fn refresh_token(&self, holder: Holder) -> Result<String, TokenError> {
        self.refresh_token_at(self.now(), holder)
    }

    /// What a token for requests says.
    ///
    /// # Errors
    /// It is none of ours, or has expired.
    pub(crate) fn verify(&self, token: &str) -> Result<Arc<AccessToken>, TokenError> {
        self.verify_at(self.now(), token)
    }

    /// Who got a refresh token.
    ///
    /// # Errors
    /// It is none of ours, or has expired.
    pub(crate) fn verify_refresh(&self, token: &str) -> Result<Holder, TokenError> {
        self.verify_refresh_at(self.now(), token)
    }

    fn access_token_at(
        &self,
        now: Moment,
        holder: Holder,
        access: Scopes,
    ) -> Result<String, TokenError> {
        let claims = AccessToken {
            holder,
            access,
            iss: ISSUER.to_owned(),
            aud: SERVICE.to_owned(),
            iat: now.wall,
            exp: now.wall + seconds(ACCESS_LIFETIME),
            run: self.run.clone(),
            uptime: now.uptime,
        };
        self.sign(ACCESS, &claims)
    }

    fn refresh_token_at(&self, now: Moment, holder: Holder) -> Result<String, TokenError> {
        let claims = RefreshToken {
            holder,
            iss: ISSUER.to_owned(),
            aud: SERVICE.to_owned(),
            exp: now.wall + seconds(REFRESH_LIFETIME),
        };
        self.sign(REFRESH, &claims)
    }

    fn verify_at(&self, now: Moment, token: &str) -> Result<Arc<AccessToken>, TokenError> {
        let token = self
            .verified
            .get_or(token, || self.decode::<AccessToken>(ACCESS, token))?;
        if token.run == self.run {
            // This clock does not jump.
            let age = now.uptime - token.uptime;
            return match age <= seconds(ACCESS_LIFETIME) + LEEWAY {
                true => Ok(token),
                false => Err(TokenError::Expired),
            };
        }
        if now.wall > token.exp + LEEWAY {
            return Err(TokenError::Expired);
        }
        if now.wall < token.iat - LEEWAY {
            return Err(TokenError::NotYet);
        }
        Ok(token)
    }

    fn verify_refresh_at(&self, now: Moment, token: &str) -> Result<Holder, TokenError> {
        let token: RefreshToken = self.decode(REFRESH, token)?;
        if now.wall > token.exp {
            return Err(TokenError::Expired);
        }
        Ok(token.holder)
    }

    fn sign<T: Serialize>(&self, kind: &str, claims: &T) -> Result<String, TokenError> {
        let keys = self.keys();
        let key = keys.newest().ok_or(TokenError::NoKey)?;
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(kind.to_owned());
        header.kid = Some(key.id.clone());
        jsonwebtoken::encode(&header, claims, &key.signing).map_err(|_| TokenError::Algorithm)
    }

    fn decode<T: for<'a> Deserialize<'a>>(&self, kind: &str, token: &str) -> Result<T, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLong);
        }
        let header = super::header(token)?;
        if header.typ.as_deref() != Some(kind) {
            return Err(TokenError::Kind);
        }
        let id = header.kid.as_deref().ok_or(TokenError::NoKey)?;
        let keys = self.keys();
        let key = keys
            .get(id)
            .ok_or_else(|| TokenError::UntrustedKey(id.chars().take(100).collect()))?;
        // No other key than ours signs, so issuer and audience are what we wrote.
        super::decode(token, &header, &key.verifying, &[Algorithm::EdDSA])
    }

    fn keys(&self) -> Arc<Keyset> {
        self.keys
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn now(&self) -> Moment {
        Moment {
            wall: seconds_since_1970(),
            uptime: seconds(self.started.elapsed()),
        }
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// By the wall clock; 0 before 1970.
pub(crate) fn seconds_since_1970() -> i64 {
    seconds(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const YEAR: i64 = 365 * 24 * 3600;

    fn issuer(dir: &TempDir) -> Issuer {
        Issuer::open(KeyFile {
            path: &dir.path().join("auth/keys.json"),
            is_reachable: true,
        })
        .unwrap()
    }

    fn alice() -> Holder {
        Holder {
            name: "alice".to_owned(),
            fingerprint: "f1".to_owned(),
        }
    }

    fn at(wall: i64, uptime: i64) -> Moment {
        Moment { wall, uptime }
    }

    #[test]
    fn a_token_says_what_it_was_made_with_and_is_no_refresh_token() {
        let dir = TempDir::new().unwrap();
        let issuer = issuer(&dir);
        let access = Scopes::parse(["repository:a:pull registry:catalog:*"]);
        let token = issuer.access_token(alice(), access.clone()).unwrap();
        for _ in 0..2 {
            let verified = issuer.verify(&token).unwrap();
            assert_eq!((&verified.holder, &verified.access), (&alice(), &access));
        }
        assert_eq!(issuer.verify_refresh(&token), Err(TokenError::Kind));
        let refresh = issuer.refresh_token(alice()).unwrap();
        assert_eq!(issuer.verify_refresh(&refresh), Ok(alice()));
        assert_eq!(issuer.verify(&refresh).unwrap_err(), TokenError::Kind);
    }

    #[test]
    fn a_clock_that_jumps_ends_no_token_of_this_process() {
        let dir = TempDir::new().unwrap();
        let issuer = issuer(&dir);
        let now = 1_800_000_000;
        let token = issuer
            .access_token_at(at(now, 10), alice(), Scopes::default())
            .unwrap();
        for wall in [0, now - YEAR, now, now + YEAR, now + 30 * YEAR] {
            assert!(issuer.verify_at(at(wall, 10), &token).is_ok());
            assert!(issuer.verify_at(at(wall, 370), &token).is_ok());
            assert_eq!(
                issuer.verify_at(at(wall, 371), &token),
                Err(TokenError::Expired)
            );
        }
    }

    #[test]
    fn after_a_restart_the_wall_clock_decides() {
        let dir = TempDir::new().unwrap();
        let now = 1_800_000_000;
        let token = issuer(&dir)
            .access_token_at(at(now, 500), alice(), Scopes::default())
            .unwrap();
        let next = issuer(&dir);
        assert!(next.verify_at(at(now + 360, 0), &token).is_ok());
        assert_eq!(
            next.verify_at(at(now + 361, 0), &token),
            Err(TokenError::Expired)
        );
        assert_eq!(
            next.verify_at(at(now - 61, 0), &token),
            Err(TokenError::NotYet)
        );
    }

    #[test]
    fn one_stays_logged_in_for_a_year_whatever_the_clock_was_before() {
        let dir = TempDir::new().unwrap();
        let now = 1_800_000_000;
        let token = issuer(&dir).refresh_token_at(at(now, 0), alice()).unwrap();
        let next = issuer(&dir);
        for wall in [0, now - YEAR, now, now + YEAR] {
            assert_eq!(next.verify_refresh_at(at(wall, 0), &token), Ok(alice()));
        }
        assert_eq!(
            next.verify_refresh_at(at(now + YEAR + 1, 0), &token),
            Err(TokenError::Expired)
        );
    }

    #[test]
    fn what_another_registry_signed_is_nothing() {
        let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let (here, there) = (issuer(&here), issuer(&there));
        let token = there.access_token(alice(), Scopes::default()).unwrap();
        assert!(matches!(
            here.verify(&token),
            Err(TokenError::UntrustedKey(_))
        ));
        assert!(matches!(
            here.verify_refresh(&there.refresh_token(alice()).unwrap()),
            Err(TokenError::UntrustedKey(_))
        ));
    }

    #[test]
    fn without_its_key_nothing_that_it_signed_is_good() {
        let dir = TempDir::new().unwrap();
        let issuer = issuer(&dir);
        let token = issuer.access_token(alice(), Scopes::default()).unwrap();
        issuer.reload().unwrap();
        assert!(issuer.verify(&token).is_ok());
        std::fs::remove_file(dir.path().join("auth/keys.json")).unwrap();
        issuer.reload().unwrap();
        assert!(matches!(
            issuer.verify(&token),
            Err(TokenError::UntrustedKey(_))
        ));
    }

    #[test]
    fn where_no_file_can_be_made_a_key_of_the_process_will_do() {
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("auth"), "in the way").unwrap();
        let issuer = issuer(&dir);
        let token = issuer.access_token(alice(), Scopes::default()).unwrap();
        issuer.reload().unwrap();
        assert!(issuer.verify(&token).is_ok());
    }
}
