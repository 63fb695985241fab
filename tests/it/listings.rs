//! Tags and repositories, page by page (distribution-spec, "Listing Tags"; Docker Registry HTTP API V2, "Catalog").

use serde_json::{Value, json};

use crate::support::{
    http::{Client, Response},
    image::{Blob, Image, open_upload, push_blob},
    seed::{Rng, seed},
    server::{Server, serve},
};

/// The target of `Link: <...>; rel="next"`, if there is one.
#[track_caller]
pub(crate) fn next(reply: &Response) -> Option<String> {
    let link = reply.header("link")?;
    let (target, rest) = link
        .strip_prefix('<')
        .and_then(|link| link.split_once('>'))
        .unwrap_or_else(|| panic!("{reply:?}"));
    assert!(rest.replace(' ', "").contains(";rel=\"next\""), "{reply:?}");
    // A path is what every client seen follows, whatever stands between it and the server.
    assert!(target.starts_with("/v2/"), "{reply:?}");
    Some(target.to_owned())
}

/// Every page from `target` on.
#[track_caller]
pub(crate) fn pages(client: &Client, target: &str) -> Vec<Response> {
    let mut pages = Vec::new();
    let mut target = Some(target.to_owned());
    while let Some(at) = target {
        let reply = client.get(&at).send().expect(200);
        target = next(&reply);
        pages.push(reply);
        assert!(pages.len() < 10_000, "the pages never end");
    }
    pages
}

fn strings(value: &Value) -> Vec<String> {
    let list = value.as_array().unwrap_or_else(|| panic!("{value}"));
    list.iter()
        .map(|entry| entry.as_str().unwrap().to_owned())
        .collect()
}

/// The lists of all pages, one after the other, and how long each was.
#[track_caller]
fn walk(client: &Client, target: &str, field: &str) -> (Vec<String>, Vec<usize>) {
    let pages: Vec<Vec<String>> = pages(client, target)
        .iter()
        .map(|page| strings(&page.json()[field]))
        .collect();
    (pages.concat(), pages.iter().map(Vec::len).collect())
}

fn with_tags(tags: &[&str]) -> (Server, Client) {
    let (server, client) = serve();
    let image = Image::new(1);
    for tag in tags {
        if *tag == tags[0] {
            image.push(&client, "team/app", tag);
        } else {
            image.manifest.push(&client, "team/app", tag);
        }
    }
    (server, client)
}

/// In byte order.
const TAGS: [&str; 14] = [
    "0", "1", "1.0", "1.10", "1.9", "A", "Z", "_", "a", "a-b", "a.b", "a_b", "ab", "latest",
];

#[test]
fn tags_are_listed_in_byte_order() {
    let mut shuffled = TAGS;
    shuffled.reverse();
    shuffled.swap(2, 9);
    let (_server, client) = with_tags(&shuffled);
    let reply = client.get("/v2/team/app/tags/list").send().expect(200);
    assert_eq!(reply.json(), json!({ "name": "team/app", "tags": TAGS }));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(next(&reply), None);
}

#[test]
fn pages_of_any_size_have_every_tag_exactly_once() {
    let (_server, client) = with_tags(&TAGS);
    for n in 1..=TAGS.len() + 1 {
        let (tags, lengths) = walk(&client, &format!("/v2/team/app/tags/list?n={n}"), "tags");
        assert_eq!(tags, TAGS, "n={n}");
        let (last, full) = lengths.split_last().unwrap();
        assert!(full.iter().all(|length| *length == n), "n={n}: {lengths:?}");
        assert!(*last >= 1, "n={n}: the last page is empty: {lengths:?}");
    }
}

#[test]
fn a_list_goes_on_after_last_whether_it_exists_or_not() {
    let (_server, client) = with_tags(&TAGS);
    for (last, first) in [
        ("0", Some("1")),
        ("1.1", Some("1.10")),
        ("1.10", Some("1.9")),
        ("B", Some("Z")),
        ("a", Some("a-b")),
        ("aa", Some("ab")),
        ("latest", None),
        ("zzz", None),
    ] {
        for query in [
            format!("last={last}"),
            format!("last={last}&n=3"),
            format!("n=3&last={last}"),
        ] {
            let reply = client
                .get(&format!("/v2/team/app/tags/list?{query}"))
                .send()
                .expect(200);
            let tags = strings(&reply.json()["tags"]);
            assert_eq!(tags.first().map(String::as_str), first, "{query}");
        }
    }
}

#[test]
fn a_page_of_nothing_is_empty_and_the_last() {
    let (_server, client) = with_tags(&TAGS);
    let reply = client.get("/v2/team/app/tags/list?n=0").send().expect(200);
    assert_eq!(reply.json()["tags"], json!([]));
    assert_eq!(reply.header("link"), None);
    let reply = client.get("/v2/_catalog?n=0").send().expect(200);
    assert_eq!(reply.json()["repositories"], json!([]));
    assert_eq!(reply.header("link"), None);
}

