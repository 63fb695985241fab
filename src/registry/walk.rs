//! Every repository there is, by walking the tree. Slow on a large tree: for what runs once or in the background.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::{Registry, Result};
use crate::oci::RepoName;
use crate::storage::{Dir, MANIFESTS, UPLOADS};

/// What a folder below `repositories/` has of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    /// It is a repository: distribution and its clients say so of whatever ever held a manifest.
    pub(super) manifests: bool,
    pub(super) uploads: bool,
}

/// Folders listed at once: enough to keep a disk busy, few enough to leave it to requests.
const AT_ONCE: usize = 8;

impl Registry {
    /// Names of all folders that can be repositories, in no order. Folders whose names are none are passed over.
    pub(super) async fn walk(&self) -> Result<Vec<(RepoName, Parts)>> {
        let mut found = Vec::new();
        let top = self
            .store()
            .list(&Dir::Repositories, None, usize::MAX)
            .await?;
        let mut waiting: Vec<RepoName> = top.iter().filter_map(|name| name.parse().ok()).collect();
        let mut listing = FuturesUnordered::new();
        loop {
            while listing.len() < AT_ONCE
                && let Some(name) = waiting.pop()
            {
                listing.push(self.parts(name));
            }
            let Some(listed) = listing.next().await else {
                return Ok(found);
            };
            let (name, parts, children) = listed;
            found.push((name, parts));
            waiting.extend(children);
        }
    }

    /// A folder that cannot be read is nobody's business but its own.
    async fn parts(&self, name: RepoName) -> (RepoName, Parts, Vec<RepoName>) {
        let below = match self
            .store()
            .list(&Dir::Repository(name.clone()), None, usize::MAX)
            .await
        {
            Ok(below) => below,
            Err(e) => {
                log::warn!("repository {name} is left out: {e}");
                Vec::new()
            }
        };
        let has = |part: &str| {
            below
                .binary_search_by(|child| child.as_str().cmp(part))
                .is_ok()
        };
        let parts = Parts {
            manifests: has(MANIFESTS),
            uploads: has(UPLOADS),
        };
        let children = below
            .iter()
            .filter_map(|component| name.child(component))
            .collect();
        (name, parts, children)
    }
}
