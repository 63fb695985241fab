//! What is kept for an undo, and for how long.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{
    UNTAGGED, blobs, collect, descriptor, image, index, keeping, push_blob, put, repo, tag,
};
use crate::oci::{Algorithm, Digest, Reference, RepoName, Tag};
use crate::registry::collection::Scope;
use crate::registry::{Error, Registry, Settings, Shown, State, What};
use crate::storage::{Cached, Dir, Durability, Key, MemStore, Store};

const KEEP: Duration = Duration::from_secs(3600);
const FORGET: Scope = Scope {
    dry_run: false,
    untagged: false,
    forget_undo: true,
    alone: false,
    grace: None,
};

async fn states(registry: &Registry, repo: &RepoName, tag: &str) -> Vec<(Digest, What, State)> {
    let tag: Tag = tag.parse().unwrap();
    let history = registry.history(repo, &tag).await.unwrap();
    let lines = history.into_iter();
    lines
        .map(|past| (past.change.digest, past.change.what, past.state))
        .collect()
}

#[tokio::test]
async fn an_image_that_was_deleted_comes_back_with_all_that_went_with_it() {
    let store = MemStore::default();
    let registry = keeping(Cached::new(store.clone()), KEEP);
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
    let amd = push(Some("amd"), b"amd", "").await;
    let body = index(&[arm, amd], "");
    let all = put(&registry, &r, Some("all"), &body).await.unwrap();
    put(&registry, &r, Some("same"), &body).await.unwrap();
    let signature = push(None, b"signature", &about(&(all, body.len()))).await;
    let again = push(None, b"again", &about(&signature)).await;
    let before_all = push(None, b"before", &about(&(all, body.len()))).await;
    registry.warm_up().await.unwrap();
    let everything = blobs(&store).await;

    for digest in [before_all.0, arm.0, amd.0, all] {
        // Deletes at the same moment count as one.
        tokio::time::sleep(Duration::from_millis(2)).await;
        registry.delete_manifest(&r, &digest).await.unwrap();
    }
    let report = collect(&registry, UNTAGGED).await;
    assert_eq!((report.blobs, report.links, report.kept), (0, 0, 0));
    assert_eq!(report.held_blobs, everything.len() as u64);
    assert_eq!(blobs(&store).await, everything);
    assert_eq!(report.emptied, 1, "nobody sees it any more");
    assert!(
        registry
            .catalog(None, None, Shown::All)
            .await
            .unwrap()
            .items
            .is_empty()
    );

    let undone = registry.undo(&r, &tag("all"), None).await.unwrap();
    assert_eq!((undone.digest, undone.lost.len()), (all, 0));
    let restored: BTreeSet<Digest> = undone.restored.into_iter().collect();
    assert_eq!(
        restored,
        [all, arm.0, amd.0, signature.0, again.0].into(),
        "and not what was deleted on its own before"
    );
    assert_eq!(
        registry.manifest(&r, &tag("all")).await.unwrap().digest,
        all
    );
    let referrers = registry.referrers(&r, &all, None, None, None).await;
    assert_eq!(referrers.unwrap().descriptors.len(), 1);
    // The other tag of it, and the one of its child.
    registry
        .undo(&r, &Reference::Digest(all), None)
        .await
        .unwrap();
    registry.undo(&r, &tag("amd"), None).await.unwrap();
    let tags = registry.tags(&r, None, None).await.unwrap().items;
    assert_eq!(
        tags.iter().map(Tag::as_str).collect::<Vec<_>>(),
        ["all", "amd", "same"]
    );

    let report = collect(&registry, FORGET).await;
    assert_eq!(report.blobs, 2, "what was deleted before, and its layer");
    let refused = registry
        .undo(&r, &Reference::Digest(before_all.0), None)
        .await;
    assert!(matches!(refused, Err(Error::NothingToUndo)), "{refused:?}");
}