#[test]
fn a_page_that_has_everything_is_the_last() {
    let (_server, client) = with_tags(&TAGS);
    for n in [TAGS.len(), TAGS.len() + 1, 1_000_000] {
        let reply = client
            .get(&format!("/v2/team/app/tags/list?n={n}"))
            .send()
            .expect(200);
        assert_eq!(reply.json()["tags"], json!(TAGS));
        assert_eq!(reply.header("link"), None, "n={n}");
    }
}

#[test]
fn a_bad_page_size_is_refused() {
    let (_server, client) = with_tags(&["v1"]);
    for n in [
        "x",
        "-1",
        "1.5",
        "%2B1",
        "0x10",
        "1e3",
        "%201",
        "99999999999999999999999",
    ] {
        for target in ["/v2/team/app/tags/list", "/v2/_catalog"] {
            client
                .get(&format!("{target}?n={n}"))
                .send()
                .expect_error(400, "PAGINATION_NUMBER_INVALID");
        }
    }
}

#[test]
fn a_repository_without_tags_has_an_empty_list() {
    let (_server, client) = serve();
    let image = Image::new(2);
    image.push(&client, "team/app", image.digest());
    let empty = json!({ "name": "team/app", "tags": [] });
    let reply = client.get("/v2/team/app/tags/list").send().expect(200);
    assert_eq!(reply.json(), empty);
    image.manifest.push(&client, "team/app", "v1");
    client
        .delete(&format!("/v2/team/app/manifests/{}", image.digest()))
        .send()
        .expect(202);
    let reply = client.get("/v2/team/app/tags/list").send().expect(200);
    assert_eq!(reply.json(), empty);
}

#[test]
fn an_unknown_repository_has_no_list() {
    let (_server, client) = serve();
    Image::new(3).push(&client, "team/app", "v1");
    push_blob(&client, "team/blobs-only", &Blob::random(4, 10));
    open_upload(&client, "team/uploads-only");
    for repo in [
        "other",
        "team",
        "team/app/below",
        "team/blobs-only",
        "team/uploads-only",
    ] {
        client
            .get(&format!("/v2/{repo}/tags/list"))
            .send()
            .expect_error(404, "NAME_UNKNOWN");
    }
    let catalog = client.get("/v2/_catalog").send().expect(200);
    assert_eq!(catalog.json(), json!({ "repositories": ["team/app"] }));
}

#[test]
fn the_longest_page_of_tags_can_be_set() {
    let server = Server::new().set("tags.maxtags", "4").start();
    let client = server.client();
    let image = Image::new(5);
    image.push(&client, "team/app", TAGS[0]);
    for tag in TAGS {
        image.manifest.push(&client, "team/app", tag);
    }
    for query in ["", "?n=4", "?n=1000"] {
        let (tags, lengths) = walk(&client, &format!("/v2/team/app/tags/list{query}"), "tags");
        assert_eq!(tags, TAGS);
        assert_eq!(lengths, [4, 4, 4, 2], "{query}");
    }
}

/// In the catalog's order: by component, as distribution walks its folders.
const REPOS: [&str; 15] = [
    "a", "a/b", "a/b/c", "a/b-c", "a/bb", "a-b", "a-b/c", "a.b", "a0", "a_b", "aa", "ab", "ab/a",
    "b", "b/a",
];

fn with_repos(repos: &[&str]) -> (Server, Client) {
    let (server, client) = serve();
    let image = Image::new(6);
    for repo in repos {
        image.push(&client, repo, "v1");
    }
    (server, client)
}

#[test]
fn repositories_whose_names_begin_alike_are_each_listed_once() {
    let mut shuffled = REPOS;
    shuffled.reverse();
    shuffled.swap(1, 8);
    let (mut server, client) = with_repos(&shuffled);
    let reply = client.get("/v2/_catalog").send().expect(200);
    assert_eq!(reply.json(), json!({ "repositories": REPOS }));
    assert_eq!(reply.header("link"), None);
    for n in 1..=REPOS.len() + 1 {
        let (repos, lengths) = walk(&client, &format!("/v2/_catalog?n={n}"), "repositories");
        assert_eq!(repos, REPOS, "n={n}: {lengths:?}");
        assert!(*lengths.last().unwrap() >= 1, "n={n}: {lengths:?}");
    }
    // The same from the disk.
    server.kill();
    server.restart();
    let (repos, _) = walk(&server.client(), "/v2/_catalog?n=2", "repositories");
    assert_eq!(repos, REPOS);
}

#[test]
fn the_catalog_goes_on_after_last_whether_it_exists_or_not() {
    let (_server, client) = with_repos(&REPOS);
    for (last, first) in [
        ("a", Some("a/b")),
        ("a%2Fb%2Fc", Some("a/b-c")),
        ("a/b/c", Some("a/b-c")),
        ("a/b/d", Some("a/b-c")), // gone meanwhile
        ("a/zz", Some("a-b")),
        ("a/", Some("a/b")),
        ("ab", Some("ab/a")),
        ("b/a", None),
        ("zz", None),
    ] {
        let reply = client
            .get(&format!("/v2/_catalog?n=2&last={last}"))
            .send()
            .expect(200);
        let repos = strings(&reply.json()["repositories"]);
        assert_eq!(repos.first().map(String::as_str), first, "last={last}");
    }
}

