//! Which tags and manifests of a repository go.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use super::super::retention::{Candidate, Rule, expired};
use super::super::survey::{Found, Unreadable, unreached};
use super::super::{Registry, Result};
use crate::oci::{Digest, ImagePart, ImagePattern, RepoName, Tag};
use crate::storage::Key;

/// What is meant.
#[derive(Clone, Debug)]
pub(crate) enum Choice {
    /// What somebody named.
    Images {
        patterns: Vec<ImagePattern>,
        /// Pushed longer ago than this.
        older_than: Option<Duration>,
        /// Pushed before that: what came after somebody looked is not meant.
        not_after: Option<SystemTime>,
        /// Immutable tags, too.
        force: bool,
    },
    /// What the rules of `retention` say.
    Retention,
}

/// Why something stays that was meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spared {
    /// By `tags.immutable`.
    Immutable,
}

/// What goes.
pub(crate) struct Chosen {
    pub(super) tags: Vec<(Tag, Digest)>,
    /// Those that keep others last.
    pub(super) manifests: Vec<Digest>,
    pub(super) found: HashMap<Digest, Found>,
    pub(super) spared: Vec<(Tag, Spared)>,
}

/// A repository that is looked at.
pub(super) struct Choosing {
    pub(super) repo: RepoName,
    /// Tags of which it is not known yet when they were pushed.
    unknown: Vec<(Tag, Digest)>,
    tags: Vec<Candidate>,
    /// What tags pointed to lately.
    lately: HashSet<Digest>,
    unread: Vec<Digest>,
    linked: HashSet<Digest>,
    found: HashMap<Digest, Found>,
    /// Something cannot be read, and may need anything.
    is_doubtful: bool,
}

impl Choice {
    pub(super) fn is_about(&self, registry: &Registry, repo: &RepoName) -> bool {
        match self {
            Choice::Images { patterns, .. } => patterns
                .iter()
                .any(|pattern| pattern.repositories.matches(repo)),
            Choice::Retention => registry.retention_rules().any(|rule| rule.is_about(repo)),
        }
    }

    pub(super) async fn begin(&self, registry: &Registry, repo: RepoName) -> Result<Choosing> {
        let shared = registry.0.locks.share(&repo).await;
        let tags = registry.tag_list(&repo).await?;
        let (unread, is_doubtful) = registry.revision_names(&repo).await?;
        drop(shared);
        Ok(Choosing {
            repo,
            unknown: tags.iter().map(|(t, d)| (t.clone(), *d)).collect(),
            tags: Vec::new(),
            lately: HashSet::new(),
            unread,
            linked: HashSet::new(),
            found: HashMap::new(),
            is_doubtful,
        })
    }

    /// Looks at one tag or one manifest. False when all is known.
    pub(super) async fn step(&self, registry: &Registry, now: &mut Choosing) -> Result<bool> {
        if let Some((tag, digest)) = now.unknown.pop() {
            if let Some(pushed) = registry.pushed_at(&now.repo, &tag, &digest).await? {
                if let (Choice::Retention, Some(span)) = (self, self.untagged(registry, now)) {
                    let lately = registry.replaced_within(&now.repo, &tag, span).await?;
                    now.lately.extend(lately);
                }
                now.tags.push(Candidate {
                    tag,
                    digest,
                    pushed,
                    pulled: None,
                });
            }
            return Ok(true);
        }
        let Some(digest) = now.unread.pop() else {
            return Ok(false);
        };
        if !registry.has_revision(&now.repo, &digest).await? {
            return Ok(true);
        }
        now.linked.insert(digest);
        match registry.look_into(&now.repo, &digest).await {
            Ok(found) => _ = now.found.insert(digest, found),
            // Without content it needs nothing.
            Err(Unreadable::Missing) => {}
            Err(_) => now.is_doubtful = true,
        }
        Ok(true)
    }

    fn untagged(&self, registry: &Registry, now: &Choosing) -> Option<Duration> {
        let mut rules = registry
            .retention_rules()
            .filter(|rule| rule.is_about(&now.repo));
        rules.find_map(|rule| rule.untagged)
    }

    pub(super) async fn end(
        &self,
        registry: &Registry,
        mut now: Choosing,
        began: SystemTime,
    ) -> Result<Chosen> {
        let meant = match self {
            Choice::Images {
                patterns,
                older_than,
                not_after,
                ..
            } => {
                let latest = older_than.and_then(|age| began.checked_sub(age));
                let latest = [latest, *not_after, Some(began)]
                    .into_iter()
                    .flatten()
                    .min();
                let latest = latest.unwrap_or(began);
                self.named(registry, &now, patterns, latest, older_than.is_some())
                    .await?
            }
            Choice::Retention => self.by_rules(registry, &mut now, began).await?,
        };
        let force = matches!(self, Choice::Images { force: true, .. });
        let (mut tags, mut spared) = (Vec::new(), Vec::new());
        for (tag, digest) in meant.tags {
            if !force && registry.is_immutable(&now.repo, &tag) {
                spared.push((tag, Spared::Immutable));
            } else {
                tags.push((tag, digest));
            }
        }
        let manifests = doomed(&now, &tags, &meant.manifests, meant.exactly);
        Ok(Chosen {
            tags,
            manifests,
            found: now.found,
            spared,
        })
    }

