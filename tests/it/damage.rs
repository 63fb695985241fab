//! A disk that lies: a tree of Debian's `docker-registry`, damaged in every way that one is found to be in, is served as far
//! as it is whole, named, mended as far as can be, and still `docker-registry`'s.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::migrate::docker_registry;
use crate::support::{
    forgetful::{Forgetful, Luck},
    http::Client,
    image::{Algorithm, Blob, Image, Manifest, open_upload, push_blob},
    seed::{Rng, seed},
    server::{Server, eventually},
    tree,
};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What the command says, and its exit status.
#[track_caller]
fn verify(server: &Server, args: &[&str]) -> (String, i32) {
    let Output {
        status,
        stdout,
        stderr,
    } = server.output_of(&[&["verify"], args].concat());
    let code = status.code().expect("an exit status");
    assert!(code != 1, "{}{}", text(&stdout), text(&stderr));
    (text(&stdout), code)
}

/// The one line that has all of these.
#[track_caller]
fn assert_said(told: &str, parts: &[&str]) {
    let is_it = |line: &&str| parts.iter().all(|part| line.contains(part));
    let lines: Vec<&str> = told.lines().filter(is_it).collect();
    assert_eq!(lines.len(), 1, "{parts:?} in:\n{told}");
}

/// Paths below a tree.
struct Paths(PathBuf);

impl Paths {
    fn hex(digest: &str) -> String {
        digest.replace(':', "/")
    }

    fn blob(&self, digest: &str) -> PathBuf {
        let (algorithm, hex) = digest.split_once(':').expect("a digest");
        let blobs = self.0.join("docker/registry/v2/blobs");
        blobs.join(algorithm).join(&hex[..2]).join(hex)
    }

    fn data(&self, digest: &str) -> PathBuf {
        self.blob(digest).join("data")
    }

    fn repo(&self, repo: &str) -> PathBuf {
        self.0.join("docker/registry/v2/repositories").join(repo)
    }

    fn layer(&self, repo: &str, digest: &str) -> PathBuf {
        let link = format!("_layers/{}/link", Self::hex(digest));
        self.repo(repo).join(link)
    }

    fn revision(&self, repo: &str, digest: &str) -> PathBuf {
        let link = format!("_manifests/revisions/{}/link", Self::hex(digest));
        self.repo(repo).join(link)
    }

    fn tag(&self, repo: &str, tag: &str) -> PathBuf {
        self.repo(repo)
            .join(format!("_manifests/tags/{tag}/current/link"))
    }
}

fn write(path: &Path, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("its folder");
    fs::write(path, content).expect("written");
}

fn remove(path: &Path) {
    fs::remove_file(path).expect("removed");
}

/// One byte of it is another one.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("content");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).expect("written");
}

const UUID: &str = "0190b7a1-5c1e-7cc3-98a4-6d2f3a1b9c8d";

/// Each way of damage has a repository of its own, with one tag, `v1`; its image.
struct Kit {
    paths: Paths,
    images: Vec<(String, Image)>,
    healthy: Vec<(&'static str, &'static str, Image)>,
    /// Manifests that no registry of today takes: repository and digest.
    strange: Vec<(&'static str, String)>,
}

impl Kit {
    fn image(&self, repo: &str) -> &Image {
        let found = self.images.iter().find(|(name, _)| name == repo);
        &found.expect("one of the kit").1
    }

    /// What is whole can be pulled.
    fn assert_healthy(&self, client: &Client) {
        for (repo, tag, image) in &self.healthy {
            image.assert_pullable(client, repo, tag);
        }
    }

