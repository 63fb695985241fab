//! What was acknowledged survives: killed servers, power cuts, disks that fail and disks that are full.
//!
//! The random stories run for a few seconds each; `TEST_CRASH_SECONDS=600` makes each run that long. A failure prints its
//! seed; `REGISTRY_SEED` repeats the choices (threads still interleave as they like).
//! Mounting needs root. `TEST_SERVER_BINARY=/usr/bin/docker-registry` tries the harness on a registry that does lose data.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    forgetful::{Forgetful, Luck, Sync, SyncKind},
    http::{Client, Response, with_query},
    image::{Blob, Image, open_upload, push_blob, try_push_blob},
    ledger::{Key, Ledger},
    loop_disk::LoopDisk,
    seed::{Rng, seed},
    server::{Server, eventually},
    tree,
    worker::{Abilities, Step, Trouble, Worker},
};

/// The goals of the design for the fsyncs that a client waits for.
const SYNCS_FOR_A_BLOB: usize = 4;
const SYNCS_FOR_A_MANIFEST: usize = 6;

/// Long enough for anything that has to happen, on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a random story goes on.
fn duration(seconds: u64) -> Duration {
    let longer = std::env::var("TEST_CRASH_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    Duration::from_secs(longer.unwrap_or(seconds))
}

fn server_on(root: &Path) -> Server {
    // A fixed secret, so that CNCF distribution's uploads outlive it.
    Server::new()
        .set("http.secret", "a-secret-of-the-tests")
        .set("log.level", "error")
        .root(root)
}

/// The calls at which something is to happen, one after the other: every few ones from a random first, so that a few runs
/// have seen them all; every single one when there is time.
fn calls(rng: &mut Rng, few: u64) -> impl Iterator<Item = u64> + use<> {
    let few = if std::env::var_os("TEST_CRASH_SECONDS").is_some() {
        1
    } else {
        few
    };
    let first = 1 + rng.below(few);
    (0..).map(move |n| first + n * few)
}

/// Blobs that all workers push, so that they meet.
fn pool(rng: &mut Rng) -> Vec<Blob> {
    (0..6)
        .map(|_| {
            let len = 500 + rng.index(20_000);
            Blob::new(rng.bytes(len))
        })
        .collect()
}

#[track_caller]
fn assert_nothing_wrong(when: &str, seed: u64, wrong: &[String]) {
    let shown = &wrong[..wrong.len().min(20)];
    assert!(
        wrong.is_empty(),
        "{when} (REGISTRY_SEED={seed}), {} things are wrong:\n{}",
        wrong.len(),
        shown.join("\n")
    );
}

/// What the tree itself must look like. Only ours: CNCF distribution writes links in place.
fn tree_faults(root: &Path) -> Vec<String> {
    if std::env::var_os("TEST_SERVER_BINARY").is_some() {
        Vec::new()
    } else {
        tree::faults(root)
    }
}

// --- (a) the process dies ---

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let seed = seed("what_was_acknowledged_survives_kill_9");
    let mut rng = Rng::new(seed);
    let (ledger, pool) = (Ledger::default(), pool(&mut rng));
    let dir = tempfile::tempdir().unwrap();
    let mut server = server_on(dir.path()).start();
    let killed = AtomicBool::new(false);
    let trouble = || killed.load(Ordering::SeqCst).then_some(Trouble::Crash);
    let mut workers: Vec<Worker<'_>> = (0..4)
        .map(|n| {
            Worker::new(
                &format!("w{n}"),
                server.client(),
                rng.fork(n),
                &ledger,
                &pool,
                &trouble,
            )
        })
        .collect();

    let started = Instant::now();
    let (mut rounds, mut interrupted) = (0, 0);
    while rounds < 3 || started.elapsed() < duration(10) {
        rounds += 1;
        killed.store(false, Ordering::SeqCst);
        let enough = ledger.acknowledgements() + rng.below(60);
        let moment = Duration::from_micros(rng.below(20_000));
        thread::scope(|scope| {
            let threads: Vec<_> = workers
                .iter_mut()
                .map(|worker| scope.spawn(|| worker.work()))
                .collect();
            let patience = Instant::now();
            while ledger.acknowledgements() < enough
                && !threads.iter().all(|thread| thread.is_finished())
            {
                assert!(
                    patience.elapsed() < PATIENCE,
                    "the server does next to nothing"
                );
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(moment);
            killed.store(true, Ordering::SeqCst);
            server.kill();
        });
        interrupted += ledger.unanswered();

        server.restart();
        let client = server.client();
        let mut wrong = ledger.check(&client, &mut rng, 200);
        for worker in &mut workers {
            worker.client = client.clone();
            wrong.extend(worker.resume(false));
        }
        wrong.extend(tree_faults(dir.path()));
        assert_nothing_wrong(&format!("after kill {rounds}"), seed, &wrong);
    }
    let wrong = ledger.check(&server.client(), &mut rng, usize::MAX);
    assert_nothing_wrong("in the end", seed, &wrong);
    eprintln!(
        "{rounds} kills, {} operations acknowledged, {interrupted} interrupted",
        ledger.acknowledgements()
    );
    assert!(
        ledger.acknowledgements() > 100 && interrupted > 3,
        "too little happened"
    );
}

// --- (b) the power goes ---

#[test]
fn what_was_acknowledged_survives_power_cuts() {
    let seed = seed("what_was_acknowledged_survives_power_cuts");
    let mut rng = Rng::new(seed);
    let (ledger, pool) = (Ledger::default(), pool(&mut rng));
    let mut disk = Forgetful::mount();
    let mut server = server_on(disk.path()).start();
    let (root, dead) = (disk.path().to_owned(), AtomicBool::new(false));
    let off = disk.probe();
    let trouble = || (dead.load(Ordering::SeqCst) || off.is_off()).then_some(Trouble::Crash);
    let mut workers: Vec<Worker<'_>> = (0..4)
        .map(|n| {
            Worker::new(
                &format!("w{n}"),
                server.client(),
                rng.fork(n),
                &ledger,
                &pool,
                &trouble,
            )
        })
        .collect();

    let started = Instant::now();
    let (mut rounds, mut interrupted) = (0, 0);
    while rounds < 3 || started.elapsed() < duration(20) {
        rounds += 1;
        dead.store(false, Ordering::SeqCst);
        let within = if rng.chance(25) { 2500 } else { 500 };
        disk.cut_at(1 + rng.below(within));
        let came = thread::scope(|scope| {
            for worker in &mut workers {
                scope.spawn(|| worker.work());
            }
            let came = disk.wait_for_cut(PATIENCE);
            dead.store(true, Ordering::SeqCst);
            server.kill();
            came
        });
        assert!(came, "the server writes next to nothing");
        interrupted += ledger.unanswered();

        let luck = if rng.chance(25) {
            Luck::Lost
        } else {
            Luck::Random(rng.next())
        };
        disk.power_on(luck);
        let mut wrong = tree_faults(&root);
        server.restart();
        let client = server.client();
        wrong.extend(ledger.check(&client, &mut rng, 100));
        for worker in &mut workers {
            worker.client = client.clone();
            wrong.extend(worker.resume(true));
        }
        assert_nothing_wrong(&format!("after power cut {rounds}, {luck:?}"), seed, &wrong);
    }
    let wrong = ledger.check(&server.client(), &mut rng, usize::MAX);
    assert_nothing_wrong("in the end", seed, &wrong);
    eprintln!(
        "{rounds} power cuts, {} operations acknowledged, {interrupted} interrupted",
        ledger.acknowledgements()
    );
    assert!(
        ledger.acknowledgements() > 100 && interrupted > 3,
        "too little happened"
    );
}

/// One client, everything that changes something once, into repositories of their own.
fn everything_once(worker: &mut Worker<'_>, n: u64) -> Step {
    let abilities = Abilities::of_server();
    let (repo, other) = (format!("every/r{n}"), format!("other/r{n}"));
    let tags = |tag: &str| vec![tag.to_owned()];
    let first = Image::builder(n * 100).layers(2).layer_size(5000).build();
    let shared = first.layers[0].clone();
    let second = Image::builder(n * 100 + 1)
        .layers(1)
        .layer_size(9000)
        .layer(shared.clone())
        .build();
    let loose = Blob::random(n * 100 + 2, 3000);

    worker.push_whole(&repo, &first.layers[0])?;
    worker.push_in_parts(&repo, &first.layers[1])?;
    worker.push_single(&repo, &first.config)?;
    worker.push_manifest(&repo, &first, &tags("one"))?;
    worker.push_image(&repo, &second, &tags("two"))?;
    worker.push_manifest(&repo, &second, &tags("one"))?;
    worker.mount(&other, &repo, &shared)?;
    worker.push_whole(&repo, &loose)?;
    if abilities.referrers {
        let artifact = Image::artifact(
            n * 100 + 3,
            "application/vnd.example.signature",
            &second.manifest,
        );
        worker.push_image(&repo, &artifact, &[])?;
        worker.delete_manifest(&repo, artifact.digest())?;
    }
    if abilities.delete_tags {
        worker.delete_tag(&repo, "two")?;
    }
    worker.delete_manifest(&repo, first.digest())?;
    worker.delete_blob(&repo, &loose.digest)?;
    worker.delete_manifest(&repo, second.digest())
}

#[test]
fn the_power_may_go_at_any_call() {
    let seed = seed("the_power_may_go_at_any_call");
    let mut rng = Rng::new(seed);
    let ledger = Ledger::default();
    let mut disk = Forgetful::mount();
    let mut server = server_on(disk.path()).start();
    let (root, off) = (disk.path().to_owned(), disk.probe());
    let trouble = || off.is_off().then_some(Trouble::Crash);
    let mut worker = Worker::new("w", server.client(), rng.fork(0), &ledger, &[], &trouble);

    let mut last = 0;
    for n in calls(&mut rng, 5) {
        last = n;
        disk.cut_at(n);
        let finished = everything_once(&mut worker, n).is_ok();
        disk.cut();
        server.kill();
        let luck = if n % 2 == 0 {
            Luck::Lost
        } else {
            Luck::Random(rng.next())
        };
        disk.power_on(luck);
        let mut wrong = tree_faults(&root);
        server.restart();
        worker.client = server.client();
        wrong.extend(ledger.check(&worker.client, &mut rng, 8));
        assert_nothing_wrong(&format!("after a cut at call {n}, {luck:?}"), seed, &wrong);
        if finished {
            break;
        }
    }
    let wrong = ledger.check(&worker.client, &mut rng, usize::MAX);
    assert_nothing_wrong("in the end", seed, &wrong);
    eprintln!("cut at calls up to {last}");
    assert!(last > 30, "everything once is more than {last} calls");
}

/// The process is killed while much of what it wrote is only in the kernel's memory, and visible there. The next process
/// may promise things that stand on it (a blob that HEAD finds is not sent again), so it waits for the disk when it starts.
/// On a real ext4, since FUSE file systems do not hear of `syncfs`.
#[test]
fn a_start_after_a_kill_makes_durable_what_is_visible() {
    let disk = LoopDisk::ext4(64);
    let mut server = server_on(&disk.path()).start();
    let client = server.client();
    let image = Image::new(1);
    image.push(&client, "some/repo", "latest");
    // An upload in the middle: a PATCH's 202 promises nothing to a power cut, so nothing of it has to be on the disk yet.
    let upload = open_upload(&client, "some/repo");
    let bytes = Blob::random(2, 64 << 10).bytes;
    let name = Path::new(upload.split(['?']).next().unwrap())
        .file_name()
        .unwrap()
        .to_owned();
    client.patch(&upload).body(bytes.clone()).send().expect(202);
    server.kill();
    let data = |disk: &LoopDisk| {
        let uploads = disk
            .path()
            .join("docker/registry/v2/repositories/some/repo/_uploads");
        std::fs::read(uploads.join(&name).join("data")).unwrap_or_default()
    };
    let visible = data(&disk);
    assert_eq!(
        visible.len(),
        bytes.len(),
        "the process died, and the kernel did not"
    );
    assert!(
        data(&disk.after_cut()) != visible,
        "nothing to see: all of it was on the disk before"
    );

    server.restart();
    let after = disk.after_cut();
    assert!(
        data(&after) == visible,
        "visible after the start, and not on the disk"
    );
    drop(after);
    server.kill();
}

/// The server dies within a push, the client finds what is visible after the restart, sends only the rest, as docker does,
/// and is told 201: then the power goes. What the first push had not synced yet is owed all the same.
#[test]
fn a_push_that_continues_a_killed_one_survives_a_power_cut() {
    let seed = seed("a_push_that_continues_a_killed_one_survives_a_power_cut");
    let mut rng = Rng::new(seed);
    let ledger = Ledger::default();
    let mut disk = Forgetful::mount();
    let mut server = server_on(disk.path()).start();
    let (root, dead) = (disk.path().to_owned(), AtomicBool::new(false));
    let probe = disk.probe();
    let trouble =
        || (dead.load(Ordering::SeqCst) || probe.fault_reached()).then_some(Trouble::Crash);
    let mut worker = Worker::new("w", server.client(), rng.fork(0), &ledger, &[], &trouble);

    let mut last = 0;
    for n in calls(&mut rng, 5) {
        last = n;
        let repo = format!("again/r{n}");
        let image = Image::builder(n).layers(1).layer_size(5000).build();
        let tags = vec!["latest".to_owned()];
        // From the n-th call on nothing takes effect: that is where the process dies.
        disk.fail_from(n, libc::EIO);
        let push = |worker: &mut Worker<'_>| -> Step {
            for blob in image.blobs() {
                if !worker.is_there(&repo, blob)? {
                    worker.push_whole(&repo, blob)?;
                }
            }
            worker.push_manifest(&repo, &image, &tags)
        };
        let finished = push(&mut worker).is_ok();
        server.kill();
        disk.heal();
        // Part of the start: `a_start_after_a_kill_makes_durable_what_is_visible` sees that it is.
        disk.settle();
        server.restart();
        worker.client = server.client();
        push(&mut worker).unwrap();

        disk.cut();
        server.kill();
        disk.power_on(Luck::Lost);
        let mut wrong = tree_faults(&root);
        server.restart();
        worker.client = server.client();
        wrong.extend(ledger.check(&worker.client, &mut rng, 8));
        assert_nothing_wrong(
            &format!("killed at call {n}, pushed again, cut"),
            seed,
            &wrong,
        );
        if finished {
            break;
        }
    }
    eprintln!("killed at calls up to {last}");
    assert!(last > 10, "a push is more than {last} calls");
}

