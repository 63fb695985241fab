//! How much the repositories of a pattern may have (`quota`).

use std::thread;

use crate::support::{
    http::{Client, Response},
    image::{Blob, Image, open_upload, push_blob, try_push_blob},
    server::{Server, eventually},
};

const TEAM: &str = "[{repositories: 'team/**', size: 1MB}]";

/// What a quota's repositories have, in bytes, once that is known.
fn used(client: &Client, quota: &str) -> u64 {
    let line = format!("registry_quota_used_bytes{{repositories=\"{quota}\"}} ");
    eventually("the quota's use is known", || {
        let metrics = client.get("/metrics").send().expect(200).text();
        metrics
            .lines()
            .find_map(|found| found.strip_prefix(&line)?.parse().ok())
    })
}

fn upload(client: &Client, repo: &str, blob: &Blob) -> Response {
    try_push_blob(client, repo, blob).expect("an answer")
}

#[track_caller]
fn refused(reply: Response) -> Response {
    let reply = reply.expect_error(403, "DENIED");
    let text = reply.text();
    assert!(
        text.contains("the quota of team/** is 1.0 MB, and ")
            && text.contains("delete images that are no longer needed"),
        "{text}"
    );
    reply
}

fn size(image: &Image) -> u64 {
    let blobs = image.blobs().chain([&image.manifest.blob]);
    blobs.map(|blob| blob.len() as u64).sum()
}

#[test]
fn what_does_not_fit_is_refused_wherever_it_would_come_in() {
    let server = Server::new().set("quota", TEAM).start();
    let client = server.client();
    assert_eq!(used(&client, "team/**"), 0);
    let image = Image::builder(1).layers(2).layer_size(200_000).build();
    image.push(&client, "team/app", "1");
    assert_eq!(used(&client, "team/**"), size(&image));
    // What its repositories share counts once; so does a tag more, and a push again.
    image.push(&client, "team/other", "1");
    image.push(&client, "team/app", "2");
    assert_eq!(used(&client, "team/**"), size(&image));

    // 600 kB more do not fit: known at the end, in the middle, or from the length.
    let large = Blob::random(2, 650_000);
    let reply = refused(upload(&client, "team/app", &large));
    let detail = &reply.json()["errors"][0]["detail"];
    assert_eq!(detail["limit"], 1_000_000);
    assert_eq!(detail["used"], size(&image));
    assert_eq!(detail["wanted"], 650_000);
    let session = open_upload(&client, "team/app");
    refused(
        client
            .patch(&session)
            .chunked(large.bytes.clone(), 50_000)
            .send(),
    );
    // It is gone, with what it held.
    client
        .get(&session)
        .send()
        .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    // In two parts that each would.
    let session = open_upload(&client, "team/app");
    let first = client
        .patch(&session)
        .body(&large.bytes[..400_000])
        .send()
        .expect(202);
    refused(
        client
            .patch(&first.location())
            .body(&large.bytes[400_000..])
            .send(),
    );

    // Elsewhere it does, and cannot be mounted from there.
    push_blob(&client, "public/app", &large);
    let mount = format!(
        "/v2/team/app/blobs/uploads/?mount={}&from=public/app",
        large.digest
    );
    refused(client.post(&mount).send());
    assert_eq!(used(&client, "team/**"), size(&image));

    // Nothing at all fits: not even an upload begins, nor a manifest of what is here.
    let room = 1_000_000 - used(&client, "team/**");
    push_blob(
        &client,
        "team/app",
        &Blob::random(3, usize::try_from(room).expect("small")),
    );
    refused(client.post("/v2/team/app/blobs/uploads/").send());
    let more = image.manifest.edit(|manifest| {
        manifest["annotations"] = serde_json::json!({ "is": "another one" });
    });
    refused(more.try_push(&client, "team/app", "3").expect("an answer"));
    // What is there is there: pulls and tags go on, and so do pushes by clients that look first.
    image.manifest.push(&client, "team/app", "3");
    image.assert_pullable(&client, "team/app", "3");
    let mount = format!(
        "/v2/team/new/blobs/uploads/?mount={}&from=team/app",
        image.layers[0].digest
    );
    client.post(&mount).send().expect(201);
    assert_eq!(used(&client, "team/**"), 1_000_000);
    let metrics = client.get("/metrics").send().expect(200).text();
    let told = "registry_quota_refused_total{repositories=\"team/**\"} 6\n";
    assert!(metrics.contains(told), "{metrics}");
}

