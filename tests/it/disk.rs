//! What lies on the disk: the layout that a push writes, what is read of old and damaged trees, who owns one, how long an
//! abandoned upload stays, and how often a request asks the disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::{self, File, FileTimes},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde_json::json;

use crate::{
    migrate::docker_registry,
    support::{
        http::{Client, with_query},
        image::{
            Algorithm, Blob, Image, Manifest, OCI_MANIFEST, assert_blob, open_upload, push_blob,
            sha256,
        },
        server::{Server, eventually, serve},
        tree,
    },
};

const V2: &str = "docker/registry/v2";

/// `sha256/<hex>`, as the layout splits a digest.
fn parts(digest: &str) -> String {
    digest.replacen(':', "/", 1)
}

fn blob_path(digest: &str) -> String {
    let (algorithm, hex) = digest.split_once(':').expect("a digest");
    format!("{V2}/blobs/{algorithm}/{}/{hex}/data", &hex[..2])
}

fn repository(name: &str) -> String {
    format!("{V2}/repositories/{name}")
}

fn layer_link(repo: &str, digest: &str) -> String {
    format!("{}/_layers/{}/link", repository(repo), parts(digest))
}

fn revision_link(repo: &str, digest: &str) -> String {
    format!(
        "{}/_manifests/revisions/{}/link",
        repository(repo),
        parts(digest)
    )
}

fn tag_folder(repo: &str, tag: &str) -> String {
    format!("{}/_manifests/tags/{tag}", repository(repo))
}

/// What the layout has for these manifests and blobs: path -> content.
fn layout(
    repo: &str,
    blobs: &[&Blob],
    manifests: &[&Manifest],
    tags: &[(&str, &Manifest)],
) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for blob in blobs {
        files.insert(blob_path(&blob.digest), blob.bytes.clone());
        files.insert(layer_link(repo, &blob.digest), blob.digest.clone().into());
    }
    for manifest in manifests {
        let digest = manifest.digest();
        files.insert(blob_path(digest), manifest.bytes().to_vec());
        files.insert(revision_link(repo, digest), digest.into());
    }
    for (tag, manifest) in tags {
        let digest = manifest.digest();
        let folder = tag_folder(repo, tag);
        files.insert(format!("{folder}/current/link"), digest.into());
        files.insert(
            format!("{folder}/index/{}/link", parts(digest)),
            digest.into(),
        );
    }
    files
}

#[test]
fn a_push_writes_exactly_the_layout() {
    let (server, client) = serve();
    let (a, b) = (Image::new(1), Image::builder(2).docker().build());
    let index = Manifest::index([&a.manifest, &b.manifest]);
    a.push(&client, "team/app", "v1");
    b.push(&client, "team/app", b.digest());
    index.push(&client, "team/app", "latest");
    let blobs: Vec<&Blob> = a.blobs().chain(b.blobs()).collect();
    assert_eq!(
        tree::shared_files(server.tree()),
        layout(
            "team/app",
            &blobs,
            &[&a.manifest, &b.manifest, &index],
            &[("v1", &a.manifest), ("latest", &index)]
        )
    );
}

#[test]
fn a_tag_that_moved_remembers_what_it_was() {
    let (server, client) = serve();
    let (old, new) = (Image::new(3), Image::new(4));
    old.push(&client, "app", "latest");
    new.push(&client, "app", "latest");
    let blobs: Vec<&Blob> = old.blobs().chain(new.blobs()).collect();
    let mut expected = layout(
        "app",
        &blobs,
        &[&old.manifest, &new.manifest],
        &[("latest", &new.manifest)],
    );
    expected.insert(
        format!(
            "{}/index/{}/link",
            tag_folder("app", "latest"),
            parts(old.digest())
        ),
        old.digest().into(),
    );
    assert_eq!(tree::shared_files(server.tree()), expected);
}

#[test]
fn sha512_content_lies_under_its_own_digest() {
    let (server, client) = serve();
    let image = Image::builder(5)
        .algorithm(Algorithm::Sha512)
        .blob_algorithm(Algorithm::Sha512)
        .build();
    image.push(&client, "app", image.digest());
    let blobs: Vec<&Blob> = image.blobs().collect();
    assert_eq!(
        tree::shared_files(server.tree()),
        layout("app", &blobs, &[&image.manifest], &[])
    );
}

#[test]
fn the_same_content_in_two_repositories_is_stored_once() {
    let (server, client) = serve();
    let image = Image::new(6);
    image.push(&client, "a", "v1");
    let before: u64 = tree::shared_files(server.tree()).len() as u64;
    image.push(&client, "b", "v1");
    let files = tree::shared_files(server.tree());
    // Three blobs and a revision linked, and a tag of two files.
    assert_eq!(files.len() as u64, before + 3 + 1 + 2);
    assert_eq!(
        files.keys().filter(|path| path.ends_with("/data")).count(),
        4
    );
}

#[test]
fn deletes_remove_what_distribution_removes() {
    let (server, client) = serve();
    let image = Image::new(7);
    image.push(&client, "app", "v1");
    image.manifest.push(&client, "app", "v2");
    let blobs: Vec<&Blob> = image.blobs().collect();
    let mut expected = layout(
        "app",
        &blobs,
        &[&image.manifest],
        &[("v1", &image.manifest), ("v2", &image.manifest)],
    );
    let layer = &image.layers[0];
    client
        .delete(&format!("/v2/app/blobs/{}", layer.digest))
        .send()
        .expect(202);
    expected.remove(&layer_link("app", &layer.digest));
    assert_eq!(tree::shared_files(server.tree()), expected);
    client.delete("/v2/app/manifests/v1").send().expect(202);
    expected.retain(|path, _| !path.starts_with(&tag_folder("app", "v1")));
    assert_eq!(tree::shared_files(server.tree()), expected);
    client
        .delete(&format!("/v2/app/manifests/{}", image.digest()))
        .send()
        .expect(202);
    expected.retain(|path, _| !path.starts_with(&tag_folder("app", "v2")));
    expected.remove(&revision_link("app", image.digest()));
    // The content stays until something collects it.
    assert_eq!(tree::shared_files(server.tree()), expected);
}

