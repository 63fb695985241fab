//! How much the repositories of a pattern may have (`quota`).
//!
//! What counts is the content that their links lead to, blobs and manifests: each once a quota, however many of its repositories
//! share it. So what was deleted counts until garbage collection takes its links.
//!
//! The links are known in memory, at some 24 bytes each: read once after the start, and followed from then on by whoever
//! makes or removes one. A link is charged before it is written, under the lock of its digest, so that pushes at the same time never add
//! up to more than the quota. Until the links have been read nothing is refused: a restart must not stop pushes.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::amount::Amount;
use super::marks::{Mark, mark};
use super::{Error, Registry, Result, settings};
use crate::oci::{Digest, RepoName};
use crate::storage::Key;

/// How long after a failure the links are read again.
const AGAIN: Duration = Duration::from_secs(60);
/// A refusal asks for garbage collection at most this often: it reads all manifests.
const ASK_EVERY: Duration = Duration::from_secs(3600);

/// What a repository has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Item {
    Blob(Digest),
    Manifest(Digest),
}

impl Item {
    fn digest(&self) -> &Digest {
        match self {
            Item::Blob(digest) | Item::Manifest(digest) => digest,
        }
    }

    fn link(&self) -> Link {
        (mark(self.digest()), matches!(self, Item::Manifest(_)))
    }

    fn key(&self, repo: &RepoName) -> Key {
        match self {
            Item::Blob(digest) => Key::Layer(repo.clone(), *digest),
            Item::Manifest(digest) => Key::Revision(repo.clone(), *digest),
        }
    }
}

/// Whose digest, and whether as a manifest.
type Link = (Mark, bool);

/// What one quota is used for, for those who watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QuotaUse {
    /// Its patterns.
    pub(crate) repositories: String,
    /// In bytes; so is the next one.
    pub(crate) limit: u64,
    pub(crate) used: u64,
    /// Pushes that were refused since the start.
    pub(crate) refused: u64,
    /// Whether `used` is all of it yet.
    pub(crate) is_known: bool,
}

/// Why something does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QuotaExceeded {
    pub(crate) repositories: String,
    pub(crate) limit: u64,
    pub(crate) used: u64,
    /// What was to come on top of it, in bytes, as far as that is known.
    pub(crate) wanted: u64,
}

impl std::fmt::Display for QuotaExceeded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (limit, used) = (Amount(self.limit), Amount(self.used));
        write!(
            f,
            "the quota of {} is {limit}, and {used} of it are used",
            self.repositories
        )?;
        if self.wanted > 0 {
            write!(f, ": {} more do not fit", Amount(self.wanted))?;
        }
        Ok(())
    }
}

pub(super) struct Quotas {
    limits: Vec<settings::Quota>,
    ledger: Mutex<Ledger>,
}

#[derive(Default)]
struct Ledger {
    /// In the order of the limits.
    uses: Vec<Use>,
    /// Of the repositories that are in a quota.
    links: HashMap<RepoName, HashSet<Link>>,
    /// The repository whose links are being read, and those of them that have gone since that began.
    reading: Option<(RepoName, HashSet<Link>)>,
    is_known: bool,
}

#[derive(Default)]
struct Use {
    /// The bytes of each content, and how many links lead to it.
    content: HashMap<Mark, (u64, u32)>,
    bytes: u64,
    refused: u64,
    /// A push was refused since the last collection began, or before the one that goes on.
    is_exhausted: bool,
    is_being_relieved: bool,
    asked: Option<Instant>,
}

