//! Referrers: what is about a manifest (distribution-spec, "Listing Referrers").

use std::{fs, thread};

use serde_json::{Value, json};

use crate::{
    listings,
    support::{
        http::{Client, Response},
        image::{Algorithm, Image, Manifest, OCI_CONFIG, OCI_INDEX, push_blob, sha256},
        server::{Server, serve},
    },
};

const SBOM: &str = "application/vnd.example.sbom.v1+json";
const SIGNATURE: &str = "application/vnd.example.signature.v1";

#[track_caller]
fn ask(client: &Client, repo: &str, digest: &str, query: &str) -> Response {
    let reply = client
        .get(&format!("/v2/{repo}/referrers/{digest}{query}"))
        .send()
        .expect(200);
    assert_eq!(reply.header("content-type"), Some(OCI_INDEX));
    let value = reply.json();
    assert_eq!(value["schemaVersion"], 2);
    assert_eq!(value["mediaType"], OCI_INDEX);
    reply
}

/// The descriptors of all pages.
#[track_caller]
fn descriptors(client: &Client, repo: &str, digest: &str, query: &str) -> Vec<Value> {
    ask(client, repo, digest, query);
    listings::pages(client, &format!("/v2/{repo}/referrers/{digest}{query}"))
        .iter()
        .flat_map(|page| page.json()["manifests"].as_array().unwrap().clone())
        .collect()
}

/// The digests of all referrers, sorted.
#[track_caller]
fn referrers(client: &Client, repo: &str, digest: &str) -> Vec<String> {
    let mut digests: Vec<String> = descriptors(client, repo, digest, "")
        .iter()
        .map(|descriptor| descriptor["digest"].as_str().unwrap().to_owned())
        .collect();
    digests.sort();
    digests
}

fn sorted<'a>(images: impl IntoIterator<Item = &'a Image>) -> Vec<String> {
    let mut digests: Vec<String> = images
        .into_iter()
        .map(|image| image.digest().to_owned())
        .collect();
    digests.sort();
    digests
}

#[test]
fn who_has_no_referrers_has_an_empty_list() {
    let (_server, client) = serve();
    let image = Image::new(1);
    image.push(&client, "team/app", "v1");
    for (repo, digest) in [
        ("team/app", image.digest()),
        ("team/app", sha256(b"nothing").as_str()),
        // oras probes with it whether there is such an API.
        ("team/app", &format!("sha256:{}", "0".repeat(64))),
        ("team/app", &format!("sha512:{}", "0".repeat(128))),
        ("team/unknown", image.digest()),
    ] {
        let reply = ask(&client, repo, digest, "");
        assert_eq!(reply.json()["manifests"], json!([]), "{repo} {digest}");
        assert_eq!(reply.header("oci-filters-applied"), None);
        assert_eq!(reply.header("link"), None);
    }
}

#[test]
fn a_referrer_is_described_by_type_size_artifact_type_and_annotations() {
    let (_server, client) = serve();
    let subject = Image::new(2);
    subject.push(&client, "team/app", "v1");
    let artifact = Image::builder(3)
        .artifact_type(SBOM)
        .subject(&subject.manifest)
        .annotation("org.opencontainers.image.created", "2026-01-01T00:00:00Z")
        .annotation("unicode", "\u{1F600} \"quoted\"")
        .build();
    // An image without an artifactType is of the type of its config.
    let image = Image::builder(4).subject(&subject.manifest).build();
    // An index without one has none.
    let index = Manifest::index([&subject.manifest]).edit(|value| {
        value["subject"] = subject.manifest.descriptor();
    });
    let typed_index = Manifest::index([&subject.manifest]).edit(|value| {
        value["subject"] = subject.manifest.descriptor();
        value["artifactType"] = json!(SIGNATURE);
    });
    artifact.push(&client, "team/app", artifact.digest());
    image.push(&client, "team/app", image.digest());
    index.push(&client, "team/app", index.digest());
    typed_index.push(&client, "team/app", typed_index.digest());
    let mut expected = vec![
        json!({
            "mediaType": artifact.manifest.media_type, "digest": artifact.digest(),
            "size": artifact.manifest.blob.len(), "artifactType": SBOM,
            "annotations": {
                "org.opencontainers.image.created": "2026-01-01T00:00:00Z",
                "unicode": "\u{1F600} \"quoted\"",
            },
        }),
        json!({
            "mediaType": image.manifest.media_type, "digest": image.digest(),
            "size": image.manifest.blob.len(), "artifactType": OCI_CONFIG,
        }),
        json!({ "mediaType": OCI_INDEX, "digest": index.digest(), "size": index.blob.len() }),
        json!({
            "mediaType": OCI_INDEX, "digest": typed_index.digest(), "size": typed_index.blob.len(),
            "artifactType": SIGNATURE,
        }),
    ];
    let by_digest = |a: &Value, b: &Value| a["digest"].as_str().cmp(&b["digest"].as_str());
    expected.sort_by(by_digest);
    let mut found = descriptors(&client, "team/app", subject.digest(), "");
    found.sort_by(by_digest);
    assert_eq!(found, expected);
}

