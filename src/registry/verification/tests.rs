//! What is found, moved and mended, on a store in memory.

use std::time::SystemTime;

use bytes::Bytes;

use super::{Check, Checked, Fault, Finding, Mend, Outcome, Remedy, Report, UnderWay};
use crate::oci::{Algorithm, Digest, Reference, RepoName};
use crate::registry::{Condition, Error, Registry, Settings};
use crate::storage::{Cached, Durability, Key, MemStore, Meta, Store};

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

fn repo() -> RepoName {
    "team/app".parse().unwrap()
}

fn registry(store: &MemStore) -> Registry {
    Registry::new(Cached::new(store.clone()), Settings::default()).unwrap()
}

async fn push_blob(registry: &Registry, content: &[u8]) -> Digest {
    let digest = Algorithm::Sha256.digest(content);
    let id = registry.start_upload(&repo(), None).await.unwrap();
    let writer = registry.resume_upload(&repo(), &id, Some(0), None).await;
    let mut writer = writer.unwrap();
    writer.write(Bytes::copy_from_slice(content)).await.unwrap();
    writer.commit(&digest).await.unwrap();
    digest
}

/// An image of one config, and the config.
async fn push_image(registry: &Registry, tag: &str, content: &[u8]) -> (Digest, Digest) {
    let config = push_blob(registry, content).await;
    let body = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI}","config":{{"mediaType":"a/b","digest":"{config}","size":{}}},"layers":[]}}"#,
        content.len()
    );
    let (reference, condition) = (Reference::Tag(tag.parse().unwrap()), Condition::default());
    let repo = repo();
    let put = registry.put_manifest(&repo, &reference, &[], body.into(), None, condition);
    (put.await.unwrap().digest, config)
}

async fn put(store: &MemStore, key: &Key, text: &str) {
    let text = Bytes::copy_from_slice(text.as_bytes());
    store.put(key, text, Durability::Durable).await.unwrap();
}

async fn check(registry: &Registry, check: Check) -> (Report, Vec<Finding>) {
    let mut check = registry.verification(check);
    let mut found = Vec::new();
    loop {
        let stepped = check.step().await.unwrap();
        found.extend(check.take_news());
        if stepped == Checked::Done {
            return (check.report().clone(), found);
        }
    }
}

fn everything() -> Check {
    Check {
        contents: true,
        ..Check::default()
    }
}

#[tokio::test]
async fn damaged_content_is_moved_and_mended_by_the_next_push() {
    let store = MemStore::default();
    let registry = registry(&store);
    let (_, config) = push_image(&registry, "v1", b"content").await;
    let (report, found) = check(&registry, everything()).await;
    assert_eq!((report.healthy, report.blobs, found), (1, 2, vec![]));
    for round in 0..2 {
        // Known to be good, and remembered, when the disk changes its mind.
        registry.open_blob(&repo(), &config, None).await.unwrap();
        put(&store, &Key::Blob(config), "contend").await;
        let dry = Check {
            dry_run: true,
            ..everything()
        };
        let (_, found) = check(&registry, dry).await;
        assert_eq!(found[0].fault, Fault::DamagedContent);
        assert!(store.stat(&Key::Blob(config)).await.is_ok(), "a dry run");
        let (report, found) = check(&registry, everything()).await;
        assert_eq!((found.len(), report.healthy, report.unhealthy), (1, 0, 1));
        assert_eq!(found[0].fault, Fault::DamagedContent);
        assert_eq!(found[0].tags, ["v1"]);
        assert_eq!(found[0].digest, Some(config.to_string()));
        let gone = registry.stat_blob(&repo(), &config).await;
        assert!(matches!(gone, Err(Error::BlobUnknown)));
        // Found again, without being read again: it is not there.
        let (_, again) = check(&registry, Check::default()).await;
        assert_eq!(again[0].fault, Fault::DamagedContent);
        assert_eq!(registry.last_report().await.unwrap().unwrap().damage, 1);
        let kept = store.get(&Key::Quarantined(config, round), 100).await;
        assert_eq!(kept.unwrap(), "contend");
        push_image(&registry, "v1", b"content").await;
        let (report, found) = check(&registry, everything()).await;
        assert_eq!((report.healthy, found), (1, vec![]));
    }
}

#[tokio::test]
async fn what_was_replaced_meanwhile_is_not_moved() {
    let store = MemStore::default();
    let registry = registry(&store);
    let digest = push_blob(&registry, b"content").await;
    let read = Meta {
        len: 7,
        modified: SystemTime::UNIX_EPOCH,
    };
    assert!(!registry.quarantine(&digest, read, true).await.unwrap());
    assert_eq!(registry.stat_blob(&repo(), &digest).await.unwrap(), 7);
    assert_eq!(registry.confirm_damage(&digest, true).await.unwrap(), None);
}

