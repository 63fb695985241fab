//! The promises of [`Store`] and [`Upload`], tried on every backend. What a power cut leaves is `tests/it/crash.rs`.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;

use super::{
    Body, Cached, Dir, Durability, Error, FsStore, Key, MemStore, Metered, Store, UploadId,
};
use crate::oci::{Algorithm, RepoName};

type Backend = (Arc<dyn Store>, &'static str, Option<tempfile::TempDir>);

fn backends() -> Vec<Backend> {
    let folder = tempfile::tempdir().unwrap();
    let cached = tempfile::tempdir().unwrap();
    let fs = FsStore::open(folder.path()).unwrap();
    let slotted = tempfile::tempdir().unwrap();
    let with_slots = FsStore::open(slotted.path()).unwrap().with_slots();
    let below = FsStore::open(cached.path()).unwrap();
    vec![
        (Arc::new(MemStore::default()), "memory", None),
        (Arc::new(fs), "disk", Some(folder)),
        (Arc::new(with_slots), "disk with slots", Some(slotted)),
        (
            Arc::new(Cached::new(MemStore::default())),
            "cached memory",
            None,
        ),
        (
            Arc::new(Cached::new(Metered::new(below, Arc::new(|_, _, _| {})))),
            "cached, metered disk",
            Some(cached),
        ),
    ]
}

fn repo() -> RepoName {
    "team/app".parse().unwrap()
}

fn tag(name: &str) -> Key {
    Key::Tag(repo(), name.parse().unwrap())
}

async fn bytes(body: Body) -> Vec<u8> {
    match body {
        Body::Bytes(bytes) => bytes.to_vec(),
        Body::Stream(stream) => stream.map_ok(|b| b.to_vec()).try_concat().await.unwrap(),
    }
}

fn pattern(len: usize) -> Bytes {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

#[tokio::test]
async fn what_was_put_is_read_replaced_and_deleted() {
    for (store, name, _dir) in backends() {
        let key = tag("a");
        assert!(
            matches!(store.get(&key, 9).await, Err(Error::NotFound(_))),
            "{name}"
        );
        assert!(
            matches!(store.stat(&key).await, Err(Error::NotFound(_))),
            "{name}"
        );
        assert!(
            matches!(store.read(&key, None).await, Err(Error::NotFound(_))),
            "{name}"
        );
        for (content, durability) in [
            ("one", Durability::Durable),
            ("second", Durability::Lazy),
            ("", Durability::Durable),
        ] {
            store.put(&key, content.into(), durability).await.unwrap();
            assert_eq!(store.get(&key, 100).await.unwrap(), content, "{name}");
            assert_eq!(
                store.stat(&key).await.unwrap().len,
                content.len() as u64,
                "{name}"
            );
            let object = store.read(&key, None).await.unwrap();
            assert_eq!(object.meta.len, content.len() as u64, "{name}");
            assert_eq!(bytes(object.body).await, content.as_bytes(), "{name}");
        }
        for durability in [Durability::Durable, Durability::Lazy] {
            store.delete(&key, durability).await.unwrap();
            assert!(
                store.get(&key, 9).await.unwrap_err().is_not_found(),
                "{name}"
            );
            assert!(store.stat(&key).await.unwrap_err().is_not_found(), "{name}");
        }
    }
}

#[tokio::test]
async fn get_refuses_more_than_its_limit() {
    for (store, name, _dir) in backends() {
        store
            .put(&tag("a"), "12345".into(), Durability::Lazy)
            .await
            .unwrap();
        assert_eq!(store.get(&tag("a"), 5).await.unwrap(), "12345", "{name}");
        for _ in 0..2 {
            assert!(
                matches!(
                    store.get(&tag("a"), 4).await,
                    Err(Error::TooLarge { limit: 4, .. })
                ),
                "{name}"
            );
        }
    }
}

#[tokio::test]
async fn ranges_are_exactly_the_bytes_asked_for() {
    let content = pattern(700_001);
    for (store, name, _dir) in backends() {
        let key = Key::Blob(Algorithm::Sha256.digest(&content));
        store
            .put(&key, content.clone(), Durability::Lazy)
            .await
            .unwrap();
        for range in [
            0..1,
            0..700_001,
            1..65_538,
            262_143..262_145,
            700_000..700_001,
            5..600_000,
        ] {
            let object = store.read(&key, Some(range.clone())).await.unwrap();
            assert_eq!(object.meta.len, 700_001, "{name}");
            let (from, to) = (range.start as usize, range.end as usize);
            assert!(
                bytes(object.body).await == content[from..to],
                "{name} {range:?}"
            );
        }
    }
}

#[tokio::test]
async fn what_was_opened_can_be_read_to_its_end_after_delete_and_replace() {
    let content = pattern(900_000);
    for (store, name, _dir) in backends() {
        let key = Key::Blob(Algorithm::Sha256.digest(&content));
        store
            .put(&key, content.clone(), Durability::Lazy)
            .await
            .unwrap();
        let first = store.read(&key, None).await.unwrap();
        store
            .put(&key, "other".into(), Durability::Lazy)
            .await
            .unwrap();
        let second = store.read(&key, None).await.unwrap();
        store.delete(&key, Durability::Lazy).await.unwrap();
        assert!(bytes(first.body).await == content, "{name}");
        assert_eq!(bytes(second.body).await, b"other", "{name}");
    }
}

#[tokio::test]
async fn lists_children_in_byte_order_after_a_name_up_to_a_limit() {
    for (store, name, _dir) in backends() {
        let dir = Dir::Tags(repo());
        assert!(
            store.list(&dir, None, 9).await.unwrap().is_empty(),
            "{name}"
        );
        assert!(!store.has(&dir).await.unwrap(), "{name}");
        for tag_name in ["b", "a", "B", "a-1", "a.1", "a0", "_"] {
            store
                .put(&tag(tag_name), "x".into(), Durability::Lazy)
                .await
                .unwrap();
        }
        assert!(store.has(&dir).await.unwrap(), "{name}");
        assert_eq!(
            store.list(&dir, None, 99).await.unwrap(),
            ["B", "_", "a", "a-1", "a.1", "a0", "b"],
            "{name}"
        );
        assert_eq!(
            store.list(&dir, Some("a"), 2).await.unwrap(),
            ["a-1", "a.1"],
            "{name}"
        );
        assert_eq!(
            store.list(&dir, Some("a/"), 1).await.unwrap(),
            ["a0"],
            "{name}"
        );
        assert!(
            store.list(&dir, Some("b"), 9).await.unwrap().is_empty(),
            "{name}"
        );
    }
}

#[tokio::test]
async fn remove_takes_all_below_and_nothing_beside() {
    for (store, name, _dir) in backends() {
        let digest = Algorithm::Sha256.digest(b"x");
        let index = Key::TagIndex(repo(), "a".parse().unwrap(), digest);
        for key in [&tag("a"), &index, &tag("ab")] {
            store
                .put(key, "x".into(), Durability::Durable)
                .await
                .unwrap();
            store.get(key, 9).await.unwrap();
        }
        for durability in [Durability::Durable, Durability::Lazy] {
            store
                .remove(&Dir::Tag(repo(), "a".parse().unwrap()), durability)
                .await
                .unwrap();
            assert!(
                store.get(&tag("a"), 9).await.unwrap_err().is_not_found(),
                "{name}"
            );
            assert!(
                store.get(&index, 9).await.unwrap_err().is_not_found(),
                "{name}"
            );
            assert_eq!(store.get(&tag("ab"), 9).await.unwrap(), "x", "{name}");
        }
        store
            .put(&tag("a"), "again".into(), Durability::Durable)
            .await
            .unwrap();
        assert_eq!(store.get(&tag("a"), 9).await.unwrap(), "again", "{name}");
    }
}

#[tokio::test]
async fn an_upload_grows_pauses_continues_and_is_committed() {
    let content = pattern(600_000);
    for (store, name, _dir) in backends() {
        let key = Key::UploadData(repo(), UploadId::new());
        let target = Key::Blob(Algorithm::Sha256.digest(&content));
        assert!(
            matches!(store.upload(&key, 1).await, Err(Error::NotFound(_))),
            "{name}"
        );

        let mut upload = store.upload(&key, 0).await.unwrap();
        upload
            .write(vec![
                content.slice(..1),
                Bytes::new(),
                content.slice(1..100_000),
            ])
            .await
            .unwrap();
        upload
            .write(vec![content.slice(100_000..300_000)])
            .await
            .unwrap();
        assert_eq!(upload.pause().await.unwrap(), 300_000, "{name}");
        upload.write(vec!["to be cut off".into()]).await.unwrap();
        upload.pause().await.unwrap();
        drop(upload);
        assert!(
            store.stat(&target).await.unwrap_err().is_not_found(),
            "{name}: nothing before the commit"
        );

        assert!(
            matches!(store.upload(&key, 400_000).await, Err(Error::NotFound(_))),
            "{name}"
        );
        let mut upload = store.upload(&key, 300_000).await.unwrap();
        upload.write(vec![content.slice(300_000..)]).await.unwrap();
        upload.commit(&target).await.unwrap();
        assert!(
            bytes(store.read(&target, None).await.unwrap().body).await == content,
            "{name}"
        );
        assert!(
            store.stat(&key).await.unwrap_err().is_not_found(),
            "{name}: it moved"
        );
    }
}

#[tokio::test]
async fn a_commit_replaces_what_was_under_its_target() {
    for (store, name, _dir) in backends() {
        let target = Key::Blob(Algorithm::Sha256.digest(b"whole"));
        store
            .put(&target, "who".into(), Durability::Lazy)
            .await
            .unwrap();
        assert_eq!(store.stat(&target).await.unwrap().len, 3, "{name}");
        let mut upload = store
            .upload(&Key::UploadData(repo(), UploadId::new()), 0)
            .await
            .unwrap();
        upload.write(vec!["whole".into()]).await.unwrap();
        upload.commit(&target).await.unwrap();
        assert_eq!(store.stat(&target).await.unwrap().len, 5, "{name}");
        assert_eq!(store.get(&target, 9).await.unwrap(), "whole", "{name}");
    }
}

#[tokio::test]
async fn an_empty_upload_becomes_an_empty_object() {
    for (store, name, _dir) in backends() {
        let target = Key::Blob(Algorithm::Sha256.digest(b""));
        let upload = store
            .upload(&Key::UploadData(repo(), UploadId::new()), 0)
            .await
            .unwrap();
        upload.commit(&target).await.unwrap();
        assert_eq!(store.stat(&target).await.unwrap().len, 0, "{name}");
        let object = store.read(&target, None).await.unwrap();
        assert!(bytes(object.body).await.is_empty(), "{name}");
    }
}

#[tokio::test]
async fn the_probe_of_a_working_store_succeeds_and_leaves_nothing() {
    for (store, name, dir) in backends() {
        store.probe().await.unwrap();
        if let Some(dir) = dir {
            assert_eq!(
                std::fs::read_dir(dir.path().join(".registry/tmp"))
                    .unwrap()
                    .count(),
                0,
                "{name}"
            );
            assert!(
                store
                    .space()
                    .await
                    .unwrap()
                    .is_some_and(|space| space.available <= space.total),
                "{name}"
            );
        }
    }
}

#[tokio::test]
async fn a_folder_in_place_of_a_file_is_no_object() {
    let folder = tempfile::tempdir().unwrap();
    let store = FsStore::open(folder.path()).unwrap();
    std::fs::create_dir_all(folder.path().join(tag("a").path())).unwrap();
    assert!(store.stat(&tag("a")).await.unwrap_err().is_not_found());
    assert!(store.get(&tag("a"), 9).await.unwrap_err().is_not_found());
    assert!(store.read(&tag("a"), None).await.is_err());
}

#[tokio::test]
async fn one_process_owns_a_tree() {
    let folder = tempfile::tempdir().unwrap();
    let first = FsStore::open(folder.path()).unwrap();
    let error = FsStore::open(folder.path()).err().unwrap();
    assert!(
        error.to_string().contains("in use by another registry"),
        "{error}"
    );
    drop(first);
    assert!(FsStore::open(folder.path()).is_ok());
}

#[tokio::test]
async fn what_began_as_a_slot_leaves_only_the_file_and_no_slot() {
    let folder = tempfile::tempdir().unwrap();
    let store = FsStore::open(folder.path()).unwrap().with_slots();
    let id = UploadId::new();
    let target = Key::Blob(Algorithm::Sha256.digest(b"x"));
    let mut upload = store.upload(&Key::UploadData(repo(), id), 0).await.unwrap();
    store
        .put(
            &Key::UploadStarted(repo(), id),
            "now".into(),
            Durability::Lazy,
        )
        .await
        .unwrap();
    upload.write(vec!["x".into()]).await.unwrap();
    upload.commit(&target).await.unwrap();
    let link = Key::Layer(repo(), Algorithm::Sha256.digest(b"x"));
    store
        .put(&link, "sha256:".into(), Durability::Durable)
        .await
        .unwrap();
    for key in [&target, &link] {
        let path = folder.path().join(key.path());
        let beside: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(beside.len(), 1, "{key}");
    }
    assert!(
        !store.has(&Dir::Upload(repo(), id)).await.unwrap(),
        "the upload's folder has become the blob's"
    );
}

#[tokio::test]
async fn a_tree_on_two_file_systems_is_refused() {
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("docker")).unwrap();
    let error = FsStore::open(folder.path()).err().unwrap().to_string();
    assert!(
        error.contains("is on another file system than")
            && error.contains("storage.filesystem.rootdirectory"),
        "{error}"
    );
}

/// `.registry` says that it can be made again, so somebody removes it one day while the registry runs.
#[tokio::test]
async fn removing_and_writing_work_without_our_own_folders() {
    let folder = tempfile::tempdir().unwrap();
    let store = FsStore::open(folder.path()).unwrap();
    let corner = folder.path().join(super::key::OWN);
    let (one, two) = (tag("a"), tag("b"));
    for durability in [Durability::Durable, Durability::Lazy] {
        std::fs::remove_dir_all(corner.join("tmp")).unwrap();
        store.put(&one, "1".into(), durability).await.unwrap();
        store.put(&two, "2".into(), durability).await.unwrap();
        std::fs::remove_dir_all(corner.join("trash")).unwrap();
        let dir = Dir::Tag(repo(), "a".parse().unwrap());
        store.remove(&dir, durability).await.unwrap();
        assert!(store.stat(&one).await.unwrap_err().is_not_found());
        assert_eq!(store.get(&two, 9).await.unwrap(), "2");
    }
}
