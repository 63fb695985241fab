//! Manifests, and whether what they refer to is there and whole.

use super::Verification;
use super::finding::{Fault, Remedy};
use super::links::Link;
use super::repository::{Inspecting, Subject};
use crate::oci::{Digest, Manifest, Role};
use crate::registry::settings::Platforms;
use crate::registry::{Registry, Result};
use crate::storage::{BLOB, Dir, Filled, Key};

impl Registry {
    /// What is wrong with content that something leads to, if anything is; and its size.
    pub(super) async fn content_on_disk(
        &self,
        digest: &Digest,
        may_move: bool,
    ) -> Result<std::result::Result<u64, Fault>> {
        if self.0.verified.is_damaged(digest) {
            return Ok(Err(Fault::DamagedContent));
        }
        let len = match self.store().stat(&Key::Blob(*digest)).await {
            Ok(meta) => meta.len,
            Err(e) if e.is_not_found() => {
                let is_known = self.is_quarantined(digest).await?;
                let fault = if is_known {
                    Fault::DamagedContent
                } else {
                    Fault::MissingContent
                };
                return Ok(Err(fault));
            }
            Err(e) => return Err(e.into()),
        };
        if len == 0
            && digest.algorithm().digest(b"") != *digest
            && let Some(fault) = self.confirm_damage(digest, may_move).await?
        {
            return Ok(Err(fault));
        }
        Ok(Ok(len))
    }

    /// As `confirm_damage`, of content that may be sound.
    async fn confirm_damage_of(&self, digest: &Digest, may_move: bool) -> Result<Option<Fault>> {
        if self.0.verified.is_good(digest) {
            return Ok(None);
        }
        self.confirm_damage(digest, may_move).await
    }
}

impl Verification {
    pub(super) async fn manifest(&mut self, at: &mut Inspecting, digest: Digest) -> Result<()> {
        let registry = self.registry.clone();
        let may_move = !self.scope.dry_run;
        let key = Key::Revision(at.repo.clone(), digest);
        let dir = Dir::Revision(at.repo.clone(), digest);
        self.link_leftovers(at, &dir, &key).await?;
        let (content, folder) = (Key::Blob(digest), Dir::Blob(digest));
        self.leftovers(at, &folder, &content, BLOB).await?;
        let _shared = registry.0.locks.share(&at.repo).await;
        let link = registry.link_on_disk(&key).await?;
        if link == Link::Missing {
            if registry.store().has(&dir).await? {
                self.debris(Fault::EmptyFolder, dir.to_string());
            }
            return Ok(());
        }
        self.report.manifests += 1;
        at.children.insert(digest, Vec::new());
        self.unnamed.remove(&digest);
        if let Err(fault) = registry.content_on_disk(&digest, may_move).await? {
            return self
                .bad_content(at, digest, fault, Subject::Manifest(digest), &[digest])
                .await;
        }
        if link != Link::To(digest) {
            let mut finding = at.finding(Fault::DamagedManifestLink, Some(&digest));
            (finding.remedy, finding.needs_consent) = (Remedy::Path, false);
            at.findings.push((finding, Subject::Manifest(digest)));
            at.breaks(digest, digest);
        }
        let manifest = match registry.manifest_bytes(&digest).await {
            Ok(bytes) => Manifest::parse(bytes, None),
            Err(e) if e.is_away() => return Err(e),
            // The digest is right until its content is read: that is done here, if it was not before.
            Err(_) => {
                let fault = registry.confirm_damage(&digest, may_move).await?;
                let fault = fault.unwrap_or(Fault::UnreadableContent);
                return self
                    .bad_content(at, digest, fault, Subject::Manifest(digest), &[digest])
                    .await;
            }
        };
        let manifest = match manifest {
            Ok(manifest) => manifest,
            Err(e) => {
                let mut finding = at.finding(Fault::UnknownManifest, Some(&digest));
                finding.note = e.to_string();
                at.findings.push((finding, Subject::Manifest(digest)));
                at.breaks(digest, digest);
                return Ok(());
            }
        };
        let mark = Key::Filled(at.repo.clone(), Filled::Manifest(digest));
        let is_fetched = registry.store().stat(&mark).await.is_ok();
        for (descriptor, role) in manifest.references() {
            let needed = descriptor.digest;
            match role {
                Role::Subject => {}
                Role::Child => {
                    at.children.entry(digest).or_default().push(needed);
                    let revision = Key::Revision(at.repo.clone(), needed);
                    let may_miss =
                        is_fetched || registry.settings().manifests.platforms != Platforms::All;
                    if !may_miss && registry.link_on_disk(&revision).await? == Link::Missing {
                        let mut finding = at.finding(Fault::MissingManifest, Some(&needed));
                        finding.note = format!("listed by {digest}");
                        at.findings.push((finding, Subject::Manifest(needed)));
                        at.breaks(digest, needed);
                    }
                }
                Role::Config | Role::Layer | Role::ForeignLayer => {
                    at.needed.insert(needed);
                    self.reference(
                        at,
                        &digest,
                        &needed,
                        descriptor.size,
                        is_fetched || role == Role::ForeignLayer,
                    )
                    .await?;
                }
            }
        }
        Ok(())
    }

