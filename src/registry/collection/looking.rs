//! The part of a collection that looks at one repository after the other.

use std::collections::{HashMap, HashSet};

use super::super::Result;
use super::super::marks::Marks;
use super::super::survey::{Found, Unreadable, unreached};
use super::super::sweep::Swept;
use super::held::Note;
use super::{Collection, Removed, Stage, Stepped};
use crate::oci::{Algorithm, Digest, RepoName};
use crate::storage::{Dir, Key};

/// A repository that is being looked at.
pub(super) struct Looking {
    pub(super) repo: RepoName,
    /// Whether it is in the catalog.
    listed: bool,
    pub(super) tagged: HashSet<Digest>,
    /// What an undo may need, still to be read.
    notes: Vec<Note>,
    /// Whether there was any.
    noted: bool,
    /// Manifests that were deleted and can be brought back.
    held: HashSet<Digest>,
    /// Manifests still to be read, and those that were.
    unread: Vec<Digest>,
    read: HashSet<Digest>,
    /// Those that are the repository's own, and those that its indexes list.
    linked: HashSet<Digest>,
    children: HashSet<Digest>,
    found: HashMap<Digest, Found>,
    /// Folders that deleted manifests left.
    orphans: Vec<Digest>,
    /// Why what its manifests refer to is not known.
    doubt: Option<String>,
    /// Whether a link is kept that nothing refers to.
    young: bool,
    part: Part,
}

enum Part {
    Read,
    /// Untagged manifests, those that keep others last; which stay after all; what these keep.
    Untagged {
        left: Vec<Digest>,
        survivors: HashSet<Digest>,
        spared: HashSet<Digest>,
    },
    Links {
        marks: Marks,
        left: Vec<Digest>,
        removed: bool,
    },
    End,
}

impl Looking {
    /// A manifest that nobody can see keeps what it refers to.
    pub(super) fn hold(&mut self, digest: Digest) {
        self.held.insert(digest);
        self.unread.push(digest);
        // What only it lists is no untagged manifest.
        self.tagged.insert(digest);
    }

    /// What is kept for some manifests, and for what they list.
    fn marks_of<'a>(&'a self, roots: impl Iterator<Item = &'a Digest>) -> Marks {
        let mut marks = Marks::default();
        let (mut todo, mut done): (Vec<&Digest>, _) = (roots.collect(), HashSet::new());
        while let Some(digest) = todo.pop() {
            if !done.insert(digest) {
                continue;
            }
            match self.found.get(digest) {
                Some(found) => {
                    found.mark(&mut marks);
                    todo.extend(&found.children);
                }
                // It could not be read, or it has been removed.
                None if self.doubt.is_some() => marks.insert(digest),
                None => {}
            }
        }
        marks
    }
}

impl Collection {
    pub(super) async fn next_repo(&mut self, mut left: Vec<(RepoName, bool)>) -> Result<Stepped> {
        let Some((repo, has_manifests)) = left.pop() else {
            let shards = |algorithm| (0..=255).map(move |first| (algorithm, first));
            self.stage = Stage::Blobs {
                shards: Algorithm::ALL.into_iter().flat_map(shards).collect(),
                unmarked: Vec::new(),
            };
            return Ok(Stepped::Looked);
        };
        // In a store without folders nothing is left of a repository without manifests, but its name.
        let listed = has_manifests || self.registry.0.catalog.contains(&repo);
        self.report.repositories += u64::from(listed);
        // What is accepted from now on vouches for what it refers to.
        let shared = self.registry.0.locks.share(&repo).await;
        let (unread, strange) = self.registry.revision_names(&repo).await?;
        let tagged = if self.scope.untagged {
            let tags = self.registry.tag_list(&repo).await?;
            tags.values().copied().collect()
        } else {
            HashSet::new()
        };
        drop(shared);
        let notes = self.notes(&repo).await?;
        let doubt = strange.then(|| "it has manifests with names of an unknown kind".to_owned());
        let looking = Looking {
            repo,
            listed,
            tagged,
            noted: !notes.is_empty(),
            notes,
            held: HashSet::new(),
            unread,
            read: HashSet::new(),
            linked: HashSet::new(),
            children: HashSet::new(),
            found: HashMap::new(),
            orphans: Vec::new(),
            doubt,
            young: false,
            part: Part::Read,
        };
        let now = Some(Box::new(looking));
        self.stage = Stage::Repositories { left, now };
        Ok(Stepped::Looked)
    }

