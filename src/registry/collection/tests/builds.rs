//! A repository of builds, of which a rule keeps the last.

use std::collections::BTreeSet;
use std::time::Duration;

use super::slow::Dice;
use super::{image, push_blob, put, repo};
use crate::oci::{Digest, Reference};
use crate::registry::{Error, Registry, Removals, Removing};

/// Pushes images of which a rule keeps the last two.
pub(super) async fn build(
    registry: Registry,
    dice: Dice,
    rounds: usize,
) -> Vec<(Digest, Vec<Digest>)> {
    let repo = repo("builds");
    let mut built = Vec::new();
    for round in 0..rounds {
        let content = format!("content {}", dice.roll(8));
        let more = format!(r#","annotations":{{"build":"{round}"}}"#);
        let name = format!("build-{round}");
        let (digest, layer) = loop {
            let layer = push_blob(&registry, &repo, content.as_bytes()).await;
            let body = image(&[(layer, content.len())], &more);
            match put(&registry, &repo, Some(&name), &body).await {
                Err(Error::ReferencesUnknown(_)) => {}
                digest => break (digest.unwrap(), layer),
            }
        };
        built.push((digest, vec![layer]));
        let first = built.len().saturating_sub(2);
        for (n, (digest, blobs)) in built.iter().enumerate().skip(first) {
            let tag = Reference::Tag(format!("build-{n}").parse().unwrap());
            let found = registry.manifest(&repo, &tag).await.unwrap();
            assert_eq!(found.digest, *digest);
            for blob in blobs {
                registry.open_blob(&repo, blob, None).await.unwrap();
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    built.split_off(built.len() - 2)
}

/// The manifests that went.
pub(super) async fn to_the_end(mut removals: Removals) -> BTreeSet<Digest> {
    let mut removed = BTreeSet::new();
    loop {
        match removals.step().await.unwrap() {
            Removing::Manifest(_, digest) => assert!(removed.insert(digest)),
            Removing::Done => return removed,
            _ => {}
        }
    }
}
