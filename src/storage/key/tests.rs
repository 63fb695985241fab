//! Names and the keys they stand for.

use super::*;

#[test]
fn the_paths_are_those_of_distribution() {
    let repo: RepoName = "team/app".parse().unwrap();
    let tag: Tag = "v1".parse().unwrap();
    let digest = Algorithm::Sha256.digest(b"");
    let hex = digest.hex();
    let id: UploadId = "00000000-0000-4000-8000-000000000000".parse().unwrap();
    let base = "docker/registry/v2/repositories/team/app";
    assert_eq!(
        Key::Blob(digest).path(),
        format!("docker/registry/v2/blobs/sha256/e3/{hex}/data")
    );
    assert_eq!(
        Key::Layer(repo.clone(), digest).path(),
        format!("{base}/_layers/sha256/{hex}/link")
    );
    assert_eq!(
        Key::Revision(repo.clone(), digest).path(),
        format!("{base}/_manifests/revisions/sha256/{hex}/link")
    );
    assert_eq!(
        Key::Tag(repo.clone(), tag.clone()).path(),
        format!("{base}/_manifests/tags/v1/current/link")
    );
    assert_eq!(
        Key::Filled(repo.clone(), Filled::Blob(digest)).path(),
        format!(".registry/mirror/team/app/_layers/sha256-{hex}")
    );
    assert_eq!(
        Key::TagIndex(repo.clone(), tag.clone(), digest).path(),
        format!("{base}/_manifests/tags/v1/index/sha256/{hex}/link")
    );
    assert_eq!(
        Key::UploadData(repo.clone(), id).path(),
        format!("{base}/_uploads/{id}/data")
    );
    for (key, dir) in [
        (Key::Blob(digest), Dir::Blob(digest)),
        (Key::Blob(digest), Dir::Shard(Algorithm::Sha256, 0xe3)),
        (
            Key::Layer(repo.clone(), digest),
            Dir::Layer(repo.clone(), digest),
        ),
        (
            Key::Layer(repo.clone(), digest),
            Dir::Layers(repo.clone(), Algorithm::Sha256),
        ),
        (
            Key::Layer(repo.clone(), digest),
            Dir::AllLayers(repo.clone()),
        ),
        (
            Key::Revision(repo.clone(), digest),
            Dir::Revision(repo.clone(), digest),
        ),
        (
            Key::Revision(repo.clone(), digest),
            Dir::AllRevisions(repo.clone()),
        ),
    ] {
        assert!(key.is_below(&dir), "{key} in {dir}");
    }
    assert!(Key::Tag(repo.clone(), tag.clone()).is_below(&Dir::Tag(repo.clone(), tag.clone())));
    assert!(!Key::Tag(repo.clone(), "v10".parse().unwrap()).is_below(&Dir::Tag(repo, tag)));
}

proptest::proptest! {
    /// What distribution leaves of `link` is named `link.<uuid>.tmp`, and nothing else is taken for it.
    #[test]
    fn what_was_never_finished_has_one_spelling(name in "(link|data)?\\.?[0-9a-f-]{0,40}\\.?(tmp)?", id in proptest::prelude::any::<u128>()) {
        let id = Uuid::from_u128(id);
        let file = format!("link.{}.tmp", id.hyphenated());
        proptest::prop_assert_eq!(unfinished(&file, "link"), Some(id));
        proptest::prop_assert_eq!(unfinished(&file, "data"), None);
        if let Some(id) = unfinished(&name, "link") {
            proptest::prop_assert_eq!(format!("link.{}.tmp", id.hyphenated()), name);
        }
    }
}
