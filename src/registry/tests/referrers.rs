//! Referrers, on a store in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{push_manifest, registry, repo, subject, tag};
use crate::oci::{Algorithm, Reference};
use crate::registry::{Error, Registry, Settings};
use crate::storage::{Durability, Key, MemStore, Metered, Store};

#[tokio::test]
async fn referrers_of_content_that_was_there_before_are_found_without_reading_all_again() {
    let store = MemStore::default();
    let r = repo("r");
    let subject_digest = Algorithm::Sha256.digest(b"some day");
    let referrer = push_manifest(
        &registry(&store),
        &r,
        &tag("sig"),
        &subject(&subject_digest),
    )
    .await;
    // As written by a registry that knows nothing of referrers.
    let entry = Key::Referrer {
        repo: r.clone(),
        subject: subject_digest,
        referrer,
    };
    store.delete(&entry, Durability::Durable).await.unwrap();

    let registry = registry(&store);
    for _ in 0..2 {
        let found = registry
            .referrers(&r, &subject_digest, None, None, None)
            .await
            .unwrap();
        assert_eq!(found.descriptors.len(), 1);
        assert!(found.descriptors[0].get().contains(&referrer.to_string()));
    }
    let none = registry
        .referrers(&r, &subject_digest, Some("no/such"), None, None)
        .await
        .unwrap();
    assert!(none.descriptors.is_empty());
    let scanned = store.get(&Key::Scanned(r.clone()), 1000).await.unwrap();
    assert_eq!(
        scanned,
        format!("{referrer}\n"),
        "the next process reads only what is new"
    );
}

#[tokio::test]
async fn referrers_go_with_their_subject_unless_they_have_a_tag_of_their_own() {
    let registry = registry(&MemStore::default());
    let r = repo("r");
    let image = push_manifest(&registry, &r, &tag("v1"), "").await;
    let by_digest = |extra: String| async move { extra };
    let tagged = push_manifest(&registry, &r, &tag("sig"), &subject(&image)).await;
    let body = by_digest(format!(r#"{},"annotations":{{"k":"v"}}"#, subject(&image))).await;
    let untagged = push_manifest(&registry, &r, &tag("tmp"), &body).await;
    registry
        .delete_tag(&r, &"tmp".parse().unwrap(), Default::default())
        .await
        .unwrap();
    assert_eq!(
        registry
            .referrers(&r, &image, None, None, None)
            .await
            .unwrap()
            .descriptors
            .len(),
        2
    );

    registry.delete_manifest(&r, &image).await.unwrap();
    assert!(
        registry
            .manifest(&r, &Reference::Digest(tagged))
            .await
            .is_ok()
    );
    assert!(matches!(
        registry.manifest(&r, &Reference::Digest(untagged)).await,
        Err(Error::ManifestUnknown)
    ));
}

#[tokio::test]
async fn pages_of_referrers_reach_each_once() {
    let registry = registry(&MemStore::default());
    let r = repo("r");
    let image = push_manifest(&registry, &r, &tag("v1"), "").await;
    for i in 0..7 {
        let extra = format!(r#"{},"annotations":{{"i":"{i}"}}"#, subject(&image));
        push_manifest(&registry, &r, &tag(&format!("s{i}")), &extra).await;
    }
    let (mut seen, mut last) = (std::collections::BTreeSet::new(), None);
    loop {
        let page = registry
            .referrers(&r, &image, None, last.as_ref(), Some(3))
            .await
            .unwrap();
        assert!(page.descriptors.len() <= 3);
        seen.extend(page.descriptors.iter().map(|d| d.get().to_owned()));
        last = page.next;
        if last.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 7);
}

/// Nothing can be noted on the disk then, and nothing changes either.
#[tokio::test]
async fn in_read_only_mode_revisions_are_looked_through_once() {
    let store = MemStore::default();
    let r = repo("r");
    let subject_digest = Algorithm::Sha256.digest(b"some day");
    let writing = registry(&store);
    let referrer = push_manifest(&writing, &r, &tag("sig"), &subject(&subject_digest)).await;
    // As written by a registry that knows nothing of referrers.
    let entry = Key::Referrer {
        repo: r.clone(),
        subject: subject_digest,
        referrer,
    };
    store.delete(&entry, Durability::Durable).await.unwrap();

    let lists = Arc::new(AtomicUsize::new(0));
    let counter = lists.clone();
    let observer = move |call, _, _| {
        if call == "list" {
            counter.fetch_add(1, Ordering::SeqCst);
        }
    };
    let settings = Settings {
        read_only: true,
        ..Settings::default()
    };
    let registry = Registry::new(Metered::new(store, Arc::new(observer)), settings).unwrap();
    let mut of_each = Vec::new();
    for _ in 0..3 {
        let found = registry
            .referrers(&r, &subject_digest, None, None, None)
            .await
            .unwrap();
        assert_eq!(found.descriptors.len(), 1);
        of_each.push(lists.swap(0, Ordering::SeqCst));
    }
    assert_eq!(of_each[1], 1, "the entries of the subject: {of_each:?}");
    assert!(of_each[0] > 1 && of_each[2] == 1, "{of_each:?}");
}