/// Distribution writes the same files with the same content for the same push. (It leaves empty folders here and there.)
#[test]
fn distribution_writes_the_same_files() {
    let images: Vec<Image> = vec![
        Image::new(8),
        Image::builder(9).docker().build(),
        Image::builder(10).layers(5).layer_size(100_000).build(),
    ];
    let index = Manifest::index([&images[0].manifest, &images[1].manifest]);
    let list = Manifest::docker_list([&images[1].manifest]);
    let push = |server: &Server| {
        let client = server.client();
        for (n, image) in images.iter().enumerate() {
            image.push(&client, "team/app", &format!("v{n}"));
            image.push(&client, "library", image.digest());
        }
        index.push(&client, "team/app", "latest");
        index.push(&client, "library", "latest");
        list.push(&client, "team/app", "latest"); // moved
        images[0].manifest.push(&client, "team/app", "v1"); // moved
        let blob = Blob::random(11, 5000);
        push_blob(&client, "team/app", &blob);
        client
            .post(&format!(
                "/v2/library/blobs/uploads/?mount={}&from=team/app",
                blob.digest
            ))
            .send()
            .expect(201);
        client
            .delete(&format!("/v2/library/blobs/{}", images[2].config.digest))
            .send()
            .expect(202);
        client
            .delete(&format!("/v2/team/app/manifests/{}", images[2].digest()))
            .send()
            .expect(202);
        tree::shared_files(server.tree())
    };
    let ours = push(&Server::new().start());
    let theirs = push(&docker_registry(Server::new()).start());
    let paths = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(paths(&ours), paths(&theirs));
    assert!(ours == theirs, "the same paths with other content");
}

#[test]
fn an_open_upload_lies_where_distribution_would_look_for_it() {
    let (server, client) = serve();
    let location = open_upload(&client, "team/app");
    let id = location.rsplit('/').next().unwrap();
    client
        .patch(&location)
        .body(*b"some bytes")
        .send()
        .expect(202);
    let folder = format!("{}/_uploads/{id}", repository("team/app"));
    let files = tree::shared_files(server.tree());
    assert_eq!(files[&format!("{folder}/data")], b"some bytes");
    let started = String::from_utf8(files[&format!("{folder}/startedat")].clone()).unwrap();
    // RFC 3339, UTC, whole seconds: `2026-08-19T12:00:00Z`.
    assert_eq!(started.len(), 20, "{started:?}");
    assert!(started.ends_with('Z') && started.as_bytes()[10] == b'T');
}

/// A tree in which one healthy image stands beside whatever `damage` does.
struct Damaged {
    server: Server,
    healthy: Image,
}

impl Damaged {
    /// `damage` gets the root of a tree that no server uses at the time.
    fn new(images: &[(&str, &str, &Image)], damage: impl FnOnce(&Path)) -> Self {
        let (mut server, client) = serve();
        let healthy = Image::new(1000);
        healthy.push(&client, "team/app", "healthy");
        for (repo, reference, image) in images {
            image.push(&client, repo, reference);
        }
        assert!(server.terminate().success());
        damage(server.tree());
        server.restart();
        Self { server, healthy }
    }

    fn client(&self) -> Client {
        self.server.client()
    }

    /// The neighbour is served, listed and can be deleted and pushed again, and so can others beside it.
    #[track_caller]
    fn assert_healthy(&self) {
        let client = self.client();
        self.healthy.assert_pullable(&client, "team/app", "healthy");
        let get = |target: &str| client.get(target).send().expect(200).json();
        let listed = |value: &serde_json::Value, name: &str| {
            let list = value.as_array().unwrap_or_else(|| panic!("{value}"));
            assert!(list.contains(&json!(name)), "{name} is not in {value}");
        };
        listed(&get("/v2/team/app/tags/list")["tags"], "healthy");
        listed(&get("/v2/_catalog")["repositories"], "team/app");
        get(&format!("/v2/team/app/referrers/{}", self.healthy.digest()));
        let new = Image::new(1001);
        new.push(&client, "team/app", "new");
        new.assert_pullable(&client, "team/app", "new");
        client
            .delete(&format!("/v2/team/app/manifests/{}", new.digest()))
            .send()
            .expect(202);
        client.get("/readyz").send().expect(200);
        let log = self.server.log();
        assert!(!log.contains("panicked"), "{log}");
    }

    #[track_caller]
    fn assert_tags(&self, expected: &[&str]) {
        let list = self.client().get("/v2/team/app/tags/list").send();
        assert_eq!(list.expect(200).json()["tags"], json!(expected));
    }
}

fn put_file(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    let path = path.as_ref();
    fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
    fs::write(path, bytes).expect("a file");
}

