//! Garbage collection: what nothing refers to goes while clients push and pull, and nothing else does.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::migrate::docker_registry;
use crate::support::{
    forgetful::{Forgetful, Luck},
    image::{Blob, Image, Manifest, assert_blob, push_blob},
    owner::Owner,
    seed::{Rng, seed},
    server::{Server, eventually},
    tree,
};

/// Collects only when it is told to, and then whatever was deleted.
fn told_to(server: Server) -> Server {
    server.collects_when_told().set("undo.keep", "0s")
}

/// Collects all the time, and checks what is stored all the time.
fn always(server: Server) -> Server {
    server
        .set("gc.grace", "0s")
        .set("gc.interval", "10ms")
        .set("gc.delay", "1ms")
        .set("undo.keep", "0s")
        .set("scrub.interval", "10ms")
        .set("scrub.bandwidth", "0B")
        .set("log.level", "error")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The digests of the blobs on the disk.
fn blobs(root: &Path) -> BTreeSet<String> {
    tree::shared_files(root)
        .keys()
        .filter_map(|path| {
            let (algorithm, rest) = path
                .strip_prefix("docker/registry/v2/blobs/")?
                .split_once('/')?;
            let hex = rest.split('/').nth(1)?;
            Some(format!("{algorithm}:{hex}"))
        })
        .collect()
}

/// The links to blobs, as `repository@digest`.
fn links(root: &Path) -> BTreeSet<String> {
    tree::shared_files(root)
        .keys()
        .filter_map(|path| {
            let path = path.strip_prefix("docker/registry/v2/repositories/")?;
            let (repo, rest) = path.split_once("/_layers/")?;
            let (algorithm, rest) = rest.split_once('/')?;
            Some(format!("{repo}@{algorithm}:{}", rest.split('/').next()?))
        })
        .collect()
}

fn digests<'a>(images: impl IntoIterator<Item = &'a Image>) -> BTreeSet<String> {
    images
        .into_iter()
        .flat_map(|image| image.blobs().chain([&image.manifest.blob]))
        .map(|blob| blob.digest.clone())
        .collect()
}

/// Two images with a layer in common.
fn relatives(seed: u64) -> (Image, Image) {
    let first = Image::builder(seed).layers(2).build();
    let shared = first.layers[0].clone();
    (
        first,
        Image::builder(seed + 1).layers(1).layer(shared).build(),
    )
}

#[test]
fn the_space_of_what_is_deleted_comes_back_by_itself() {
    let server = told_to(Server::new()).set("gc.delay", "20ms").start();
    let client = server.client();
    let (gone, kept) = relatives(1);
    gone.push(&client, "team/gone", "latest");
    kept.push(&client, "team/kept", "latest");
    client
        .delete(&format!("/v2/team/gone/manifests/{}", gone.digest()))
        .send()
        .expect(202);
    eventually("what only the deleted image needed is gone", || {
        (blobs(server.tree()) == digests([&kept])).then_some(())
    });
    kept.assert_pullable(&client, "team/kept", "latest");
    eventually("an emptied repository is none", || {
        let listed = client.get("/v2/_catalog").send().json();
        (listed["repositories"] == serde_json::json!(["team/kept"])).then_some(())
    });
    client.get("/v2/team/gone/tags/list").send().expect(404);
    // It can come back.
    gone.push(&client, "team/gone", "latest");
    gone.assert_pullable(&client, "team/gone", "latest");
    assert_eq!(tree::faults(server.tree()), Vec::<String>::new());
}

#[test]
fn what_was_pushed_lately_stays_for_the_grace() {
    let server = Server::new()
        .set("gc.interval", "10ms")
        .set("gc.delay", "1ms")
        .start();
    let client = server.client();
    let layer = Blob::random(1, 1000);
    push_blob(&client, "some/repo", &layer);
    let told = server.told(&["garbage-collect"]);
    assert!(
        told.contains("nothing can be removed for another 60 min"),
        "{told}"
    );
    assert!(told.contains("freed 0 B: 0 blobs"), "{told}");
    assert!(told.contains("left for now: 1 blob with 1.0 kB"), "{told}");
    assert!(blobs(server.tree()).contains(&layer.digest));
}

