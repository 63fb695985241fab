//! The part of a check that looks at one repository after the other: what its tags, manifests and links lead to.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::finding::{Fault, Finding, Outcome, Remedy, TAGS};
use super::report::RepositoryHealth;
use super::{Checked, Mend, Stage, Verification};
use crate::oci::{Digest, RepoName, Tag};
use crate::registry::Result;
use crate::storage::{Dir, Key};

/// A repository that is being looked at.
pub(super) struct Inspecting {
    pub(super) repo: RepoName,
    /// Names still to be looked at.
    pub(super) tags: Vec<String>,
    pub(super) manifests: Vec<Digest>,
    pub(super) layers: Vec<Digest>,
    pub(super) uploads: Vec<String>,
    /// What tags point to.
    pub(super) pointers: BTreeMap<Tag, Option<Digest>>,
    /// What was found of manifests, and what each lists.
    pub(super) children: HashMap<Digest, Vec<Digest>>,
    broken: HashMap<Digest, BTreeSet<Digest>>,
    /// What manifests refer to.
    pub(super) needed: HashSet<Digest>,
    pub(super) findings: Vec<(Finding, Subject)>,
}

/// What a finding is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Tag(Tag),
    Manifest(Digest),
    Layer(Digest),
    File(Key),
}

impl Verification {
    pub(super) async fn repositories(
        &mut self,
        mut left: Vec<RepoName>,
        now: Option<Box<Inspecting>>,
    ) -> Result<Checked> {
        let now = match now {
            None => match left.pop() {
                None => return self.end().await,
                Some(repo) => Some(Box::new(self.open(repo).await?)),
            },
            Some(mut at) => self.inspect(&mut at).await?.then_some(at),
        };
        self.stage = Stage::Repositories { left, now };
        Ok(Checked::Looked)
    }

    async fn open(&mut self, repo: RepoName) -> Result<Inspecting> {
        let registry = self.registry.clone();
        let list = async |dir: Dir| registry.store().list(&dir, None, usize::MAX).await;
        if !self.scope.dry_run && registry.writable().is_ok() {
            // So that nobody has to wait for it: content of a disk that was not ours.
            registry.scan(&repo).await?;
        }
        let (manifests, strange) = registry.revision_names(&repo).await?;
        let (layers, strange_layers) = registry.layer_names(&repo).await?;
        for (is_strange, dir) in [
            (strange, Dir::AllRevisions(repo.clone())),
            (strange_layers, Dir::AllLayers(repo.clone())),
        ] {
            if is_strange {
                self.debris(Fault::StrangeName, dir.to_string());
            }
        }
        Ok(Inspecting {
            tags: list(Dir::Tags(repo.clone())).await?,
            uploads: list(Dir::Uploads(repo.clone())).await?,
            manifests,
            layers,
            pointers: BTreeMap::new(),
            children: HashMap::new(),
            broken: HashMap::new(),
            needed: HashSet::new(),
            findings: Vec::new(),
            repo,
        })
    }

    /// Goes on with a repository; false when it is done.
    async fn inspect(&mut self, at: &mut Inspecting) -> Result<bool> {
        if let Some(tag) = at.tags.pop() {
            self.tag(at, &tag).await?;
        } else if let Some(digest) = at.manifests.pop() {
            self.manifest(at, digest).await?;
        } else if let Some(digest) = at.layers.pop() {
            self.layer(at, digest).await?;
        } else if let Some(name) = at.uploads.pop() {
            self.upload(at, &name).await?;
        } else if let Some((finding, subject)) = at.findings.pop() {
            self.conclude(at, finding, &subject).await?;
        } else {
            let broken = |digest: &Option<Digest>| digest.is_none_or(|d| at.is_broken(&d));
            let unhealthy = at.pointers.values().filter(|d| broken(d)).count() as u64;
            // Else it is a part of longer names, or was never more than an upload.
            if !at.children.is_empty() || !at.pointers.is_empty() {
                self.report.add_repository(RepositoryHealth {
                    repository: at.repo.to_string(),
                    healthy: at.pointers.len() as u64 - unhealthy,
                    unhealthy,
                });
            }
            return Ok(false);
        }
        Ok(true)
    }