/// What a power cut made of links on disks of registry:2. The path of a layer's or a revision's link says what the link said;
/// what a tag pointed to is lost.
#[test]
fn empty_links_are_read_from_their_paths_and_an_empty_tag_is_none() {
    let image = Image::new(12);
    let damaged = Damaged::new(
        &[("team/app", "broken", &image), ("team/app", "also", &image)],
        |root| {
            for blob in image.blobs() {
                put_file(root.join(layer_link("team/app", &blob.digest)), "");
            }
            put_file(root.join(revision_link("team/app", image.digest())), "");
            let tag = root.join(tag_folder("team/app", "broken"));
            put_file(tag.join("current/link"), "");
            put_file(
                tag.join(format!("index/{}/link", parts(image.digest()))),
                "",
            );
        },
    );
    let client = damaged.client();
    image.assert_pullable(&client, "team/app", image.digest());
    image.assert_pullable(&client, "team/app", "also");
    client
        .get("/v2/team/app/manifests/broken")
        .send()
        .expect_error(404, "MANIFEST_UNKNOWN");
    damaged.assert_tags(&["also", "healthy"]);
    damaged.assert_healthy();
    // A push mends it, and a delete clears it away.
    image.manifest.push(&client, "team/app", "broken");
    image.assert_pullable(&client, "team/app", "broken");
    damaged.assert_tags(&["also", "broken", "healthy"]);
}

#[test]
fn links_with_other_content_are_taken_for_damaged() {
    for content in [
        "\n",
        "garbage",
        "sha256:",
        "sha256:abc",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "../../../../../etc/passwd",
        "\0\0\0\0\0\0\0\0",
        &"x".repeat(100_000),
    ] {
        let image = Image::new(13);
        let damaged = Damaged::new(&[("team/app", "broken", &image)], |root| {
            put_file(
                root.join(tag_folder("team/app", "broken"))
                    .join("current/link"),
                content,
            );
            put_file(
                root.join(layer_link("team/app", &image.config.digest)),
                content,
            );
            put_file(
                root.join(revision_link("team/app", image.digest())),
                content,
            );
        });
        let client = damaged.client();
        client
            .get("/v2/team/app/manifests/broken")
            .send()
            .expect_error(404, "MANIFEST_UNKNOWN");
        image.assert_pullable(&client, "team/app", image.digest());
        damaged.assert_tags(&["healthy"]);
        damaged.assert_healthy();
    }
}

/// Some tools write a newline at the end of a file, whatever is asked of them.
#[test]
fn a_link_with_a_newline_is_a_link() {
    let image = Image::new(14);
    let digest = image.digest();
    let damaged = Damaged::new(&[("team/app", "v1", &image)], |root| {
        let tag = root.join(tag_folder("team/app", "v1"));
        put_file(tag.join("current/link"), format!("{digest}\n"));
        put_file(
            root.join(revision_link("team/app", digest)),
            format!("{digest}\r\n"),
        );
        let config = &image.config.digest;
        put_file(
            root.join(layer_link("team/app", config)),
            format!(" {config}\n"),
        );
    });
    image.assert_pullable(&damaged.client(), "team/app", "v1");
    damaged.assert_tags(&["healthy", "v1"]);
    damaged.assert_healthy();
}

#[test]
fn a_tag_of_a_manifest_that_is_gone_is_none() {
    let (gone, content_gone, half) = (Image::new(15), Image::new(16), Image::new(17));
    let damaged = Damaged::new(
        &[
            ("team/app", "gone", &gone),
            ("team/app", "content-gone", &content_gone),
            ("team/app", "half", &half),
        ],
        |root| {
            fs::remove_file(root.join(revision_link("team/app", gone.digest()))).unwrap();
            fs::remove_file(root.join(blob_path(content_gone.digest()))).unwrap();
            // Never finished: `index` is written before `current`.
            fs::remove_dir_all(root.join(tag_folder("team/app", "half")).join("current")).unwrap();
            fs::create_dir_all(root.join(tag_folder("team/app", "empty"))).unwrap();
            fs::create_dir_all(root.join(tag_folder("team/app", "emptier/current"))).unwrap();
        },
    );
    let client = damaged.client();
    for tag in ["gone", "content-gone", "half", "empty", "emptier"] {
        let target = format!("/v2/team/app/manifests/{tag}");
        client.get(&target).send().expect(404);
        client.head(&target).send().expect(404);
    }
    for digest in [gone.digest(), content_gone.digest()] {
        client
            .get(&format!("/v2/team/app/manifests/{digest}"))
            .send()
            .expect_error(404, "MANIFEST_UNKNOWN");
    }
    half.assert_pullable(&client, "team/app", half.digest());
    damaged.assert_healthy();
    for image in [&gone, &content_gone, &half] {
        image.push(&client, "team/app", "mended");
        image.assert_pullable(&client, "team/app", "mended");
        image.assert_pullable(&client, "team/app", image.digest());
    }
}

#[test]
fn a_layer_whose_content_is_gone_is_unknown_and_can_be_pushed_again() {
    let image = Image::new(18);
    let damaged = Damaged::new(&[("team/app", "v1", &image)], |root| {
        for blob in image.blobs() {
            fs::remove_file(root.join(blob_path(&blob.digest))).unwrap();
        }
        // The folder of another one is left without its file.
        let missing = sha256(b"missing");
        fs::create_dir_all(root.join(blob_path(&missing)).parent().unwrap()).unwrap();
        put_file(root.join(layer_link("team/app", &missing)), &missing);
    });
    let client = damaged.client();
    for digest in image
        .blobs()
        .map(|blob| blob.digest.clone())
        .chain([sha256(b"missing")])
    {
        let target = format!("/v2/team/app/blobs/{digest}");
        client.get(&target).send().expect_error(404, "BLOB_UNKNOWN");
        client.head(&target).send().expect(404);
        client
            .get(&target)
            .header("Range", "bytes=0-1")
            .send()
            .expect(404);
    }
    // No new manifest may rest on it, and a mount opens an upload.
    image
        .manifest
        .try_push(&client, "team/app", "v2")
        .unwrap()
        .expect_error(400, "MANIFEST_BLOB_UNKNOWN");
    client
        .post(&format!(
            "/v2/team/new/blobs/uploads/?mount={}&from=team/app",
            image.config.digest
        ))
        .send()
        .expect(202);
    damaged.assert_healthy();
    image.push(&client, "team/app", "v1");
    image.assert_pullable(&client, "team/app", "v1");
}

