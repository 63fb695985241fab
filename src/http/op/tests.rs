use proptest::prelude::*;

use super::*;
use crate::auth::Action;
use crate::http::route::MAX_URI;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn parse(method: &str, uri: &str) -> Result<Op, OpError> {
    let (path, query) = uri
        .split_once('?')
        .map_or((uri, None), |(path, query)| (path, Some(query)));
    Op::parse(method, path, query)
}

fn name(method: &str, uri: &str) -> &'static str {
    parse(method, uri)
        .unwrap_or_else(|e| panic!("{method} {uri}: {e}"))
        .name()
}

fn some_op() -> impl Strategy<Value = Op> {
    let repo = || {
        "[a-z0-9]{1,6}([._-][a-z0-9]{1,4}){0,2}(/(blobs|uploads|manifests|tags|list|v2|[a-z0-9]{1,4})){0,4}"
            .prop_map(|name| name.parse::<RepoName>().unwrap())
    };
    let digest = || {
        any::<(Vec<u8>, bool)>().prop_map(|(data, long)| {
            if long {
                Algorithm::Sha512.digest(&data)
            } else {
                Algorithm::Sha256.digest(&data)
            }
        })
    };
    let tag = || "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}".prop_map(|tag| tag.parse::<Tag>().unwrap());
    let reference = || {
        prop_oneof![
            tag().prop_map(Reference::Tag),
            digest().prop_map(Reference::Digest)
        ]
    };
    let id = || {
        any::<u128>().prop_map(|n| {
            uuid::Uuid::from_u128(n)
                .to_string()
                .parse::<UploadId>()
                .unwrap()
        })
    };
    let algorithm = || {
        proptest::option::of(prop_oneof![
            Just(Algorithm::Sha256),
            Just(Algorithm::Sha512)
        ])
    };
    let page = || {
        (
            proptest::option::of(any::<usize>()),
            proptest::option::of("\\PC{1,20}"),
        )
            .prop_map(|(n, last)| PageQuery { n, last })
    };
    prop_oneof![
        prop_oneof![
            Just(Op::Ping),
            Just(Op::Home),
            Just(Op::Health),
            Just(Op::Ready),
            Just(Op::GetCa),
            Just(Op::GetTrustScript),
            Just(Op::GetTrustPowershell),
            Just(Op::Metrics),
            Just(Op::GetReadOnly),
            Just(Op::SetReadOnly)
        ],
        (repo(), reference()).prop_map(|(repo, reference)| Op::GetManifest { repo, reference }),
        (repo(), reference()).prop_map(|(repo, reference)| Op::HeadManifest { repo, reference }),
        (repo(), digest(), proptest::collection::vec(tag(), 0..12)).prop_map(
            |(repo, digest, tags)| {
                Op::PutManifest {
                    repo,
                    reference: Reference::Digest(digest),
                    tags,
                }
            }
        ),
        (repo(), reference()).prop_map(|(repo, reference)| Op::PutManifest {
            repo,
            reference,
            tags: Vec::new()
        }),
        (repo(), digest()).prop_map(|(repo, digest)| Op::DeleteManifest { repo, digest }),
        (repo(), tag()).prop_map(|(repo, tag)| Op::DeleteTag { repo, tag }),
        (repo(), digest()).prop_map(|(repo, digest)| Op::GetBlob { repo, digest }),
        (repo(), digest()).prop_map(|(repo, digest)| Op::HeadBlob { repo, digest }),
        (repo(), digest()).prop_map(|(repo, digest)| Op::DeleteBlob { repo, digest }),
        (repo(), algorithm()).prop_map(|(repo, algorithm)| Op::StartUpload { repo, algorithm }),
        (repo(), digest()).prop_map(|(repo, digest)| Op::PushBlob { repo, digest }),
        (repo(), digest(), proptest::option::of(repo()), algorithm()).prop_map(
            |(repo, digest, from, algorithm)| Op::MountBlob {
                repo,
                digest,
                from,
                algorithm
            }
        ),
        (repo(), id()).prop_map(|(repo, id)| Op::UploadStatus { repo, id }),
        (repo(), id()).prop_map(|(repo, id)| Op::AppendUpload { repo, id }),
        (repo(), id(), digest()).prop_map(|(repo, id, digest)| Op::FinishUpload {
            repo,
            id,
            digest
        }),
        (repo(), id()).prop_map(|(repo, id)| Op::CancelUpload { repo, id }),
        (repo(), page()).prop_map(|(repo, page)| Op::ListTags { repo, page }),
        page().prop_map(|page| Op::ListRepositories { page }),
        (
            proptest::collection::vec("repository(\\(plugin\\))?:[a-z]{1,4}(/[a-z]{1,4})?:(pull)?(,push)?|registry:catalog:\\*", 0..4),
            any::<bool>(),
        )
            .prop_map(|(scopes, offline)| Op::GetToken {
                scopes: Scopes::parse(scopes.iter().map(String::as_str)),
                offline,
            }),
        Just(Op::PostToken),
        (
            repo(),
            digest(),
            proptest::option::of("\\PC{1,30}"),
            any::<Option<usize>>(),
            proptest::option::of(digest())
        )
            .prop_map(|(repo, subject, artifact_type, n, last)| {
                Op::ListReferrers {
                    repo,
                    subject,
                    artifact_type,
                    n,
                    last,
                }
            }),
    ]
}

