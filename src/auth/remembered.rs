//! Credentials that were checked lately, so that each costs its hash once and not with every request.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use ring::hmac;
use ring::rand::SystemRandom;

use super::identity::Subject;

/// What is kept, at some 200 bytes each.
const REMEMBERED: usize = 4096;
/// How long a good password is not hashed again.
const GOOD_FOR: Duration = Duration::from_secs(600);
/// How long a bad one is not: what a machine with an old password sends again and again.
const BAD_FOR: Duration = Duration::from_secs(60);

/// Names and passwords lie here only under a key that is made at each start: nothing in this process's memory can be tried
/// out offline without it, and nobody outside can aim at its places.
#[derive(Debug)]
pub(super) struct Remembered {
    key: hmac::Key,
    entries: Mutex<LruCache<Fingerprint, Entry>>,
}

/// Of a name and a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint([u8; 32]);

#[derive(Debug)]
struct Entry {
    /// None: it was wrong.
    subject: Option<Subject>,
    until: Instant,
    generation: u64,
}

impl Remembered {
    pub(super) fn new() -> Result<Self, ring::error::Unspecified> {
        let capacity = NonZeroUsize::new(REMEMBERED).unwrap_or(NonZeroUsize::MIN);
        Ok(Remembered {
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())?,
            entries: Mutex::new(LruCache::new(capacity)),
        })
    }

    pub(super) fn fingerprint(&self, name: &str, password: &[u8]) -> Fingerprint {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&(name.len() as u64).to_le_bytes());
        context.update(name.as_bytes());
        context.update(password);
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(context.sign().as_ref());
        Fingerprint(fingerprint)
    }

    /// A number that is always the same for a name, and that nobody can work out.
    pub(super) fn number(&self, name: &str) -> u64 {
        let Fingerprint(bytes) = self.fingerprint(name, b"\0number");
        u64::from_le_bytes([
            bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7],
        ])
    }

    /// Who it was (`Some(None)`: nobody), if the files are still those of `generation`.
    pub(super) fn get(&self, of: &Fingerprint, generation: u64) -> Option<Option<Subject>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(of)?;
        if entry.generation != generation || entry.until <= Instant::now() {
            entries.pop(of);
            return None;
        }
        Some(entry.subject.clone())
    }

    pub(super) fn insert(&self, of: Fingerprint, generation: u64, subject: Option<Subject>) {
        let good_for = if subject.is_some() { GOOD_FOR } else { BAD_FOR };
        let entry = Entry {
            subject,
            until: Instant::now() + good_for,
            generation,
        };
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.put(of, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_goes_with_the_files() {
        let remembered = Remembered::new().unwrap();
        let of = remembered.fingerprint("alice", b"secret");
        assert_ne!(of, remembered.fingerprint("alices", b"ecret"));
        assert_ne!(
            of,
            Remembered::new().unwrap().fingerprint("alice", b"secret")
        );
        assert_eq!(remembered.get(&of, 1), None);
        remembered.insert(of, 1, Some(Subject::Anonymous));
        assert_eq!(remembered.get(&of, 1), Some(Some(Subject::Anonymous)));
        assert_eq!(remembered.get(&of, 2), None, "the files have changed");
        assert_eq!(remembered.get(&of, 1), None, "and it is forgotten");
    }

    #[test]
    fn wrong_ones_push_out_no_more_than_there_is_room_for() {
        let remembered = Remembered::new().unwrap();
        for n in 0..REMEMBERED as u64 * 2 {
            remembered.insert(remembered.fingerprint("alice", &n.to_le_bytes()), 1, None);
        }
        assert_eq!(remembered.entries.lock().unwrap().len(), REMEMBERED);
    }
}
