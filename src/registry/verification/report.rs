//! What a check comes to, and how far the next one is: two small files that a start may find missing.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::finding::{Finding, Outcome};
use crate::oci::Algorithm;
use crate::registry::{Registry, Result};
use crate::storage::{Durability, Key};

/// Findings that are named; more are counted.
const NAMED: usize = 10_000;
/// A file of ours with more bytes than this is none.
const LIMIT: usize = 32 << 20;

/// What was looked at, and what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Report {
    /// Seconds since 1970.
    pub(crate) began: u64,
    pub(crate) ended: u64,
    /// Whether all content was read, and not only what leads to it.
    pub(crate) contents: bool,
    pub(crate) dry_run: bool,
    pub(crate) manifests: u64,
    /// Blobs that were read, and their bytes.
    pub(crate) blobs: u64,
    pub(crate) bytes: u64,
    /// Tags with all that they lead to, and tags without something of it.
    pub(crate) healthy: u64,
    pub(crate) unhealthy: u64,
    pub(crate) repositories: Vec<RepositoryHealth>,
    pub(crate) findings: Vec<Finding>,
    /// Further ones.
    pub(crate) unnamed: u64,
    /// How many of all findings are damage, how many of these were mended, and how many are debris.
    pub(crate) damage: u64,
    pub(crate) mended: u64,
    pub(crate) debris: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RepositoryHealth {
    pub(crate) repository: String,
    pub(crate) healthy: u64,
    pub(crate) unhealthy: u64,
}

/// How far the check of all content is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Progress {
    /// When all content was last known to be read, in seconds since 1970.
    pub(crate) last: Option<u64>,
    /// The check under way.
    pub(crate) under_way: Option<UnderWay>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UnderWay {
    pub(crate) began: u64,
    pub(crate) blobs: u64,
    pub(crate) bytes: u64,
    /// Shards of blobs that have been read, in the order of [`shards`].
    pub(crate) shards: usize,
}

impl UnderWay {
    /// How much of all content has been read.
    pub(crate) fn thousandths(&self) -> u64 {
        (self.shards * 1000 / shards().count()) as u64
    }
}

/// The folders that content is spread over, in the order in which they are read.
pub(super) fn shards() -> impl DoubleEndedIterator<Item = (Algorithm, u8)> {
    let below = |algorithm| (0..=255).map(move |first| (algorithm, first));
    Algorithm::ALL.into_iter().flat_map(below)
}

/// Seconds since 1970, by a clock that may be wrong.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

impl Report {
    pub(super) fn add(&mut self, finding: &Finding) {
        if finding.fault.is_debris() {
            self.debris += 1;
        } else {
            self.damage += 1;
            self.mended += u64::from(finding.outcome == Outcome::Mended);
        }
        if self.findings.len() < NAMED {
            self.findings.push(finding.clone());
        } else {
            self.unnamed += 1;
        }
    }

    pub(super) fn add_repository(&mut self, health: RepositoryHealth) {
        self.healthy += health.healthy;
        self.unhealthy += health.unhealthy;
        if self.repositories.len() < NAMED {
            self.repositories.push(health);
        }
    }
}

impl Registry {
    /// What the last check of the whole tree found; `None` if there was none yet.
    pub(crate) async fn last_report(&self) -> Result<Option<Report>> {
        let report: Option<Report> = self.read_json(&Key::VerifyReport).await?;
        if let Some(report) = &report {
            let open = report.damage.saturating_sub(report.mended);
            self.0.health.open.store(open, Relaxed);
        }
        Ok(report)
    }

    pub(super) async fn keep_report(&self, report: &Report) -> Result<()> {
        self.write_json(&Key::VerifyReport, report).await
    }

    /// How far the check of all content is, as far as it was written down.
    pub(crate) async fn verify_progress(&self) -> Result<Progress> {
        let progress: Progress = self.read_json(&Key::VerifyState).await?.unwrap_or_default();
        self.0
            .health
            .last
            .store(progress.last.unwrap_or(0), Relaxed);
        Ok(progress)
    }

    /// Notes how far it is: so seldom that it wears out no drive, since what is lost is only read again.
    pub(crate) async fn note_progress(&self, progress: &Progress) -> Result<()> {
        self.0
            .health
            .last
            .store(progress.last.unwrap_or(0), Relaxed);
        self.write_json(&Key::VerifyState, progress).await
    }

    /// What cannot be read is as if it were not there: it can be made again.
    async fn read_json<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<T>> {
        match self.store().get(key, LIMIT).await {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(e) if e.is_not_found() => Ok(None),
            Err(crate::storage::Error::TooLarge { .. }) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    async fn write_json(&self, key: &Key, value: &impl Serialize) -> Result<()> {
        self.writable()?;
        let bytes = serde_json::to_vec(value).unwrap_or_default();
        let put = self.store().put(key, bytes.into(), Durability::Durable);
        Ok(put.await?)
    }
}
