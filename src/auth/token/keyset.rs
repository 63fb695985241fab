//! The keys that this registry's own tokens are signed with, in one file.
//!
//! A JSON Web Key Set with the private parts (RFC 8037), the newest key last. A new key takes over after [`AGE`]; tokens
//! signed with the ones before it stay good until as many newer ones have been made. They are counted rather than dated, so
//! that a clock that was wrong for an hour forgets none of them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::ErrorKind::{AlreadyExists, NotADirectory, NotFound};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{DecodingKey, EncodingKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde::{Deserialize, Serialize};

use super::key::ed25519_thumbprint;

/// Seconds that a key signs for: 90 days.
const AGE: i64 = 90 * 24 * 3600;
/// With the one that signs: more than a year, for which a refresh token is good.
const KEPT: usize = 6;

/// Why the keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysetError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{path} does not hold the keys of tokens, or was damaged: remove it for new ones, after which everybody has to log \
         in again"
    )]
    Damaged { path: PathBuf },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("the system has no random numbers")]
    Random,
}

#[derive(Default, Serialize, Deserialize)]
struct Document {
    keys: Vec<Jwk>,
}

/// An Ed25519 key as RFC 8037 has it. `d` is the secret.
#[derive(Clone, Serialize, Deserialize)]
struct Jwk {
    kty: String,
    crv: String,
    kid: String,
    /// When it was made, in seconds since 1970 by the clock of then.
    iat: i64,
    x: String,
    d: String,
}

pub(super) struct Keyset {
    keys: Vec<Key>,
    /// Whether they outlive the process.
    pub(super) is_saved: bool,
}

pub(super) struct Key {
    pub(super) id: String,
    pub(super) signing: EncodingKey,
    pub(super) verifying: DecodingKey,
    made: i64,
}

impl Keyset {
    /// Those of `path`; made there when there are none, and a new one added when the last is old at `now` (seconds since
    /// 1970).
    ///
    /// # Errors
    /// Those of the file. [`Keyset::in_memory`] is what is left then.
    pub(super) fn open(path: &Path, now: i64) -> Result<Self, KeysetError> {
        let mut document = read(path)?;
        // A key from the future was made while the clock was wrong; it is as good as any.
        let is_old = |key: &Jwk| now.saturating_sub(key.iat) > AGE;
        if document.keys.last().is_none_or(is_old) {
            document.keys.push(make(now)?);
            let surplus = document.keys.len().saturating_sub(KEPT);
            document.keys.drain(..surplus);
            write(path, &document)?;
        }
        let keys = document
            .keys
            .iter()
            .map(Key::of)
            .collect::<Option<Vec<_>>>();
        let keys = keys.filter(|keys| !keys.is_empty());
        Ok(Keyset {
            keys: keys.ok_or_else(|| KeysetError::Damaged {
                path: path.to_owned(),
            })?,
            is_saved: true,
        })
    }

    /// A key that ends with the process.
    ///
    /// # Errors
    /// No random numbers.
    pub(super) fn in_memory(now: i64) -> Result<Self, KeysetError> {
        let key = Key::of(&make(now)?).ok_or(KeysetError::Random)?;
        Ok(Keyset {
            keys: vec![key],
            is_saved: false,
        })
    }

    /// The one that signs.
    pub(super) fn newest(&self) -> Option<&Key> {
        self.keys.last()
    }

    pub(super) fn get(&self, id: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// Whether the newest key has signed for long enough.
    pub(super) fn is_old(&self, now: i64) -> bool {
        self.newest()
            .is_none_or(|key| now.saturating_sub(key.made) > AGE)
    }
}

impl Key {
    fn of(jwk: &Jwk) -> Option<Self> {
        let decoded = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).ok();
        let (seed, public) = (decoded(&jwk.d)?, decoded(&jwk.x)?);
        // Also says whether they belong together.
        Ed25519KeyPair::from_seed_and_public_key(&seed, &public).ok()?;
        Some(Key {
            id: jwk.kid.clone(),
            signing: EncodingKey::from_ed_der(&[seed, public.clone()].concat()),
            verifying: DecodingKey::from_ed_der(&public),
            made: jwk.iat,
        })
    }
}