#[test]
fn referrers_can_be_filtered_by_artifact_type() {
    let (_server, client) = serve();
    let subject = Image::new(5);
    subject.push(&client, "team/app", "v1");
    let sboms: Vec<Image> = (6..9)
        .map(|n| Image::artifact(n, SBOM, &subject.manifest))
        .collect();
    let signature = Image::artifact(9, SIGNATURE, &subject.manifest);
    let plain = Image::builder(10).subject(&subject.manifest).build();
    for image in sboms.iter().chain([&signature, &plain]) {
        image.push(&client, "team/app", image.digest());
    }
    for (filter, expected) in [
        (SBOM, sorted(&sboms)),
        (
            &SBOM.replace('/', "%2F").replace('+', "%2B"),
            sorted(&sboms),
        ),
        (SIGNATURE, sorted([&signature])),
        (OCI_CONFIG, sorted([&plain])),
        ("application/vnd.example.nothing", vec![]),
    ] {
        let query = format!("?artifactType={filter}");
        let reply = ask(&client, "team/app", subject.digest(), &query);
        assert_eq!(reply.header("oci-filters-applied"), Some("artifactType"));
        let mut found: Vec<String> = descriptors(&client, "team/app", subject.digest(), &query)
            .iter()
            .map(|descriptor| descriptor["digest"].as_str().unwrap().to_owned())
            .collect();
        found.sort();
        assert_eq!(found, expected, "{filter}");
    }
}

#[test]
fn pages_of_referrers_have_each_exactly_once() {
    let (_server, client) = serve();
    let subject = Image::new(11);
    subject.push(&client, "team/app", "v1");
    let images: Vec<Image> = (12..19)
        .map(|n| {
            let kind = if n % 2 == 0 { SBOM } else { SIGNATURE };
            Image::artifact(n, kind, &subject.manifest)
        })
        .collect();
    for image in &images {
        image.push(&client, "team/app", image.digest());
    }
    for n in 1..=8 {
        for (filter, expected) in [
            (String::new(), sorted(&images)),
            (
                format!("&artifactType={}", SBOM.replace('+', "%2B")),
                sorted(images.iter().step_by(2)),
            ),
        ] {
            let query = format!("?n={n}{filter}");
            let target = format!("/v2/team/app/referrers/{}{query}", subject.digest());
            let pages = listings::pages(&client, &target);
            let mut found = Vec::new();
            for page in &pages {
                let manifests = page.json()["manifests"].as_array().unwrap().clone();
                assert!(manifests.len() <= n && !manifests.is_empty(), "{query}");
                assert_eq!(page.header("content-type"), Some(OCI_INDEX));
                assert_eq!(
                    page.header("oci-filters-applied").is_some(),
                    !filter.is_empty()
                );
                found.extend(manifests);
            }
            let found: Vec<&str> = found
                .iter()
                .map(|descriptor| descriptor["digest"].as_str().unwrap())
                .collect();
            assert_eq!(found, expected, "{query}");
        }
    }
}

/// "A `Link` header MUST be included in the response when the descriptor list cannot be returned in a single manifest."
#[test]
fn a_list_that_is_too_large_for_a_manifest_comes_in_pages() {
    let (_server, client) = serve();
    let subject = Image::new(19);
    subject.push(&client, "team/app", "v1");
    let images: Vec<Image> = (20..25)
        .map(|n| {
            Image::builder(n)
                .layers(0)
                .artifact_type(SBOM)
                .subject(&subject.manifest)
                .annotation("large", &n.to_string().repeat(750_000))
                .build()
        })
        .collect();
    for image in &images {
        image.push(&client, "team/app", image.digest());
    }
    let target = format!("/v2/team/app/referrers/{}", subject.digest());
    let pages = listings::pages(&client, &target);
    assert!(pages.len() > 1);
    assert!(pages.iter().all(|page| page.body.len() <= 4 * 1024 * 1024));
    assert_eq!(
        referrers(&client, "team/app", subject.digest()),
        sorted(&images)
    );
}

