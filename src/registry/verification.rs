//! A check of the whole tree, in steps that each take a moment: content against its digest, links against their paths,
//! sizes and references against manifests; and the mending of what can be mended. Clients push and pull meanwhile.
//!
//! ```text
//! for each blob:       read it -> not what its digest says? read it again -> still not? hide it, and move it aside
//! for each repository: tags -> manifests -> what they refer to -> links that are left -> mend
//! ```
//!
//! Content comes first, so that repositories and tags can be named that damage affects, without a list of who refers to
//! what. What is said of several files at once is looked at under the lock that whoever changes them takes.

mod content;
mod finding;
mod links;
mod mend;
mod references;
mod report;
mod repository;
mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;

pub(crate) use finding::{Fault, Finding, Outcome, Remedy};
pub(crate) use report::{Progress, Report, UnderWay};
pub(super) use tally::Health;

use super::marks::Marks;
use super::{Registry, Result};
use crate::oci::{Algorithm, Digest, RepoName, RepoPattern};
use content::Reading;
use repository::Inspecting;

/// What a check is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Check {
    /// Read all content, and not only what leads to it.
    pub(crate) contents: bool,
    /// Change nothing, not even where damaged content lies.
    pub(crate) dry_run: bool,
    pub(crate) mend: Mend,
    /// These alone; all if there is none.
    pub(crate) repos: Vec<RepoPattern>,
    /// One that went this far before the process was stopped.
    pub(crate) from: Option<UnderWay>,
}

/// What may be mended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mend {
    #[default]
    Nothing,
    /// What leaves no doubt: links whose path says what they say, tags that ever pointed to one manifest alone, and what
    /// was fetched from the upstream anyway.
    Proven,
    /// Whatever can be.
    All,
}

/// What a step did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    Looked,
    /// So many bytes.
    Read(u64),
    Done,
}

type Stepped = Checked;

/// Digests of which it is remembered that their content is bad: more than anybody will look at.
const BAD: usize = 100_000;

/// One run of it. Holds what one repository's manifests refer to, two blocks of a blob, and what was found.
pub(crate) struct Verification {
    registry: Registry,
    scope: Check,
    report: Report,
    under_way: UnderWay,
    /// The blobs that are to be read, if not all.
    wanted: Option<Marks>,
    /// Content found bad.
    bad: BTreeMap<Digest, Fault>,
    /// That of which nobody has said yet who needs it.
    unnamed: BTreeSet<Digest>,
    /// Found, and not told yet.
    news: Vec<Finding>,
    stage: Stage,
}

enum Stage {
    Begin,
    /// Finds out which blobs belong to the repositories asked for.
    Gather(Vec<RepoName>),
    Contents {
        shards: Vec<(Algorithm, u8)>,
        left: Vec<Digest>,
        reading: Option<Box<Reading>>,
    },
    Repositories {
        left: Vec<RepoName>,
        now: Option<Box<Inspecting>>,
    },
    Done,
}

impl Registry {
    /// A check that has not begun.
    pub(crate) fn verification(&self, scope: Check) -> Verification {
        let under_way = scope.from.clone().unwrap_or_else(|| UnderWay {
            began: report::now(),
            ..UnderWay::default()
        });
        let report = Report {
            began: under_way.began,
            blobs: under_way.blobs,
            bytes: under_way.bytes,
            contents: scope.contents,
            dry_run: scope.dry_run,
            ..Report::default()
        };
        Verification {
            registry: self.clone(),
            scope,
            report,
            under_way,
            wanted: None,
            bad: BTreeMap::new(),
            unnamed: BTreeSet::new(),
            news: Vec::new(),
            stage: Stage::Begin,
        }
    }

    /// Waits until somebody was about to serve damaged content, and says which.
    pub(crate) async fn suspects(&self) -> Vec<Digest> {
        loop {
            let suspects = self.0.verified.take_suspects();
            if !suspects.is_empty() {
                return suspects;
            }
            self.0.verified.suspicion.notified().await;
        }
    }
}

impl Verification {
    pub(crate) fn report(&self) -> &Report {
        &self.report
    }

    /// How far it is, for one that goes on after a restart.
    pub(crate) fn under_way(&self) -> &UnderWay {
        &self.under_way
    }