proptest! {
    #[test]
    fn every_operation_is_parsed_back_from_its_uri(op in some_op()) {
        prop_assert_eq!(parse(op.method().as_str(), &op.to_uri()), Ok(op));
    }

    #[test]
    fn nothing_panics_and_nothing_accepted_leaves_the_tree(
        method in "GET|HEAD|PUT|POST|PATCH|DELETE|[A-Z]{0,8}",
        path in "(/v2)?(/|a|blobs|uploads|manifests|tags|list|referrers|_catalog|%2[eEfF]|%00|\\.|\\.\\.|%|[!-~]){0,12}",
        query in proptest::option::of("[!-~]{0,40}"),
    ) {
        if let Ok(op) = Op::parse(&method, &path, query.as_deref()) {
            let uri = op.to_uri();
            let path = uri.split('?').next().unwrap_or_default();
            prop_assert!(!path.split('/').any(|component| matches!(component, "." | "..")), "{path}");
            prop_assert!(!path.contains("//") && !path.contains('\0'), "{path}");
            prop_assert_eq!(parse(op.method().as_str(), &uri), Ok(op));
        }
    }
}

#[test]
fn the_endpoints_of_the_specification() {
    let id = "2f1c0dd2-5f47-4e43-8f3e-6d1a47a1a4b5";
    for (method, uri, op) in [
        ("GET", "/v2/".to_owned(), "ping"),
        ("GET", "/v2".to_owned(), "ping"),
        ("HEAD", "/v2/".to_owned(), "ping"),
        ("GET", format!("/v2/a/b/blobs/sha256:{HEX}"), "get-blob"),
        ("HEAD", format!("/v2/a/b/blobs/sha256%3A{HEX}"), "head-blob"),
        ("GET", "/v2/a/b/manifests/latest".to_owned(), "get-manifest"),
        (
            "HEAD",
            format!("/v2/a/manifests/sha256:{HEX}"),
            "head-manifest",
        ),
        ("POST", "/v2/a/blobs/uploads/".to_owned(), "start-upload"),
        ("POST", "/v2/a/blobs/uploads".to_owned(), "start-upload"),
        (
            "POST",
            "/v2/a/blobs/uploads/?digest-algorithm=sha512".to_owned(),
            "start-upload",
        ),
        (
            "POST",
            format!("/v2/a/blobs/uploads/?digest=sha256:{HEX}"),
            "push-blob",
        ),
        (
            "POST",
            format!("/v2/a/blobs/uploads/?mount=sha256:{HEX}&from=b/c"),
            "mount-blob",
        ),
        (
            "POST",
            format!("/v2/a/blobs/uploads/?from=b%2Fc&mount=sha256%3A{HEX}&origin=x"),
            "mount-blob",
        ),
        (
            "POST",
            format!("/v2/a/blobs/uploads/?mount=sha256:{HEX}"),
            "mount-blob",
        ),
        (
            "PATCH",
            format!("/v2/a/blobs/uploads/{id}?_state=abc"),
            "append-upload",
        ),
        (
            "PUT",
            format!("/v2/a/blobs/uploads/{id}?digest=sha256:{HEX}"),
            "finish-upload",
        ),
        ("GET", format!("/v2/a/blobs/uploads/{id}"), "upload-status"),
        (
            "DELETE",
            format!("/v2/a/blobs/uploads/{id}"),
            "cancel-upload",
        ),
        ("PUT", "/v2/a/manifests/latest".to_owned(), "put-manifest"),
        (
            "PUT",
            format!("/v2/a/manifests/sha256:{HEX}?tag=a&tag=b"),
            "put-manifest",
        ),
        (
            "GET",
            "/v2/a/tags/list?n=3&last=x&ns=docker.io".to_owned(),
            "list-tags",
        ),
        ("GET", "/v2/_catalog?n=1000".to_owned(), "list-repositories"),
        ("DELETE", "/v2/a/manifests/latest".to_owned(), "delete-tag"),
        (
            "DELETE",
            format!("/v2/a/manifests/sha256:{HEX}"),
            "delete-manifest",
        ),
        ("DELETE", format!("/v2/a/blobs/sha256:{HEX}"), "delete-blob"),
        (
            "GET",
            format!("/v2/a/referrers/sha256:{HEX}?artifactType=x/y+z"),
            "list-referrers",
        ),
        ("GET", "/auth/token".to_owned(), "get-token"),
        (
            "GET",
            "/auth/token?account=a&client_id=docker&offline_token=true&service=r&scope=x+y"
                .to_owned(),
            "get-token",
        ),
        ("POST", "/auth/token".to_owned(), "post-token"),
        (
            "GET",
            "/v2/blobs/uploads/manifests/latest".to_owned(),
            "get-manifest",
        ),
        ("GET", "/v2/%61/manifests/latest".to_owned(), "get-manifest"),
    ] {
        assert_eq!(name(method, &uri), op, "{method} {uri}");
    }
}