/// Clients that fetch in ranges alone see no end of the whole that could be compared with the digest.
#[test]
fn damage_does_not_hide_behind_ranges() {
    let (small, large) = (Blob::random(1, 300_000), Blob::random(2, 9 << 20));
    let image = Image::builder(19)
        .layer(small.clone())
        .layer(large.clone())
        .build();
    let damaged = Damaged::new(&[("team/app", "v1", &image)], |root| {
        for blob in [&small, &large] {
            spoil(&root.join(blob_path(&blob.digest)), "a flipped bit");
        }
    });
    let client = damaged.client();
    let part = |blob: &Blob| {
        client
            .get(&format!("/v2/team/app/blobs/{}", blob.digest))
            .header("Range", "bytes=10-99")
            .send()
    };
    part(&small).expect_error(404, "BLOB_UNKNOWN");
    // A large one is found out a moment later.
    eventually("the damage is noticed", || {
        (part(&large).status == 404).then_some(())
    });
    damaged.assert_healthy();
    image.push(&client, "team/app", "v1");
    part(&small).expect(206);
    part(&large).expect(206);
}

/// How a file can be wrong after a power cut or on a dying drive.
fn spoil(path: &Path, how: &str) {
    let bytes = fs::read(path).unwrap();
    let wrong = match how {
        "empty" => vec![],
        "truncated" => bytes[..bytes.len() / 2].to_vec(),
        "short by one" => bytes[..bytes.len() - 1].to_vec(),
        "zeroes" => vec![0; bytes.len()],
        "a flipped bit" => {
            let mut bytes = bytes;
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            bytes
        }
        "too long" => [bytes, b"more".to_vec()].concat(),
        other => panic!("{other}"),
    };
    fs::write(path, wrong).unwrap();
}

const WAYS: [&str; 6] = [
    "empty",
    "truncated",
    "short by one",
    "zeroes",
    "a flipped bit",
    "too long",
];

/// A wrong file never reaches a client as good content: the answer is an error, or it breaks off before its last byte.
#[test]
fn a_wrong_file_is_never_served_as_a_whole_blob() {
    for (n, how) in WAYS.into_iter().enumerate() {
        for len in [3000, 2_000_000] {
            let blob = Blob::random(19 + n as u64, len);
            let (mut server, client) = serve();
            push_blob(&client, "team/app", &blob);
            assert!(server.terminate().success());
            spoil(&server.tree().join(blob_path(&blob.digest)), how);
            server.restart();
            let client = server.client();
            let target = format!("/v2/team/app/blobs/{}", blob.digest);
            for _ in 0..3 {
                match client.get(&target).try_send() {
                    Ok(reply) => assert_eq!(reply.status, 404, "{how}, {len} bytes: {reply:?}"),
                    Err(_) => continue, // it broke off
                }
            }
            // Once that is known, nobody is told of it any more.
            client.head(&target).send().expect(404);
            client.get(&target).send().expect(404);
            let log = server.log();
            assert!(
                log.contains(&blob.digest) && log.contains("damaged"),
                "{log}"
            );
            // Pushed again it is good again.
            push_blob(&client, "team/app", &blob);
            assert_blob(&client, "team/app", &blob);
            assert_eq!(tree::faults(server.tree()), Vec::<String>::new());
        }
    }
}

#[test]
fn a_wrong_file_is_never_served_as_a_manifest() {
    for (n, how) in WAYS.into_iter().enumerate() {
        let image = Image::new(30 + n as u64);
        let damaged = Damaged::new(&[("team/app", "broken", &image)], |root| {
            spoil(&root.join(blob_path(image.digest())), how);
        });
        let client = damaged.client();
        for reference in ["broken", image.digest()] {
            for method in ["HEAD", "GET"] {
                let target = format!("/v2/team/app/manifests/{reference}");
                let reply = client.request(method, &target).send();
                assert_eq!(reply.status, 404, "{how}: {method} {reference}: {reply:?}");
            }
        }
        damaged.assert_healthy();
        image.manifest.push(&client, "team/app", "broken");
        image.assert_pullable(&client, "team/app", "broken");
    }
}