#[test]
fn the_command_speaks_to_the_server_and_a_dry_run_changes_nothing() {
    let server = told_to(Server::new()).start();
    let client = server.client();
    let (first, second) = relatives(3);
    first.push(&client, "some/repo", "latest");
    second.push(&client, "some/repo", "latest");
    let loose = Blob::random(5, 2000);
    push_blob(&client, "some/repo", &loose);
    let before = tree::shared_files(server.tree());

    let dry = server.told(&["garbage-collect", "--dry-run"]);
    assert!(
        dry.contains(&format!("blob {} 2.0 kB\n", loose.digest)),
        "{dry}"
    );
    assert!(dry.contains("would free 2.0 kB: 1 blob\n"), "{dry}");
    let dry_untagged = server.told(&["garbage-collect", "-d", "-m"]);
    let untagged = format!("untagged manifest some/repo@{}\n", first.digest());
    assert!(dry_untagged.contains(&untagged), "{dry_untagged}");
    assert!(
        dry_untagged.contains("4 blobs, 1 manifest without a tag"),
        "{dry_untagged}"
    );
    assert_eq!(tree::shared_files(server.tree()), before);

    assert!(
        server
            .told(&["garbage-collect"])
            .contains("freed 2.0 kB: 1 blob\n")
    );
    first.assert_pullable(&client, "some/repo", first.digest());
    assert_eq!(blobs(server.tree()), digests([&first, &second]));
    assert_eq!(
        server.told(&["garbage-collect", "--quiet", "--delete-untagged"]),
        ""
    );
    assert_eq!(blobs(server.tree()), digests([&second]));
    second.assert_pullable(&client, "some/repo", "latest");
    let target = format!("/v2/some/repo/manifests/{}", first.digest());
    client.get(&target).send().expect(404);
}

/// What BuildKit writes with `--export-cache`: an index of layers and a configuration, which are no manifests.
#[test]
fn a_build_cache_keeps_its_layers_and_nothing_else() {
    let server = told_to(Server::new()).start();
    let client = server.client();
    let (layer, config) = (Blob::random(7, 5000), Blob::new("{\"layers\":[]}"));
    let loose = Blob::random(8, 2000);
    for blob in [&layer, &config, &loose] {
        push_blob(&client, "cache", blob);
    }
    let index = Manifest::build_cache(&layer, &config);
    index.push(&client, "cache", "buildcache");
    let told = server.told(&["garbage-collect"]);
    assert!(told.contains("freed 2.0 kB: 1 blob\n"), "{told}");
    assert!(!server.log().contains("is kept"), "{}", server.log());
    for blob in [&layer, &config] {
        assert_blob(&client, "cache", blob);
    }
    // Its own layers go with it, also where another repository has the content.
    push_blob(&client, "other", &layer);
    Image::builder(9)
        .layer(layer.clone())
        .build()
        .push(&client, "other", "v1");
    let link = format!("/v2/cache/blobs/{}", layer.digest);
    client.delete(&link).send().expect(202);
    let told = server.told(&["garbage-collect"]);
    assert!(!server.log().contains("is kept"), "{told}{}", server.log());
    let target = format!("/v2/cache/manifests/{}", index.digest());
    client.delete(&target).send().expect(202);
    server.told(&["garbage-collect"]);
    let config = format!("/v2/cache/blobs/{}", config.digest);
    client.get(&config).send().expect(404);
    assert_blob(&client, "other", &layer);
}

#[test]
fn the_command_works_on_the_directory_when_no_server_runs() {
    let mut server = told_to(Server::new()).start();
    let (gone, kept) = relatives(6);
    let client = server.client();
    gone.push(&client, "some/gone", "latest");
    kept.push(&client, "some/kept", "latest");
    let target = format!("/v2/some/gone/manifests/{}", gone.digest());
    client.delete(&target).send().expect(202);
    server.kill();
    let told = server.told(&["garbage-collect"]);
    assert!(told.contains("1 repository that is empty now"), "{told}");
    assert_eq!(blobs(server.tree()), digests([&kept]));

    // What is younger than the grace stays, and what is from the future.
    let young = Blob::random(8, 100);
    server.restart();
    push_blob(&server.client(), "some/repo", &young);
    server.kill();
    let hour = server
        .command(&["garbage-collect"])
        .env("REGISTRY_GC_GRACE", "1h")
        .output();
    assert!(String::from_utf8_lossy(&hour.expect("it starts").stdout).contains("freed 0 B"));
    assert!(blobs(server.tree()).contains(&young.digest));
    server.restart();
    kept.assert_pullable(&server.client(), "some/kept", "latest");
}

#[test]
fn others_cannot_reach_the_control_socket() {
    let server = told_to(Server::new()).start();
    let socket = server.tree().join(".registry/control.sock");
    let mode = fs::metadata(&socket)
        .expect("the socket")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    if !nix::unistd::geteuid().is_root() {
        return; // nobody else to be
    }
    // Even where the file says that all may.
    let open = |path: &Path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("chmod");
    };
    open(&socket);
    socket.ancestors().skip(1).take(3).for_each(open);
    let copy = server.dir().join("registry");
    // By a process of its own: what this one has open for writing goes to every child that another test starts just then.
    let made = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_registry"))
        .arg(&copy)
        .status();
    assert!(
        made.is_ok_and(|made| made.success()),
        "a copy that all may run"
    );
    open(&copy);
    open(&server.config_path());
    let output = Command::new(&copy)
        .arg("garbage-collect")
        .arg(server.config_path())
        .uid(65534)
        .gid(65534)
        .output()
        .expect("it starts");
    assert!(!output.status.success());
    let told = errors(&output);
    assert!(
        told.contains("only root and the user that the registry runs as"),
        "{told}"
    );
}

