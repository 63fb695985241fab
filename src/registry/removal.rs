//! Removing images by name, by pattern and by rule: first a plan, which says what would go and how many bytes come back,
//! and then the removal of just that.
//!
//! ```text
//! for each repository: list its tags and manifests -> choose tags -> what only they lead to goes with them
//! for each repository: what the rest needs stays            (read only where it has something of that)
//! the sizes of what is left
//! for each tag, then each manifest: note it, and remove it  (unless it was pushed again since)
//! ```
//!
//! An image goes with what only it leads to: the images of an index, and signatures and the like. As with every delete the
//! content stays as long as an undo may need it, and goes with garbage collection.

mod choice;
mod needs;
mod watch;

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

pub(crate) use choice::{Choice, Spared};
use choice::{Choosing, Chosen};
use needs::Needs;
pub(super) use watch::Pushed;
use watch::Watch;

use super::history::Removal;
use super::survey::Found;
use super::{Registry, Result, to_the_end};
use crate::oci::{Digest, RepoName, Tag};
use crate::storage::{Durability, Key};

/// What a plan comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) tags: u64,
    pub(crate) manifests: u64,
    /// Blobs, manifests among them, that nothing needs any more.
    pub(crate) blobs: u64,
    pub(crate) bytes: u64,
    /// Tags that were pushed again, so that they stayed after all.
    pub(crate) kept: u64,
}

/// What a step did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Removing {
    Looked,
    /// A tag that will go, or has gone.
    Tag(RepoName, Tag, Digest),
    Manifest(RepoName, Digest),
    /// It was meant and stays.
    Spared(RepoName, Tag, Spared),
    Done,
}

/// What of a repository goes.
struct Plan {
    repo: RepoName,
    tags: Vec<(Tag, Digest)>,
    /// Those that keep others last.
    manifests: Vec<Digest>,
    /// The same, read.
    found: HashMap<Digest, Found>,
    /// Tags that are gone, of manifests that are about to go.
    untagged: HashMap<Digest, Vec<Tag>>,
    watch: Watch,
}

/// One removal: a plan, and what is done of it.
pub(crate) struct Removals {
    registry: Registry,
    choice: Choice,
    /// Only say what would go.
    dry_run: bool,
    /// Keep no note for an undo.
    purge: bool,
    totals: Totals,
    plans: Vec<Plan>,
    told: Vec<Removing>,
    stage: Stage,
    at: SystemTime,
}

enum Stage {
    Choose {
        left: Vec<RepoName>,
        now: Option<Box<(Choosing, Watch)>>,
    },
    Measure(Box<Needs>),
    Remove,
    Done,
}

impl Registry {
    /// A removal that has not begun. With `purge` nothing is noted for an undo.
    pub(crate) async fn removals(
        &self,
        choice: Choice,
        dry_run: bool,
        purge: bool,
    ) -> Result<Removals> {
        if !dry_run {
            self.deletable()?;
        }
        let repos = self.all_repos().await?;
        let mut repos: Vec<RepoName> = repos
            .iter()
            .filter(|repo| choice.is_about(self, repo))
            .cloned()
            .collect();
        repos.reverse();
        Ok(Removals {
            registry: self.clone(),
            choice,
            dry_run,
            purge: purge || self.settings().undo_keep.is_zero(),
            totals: Totals::default(),
            plans: Vec::new(),
            told: Vec::new(),
            stage: Stage::Choose {
                left: repos,
                now: None,
            },
            at: SystemTime::now(),
        })
    }
}

impl Removals {
    pub(crate) fn totals(&self) -> &Totals {
        &self.totals
    }

    /// When it began. What is pushed later is not meant.
    pub(crate) fn began(&self) -> SystemTime {
        self.at
    }

    /// Until when it can be undone.
    pub(crate) fn undoable_until(&self) -> Option<SystemTime> {
        (!self.purge).then(|| self.at + self.registry.settings().undo_keep)
    }

