//! What goes and what stays, on a store in memory.

mod builds;
mod held;
mod model;
mod slow;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use super::{Report, Scope, Stepped};
use crate::oci::{Algorithm, Digest, Reference, RepoName};
use crate::registry::{Condition, Error, Registry, Settings, Shown};
use crate::storage::{Cached, Dir, Durability, Key, MemStore, Store};

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const UNTAGGED: Scope = Scope {
    dry_run: false,
    untagged: true,
    forget_undo: false,
    alone: false,
    grace: None,
};

/// One that keeps nothing for an undo.
fn registry(store: impl Store) -> Registry {
    keeping(store, Duration::ZERO)
}

fn keeping(store: impl Store, undo_keep: Duration) -> Registry {
    let mut settings = Settings {
        undo_keep,
        ..Settings::default()
    };
    settings.gc.grace = Duration::ZERO;
    Registry::new(store, settings).unwrap()
}

fn repo(name: &str) -> RepoName {
    name.parse().unwrap()
}

fn tag(name: &str) -> Reference {
    Reference::Tag(name.parse().unwrap())
}

async fn push_blob(registry: &Registry, repo: &RepoName, content: &[u8]) -> Digest {
    let digest = Algorithm::Sha256.digest(content);
    let id = registry.start_upload(repo, None).await.unwrap();
    let mut writer = registry
        .resume_upload(repo, &id, Some(0), None)
        .await
        .unwrap();
    writer.write(Bytes::copy_from_slice(content)).await.unwrap();
    writer.commit(&digest).await.unwrap();
    digest
}

fn descriptor(digest: &Digest, size: usize) -> String {
    format!(r#"{{"mediaType":"{OCI}","digest":"{digest}","size":{size}}}"#)
}

fn image(layers: &[(Digest, usize)], more: &str) -> Bytes {
    let config = descriptor(&layers[0].0, layers[0].1);
    let layers: Vec<String> = layers.iter().map(|(d, n)| descriptor(d, *n)).collect();
    let layers = layers.join(",");
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI}","config":{config},"layers":[{layers}]{more}}}"#
    )
    .into()
}

fn index(children: &[(Digest, usize)], more: &str) -> Bytes {
    let children: Vec<String> = children.iter().map(|(d, n)| descriptor(d, *n)).collect();
    let children = children.join(",");
    format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{children}]{more}}}"#).into()
}

async fn put(
    registry: &Registry,
    repo: &RepoName,
    reference: Option<&str>,
    body: &Bytes,
) -> Result<Digest, Error> {
    let reference = match reference {
        Some(name) => tag(name),
        None => Reference::Digest(Algorithm::Sha256.digest(body)),
    };
    let condition = Condition::default();
    let put = registry.put_manifest(repo, &reference, &[], body.clone(), None, condition);
    Ok(put.await?.digest)
}

async fn collect(registry: &Registry, scope: Scope) -> Report {
    // Older than "now", as far as the clock can tell.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut collection = registry.collection(scope);
    while collection.step().await.unwrap() != Stepped::Done {}
    collection.report().clone()
}

/// The digests of all blobs.
async fn blobs(store: &impl Store) -> BTreeSet<Digest> {
    let mut all = BTreeSet::new();
    for algorithm in Algorithm::ALL {
        for first in 0..=255 {
            let shard = Dir::Shard(algorithm, first);
            let names = store.list(&shard, None, usize::MAX).await.unwrap();
            all.extend(
                names
                    .iter()
                    .map(|name| Digest::from_parts(algorithm, name).unwrap()),
            );
        }
    }
    all
}