#[test]
fn a_damaged_manifest_keeps_what_its_repository_has() {
    let mut server = told_to(Server::new()).start();
    let client = server.client();
    let (image, other) = (Image::new(9), Image::new(11));
    image.push(&client, "some/repo", "latest");
    other.push(&client, "some/other", "latest");
    let loose = Blob::random(13, 500);
    push_blob(&client, "some/other", &loose);
    server.kill();
    let hex = image.digest().strip_prefix("sha256:").expect("a sha256");
    let path = format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
    fs::write(server.tree().join(path), "torn").expect("damage");
    server.restart();
    let output = server.output_of(&["garbage-collect", "-m"]);
    let told = errors(&output);
    assert!(
        told.contains("everything in some/repo is kept: the manifest sha256:"),
        "{told}"
    );
    // What is damaged was moved aside, and all that it may need is there.
    let mut kept = digests([&image, &other]);
    kept.remove(image.digest());
    eventually("only the damaged manifest is gone", || {
        (blobs(server.tree()) == kept).then_some(())
    });
    // Pushed again, it is whole: its layers are still there.
    let client = server.client();
    image.manifest.push(&client, "some/repo", "latest");
    image.assert_pullable(&client, "some/repo", "latest");
}

#[test]
fn a_collected_tree_is_distributions_and_the_other_way_round() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = relatives(14);
    let (third, fourth) = relatives(16);
    let ours = || told_to(Server::new()).root(dir.path());
    let delete = |server: &Server, image: &Image| {
        let target = format!("/v2/some/repo/manifests/{}", image.digest());
        server.client().delete(&target).send().expect(202);
    };

    let server = ours().start();
    let index = Manifest::index([&second.manifest]);
    first.push(&server.client(), "some/repo", "first");
    second.push(&server.client(), "some/repo", "second");
    index.push(&server.client(), "some/repo", "index");
    delete(&server, &first);
    server.told(&["garbage-collect"]);
    let mut kept = digests([&second]);
    kept.insert(index.digest().to_owned());
    assert_eq!(blobs(dir.path()), kept);
    drop(server);

    // Theirs serves what is left, adds something, and deletes some of it in its own way.
    let server = docker_registry(Server::new().root(dir.path())).start();
    second.assert_pullable(&server.client(), "some/repo", "second");
    for (image, tag) in [(&third, "third"), (&fourth, "fourth"), (&first, "first")] {
        image.push(&server.client(), "some/repo", tag);
    }
    delete(&server, &third);
    let theirs = server.config_path();
    let mut server = server;
    server.terminate();

    let server_of_ours = ours();
    server_of_ours.write_config();
    let told = server_of_ours.told(&["garbage-collect"]);
    assert!(told.contains("freed"), "{told}");
    kept.extend(digests([&first, &fourth]));
    assert_eq!(blobs(dir.path()), kept);
    assert_eq!(tree::faults(dir.path()), Vec::<String>::new());

    server.restart();
    for (image, tag) in [(&second, "second"), (&fourth, "fourth"), (&first, "first")] {
        image.assert_pullable(&server.client(), "some/repo", tag);
    }
    delete(&server, &fourth);
    server.terminate();
    let collected = Command::new("/usr/bin/docker-registry")
        .arg("garbage-collect")
        .arg(theirs)
        .output()
        .expect("it starts");
    assert!(collected.status.success(), "{}", errors(&collected));
    // It leaves links to what it removed.
    let server = server_of_ours.start();
    server.told(&["garbage-collect"]);
    assert_eq!(tree::faults(dir.path()), Vec::<String>::new());
    for (image, tag) in [(&second, "second"), (&first, "first")] {
        image.assert_pullable(&server.client(), "some/repo", tag);
    }
}

// --- at random ---