#[test]
fn what_crashed_writers_left_is_passed_over() {
    let image = Image::new(40);
    let uuid = "b6e3e8a0-1111-4222-8333-444455556666";
    let damaged = Damaged::new(&[("team/app", "v1", &image)], |root| {
        let repo = root.join(repository("team/app"));
        let (digest, config) = (image.digest(), &image.config.digest);
        // Distribution 3.1 writes a file beside the real one, and may be killed before it renames it.
        for link in [
            layer_link("team/app", config),
            revision_link("team/app", digest),
        ] {
            put_file(
                root.join(link.replace("/link", &format!("/link.{uuid}.tmp"))),
                "sha",
            );
        }
        for tag in ["v1", "never"] {
            let folder = root.join(tag_folder("team/app", tag)).join("current");
            put_file(folder.join(format!("link.{uuid}.tmp")), "");
        }
        let other = sha256(b"other");
        let data = root.join(blob_path(&other));
        put_file(data.with_file_name(format!("data.{uuid}.tmp")), "oth");
        put_file(root.join(layer_link("team/app", &other)), &other);
        // Empty folders of what was deleted.
        for parent in ["_layers/sha256", "_manifests/revisions/sha256"] {
            fs::create_dir_all(repo.join(parent).join("0".repeat(64))).unwrap();
        }
        // Signatures of schema 1, from before 2015.
        let signatures = root
            .join(revision_link("team/app", digest))
            .with_file_name("signatures");
        put_file(signatures.join(parts(&other)).join("link"), &other);
        // Layers of the first versions.
        put_file(
            repo.join("_layers/tarsum/v1/sha256")
                .join("1".repeat(64))
                .join("link"),
            format!("tarsum.v1+sha256:{}", "1".repeat(64)),
        );
        put_file(root.join("scheduler-state.json"), "{}");
    });
    let client = damaged.client();
    image.assert_pullable(&client, "team/app", "v1");
    damaged.assert_tags(&["healthy", "v1"]);
    client
        .get("/v2/team/app/manifests/never")
        .send()
        .expect(404);
    client
        .get(&format!("/v2/team/app/blobs/{}", sha256(b"other")))
        .send()
        .expect(404);
    damaged.assert_healthy();
}

#[test]
fn files_and_folders_that_belong_to_nobody_are_passed_over() {
    let image = Image::new(41);
    let damaged = Damaged::new(&[("team/app", "v1", &image)], |root| {
        let repositories = root.join(V2).join("repositories");
        for name in [
            "UPPER/_manifests/tags/v1/current/link",
            ".hidden/_manifests/tags/v1/current/link",
            "lost+found/file",
            "team/.DS_Store",
            ".DS_Store",
            "team/app/README",
            "team/app/_unknown/x",
            "team/app/_manifests/README",
            "team/app/_manifests/tags/.DS_Store",
            "team/app/_manifests/tags/a-file",
            "team/app/_manifests/tags/-bad/current/link",
            "team/app/_manifests/revisions/.DS_Store",
            "team/app/_manifests/revisions/md5/x/link",
            "team/app/_manifests/revisions/sha256/not-hex/link",
            "team/app/_manifests/revisions/sha256/a-file",
            "team/app/_layers/a-file",
            "team/app/_uploads/not-a-uuid/data",
            "team/app/_uploads/a-file",
            "a-file",
        ] {
            put_file(repositories.join(name), "x");
        }
        for (n, bytes) in [b"\xff\xfe".as_slice(), b"a\nb", b" "].iter().enumerate() {
            let name = OsStr::from_bytes(bytes);
            fs::create_dir_all(repositories.join(name).join("_manifests")).unwrap();
            let tags = repositories.join("team/app/_manifests/tags");
            fs::create_dir_all(tags.join(name)).unwrap();
            put_file(tags.join(format!("t{n}.tmp")), "");
        }
        for name in ["md5/aa/x/data", "sha256/a-file", "sha256/zz/short/data"] {
            put_file(root.join(V2).join("blobs").join(name), "x");
        }
    });
    let client = damaged.client();
    damaged.assert_tags(&["healthy", "v1"]);
    let catalog = client.get("/v2/_catalog").send().expect(200);
    assert_eq!(catalog.json()["repositories"], json!(["team/app"]));
    for tag in ["a-file", "t0.tmp"] {
        client
            .get(&format!("/v2/team/app/manifests/{tag}"))
            .send()
            .expect(404);
    }
    client.get("/v2/a-file/tags/list").send().expect(404);
    client
        .get("/v2/team/app/readme/manifests/v1")
        .send()
        .expect(404);
    damaged.assert_healthy();
}

/// A folder where a file should be, and the other way round.
#[test]
fn things_of_the_wrong_kind_harm_nobody_else() {
    let (tag, layer, revision) = (Image::new(42), Image::new(43), Image::new(44));
    let damaged = Damaged::new(
        &[
            ("team/app", "wrong-tag", &tag),
            ("team/app", "wrong-layer", &layer),
            ("team/app", "wrong-revision", &revision),
        ],
        |root| {
            let folder_instead = |path: PathBuf| {
                fs::remove_file(&path).unwrap();
                fs::create_dir(&path).unwrap();
            };
            let current = root.join(tag_folder("team/app", "wrong-tag"));
            folder_instead(current.join("current/link"));
            folder_instead(root.join(blob_path(&layer.layers[0].digest)));
            folder_instead(root.join(revision_link("team/app", revision.digest())));
        },
    );
    let client = damaged.client();
    damaged.assert_healthy();
    tag.assert_pullable(&client, "team/app", tag.digest());
    layer.assert_pullable_manifest(&client);
    for target in [
        "/v2/team/app/manifests/wrong-tag".to_owned(),
        format!("/v2/team/app/blobs/{}", layer.layers[0].digest),
        format!("/v2/team/app/manifests/{}", revision.digest()),
    ] {
        let reply = client.get(&target).send();
        assert!(matches!(reply.status, 404 | 500), "{target}: {reply:?}");
        let text = reply.text();
        assert!(!text.contains("os error") && !text.contains("docker/registry"));
    }
}

impl Image {
    #[track_caller]
    fn assert_pullable_manifest(&self, client: &Client) {
        let reply = client
            .get(&format!("/v2/team/app/manifests/{}", self.digest()))
            .send()
            .expect(200);
        assert_eq!(reply.body, self.manifest.bytes());
    }
}