#[test]
fn pushes_at_the_same_time_never_add_up_to_more() {
    let server = Server::new().set("quota", TEAM).start();
    let client = server.client();
    used(&client, "team/**");
    let statuses: Vec<u16> = thread::scope(|scope| {
        let pushes: Vec<_> = (0..8)
            .map(|seed| {
                let client = client.clone();
                scope.spawn(move || {
                    let blob = Blob::random(100 + seed, 300_000);
                    upload(&client, &format!("team/app{seed}"), &blob).status
                })
            })
            .collect();
        let ended = pushes.into_iter().map(|push| push.join());
        ended.map(|status| status.expect("no panic")).collect()
    });
    let taken = statuses.iter().filter(|status| **status == 201).count();
    assert_eq!(taken, 3, "{statuses:?}");
    assert!(
        statuses.iter().all(|status| [201, 403].contains(status)),
        "{statuses:?}"
    );
    assert_eq!(used(&client, "team/**"), 900_000);
}

#[test]
fn a_restart_finds_out_again_and_every_quota_counts() {
    let mut server = Server::new().start();
    let client = server.client();
    let (image, other) = (Image::new(5), Image::builder(6).layer_size(70_000).build());
    image.push(&client, "team/app", "1");
    image.push(&client, "team/deep/app", "1");
    other.push(&client, "other", "1");
    // A blob of a repository that has no image yet, and one that was deleted.
    let (begun, deleted) = (Blob::random(7, 5000), Blob::random(8, 6000));
    push_blob(&client, "team/begun", &begun);
    push_blob(&client, "team/app", &deleted);
    let target = format!("/v2/team/app/blobs/{}", deleted.digest);
    client.delete(&target).send().expect(202);
    server.terminate();
    let mut server = server.set(
        "quota",
        "[{repositories: ['team/**', other], size: 1KB}, {repositories: team/app, size: 20GB}]",
    );
    server.restart();
    let client = server.client();
    let all = size(&image) + size(&other) + 5000;
    assert_eq!(used(&client, "team/**, other"), all);
    assert_eq!(used(&client, "team/app"), size(&image));
    // More is there than there may be: it stays, and nothing comes.
    image.assert_pullable(&client, "team/app", "1");
    image.manifest.push(&client, "team/app", "2");
    let reply = client.post("/v2/team/app/blobs/uploads/").send();
    let text = reply.expect_error(403, "DENIED").text();
    assert!(
        text.contains("the quota of team/**, other is 1.0 kB, and "),
        "{text}"
    );
    // No repository of a quota.
    image.push(&client, "team", "1");
    let log = server.log();
    assert!(
        log.contains("quota of team/app: ") && log.contains(" of 20.0 GB used"),
        "{log}"
    );
}

#[test]
fn what_is_deleted_gives_room_back_though_it_could_be_undone() {
    let server = Server::new()
        .set("quota", TEAM)
        .set("gc.grace", "0s")
        .set("gc.delay", "20ms")
        .start();
    let client = server.client();
    used(&client, "team/**");
    let image = Image::builder(9).layers(1).layer_size(700_000).build();
    let kept = Image::builder(10).layers(1).layer_size(100_000).build();
    image.push(&client, "team/app", "1");
    image.push(&client, "free/app", "1");
    kept.push(&client, "team/kept", "1");
    for repo in ["team/app", "free/app"] {
        let target = format!("/v2/{repo}/manifests/{}", image.digest());
        client.delete(&target).send().expect(202);
    }
    // For an undo it is kept, and counts, until somebody needs the room.
    let next = Blob::random(11, 600_000);
    refused(upload(&client, "team/app", &next));
    eventually("there is room", || {
        (used(&client, "team/**") == size(&kept)).then_some(())
    });
    push_blob(&client, "team/app", &next);
    kept.assert_pullable(&client, "team/kept", "1");
    // Of other repositories everything can be brought back.
    server.told(&["undo", "free/app:1"]);
    image.assert_pullable(&client, "free/app", "1");
}

#[test]
fn what_a_mirror_fetches_counts_and_is_never_refused() {
    let upstream = Server::new().start();
    let (image, pushed) = (Image::new(12), Blob::random(13, 10));
    image.push(&upstream.client(), "app", "1");
    let server = Server::new()
        .set("proxy.remoteurl", &format!("http://{}", upstream.addr()))
        .set("quota", "[{repositories: '**', size: 1KB}]")
        .start();
    let client = server.client();
    used(&client, "**");
    for _ in 0..2 {
        image.assert_pullable(&client, "app", "1");
        assert_eq!(used(&client, "**"), size(&image));
    }
    assert!(size(&image) > 1000);
    upload(&client, "app", &pushed).expect_error(403, "DENIED");
}