impl Quotas {
    pub(super) fn new(limits: &[settings::Quota]) -> Self {
        let uses = limits.iter().map(|_| Use::default()).collect();
        Quotas {
            limits: limits.to_vec(),
            ledger: Mutex::new(Ledger {
                uses,
                ..Ledger::default()
            }),
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The quotas that a repository is in.
    fn of<'a>(&'a self, repo: &'a RepoName) -> impl Iterator<Item = usize> + 'a {
        let limits = self.limits.iter().enumerate();
        let within = limits.filter(|(_, limit)| limit.covers(repo));
        within.map(|(i, _)| i)
    }

    fn covers(&self, repo: &RepoName) -> bool {
        self.of(repo).next().is_some()
    }

    /// Whether `len` bytes more fit, as far as is known. Content that is there already (`mark`) takes no room.
    fn check(
        &self,
        ledger: &mut Ledger,
        repo: &RepoName,
        mark: Option<Mark>,
        len: u64,
    ) -> std::result::Result<(), QuotaExceeded> {
        if !ledger.is_known {
            return Ok(());
        }
        for i in self.of(repo) {
            let (limit, used) = (&self.limits[i], &mut ledger.uses[i]);
            let is_there = mark.is_some_and(|mark| used.content.contains_key(&mark));
            // Of an upload that only begins nothing is known, but that it will need something.
            let needed = if mark.is_none() { len.max(1) } else { len };
            if !is_there && used.bytes.saturating_add(needed) > limit.size {
                used.refused += 1;
                used.is_exhausted = true;
                return Err(QuotaExceeded {
                    repositories: limit.name(),
                    limit: limit.size,
                    used: used.bytes,
                    wanted: len,
                });
            }
        }
        Ok(())
    }

    /// Notes a link. False if it was known.
    fn add(&self, ledger: &mut Ledger, repo: &RepoName, link: Link, len: u64) -> bool {
        if let Some((reading, gone)) = &mut ledger.reading
            && reading == repo
        {
            gone.remove(&link);
        }
        let is_new = ledger.links.entry(repo.clone()).or_default().insert(link);
        for i in self.of(repo) {
            let used = &mut ledger.uses[i];
            let (bytes, links) = used.content.entry(link.0).or_default();
            *links += u32::from(is_new);
            // Damaged content had gone, and is back.
            used.bytes += len.saturating_sub(*bytes);
            *bytes = len.max(*bytes);
        }
        is_new
    }

    fn remove(&self, ledger: &mut Ledger, repo: &RepoName, link: Link) {
        if let Some((reading, gone)) = &mut ledger.reading
            && reading == repo
        {
            gone.insert(link);
        }
        let Some(links) = ledger.links.get_mut(repo) else {
            return;
        };
        if !links.remove(&link) {
            return;
        }
        if links.is_empty() {
            ledger.links.remove(repo);
        }
        for i in self.of(repo) {
            let used = &mut ledger.uses[i];
            if let Some((bytes, links)) = used.content.get_mut(&link.0) {
                *links -= 1;
                if *links == 0 {
                    used.bytes -= *bytes;
                    used.content.remove(&link.0);
                }
            }
        }
    }
}

impl Registry {
    /// Whether an upload of `len` bytes so far may go on, or begin. What it will turn out to be is not known yet.
    pub(super) fn quota_has_room(&self, repo: &RepoName, len: u64) -> Result<()> {
        let quotas = &self.0.quotas;
        if !quotas.covers(repo) {
            return Ok(());
        }
        let checked = quotas.check(&mut quotas.ledger(), repo, None, len);
        self.refused_by_quota(repo, checked)
    }

    /// Counts what a repository is about to have, and says whether it is new to it. Refused is only what is new.
    pub(super) fn charge(&self, repo: &RepoName, item: Item, len: u64) -> Result<bool> {
        let quotas = &self.0.quotas;
        if !quotas.covers(repo) {
            return Ok(false);
        }
        let (link, mut ledger) = (item.link(), quotas.ledger());
        let has_it = ledger
            .links
            .get(repo)
            .is_some_and(|links| links.contains(&link));
        if !has_it && let Err(e) = quotas.check(&mut ledger, repo, Some(link.0), len) {
            drop(ledger);
            return self.refused_by_quota(repo, Err(e)).map(|()| false);
        }
        Ok(quotas.add(&mut ledger, repo, link, len))
    }

    /// What was charged as new could not be linked. A link that is there all the same, or may be, goes on counting.
    pub(super) async fn uncharge_failed(&self, repo: &RepoName, item: Item, is_new: bool) {
        if is_new && matches!(self.read_link(&item.key(repo)).await, Ok(None)) {
            self.uncharge(repo, item);
        }
    }

    /// [`Registry::charge`] for what nobody pushes: what a mirror fetches, and what is brought back.
    pub(super) fn charge_unasked(&self, repo: &RepoName, item: Item, len: u64) {
        let quotas = &self.0.quotas;
        if quotas.covers(repo) {
            quotas.add(&mut quotas.ledger(), repo, item.link(), len);
        }
    }

    /// A repository does not have it any more.
    pub(super) fn uncharge(&self, repo: &RepoName, item: Item) {
        let quotas = &self.0.quotas;
        if quotas.covers(repo) {
            quotas.remove(&mut quotas.ledger(), repo, item.link());
        }
    }

    fn refused_by_quota(
        &self,
        repo: &RepoName,
        checked: std::result::Result<(), QuotaExceeded>,
    ) -> Result<()> {
        let Err(exceeded) = checked else {
            return Ok(());
        };
        let quotas = &self.0.quotas;
        let mut ledger = quotas.ledger();
        let mut ask = false;
        for i in quotas.of(repo) {
            let used = &mut ledger.uses[i];
            let lately = used.asked.is_some_and(|asked| asked.elapsed() < ASK_EVERY);
            if used.is_exhausted && !lately {
                used.asked = Some(Instant::now());
                ask = true;
            }
        }
        if ask {
            // What was deleted earlier may still be kept for an undo.
            self.0.deleted.notify_one();
        }
        Err(Error::QuotaExceeded(Box::new(exceeded)))
    }

    /// Whether the collection under way is to make room in a quota that this repository is in, since a push was refused before
    /// it began: what is only kept for an undo goes.
    pub(super) fn is_short_of_quota(&self, repo: &RepoName) -> bool {
        let quotas = &self.0.quotas;
        if !quotas.covers(repo) {
            return false;
        }
        let ledger = quotas.ledger();
        quotas.of(repo).any(|i| ledger.uses[i].is_being_relieved)
    }

    /// A collection begins. A push that is refused from now on is for the next one.
    pub(super) fn relieve_quotas(&self) {
        for used in &mut self.0.quotas.ledger().uses {
            used.is_being_relieved = std::mem::take(&mut used.is_exhausted);
        }
    }

    /// It has ended.
    pub(super) fn quotas_are_relieved(&self) {
        for used in &mut self.0.quotas.ledger().uses {
            used.is_being_relieved = false;
        }
    }

    /// What the quotas are used for, in their order.
    pub(crate) fn quotas(&self) -> Vec<QuotaUse> {
        let quotas = &self.0.quotas;
        let ledger = quotas.ledger();
        let all = quotas.limits.iter().zip(&ledger.uses);
        all.map(|(limit, used)| QuotaUse {
            repositories: limit.name(),
            limit: limit.size,
            used: used.bytes,
            refused: used.refused,
            is_known: ledger.is_known,
        })
        .collect()
    }

    /// Finds out what the quotas are used for, by reading the links of their repositories; returns when that is known.
    pub(crate) async fn measure_quotas(&self) {
        if self.0.quotas.limits.is_empty() {
            return;
        }
        while let Err(e) = self.read_all_links().await {
            log::warn!("quotas do not count yet, since the repositories cannot be read: {e}");
            tokio::time::sleep(AGAIN).await;
        }
        self.0.quotas.ledger().is_known = true;
        for quota in self.quotas() {
            let (used, limit) = (Amount(quota.used), Amount(quota.limit));
            log::info!("quota of {}: {used} of {limit} used", quota.repositories);
        }
    }

    async fn read_all_links(&self) -> Result<()> {
        let walked = self.walk().await?;
        if let Some(failed) = walked.failed {
            return Err(failed);
        }
        for (repo, _) in walked.found {
            if self.0.quotas.covers(&repo) {
                self.read_links_of(&repo).await?;
            }
        }
        Ok(())
    }

    async fn read_links_of(&self, repo: &RepoName) -> Result<()> {
        let quotas = &self.0.quotas;
        quotas.ledger().reading = Some((repo.clone(), HashSet::new()));
        let (layers, _) = self.layer_names(repo).await?;
        let (revisions, _) = self.revision_names(repo).await?;
        let layers = layers.into_iter().map(Item::Blob);
        for item in layers.chain(revisions.into_iter().map(Item::Manifest)) {
            // A delete leaves the folder.
            if self.read_link(&item.key(repo)).await?.is_none() {
                continue;
            }
            let content = match item {
                Item::Blob(digest) => self.alias(repo, &digest).await.unwrap_or(digest),
                Item::Manifest(digest) => digest,
            };
            let len = match self.store().stat(&Key::Blob(content)).await {
                Ok(meta) => meta.len,
                Err(e) if e.is_not_found() => 0,
                Err(e) => return Err(e.into()),
            };
            let mut ledger = quotas.ledger();
            let has_gone =
                matches!(&ledger.reading, Some((_, gone)) if gone.contains(&item.link()));
            if !has_gone {
                quotas.add(&mut ledger, repo, item.link(), len);
            }
        }
        quotas.ledger().reading = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