    fn assert_pullable(&self, client: &Client, repo: &str) {
        self.image(repo).assert_pullable(client, repo, "v1");
    }
}

const REPOS: [&str; 17] = [
    "empty/layer-link",
    "newline/layer-link",
    "empty/manifest-link",
    "empty/tag",
    "empty/tag-moved",
    "unfinished/tag",
    "lost/manifest",
    "lost/manifest-content",
    "lost/layer",
    "cut/layer",
    "flipped/layer",
    "emptied/config",
    "flipped/manifest",
    "wrong/size",
    "old/schema1",
    "lost/child",
    "hidden/layer",
];

/// Writes a tree with `docker-registry`, and damages it.
fn damaged_tree() -> (Server, Kit) {
    let mut theirs = docker_registry(Server::new()).start();
    let client = theirs.client();
    let mut kit = Kit {
        paths: Paths(theirs.tree().to_owned()),
        images: Vec::new(),
        healthy: Vec::new(),
        strange: Vec::new(),
    };
    for (n, repo) in (0..).zip(REPOS) {
        let image = Image::builder(100 + n).layer_size(3000).build();
        image.push(&client, repo, "v1");
        kit.images.push((repo.to_owned(), image));
    }
    for (n, (repo, tag)) in (0..).zip([
        ("whole/app", "v1"),
        ("whole/app", "v2"),
        ("flipped/layer", "whole"),
    ]) {
        let image = Image::builder(200 + n).layer_size(200_000).build();
        image.push(&client, repo, tag);
        kit.healthy.push((repo, tag, image));
    }
    let moved = Image::new(300);
    moved.push(&client, "empty/tag-moved", "v1");
    let index = Manifest::index([&kit.image("lost/child").manifest]);
    index.push(&client, "lost/child", "all");
    push_blob(&client, "loose/blob", &Blob::random(301, 100));
    push_blob(&client, "loose/gone", &Blob::random(302, 100));
    open_upload(&client, "only/uploads");
    theirs.terminate();
    damage(&mut kit);
    (theirs, kit)
}

fn damage(kit: &mut Kit) {
    let mut strange = Vec::new();
    let at = &kit.paths;
    let of = |repo: &str| kit.image(repo);
    let layer = |repo: &str| of(repo).layers[0].digest.clone();
    // Links: empty, as a power cut leaves them, or with a newline, as somebody with an editor does.
    write(
        &at.layer("empty/layer-link", &layer("empty/layer-link")),
        "",
    );
    let digest = layer("newline/layer-link");
    write(
        &at.layer("newline/layer-link", &digest),
        format!("{digest}\n"),
    );
    let digest = of("empty/manifest-link").digest();
    write(&at.revision("empty/manifest-link", digest), "");
    write(&at.tag("empty/tag", "v1"), "");
    write(&at.tag("empty/tag-moved", "v1"), "");
    remove(&at.tag("unfinished/tag", "v1"));
    fs::create_dir_all(at.repo("whole/app/_manifests/tags/never")).expect("a folder");
    // What should be there.
    remove(&at.revision("lost/manifest", of("lost/manifest").digest()));
    remove(&at.data(of("lost/manifest-content").digest()));
    remove(&at.data(&layer("lost/layer")));
    remove(&at.data(&Blob::random(302, 100).digest));
    remove(&at.layer("hidden/layer", &layer("hidden/layer")));
    let child = of("lost/child").digest();
    remove(&at.revision("lost/child", child));
    fs::remove_dir_all(at.repo("lost/child/_manifests/tags/v1")).expect("removed");
    // Content.
    let cut = fs::File::options()
        .write(true)
        .open(at.data(&layer("cut/layer")));
    cut.expect("content").set_len(1000).expect("cut");
    flip(&at.data(&layer("flipped/layer")));
    write(&at.data(&of("emptied/config").config.digest), "");
    flip(&at.data(of("flipped/manifest").digest()));
    // Manifests as no registry of today takes them.
    let wrong = of("wrong/size")
        .manifest
        .edit(|m| m["layers"][0]["size"] = json!(1));
    let old = json!({"schemaVersion": 1, "name": "old/schema1", "tag": "v1", "fsLayers": [], "history": []});
    let old = Blob::new(old.to_string());
    for (repo, blob) in [("wrong/size", &wrong.blob), ("old/schema1", &old)] {
        write(&at.data(&blob.digest), &blob.bytes);
        write(&at.revision(repo, &blob.digest), &blob.digest);
        write(&at.tag(repo, "v1"), &blob.digest);
        strange.push((repo, blob.digest.clone()));
    }
    // Debris.
    let whole = &kit.healthy[0].2;
    for path in [
        at.layer("whole/app", &whole.layers[0].digest),
        at.revision("whole/app", whole.digest()),
        at.tag("whole/app", "v1"),
        at.data(whole.digest()),
    ] {
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        write(&path.with_file_name(format!("{name}.{UUID}.tmp")), "half");
    }
    let gone = Blob::random(303, 10).digest;
    for folder in [
        at.blob(&gone),
        at.layer("whole/app", &gone)
            .parent()
            .expect("a folder")
            .to_owned(),
        at.revision("whole/app", &gone)
            .parent()
            .expect("a folder")
            .to_owned(),
    ] {
        fs::create_dir_all(folder).expect("a folder");
    }
    let upload = at.repo("whole/app/_uploads").join(UUID);
    write(&upload.join("startedat"), "");
    write(&upload.join(format!("startedat.{UUID}.tmp")), "2026");
    write(&at.repo("whole/app/_layers/tarsum/v1").join("x"), "");
    // No damage: distribution keeps content that was pushed by its sha512 under its sha256.
    let long = Algorithm::Sha512.digest(&whole.layers[0].bytes);
    write(&at.layer("whole/app", &long), &whole.layers[0].digest);
    kit.strange = strange;
}

/// What a check of everything has to say of the kit, unless it was mended.
fn assert_damage_named(told: &str, kit: &Kit) {
    let layer = |repo: &str| kit.image(repo).layers[0].digest.clone();
    let config = kit.image("emptied/config").config.digest.clone();
    for (repo, parts) in [
        ("empty/tag-moved", ["damaged tag", "push it again"]),
        (
            "lost/manifest",
            ["missing manifest", kit.image("lost/manifest").digest()],
        ),
        (
            "lost/manifest-content",
            [
                "missing content",
                kit.image("lost/manifest-content").digest(),
            ],
        ),
        ("lost/layer", ["missing content", &layer("lost/layer")]),
        ("cut/layer", ["damaged content", &layer("cut/layer")]),
        (
            "flipped/layer",
            ["damaged content", &layer("flipped/layer")],
        ),
        ("emptied/config", ["damaged content", &config]),
        (
            "flipped/manifest",
            ["damaged content", kit.image("flipped/manifest").digest()],
        ),
        ("wrong/size", ["another size", "says 1 bytes, it has 3000"]),
        ("old/schema1", ["unknown format", "schema 1"]),
        ("hidden/layer", ["does not show", &layer("hidden/layer")]),
    ] {
        assert_said(told, &[&format!("{repo}:v1: "), parts[0], parts[1]]);
    }
    let child = kit.image("lost/child").digest();
    assert_said(told, &["lost/child:all: ", "missing manifest", child]);
    let gone = Blob::random(302, 100).digest;
    assert_said(
        told,
        &["loose/gone: ", "link to a blob that is gone", &gone],
    );
    let whole = &kit.healthy[0].2;
    let unfinished = |path: PathBuf| {
        let path = path.strip_prefix(&kit.paths.0).expect("below the root");
        assert_said(
            told,
            &["never finished", &format!("{}.{UUID}.tmp", path.display())],
        );
    };
    let at = &kit.paths;
    unfinished(at.layer("whole/app", &whole.layers[0].digest));
    unfinished(at.revision("whole/app", whole.digest()));
    unfinished(at.tag("whole/app", "v1"));
    unfinished(at.data(whole.digest()));
    unfinished(at.repo("whole/app/_uploads").join(UUID).join("startedat"));
    let gone = Blob::random(303, 10).digest;
    for folder in ["blobs/", "_layers/", "revisions/"] {
        assert_said(told, &["empty folder", folder, &gone[7..]]);
    }
    assert_said(told, &["upload that nobody can continue", UUID]);
    assert_said(told, &["not of a registry", "whole/app/_layers"]);
    assert_said(
        told,
        &["whole/app:never: ", "tag without a link", "can be removed"],
    );
}

#[test]
fn a_tree_that_gitlabs_database_manages_is_refused() {
    let mut server = Server::new();
    let lock = server
        .tree()
        .join("docker/registry/lockfiles/database-in-use");
    write(&lock, "");
    let (status, log) = server.run();
    assert!(!status.success());
    assert!(log.contains("GitLab's metadata database"), "{log}");
    assert!(
        !server.tree().join(".registry").exists(),
        "it is left alone"
    );
    remove(&lock);
    server.restart();
}

// --- stopped in the middle ---

/// Images of one repository, each damaged in another way, by its number: a layer of other bytes, an empty link to a layer, an
/// empty tag, none.
struct Wreck {
    paths: Paths,
    images: Vec<Image>,
}

impl Wreck {
    fn push(server: &Server, seed: u64) -> Self {
        let images: Vec<Image> = (0..8).map(|n| Image::new(seed.wrapping_add(n))).collect();
        for (n, image) in images.iter().enumerate() {
            image.push(&server.client(), "some/repo", &format!("v{n}"));
        }
        Wreck {
            paths: Paths(server.tree().to_owned()),
            images,
        }
    }

