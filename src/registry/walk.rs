//! Every repository there is, by walking the tree. Slow on a large tree: for what runs once or in the background.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::{Error, Registry, Result};
use crate::oci::RepoName;
use crate::storage::{self, Dir, LAYERS, MANIFESTS, UPLOADS};

/// What a folder below `repositories/` has of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    /// It is a repository: distribution and its clients say so of whatever ever held a manifest.
    pub(super) manifests: bool,
    pub(super) uploads: bool,
    pub(super) layers: bool,
}

/// What lies below `repositories/`.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// Names of all folders that can be repositories, in no order.
    pub(super) found: Vec<(RepoName, Parts)>,
    /// Why one of them, and all below it, may be missing here.
    pub(super) failed: Option<Error>,
    /// A folder that no registry's repository can be in.
    pub(super) strange: Option<String>,
}

/// Folders listed at once: enough to keep a disk busy, few enough to leave it to requests.
const AT_ONCE: usize = 8;

impl Registry {
    /// Looks through all folders.
    pub(super) async fn walk(&self) -> Result<Walked> {
        let mut walked = Walked::default();
        let top = self
            .store()
            .list(&Dir::Repositories, None, usize::MAX)
            .await?;
        let mut waiting = Vec::new();
        for name in top {
            match name.parse() {
                Ok(name) => waiting.push(name),
                Err(_) => walked.pass_over(None, &name),
            }
        }
        let mut listing = FuturesUnordered::new();
        loop {
            while listing.len() < AT_ONCE
                && let Some(name) = waiting.pop()
            {
                listing.push(self.below(name));
            }
            let Some(listed) = listing.next().await else {
                return Ok(walked);
            };
            let (name, below) = listed;
            let below = match below {
                Ok(below) => below,
                // A folder that cannot be read is nobody's business but its own.
                Err(e) => {
                    log::warn!("repository {name} is left out: {e}");
                    walked.failed = Some(e.into());
                    Vec::new()
                }
            };
            for component in &below {
                match name.child(component) {
                    Some(child) => waiting.push(child),
                    None => walked.pass_over(Some(&name), component),
                }
            }
            walked.found.push((name, Parts::among(&below)));
        }
    }

    async fn below(&self, name: RepoName) -> (RepoName, storage::Result<Vec<String>>) {
        let folder = Dir::Repository(name.clone());
        let below = self.store().list(&folder, None, usize::MAX).await;
        (name, below)
    }
}

impl Parts {
    fn among(below: &[String]) -> Self {
        let has = |part: &str| {
            below
                .binary_search_by(|child| child.as_str().cmp(part))
                .is_ok()
        };
        Parts {
            manifests: has(MANIFESTS),
            uploads: has(UPLOADS),
            layers: has(LAYERS),
        }
    }
}

impl Walked {
    fn pass_over(&mut self, parent: Option<&RepoName>, name: &str) {
        // A repository's own parts, and files that other programs leave everywhere.
        if !name.starts_with(['_', '.']) {
            let parent = parent.map(|parent| format!("{parent}/"));
            self.strange = Some(parent.unwrap_or_default() + name);
        }
    }
}
