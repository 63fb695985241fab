//! The registry: repositories of manifests, tags and blobs, in the words of the distribution specification.
//!
//! The only module that holds a [`Store`], and the owner of every invariant:
//!
//! * **I1** A link is written after the data that it points to, and removed before it.
//! * **I2** `tags/<t>/current/link` is the one commit point of a tag: written after all that it stands for.
//! * **I3** (garbage collection) A blob is swept only if unmarked, older than the grace, not pinned, and locked by nobody.
//! * **I4** Every stored byte was hashed on the way in; nothing is hashed twice or read back to be verified. What an
//!   earlier process left is hashed once, on its first way out.
//! * **I5** A success that promises storage is answered only when a power cut at that moment would lose nothing of it.
//!
//! Whatever changes something runs as a task of its own: a client that goes away in the middle does not leave a change
//! half done behind a lock that is already free.

mod amount;
mod blobs;
mod catalog;
mod collection;
mod contents;
mod current;
mod error;
mod fill;
mod history;
mod locks;
mod manifests;
mod marks;
mod peers;
mod pins;
mod pressure;
mod pulls;
mod quota;
mod references;
mod referrers;
mod removal;
mod retention;
mod sessions;
pub(crate) mod settings;
mod survey;
mod sweep;
mod tags;
#[cfg(test)]
mod tests;
mod undo;
mod uploads;
mod verification;
mod verified;
mod walk;
mod writer;

use std::sync::Arc;

pub(crate) use amount::Amount;
pub(crate) use collection::{Collection, Removed, Report, Scope, Stepped};
pub(crate) use current::Current;
pub(crate) use error::{Error, Result};
pub(crate) use fill::{Expired, Mirror};
pub(crate) use history::{Change, What};
pub(crate) use manifests::{Condition, Deleted, IfMatch, Put, StoredManifest};
pub(crate) use removal::{Choice, Removals, Removing, Spared};
pub(crate) use retention::{Retention, Rule};
pub(crate) use settings::Settings;
pub(crate) use undo::{Past, State};
pub(crate) use verification::{
    Check, Checked, Finding, Mend, Outcome, Progress, Remedy, Report as HealthReport, UnderWay,
};
pub(crate) use writer::Writer;

use crate::oci::RepoName;
pub(crate) use crate::storage::UploadId;
use crate::storage::{Space, Store};
use crate::upstream::Upstream;

/// Everything a handler, a task or a command can ask for. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Registry(Arc<Inner>);

struct Inner {
    store: Box<dyn Store>,
    settings: Settings,
    urls: references::UrlRules,
    locks: locks::Locks,
    sessions: sessions::Sessions,
    verified: verified::Verified,
    /// The turn of whoever reads a large blob only to verify it.
    verifying: Arc<tokio::sync::Semaphore>,
    catalog: catalog::Catalog,
    tags: tags::TagLists,
    large_manifests: contents::LargeManifests,
    scanned: referrers::Scanned,
    health: verification::Health,
    pressure: pressure::Pressure,
    pins: pins::Pins,
    quotas: quota::Quotas,
    pulls: pulls::Noted,
    pushed: removal::Pushed,
    freed: std::sync::Mutex<collection::Freed>,
    collecting: Arc<tokio::sync::Mutex<()>>,
    /// Something was deleted.
    deleted: tokio::sync::Notify,
    marks: fill::Marks,
    mirror: Option<Mirror>,
    peers: Vec<Upstream>,
}

/// Other registries that content is fetched from.
#[derive(Default)]
pub(crate) struct Elsewhere {
    /// What is not here comes from there.
    pub(crate) mirror: Option<Mirror>,
    /// What was here and is damaged comes from there, from the first that has it.
    pub(crate) peers: Vec<Upstream>,
}

/// A part of a sorted list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// Whether something comes after the last of `items`.
    pub(crate) more: bool,
}

/// The repositories that whoever asks may know of.
#[derive(Clone, Copy)]
pub(crate) enum Shown<'a> {
    All,
    Only(&'a dyn Fn(&RepoName) -> bool),
}

impl Shown<'_> {
    fn contains(&self, name: &RepoName) -> bool {
        match self {
            Shown::All => true,
            Shown::Only(is_shown) => is_shown(name),
        }
    }
}

/// The configuration has a rule that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("validation.manifests.urls: {pattern:?} is not a regular expression: {reason}")]
pub(crate) struct SettingsError {
    pattern: String,
    reason: String,
}

impl Registry {
    /// One that has what it has.
    #[cfg(test)]
    pub(crate) fn new(store: impl Store, settings: Settings) -> Result<Self, SettingsError> {
        Self::among(store, settings, Elsewhere::default())
    }

    /// One that fetches what it does not have, and what is damaged, from `elsewhere`.
    pub(crate) fn among(
        store: impl Store,
        settings: Settings,
        elsewhere: Elsewhere,
    ) -> Result<Self, SettingsError> {
        Ok(Registry(Arc::new(Inner {
            store: Box::new(store),
            urls: references::UrlRules::new(&settings.manifests)?,
            pins: pins::Pins::new(settings.gc.grace),
            quotas: quota::Quotas::new(&settings.quotas),
            settings,
            locks: Default::default(),
            sessions: Default::default(),
            verified: Default::default(),
            verifying: Arc::new(tokio::sync::Semaphore::new(1)),
            catalog: Default::default(),
            tags: Default::default(),
            large_manifests: Default::default(),
            scanned: Default::default(),
            pulls: Default::default(),
            pushed: Default::default(),
            freed: Default::default(),
            health: Default::default(),
            pressure: Default::default(),
            collecting: Default::default(),
            deleted: Default::default(),
            marks: Default::default(),
            mirror: elsewhere.mirror,
            peers: elsewhere.peers,
        })))
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Whether the store works, right now. Reads a few bytes, and writes nothing.
    pub(crate) async fn probe(&self) -> Result<()> {
        Ok(self.0.store.probe().await?)
    }

    /// Room for content; `None` where the store does not know.
    pub(crate) async fn space(&self) -> Result<Option<Space>> {
        Ok(self.0.store.space().await?)
    }

    /// Waits until something has been deleted, unless it was since the last call: there may be space to get back.
    pub(crate) async fn deletion(&self) {
        self.0.deleted.notified().await;
    }

    /// Upload sessions this process knows of.
    pub(crate) fn open_uploads(&self) -> usize {
        self.0.sessions.len()
    }

    /// Whether changes are refused.
    pub(crate) fn is_read_only(&self) -> bool {
        self.0.settings.is_read_only()
    }

    /// Refuses changes from now on, or takes them again, until the process ends. Those under way come to their end.
    pub(crate) fn set_read_only(&self, to: bool) {
        self.0.settings.read_only_switch.set(to);
    }

    fn store(&self) -> &dyn Store {
        &*self.0.store
    }

    fn writable(&self) -> Result<()> {
        if self.is_read_only() {
            Err(Error::ReadOnly)
        } else {
            Ok(())
        }
    }

    fn deletable(&self) -> Result<()> {
        self.writable()?;
        if self.0.settings.delete_enabled {
            Ok(())
        } else {
            Err(Error::DeleteDisabled)
        }
    }
}

/// Runs a change to its end even if the caller goes away.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(work).await.unwrap_or(Err(Error::Aborted))
}