#[tokio::test]
async fn what_nothing_refers_to_goes_and_a_dry_run_says_so_before() {
    let store = MemStore::default();
    let registry = registry(Cached::new(store.clone()));
    let (a, b) = (repo("a"), repo("b"));
    let shared = push_blob(&registry, &a, b"shared").await;
    let own = push_blob(&registry, &a, b"own").await;
    push_blob(&registry, &a, b"loose").await;
    let gone = put(
        &registry,
        &a,
        Some("t"),
        &image(&[(shared, 6), (own, 3)], ""),
    )
    .await
    .unwrap();
    registry
        .mount(&b, &shared, Some(&a), Shown::All)
        .await
        .unwrap();
    let kept = put(&registry, &b, Some("t"), &image(&[(shared, 6)], ""))
        .await
        .unwrap();
    registry.warm_up().await.unwrap();
    registry.delete_manifest(&a, &gone).await.unwrap();

    let before = blobs(&store).await;
    let dry = Scope {
        dry_run: true,
        ..Scope::default()
    };
    let preview = collect(&registry, dry).await;
    assert_eq!(blobs(&store).await, before);
    assert!(registry.stat_blob(&a, &shared).await.is_ok());
    assert_eq!(
        registry
            .catalog(None, None, Shown::All)
            .await
            .unwrap()
            .items
            .len(),
        2
    );
    let report = collect(&registry, Scope::default()).await;
    assert_eq!(report, preview);
    let loose_and_own_and_gone = 5 + 3 + report.bytes - 8;
    assert_eq!((report.blobs, report.bytes), (3, loose_and_own_and_gone));
    assert_eq!((report.links, report.emptied, report.kept), (3, 1, 2));
    assert_eq!(blobs(&store).await, [shared, kept].into());
    assert_eq!(
        registry
            .catalog(None, None, Shown::All)
            .await
            .unwrap()
            .items,
        std::slice::from_ref(&b)
    );
    assert!(matches!(
        registry.tags(&a, None, None).await,
        Err(Error::RepoUnknown)
    ));
    assert!(
        registry.stat_blob(&a, &shared).await.is_err(),
        "its link is gone"
    );
    assert!(registry.open_blob(&b, &shared, None).await.is_ok());

    let again = collect(&registry, Scope::default()).await;
    assert_eq!(
        (again.blobs, again.links, again.emptied, again.debris),
        (0, 0, 0, 0)
    );
    // What is gone can be pushed again.
    push_blob(&registry, &a, b"own").await;
    assert!(registry.open_blob(&a, &own, None).await.is_ok());
}

#[tokio::test]
async fn an_index_keeps_its_images_and_an_image_its_signatures() {
    let store = MemStore::default();
    let registry = registry(Cached::new(store.clone()));
    let r = repo("r");
    let push = async |reference, content: &'static [u8], more: &str| {
        let layer = push_blob(&registry, &r, content).await;
        let body = image(&[(layer, content.len())], more);
        let digest = put(&registry, &r, reference, &body).await.unwrap();
        (digest, body.len())
    };
    let about =
        |(digest, size): &(Digest, usize)| format!(r#","subject":{}"#, descriptor(digest, *size));
    let arm = push(None, b"arm", "").await;
    let amd = push(None, b"amd", "").await;
    let signature = push(None, b"signature", &about(&arm)).await;
    let old = push(Some("v1"), b"old", "").await;
    let old_signature = push(None, b"old signature", &about(&old)).await;
    let old_sbom = push(Some("sbom"), b"old sbom", &about(&old)).await;
    let replaced = push(Some("v1"), b"new", "").await;
    let forgotten = push(Some("v1"), b"newer", "").await;
    put(&registry, &r, Some("all"), &index(&[arm, amd], ""))
        .await
        .unwrap();

    let report = collect(&registry, Scope::default()).await;
    assert_eq!(
        (report.blobs, report.untagged),
        (0, 0),
        "untagged manifests stay unless told"
    );
    let preview = collect(
        &registry,
        Scope {
            dry_run: true,
            ..UNTAGGED
        },
    )
    .await;
    let report = collect(&registry, UNTAGGED).await;
    assert_eq!(report, preview);
    assert_eq!(
        report.untagged, 1,
        "what v1 pointed to, and nothing points to now"
    );
    for (digest, _) in [arm, amd, signature, old, old_signature, old_sbom, forgotten] {
        let kept = registry.manifest(&r, &Reference::Digest(digest)).await;
        assert!(kept.is_ok(), "{digest}");
    }
    let gone = registry.manifest(&r, &Reference::Digest(replaced.0)).await;
    assert!(matches!(gone, Err(Error::ManifestUnknown)));
    assert_eq!(report.blobs, 2, "the manifest and its layer");

    // Nothing leads to an image, its index and its signatures once their tags are gone.
    for name in ["all", "sbom"] {
        registry
            .delete_tag(&r, &name.parse().unwrap(), Default::default())
            .await
            .unwrap();
    }
    let report = collect(&registry, UNTAGGED).await;
    assert_eq!(report.untagged, 7);
    let last = blobs(&store).await;
    assert_eq!(last.len(), 2, "v1 and its layer");
    assert!(last.contains(&forgotten.0));
}