    /// Everything of the repository has been looked at: says who is affected, and mends.
    async fn conclude(
        &mut self,
        at: &mut Inspecting,
        mut finding: Finding,
        subject: &Subject,
    ) -> Result<()> {
        if let (Subject::Manifest(digest) | Subject::Layer(digest), false) =
            (subject, finding.fault.is_debris())
        {
            finding.tags = at.affected(digest);
        }
        if self.may_mend(&finding) {
            let mended = self.registry.mend(&at.repo, &finding, subject).await;
            finding.outcome = match mended {
                Ok(true) => {
                    at.mended(subject, &finding);
                    Outcome::Mended
                }
                // It is no longer as it was found.
                Ok(false) => return Ok(()),
                Err(e) if e.is_away() => return Err(e),
                Err(e) => Outcome::Failed {
                    reason: e.to_string(),
                },
            };
        }
        self.found(finding);
        Ok(())
    }

    fn may_mend(&self, finding: &Finding) -> bool {
        let is_possible = !matches!(finding.remedy, Remedy::Wait | Remedy::Leave | Remedy::Push);
        let is_allowed = match self.scope.mend {
            Mend::Nothing => false,
            Mend::Proven => !finding.needs_consent,
            Mend::All => true,
        };
        is_possible && is_allowed && !self.scope.dry_run
    }
}

impl Inspecting {
    /// One that only a push mends, until somebody knows better.
    pub(super) fn finding(&self, fault: Fault, digest: Option<&Digest>) -> Finding {
        Finding {
            fault,
            remedy: Remedy::Push,
            needs_consent: true,
            outcome: Outcome::Open,
            repository: Some(self.repo.to_string()),
            tags: Vec::new(),
            digest: digest.map(Digest::to_string),
            note: String::new(),
        }
    }

    /// Notes that a manifest lacks something; true if nothing was known to lack it before.
    pub(super) fn breaks(&mut self, manifest: Digest, lacks: Digest) -> bool {
        let is_new = !self.broken.values().any(|lacking| lacking.contains(&lacks));
        self.broken.entry(manifest).or_default().insert(lacks);
        is_new
    }

    fn mended(&mut self, subject: &Subject, finding: &Finding) {
        match subject {
            Subject::Manifest(digest) | Subject::Layer(digest) => {
                for lacking in self.broken.values_mut() {
                    lacking.remove(digest);
                }
                self.broken.retain(|_, lacking| !lacking.is_empty());
            }
            Subject::Tag(tag) => {
                if let Remedy::History { digest } = &finding.remedy {
                    self.pointers.insert(tag.clone(), digest.parse().ok());
                }
            }
            Subject::File(_) => {}
        }
    }

    /// Whether a manifest, or one that it lists, lacks something.
    fn is_broken(&self, digest: &Digest) -> bool {
        self.reaches(digest, &|d| self.broken.contains_key(d))
    }

    /// The tags whose image lacks `digest`.
    fn affected(&self, digest: &Digest) -> Vec<String> {
        let lacks = |d: &Digest| {
            d == digest
                || self
                    .broken
                    .get(d)
                    .is_some_and(|lacking| lacking.contains(digest))
        };
        self.pointers
            .iter()
            .filter(|(_, target)| target.is_some_and(|target| self.reaches(&target, &lacks)))
            .map(|(tag, _)| tag.to_string())
            .take(TAGS)
            .collect()
    }

    fn reaches(&self, from: &Digest, is_it: &dyn Fn(&Digest) -> bool) -> bool {
        let (mut todo, mut seen) = (vec![*from], HashSet::new());
        while let Some(digest) = todo.pop() {
            if !seen.insert(digest) {
                continue;
            }
            if is_it(&digest) {
                return true;
            }
            todo.extend(self.children.get(&digest).into_iter().flatten());
        }
        false
    }
}