// --- (c) calls fail ---

#[test]
fn any_call_may_fail_once() {
    calls_fail("any_call_may_fail_once", |disk, n| {
        disk.fail_once(n, libc::EIO)
    });
}

#[test]
fn the_disk_may_be_full_for_one_call() {
    calls_fail("the_disk_may_be_full_for_one_call", |disk, n| {
        disk.fail_once(n, libc::ENOSPC)
    });
}

#[test]
fn the_disk_may_fail_from_any_call_on() {
    calls_fail("the_disk_may_fail_from_any_call_on", |disk, n| {
        disk.fail_from(n, libc::EIO)
    });
}

/// For every call of a push: it fails as `break_at` says. The client is told so in the protocol's words, or the push
/// succeeds all the same. What was acknowledged is there, the same push succeeds when the disk is well again, and all of it
/// survives a power cut.
fn calls_fail(test: &str, break_at: impl Fn(&Forgetful, u64)) {
    let seed = seed(test);
    let mut rng = Rng::new(seed);
    let ledger = Ledger::default();
    let mut disk = Forgetful::mount();
    let mut server = server_on(disk.path()).start();
    let (root, probe) = (disk.path().to_owned(), disk.probe());
    let trouble = || probe.fault_reached().then_some(Trouble::Fault);
    let mut worker = Worker::new("w", server.client(), rng.fork(0), &ledger, &[], &trouble);

    let (mut last, mut refusals) = (0, 0);
    for n in calls(&mut rng, 5) {
        last = n;
        let repo = format!("fault/r{n}");
        let image = Image::builder(n).layers(2).layer_size(5000).build();
        let tags = vec!["latest".to_owned()];
        let push = |worker: &mut Worker<'_>| -> Step {
            worker.push_whole(&repo, &image.layers[0])?;
            worker.push_in_parts(&repo, &image.layers[1])?;
            worker.push_whole(&repo, &image.config)?;
            worker.push_manifest(&repo, &image, &tags)
        };
        break_at(&disk, n);
        refusals += u64::from(push(&mut worker).is_err());
        let reached = disk.fault_reached();
        disk.heal();
        let mut wrong = ledger.check(&worker.client, &mut rng, 0);
        assert_nothing_wrong(&format!("call {n} failed"), seed, &wrong);
        push(&mut worker).unwrap();
        wrong.extend(ledger.check(&worker.client, &mut rng, 0));
        assert_nothing_wrong(
            &format!("call {n} failed, and the push was done again"),
            seed,
            &wrong,
        );

        disk.cut();
        server.kill();
        disk.power_on(Luck::Lost);
        wrong.extend(tree_faults(&root));
        server.restart();
        worker.client = server.client();
        wrong.extend(ledger.check(&worker.client, &mut rng, 8));
        let key = Key::tag(&repo, "latest");
        assert!(ledger.holds(&key), "{key:?}");
        assert_nothing_wrong(
            &format!("call {n} failed, the push was done again, the power was cut"),
            seed,
            &wrong,
        );
        if !reached {
            break;
        }
    }
    eprintln!("calls up to {last} failed, which made the push fail {refusals} times");
    assert!(
        last > 10 && refusals > 3,
        "a push is more than {last} calls, and more than {refusals} of them matter"
    );
}