    /// Goes on for a moment. After an error nothing more may be expected of it.
    pub(crate) async fn step(&mut self) -> Result<Removing> {
        if let Some(told) = self.told.pop() {
            return Ok(told);
        }
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Choose {
                left,
                now: Some(mut now),
            } => {
                let more = self.choice.step(&self.registry, &mut now.0).await?;
                let now = if more {
                    Some(now)
                } else {
                    let (choosing, watch) = *now;
                    self.plan(choosing, watch).await?;
                    None
                };
                self.stage = Stage::Choose { left, now };
            }
            Stage::Choose {
                mut left,
                now: None,
            } => {
                if let Some(repo) = left.pop() {
                    let watch = self.registry.0.pushed.watch(&repo);
                    let choosing = self.choice.begin(&self.registry, repo).await?;
                    let now = Some(Box::new((choosing, watch)));
                    self.stage = Stage::Choose { left, now };
                } else if !self.plans.is_empty() {
                    let plans = self.plans.iter();
                    let gone = plans.map(|p| (p.repo.clone(), p.manifests.clone()));
                    let needs = Needs::new(&self.registry, gone.collect(), self.purge);
                    self.stage = Stage::Measure(Box::new(needs.await?));
                }
            }
            Stage::Measure(mut needs) => {
                if needs.step(&self.registry).await? {
                    self.stage = Stage::Measure(needs);
                } else {
                    (self.totals.blobs, self.totals.bytes) = needs.freed();
                    self.stage = if self.dry_run {
                        Stage::Done
                    } else {
                        Stage::Remove
                    };
                    self.plans.reverse();
                }
            }
            Stage::Remove => return self.remove_next().await,
            Stage::Done => return Ok(Removing::Done),
        }
        Ok(self.told.pop().unwrap_or(Removing::Looked))
    }

    async fn plan(&mut self, choosing: Choosing, watch: Watch) -> Result<()> {
        let repo = choosing.repo.clone();
        let chosen = self.choice.end(&self.registry, choosing, self.at).await?;
        let Chosen {
            tags,
            manifests,
            mut found,
            spared,
        } = chosen;
        // Of the others nothing has to be known any more.
        let going: HashSet<&Digest> = manifests.iter().collect();
        found.retain(|digest, _| going.contains(digest));
        let spared = spared.into_iter();
        self.told
            .extend(spared.map(|(tag, why)| Removing::Spared(repo.clone(), tag, why)));
        self.totals.tags += tags.len() as u64;
        self.totals.manifests += manifests.len() as u64;
        if self.dry_run {
            self.told.extend(
                manifests
                    .iter()
                    .map(|digest| Removing::Manifest(repo.clone(), *digest)),
            );
            let tags = tags.iter().rev();
            self.told.extend(
                tags.map(|(tag, digest)| Removing::Tag(repo.clone(), tag.clone(), *digest)),
            );
        }
        if !(tags.is_empty() && manifests.is_empty()) {
            self.plans.push(Plan {
                repo,
                tags,
                manifests,
                found,
                untagged: HashMap::new(),
                watch,
            });
        }
        Ok(())
    }

    /// One tag or one manifest under its repository's lock, so that a push never waits for more.
    async fn remove_next(&mut self) -> Result<Removing> {
        self.stage = Stage::Remove;
        let Some(mut plan) = self.plans.pop() else {
            self.registry.0.deleted.notify_one();
            self.stage = Stage::Done;
            return Ok(Removing::Done);
        };
        let (registry, at, purge) = (self.registry.clone(), self.at, self.purge);
        let (plan, removed) = to_the_end(async move {
            let removed = registry.remove_of(&mut plan, at, purge).await?;
            Ok((plan, removed))
        })
        .await?;
        match removed {
            None => return Ok(Removing::Looked),
            Some(Removing::Looked) => self.totals.kept += 1,
            Some(_) => {}
        }
        self.plans.push(plan);
        Ok(removed.unwrap_or(Removing::Looked))
    }
}

impl Registry {
    /// `None` when the plan is done, `Looked` for what stayed.
    async fn remove_of(
        &self,
        plan: &mut Plan,
        at: SystemTime,
        purge: bool,
    ) -> Result<Option<Removing>> {
        let guard = self.0.locks.own(&plan.repo).await;
        self.spare_what_was_pushed(plan).await?;
        let repo = &plan.repo;
        if let Some((tag, digest)) = plan.tags.pop() {
            let now = self.resolve(repo, &tag).await?;
            if now != Some(digest) || plan.watch.saw(&digest) {
                return Ok(Some(Removing::Looked));
            }
            if !purge {
                self.note_deleted_tag(&guard, repo, &tag, &digest, at)
                    .await?;
            }
            self.remove_tag(&guard, repo, &tag).await?;
            let untagged = plan.untagged.entry(digest).or_default();
            untagged.push(tag.clone());
            return Ok(Some(Removing::Tag(repo.clone(), tag, digest)));
        }
        // What an index lists goes after it: who is stopped half-way leaves nothing broken.
        let Some(digest) = plan.manifests.pop() else {
            return Ok(None);
        };
        let is_tagged = self.tag_list(repo).await?.values().any(|d| *d == digest);
        if is_tagged || !self.has_revision(repo, &digest).await? {
            return Ok(Some(Removing::Looked));
        }
        if purge {
            let note = Key::Removal(repo.clone(), digest);
            self.store().delete(&note, Durability::Lazy).await?;
        } else {
            let removal = Removal {
                at,
                subject: plan.found.get(&digest).and_then(|found| found.subject),
                tags: plan.untagged.remove(&digest).unwrap_or_default(),
            };
            self.note_removal(&guard, repo, &digest, &removal).await?;
        }
        self.remove_revision(&guard, repo, &digest).await?;
        Ok(Some(Removing::Manifest(repo.clone(), digest)))
    }

    /// What was pushed since the plan was made stays, and so does all that it leads to.
    async fn spare_what_was_pushed(&self, plan: &mut Plan) -> Result<()> {
        let mut todo = plan.watch.take();
        let mut spared: HashSet<Digest> = HashSet::new();
        while let Some(digest) = todo.pop() {
            if !spared.insert(digest) {
                continue;
            }
            match self.look_into(&plan.repo, &digest).await {
                Ok(found) => todo.extend(&found.children),
                // Who knows what it needs.
                Err(_) => plan.manifests.clear(),
            }
            let about = plan.found.values().filter(|f| f.subject == Some(digest));
            todo.extend(about.map(|f| f.digest));
        }
        plan.manifests.retain(|digest| !spared.contains(digest));
        Ok(())
    }
}