#[test]
fn a_manifest_of_schema_1_on_the_disk_is_no_manifest_any_more() {
    let old = json!({
        "schemaVersion": 1, "name": "team/app", "tag": "old", "architecture": "amd64",
        "fsLayers": [], "history": [], "signatures": [],
    });
    let blob = Blob::new(old.to_string());
    let damaged = Damaged::new(&[], |root| {
        let digest = &blob.digest;
        put_file(root.join(blob_path(digest)), &blob.bytes);
        put_file(root.join(revision_link("team/app", digest)), digest);
        let tag = root.join(tag_folder("team/app", "old"));
        put_file(tag.join("current/link"), digest);
        put_file(tag.join(format!("index/{}/link", parts(digest))), digest);
    });
    let client = damaged.client();
    for reference in ["old", &blob.digest] {
        let reply = client
            .get(&format!("/v2/team/app/manifests/{reference}"))
            .send();
        assert!((400..500).contains(&reply.status), "{reply:?}");
        assert!(reply.text().contains("schema 1"), "{reply:?}");
    }
    damaged.assert_healthy();
    // It can be got rid of.
    client
        .delete(&format!("/v2/team/app/manifests/{}", blob.digest))
        .send()
        .expect(202);
    damaged.assert_tags(&["healthy"]);
}

/// Distribution stores an upload named by sha512 under its sha256, and links from one to the other.
#[test]
fn a_sha512_link_of_distribution_leads_to_the_sha256_content() {
    let bytes = Blob::random(45, 5000).bytes;
    let (short, long) = (
        Blob::with(Algorithm::Sha256, bytes.clone()),
        Blob::with(Algorithm::Sha512, bytes),
    );
    let damaged = Damaged::new(&[], |root| {
        put_file(root.join(blob_path(&short.digest)), &short.bytes);
        for blob in [&short, &long] {
            put_file(
                root.join(layer_link("team/app", &blob.digest)),
                &short.digest,
            );
        }
    });
    let client = damaged.client();
    for blob in [&short, &long] {
        let target = format!("/v2/team/app/blobs/{}", blob.digest);
        assert_eq!(client.get(&target).send().expect(200).body, blob.bytes);
        let head = client.head(&target).send().expect(200);
        assert_eq!(head.header("content-length"), Some("5000"));
    }
    damaged.assert_healthy();
}

#[test]
fn a_repository_of_nothing_but_uploads_is_none() {
    let damaged = Damaged::new(&[], |root| {
        let repo = root.join(repository("only/uploads"));
        let upload = repo.join("_uploads/b6e3e8a0-1111-4222-8333-444455556666");
        put_file(upload.join("data"), "begun");
        put_file(upload.join("startedat"), "");
        put_file(upload.join("hashstates/sha256/0"), "sha\x03");
    });
    let client = damaged.client();
    let catalog = client.get("/v2/_catalog").send().expect(200);
    assert_eq!(catalog.json()["repositories"], json!(["team/app"]));
    client
        .get("/v2/only/uploads/tags/list")
        .send()
        .expect_error(404, "NAME_UNKNOWN");
    damaged.assert_healthy();
}

