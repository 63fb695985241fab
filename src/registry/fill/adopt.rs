//! The content of a mirror that was CNCF distribution's: its `scheduler-state.json` names everything that it fetched. Without
//! that, tags which it fetched would count as pushed, and stay as they are for ever.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use crate::oci::{Digest, RepoName};
use crate::registry::{Registry, Result};
use crate::storage::{Dir, Durability, Filled, Key};

/// Larger files (some 300,000 entries) are left alone.
const LIMIT: usize = 64 << 20;

/// One of distribution's entries. When it would have expired there does not matter: its time begins anew.
#[derive(Deserialize)]
struct Entry {
    /// `library/alpine@sha256:...`
    #[serde(rename = "Key")]
    key: String,
}

impl Registry {
    /// Marks what another mirror fetched, when this is the first start as one. The file itself stays, for the way back.
    pub(super) async fn adopt(&self) -> Result<()> {
        let state = match self.store().get(&Key::SchedulerState, LIMIT).await {
            Ok(state) => state,
            Err(e) if e.is_not_found() => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        let fetched = entries(&state);
        let (mut marks, mut tags) = (0, 0);
        for (repo, digests) in &fetched {
            let (done, marked) = self.adopt_in(repo, digests).await?;
            marks += done;
            tags += marked;
        }
        if marks > 0 {
            log::info!(
                "{tags} tags and {marks} manifests and blobs that the mirror before this one fetched are the upstream's"
            );
        }
        Ok(())
    }

    /// Flushes nothing: should a power cut take a mark away, its content is kept for longer than it need be.
    async fn adopt_in(&self, repo: &RepoName, digests: &HashSet<Digest>) -> Result<(usize, usize)> {
        let put = async |what: Filled, text: String| {
            let key = Key::Filled(repo.clone(), what);
            self.store().put(&key, text.into(), Durability::Lazy).await
        };
        let _repo = self.0.locks.share(repo).await;
        let mut marks = 0;
        for digest in digests {
            if self.has_revision(repo, digest).await? {
                put(Filled::Manifest(*digest), String::new()).await?;
                marks += 1;
            }
            let link = Key::Layer(repo.clone(), *digest);
            if self.read_link(&link).await?.is_some() {
                put(Filled::Blob(*digest), String::new()).await?;
                marks += 1;
            }
        }
        let mut tags = 0;
        for (tag, digest) in self.tag_list(repo).await?.iter() {
            if digests.contains(digest) {
                put(Filled::Tag(tag.clone()), format!("{digest}\n")).await?;
                tags += 1;
            }
        }
        Ok((marks, tags))
    }

    /// Whether this is the first start as a mirror.
    pub(super) async fn is_new_mirror(&self) -> Result<bool> {
        Ok(self.mirror().is_some() && !self.store().has(&Dir::Mirror).await?)
    }
}

/// What the file names; what it says that is no repository with a digest is passed over.
fn entries(state: &[u8]) -> HashMap<RepoName, HashSet<Digest>> {
    let state: HashMap<String, Entry> = match serde_json::from_slice(state) {
        Ok(state) => state,
        Err(e) => {
            log::warn!("what the mirror before this one fetched cannot be told: {e}");
            return HashMap::new();
        }
    };
    let mut fetched: HashMap<RepoName, HashSet<Digest>> = HashMap::new();
    for entry in state.values() {
        if let Some((repo, digest)) = entry.key.rsplit_once('@')
            && let (Ok(repo), Ok(digest)) = (repo.parse(), digest.parse())
        {
            fetched.entry(repo).or_default().insert(digest);
        }
    }
    fetched
}

#[cfg(test)]
mod tests {
    use super::entries;
    use crate::oci::Algorithm;

    #[test]
    fn the_state_of_a_mirror_names_what_it_fetched() {
        let digest = Algorithm::Sha256.digest(b"");
        let state = format!(
            r#"{{"library/app@{digest}":{{"Key":"library/app@{digest}","ExpiryData":"2026-01-01T00:00:00Z","EntryType":1}},
                 "b":{{"Key":"../etc@{digest}","EntryType":0}},"c":{{"Key":"app","EntryType":0}}}}"#
        );
        let found = entries(state.as_bytes());
        assert_eq!(found.len(), 1);
        let repo = "library/app".parse().unwrap();
        assert!(found[&repo].contains(&digest));
        for bad in ["", "[]", r#"{"a":1}"#] {
            assert!(entries(bad.as_bytes()).is_empty());
        }
    }
}
