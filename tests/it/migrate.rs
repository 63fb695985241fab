//! From CNCF distribution (Debian's `docker-registry` 2.8) to this server and back, on one tree.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::Path,
};

use serde_json::Value;

use crate::{
    listings,
    support::{
        http::{Client, with_query},
        image::{Blob, Image, Manifest, assert_blob, open_upload, push_blob},
        seed::{Rng, seed},
        server::Server,
        tree,
    },
};

const DOCKER_REGISTRY: &str = "/usr/bin/docker-registry";

/// The same configuration for distribution in place of the server under test.
pub(crate) fn docker_registry(server: Server) -> Server {
    assert!(
        Path::new(DOCKER_REGISTRY).exists(),
        "{DOCKER_REGISTRY} is missing: apt-get install docker-registry"
    );
    server
        .binary(DOCKER_REGISTRY)
        .ready_path("/v2/")
        .set("http.secret", "a-secret-of-the-tests")
}

fn theirs(root: &Path) -> Server {
    docker_registry(Server::new().root(root)).start()
}

fn ours(root: &Path) -> Server {
    Server::new().root(root).start()
}

/// What a tree has to hold, whoever serves it.
#[derive(Default)]
struct Content {
    /// repository, reference -> manifest
    manifests: BTreeMap<(String, String), Manifest>,
    /// repository, digest -> blob
    blobs: BTreeMap<(String, String), Blob>,
    /// Once there, and gone: targets.
    gone: Vec<String>,
}

impl Content {
    fn push(&mut self, client: &Client, repo: &str, tag: &str, image: &Image) {
        for blob in image.blobs() {
            push_blob(client, repo, blob);
            self.blobs
                .insert((repo.to_owned(), blob.digest.clone()), blob.clone());
        }
        self.push_manifest(client, repo, tag, &image.manifest);
    }

    fn push_manifest(&mut self, client: &Client, repo: &str, tag: &str, manifest: &Manifest) {
        manifest.push(client, repo, tag);
        for reference in [tag, manifest.digest()] {
            self.manifests
                .insert((repo.to_owned(), reference.to_owned()), manifest.clone());
        }
    }

    fn delete_manifest(&mut self, client: &Client, repo: &str, digest: &str) {
        client
            .delete(&format!("/v2/{repo}/manifests/{digest}"))
            .send()
            .expect(202);
        let doomed: Vec<(String, String)> = self
            .manifests
            .iter()
            .filter(|((r, _), manifest)| r == repo && manifest.digest() == digest)
            .map(|(key, _)| key.clone())
            .collect();
        for key in doomed {
            self.manifests.remove(&key);
            self.gone.push(format!("/v2/{repo}/manifests/{}", key.1));
        }
    }

    fn delete_blob(&mut self, client: &Client, repo: &str, digest: &str) {
        let target = format!("/v2/{repo}/blobs/{digest}");
        client.delete(&target).send().expect(202);
        self.blobs.remove(&(repo.to_owned(), digest.to_owned()));
        self.gone.push(target);
    }

    /// Every tag, digest, blob and list is served, and nothing else.
    #[track_caller]
    fn assert_served(&self, who: &str, client: &Client) {
        for ((repo, reference), manifest) in &self.manifests {
            let target = format!("/v2/{repo}/manifests/{reference}");
            for method in ["HEAD", "GET"] {
                let reply = client
                    .request(method, &target)
                    .header("Accept", &manifest.media_type)
                    .send();
                assert_eq!(reply.status, 200, "{who}: {method} {target}: {reply:?}");
                assert_eq!(
                    reply.header("docker-content-digest"),
                    Some(manifest.digest()),
                    "{who}: {target}"
                );
                assert_eq!(
                    reply.header("content-type"),
                    Some(manifest.media_type.as_str()),
                    "{who}: {target}"
                );
                assert_eq!(
                    reply.header("content-length"),
                    Some(manifest.bytes().len().to_string().as_str()),
                    "{who}: {target}"
                );
                assert!(
                    method == "HEAD" || reply.body == manifest.bytes(),
                    "{who}: {target}"
                );
            }
        }
        for ((repo, _), blob) in &self.blobs {
            assert_blob(client, repo, blob);
        }
        for target in &self.gone {
            let reply = client.get(target).send();
            assert_eq!(reply.status, 404, "{who}: {target}: {reply:?}");
        }
        let mut tags: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (repo, reference) in self.manifests.keys() {
            let list = tags.entry(repo).or_default();
            if !reference.contains(':') {
                list.push(reference);
            }
        }
        let mut repos: Vec<&str> = tags.keys().copied().collect();
        repos.sort_by_key(|repo| repo.split('/').collect::<Vec<_>>());
        for n in [2, 1000] {
            assert_eq!(
                all(client, &format!("/v2/_catalog?n={n}"), "repositories"),
                repos,
                "{who}: n={n}"
            );
        }
        for (repo, tags) in &tags {
            let mut listed = all(client, &format!("/v2/{repo}/tags/list"), "tags");
            if who != "ours" {
                listed.sort(); // 2.8 lists them in the order of the disk
            }
            assert_eq!(listed, *tags, "{who}: {repo}");
        }
    }
}