/// How long a story goes on.
fn duration(seconds: u64) -> Duration {
    let longer = std::env::var("TEST_CRASH_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    Duration::from_secs(longer.unwrap_or(seconds))
}

fn pool(rng: &mut Rng) -> Vec<Blob> {
    (0..8)
        .map(|_| {
            let len = 500 + rng.index(20_000);
            Blob::new(rng.bytes(len))
        })
        .collect()
}

const OWNERS: u64 = 4;

/// Everything that is owed is there, and after one more collection nothing else.
fn judge(server: &Server, owners: &[Owner<'_>], seed: u64) {
    let (mut owed, mut owed_links) = (BTreeSet::new(), BTreeSet::new());
    for owner in owners {
        owner.owed(&mut owed, &mut owed_links);
    }
    assert_eq!(blobs(server.tree()), owed, "blobs, REGISTRY_SEED={seed}");
    assert_eq!(
        links(server.tree()),
        owed_links,
        "links, REGISTRY_SEED={seed}"
    );
    assert_eq!(tree::faults(server.tree()), Vec::<String>::new());
    let pushed: u64 = owners.iter().map(|owner| owner.acknowledged).sum();
    let again: u64 = owners.iter().map(|owner| owner.again).sum();
    eprintln!("{pushed} things were done, {again} pushes had to begin again");
    assert!(pushed > 20, "too little happened: {pushed}");
}

#[test]
fn nothing_owed_is_missing_and_nothing_else_stays_whatever_kills_the_server() {
    let seed = seed("nothing_owed_is_missing_and_nothing_else_stays_whatever_kills_the_server");
    let mut rng = Rng::new(seed);
    let pool = pool(&mut rng);
    let mut server = always(Server::new()).start();
    let (killed, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let (trouble, enough) = (
        || killed.load(Ordering::SeqCst),
        || over.load(Ordering::SeqCst),
    );
    let client = server.client();
    let mut owners: Vec<Owner<'_>> = (0..OWNERS)
        .map(|n| Owner::new((n, OWNERS), client.clone(), rng.fork(n), &pool, &trouble))
        .collect();

    let started = Instant::now();
    let mut rounds = 0;
    while rounds < 3 || started.elapsed() < duration(8) {
        rounds += 1;
        // Now and then it lives on.
        let kills = !rng.chance(25);
        let moment = Duration::from_millis(200 + rng.below(1500));
        killed.store(false, Ordering::SeqCst);
        over.store(false, Ordering::SeqCst);
        thread::scope(|scope| {
            for owner in &mut owners {
                scope.spawn(|| owner.work(&enough));
            }
            thread::sleep(moment);
            killed.store(kills, Ordering::SeqCst);
            if kills {
                server.kill();
            }
            over.store(true, Ordering::SeqCst);
        });
        killed.store(false, Ordering::SeqCst);
        if kills {
            server.restart();
        }
        for owner in &mut owners {
            owner.client = server.client();
            owner.settle();
            owner.pull_all();
        }
        let faults = tree::faults(server.tree());
        assert!(faults.is_empty(), "REGISTRY_SEED={seed}: {faults:?}");
    }
    server.told(&["garbage-collect", "--quiet"]);
    for owner in &owners {
        owner.pull_all();
    }
    judge(&server, &owners, seed);
}

#[test]
fn nothing_owed_is_missing_after_power_cuts() {
    let seed = seed("nothing_owed_is_missing_after_power_cuts");
    let mut rng = Rng::new(seed);
    let pool = pool(&mut rng);
    let mut disk = Forgetful::mount();
    let mut server = always(Server::new()).root(disk.path()).start();
    let (root, off) = (disk.path().to_owned(), disk.probe());
    let dead = AtomicBool::new(false);
    let trouble = || dead.load(Ordering::SeqCst) || off.is_off();
    let client = server.client();
    let mut owners: Vec<Owner<'_>> = (0..OWNERS)
        .map(|n| Owner::new((n, OWNERS), client.clone(), rng.fork(n), &pool, &trouble))
        .collect();

    let started = Instant::now();
    let mut rounds = 0;
    while rounds < 3 || started.elapsed() < duration(10) {
        rounds += 1;
        dead.store(false, Ordering::SeqCst);
        disk.cut_at(1 + rng.below(1200));
        let came = thread::scope(|scope| {
            for owner in &mut owners {
                scope.spawn(|| owner.work(&|| false));
            }
            let came = disk.wait_for_cut(Duration::from_secs(60));
            dead.store(true, Ordering::SeqCst);
            server.kill();
            came
        });
        assert!(came, "the server writes next to nothing");
        let luck = if rng.chance(30) {
            Luck::Lost
        } else {
            Luck::Random(rng.next())
        };
        disk.power_on(luck);
        dead.store(false, Ordering::SeqCst);
        let faults = tree::faults(&root);
        assert!(
            faults.is_empty(),
            "REGISTRY_SEED={seed}, {luck:?}: {faults:?}"
        );
        server.restart();
        for owner in &mut owners {
            owner.client = server.client();
            owner.settle();
            owner.pull_all();
        }
    }
    // This file system has no sockets, so the command has to work on the directory.
    server.terminate();
    server.told(&["garbage-collect", "--quiet"]);
    judge(&server, &owners, seed);
}