    fn damage(&self) {
        for (n, image) in self.images.iter().enumerate() {
            let layer = &image.layers[0].digest;
            match n % 4 {
                0 => flip(&self.paths.data(layer)),
                1 => write(&self.paths.layer("some/repo", layer), ""),
                2 => write(&self.paths.tag("some/repo", &format!("v{n}")), ""),
                _ => {}
            }
        }
    }

    /// Images without damage are whole, and what is damaged is never served.
    fn assert_never_worse(&self, client: &Client) {
        for (n, image) in self.images.iter().enumerate() {
            let target = format!("/v2/some/repo/blobs/{}", image.layers[0].digest);
            match n % 4 {
                3 => image.assert_pullable(client, "some/repo", &format!("v{n}")),
                0 => {
                    let served = client.get(&target).try_send();
                    assert!(!served.is_ok_and(|reply| reply.status == 200), "{target}");
                }
                _ => {}
            }
        }
    }

    /// What can be mended was.
    fn assert_mended(&self, client: &Client) {
        self.assert_never_worse(client);
        for (n, image) in self.images.iter().enumerate().filter(|(n, _)| n % 4 != 0) {
            image.assert_pullable(client, "some/repo", &format!("v{n}"));
        }
    }

    /// The bytes that lay where others should have been are still somewhere.
    fn assert_evidence(&self, seed: u64) {
        for image in self.images.iter().step_by(4) {
            let layer = &image.layers[0];
            let mut bytes = layer.bytes.clone();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            let name = format!(".registry/quarantine/{}", layer.digest.replace(':', "-"));
            let places = [self.paths.data(&layer.digest), self.paths.0.join(name)];
            let found = places
                .iter()
                .any(|place| fs::read(place).is_ok_and(|b| b == bytes));
            assert!(found, "REGISTRY_SEED={seed}: {}", layer.digest);
        }
    }
}

#[test]
fn a_repair_that_is_killed_leaves_nothing_worse_and_is_done_again() {
    let seed = seed("a_repair_that_is_killed_leaves_nothing_worse_and_is_done_again");
    let mut rng = Rng::new(seed);
    for round in 0..4 {
        let mut server = Server::new().start();
        let wreck = Wreck::push(&server, rng.next());
        server.kill();
        wreck.damage();
        for _ in 0..4 {
            server.restart();
            let mut repair = server.command(&["verify", "--repair", "--yes", "--quiet"]);
            let repair = repair.stdout(Stdio::null()).stderr(Stdio::null());
            let mut repair = repair.spawn().expect("it starts");
            thread::sleep(Duration::from_millis(rng.below(150)));
            server.kill();
            repair.wait().expect("it ends");
            wreck.assert_evidence(seed);
        }
        // On the directory itself, without a server, as well.
        if round % 2 == 0 {
            server.restart();
        }
        assert_eq!(
            verify(&server, &["--repair", "--yes"]).1,
            2,
            "REGISTRY_SEED={seed}"
        );
        wreck.assert_evidence(seed);
        server.restart();
        wreck.assert_mended(&server.client());
    }
}

#[test]
fn a_repair_that_loses_its_power_leaves_nothing_worse_and_is_done_again() {
    let seed = seed("a_repair_that_loses_its_power_leaves_nothing_worse_and_is_done_again");
    let mut rng = Rng::new(seed);
    let mut disk = Forgetful::mount();
    let mut server = Server::new().root(disk.path()).start();
    let wreck = Wreck::push(&server, rng.next());
    server.terminate();
    wreck.damage();
    disk.settle();
    let mut cuts = 0;
    for round in 0..12 {
        disk.cut_at(1 + rng.below(20 + 10 * round));
        // This file system has no sockets: the command works on the directory.
        let repair = server.command(&["verify", "--repair", "--yes"]).output();
        let repair = repair.expect("it starts");
        cuts += u32::from(disk.is_off());
        assert!(disk.is_off() || repair.status.code() == Some(2));
        disk.cut();
        let luck = if rng.chance(30) {
            Luck::Lost
        } else {
            Luck::Random(rng.next())
        };
        disk.power_on(luck);
    }
    assert!(cuts > 0, "the power never went");
    assert_eq!(
        verify(&server, &["--repair", "--yes"]).1,
        2,
        "REGISTRY_SEED={seed}"
    );
    server.restart();
    wreck.assert_mended(&server.client());
    for (n, image) in wreck.images.iter().enumerate() {
        image.push(&server.client(), "some/repo", &format!("v{n}"));
    }
    server.terminate();
    assert_eq!(verify(&server, &[]).1, 0, "REGISTRY_SEED={seed}");
    assert_eq!(tree::faults(disk.path()), Vec::<String>::new());
}

// --- a full disk ---

#[test]
fn a_disk_that_is_nearly_full_takes_no_upload_and_gives_room_back() {
    let disk = Forgetful::mount();
    let server = Server::new()
        .root(disk.path())
        .set("gc.grace", "0s")
        .set("gc.interval", "1000h")
        .set("gc.delay", "1000h")
        .set("undo.keep", "1000h")
        .start();
    let client = server.client();
    let (gone, kept) = (Image::new(1), Image::new(2));
    gone.push(&client, "team/gone", "v1");
    kept.push(&client, "team/kept", "v1");
    disk.set_full(true);
    // How full it is is known a second later.
    eventually("uploads are refused before they begin", || {
        let reply = client
            .post("/v2/team/more/blobs/uploads/")
            .send()
            .expect(507);
        let is_told = reply.text().contains("nearly full, 0 MB are free");
        is_told.then_some(())
    });
    let target = format!("/v2/team/gone/manifests/{}", gone.digest());
    client.delete(&target).send().expect(202);
    // Neither its time nor a command: the refusal of an upload.
    let data = Paths(disk.path().to_owned()).data(&gone.layers[0].digest);
    eventually("the room of what was deleted comes back", || {
        client
            .post("/v2/team/more/blobs/uploads/")
            .send()
            .expect(507);
        (!data.exists()).then_some(())
    });
    kept.assert_pullable(&client, "team/kept", "v1");
    disk.set_full(false);
    eventually("uploads are taken", || {
        let reply = client.post("/v2/team/more/blobs/uploads/").send();
        (reply.status == 202).then_some(())
    });
    gone.push(&client, "team/gone", "v1");
}

#[test]
fn a_damaged_tree_of_distribution_is_served_named_mended_and_given_back() {
    let (theirs, kit) = damaged_tree();
    let root = theirs.tree().to_owned();
    let mut server = Server::new().root(&root).start();
    let client = server.client();
    kit.assert_healthy(&client);

    // By itself it mends what leaves no doubt, and says what it found, before all content is read.
    let report: Value = eventually("the tree was looked through", || {
        let text = fs::read(root.join(".registry/verify/report.json")).ok()?;
        serde_json::from_slice(&text).ok()
    });
    assert_eq!(report["mended"], 4, "{report:#}");
    let (told, _) = verify(&server, &["--report"]);
    for (repo, what) in [
        ("empty/layer-link:v1", "damaged link to a blob"),
        ("newline/layer-link:v1", "damaged link to a blob"),
        ("empty/manifest-link:v1", "damaged link to a manifest"),
        ("empty/tag:v1", "damaged tag"),
    ] {
        assert_said(&told, &[repo, what, "mended: "]);
    }
    assert_said(&told, &["whole/app: 2 tags whole"]);
    kit.assert_healthy(&client);

    // All content is read while clients pull.
    let over = AtomicBool::new(false);
    let (told, status) = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                kit.assert_healthy(&client);
            }
        });
        let verified = verify(&server, &[]);
        over.store(true, Ordering::SeqCst);
        verified
    });
    assert_eq!(status, 2, "{told}");
    assert_damage_named(&told, &kit);
    assert_said(
        &told,
        &[
            "unfinished/tag:v1: ",
            "tag without a link",
            "can be mended: its history",
        ],
    );
    let before = tree::shared_files(&root);
    let flipped = kit.image("flipped/layer").layers[0].digest.clone();
    let target = format!("/v2/flipped/layer/blobs/{flipped}");
    client.get(&target).send().expect(404);
    let evidence = root.join(format!(
        ".registry/quarantine/{}",
        flipped.replace(':', "-")
    ));
    assert_eq!(fs::metadata(&evidence).expect("the evidence").len(), 3000);

    // Without a word nothing more is mended; with one, what it said before.
    let refused = server.output_of(&["verify", "--repair"]);
    assert_eq!(refused.status.code(), Some(1), "nobody was asked");
    assert!(text(&refused.stderr).contains("--yes"));
    assert_eq!(tree::shared_files(&root), before);
    let (told, _) = verify(&server, &["--repair", "--yes"]);
    assert_said(&told, &["unfinished/tag:v1: tag without a link: mended: "]);
    assert!(!told.contains("could not be mended"), "{told}");
    let mended = [
        "empty/layer-link",
        "newline/layer-link",
        "empty/manifest-link",
        "empty/tag",
        "unfinished/tag",
    ];
    for repo in mended {
        kit.assert_pullable(&client, repo);
    }
    let (told, _) = verify(&server, &[]);
    assert!(
        !told.contains("never finished") && !told.contains("can be"),
        "{told}"
    );

    // It is not forgotten, and the evidence stays.
    server.kill();
    server.restart();
    let client = server.client();
    client.get(&target).send().expect(404);
    assert_eq!(fs::metadata(&evidence).expect("the evidence").len(), 3000);
    kit.assert_healthy(&client);

    // Theirs serves what is whole, and what was mended.
    assert!(server.terminate().success());
    let mut theirs = docker_registry(Server::new().root(&root)).start();
    kit.assert_healthy(&theirs.client());
    for repo in mended {
        kit.assert_pullable(&theirs.client(), repo);
    }
    theirs.terminate();

    // What is pushed again is whole again.
    server.restart();
    let client = server.client();
    for (repo, image) in &kit.images {
        image.push(&client, repo, "v1");
    }
    for (repo, digest) in &kit.strange {
        let target = format!("/v2/{repo}/manifests/{digest}");
        client.delete(&target).send().expect(202);
    }
    let (told, status) = verify(&server, &[]);
    assert_eq!(status, 0, "{told}");
    for repo in REPOS {
        kit.assert_pullable(&client, repo);
    }
    let metrics = client.get("/metrics").send().expect(200).text();
    assert!(metrics.contains("registry_damage_open 0\n"), "{metrics}");
}

