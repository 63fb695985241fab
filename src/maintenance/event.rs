//! What is told to whoever watches a task. Commands get it as lines of JSON (`control`).

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::Sender;

use crate::registry::{Finding, HealthReport, Removed, Report, UnderWay};

/// Tells the event, if there is one. False when nobody listens any more.
pub(super) async fn tell(events: &Sender<Event>, event: Option<Event>) -> bool {
    match event {
        Some(event) => events.send(event).await.is_ok(),
        None => !events.is_closed(),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum Event {
    /// What has been looked at until now.
    Progress {
        repositories: u64,
        manifests: u64,
        blobs: u64,
        bytes: u64,
    },
    /// A blob was removed, or would be.
    Blob {
        digest: String,
        bytes: u64,
    },
    Manifest {
        repository: String,
        digest: String,
    },
    /// A repository had nothing left.
    Repository {
        repository: String,
    },
    /// Nothing was removed, since nothing may be for as long as this.
    Early {
        seconds: u64,
    },
    Collected(Collected),
    /// It goes on.
    Looking,
    /// A tag was removed, or would be.
    Tag {
        repository: String,
        tag: String,
        digest: String,
    },
    /// A tag stays, being immutable.
    Spared {
        repository: String,
        tag: String,
    },
    Removed(RemovedImages),
    /// How far a check is: what it read, and how many thousandths of all that is.
    Checking {
        repositories: u64,
        blobs: u64,
        bytes: u64,
        thousandths: u64,
    },
    /// Something is wrong, or was.
    Finding(Finding),
    /// A check has ended; what it found has been told before.
    Verified(HealthReport),
    /// A line of a tag's history: when, in seconds since 1970, and what became of the manifest.
    Change {
        at: u64,
        digest: String,
        what: String,
        state: String,
        until: Option<u64>,
    },
    /// A manifest is there again, and tags point to it.
    Undone {
        repository: String,
        digest: String,
        tags: Vec<Retagged>,
        restored: Vec<String>,
        /// Went with it, and is gone.
        lost: Vec<String>,
    },
    /// All has been told.
    Done,
    /// The task ended before its end.
    Failed {
        reason: String,
    },
}

/// What a removal did, or with a dry run: would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RemovedImages {
    pub(crate) dry_run: bool,
    pub(crate) tags: u64,
    pub(crate) manifests: u64,
    /// That nothing needs any more, with their bytes.
    pub(crate) blobs: u64,
    pub(crate) bytes: u64,
    /// Meant, and in use again.
    pub(crate) kept: u64,
    /// When it began to look, in milliseconds since 1970.
    pub(crate) began: u64,
    /// Until when it can be undone, in seconds since 1970.
    pub(crate) undoable_until: Option<u64>,
}

/// A tag that points to something again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Retagged {
    pub(crate) tag: String,
    /// What it pointed to until now.
    pub(crate) before: Option<String>,
}

/// What a collection did, or with a dry run: would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Collected {
    pub(crate) dry_run: bool,
    pub(crate) repositories: u64,
    pub(crate) manifests: u64,
    /// Blobs that are in use.
    pub(crate) kept: u64,
    /// Removed, with their bytes.
    pub(crate) blobs: u64,
    pub(crate) bytes: u64,
    /// Manifests without a tag that were removed.
    pub(crate) untagged: u64,
    /// Repositories that had nothing left.
    pub(crate) emptied: u64,
    /// Not in use, and within the grace.
    pub(crate) young_blobs: u64,
    pub(crate) young_bytes: u64,
    /// Not in use, and kept for an undo.
    pub(crate) held_blobs: u64,
    pub(crate) held_bytes: u64,
    /// Of which everything was kept, and why.
    pub(crate) doubts: Vec<String>,
    pub(crate) doubtful: u64,
}

impl Event {
    /// Whether nothing comes after it.
    pub(crate) fn is_last(&self) -> bool {
        matches!(
            self,
            Event::Collected(_)
                | Event::Removed(_)
                | Event::Verified(_)
                | Event::Undone { .. }
                | Event::Done
                | Event::Failed { .. }
        )
    }

    pub(super) fn checking(report: &HealthReport, under_way: &UnderWay) -> Self {
        Event::Checking {
            repositories: report.repositories.len() as u64,
            blobs: report.blobs,
            bytes: report.bytes,
            thousandths: under_way.thousandths(),
        }
    }

    pub(super) fn progress(report: &Report) -> Self {
        Event::Progress {
            repositories: report.repositories,
            manifests: report.manifests,
            blobs: report.blobs,
            bytes: report.bytes,
        }
    }
}

impl From<Removed> for Event {
    fn from(removed: Removed) -> Self {
        match removed {
            Removed::Blob { digest, bytes } => Event::Blob {
                digest: digest.to_string(),
                bytes,
            },
            Removed::Manifest { repo, digest } => Event::Manifest {
                repository: repo.to_string(),
                digest: digest.to_string(),
            },
            Removed::Repository(repo) => Event::Repository {
                repository: repo.to_string(),
            },
        }
    }
}

impl Collected {
    pub(super) fn new(report: &Report, dry_run: bool) -> Self {
        Collected {
            dry_run,
            repositories: report.repositories,
            manifests: report.manifests,
            kept: report.kept,
            blobs: report.blobs,
            bytes: report.bytes,
            untagged: report.untagged,
            emptied: report.emptied,
            young_blobs: report.young_blobs,
            young_bytes: report.young_bytes,
            held_blobs: report.held_blobs,
            held_bytes: report.held_bytes,
            doubts: report.doubts.clone(),
            doubtful: report.doubtful,
        }
    }
}