#[test]
fn referrers_of_sha512_subjects_are_listed() {
    let (_server, client) = serve();
    let subject = Image::builder(25).algorithm(Algorithm::Sha512).build();
    subject.push(&client, "team/app", subject.digest());
    let by_256 = Image::artifact(26, SBOM, &subject.manifest);
    let by_512 = Image::builder(27)
        .algorithm(Algorithm::Sha512)
        .artifact_type(SBOM)
        .subject(&subject.manifest)
        .build();
    for image in [&by_256, &by_512] {
        let reply = image.push(&client, "team/app", image.digest());
        assert_eq!(reply.header("oci-subject"), Some(subject.digest()));
    }
    assert_eq!(
        referrers(&client, "team/app", subject.digest()),
        sorted([&by_256, &by_512])
    );
}

#[test]
fn referrers_belong_to_their_repository() {
    let (_server, client) = serve();
    let subject = Image::new(28);
    let artifact = Image::artifact(29, SBOM, &subject.manifest);
    subject.push(&client, "team/app", "v1");
    subject.push(&client, "team/other", "v1");
    artifact.push(&client, "team/app", artifact.digest());
    assert_eq!(
        referrers(&client, "team/app", subject.digest()),
        sorted([&artifact])
    );
    assert!(referrers(&client, "team/other", subject.digest()).is_empty());
}

#[test]
fn a_referrer_that_was_pushed_before_its_subject_is_listed() {
    let (_server, client) = serve();
    let subject = Image::new(30);
    let artifact = Image::artifact(31, SBOM, &subject.manifest);
    artifact.push(&client, "team/app", artifact.digest());
    // The list is there even while the subject is not.
    assert_eq!(
        referrers(&client, "team/app", subject.digest()),
        sorted([&artifact])
    );
    subject.push(&client, "team/app", "v1");
    assert_eq!(
        referrers(&client, "team/app", subject.digest()),
        sorted([&artifact])
    );
}

#[test]
fn a_referrer_may_have_referrers() {
    let (_server, client) = serve();
    let image = Image::new(32);
    let sbom = Image::artifact(33, SBOM, &image.manifest);
    let signature = Image::artifact(34, SIGNATURE, &sbom.manifest);
    for pushed in [&image, &sbom, &signature] {
        pushed.push(&client, "team/app", pushed.digest());
    }
    assert_eq!(
        referrers(&client, "team/app", image.digest()),
        sorted([&sbom])
    );
    assert_eq!(
        referrers(&client, "team/app", sbom.digest()),
        sorted([&signature])
    );
}

#[test]
fn a_deleted_referrer_is_not_listed_any_more() {
    let (_server, client) = serve();
    let subject = Image::new(35);
    subject.push(&client, "team/app", "v1");
    let (a, b) = (
        Image::artifact(36, SBOM, &subject.manifest),
        Image::artifact(37, SBOM, &subject.manifest),
    );
    for image in [&a, &b] {
        image.push(&client, "team/app", image.digest());
    }
    client
        .delete(&format!("/v2/team/app/manifests/{}", a.digest()))
        .send()
        .expect(202);
    assert_eq!(
        referrers(&client, "team/app", subject.digest()),
        sorted([&b])
    );
    a.manifest.push(&client, "team/app", a.digest());
    assert_eq!(
        referrers(&client, "team/app", subject.digest()),
        sorted([&a, &b])
    );
}

/// The referrers of a deleted manifest are gone: they were about it, and nothing else names them.
#[test]
fn with_a_manifest_go_the_referrers_that_no_tag_holds() {
    let (_server, client) = serve();
    let subject = Image::new(38);
    let sbom = Image::artifact(39, SBOM, &subject.manifest);
    let signature = Image::artifact(40, SIGNATURE, &sbom.manifest);
    let tagged = Image::artifact(41, SBOM, &subject.manifest);
    subject.push(&client, "team/app", "v1");
    sbom.push(&client, "team/app", sbom.digest());
    signature.push(&client, "team/app", signature.digest());
    tagged.push(&client, "team/app", "kept");
    client
        .delete(&format!("/v2/team/app/manifests/{}", subject.digest()))
        .send()
        .expect(202);
    for gone in [&subject, &sbom, &signature] {
        client
            .get(&format!("/v2/team/app/manifests/{}", gone.digest()))
            .send()
            .expect_error(404, "MANIFEST_UNKNOWN");
    }
    tagged.assert_pullable(&client, "team/app", "kept");
    assert_eq!(
        referrers(&client, "team/app", subject.digest()),
        sorted([&tagged])
    );
    assert!(referrers(&client, "team/app", sbom.digest()).is_empty());
}