    pub(super) async fn look(
        &mut self,
        left: Vec<(RepoName, bool)>,
        mut looking: Box<Looking>,
    ) -> Result<Stepped> {
        let part = std::mem::replace(&mut looking.part, Part::End);
        let (stepped, next) = match part {
            Part::Read => self.read(&mut looking).await?,
            Part::Untagged {
                left,
                survivors,
                spared,
            } => self.untagged(&mut looking, left, survivors, spared).await?,
            Part::Links {
                marks,
                left,
                removed,
            } => self.links(&mut looking, marks, left, removed).await?,
            Part::End => (self.end(&looking).await?, None),
        };
        let now = next.map(|part| {
            looking.part = part;
            looking
        });
        self.stage = Stage::Repositories { left, now };
        Ok(stepped)
    }

    async fn read(&mut self, looking: &mut Looking) -> Result<(Stepped, Option<Part>)> {
        let again = Ok((Stepped::Looked, Some(Part::Read)));
        if let Some(note) = looking.notes.pop() {
            self.read_note(looking, note).await?;
            return again;
        }
        let Some(digest) = looking.unread.pop() else {
            let Some(orphan) = looking.orphans.pop() else {
                return Ok((Stepped::Looked, Some(self.unreached(looking))));
            };
            if !looking.children.contains(&orphan) {
                let (repo, rules) = (looking.repo.clone(), self.rules());
                let swept = self.registry.sweep_revision_folder(repo, orphan, rules);
                self.report.debris += u64::from(swept.await?);
            }
            return again;
        };
        if looking.read.contains(&digest) {
            return again;
        }
        let link = Key::Revision(looking.repo.clone(), digest);
        match self.registry.store().stat(&link).await {
            Ok(_) => _ = looking.linked.insert(digest),
            Err(e) if !e.is_not_found() => return Err(e.into()),
            Err(_) if looking.children.contains(&digest) || looking.held.contains(&digest) => {}
            // It may have been deleted since the notes were listed.
            Err(_) if self.is_held(&looking.repo, &digest).await? => {
                _ = looking.held.insert(digest)
            }
            Err(_) => {
                looking.orphans.push(digest);
                return again;
            }
        }
        looking.read.insert(digest);
        let is_only_held = looking.held.contains(&digest)
            && !looking.linked.contains(&digest)
            && !looking.children.contains(&digest);
        let mut looked = self.registry.look_into(&looking.repo, &digest).await;
        if matches!(looked, Err(Unreadable::Foreign)) && looking.linked.contains(&digest) {
            looked = self
                .registry
                .look_for_mentions(&looking.repo, &digest)
                .await;
        }
        match looked {
            Ok(found) => {
                self.report.manifests += 1;
                for child in &found.children {
                    if looking.children.insert(*child) {
                        looking.unread.push(*child);
                    }
                }
                looking.found.insert(digest, found);
            }
            // A child that was never pushed, or was deleted, refers to nothing; nor does one that is no manifest.
            Err(Unreadable::Missing | Unreadable::Foreign) if !looking.linked.contains(&digest) => {
            }
            // Nor can this be brought back.
            Err(_) if is_only_held => {}
            Err(e) => {
                let doubt = || format!("the manifest {digest}: {e}");
                looking.doubt.get_or_insert_with(doubt);
            }
        }
        again
    }

    fn unreached(&self, looking: &Looking) -> Part {
        let mut left = Vec::new();
        if self.scope.untagged && looking.doubt.is_none() {
            left = unreached(&looking.found, &looking.tagged);
            left.retain(|digest| looking.linked.contains(digest));
            left.reverse();
        }
        Part::Untagged {
            left,
            survivors: HashSet::new(),
            spared: HashSet::new(),
        }
    }

