//! How what was found is mended: each under the locks of what it changes, and only if it is still as it was found.

use super::finding::{Fault, Finding, Remedy};
use super::links::Link;
use super::repository::Subject;
use crate::oci::{Digest, RepoName, Tag};
use crate::registry::{Registry, Result, to_the_end};
use crate::storage::{Durability, Key};

impl Registry {
    /// False if there is nothing to mend any more.
    pub(super) async fn mend(
        &self,
        repo: &RepoName,
        finding: &Finding,
        subject: &Subject,
    ) -> Result<bool> {
        self.writable()?;
        match (&finding.remedy, subject) {
            (Remedy::Path, Subject::Manifest(digest)) => {
                let key = Key::Revision(repo.clone(), *digest);
                self.write_link_again(repo, *digest, key).await
            }
            (Remedy::Path, Subject::Layer(digest)) => {
                let key = Key::Layer(repo.clone(), *digest);
                self.write_link_again(repo, *digest, key).await
            }
            (Remedy::History { .. }, Subject::Tag(tag)) => self.point_again(repo, tag).await,
            (Remedy::Upstream, Subject::Manifest(digest)) => {
                self.fetch_again(repo, digest, true).await?;
                Ok(true)
            }
            (Remedy::Upstream, Subject::Layer(digest)) => {
                self.fetch_again(repo, digest, false).await?;
                Ok(true)
            }
            (Remedy::Peer, Subject::Manifest(digest)) => {
                self.fetch_from_peers(repo, digest, true).await?;
                Ok(true)
            }
            (Remedy::Peer, Subject::Layer(digest)) => {
                self.fetch_from_peers(repo, digest, false).await?;
                Ok(true)
            }
            (Remedy::Remove, Subject::File(key)) if finding.fault == Fault::UnfinishedFile => {
                self.remove_unfinished(key).await?;
                Ok(true)
            }
            (Remedy::Remove, Subject::Tag(tag)) => self.remove_unfinished_tag(repo, tag).await,
            _ => Ok(false),
        }
    }

    /// Takes away the folder of a tag that points to nothing, and never did as far as anybody can tell.
    async fn remove_unfinished_tag(&self, repo: &RepoName, tag: &Tag) -> Result<bool> {
        let (this, repo, tag) = (self.clone(), repo.clone(), tag.clone());
        to_the_end(async move {
            let guard = this.0.locks.own(&repo).await;
            let key = Key::Tag(repo.clone(), tag.clone());
            if this.link_on_disk(&key).await? != Link::Missing
                || this.has_history(&repo, &tag).await?
            {
                return Ok(false);
            }
            this.remove_tag(&guard, &repo, &tag).await?;
            Ok(true)
        })
        .await
    }

    /// Makes a link say what its path says, if it is there and says something else.
    async fn write_link_again(&self, repo: &RepoName, digest: Digest, key: Key) -> Result<bool> {
        let (this, repo) = (self.clone(), repo.clone());
        to_the_end(async move {
            let _digest = this.0.locks.digest(&digest).await;
            let _repo = this.0.locks.own(&repo).await;
            match this.link_on_disk(&key).await? {
                Link::Missing => return Ok(false),
                Link::To(target) if target == digest => return Ok(false),
                Link::To(_) | Link::Damaged => {}
            }
            let text = digest.to_string().into();
            this.store().put(&key, text, Durability::Durable).await?;
            this.0.tags.forget(&repo);
            Ok(true)
        })
        .await
    }

    /// Points a tag to the one manifest that its history has.
    async fn point_again(&self, repo: &RepoName, tag: &Tag) -> Result<bool> {
        let (this, repo, tag) = (self.clone(), repo.clone(), tag.clone());
        to_the_end(async move {
            let guard = this.0.locks.own(&repo).await;
            let key = Key::Tag(repo.clone(), tag.clone());
            if let Link::To(_) = this.link_on_disk(&key).await? {
                return Ok(false);
            }
            let Some(digest) = this.only_target(&repo, &tag).await? else {
                return Ok(false);
            };
            this.0.pins.vouch(&digest).await;
            this.set_tag(&guard, &repo, &tag, &digest).await?;
            this.0.tags.forget(&repo);
            Ok(true)
        })
        .await
    }

    /// Nobody but another registry writes files of such names, and none runs: the tree is ours.
    pub(super) async fn remove_unfinished(&self, key: &Key) -> Result<()> {
        self.writable()?;
        Ok(self.store().delete(key, Durability::Lazy).await?)
    }
}