#[test]
fn bad_arguments_are_told_apart() {
    let kind = |method: &str, uri: &str| match parse(method, uri) {
        Ok(op) => op.name(),
        Err(OpError::Name(..)) => "name",
        Err(OpError::Tag(..)) => "tag",
        Err(OpError::NoSuchTag(..)) => "no such tag",
        Err(OpError::Digest(..)) => "digest",
        Err(OpError::DigestMissing) => "digest missing",
        Err(OpError::TagsOfTag) => "tags of a tag",
        Err(OpError::Upload(_)) => "upload",
        Err(OpError::PageSize(_)) => "n",
        Err(OpError::Method { .. }) => "method",
        Err(OpError::Path) => "path",
        Err(OpError::Version1) => "v1",
        Err(OpError::TooLong) => "too long",
    };
    let id = "2f1c0dd2-5f47-4e43-8f3e-6d1a47a1a4b5";
    let digest = format!("sha256:{HEX}");
    for (method, uri, error) in [
        ("GET", "/v2/../etc/manifests/latest".to_owned(), "name"),
        ("GET", "/v2/%2e%2e/etc/manifests/latest".to_owned(), "name"),
        ("GET", "/v2/a%2fb/manifests/latest".to_owned(), "name"),
        ("GET", "/v2/a//b/manifests/latest".to_owned(), "name"),
        ("GET", "/v2//manifests/latest".to_owned(), "name"),
        ("GET", "/v2/manifests/latest".to_owned(), "name"),
        ("GET", "/v2/A/manifests/latest".to_owned(), "name"),
        ("GET", "/v2/a%00/manifests/latest".to_owned(), "name"),
        ("GET", "/v2/a%/manifests/latest".to_owned(), "name"),
        ("GET", "/v2/_layers/manifests/latest".to_owned(), "name"),
        ("POST", "/v2/blobs/uploads/".to_owned(), "name"),
        ("PATCH", format!("/v2/blobs/uploads/{id}"), "name"),
        ("GET", "/v2/tags/list".to_owned(), "name"),
        ("GET", format!("/v2/{}/tags/list", "a".repeat(256)), "name"),
        (
            "POST",
            format!("/v2/a/blobs/uploads/?mount={digest}&from=../b"),
            "name",
        ),
        ("PUT", "/v2/a/manifests/.bad".to_owned(), "tag"),
        ("PUT", "/v2/a/manifests/".to_owned(), "tag"),
        ("PUT", "/v2/a/manifests/a%2Fb".to_owned(), "tag"),
        ("DELETE", "/v2/a/manifests/-x".to_owned(), "tag"),
        ("GET", "/v2/a/manifests/.INVALID".to_owned(), "no such tag"),
        ("HEAD", "/v2/a/manifests/%2e%2e".to_owned(), "no such tag"),
        ("PUT", format!("/v2/a/manifests/{digest}?tag=.x"), "tag"),
        (
            "PUT",
            "/v2/a/manifests/latest?tag=x".to_owned(),
            "tags of a tag",
        ),
        ("GET", "/v2/a/manifests/sha256:abc".to_owned(), "digest"),
        (
            "GET",
            "/v2/a/manifests/md5:d41d8cd98f00b204e9800998ecf8427e".to_owned(),
            "digest",
        ),
        ("GET", "/v2/a/blobs/x".to_owned(), "digest"),
        ("GET", "/v2/a/blobs/".to_owned(), "digest"),
        ("GET", format!("/v2/a/blobs/{digest}%00"), "digest"),
        ("GET", format!("/v2/a/blobs/sha256%253A{HEX}"), "digest"),
        ("POST", "/v2/a/blobs/uploads/?digest=x".to_owned(), "digest"),
        (
            "POST",
            "/v2/a/blobs/uploads/?mount=x&from=b".to_owned(),
            "digest",
        ),
        (
            "POST",
            "/v2/a/blobs/uploads/?digest-algorithm=md5".to_owned(),
            "digest",
        ),
        ("GET", "/v2/a/referrers/latest".to_owned(), "digest"),
        ("PUT", format!("/v2/a/blobs/uploads/{id}"), "digest missing"),
        ("PATCH", "/v2/a/blobs/uploads/x".to_owned(), "upload"),
        ("PATCH", "/v2/a/blobs/uploads/..".to_owned(), "upload"),
        ("GET", "/v2/a/tags/list?n=-1".to_owned(), "n"),
        ("GET", "/v2/a/tags/list?n=+1".to_owned(), "n"),
        ("GET", "/v2/_catalog?n=x".to_owned(), "n"),
        ("GET", "/v2/_catalog?n=99999999999999999999".to_owned(), "n"),
        ("DELETE", "/v2/a/tags/list".to_owned(), "method"),
        ("GET", "/v2/a/blobs/uploads/".to_owned(), "method"),
        ("POST", "/v2/".to_owned(), "method"),
        ("PUT", "/auth/token".to_owned(), "method"),
        ("GET", "/auth/token/".to_owned(), "path"),
        ("BREW", "/v2/a/manifests/x".to_owned(), "method"),
        ("GET", "/v2/a".to_owned(), "path"),
        ("GET", "/v2/a/b/c".to_owned(), "path"),
        ("GET", "/v2/a/uploads/x".to_owned(), "path"),
        ("GET", "/v3/".to_owned(), "path"),
        ("GET", "//v2/".to_owned(), "path"),
        ("OPTIONS", "*".to_owned(), "path"),
        ("GET", "/v1/_ping".to_owned(), "v1"),
        ("GET", "/v1/search?q=x".to_owned(), "v1"),
        (
            "GET",
            format!("/v2/_catalog?last={}", "x".repeat(MAX_URI)),
            "too long",
        ),
    ] {
        assert_eq!(kind(method, &uri), error, "{method} {uri}");
    }
}