/// A list over all its pages. Distribution links with a whole address, and says `null` for an empty list.
#[track_caller]
fn all(client: &Client, target: &str, field: &str) -> Vec<String> {
    let mut list = Vec::new();
    let mut target = Some(target.to_owned());
    while let Some(at) = target {
        let reply = client.get(&at).send().expect(200);
        if let Value::Array(entries) = &reply.json()[field] {
            list.extend(entries.iter().map(|e| e.as_str().unwrap().to_owned()));
        }
        target = listings::next(&reply);
    }
    list
}

/// Images, an index, a list, moved tags, a blob of nobody.
fn first_content(client: &Client) -> Content {
    let mut content = Content::default();
    let (a, b) = (Image::new(1), Image::builder(2).docker().build());
    for repo in ["app", "app/nested", "app-dash", "app.dot", "team/app"] {
        content.push(client, repo, "v1", &a);
    }
    content.push(client, "team/app", "v2", &b);
    content.push(client, "team/app", "latest", &b);
    let index = Manifest::index([&a.manifest, &b.manifest]);
    content.push_manifest(client, "team/app", "multi", &index);
    let list = Manifest::docker_list([&b.manifest]);
    content.push_manifest(client, "team/app", "list", &list);
    content.push_manifest(client, "team/app", "latest", &a.manifest); // moved
    let large = Image::builder(3).layers(3).layer_size(700_000).build();
    content.push(client, "large", "v1", &large);
    let blob = Blob::random(4, 1000);
    push_blob(client, "team/app", &blob);
    content
        .blobs
        .insert(("team/app".into(), blob.digest.clone()), blob);
    content
}

/// More of it, and less.
fn change(client: &Client, content: &mut Content, seed: u64) {
    let new = Image::new(seed);
    content.push(client, "team/app", &format!("new-{seed}"), &new);
    content.push(client, &format!("new-{seed}"), "latest", &new);
    content.push_manifest(client, "team/app", "latest", &new.manifest);
    let doomed = Image::new(seed + 1);
    content.push(client, "team/app", "doomed", &doomed);
    content.push_manifest(client, "team/app", "doomed-too", &doomed.manifest);
    content.delete_manifest(client, "team/app", doomed.digest());
    content.delete_blob(client, "team/app", &doomed.layers[0].digest);
}

#[test]
fn a_tree_of_distribution_is_served_unchanged() {
    let mut theirs = docker_registry(Server::new()).start();
    let mut content = first_content(&theirs.client());
    change(&theirs.client(), &mut content, 10);
    content.assert_served("distribution", &theirs.client());
    theirs.terminate();
    let before = tree::snapshot(theirs.tree());
    let ours = ours(theirs.tree());
    content.assert_served("ours", &ours.client());
    // To serve it nothing of it had to be changed.
    let after = tree::shared_files(ours.tree());
    assert!(before == after, "reading changed the tree");
}

#[test]
fn a_tree_of_ours_is_served_by_distribution() {
    let mut ours = Server::new().start();
    let mut content = first_content(&ours.client());
    change(&ours.client(), &mut content, 20);
    content.assert_served("ours", &ours.client());
    assert!(ours.terminate().success());
    let theirs = theirs(ours.tree());
    content.assert_served("distribution", &theirs.client());
}

#[test]
fn a_tree_goes_back_and_forth() {
    let mut server = Server::new().start();
    let root = server.tree().to_owned();
    let mut content = first_content(&server.client());
    server.terminate();
    for round in 0..4 {
        let (who, mut registry) = if round % 2 == 0 {
            ("distribution", theirs(&root))
        } else {
            ("ours", ours(&root))
        };
        let client = registry.client();
        content.assert_served(who, &client);
        change(&client, &mut content, 100 + round * 10);
        // Something that the other one wrote is deleted and pushed again.
        let image = Image::builder(2).docker().build();
        content.delete_manifest(&client, "team/app", image.digest());
        content.assert_served(who, &client);
        content
            .gone
            .retain(|target| !target.contains("team/app/manifests"));
        content.push(&client, "team/app", "v2", &image);
        content.assert_served(who, &client);
        registry.terminate();
    }
    assert_eq!(tree::faults(&root), Vec::<String>::new());
}

