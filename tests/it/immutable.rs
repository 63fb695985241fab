//! Tags that are neither moved nor deleted (`tags.immutable`).

use serde_json::json;

use crate::support::{
    image::{Image, Manifest},
    server::Server,
};

fn server() -> Server {
    Server::new()
        .set("tags.immutable", r#"["v*", "team/**:fixed"]"#)
        .start()
}

#[test]
fn an_immutable_tag_is_neither_moved_nor_deleted() {
    let server = server();
    let client = server.client();
    let (first, second) = (Image::new(1), Image::new(2));
    for (repo, tag) in [("app", "v1"), ("team/app", "fixed")] {
        let target = format!("/v2/{repo}/manifests/{tag}");
        first.push(&client, repo, tag);
        // Whoever pushes the same again, as a build that is repeated, is told that it is there.
        first.push(&client, repo, tag);
        second.blobs().for_each(|blob| {
            crate::support::image::push_blob(&client, repo, blob);
        });
        let reply = second
            .manifest
            .try_push(&client, repo, tag)
            .expect("an answer");
        let reply = reply.expect_error(409, "DENIED");
        let text = reply.text();
        assert!(
            text.contains(&format!("the tag {tag} is immutable here (tags.immutable)")),
            "{text}"
        );
        assert_eq!(reply.json()["errors"][0]["detail"], json!({ "tag": tag }));
        client.delete(&target).send().expect_error(409, "DENIED");
        let digest = format!("/v2/{repo}/manifests/{}", first.digest());
        client.delete(&digest).send().expect_error(409, "DENIED");
        first.assert_pullable(&client, repo, tag);
        let refused = format!("/v2/{repo}/manifests/{}", second.digest());
        client.get(&refused).send().expect(404);
    }
}

#[test]
fn other_tags_of_it_and_other_repositories_are_free() {
    let server = server();
    let client = server.client();
    let (first, second) = (Image::new(3), Image::new(4));
    for (repo, tag) in [("app", "fixed"), ("team/app", "latest")] {
        first.push(&client, repo, tag);
        second.push(&client, repo, tag);
        second.assert_pullable(&client, repo, tag);
        let target = format!("/v2/{repo}/manifests/{tag}");
        client.delete(&target).send().expect(202);
    }
}

#[test]
fn a_push_of_several_tags_is_refused_as_a_whole() {
    let server = server();
    let client = server.client();
    let image = Image::new(5);
    image.push(&client, "app", "v1");
    let index = Manifest::index([&image.manifest]);
    let target = format!("/v2/app/manifests/{}?tag=new&tag=v1", index.digest());
    let request = client
        .put(&target)
        .header("Content-Type", &index.media_type);
    request
        .body(index.bytes())
        .send()
        .expect_error(409, "DENIED");
    for reference in ["new", index.digest()] {
        let target = format!("/v2/app/manifests/{reference}");
        client.get(&target).send().expect(404);
    }
}

#[test]
fn of_many_that_push_a_new_tag_at_once_one_succeeds() {
    let server = server();
    let client = server.client();
    let images: Vec<Image> = (10..18).map(Image::new).collect();
    for image in &images {
        image.push(&client, "app", image.digest());
    }
    let accepted: Vec<&Image> = std::thread::scope(|scope| {
        let pushes: Vec<_> = images
            .iter()
            .map(|image| {
                let client = server.client();
                scope.spawn(move || {
                    let reply = image.manifest.try_push(&client, "app", "v1");
                    let status = reply.expect("an answer").status;
                    assert!(status == 201 || status == 409, "{status}");
                    (status == 201).then_some(image)
                })
            })
            .collect();
        let done = pushes.into_iter();
        done.filter_map(|push| push.join().expect("no panic"))
            .collect()
    });
    assert_eq!(accepted.len(), 1);
    accepted[0].assert_pullable(&client, "app", "v1");
}