#[test]
fn what_the_rules_are_asked() {
    let digest = format!("sha256:{HEX}");
    let mount = parse(
        "POST",
        &format!("/v2/a/b/blobs/uploads/?mount={digest}&from=c"),
    )
    .unwrap();
    let access = mount.access();
    assert_eq!(access.action, Action::Push);
    assert_eq!(access.repository.map(RepoName::as_str), Some("a/b"));
    assert_eq!(access.also_pull.map(RepoName::as_str), Some("c"));
    for (method, uri, action) in [
        ("GET", "/v2/".to_owned(), Action::Ping),
        ("GET", "/healthz".to_owned(), Action::Public),
        ("GET", "/metrics".to_owned(), Action::Metrics),
        ("GET", "/v2/_catalog".to_owned(), Action::Catalog),
        ("HEAD", format!("/v2/a/blobs/{digest}"), Action::Pull),
        ("GET", format!("/v2/a/referrers/{digest}"), Action::Pull),
        ("POST", "/v2/a/blobs/uploads/".to_owned(), Action::Push),
        ("DELETE", "/v2/a/manifests/x".to_owned(), Action::Delete),
    ] {
        assert_eq!(
            parse(method, &uri).unwrap().access().action,
            action,
            "{method} {uri}"
        );
    }
}