    /// What has been found since the last call.
    pub(crate) fn take_news(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.news)
    }

    /// Goes on for a moment. After an error nothing more may be expected of it.
    pub(crate) async fn step(&mut self) -> Result<Checked> {
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Begin => self.begin().await,
            Stage::Gather(left) => self.gather(left).await,
            Stage::Contents {
                shards,
                left,
                reading,
            } => self.contents(shards, left, reading).await,
            Stage::Repositories { left, now } => self.repositories(left, now).await,
            Stage::Done => Ok(Checked::Done),
        }
    }

    async fn begin(&mut self) -> Result<Checked> {
        if self.scope.mend != Mend::Nothing {
            self.registry.writable()?;
        }
        if !self.scope.contents {
            return self.begin_repositories().await;
        }
        if self.scope.repos.is_empty() {
            self.begin_contents();
        } else {
            self.wanted = Some(Marks::default());
            self.stage = Stage::Gather(self.repository_names().await?);
        }
        Ok(Checked::Looked)
    }

    fn begin_contents(&mut self) {
        let done = self.scope.from.as_ref().map_or(0, |from| from.shards);
        // The last of the list comes first.
        let shards = report::shards().skip(done).collect::<Vec<_>>();
        self.stage = Stage::Contents {
            shards: shards.into_iter().rev().collect(),
            left: Vec::new(),
            reading: None,
        };
    }

    async fn gather(&mut self, mut left: Vec<RepoName>) -> Result<Checked> {
        let Some(repo) = left.pop() else {
            self.begin_contents();
            return Ok(Checked::Looked);
        };
        let (layers, _) = self.registry.layer_names(&repo).await?;
        let (revisions, _) = self.registry.revision_names(&repo).await?;
        for digest in layers.iter().chain(&revisions) {
            let alias = self.registry.alias(&repo, digest).await;
            if let Some(wanted) = &mut self.wanted {
                wanted.insert(&alias.unwrap_or(*digest));
            }
        }
        self.stage = Stage::Gather(left);
        Ok(Checked::Looked)
    }

    /// Those asked for.
    async fn repository_names(&mut self) -> Result<Vec<RepoName>> {
        let walked = self.registry.walk().await?;
        if let Some(failed) = walked.failed {
            return Err(failed);
        }
        if let Some(name) = walked.strange {
            self.debris(Fault::StrangeName, name);
        }
        let patterns = &self.scope.repos;
        let is_wanted =
            |name: &RepoName| patterns.is_empty() || patterns.iter().any(|p| p.matches(name));
        let mut names: Vec<RepoName> = walked.found.into_iter().map(|(name, _)| name).collect();
        names.retain(is_wanted);
        names.sort_unstable_by(|a, b| b.cmp_components(a));
        Ok(names)
    }

    async fn begin_repositories(&mut self) -> Result<Checked> {
        let left = self.repository_names().await?;
        self.stage = Stage::Repositories { left, now: None };
        Ok(Checked::Looked)
    }

    fn found(&mut self, finding: Finding) {
        if finding.outcome == Outcome::Mended {
            self.registry.0.health.mended.fetch_add(1, Relaxed);
        }
        if finding.fault.is_debris() {
            log::debug!("verify: {finding}");
        } else if finding.outcome == Outcome::Mended {
            log::info!("verify: {finding}");
        } else {
            log::warn!("verify: {finding}");
        }
        self.report.add(&finding);
        self.news.push(finding);
    }

    /// Something below the root that does no harm.
    fn debris(&mut self, fault: Fault, path: String) {
        let remedy = match fault {
            Fault::StrangeName => Remedy::Leave,
            _ => Remedy::Wait,
        };
        self.found(Finding {
            fault,
            remedy,
            needs_consent: true,
            outcome: Outcome::Open,
            repository: None,
            tags: Vec::new(),
            digest: None,
            note: path,
        });
    }

    /// All that there is to say has been said, but for damaged content that no repository leads to.
    async fn end(&mut self) -> Result<Checked> {
        for digest in std::mem::take(&mut self.unnamed) {
            if let Some(fault) = self.bad.get(&digest).copied()
                && self.scope.repos.is_empty()
            {
                self.found(Finding {
                    fault,
                    remedy: Remedy::Wait,
                    needs_consent: true,
                    outcome: Outcome::Open,
                    repository: None,
                    tags: Vec::new(),
                    digest: Some(digest.to_string()),
                    note: "no repository needs it".to_owned(),
                });
            }
        }
        self.report.ended = report::now();
        if self.scope.repos.is_empty() && !self.scope.dry_run && self.registry.writable().is_ok() {
            let open = self.report.damage - self.report.mended;
            self.registry.0.health.open.store(open, Relaxed);
            self.registry.keep_report(&self.report).await?;
        }
        Ok(Checked::Done)
    }
}

#[cfg(test)]
mod tests;
