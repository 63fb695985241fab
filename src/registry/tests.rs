//! The verbs on a store in memory: what needs no socket and no disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

mod referrers;

use super::{Condition, Error, Registry, Settings, Shown};
use crate::oci::{Algorithm, Digest, Reference, RepoName};
use crate::storage::{Cached, Durability, Key, MemStore, Metered, Store};

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

fn repo(name: &str) -> RepoName {
    name.parse().unwrap()
}

fn tag(name: &str) -> Reference {
    Reference::Tag(name.parse().unwrap())
}

fn registry(store: &MemStore) -> Registry {
    Registry::new(store.clone(), Settings::default()).unwrap()
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

async fn push_manifest(
    registry: &Registry,
    repo: &RepoName,
    reference: &Reference,
    extra: &str,
) -> Digest {
    let config = push_blob(registry, repo, b"{}").await;
    let body = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI}","config":{{"mediaType":"a/b","digest":"{config}","size":2}},"layers":[]{extra}}}"#
    );
    let put = registry
        .put_manifest(
            repo,
            reference,
            &[],
            body.into(),
            Some(OCI),
            Condition::default(),
        )
        .await;
    put.unwrap().digest
}

fn subject(digest: &Digest) -> String {
    format!(r#","subject":{{"mediaType":"{OCI}","digest":"{digest}","size":1}}"#)
}

#[tokio::test]
async fn the_catalog_is_sorted_by_component_and_pages_reach_every_name_once() {
    let registry = registry(&MemStore::default());
    let names = ["a", "a/b", "a/b/c", "a-b", "a.b", "ab", "b"];
    for name in ["ab", "a-b", "a/b/c", "b", "a", "a.b", "a/b"] {
        push_manifest(&registry, &repo(name), &tag("t"), "").await;
    }
    push_blob(&registry, &repo("only/blobs"), b"x").await;
    for n in 1..=names.len() + 1 {
        let (mut seen, mut last) = (Vec::new(), None::<String>);
        loop {
            let page = registry
                .catalog(last.as_deref(), Some(n), Shown::All)
                .await
                .unwrap();
            seen.extend(page.items.iter().map(ToString::to_string));
            last = seen.last().cloned();
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, names, "pages of {n}");
    }
    let nothing = registry.catalog(None, Some(0), Shown::All).await.unwrap();
    assert!(nothing.items.is_empty() && !nothing.more);
}

#[tokio::test]
async fn a_repository_that_comes_while_or_after_the_tree_is_walked_is_in_the_catalog() {
    let store = MemStore::default();
    push_manifest(&registry(&store), &repo("old"), &tag("t"), "").await;
    let registry = registry(&store);
    push_manifest(&registry, &repo("before"), &tag("t"), "").await;
    registry.warm_up().await.unwrap();
    push_manifest(&registry, &repo("after"), &tag("t"), "").await;
    let names: Vec<String> = registry
        .catalog(None, None, Shown::All)
        .await
        .unwrap()
        .items
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(names, ["after", "before", "old"]);
}

#[tokio::test]
async fn tags_follow_pushes_and_deletes_whether_the_list_is_known_or_not() {
    let store = MemStore::default();
    let r = repo("r");
    let first = registry(&store);
    assert!(matches!(
        first.tags(&r, None, None).await,
        Err(Error::RepoUnknown)
    ));
    let digest = push_manifest(&first, &r, &tag("b"), "").await;
    first.tags(&r, None, None).await.unwrap();
    push_manifest(&first, &r, &tag("a"), "").await;
    push_manifest(&first, &r, &tag("other"), r#","annotations":{"x":"y"}"#).await;
    for registry in [first, registry(&store)] {
        let page = registry.tags(&r, None, Some(2)).await.unwrap();
        assert_eq!(
            page.items.iter().map(|t| t.as_str()).collect::<Vec<_>>(),
            ["a", "b"]
        );
        assert!(page.more);
        assert_eq!(
            registry.tags(&r, Some("b"), None).await.unwrap().items[0].as_str(),
            "other"
        );
    }
    let last = registry(&store);
    last.delete_manifest(&r, &digest).await.unwrap();
    let left = last.tags(&r, None, None).await.unwrap();
    assert_eq!(
        left.items.iter().map(|t| t.as_str()).collect::<Vec<_>>(),
        ["other"],
        "its tags go with a manifest"
    );
    assert!(matches!(
        last.manifest(&r, &tag("a")).await,
        Err(Error::ManifestUnknown)
    ));
}

#[tokio::test]
async fn a_session_keeps_what_came_when_its_writer_is_dropped() {
    let registry = registry(&MemStore::default());
    let r = repo("r");
    let id = registry.start_upload(&r, None).await.unwrap();
    let mut writer = registry.resume_upload(&r, &id, None, None).await.unwrap();
    writer.write("half".into()).await.unwrap();
    assert!(matches!(
        registry.resume_upload(&r, &id, None, None).await,
        Err(Error::UploadBusy)
    ));
    drop(writer);
    let mut writer = loop {
        match registry.resume_upload(&r, &id, None, None).await {
            Err(Error::UploadBusy) => tokio::task::yield_now().await,
            other => break other.unwrap(),
        }
    };
    assert_eq!(registry.upload_offset(&r, &id).await.unwrap(), 4);
    assert!(matches!(
        registry.upload_offset(&repo("other"), &id).await,
        Err(Error::UploadUnknown)
    ));
    writer.write(" whole".into()).await.unwrap();
    let digest = Algorithm::Sha256.digest(b"half whole");
    writer.commit(&digest).await.unwrap();
    assert_eq!(registry.stat_blob(&r, &digest).await.unwrap(), 10);
    assert!(matches!(
        registry.upload_offset(&r, &id).await,
        Err(Error::UploadUnknown)
    ));
}

#[tokio::test]
async fn another_process_continues_a_session_with_any_algorithm() {
    let store = MemStore::default();
    let r = repo("r");
    let id = {
        let first = registry(&store);
        let id = first.start_upload(&r, None).await.unwrap();
        let mut writer = first.resume_upload(&r, &id, None, None).await.unwrap();
        writer.write("begun".into()).await.unwrap();
        assert_eq!(writer.pause().await.unwrap(), 5);
        id
    };
    let second = registry(&store);
    assert!(matches!(
        second.resume_upload(&r, &id, Some(4), None).await,
        Err(Error::UploadRange { offset: 5 })
    ));
    let digest = Algorithm::Sha512.digest(b"begun and ended");
    let mut writer = second
        .resume_upload(&r, &id, Some(5), Some(Algorithm::Sha512))
        .await
        .unwrap();
    writer.write(" and ended".into()).await.unwrap();
    writer.commit(&digest).await.unwrap();
    assert_eq!(second.stat_blob(&r, &digest).await.unwrap(), 15);
}

#[tokio::test]
async fn a_wrong_digest_ends_the_session_and_shows_nothing() {
    let registry = registry(&MemStore::default());
    let r = repo("r");
    let id = registry.start_upload(&r, None).await.unwrap();
    let mut writer = registry.resume_upload(&r, &id, None, None).await.unwrap();
    writer.write("content".into()).await.unwrap();
    let wrong = Algorithm::Sha256.digest(b"other");
    assert!(matches!(
        writer.commit(&wrong).await,
        Err(Error::DigestMismatch { .. })
    ));
    assert!(matches!(
        registry.upload_offset(&r, &id).await,
        Err(Error::UploadUnknown)
    ));
    for digest in [wrong, Algorithm::Sha256.digest(b"content")] {
        assert!(matches!(
            registry.stat_blob(&r, &digest).await,
            Err(Error::BlobUnknown)
        ));
    }
}

#[tokio::test]
async fn damaged_content_is_hidden_once_seen_and_mended_by_the_next_push() {
    let store = MemStore::default();
    let r = repo("r");
    let content = b"what it should be".as_slice();
    let digest = push_blob(&registry(&store), &r, content).await;
    store
        .put(
            &Key::Blob(digest),
            "what it should BE".into(),
            Durability::Durable,
        )
        .await
        .unwrap();

    let registry = registry(&store);
    assert!(matches!(
        registry.open_blob(&r, &digest, None).await,
        Err(Error::BlobUnknown)
    ));
    assert!(
        matches!(
            registry.stat_blob(&r, &digest).await,
            Err(Error::BlobUnknown)
        ),
        "so that clients push it again"
    );
    push_blob(&registry, &r, content).await;
    assert!(registry.open_blob(&r, &digest, None).await.is_ok());
}

#[tokio::test]
async fn a_blob_is_mounted_from_the_repository_named_or_from_any() {
    let registry = registry(&MemStore::default());
    let digest = push_blob(&registry, &repo("a"), b"shared").await;
    push_manifest(&registry, &repo("a"), &tag("t"), "").await;
    assert!(
        registry
            .mount(&repo("b"), &digest, Some(&repo("nobody")), Shown::All)
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(
        registry
            .mount(&repo("b"), &digest, Some(&repo("a")), Shown::All)
            .await
            .unwrap(),
        Some(repo("a"))
    );
    let source = registry
        .mount(&repo("c"), &digest, None, Shown::All)
        .await
        .unwrap();
    assert!(source.is_some_and(|source| source != repo("c")));
    assert!(
        registry
            .mount(
                &repo("c"),
                &Algorithm::Sha256.digest(b"unknown"),
                None,
                Shown::All
            )
            .await
            .unwrap()
            .is_none()
    );
    registry.delete_blob(&repo("a"), &digest).await.unwrap();
    assert!(registry.stat_blob(&repo("a"), &digest).await.is_err());
    assert!(registry.stat_blob(&repo("c"), &digest).await.is_ok());
}

#[tokio::test]
async fn conditions_on_a_push() {
    let registry = registry(&MemStore::default());
    let r = repo("r");
    let put = async |extra: &str, condition: Condition| {
        let config = push_blob(&registry, &r, b"{}").await;
        let body = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"a/b","digest":"{config}","size":2}},"layers":[]{extra}}}"#
        );
        registry
            .put_manifest(&r, &tag("t"), &[], body.into(), Some(OCI), condition)
            .await
            .map(|put| put.digest)
    };
    let absent = || Condition {
        if_match: None,
        if_none_match: true,
    };
    let same = |digests: &[Digest]| Condition {
        if_match: Some(match digests {
            [] => super::IfMatch::Any,
            digests => super::IfMatch::OneOf(digests.to_vec()),
        }),
        if_none_match: false,
    };
    assert!(matches!(
        put("", same(&[])).await,
        Err(Error::PreconditionFailed)
    ));
    let first = put("", absent()).await.unwrap();
    assert!(matches!(
        put("", absent()).await,
        Err(Error::PreconditionFailed)
    ));
    let second = put(r#","annotations":{"n":"2"}"#, same(&[first]))
        .await
        .unwrap();
    assert!(matches!(
        put("", same(&[first])).await,
        Err(Error::PreconditionFailed)
    ));
    assert!(put("", same(&[first, second])).await.is_ok());
}

#[tokio::test]
async fn what_is_asked_for_often_costs_no_storage_call() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = calls.clone();
    let metered = Metered::new(
        MemStore::default(),
        Arc::new(move |_, _, _| _ = counter.fetch_add(1, Ordering::SeqCst)),
    );
    let registry = Registry::new(Cached::new(metered), Settings::default()).unwrap();
    let r = repo("r");
    push_manifest(&registry, &r, &tag("t"), "").await;
    let digest = push_blob(&registry, &r, b"layer").await;
    let count = || calls.swap(0, Ordering::SeqCst);
    for (first, later) in [(3, 0)] {
        count();
        registry.manifest(&r, &tag("t")).await.unwrap();
        assert!(count() <= first, "tag, revision, content");
        registry.manifest(&r, &tag("t")).await.unwrap();
        assert_eq!(count(), later);
    }
    registry.stat_blob(&r, &digest).await.unwrap();
    assert!(count() <= 2, "link and content");
    registry.open_blob(&r, &digest, None).await.unwrap();
    assert_eq!(count(), 1, "the opening");
}