/// The kernel tells of lost writes once and takes them for written afterwards. So a session whose flush failed must not be
/// continued, even though all its bytes can still be read.
#[test]
fn what_could_not_be_flushed_is_not_continued() {
    let disk = Forgetful::mount();
    let server = server_on(disk.path()).start();
    let client = server.client();
    push_blob(&client, "some/repo", &Blob::random(0, 10));
    let mut failed = 0;
    for n in 1.. {
        let blob = Blob::random(n, 300_000);
        let session = open_upload(&client, "some/repo");
        let sent = client
            .patch(&session)
            .body(blob.bytes.clone())
            .send()
            .expect(202);
        let end = with_query(&sent.location(), "digest", &blob.digest);
        disk.fail_once(n, libc::EIO);
        let answer = client.put(&end).send();
        let reached = disk.fault_reached();
        disk.heal();
        if answer.status != 201 {
            failed += 1;
            assert_eq!(answer.status, 500, "{}", answer.text());
            client
                .get(&session)
                .send()
                .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
            client
                .put(&end)
                .send()
                .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
            push_blob(&client, "some/repo", &blob);
        }
        if !reached {
            break;
        }
    }
    assert!(
        failed > 2,
        "the end of an upload has more than {failed} calls that matter"
    );
}

// --- (d) the disk is full ---