/// Distribution's garbage collection takes of our tree what it takes of its own, and what is left is whole.
#[test]
fn distribution_collects_garbage_in_a_tree_of_ours() {
    let mut ours = Server::new().start();
    let mut content = first_content(&ours.client());
    change(&ours.client(), &mut content, 30);
    assert!(ours.terminate().success());
    let theirs = docker_registry(Server::new().root(ours.tree()));
    let config = theirs.config_path();
    let (status, log) = theirs
        .args([OsString::from("garbage-collect"), config.into()])
        .run();
    assert!(status.success(), "{log}");
    // To it a blob that no manifest refers to is garbage.
    let references: BTreeSet<String> = content
        .manifests
        .values()
        .flat_map(|manifest| {
            let value = manifest.value();
            let layers = value["layers"].as_array().cloned().unwrap_or_default();
            layers
                .into_iter()
                .chain([value["config"].clone()])
                .filter_map(|descriptor| Some(descriptor["digest"].as_str()?.to_owned()))
                .collect::<Vec<_>>()
        })
        .collect();
    let (kept, collected): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut content.blobs)
        .into_iter()
        .partition(|((_, digest), _)| references.contains(digest));
    assert!(!collected.is_empty());
    content.blobs = kept;
    for (repo, digest) in collected.keys() {
        content.gone.push(format!("/v2/{repo}/blobs/{digest}"));
    }
    ours.restart();
    content.assert_served("ours", &ours.client());
    // What was collected can be pushed again.
    for ((repo, _), blob) in collected {
        push_blob(&ours.client(), &repo, &blob);
        assert_blob(&ours.client(), &repo, &blob);
    }
}

/// Pages of both, with the same parameters, have the same entries.
#[test]
fn both_list_the_same_pages() {
    let mut rng = Rng::new(seed("both_list_the_same_pages"));
    let mut theirs_first = docker_registry(Server::new()).start();
    let client = theirs_first.client();
    let image = Image::new(5);
    for repo in ["a", "a/b", "a/b/c", "a-b", "a.b", "a_b", "ab", "b/a", "b"] {
        image.push(&client, repo, "v1");
    }
    let catalog = |client: &Client, query: &str| {
        let reply = client
            .get(&format!("/v2/_catalog{query}"))
            .send()
            .expect(200);
        reply.json()["repositories"].clone()
    };
    let mut queries = vec![String::new(), "?n=1000".to_owned()];
    for last in ["a", "a/b", "a-b", "a_b", "ab", "b"] {
        queries.push(format!("?n={}&last={last}", 1 + rng.below(5)));
    }
    let before: Vec<Value> = queries
        .iter()
        .map(|query| catalog(&client, query))
        .collect();
    theirs_first.terminate();
    let ours = ours(theirs_first.tree());
    for (query, before) in queries.iter().zip(before) {
        assert_eq!(catalog(&ours.client(), query), before, "{query}");
    }
}

/// An upload that was begun with distribution goes on here; its address is no longer the same, its id is.
#[test]
fn an_upload_begun_with_distribution_is_finished_here() {
    let mut theirs = docker_registry(Server::new()).start();
    let client = theirs.client();
    let blob = Blob::random(6, 300_000);
    let reply = client
        .post("/v2/team/app/blobs/uploads/")
        .send()
        .expect(202);
    let id = reply.header("docker-upload-uuid").unwrap().to_owned();
    client
        .patch(&reply.location())
        .body(&blob.bytes[..123_456])
        .send()
        .expect(202);
    theirs.terminate();
    let ours = ours(theirs.tree());
    let client = ours.client();
    let location = format!("/v2/team/app/blobs/uploads/{id}");
    let status = client.get(&location).send().expect(204);
    assert_eq!(status.header("range"), Some("0-123455"));
    client
        .put(&with_query(&location, "digest", &blob.digest))
        .header("Content-Range", "123456-299999")
        .body(&blob.bytes[123_456..])
        .send()
        .expect(201);
    assert_blob(&client, "team/app", &blob);
    assert_eq!(tree::faults(ours.tree()), Vec::<String>::new());
}

/// An upload that was begun here and never finished does not disturb distribution.
#[test]
fn distribution_serves_beside_uploads_begun_here() {
    let mut ours = Server::new().start();
    let mut content = Content::default();
    content.push(&ours.client(), "team/app", "v1", &Image::new(7));
    let location = open_upload(&ours.client(), "team/app");
    let patch = ours.client().patch(&location).body(*b"begun").send();
    patch.expect(202);
    open_upload(&ours.client(), "team/app");
    ours.kill();
    let theirs = theirs(ours.tree());
    content.assert_served("distribution", &theirs.client());
    content.push(&theirs.client(), "team/app", "v2", &Image::new(8));
    content.assert_served("distribution", &theirs.client());
}

/// Our own state lies where distribution does not look.
#[test]
fn referrers_and_their_list_do_not_disturb_distribution() {
    let mut ours = Server::new().start();
    let client = ours.client();
    let mut content = Content::default();
    let subject = Image::new(9);
    content.push(&client, "team/app", "v1", &subject);
    let artifact = Image::artifact(10, "application/x", &subject.manifest);
    content.push(&client, "team/app", "about", &artifact);
    client
        .get(&format!("/v2/team/app/referrers/{}", subject.digest()))
        .send()
        .expect(200);
    assert!(ours.terminate().success());
    let theirs = theirs(ours.tree());
    content.assert_served("distribution", &theirs.client());
}