#[tokio::test]
async fn what_a_client_was_told_of_stays_and_can_be_counted_on() {
    let store = MemStore::default();
    let registry = registry(Cached::new(store.clone()));
    let r = repo("r");
    let layer = push_blob(&registry, &r, b"layer").await;
    let other = push_blob(&registry, &r, b"other").await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut collection = registry.collection(Scope::default());
    collection.step().await.unwrap();
    // Wherever the collection is, from here on: it was told that the layer is there.
    assert_eq!(registry.stat_blob(&r, &layer).await.unwrap(), 5);
    while collection.step().await.unwrap() != Stepped::Done {}
    assert_eq!(collection.report().young_blobs, 1);
    drop(collection);
    assert!(registry.stat_blob(&r, &other).await.is_err());
    put(&registry, &r, Some("t"), &image(&[(layer, 5)], ""))
        .await
        .unwrap();
    let refused = put(&registry, &r, Some("t"), &image(&[(other, 5)], "")).await;
    assert!(matches!(refused, Err(Error::ReferencesUnknown(_))));
}

#[tokio::test]
async fn within_the_grace_after_a_start_nothing_goes() {
    let store = MemStore::default();
    push_blob(&registry(store.clone()), &repo("r"), b"layer").await;
    let registry = Registry::new(store.clone(), Settings::default()).unwrap();
    let report = collect(&registry, Scope::default()).await;
    assert_eq!(
        (report.blobs, report.young_blobs, report.young_bytes),
        (0, 1, 5)
    );
    assert!(registry.collectable_in(None) > Duration::from_secs(3500));
    let alone = Scope {
        alone: true,
        ..Scope::default()
    };
    let report = collect(&registry, alone).await;
    assert_eq!(
        (report.blobs, report.young_blobs),
        (0, 1),
        "the file is new"
    );
}