/// An index that stays would be broken without it.
#[test]
fn a_referrer_that_a_tagged_index_lists_outlives_its_subject() {
    let (_server, client) = serve();
    let subject = Image::new(76);
    let sbom = Image::artifact(77, SBOM, &subject.manifest);
    for image in [&subject, &sbom] {
        image.push(&client, "team/app", image.digest());
    }
    let index = Manifest::index([&sbom.manifest]);
    index.push(&client, "team/app", "bundle");
    client
        .delete(&format!("/v2/team/app/manifests/{}", subject.digest()))
        .send()
        .expect(202);
    sbom.assert_pullable(&client, "team/app", sbom.digest());
    let reply = client.get("/v2/team/app/manifests/bundle").send();
    assert_eq!(reply.expect(200).body, index.bytes());
}

/// Deleting a tag takes nothing else.
#[test]
fn referrers_stay_when_only_the_tag_of_their_subject_goes() {
    let (_server, client) = serve();
    let subject = Image::new(42);
    let sbom = Image::artifact(43, SBOM, &subject.manifest);
    subject.push(&client, "team/app", "v1");
    sbom.push(&client, "team/app", sbom.digest());
    client
        .delete("/v2/team/app/manifests/v1")
        .send()
        .expect(202);
    assert_eq!(
        referrers(&client, "team/app", subject.digest()),
        sorted([&sbom])
    );
    sbom.assert_pullable(&client, "team/app", sbom.digest());
}

#[test]
fn pushes_at_once_are_all_listed() {
    let (mut server, client) = serve();
    let subject = Image::new(44);
    subject.push(&client, "team/app", "v1");
    let images: Vec<Image> = (45..61)
        .map(|n| Image::artifact(n, SBOM, &subject.manifest))
        .collect();
    thread::scope(|scope| {
        for part in images.chunks(4) {
            let client = client.clone();
            let subject = &subject;
            scope.spawn(move || {
                for image in part {
                    image.push(&client, "team/app", image.digest());
                    let listed = referrers(&client, "team/app", subject.digest());
                    assert!(listed.contains(&image.digest().to_owned()));
                }
            });
        }
    });
    for _ in 0..2 {
        assert_eq!(
            referrers(&server.client(), "team/app", subject.digest()),
            sorted(&images)
        );
        server.kill();
        server.restart();
    }
}

fn docker_registry(server: Server) -> Server {
    crate::migrate::docker_registry(server)
}

/// Distribution 2.8 knows no referrers, and stores manifests with a subject like any other.
#[test]
fn referrers_that_were_on_the_disk_before_this_server_are_listed() {
    let mut other = docker_registry(Server::new()).start();
    let subject = Image::new(61);
    let artifacts: Vec<Image> = (62..66)
        .map(|n| Image::artifact(n, SBOM, &subject.manifest))
        .collect();
    {
        let client = other.client();
        subject.push(&client, "team/app", "v1");
        for (n, image) in artifacts.iter().enumerate() {
            let reference = if n == 0 {
                "tagged".to_owned()
            } else {
                image.digest().to_owned()
            };
            let reply = image.push(&client, "team/app", &reference);
            assert_eq!(reply.header("oci-subject"), None);
        }
    }
    other.kill();
    let ours = Server::new().root(other.tree()).start();
    let client = ours.client();
    assert_eq!(
        referrers(&client, "team/app", subject.digest()),
        sorted(&artifacts)
    );
    // And what comes later.
    let new = Image::artifact(66, SBOM, &subject.manifest);
    new.push(&client, "team/app", new.digest());
    assert_eq!(
        referrers(&client, "team/app", subject.digest()),
        sorted(artifacts.iter().chain([&new]))
    );
}