    async fn untagged(
        &mut self,
        looking: &mut Looking,
        mut left: Vec<Digest>,
        mut survivors: HashSet<Digest>,
        mut spared: HashSet<Digest>,
    ) -> Result<(Stepped, Option<Part>)> {
        let Some(digest) = left.pop() else {
            let part = self.layers(looking).await?;
            return Ok((Stepped::Looked, Some(part)));
        };
        let found = looking.found.get(&digest);
        let about_survivor = found
            .and_then(|found| found.subject)
            .is_some_and(|subject| survivors.contains(&subject));
        let is_kept = spared.contains(&digest) || about_survivor;
        let swept = if is_kept {
            Swept::Young(0)
        } else {
            let repo = looking.repo.clone();
            let rules = self.rules();
            self.registry.sweep_revision(repo, digest, rules).await?
        };
        let mut stepped = Stepped::Looked;
        if let Swept::Young(_) = swept {
            survivors.insert(digest);
            spared.extend(found.iter().flat_map(|found| &found.children));
        } else {
            looking.found.remove(&digest);
            self.report.untagged += 1;
            let repo = looking.repo.clone();
            stepped = Stepped::Removed(Removed::Manifest { repo, digest });
        }
        let part = Part::Untagged {
            left,
            survivors,
            spared,
        };
        Ok((stepped, Some(part)))
    }

    /// What the repository has links to, and need not have.
    async fn layers(&mut self, looking: &Looking) -> Result<Part> {
        let mut marks = looking.marks_of(looking.linked.iter());
        let mut held = looking.marks_of(looking.held.iter());
        let repo = &looking.repo;
        let (mut layers, strange) = self.registry.layer_names(repo).await?;
        if let Some(doubt) = &looking.doubt {
            self.doubt(format!("everything in {repo} is kept: {doubt}"));
            // Links of an unknown kind may lead anywhere.
            self.blind |= strange;
            for layer in layers.drain(..) {
                marks.insert(&layer);
                if let Some(target) = self.registry.alias(repo, &layer).await {
                    marks.insert(&target);
                }
            }
        }
        layers.retain(|layer| !marks.contains(layer) && !held.contains(layer));
        self.held.extend(held.into_marks());
        Ok(Part::Links {
            marks,
            left: layers,
            removed: false,
        })
    }

    async fn links(
        &mut self,
        looking: &mut Looking,
        marks: Marks,
        mut left: Vec<Digest>,
        mut removed: bool,
    ) -> Result<(Stepped, Option<Part>)> {
        let (registry, repo) = (&self.registry, &looking.repo);
        let Some(digest) = left.pop() else {
            if removed {
                // I1: before the content goes.
                for algorithm in Algorithm::ALL {
                    let folder = Dir::Layers(repo.clone(), algorithm);
                    registry.store().sync(&folder).await?;
                }
            }
            self.marks.extend(marks.into_marks());
            return Ok((Stepped::Looked, Some(Part::End)));
        };
        let rules = self.rules();
        match registry.sweep_layer(repo.clone(), digest, rules).await? {
            Swept::Young(_) => {
                self.young.insert(&digest);
                if let Some(target) = registry.alias(repo, &digest).await {
                    self.young.insert(&target);
                }
                looking.young = true;
            }
            Swept::Debris => self.report.debris += 1,
            Swept::Removed(_) => {
                self.report.links += 1;
                removed = !rules.dry_run;
            }
        }
        let part = Part::Links {
            marks,
            left,
            removed,
        };
        Ok((Stepped::Looked, Some(part)))
    }

    async fn end(&mut self, looking: &Looking) -> Result<Stepped> {
        let has_manifests = looking.linked.iter().any(|d| looking.found.contains_key(d));
        let is_empty = !has_manifests && !looking.young && looking.doubt.is_none();
        // One that nobody sees any more may have been left for what could be brought back.
        if !(looking.listed || looking.noted) || !is_empty {
            return Ok(Stepped::Looked);
        }
        let (repo, rules) = (looking.repo.clone(), self.rules());
        let swept = self
            .registry
            .sweep_repo(repo.clone(), !looking.held.is_empty(), rules);
        if !swept.await? || !looking.listed {
            return Ok(Stepped::Looked);
        }
        self.report.emptied += 1;
        Ok(Stepped::Removed(Removed::Repository(repo)))
    }
}