#[tokio::test]
async fn a_tag_goes_back_and_forth_through_what_it_pointed_to() {
    let store = MemStore::default();
    let registry = keeping(Cached::new(store.clone()), KEEP);
    let r = repo("r");
    let mut pushed = Vec::new();
    for content in [&b"one"[..], b"two", b"three"] {
        let layer = push_blob(&registry, &r, content).await;
        let body = image(&[(layer, content.len())], "");
        pushed.push(put(&registry, &r, Some("t"), &body).await.unwrap());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let points_to = async || registry.manifest(&r, &tag("t")).await.unwrap().digest;
    let history = states(&registry, &r, "t").await;
    let expected = [State::Present, State::Present, State::Current];
    for (line, (digest, state)) in history.iter().zip(pushed.iter().zip(expected)) {
        assert_eq!(*line, (*digest, What::Pushed, state));
    }
    // Untagged manifests that a tag had lately are no garbage yet.
    assert_eq!(collect(&registry, UNTAGGED).await.untagged, 0);
    registry.undo(&r, &tag("t"), None).await.unwrap();
    assert_eq!(points_to().await, pushed[1]);
    registry.undo(&r, &tag("t"), None).await.unwrap();
    assert_eq!(points_to().await, pushed[2], "an undo is undone");
    registry.undo(&r, &tag("t"), Some(pushed[0])).await.unwrap();
    assert_eq!(points_to().await, pushed[0]);
    let name: Tag = "t".parse().unwrap();
    registry
        .delete_tag(&r, &name, Default::default())
        .await
        .unwrap();
    assert_eq!(collect(&registry, UNTAGGED).await.untagged, 0);
    let history = states(&registry, &r, "t").await;
    assert_eq!(
        *history.last().unwrap(),
        (pushed[0], What::Deleted, State::Present)
    );
    registry.undo(&r, &tag("t"), None).await.unwrap();
    assert_eq!(points_to().await, pushed[0]);
    let nobody = registry.undo(&r, &tag("unknown"), None).await;
    assert!(matches!(nobody, Err(Error::NothingToUndo)));

    registry
        .delete_tag(&r, &name, Default::default())
        .await
        .unwrap();
    let both = Scope {
        untagged: true,
        ..FORGET
    };
    assert_eq!(collect(&registry, both).await.untagged, 3);
    assert!(blobs(&store).await.is_empty());
    assert!(states(&registry, &r, "t").await.is_empty());
}

#[tokio::test]
async fn what_is_too_old_goes_and_so_do_the_notes_on_it() {
    let store = MemStore::default();
    let r = repo("r");
    let keep = Duration::from_millis(200);
    let registry = keeping(Cached::new(store.clone()), keep);
    let layer = push_blob(&registry, &r, b"layer").await;
    let digest = put(&registry, &r, Some("t"), &image(&[(layer, 5)], ""))
        .await
        .unwrap();
    registry.delete_manifest(&r, &digest).await.unwrap();
    assert_eq!(collect(&registry, Scope::default()).await.held_blobs, 2);
    tokio::time::sleep(keep).await;
    let report = collect(&registry, Scope::default()).await;
    assert_eq!((report.blobs, report.held_blobs), (2, 0));
    let notes = [Dir::Removals(r.clone()), Dir::TagHistories(r.clone())];
    for notes in notes {
        assert!(store.list(&notes, None, 1).await.unwrap().is_empty());
    }
    let refused = registry.undo(&r, &tag("t"), None).await;
    assert!(matches!(refused, Err(Error::NothingToUndo)));
}

#[tokio::test]
async fn where_content_is_gone_nothing_changes() {
    let store = MemStore::default();
    let r = repo("r");
    let registry = keeping(store.clone(), KEEP);
    let layer = push_blob(&registry, &r, b"layer").await;
    let digest = put(&registry, &r, Some("t"), &image(&[(layer, 5)], ""))
        .await
        .unwrap();
    registry.delete_manifest(&r, &digest).await.unwrap();
    store
        .remove(&Dir::Blob(layer), Durability::Lazy)
        .await
        .unwrap();
    let refused = registry.undo(&r, &tag("t"), None).await;
    assert!(
        matches!(&refused, Err(Error::ReferencesUnknown(missing)) if missing.contains(&layer)),
        "{refused:?}"
    );
    assert!(
        registry
            .manifest(&r, &Reference::Digest(digest))
            .await
            .is_err()
    );
    // Nor does what cannot be brought back keep anything else from going.
    let key = Key::Blob(digest);
    store
        .put(&key, "torn".into(), Durability::Durable)
        .await
        .unwrap();
    let registry = keeping(store.clone(), KEEP);
    let report = collect(&registry, Scope::default()).await;
    assert_eq!((report.doubtful, report.held_blobs), (0, 0));
}

#[tokio::test]
async fn immutable_tags_stay_where_they_are() {
    let settings = Settings {
        immutable_tags: vec!["v*".parse().unwrap(), "team/**:fixed".parse().unwrap()],
        ..Settings::default()
    };
    let registry = Registry::new(MemStore::default(), settings).unwrap();
    let r = repo("team/app");
    let layer = push_blob(&registry, &r, b"layer").await;
    let (first, second) = (
        image(&[(layer, 5)], ""),
        image(&[(layer, 5), (layer, 5)], ""),
    );
    for name in ["v1", "fixed", "latest"] {
        put(&registry, &r, Some(name), &first).await.unwrap();
        put(&registry, &r, Some(name), &first).await.unwrap();
    }
    let digest = Algorithm::Sha256.digest(&first);
    for name in ["v1", "fixed"] {
        let refused = put(&registry, &r, Some(name), &second).await;
        assert!(matches!(refused, Err(Error::TagImmutable(_))));
        let refused = registry
            .delete_tag(&r, &name.parse().unwrap(), Default::default())
            .await;
        assert!(matches!(refused, Err(Error::TagImmutable(_))));
        assert_eq!(
            registry.manifest(&r, &tag(name)).await.unwrap().digest,
            digest
        );
    }
    let refused = registry.delete_manifest(&r, &digest).await;
    assert!(matches!(refused, Err(Error::TagImmutable(_))));
    let unstored = Reference::Digest(Algorithm::Sha256.digest(&second));
    assert!(
        registry.manifest(&r, &unstored).await.is_err(),
        "refused as a whole"
    );
    put(&registry, &r, Some("latest"), &second).await.unwrap();
    let other = repo("other");
    push_blob(&registry, &other, b"layer").await;
    for body in [&first, &second] {
        put(&registry, &other, Some("fixed"), body).await.unwrap();
    }
}