#[test]
fn a_full_disk_refuses_pushes_and_nothing_else() {
    let seed = seed("a_full_disk_refuses_pushes_and_nothing_else");
    let mut rng = Rng::new(seed);
    let disk = LoopDisk::ext4(64);
    disk.fill("filler", 24 << 20);
    let root = disk.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    let mut server = server_on(&root).start();
    let client = server.client();

    // Blobs of sizes that end in the middle of a write, until one is refused.
    let kept = Image::builder(seed).layers(3).layer_size(300_000).build();
    kept.push(&client, "kept", "latest");
    let mut pushed = vec![(kept, "kept".to_owned())];
    let mut refused = Vec::new();
    for n in 1.. {
        let image = Image::builder(seed.wrapping_add(n))
            .layers(2)
            .layer_size(200_000 + rng.index(2_000_000))
            .build();
        let repo = format!("more/r{n}");
        match push_until_refused(&client, &repo, &image) {
            None => pushed.push((image, repo)),
            Some(reply) => {
                assert_refused_for_space(&reply);
                refused.push((image, repo));
                // Some with room for less than before, so that other calls meet the end.
                if refused.len() == 4 {
                    break;
                }
            }
        }
        assert!(n < 200, "64 MiB have room for all of it");
    }
    // To the last byte: nothing can be made any more.
    disk.fill_up("rest");
    for blob in Image::new(seed ^ 2).blobs() {
        assert_refused_for_space(&try_push_blob(&client, "no-room", blob).unwrap());
    }
    let big = pushed[0]
        .0
        .manifest
        .edit(|value| value["annotations"]["big"] = "x".repeat(9000).into());
    assert_refused_for_space(&big.try_push(&client, "kept", "big").unwrap());

    // Reading goes on.
    let whole = |client: &Client, pushed: &[(Image, String)]| {
        for (image, repo) in pushed {
            image.assert_pullable(client, repo, "latest");
            assert_eq!(
                client
                    .get(&format!("/v2/{repo}/tags/list"))
                    .send()
                    .expect(200)
                    .json()["tags"][0],
                "latest"
            );
        }
    };
    whole(&client, &pushed);
    assert_eq!(
        client.get("/v2/kept/tags/list").send().json()["tags"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    for (image, repo) in &refused {
        let reply = client.get(&format!("/v2/{repo}/manifests/latest")).send();
        assert_eq!(reply.status, 404, "{repo} was refused: {reply:?}");
        assert_eq!(
            client
                .get(&Key::manifest(repo, image.digest()).target())
                .send()
                .status,
            404
        );
    }
    assert_nothing_wrong("with a full disk", seed, &tree_faults(&root));

    // So does deleting, even at the last byte.
    let (victim, repo) = pushed.pop().unwrap();
    if Abilities::of_server().delete_tags {
        client
            .delete(&Key::tag(&repo, "latest").target())
            .send()
            .expect(202);
    }
    client
        .delete(&Key::manifest(&repo, victim.digest()).target())
        .send()
        .expect(202);
    client
        .delete(&Key::blob(&repo, &victim.config.digest).target())
        .send()
        .expect(202);
    for key in [
        Key::tag(&repo, "latest"),
        Key::manifest(&repo, victim.digest()),
        Key::blob(&repo, &victim.config.digest),
    ] {
        assert_eq!(
            client.get(&key.target()).send().status,
            404,
            "{key:?} was deleted"
        );
    }
    whole(&client, &pushed);

    // With room again, everything can be pushed, also what was refused, by the same server and by the next one.
    disk.remove("rest");
    disk.remove("filler");
    for (image, repo) in refused {
        image.push(&client, &repo, "latest");
        pushed.push((image, repo));
    }
    whole(&client, &pushed);
    server.kill();
    server.restart();
    let client = server.client();
    whole(&client, &pushed);
    let last = Image::new(seed ^ 1);
    last.push(&client, "last", "latest");
    last.assert_pullable(&client, "last", "latest");
    assert_nothing_wrong("with room again", seed, &tree_faults(&root));
}

/// Whoever finds the disk full has to be able to look and to delete, also after a restart.
#[test]
fn a_registry_starts_on_a_full_disk() {
    let disk = LoopDisk::ext4(64);
    let root = disk.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    let mut server = server_on(&root).start();
    let image = Image::new(1);
    image.push(&server.client(), "some/repo", "latest");
    server.kill();
    disk.fill_up("rest");
    server.restart();
    // The start may have cleared something away.
    disk.fill_up("more");
    let client = server.client();
    image.assert_pullable(&client, "some/repo", "latest");
    let listed = client
        .get("/v2/some/repo/tags/list")
        .send()
        .expect(200)
        .json();
    assert_eq!(listed["tags"], serde_json::json!(["latest"]));
    if Abilities::of_server().referrers {
        let target = format!("/v2/some/repo/referrers/{}", image.digest());
        client.get(&target).send().expect(200);
    }
    assert_refused_for_space(
        &try_push_blob(&client, "some/repo", &Blob::random(2, 100_000)).unwrap(),
    );
    client
        .delete(&Key::manifest("some/repo", image.digest()).target())
        .send()
        .expect(202);
    client
        .get(&Key::tag("some/repo", "latest").target())
        .send()
        .expect(404);
}

fn push_until_refused(client: &Client, repo: &str, image: &Image) -> Option<Response> {
    for blob in image.blobs() {
        let reply = try_push_blob(client, repo, blob).unwrap();
        if reply.status != 201 {
            return Some(reply);
        }
    }
    let reply = image.manifest.try_push(client, repo, "latest").unwrap();
    (reply.status != 201).then_some(reply)
}

#[track_caller]
fn assert_refused_for_space(reply: &Response) {
    let expected: &[u16] = if std::env::var_os("TEST_SERVER_BINARY").is_some() {
        &[500, 503, 507]
    } else {
        &[507]
    };
    assert!(expected.contains(&reply.status), "no space: {reply:?}");
    assert!(
        reply.error_code().is_some(),
        "an error of the protocol: {reply:?}"
    );
    let text = reply.text();
    assert!(
        !text.contains("/docker/registry/"),
        "a path of ours in an answer: {text}"
    );
}

// --- what durability costs ---

#[test]
fn a_push_waits_for_few_fsyncs() {
    let disk = Forgetful::mount();
    let server = server_on(disk.path()).set("log.level", "debug").start();
    let client = server.client();
    // The steady state: the repository is there, so is the directory that the blob shares with one in 256 others, and
    // folders were made ahead (after the first push had none; on a busy machine it takes a while).
    let first = Image::builder(1).layers(4).build();
    first.push(&client, "some/repo", "first");
    let fan_out = |digest: &str| digest["sha256:".len()..][..2].to_owned();
    let there: Vec<String> = first
        .blobs()
        .chain([&first.manifest.blob])
        .map(|blob| fan_out(&blob.digest))
        .collect();
    let blob = (0..)
        .map(|n| Blob::random(n, 300))
        .find(|blob| there.contains(&fan_out(&blob.digest)))
        .unwrap();
    let manifest = (0..)
        .map(|n| {
            first
                .manifest
                .edit(|value| value["annotations"]["n"] = n.to_string().into())
        })
        .find(|manifest| there.contains(&fan_out(manifest.digest())))
        .unwrap();

    eventually("folders are made ahead", || {
        server.log().contains("made ahead of need").then_some(())
    });
    disk.take_syncs();
    push_blob(&client, "some/repo", &blob);
    let for_blob = syncs_waited_for(&disk);
    manifest.push(&client, "some/repo", "second");
    let for_manifest = syncs_waited_for(&disk);
    assert!(
        for_blob.len() <= SYNCS_FOR_A_BLOB && for_manifest.len() <= SYNCS_FOR_A_MANIFEST,
        "{} fsyncs before a blob's 201: {for_blob:#?}\n{} before that of a manifest by a new tag: {for_manifest:#?}",
        for_blob.len(),
        for_manifest.len(),
    );
    assert!(
        !for_blob.is_empty() && !for_manifest.is_empty(),
        "nothing is durable without any"
    );
}

/// The fsyncs of late, but for those of directories in the server's own corner: it makes them ahead of need, and nobody
/// waits.
fn syncs_waited_for(disk: &Forgetful) -> Vec<Sync> {
    let ahead =
        |sync: &Sync| sync.kind == SyncKind::Directory && sync.path.starts_with(".registry/");
    disk.take_syncs()
        .into_iter()
        .filter(|sync| !ahead(sync))
        .collect()
}