#[test]
fn the_longest_page_of_the_catalog_can_be_set() {
    let server = Server::new().set("catalog.maxentries", "4").start();
    let client = server.client();
    let image = Image::new(7);
    for repo in REPOS {
        image.push(&client, repo, "v1");
    }
    for query in ["", "?n=4", "?n=1000"] {
        let (repos, lengths) = walk(&client, &format!("/v2/_catalog{query}"), "repositories");
        assert_eq!(repos, REPOS);
        assert_eq!(lengths, [4, 4, 4, 3], "{query}");
    }
}

#[test]
fn a_new_repository_is_listed_at_once() {
    let (_server, client) = serve();
    let image = Image::new(8);
    let mut expected = Vec::new();
    for repo in ["m", "a", "z", "m/m", "a/z"] {
        image.push(&client, repo, "v1");
        expected.push(repo);
        expected.sort_by_key(|repo| repo.split('/').collect::<Vec<_>>());
        let (repos, _) = walk(&client, "/v2/_catalog", "repositories");
        assert_eq!(repos, expected);
    }
}

/// As distribution has it: a repository that was emptied is still one.
#[test]
fn a_repository_that_was_emptied_stays_listed() {
    let (mut server, client) = serve();
    let image = Image::new(9);
    image.push(&client, "team/app", "v1");
    client
        .delete(&format!("/v2/team/app/manifests/{}", image.digest()))
        .send()
        .expect(202);
    for _ in 0..2 {
        let (repos, _) = walk(&server.client(), "/v2/_catalog", "repositories");
        assert_eq!(repos, ["team/app"]);
        server.kill();
        server.restart();
    }
}

/// Whoever pages while others push and delete sees everything that was there all the time, once.
#[test]
fn a_walk_beside_pushes_and_deletes_misses_nothing_that_stays() {
    let seed = seed("a_walk_beside_pushes_and_deletes_misses_nothing_that_stays");
    let mut rng = Rng::new(seed);
    let (_server, client) = with_tags(&TAGS);
    let image = Image::new(1);
    let mut target = Some("/v2/team/app/tags/list?n=2".to_owned());
    let mut seen = Vec::new();
    while let Some(at) = target {
        let reply = client.get(&at).send().expect(200);
        seen.extend(strings(&reply.json()["tags"]));
        target = next(&reply);
        // Between two pages a tag comes and goes that is not one of ours, also the last one seen.
        let name = format!("{}-{}", rng.pick(&TAGS), rng.below(100));
        image.manifest.push(&client, "team/app", &name);
        if rng.chance(50) {
            client
                .delete(&format!("/v2/team/app/manifests/{name}"))
                .send()
                .expect(202);
        }
    }
    let stayed: Vec<&String> = seen
        .iter()
        .filter(|tag| TAGS.contains(&tag.as_str()))
        .collect();
    assert_eq!(
        stayed,
        TAGS.iter().collect::<Vec<_>>(),
        "REGISTRY_SEED={seed}"
    );
    let mut unique = seen.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(
        unique, seen,
        "in order, and none twice; REGISTRY_SEED={seed}"
    );
}

#[test]
fn links_lead_through_a_prefix() {
    let server = Server::new()
        .set("http.prefix", "/deep/er/")
        .ready_path("/deep/er/v2/")
        .start();
    let client = server.client();
    let reply = client
        .post("/deep/er/v2/team/app/blobs/uploads/")
        .send()
        .expect(202);
    assert!(
        reply
            .location()
            .starts_with("/deep/er/v2/team/app/blobs/uploads/"),
        "{reply:?}"
    );
    let image = Image::new(10);
    for blob in image.blobs() {
        client
            .post("/deep/er/v2/team/app/blobs/uploads/")
            .query("digest", &blob.digest)
            .body(blob.bytes.clone())
            .send()
            .expect(201);
    }
    for tag in ["v1", "v2"] {
        client
            .put(&format!("/deep/er/v2/team/app/manifests/{tag}"))
            .header("Content-Type", &image.manifest.media_type)
            .body(image.manifest.bytes())
            .send()
            .expect(201);
    }
    let reply = client
        .get("/deep/er/v2/team/app/tags/list?n=1")
        .send()
        .expect(200);
    let link = reply.header("link").expect("a next page");
    assert!(
        link.starts_with("</deep/er/v2/team/app/tags/list?"),
        "{link}"
    );
    let target = link[1..].split('>').next().unwrap();
    let reply = client.get(target).send().expect(200);
    assert_eq!(reply.json()["tags"], json!(["v2"]));
    client.get("/v2/").send().expect(404);
}