/// As distribution may have taken it, which does not look at what it does not know.
#[tokio::test]
async fn an_odd_manifest_keeps_what_it_mentions_and_nothing_else() {
    let store = MemStore::default();
    let registry = registry(store.clone());
    let r = repo("r");
    for odd in [
        r#""schemaVersion":2,"config":CONFIG,"layers":[LAYER],"subject":"nobody""#,
        r#""schemaVersion":2,"config":CONFIG,"layers":[LAYER],"subject":{"digest":"SUBJECT"}"#,
        r#""schemaVersion":2,"mediaType":"application/x-unknown","parts":[CONFIG,LAYER]"#,
        r#""schemaVersion":1,"fsLayers":[{"blobSum":"sha256:0"},CONFIG,LAYER]"#,
    ] {
        let config = push_blob(&registry, &r, b"config").await;
        let layer = push_blob(&registry, &r, b"layer").await;
        let loose = push_blob(&registry, &r, b"loose").await;
        let subject = put(&registry, &r, None, &image(&[(config, 6)], ""))
            .await
            .unwrap();
        let text = format!("{{{odd}}}")
            .replace("CONFIG", &format!(r#"{{"digest":"{config}","size":-1}}"#))
            .replace("LAYER", &format!(r#"{{"digest":"{layer}"}}"#))
            .replace("SUBJECT", &subject.to_string());
        let digest = Algorithm::Sha256.digest(text.as_bytes());
        let link = digest.to_string();
        for (key, content) in [
            (Key::Blob(digest), text.clone()),
            (Key::Revision(r.clone(), digest), link.clone()),
            (Key::Tag(r.clone(), "odd".parse().unwrap()), link),
        ] {
            store
                .put(&key, content.into(), Durability::Durable)
                .await
                .unwrap();
        }
        registry.0.tags.forget(&r);
        let report = collect(&registry, UNTAGGED).await;
        assert_eq!(report.doubts, Vec::<String>::new());
        let left = blobs(&store).await;
        assert!(
            left.contains(&config) && left.contains(&layer) && left.contains(&digest),
            "{odd}"
        );
        assert!(!left.contains(&loose), "{odd}");
        // What it is about stays with it, as with any other.
        assert_eq!(left.contains(&subject), odd.contains("SUBJECT"), "{odd}");
        registry.delete_manifest(&r, &digest).await.unwrap();
        collect(&registry, UNTAGGED).await;
        assert!(blobs(&store).await.is_empty(), "{odd}");
    }
}

#[tokio::test]
async fn where_a_manifest_cannot_be_read_everything_stays() {
    let store = MemStore::default();
    let first = registry(store.clone());
    let (r, other) = (repo("r"), repo("other"));
    let layer = push_blob(&first, &r, b"layer").await;
    let loose = push_blob(&first, &other, b"loose").await;
    let digest = put(&first, &r, Some("t"), &image(&[(layer, 5)], ""))
        .await
        .unwrap();
    for damaged in ["", "{", r#"{"schemaVersion":1}"#] {
        let key = Key::Blob(digest);
        store
            .put(&key, damaged.into(), Durability::Durable)
            .await
            .unwrap();
        let registry = registry(store.clone());
        let report = collect(&registry, UNTAGGED).await;
        assert_eq!(report.doubtful, 1);
        assert!(
            report.doubts[0].contains(&digest.to_string()),
            "{:?}",
            report.doubts
        );
        assert_eq!(
            (report.links, report.untagged),
            (u64::from(damaged.is_empty()), 0)
        );
    }
    let left = blobs(&store).await;
    assert!(left.contains(&layer) && left.contains(&digest) && !left.contains(&loose));
    // Pushed again, it can be read again, and deleted.
    let registry = registry(store.clone());
    put(&registry, &r, Some("t"), &image(&[(layer, 5)], ""))
        .await
        .unwrap();
    registry.delete_manifest(&r, &digest).await.unwrap();
    assert_eq!(collect(&registry, Scope::default()).await.doubtful, 0);
    assert!(blobs(&store).await.is_empty());
}

#[tokio::test]
async fn the_tree_of_another_registry_is_understood() {
    let store = MemStore::default();
    let registry = registry(store.clone());
    let r = repo("r");
    let put_text = async |key: Key, text: &str| {
        let text = Bytes::copy_from_slice(text.as_bytes());
        store.put(&key, text, Durability::Durable).await.unwrap();
    };
    // Distribution keeps content that was pushed by its sha512 under its sha256.
    let content = b"by another name";
    let (long, short) = (
        Algorithm::Sha512.digest(content),
        Algorithm::Sha256.digest(content),
    );
    put_text(Key::Blob(short), "by another name").await;
    put_text(Key::Layer(r.clone(), long), &short.to_string()).await;
    // An empty link is one all the same: the path says which.
    let body = image(&[(long, content.len())], "");
    let digest = Algorithm::Sha256.digest(&body);
    put_text(Key::Blob(digest), std::str::from_utf8(&body).unwrap()).await;
    put_text(Key::Revision(r.clone(), digest), "").await;
    let report = collect(&registry, Scope::default()).await;
    assert_eq!((report.blobs, report.links, report.kept), (0, 0, 2));
    registry.warm_up().await.unwrap();
    registry.delete_manifest(&r, &digest).await.unwrap();
    let report = collect(&registry, Scope::default()).await;
    assert_eq!((report.blobs, report.links, report.emptied), (2, 1, 1));
}
