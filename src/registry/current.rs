//! The registry of now, where its storage can go away and come back.

use std::sync::{Arc, PoisonError, RwLock};

use super::{Error, Registry, Result};
use crate::storage::Away;

/// None while the storage is away, and another one each time it comes back: what was remembered of the storage goes with
/// the registry that remembered it. Cheap to clone; all clones change together.
#[derive(Clone)]
pub(crate) struct Current(Arc<RwLock<std::result::Result<Registry, Away>>>);

impl Current {
    pub(crate) fn new(now: std::result::Result<Registry, Away>) -> Self {
        Current(Arc::new(RwLock::new(now)))
    }

    /// To be asked for each piece of work: a registry must not be kept while nothing is done with it. `Away`.
    pub(crate) fn get(&self) -> Result<Registry> {
        let now = self.0.read().unwrap_or_else(PoisonError::into_inner);
        now.clone().map_err(Error::Away)
    }

    pub(crate) fn set(&self, now: std::result::Result<Registry, Away>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = now;
    }
}
