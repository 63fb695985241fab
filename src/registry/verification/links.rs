//! Links, to the letter: of tags, of blobs that no manifest needs; and what lies beside them.

use super::Verification;
use super::finding::{Fault, Remedy};
use super::repository::{Inspecting, Subject};
use crate::oci::{Algorithm, Digest, RepoName, Tag};
use crate::registry::{Registry, Result};
use crate::storage::{Body, Dir, Key, LINK, STARTED, UploadId, unfinished};

/// What a file says that should hold a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Missing,
    Damaged,
    To(Digest),
}

impl Registry {
    /// What a link says, on the disk itself: to the letter, since distribution takes no other.
    pub(super) async fn link_on_disk(&self, key: &Key) -> Result<Link> {
        let object = match self.store().read(key, None).await {
            Ok(object) => object,
            Err(e) if e.is_not_found() => return Ok(Link::Missing),
            Err(e) => return Err(e.into()),
        };
        let Body::Bytes(bytes) = object.body else {
            return Ok(Link::Damaged);
        };
        let text = std::str::from_utf8(&bytes).ok();
        let digest = text.and_then(|text| text.parse().ok());
        Ok(digest.map_or(Link::Damaged, Link::To))
    }

    /// The manifest that a tag points to, as far as its history tells: the one there of all that it ever pointed to. The
    /// caller holds the repository's lock.
    pub(super) async fn only_target(&self, repo: &RepoName, tag: &Tag) -> Result<Option<Digest>> {
        let mut there = Vec::new();
        for algorithm in Algorithm::ALL {
            let dir = Dir::TagIndexes(repo.clone(), tag.clone(), algorithm);
            for name in self.store().list(&dir, None, usize::MAX).await? {
                let Ok(digest) = Digest::from_parts(algorithm, &name) else {
                    continue;
                };
                // One that was deleted took its tags with it.
                let revision = Key::Revision(repo.clone(), digest);
                if self.link_on_disk(&revision).await? != Link::Missing {
                    there.push(digest);
                }
            }
        }
        match there[..] {
            [digest] if self.look_into(repo, &digest).await.is_ok() => Ok(Some(digest)),
            _ => Ok(None),
        }
    }
}