/// Back to distribution for a while, and again here: what came and went meanwhile is noticed.
#[test]
fn referrers_that_came_and_went_elsewhere_are_noticed() {
    let mut ours = Server::new().start();
    let subject = Image::new(67);
    let (a, b, c) = (
        Image::artifact(68, SBOM, &subject.manifest),
        Image::artifact(69, SBOM, &subject.manifest),
        Image::artifact(70, SBOM, &subject.manifest),
    );
    subject.push(&ours.client(), "team/app", "v1");
    for image in [&a, &b] {
        image.push(&ours.client(), "team/app", image.digest());
    }
    assert_eq!(
        referrers(&ours.client(), "team/app", subject.digest()),
        sorted([&a, &b])
    );
    assert!(ours.terminate().success());
    {
        let other = docker_registry(Server::new().root(ours.tree())).start();
        let client = other.client();
        c.push(&client, "team/app", c.digest());
        client
            .delete(&format!("/v2/team/app/manifests/{}", a.digest()))
            .send()
            .expect(202);
    }
    ours.restart();
    assert_eq!(
        referrers(&ours.client(), "team/app", subject.digest()),
        sorted([&b, &c])
    );
}

/// Our own entries can be made again from what distribution knows.
#[test]
fn a_lost_list_is_made_again() {
    let (mut server, client) = serve();
    let subject = Image::new(71);
    let artifact = Image::artifact(72, SBOM, &subject.manifest);
    subject.push(&client, "team/app", "v1");
    artifact.push(&client, "team/app", artifact.digest());
    assert_eq!(
        referrers(&client, "team/app", subject.digest()),
        sorted([&artifact])
    );
    server.kill();
    let own = server
        .tree()
        .join("docker/registry/v2/repositories/team/app/_referrers");
    fs::remove_dir_all(&own).expect("our own state");
    server.restart();
    assert_eq!(
        referrers(&server.client(), "team/app", subject.digest()),
        sorted([&artifact])
    );
    // Damaged in every way that comes to mind.
    server.kill();
    fs::write(own.join("scanned"), b"\xff\xfe not a digest\n\n").expect("written");
    let hex = subject.digest().strip_prefix("sha256:").unwrap();
    fs::write(own.join("sha256").join(hex).join("not-a-digest"), b"").expect("written");
    server.restart();
    assert_eq!(
        referrers(&server.client(), "team/app", subject.digest()),
        sorted([&artifact])
    );
}

/// Clients that do not trust the API keep a list in a tag; it is a tag like any other, and both ways show the same.
#[test]
fn the_fallback_tag_is_a_tag_like_any_other() {
    let (_server, client) = serve();
    let subject = Image::new(73);
    let artifact = Image::artifact(74, SBOM, &subject.manifest);
    subject.push(&client, "team/app", "v1");
    artifact.push(&client, "team/app", artifact.digest());
    let list = Manifest::index([&artifact.manifest]);
    let tag = subject.digest().replace(':', "-");
    list.push(&client, "team/app", &tag);
    let reply = client
        .get(&format!("/v2/team/app/manifests/{tag}"))
        .send()
        .expect(200);
    assert_eq!(reply.body, list.bytes());
    assert_eq!(
        referrers(&client, "team/app", subject.digest()),
        sorted([&artifact])
    );
}

#[test]
fn a_bad_digest_of_a_subject_is_400() {
    let (_server, client) = serve();
    for digest in [
        "latest",
        "sha256:abc",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "sha256",
        "",
    ] {
        client
            .get(&format!("/v2/team/app/referrers/{digest}"))
            .send()
            .expect_error(400, "DIGEST_INVALID");
    }
    for last in ["nonsense", "sha256:abc"] {
        let zeroes = "0".repeat(64);
        client
            .get(&format!(
                "/v2/team/app/referrers/sha256:{zeroes}?last={last}"
            ))
            .send()
            .expect_error(400, "DIGEST_INVALID");
    }
}

#[test]
fn a_subject_that_is_no_descriptor_is_refused() {
    let (_server, client) = serve();
    let image = Image::new(75);
    for blob in image.blobs() {
        push_blob(&client, "team/app", blob);
    }
    for subject in [
        json!("sha256:abc"),
        json!({ "mediaType": OCI_INDEX, "size": 1 }),
        json!({ "mediaType": OCI_INDEX, "size": 1, "digest": "latest" }),
        json!({ "mediaType": OCI_INDEX, "size": -1, "digest": image.digest() }),
    ] {
        image
            .manifest
            .edit(|value| value["subject"] = subject)
            .try_push(&client, "team/app", "v1")
            .unwrap()
            .expect_error(400, "MANIFEST_INVALID");
    }
}
