//! Links whose last flush failed: they can be seen, but nobody may be promised that they stay.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::storage::Key;

#[derive(Default)]
pub(super) struct Unsure(Mutex<HashSet<Key>>);

impl Unsure {
    fn keys(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.keys().contains(key)
    }

    pub(super) fn set(&self, key: &Key, unsure: bool) {
        let mut keys = self.keys();
        if unsure {
            keys.insert(key.clone());
        } else {
            keys.remove(key);
        }
    }
}