    async fn named(
        &self,
        registry: &Registry,
        now: &Choosing,
        patterns: &[ImagePattern],
        latest: SystemTime,
        is_aged: bool,
    ) -> Result<Meant> {
        let repo = &now.repo;
        let about: Vec<&ImagePart> = patterns
            .iter()
            .filter(|pattern| pattern.repositories.matches(repo))
            .map(|pattern| &pattern.part)
            .collect();
        let exactly: HashSet<Digest> = about
            .iter()
            .filter_map(|part| match part {
                ImagePart::Manifest(digest) if now.linked.contains(digest) => Some(*digest),
                _ => None,
            })
            .collect();
        let tags = now.tags.iter().filter(|candidate| {
            let is_named = about.iter().any(|part| match part {
                ImagePart::All => true,
                ImagePart::Tags(pattern) => pattern.matches(&candidate.tag),
                ImagePart::Manifest(digest) => *digest == candidate.digest,
            });
            is_named && candidate.pushed <= latest
        });
        let tags = tags.map(|c| (c.tag.clone(), c.digest)).collect();
        let mut manifests = HashSet::new();
        if about.contains(&&ImagePart::All) {
            for digest in &now.linked {
                let link = Key::Revision(repo.clone(), *digest);
                let is_old = registry
                    .modified(&link)
                    .await?
                    .is_some_and(|at| at <= latest);
                // Without an age it is all that there is.
                if is_old || !is_aged {
                    manifests.insert(*digest);
                }
            }
        }
        Ok(Meant {
            tags,
            manifests,
            exactly,
        })
    }

    async fn by_rules(
        &self,
        registry: &Registry,
        now: &mut Choosing,
        began: SystemTime,
    ) -> Result<Meant> {
        let rules: Vec<Rule> = registry.retention_rules().cloned().collect();
        let repo = &now.repo;
        let of_repo = || rules.iter().filter(|rule| rule.is_about(repo));
        if of_repo().any(|rule| rule.keep_pulled.is_some()) {
            let pulls = registry.pulls(repo).await?;
            for candidate in &mut now.tags {
                candidate.pulled = Some(pulls.of(&candidate.digest));
            }
        }
        let tags = expired(&rules, repo, &now.tags, began);
        let mut manifests = HashSet::new();
        if let (Some(age), false) = (self.untagged(registry, now), now.is_doubtful) {
            // As the tags are now: what they lead to goes with them, and has its own time then.
            let mut tagged: HashSet<Digest> = now.tags.iter().map(|c| c.digest).collect();
            tagged.extend(&now.lately);
            for digest in unreached(&now.found, &tagged) {
                let link = Key::Revision(repo.clone(), digest);
                let pushed = registry.modified(&link).await?;
                let is_old = |at: SystemTime| began.duration_since(at).is_ok_and(|a| a > age);
                if pushed.is_some_and(is_old) && now.linked.contains(&digest) {
                    manifests.insert(digest);
                }
            }
        }
        Ok(Meant {
            tags,
            manifests,
            exactly: HashSet::new(),
        })
    }
}

/// What somebody or some rule meant, before it is looked at what else leads to it.
struct Meant {
    tags: Vec<(Tag, Digest)>,
    /// Go unless something else leads to them.
    manifests: HashSet<Digest>,
    /// Go in any case.
    exactly: HashSet<Digest>,
}

/// The manifests that go with some tags, those that keep others last: what leads to nothing but them, but for what is
/// reached from elsewhere.
fn doomed(
    now: &Choosing,
    tags: &[(Tag, Digest)],
    manifests: &HashSet<Digest>,
    exactly: HashSet<Digest>,
) -> Vec<Digest> {
    let going: HashSet<&Tag> = tags.iter().map(|(tag, _)| tag).collect();
    let staying: HashSet<Digest> = now
        .tags
        .iter()
        .filter(|c| !going.contains(&c.tag))
        .map(|c| c.digest)
        .collect();
    let is_all = manifests.len() == now.linked.len() && staying.is_empty();
    // Unreadable ones may list anything: then only what was named goes.
    if now.is_doubtful && !is_all {
        let roots = tags.iter().map(|(_, digest)| *digest).chain(exactly);
        let is_free = |digest: &Digest| now.linked.contains(digest) && !staying.contains(digest);
        let roots: HashSet<Digest> = roots.filter(is_free).collect();
        return roots.into_iter().collect();
    }
    let mut about: HashMap<Digest, Vec<Digest>> = HashMap::new();
    for found in now.found.values() {
        if let Some(subject) = found.subject {
            about.entry(subject).or_default().push(found.digest);
        }
    }
    let mut todo: Vec<Digest> = tags.iter().map(|(_, digest)| *digest).collect();
    todo.extend(manifests.iter().chain(&exactly));
    let mut below: HashSet<Digest> = HashSet::new();
    while let Some(digest) = todo.pop() {
        if below.insert(digest) {
            todo.extend(about.get(&digest).into_iter().flatten());
            let found = now.found.get(&digest);
            todo.extend(found.iter().flat_map(|found| &found.children));
        }
    }
    let mut roots = staying.clone();
    roots.extend(now.linked.iter().filter(|digest| !below.contains(*digest)));
    // Those that keep others come first, and only what nothing else reaches.
    let mut going = unreached(&now.found, &roots);
    going.retain(|digest| now.linked.contains(digest) && below.contains(digest));
    let unread = manifests
        .iter()
        .filter(|digest| is_all && !now.found.contains_key(*digest));
    let forced: Vec<Digest> = exactly.iter().chain(unread).copied().collect();
    for digest in forced {
        if !staying.contains(&digest) && !going.contains(&digest) {
            going.insert(0, digest);
        }
    }
    going.reverse();
    going
}
