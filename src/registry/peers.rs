//! Other registries that have what this one has, and give it back what the disk lost (`scrub.peers`).
//!
//! Nothing of them is believed: what comes is stored when its digest is known to be right, and only where a link to it is already.

use std::time::Duration;

use super::{Error, Registry, Result, to_the_end};
use crate::oci::{Digest, Manifest, Reference, RepoName};
use crate::storage::Key;
use crate::upstream::{self, Upstream};

/// How long nothing may come before the next peer is asked.
const PATIENCE: Duration = Duration::from_secs(60);

impl Registry {
    pub(super) fn has_peers(&self) -> bool {
        !self.0.peers.is_empty()
    }

    /// Gets content that a repository has a link to, and that is damaged or gone, from the first peer that has it.
    ///
    /// # Errors
    /// Those of the last peer that was asked, and our own.
    pub(super) async fn fetch_from_peers(
        &self,
        repo: &RepoName,
        digest: &Digest,
        is_manifest: bool,
    ) -> Result<()> {
        let unknown = || match is_manifest {
            true => Error::ManifestUnknown,
            false => Error::BlobUnknown,
        };
        let mut last = unknown();
        for peer in &self.0.peers {
            let (this, at, of, digest) = (self.clone(), peer.clone(), repo.clone(), *digest);
            // To its end: what has begun to be stored has to be stored or removed.
            let fetched = to_the_end(async move {
                match is_manifest {
                    true => this.fetch_peers_manifest(&at, &of, &digest).await,
                    false => this.fetch_peers_blob(&at, &of, &digest).await,
                }
            });
            match fetched.await {
                Ok(()) => {
                    log::info!("{digest} of {repo} was fetched from {}", peer.host());
                    return Ok(());
                }
                Err(Error::UpstreamFailed(e)) => {
                    log::warn!(
                        "{digest} of {repo} is not to be had from {}: {e}",
                        peer.host()
                    );
                    last = match e.is_unknown() {
                        true => unknown(),
                        false => Error::UpstreamFailed(e),
                    };
                }
                Err(ours) => return Err(ours),
            }
        }
        Err(last)
    }

    async fn fetch_peers_manifest(
        &self,
        peer: &Upstream,
        repo: &RepoName,
        digest: &Digest,
    ) -> Result<()> {
        let reference = Reference::Digest(*digest);
        let sent = peer.manifest(repo, &reference, self.manifest_limit());
        // Its digest has been compared.
        let sent = sent.await.map_err(Error::UpstreamFailed)?;
        let manifest = Manifest::parse(sent.bytes, sent.content_type.as_deref())?;
        let _digest = self.0.locks.digest(digest).await;
        let guard = self.0.locks.own(repo).await;
        if !self.has_revision(repo, digest).await? {
            return Err(Error::ManifestUnknown); // deleted meanwhile
        }
        self.store_manifest(&guard, repo, digest, &manifest).await
    }

    async fn fetch_peers_blob(
        &self,
        peer: &Upstream,
        repo: &RepoName,
        digest: &Digest,
    ) -> Result<()> {
        let failed = Error::UpstreamFailed;
        let mut body = peer.blob(repo, digest, 0).await.map_err(failed)?;
        let len = body.len.ok_or(failed(upstream::Error::Malformed(
            "a blob without its length",
        )))?;
        let algorithm = Some(digest.algorithm());
        let id = self.begin_upload(repo, algorithm).await?;
        let writer = self.resume_upload(repo, &id, Some(0), algorithm).await?;
        let mut writer = writer.fetched();
        let mut received = 0;
        let ended = loop {
            let chunk = tokio::time::timeout(PATIENCE, body.chunk()).await;
            match chunk.unwrap_or(Err(upstream::Error::Timeout)) {
                Ok(Some(bytes)) => {
                    received += bytes.len() as u64;
                    if received > len {
                        let why = "a blob that is longer than was announced";
                        break Err(failed(upstream::Error::Mismatch(why)));
                    }
                    if let Err(e) = writer.write(bytes).await {
                        break Err(e);
                    }
                }
                Ok(None) => break Ok(()),
                Err(e) => break Err(failed(e)),
            }
        };
        // Somebody may have deleted it while it came.
        let link = Key::Layer(repo.clone(), *digest);
        let ended = match ended {
            Ok(()) if self.read_link(&link).await?.is_none() => Err(Error::BlobUnknown),
            other => other,
        };
        if let Err(e) = ended {
            writer.abort().await;
            return Err(e);
        }
        match writer.commit(digest).await {
            Err(Error::DigestMismatch { .. }) => {
                let why = "a blob that has another digest";
                Err(failed(upstream::Error::Mismatch(why)))
            }
            other => other.map(|_| ()),
        }
    }
}
