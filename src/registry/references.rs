//! What a manifest refers to: whether it may, whether it is here, and that it stays.

use std::collections::HashMap;

use futures_util::stream::{self, StreamExt};
use regex_lite::Regex;

use super::settings::{ManifestRules, Platforms};
use super::{Error, Registry, Result, SettingsError};
use crate::oci::{Descriptor, Digest, Manifest, RepoName, Role};
use crate::storage::Key;

/// References looked up at once.
const AT_ONCE: usize = 16;

/// Which addresses of foreign layers may be pushed.
pub(super) struct UrlRules {
    allow: Vec<Regex>,
    deny: Vec<Regex>,
}

impl UrlRules {
    pub(super) fn new(rules: &ManifestRules) -> Result<Self, SettingsError> {
        let compile = |patterns: &[String]| -> Result<Vec<Regex>, SettingsError> {
            let failed = |pattern: &str, e: regex_lite::Error| SettingsError {
                pattern: pattern.to_owned(),
                reason: e.to_string(),
            };
            patterns
                .iter()
                .map(|pattern| Regex::new(pattern).map_err(|e| failed(pattern, e)))
                .collect()
        };
        Ok(UrlRules {
            allow: compile(&rules.allow_urls)?,
            deny: compile(&rules.deny_urls)?,
        })
    }

    fn permit(&self, url: &str) -> bool {
        let web = url.starts_with("https://") || url.starts_with("http://");
        let allowed =
            self.allow.is_empty() || self.allow.iter().any(|pattern| pattern.is_match(url));
        web && allowed && !self.deny.iter().any(|pattern| pattern.is_match(url))
    }
}

impl Registry {
    /// `UrlDenied`.
    pub(super) fn check_urls(&self, manifest: &Manifest) -> Result<()> {
        if !self.settings().manifests.enabled {
            return Ok(());
        }
        let mut urls = manifest.references().flat_map(|(what, _)| &what.urls);
        match urls.find(|url| !self.0.urls.permit(url)) {
            Some(url) => Err(Error::UrlDenied(url.clone())),
            None => Ok(()),
        }
    }

    /// Everything that a manifest needs is in the repository, with the size it says. All that it refers to and that is here is
    /// vouched for, needed or not: a collection under way may have looked at the repository before.
    ///
    /// A content of another size may be damaged: `sound` says which is not. Some if it does not, and has to.
    pub(super) async fn check_references(
        &self,
        repo: &RepoName,
        manifest: &Manifest,
        sound: &HashMap<Digest, bool>,
    ) -> Result<Option<Digest>> {
        let rules = &self.settings().manifests;
        let mut sizes = self.sizes_of(repo, manifest);
        let mut unknown = Vec::new();
        while let Some((descriptor, role, size)) = sizes.next().await {
            if !(rules.enabled && is_needed(rules, &descriptor, role)) {
                continue;
            }
            let digest = descriptor.digest;
            match size? {
                None => unknown.push(digest),
                Some(stored) if stored == descriptor.size => {}
                // One of the two lies: if it is the disk, the content is missing and can be pushed again.
                Some(stored) => match sound.get(&digest) {
                    None => return Ok(Some(digest)),
                    Some(false) => unknown.push(digest),
                    Some(true) => {
                        return Err(Error::SizeMismatch {
                            digest,
                            claimed: descriptor.size,
                            stored,
                        });
                    }
                },
            }
        }
        if unknown.is_empty() {
            Ok(None)
        } else {
            Err(Error::ReferencesUnknown(unknown))
        }
    }

    /// What a manifest refers to but its subject, with the size of what is here, which is vouched for.
    fn sizes_of<'a>(
        &'a self,
        repo: &'a RepoName,
        manifest: &Manifest,
    ) -> impl StreamExt<Item = (Descriptor, Role, Result<Option<u64>>)> + Unpin + 'a {
        let all: Vec<(Descriptor, Role)> = manifest
            .references()
            .filter(|(_, role)| *role != Role::Subject)
            .map(|(descriptor, role)| (descriptor.clone(), role))
            .collect();
        let sizes = stream::iter(all).map(move |(what, role)| async move {
            let size = self.size_of(repo, &what.digest, role).await;
            (what, role, size)
        });
        Box::pin(sizes.buffered(AT_ONCE))
    }

    /// The size of what a descriptor names; `None` if the repository does not have it.
    async fn size_of(&self, repo: &RepoName, digest: &Digest, role: Role) -> Result<Option<u64>> {
        let size = if role == Role::Child && self.vouched_revision(repo, digest).await? {
            let stat = self.store().stat(&Key::Blob(*digest)).await;
            super::error::or_unknown(stat.map(|meta| meta.len), Error::BlobUnknown)
        } else {
            // Also a child: the build caches that BuildKit writes unless told otherwise are indexes of layers.
            self.stat_blob(repo, digest).await
        };
        match size {
            Ok(len) => Ok(Some(len)),
            Err(Error::BlobUnknown) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// What a manifest refers to stays, as far as it is here, whether it is needed or not: a collection under way may have
    /// looked at the repository before.
    pub(super) async fn vouch_for_references(&self, repo: &RepoName, manifest: &Manifest) {
        let mut all = self.sizes_of(repo, manifest);
        while all.next().await.is_some() {}
    }
}

fn is_needed(rules: &ManifestRules, descriptor: &Descriptor, role: Role) -> bool {
    match (role, rules.platforms) {
        (Role::Subject | Role::ForeignLayer, _) => false,
        (Role::Child, Platforms::None) => false,
        (Role::Child, Platforms::List) => rules.platform_list.iter().any(|wanted| {
            descriptor
                .platform
                .as_ref()
                .is_some_and(|p| p.os == wanted.os && p.architecture == wanted.architecture)
        }),
        _ => true,
    }
}