#[test]
fn a_second_server_on_the_tree_says_so_and_stops() {
    let (server, client) = serve();
    let mut second = Server::new().root(server.tree());
    let (status, log) = second.run();
    assert!(!status.success(), "{log}");
    assert!(log.contains("in use by another registry process"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    // The first goes on as if nothing had been.
    let image = Image::new(46);
    image.push(&client, "team/app", "v1");
    image.assert_pullable(&client, "team/app", "v1");
    // When it has ended, in whatever way, the next may come.
    let mut server = server;
    server.kill();
    second.restart();
    image.assert_pullable(&second.client(), "team/app", "v1");
}

/// Puts the last writing of an upload into the past.
fn age(folder: &Path, by: Duration) {
    let then = SystemTime::now() - by;
    for name in ["data", "startedat"] {
        if let Ok(file) = File::options().append(true).open(folder.join(name)) {
            file.set_times(FileTimes::new().set_modified(then).set_accessed(then))
                .expect("times");
        }
    }
}

#[test]
fn abandoned_uploads_are_removed_and_others_stay() {
    let week = Duration::from_secs(7 * 24 * 3600);
    let (mut server, client) = serve();
    let begin = |repo: &str, bytes: &[u8]| {
        let location = open_upload(&client, repo);
        client.patch(&location).body(bytes).send().expect(202);
        location
    };
    let old = [begin("team/app", b"old"), begin("team/other", b"old too")];
    let untouched = open_upload(&client, "team/app");
    let (young, fresh) = (begin("team/app", b"young"), begin("team/app", b"fresh"));
    assert!(server.terminate().success());
    let folder = |location: &str| {
        let (repo, id) = location
            .strip_prefix("/v2/")
            .and_then(|rest| rest.split_once("/blobs/uploads/"))
            .unwrap();
        server
            .tree()
            .join(repository(repo))
            .join("_uploads")
            .join(id)
    };
    for location in old.iter().chain([&untouched]) {
        age(&folder(location), week + Duration::from_secs(60));
    }
    age(&folder(&young), week - Duration::from_secs(3600));
    let gone: Vec<PathBuf> = old
        .iter()
        .chain([&untouched])
        .map(|at| folder(at))
        .collect();
    // The default age, looked after often.
    let mut server = Server::new()
        .root(server.tree())
        .set("storage.maintenance.uploadpurging.interval", "1s")
        .start();
    eventually("the abandoned ones are removed", || {
        gone.iter().all(|folder| !folder.exists()).then_some(())
    });
    let client = server.client();
    for location in old.iter().chain([&untouched]) {
        // Its folder is gone a moment before the session is.
        eventually("the session is unknown", || {
            (client.get(location).send().status == 404).then_some(())
        });
        client
            .get(location)
            .send()
            .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    }
    for (location, range) in [(&young, "0-4"), (&fresh, "0-4")] {
        let status = client.get(location).send().expect(204);
        assert_eq!(status.header("range"), Some(range));
    }
    let blob = Blob::new(*b"young enough");
    client
        .put(&crate::support::http::with_query(
            &young,
            "digest",
            &blob.digest,
        ))
        .body(*b" enough")
        .send()
        .expect(201);
    assert_blob(&client, "team/app", &blob);
    assert!(server.log().contains("removing"), "the log tells of it");
    assert!(server.terminate().success());
}

#[test]
fn with_dryrun_or_without_purging_nothing_is_removed() {
    for (key, value) in [("dryrun", "true"), ("enabled", "false")] {
        let (mut server, client) = serve();
        let location = open_upload(&client, "team/app");
        client.patch(&location).body(*b"old").send().expect(202);
        let probe = open_upload(&client, "a/probe");
        assert!(server.terminate().success());
        let uploads = server.tree().join(repository("team/app")).join("_uploads");
        let folder = uploads.join(location.rsplit('/').next().unwrap());
        let month = Duration::from_secs(30 * 24 * 3600);
        age(&folder, month);
        let _ = probe;
        let server = Server::new()
            .root(server.tree())
            .set("storage.maintenance.uploadpurging.interval", "1s")
            .set(&format!("storage.maintenance.uploadpurging.{key}"), value)
            .start();
        if key == "dryrun" {
            eventually("the log tells what it would remove", || {
                server.log().contains("would remove").then_some(())
            });
        }
        let status = server.client().get(&location).send().expect(204);
        assert_eq!(status.header("range"), Some("0-2"));
    }
}

/// What a process wrote to lately is in use, however old its clock says that it is.
#[test]
fn an_upload_in_use_is_never_removed() {
    let server = Server::new()
        .set("storage.maintenance.uploadpurging.interval", "1s")
        .start();
    let client = server.client();
    let location = open_upload(&client, "team/app");
    client.patch(&location).body(*b"begun").send().expect(202);
    let abandoned = server
        .tree()
        .join(repository("team/app"))
        .join("_uploads/b6e3e8a0-1111-4222-8333-444455556666");
    put_file(abandoned.join("data"), "old");
    put_file(abandoned.join("startedat"), "2020-01-01T00:00:00Z");
    let uploads = server.tree().join(repository("team/app")).join("_uploads");
    let month = Duration::from_secs(30 * 24 * 3600);
    age(&uploads.join(location.rsplit('/').next().unwrap()), month);
    age(&abandoned, month);
    eventually("the abandoned one beside it is removed", || {
        (!abandoned.exists()).then_some(())
    });
    let status = client.get(&location).send().expect(204);
    assert_eq!(status.header("range"), Some("0-4"));
}

/// Storage calls so far, as `/metrics` counts them.
fn storage_calls(client: &Client) -> f64 {
    let text = client.get("/metrics").send().expect(200).text();
    text.lines()
        .filter(|line| line.starts_with("registry_storage_calls_total{"))
        // Asking for the metrics asks for the room on the disk.
        .filter(|line| !line.contains("call=\"space\""))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

/// How many storage calls `request` makes.
fn calls_of(client: &Client, request: impl FnOnce()) -> f64 {
    let before = storage_calls(client);
    request();
    storage_calls(client) - before
}

#[test]
fn a_request_asks_the_disk_as_often_as_it_has_to() {
    let (mut server, client) = serve();
    let image = Image::builder(47).layer_size(200_000).build();
    image.push(&client, "team/app", "v1");
    server.kill();
    server.restart();
    let client = server.client();
    let layer = &image.layers[0];
    let blob = format!("/v2/team/app/blobs/{}", layer.digest);
    let tag = "/v2/team/app/manifests/v1".to_owned();
    let digest = format!("/v2/team/app/manifests/{}", image.digest());
    let get = |target: &str| {
        client.get(target).send().expect(200);
    };
    let head = |target: &str| {
        client.head(target).send().expect(200);
    };
    let upload = |blob: &Blob| {
        push_blob(&client, "team/app", blob);
    };
    let new = Blob::random(48, 200_000);
    for (what, most, calls) in [
        (
            "GET of a blob, first",
            2.0,
            calls_of(&client, || get(&blob)),
        ),
        (
            "GET of a blob, again",
            2.0,
            calls_of(&client, || get(&blob)),
        ),
        (
            "HEAD of a blob, warm",
            1.0,
            calls_of(&client, || head(&blob)),
        ),
        (
            "HEAD of a blob, warmer",
            0.0,
            calls_of(&client, || head(&blob)),
        ),
        ("GET by tag, first", 3.0, calls_of(&client, || get(&tag))),
        ("GET by tag, warm", 0.0, calls_of(&client, || get(&tag))),
        ("HEAD by tag, warm", 0.0, calls_of(&client, || head(&tag))),
        (
            "GET by digest, warm",
            0.0,
            calls_of(&client, || get(&digest)),
        ),
        (
            "push of a new blob",
            10.0,
            calls_of(&client, || upload(&new)),
        ),
        ("push of it again", 8.0, calls_of(&client, || upload(&new))),
    ] {
        assert!(
            calls <= most,
            "{what}: {calls} calls, and at most {most} are needed"
        );
    }
    // Lists are made once.
    get("/v2/team/app/tags/list");
    get("/v2/_catalog");
    let lists = calls_of(&client, || {
        get("/v2/team/app/tags/list");
        get("/v2/team/app/tags/list?n=1");
        get("/v2/_catalog?n=1");
    });
    assert!(lists <= 0.0, "lists: {lists} calls");
}

/// Until it is pushed again nobody sees the tag; then it is there, and goes when its manifest does.
#[test]
fn a_tag_whose_manifest_comes_back_goes_with_it() {
    let image = Image::new(81);
    let damaged = Damaged::new(&[("team/app", "v1", &image)], |root| {
        let link = root.join(revision_link("team/app", image.digest()));
        fs::remove_dir_all(link.parent().expect("a folder")).expect("removed");
    });
    let client = damaged.client();
    let target = format!("/v2/team/app/manifests/{}", image.digest());
    damaged.assert_tags(&["healthy"]);
    image.manifest.push(&client, "team/app", image.digest());
    damaged.assert_tags(&["healthy", "v1"]);
    image.assert_pullable(&client, "team/app", "v1");
    client.delete(&target).send().expect(202);
    image.manifest.push(&client, "team/app", image.digest());
    client
        .get("/v2/team/app/manifests/v1")
        .send()
        .expect_error(404, "MANIFEST_UNKNOWN");
    damaged.assert_healthy();
}

/// A folder that cannot be listed for a moment hides its repositories no longer than that.
#[test]
fn a_listing_that_failed_is_not_remembered() {
    let (mut server, client) = serve();
    let image = Image::new(82);
    image.push(&client, "healthy", "v1");
    image.push(&client, "moody/app", "v1");
    server.kill();
    let folder = server.tree().join(repository("moody"));
    let aside = server.dir().join("aside");
    fs::rename(&folder, &aside).expect("moved");
    std::os::unix::fs::symlink(&folder, &folder).expect("a link to itself");
    server.restart();
    let client = server.client();
    let catalog = || client.get("/v2/_catalog").send().expect(200).json()["repositories"].clone();
    assert_eq!(catalog(), json!(["healthy"]));
    fs::remove_file(&folder).expect("removed");
    fs::rename(&aside, &folder).expect("moved back");
    eventually("it is listed again", || {
        (catalog() == json!(["healthy", "moody/app"])).then_some(())
    });
}

/// Not an error of the server: it is missing, and can be pushed again. The log says why.
#[test]
fn damaged_content_is_missing_from_the_first_read_on() {
    let image = Image::new(83);
    let damaged = Damaged::new(&[("team/app", "v1", &image)], |root| {
        for digest in [image.digest(), &*image.layers[0].digest] {
            spoil(&root.join(blob_path(digest)), "zeroes");
        }
    });
    let client = damaged.client();
    for _ in 0..2 {
        client
            .get("/v2/team/app/manifests/v1")
            .send()
            .expect_error(404, "MANIFEST_UNKNOWN");
        client
            .get(&format!("/v2/team/app/blobs/{}", image.layers[0].digest))
            .send()
            .expect_error(404, "BLOB_UNKNOWN");
    }
    // Telling would mean to read every manifest: the tag is listed, as it is by distribution.
    damaged.assert_tags(&["healthy", "v1"]);
    image.push(&client, "team/app", "v1");
    image.assert_pullable(&client, "team/app", "v1");
}

/// A client would believe that the images are gone, and a push would begin another tree in the mount point of a disk.
#[test]
fn where_the_directory_is_gone_nothing_is_missing_and_nothing_is_made() {
    let server = Server::new()
        .set("health.storagedriver.interval", "100ms")
        .set("health.storagedriver.threshold", "1")
        .start();
    let client = server.client();
    let image = Image::builder(77).layers(2).layer_size(200_000).build();
    image.push(&client, "team/app", "1");
    let session = open_upload(&client, "team/app");
    let (root, aside) = (server.tree(), server.dir().join("aside"));
    let manifest = format!("/v2/team/app/manifests/{}", image.digest());
    // What is made ahead of need, in the background, is.
    let shards = root.join(V2).join("blobs/sha256");
    eventually("the folders of blobs are made", || {
        (fs::read_dir(&shards).ok()?.count() == 256).then_some(())
    });
    for is_replaced in [false, true] {
        fs::rename(root, &aside).expect("moved away");
        if is_replaced {
            fs::create_dir(root).expect("what a disk was mounted over");
        }
        let blob = Blob::random(78, 100);
        for reply in [
            client
                .get(&format!("/v2/team/app/blobs/{}", image.layers[1].digest))
                .send(),
            client.get("/v2/team/app/manifests/2").send(),
            client
                .get(&format!("/v2/team/app/blobs/{}", blob.digest))
                .send(),
            client.delete(&manifest).send(),
            client.post("/v2/team/app/blobs/uploads/").send(),
            client
                .put(&with_query(&session, "digest", &blob.digest))
                .body(blob.bytes.clone())
                .send(),
            client
                .put("/v2/team/app/manifests/3")
                .header("Content-Type", OCI_MANIFEST)
                .body(image.manifest.bytes())
                .send(),
        ] {
            let reply = reply.expect_error(503, "UNAVAILABLE");
            assert!(
                reply.text().contains("is not where it was: mount it"),
                "{reply:?}"
            );
            assert!(reply.header("retry-after").is_some(), "{reply:?}");
        }
        eventually("it says that it is not ready", || {
            (client.get("/readyz").send().status == 503).then_some(())
        });
        match is_replaced {
            false => assert!(!root.exists(), "{:?}", tree::snapshot(root).keys()),
            true => fs::remove_dir(root).expect("nothing was made there"),
        }
        fs::rename(&aside, root).expect("moved back");
        eventually("it is ready again", || {
            (client.get("/readyz").send().status == 200).then_some(())
        });
        image.assert_pullable(&client, "team/app", "1");
        image.push(&client, "team/app", "2");
        client.delete("/v2/team/app/manifests/2").send().expect(202);
    }
}