    /// A blob that a manifest needs.
    async fn reference(
        &mut self,
        at: &mut Inspecting,
        by: &Digest,
        needed: &Digest,
        size: u64,
        may_miss: bool,
    ) -> Result<()> {
        let link = Key::Layer(at.repo.clone(), *needed);
        let link = self.registry.link_on_disk(&link).await?;
        let target = match link {
            Link::Missing if may_miss => return Ok(()),
            Link::Missing => {
                if at.breaks(*by, *needed) {
                    let finding = at.finding(Fault::MissingLayerLink, Some(needed));
                    at.findings.push((finding, Subject::Layer(*needed)));
                }
                return Ok(());
            }
            Link::To(target) if target.algorithm() != needed.algorithm() => target,
            Link::To(_) | Link::Damaged => *needed,
        };
        self.unnamed.remove(&target);
        let may_move = !self.scope.dry_run;
        let fault = match self.registry.content_on_disk(&target, may_move).await? {
            Ok(stored) if stored == size => {
                if link != Link::To(target) {
                    at.breaks(*by, *needed); // what is wrong with the link is said with the links
                }
                return Ok(());
            }
            // One of the two lies.
            Ok(stored) => match self.registry.confirm_damage_of(&target, may_move).await? {
                Some(fault) => fault,
                None => {
                    at.breaks(*by, *needed);
                    let mut finding = at.finding(Fault::WrongSize, Some(needed));
                    finding.note = format!("{by} says {size} bytes, it has {stored}");
                    at.findings.push((finding, Subject::Layer(*needed)));
                    return Ok(());
                }
            },
            Err(fault) => fault,
        };
        self.bad_content(at, *needed, fault, Subject::Layer(*needed), &[*by])
            .await
    }

    /// Content that is missing or damaged; said once in a repository, of whatever needs it.
    async fn bad_content(
        &mut self,
        at: &mut Inspecting,
        digest: Digest,
        fault: Fault,
        subject: Subject,
        by: &[Digest],
    ) -> Result<()> {
        let fault = self.bad.get(&digest).copied().unwrap_or(fault);
        if self.bad.len() < super::BAD {
            self.bad.insert(digest, fault);
        }
        for manifest in by {
            at.breaks(*manifest, digest);
        }
        if at
            .findings
            .iter()
            .any(|(f, s)| *s == subject && f.fault == fault)
        {
            return Ok(());
        }
        let mut finding = at.finding(fault, Some(&digest));
        if self.registry.is_quarantined(&digest).await? {
            finding.note = format!("kept in {}", Key::Quarantined(digest, 0));
        }
        if self.registry.has_upstream() {
            let what = match &subject {
                Subject::Manifest(digest) => Filled::Manifest(*digest),
                _ => Filled::Blob(digest),
            };
            let mark = Key::Filled(at.repo.clone(), what);
            finding.remedy = Remedy::Upstream;
            finding.needs_consent = self.registry.store().stat(&mark).await.is_err();
        }
        // What was pushed here: who configures them says that they may be asked for anything.
        if finding.needs_consent && self.registry.has_peers() {
            (finding.remedy, finding.needs_consent) = (Remedy::Peer, false);
        }
        at.findings.push((finding, subject));
        Ok(())
    }
}