#[tokio::test]
async fn what_somebody_was_about_to_serve_is_looked_into() {
    let store = MemStore::default();
    let digest = push_blob(&registry(&store), b"content").await;
    put(&store, &Key::Blob(digest), "contend").await;
    let registry = registry(&store);
    let served = registry.open_blob(&repo(), &digest, None).await;
    assert!(matches!(served, Err(Error::BlobUnknown)));
    assert_eq!(registry.suspects().await, [digest]);
    let fault = registry.confirm_damage(&digest, true).await.unwrap();
    assert_eq!(fault, Some(Fault::DamagedContent));
    assert!(store.stat(&Key::Quarantined(digest, 0)).await.is_ok());
}

#[tokio::test]
async fn a_check_goes_on_where_it_was() {
    let store = MemStore::default();
    let registry = registry(&store);
    for n in 0..20_u8 {
        push_blob(&registry, &[n]).await;
    }
    let mut first = registry.verification(everything());
    while first.under_way().shards < 100 {
        assert_ne!(first.step().await.unwrap(), Checked::Done);
    }
    let from = first.under_way().clone();
    assert!(from.blobs > 0 && from.blobs < 20, "{from:?}");
    let from = serde_json::to_vec(&from).unwrap();
    let from: UnderWay = serde_json::from_slice(&from).unwrap();
    let rest = Check {
        from: Some(from.clone()),
        ..everything()
    };
    let mut second = registry.verification(rest);
    while second.step().await.unwrap() != Checked::Done {}
    assert_eq!(second.report().blobs, 20, "each was read once");
    assert_eq!(second.report().began, from.began);
}

#[tokio::test]
async fn links_are_mended_from_what_proves_them() {
    let store = MemStore::default();
    let (manifest, config) = push_image(&registry(&store), "v1", b"content").await;
    let tag: crate::oci::Tag = "v1".parse().unwrap();
    let layer = Key::Layer(repo(), config);
    let revision = Key::Revision(repo(), manifest);
    let current = Key::Tag(repo(), tag.clone());
    for damaged in ["", "sha256:", "no digest at all", "sha256:\0"] {
        for key in [&layer, &revision, &current] {
            put(&store, key, damaged).await;
        }
        let registry = registry(&store);
        let (_, found) = check(&registry, Check::default()).await;
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(
            found
                .iter()
                .all(|f| f.outcome == Outcome::Open && f.tags == ["v1"])
        );
        let proven = Check {
            mend: Mend::Proven,
            ..Check::default()
        };
        let (report, found) = check(&registry, proven).await;
        assert!(
            found.iter().all(|f| f.outcome == Outcome::Mended),
            "{found:?}"
        );
        assert_eq!((report.mended, report.healthy), (3, 1));
        for (key, says) in [
            (&layer, config),
            (&revision, manifest),
            (&current, manifest),
        ] {
            assert_eq!(store.get(key, 100).await.unwrap(), says.to_string());
        }
    }
    // A tag that pointed to two manifests may mean either.
    push_image(&registry(&store), "v1", b"other").await;
    put(&store, &current, "").await;
    let all = Check {
        mend: Mend::All,
        ..Check::default()
    };
    let (report, found) = check(&registry(&store), all).await;
    assert_eq!((found.len(), report.unhealthy), (1, 1));
    assert_eq!(
        (found[0].fault, &found[0].remedy),
        (Fault::DamagedTag, &Remedy::Push)
    );
    assert_eq!(store.get(&current, 100).await.unwrap(), "");
}

#[tokio::test]
async fn an_older_servers_report_is_one_still_and_nonsense_is_none() {
    let store = MemStore::default();
    let registry = registry(&store);
    put(
        &store,
        &Key::VerifyReport,
        r#"{"began":1,"healthy":7,"unknown":{}}"#,
    )
    .await;
    assert_eq!(registry.last_report().await.unwrap().unwrap().healthy, 7);
    for nonsense in ["", "7", "{\"began\":"] {
        store
            .put(&Key::VerifyReport, nonsense.into(), Durability::Lazy)
            .await
            .unwrap();
        store
            .put(&Key::VerifyState, nonsense.into(), Durability::Lazy)
            .await
            .unwrap();
        let registry = super::tests::registry(&store);
        assert_eq!(registry.last_report().await.unwrap(), None);
        assert_eq!(
            registry.verify_progress().await.unwrap(),
            Default::default()
        );
    }
}