impl Registry {
    /// Whether a tag is known to have pointed to anything.
    pub(super) async fn has_history(&self, repo: &RepoName, tag: &Tag) -> Result<bool> {
        for algorithm in Algorithm::ALL {
            let dir = Dir::TagIndexes(repo.clone(), tag.clone(), algorithm);
            if !self.store().list(&dir, None, 1).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Verification {
    pub(super) async fn tag(&mut self, at: &mut Inspecting, name: &str) -> Result<()> {
        let folder = || format!("{}/{name}", Dir::Tags(at.repo.clone()));
        let Ok(tag) = name.parse::<Tag>() else {
            self.debris(Fault::StrangeName, folder());
            return Ok(());
        };
        let key = Key::Tag(at.repo.clone(), tag.clone());
        let dir = Dir::TagCurrent(at.repo.clone(), tag.clone());
        self.link_leftovers(at, &dir, &key).await?;
        let shared = self.registry.0.locks.share(&at.repo).await;
        let link = self.registry.link_on_disk(&key).await?;
        let target = match link {
            Link::To(digest) => {
                let revision = Key::Revision(at.repo.clone(), digest);
                let is_there = self.registry.link_on_disk(&revision).await? != Link::Missing;
                drop(shared);
                at.pointers.insert(tag.clone(), is_there.then_some(digest));
                if !is_there {
                    let mut finding = at.finding(Fault::MissingManifest, Some(&digest));
                    finding.tags = vec![tag.to_string()];
                    at.findings.push((finding, Subject::Tag(tag)));
                }
                return Ok(());
            }
            // Removed since its name was read.
            Link::Missing
                if !self
                    .registry
                    .store()
                    .has(&Dir::Tag(at.repo.clone(), tag.clone()))
                    .await? =>
            {
                return Ok(());
            }
            Link::Missing | Link::Damaged => self.registry.only_target(&at.repo, &tag).await?,
        };
        drop(shared);
        let fault = match link {
            Link::Missing => Fault::UnfinishedTag,
            _ => Fault::DamagedTag,
        };
        let mut finding = at.finding(fault, None);
        finding.tags = vec![tag.to_string()];
        match target {
            Some(digest) => {
                finding.remedy = Remedy::History {
                    digest: digest.to_string(),
                };
                // A tag that nobody ever got an answer for may be meant to be nothing.
                finding.needs_consent = fault == Fault::UnfinishedTag;
                at.pointers.insert(tag.clone(), Some(digest));
            }
            None if fault == Fault::DamagedTag => _ = at.pointers.insert(tag.clone(), None),
            None if self.registry.has_history(&at.repo, &tag).await? => {}
            None => finding.remedy = Remedy::Remove,
        }
        at.findings.push((finding, Subject::Tag(tag)));
        Ok(())
    }

    pub(super) async fn layer(&mut self, at: &mut Inspecting, digest: Digest) -> Result<()> {
        let registry = self.registry.clone();
        let (key, dir) = (
            Key::Layer(at.repo.clone(), digest),
            Dir::Layer(at.repo.clone(), digest),
        );
        self.link_leftovers(at, &dir, &key).await?;
        let link = registry.link_on_disk(&key).await?;
        let target = match link {
            Link::Missing => {
                if registry.store().has(&dir).await? {
                    self.debris(Fault::EmptyFolder, dir.to_string());
                }
                return Ok(());
            }
            Link::To(target) if target.algorithm() != digest.algorithm() => target,
            Link::To(_) | Link::Damaged => digest,
        };
        self.unnamed.remove(&target);
        match registry
            .content_on_disk(&target, !self.scope.dry_run)
            .await?
        {
            Err(_) if at.needed.contains(&digest) => {}
            // The link goes before its content, so it has to be looked for once more.
            Err(fault) if registry.link_on_disk(&key).await? != Link::Missing => {
                let fault = match fault {
                    Fault::MissingContent => Fault::DanglingLink,
                    bad => bad,
                };
                let mut finding = at.finding(fault, Some(&digest));
                finding.remedy = Remedy::Wait;
                if fault != Fault::DanglingLink {
                    finding.note = "no manifest needs it".to_owned();
                }
                at.findings.push((finding, Subject::Layer(digest)));
            }
            Err(_) => {}
            Ok(_) if link == Link::To(target) => {}
            Ok(_) => {
                let mut finding = at.finding(Fault::DamagedLayerLink, Some(&digest));
                (finding.remedy, finding.needs_consent) = (Remedy::Path, false);
                at.findings.push((finding, Subject::Layer(digest)));
            }
        }
        Ok(())
    }

    pub(super) async fn upload(&mut self, at: &mut Inspecting, name: &str) -> Result<()> {
        let path = || format!("{}/{name}", Dir::Uploads(at.repo.clone()));
        let Ok(id) = name.parse::<UploadId>() else {
            self.debris(Fault::StrangeName, path());
            return Ok(());
        };
        let started = Key::UploadStarted(at.repo.clone(), id);
        let is_alive = match self.registry.store().stat(&started).await {
            Ok(meta) => meta.len > 0,
            Err(e) if e.is_not_found() => false,
            Err(e) => return Err(e.into()),
        };
        let folder = Dir::Upload(at.repo.clone(), id);
        if !is_alive && self.registry.store().has(&folder).await? {
            self.debris(Fault::DeadUpload, path());
        }
        self.leftovers(at, &folder, &started, STARTED).await
    }

    pub(super) async fn link_leftovers(
        &mut self,
        at: &mut Inspecting,
        dir: &Dir,
        key: &Key,
    ) -> Result<()> {
        self.leftovers(at, dir, key, LINK).await
    }

    /// What distribution was stopped in the middle of, beside `file`.
    pub(super) async fn leftovers(
        &mut self,
        at: &mut Inspecting,
        dir: &Dir,
        key: &Key,
        file: &str,
    ) -> Result<()> {
        for name in self.registry.store().list(dir, None, usize::MAX).await? {
            if let Some(id) = unfinished(&name, file) {
                let key = Key::Unfinished(Box::new(key.clone()), id);
                let mut finding = at.finding(Fault::UnfinishedFile, None);
                (finding.remedy, finding.note) = (Remedy::Remove, key.to_string());
                at.findings.push((finding, Subject::File(key)));
            }
        }
        Ok(())
    }
}