fn make(now: i64) -> Result<Jwk, KeysetError> {
    let mut seed = [0; 32];
    SystemRandom::new()
        .fill(&mut seed)
        .map_err(|_| KeysetError::Random)?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| KeysetError::Random)?;
    let public = pair.public_key().as_ref();
    Ok(Jwk {
        kty: "OKP".to_owned(),
        crv: "Ed25519".to_owned(),
        kid: ed25519_thumbprint(public),
        iat: now,
        x: BASE64URL_NOPAD.encode(public),
        d: BASE64URL_NOPAD.encode(&seed),
    })
}

fn read(path: &Path) -> Result<Document, KeysetError> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|_| KeysetError::Damaged {
            path: path.to_owned(),
        }),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(Document::default()),
        Err(source) => Err(KeysetError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// All of it or nothing, and on the disk when this returns. Nobody but the owner reads it, at no moment. Only the last
/// folder is made: where the others are missing, the drive that they lie on has gone.
fn write(path: &Path, document: &Document) -> Result<(), KeysetError> {
    let failed = |source| KeysetError::Write {
        path: path.to_owned(),
        source,
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let temporary = path.with_extension(format!("tmp.{}", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| {
            serde_json::to_writer_pretty(&mut file, document).map_err(io::Error::from)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            File::open(folder)?.sync_all()
        });
    if written.is_err() {
        // What is left of an attempt must not keep the next one from being made.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tempfile::TempDir;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn newest(keyset: &Keyset) -> String {
        keyset.newest().unwrap().id.clone()
    }

    #[test]
    fn keys_are_made_once_and_for_nobody_else_to_read() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("auth/keys.json");
        let first = newest(&Keyset::open(&path, NOW).unwrap());
        assert_eq!(newest(&Keyset::open(&path, NOW + AGE).unwrap()), first);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_new_key_leaves_the_old_ones_good_for_a_year() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("keys.json");
        let mut ids = Vec::new();
        for time in 0..9 {
            let keyset = Keyset::open(&path, NOW + time * (AGE + 1)).unwrap();
            ids.push(newest(&keyset));
            for (back, id) in ids.iter().rev().enumerate() {
                assert_eq!(keyset.get(id).is_some(), back < KEPT, "{back}");
            }
        }
        ids.dedup();
        assert_eq!(ids.len(), 9);
        const { assert!((KEPT as i64 - 1) * AGE > 365 * 24 * 3600) };
    }

    #[test]
    fn a_clock_that_jumps_costs_one_key_at_most() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("keys.json");
        let first = newest(&Keyset::open(&path, NOW).unwrap());
        // Before the clock was set, and after somebody set it to 2050.
        assert_eq!(newest(&Keyset::open(&path, 100).unwrap()), first);
        let future = newest(&Keyset::open(&path, NOW + 30 * AGE).unwrap());
        for now in [100, NOW, NOW + AGE, NOW + 20 * AGE] {
            let keyset = Keyset::open(&path, now).unwrap();
            assert_eq!(newest(&keyset), future);
            assert!(keyset.get(&first).is_some() && !keyset.is_old(now));
        }
    }

    #[test]
    fn damage_is_told_and_never_replaced_by_a_new_key() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("keys.json");
        Keyset::open(&path, NOW).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        for bad in [
            "",
            "{}",
            "[]",
            &good[..good.len() / 2],
            &good.replace("\"d\": \"", "\"d\": \"A"),
        ] {
            fs::write(&path, bad).unwrap();
            let error = Keyset::open(&path, NOW).map(|_| ()).unwrap_err();
            assert!(
                matches!(error, KeysetError::Damaged { .. }),
                "{bad}: {error}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        }
    }
}