// --- other registries ---

/// The first peer has the content no better, the second one not at all, the third one gives it to who has its password.
#[test]
fn what_another_registry_has_mends_damage() {
    let images: Vec<Image> = (0..3).map(|n| Image::new(9000 + n)).collect();
    let [with_manifest, with_layer, lost] = &images[..] else {
        unreachable!("three");
    };
    let push = |server: &Server, images: &[&Image]| {
        for image in images {
            image.push(&server.client(), "team/app", image.digest().split_at(14).1);
        }
    };
    let bad = Server::new().start();
    push(&bad, &[with_manifest, with_layer]);
    let paths = Paths(bad.tree().to_owned());
    flip(&paths.data(&with_layer.layers[0].digest));
    remove(&paths.data(with_manifest.digest()));
    let empty = Server::new().start();
    let good = Server::new();
    let htpasswd = good.dir().join("htpasswd");
    fs::write(&htpasswd, MENDER).expect("htpasswd");
    let mut good = good.start();
    push(&good, &[with_manifest, with_layer]);
    good.terminate();
    let mut good = good
        .set("auth.htpasswd.realm", "Registry")
        .set("auth.htpasswd.path", htpasswd.to_str().expect("UTF-8"));
    good.restart();

    let peers = format!(
        "[{{remoteurl: 'http://{}'}}, {{remoteurl: 'http://{}'}}, {{remoteurl: 'http://{}', username: mender, password: wonderland}}]",
        bad.addr(),
        empty.addr(),
        good.addr()
    );
    let server = Server::new()
        .set("scrub.peers", &peers)
        .set("scrub.interval", "10ms")
        .set("scrub.bandwidth", "0B");
    let mut server = server.start();
    push(&server, &[with_manifest, with_layer, lost]);
    server.terminate();
    let paths = Paths(server.tree().to_owned());
    remove(&paths.data(with_manifest.digest()));
    flip(&paths.data(&with_layer.layers[0].digest));
    flip(&paths.data(&lost.layers[0].digest));
    let (told, code) = verify(&server, &["--dry-run"]);
    assert_eq!(code, 2, "{told}");
    let asked = "can be asked for at other registries";
    assert_said(&told, &[with_manifest.digest(), "missing content", asked]);
    assert_said(
        &told,
        &[&with_layer.layers[0].digest, "damaged content", asked],
    );
    // Nobody has to tell it to.
    server.restart();
    let client = server.client();
    for digest in [with_manifest.digest(), &with_layer.layers[0].digest] {
        let fetched = format!("{digest} of team/app was fetched from ");
        eventually("it is mended", || {
            server.log().contains(&fetched).then_some(())
        });
    }
    for image in [with_manifest, with_layer] {
        image.assert_pullable(&client, "team/app", image.digest().split_at(14).1);
    }
    // Nobody has this one.
    let (told, code) = verify(&server, &["--repair", "--yes"]);
    assert_eq!(code, 2, "{told}");
    assert_said(&told, &[&lost.layers[0].digest, "could not be mended"]);
    let layer = format!("/v2/team/app/blobs/{}", lost.layers[0].digest);
    client.get(&layer).send().expect_error(404, "BLOB_UNKNOWN");
    // What came is as pushed as it was before.
    assert!(!server.tree().join(".registry/mirror").exists());
    let log = server.log();
    let warned = log.contains("is not asked by https");
    assert!(warned && !log.contains("wonderland"), "{log}");
    lost.push(&client, "team/app", "again");
    let (told, code) = verify(&server, &[]);
    assert_eq!(code, 0, "{told}");
}

const MENDER: &str = "mender:$2y$05$BXbd5nEN1ZJKkAe3zoV6M.DvRtFPrN1AV.9NCqQKA3IyDOsTUVEaC\n"; // wonderland
