//! The hashes of passwords that are good enough: bcrypt and argon2id.

use argon2::password_hash::PasswordVerifier as _;
use argon2::password_hash::phc;
use argon2::{Argon2, Params};

/// A hash as it stands in an htpasswd file.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum PasswordHash {
    Bcrypt(Box<str>),
    Argon2id(Box<str>),
}

/// Costs beyond these would let one log-in keep a small machine busy for minutes, or take its memory.
const MAX_BCRYPT_COST: u32 = 17;
const MAX_ARGON2_KIB: u32 = 256 << 10;
const MAX_ARGON2_PASSES: u32 = 64;
/// Of new hashes. bcrypt, since CNCF distribution reads it too and the way back is to stay open; 2^10 rounds are 0.1 s of a
/// Raspberry Pi 4.
const COST: u32 = 10;
/// What bcrypt looks at of a password, in bytes.
pub(crate) const MAX_PASSWORD: usize = 72;

/// Why a hash is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HashError {
    #[error(
        "is hashed with {0}, which is too weak: set it again with `registry user passwd` or `htpasswd -B`"
    )]
    Weak(&'static str),
    #[error("has no hash that is known here: bcrypt ($2y$) and argon2id are")]
    Unknown,
    #[error("is hashed so expensively that each log-in would stop this machine")]
    Costly,
}

impl PasswordHash {
    pub(super) fn parse(text: &str) -> Result<Self, HashError> {
        let (_, scheme, rest) = match text.splitn(3, '$').collect::<Vec<_>>()[..] {
            ["", scheme, rest] => ("", scheme, rest),
            _ if text.starts_with("{SHA}") => return Err(HashError::Weak("SHA-1")),
            // 13 letters of DES crypt, or the password itself (`htpasswd -p`).
            _ => return Err(HashError::Weak("crypt, or not at all")),
        };
        match scheme {
            "2a" | "2b" | "2y" => {
                let parts: bcrypt::HashParts = text.parse().map_err(|_| HashError::Unknown)?;
                if parts.get_cost() > MAX_BCRYPT_COST {
                    return Err(HashError::Costly);
                }
                Ok(PasswordHash::Bcrypt(text.into()))
            }
            "argon2id" => {
                let hash = phc::PasswordHash::new(text).map_err(|_| HashError::Unknown)?;
                let params = Params::try_from(&hash).map_err(|_| HashError::Unknown)?;
                if hash.hash.is_none() || hash.salt.is_none() {
                    return Err(HashError::Unknown);
                }
                if params.m_cost() > MAX_ARGON2_KIB || params.t_cost() > MAX_ARGON2_PASSES {
                    return Err(HashError::Costly);
                }
                Ok(PasswordHash::Argon2id(text.into()))
            }
            "apr1" | "1" => Err(HashError::Weak("MD5")),
            "5" | "6" => Err(HashError::Weak("SHA-crypt")),
            "argon2i" | "argon2d" if !rest.is_empty() => Err(HashError::Weak(
                "a variant of argon2 that is not meant for passwords",
            )),
            _ => Err(HashError::Unknown),
        }
    }

    /// As it stands in the file.
    pub(super) fn as_str(&self) -> &str {
        match self {
            PasswordHash::Bcrypt(hash) | PasswordHash::Argon2id(hash) => hash,
        }
    }

    /// Takes some 0.1 s of one core, for whatever it says.
    pub(super) fn verify(&self, password: &[u8]) -> bool {
        match self {
            PasswordHash::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            PasswordHash::Argon2id(hash) => phc::PasswordHash::new(hash)
                .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok()),
        }
    }
}

/// A new hash, for an htpasswd file.
///
/// # Errors
/// A password that has no bytes, or more than [`MAX_PASSWORD`]; a system that has no randomness.
pub(crate) fn hash(password: &str) -> Result<String, &'static str> {
    if password.is_empty() {
        return Err("the password is empty");
    }
    if password.len() > MAX_PASSWORD {
        return Err("the password has more than 72 bytes, and bcrypt would not look at the rest");
    }
    let hash =
        bcrypt::hash_with_result(password, COST).map_err(|_| "the system gives no randomness")?;
    // The letters that Apache writes.
    Ok(hash.format_for_version(bcrypt::Version::TwoY))
}

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(set)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_htpasswd_and_argon2_write() {
        // `htpasswd -nbB -C 4 u secret` and `argon2 somesalt -id -t 1 -k 64 -p 1 -e`, both of `secret`.
        let new = bcrypt::hash("secret", 4).unwrap();
        for version in ["2a", "2b", "2y"] {
            let hash = PasswordHash::parse(&new.replacen("2b", version, 1)).unwrap();
            assert!(hash.verify(b"secret"), "{version}");
            assert!(!hash.verify(b"Secret"), "{version}");
        }
        use argon2::password_hash::CustomizedPasswordHasher as _;
        let params = Params::new(64, 1, 1, None).unwrap();
        let argon = Argon2::default()
            .hash_password_customized(b"secret", b"some salt", None, None, params)
            .unwrap()
            .to_string();
        assert!(argon.starts_with("$argon2id$"), "{argon}");
        let hash = PasswordHash::parse(&argon).unwrap();
        assert!(hash.verify(b"secret") && !hash.verify(b"other"));
        assert_eq!(format!("{hash:?}"), "(set)");
    }

    #[test]
    fn new_hashes_are_apaches() {
        let hash = hash("secret").unwrap();
        assert!(hash.starts_with("$2y$10$") && hash.len() == 60, "{hash}");
        assert!(PasswordHash::parse(&hash).unwrap().verify(b"secret"));
        assert!(super::hash("").is_err() && super::hash(&"a".repeat(73)).is_err());
    }

    #[test]
    fn refuses_the_weak_by_name() {
        for (text, error) in [
            (
                "$apr1$abcdefgh$0123456789abcdefghijkl",
                HashError::Weak("MD5"),
            ),
            ("$1$abcdefgh$0123456789abcdefghijkl", HashError::Weak("MD5")),
            (
                "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
                HashError::Weak("SHA-1"),
            ),
            ("$5$salt$hash", HashError::Weak("SHA-crypt")),
            ("$6$salt$hash", HashError::Weak("SHA-crypt")),
            ("rqXexS6ZhobKA", HashError::Weak("crypt, or not at all")),
            ("secret", HashError::Weak("crypt, or not at all")),
            ("", HashError::Weak("crypt, or not at all")),
            ("$2y$05$tooshort", HashError::Unknown),
            ("$2y$", HashError::Unknown),
            ("$y$j9T$x", HashError::Unknown),
            ("$argon2id$v=19$m=64,t=1,p=1", HashError::Unknown),
        ] {
            assert_eq!(PasswordHash::parse(text), Err(error), "{text}");
        }
        let costly = bcrypt::hash("a", 4).unwrap().replacen("$04$", "$31$", 1);
        assert_eq!(PasswordHash::parse(&costly), Err(HashError::Costly));
    }
}
