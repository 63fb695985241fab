//! What a client is told when it asks for what cannot be: the specification's JSON, its code and status, for every kind of
//! mistake (distribution-spec, "Error Codes"), and that no request leaves the tree or learns of it.

use std::{fs, io::Write, net::TcpStream, path::Path};

use serde_json::{Value, json};

use crate::support::{
    http::{Client, Response, with_query},
    image::{
        Blob, DOCKER_MANIFEST, Image, OCI_INDEX, OCI_MANIFEST, open_upload, push_blob, sha256,
    },
    seed::{Rng, seed},
    server::{Server, serve},
    tree,
};

/// The codes of the specification, and those that distribution adds to them.
const CODES: [&str; 18] = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
    "PAGINATION_NUMBER_INVALID",
    "RANGE_INVALID",
    "TAG_INVALID",
    "UNAVAILABLE",
];

/// Nothing of the machine or of the program may stand in an answer.
const INTERNALS: [&str; 16] = [
    "os error",
    "/tmp",
    "docker/registry",
    "_layers",
    "_manifests",
    "_uploads",
    "current/link",
    ".registry",
    "panicked",
    "src/",
    ".rs:",
    "errno",
    "No such file",
    "Permission denied",
    "Is a directory",
    "Not a directory",
];

/// The form of an error, and that it tells nothing of the inside.
#[track_caller]
fn assert_well_formed(server: &Server, what: &str, reply: &Response) {
    assert_eq!(
        reply.header("content-type"),
        Some("application/json"),
        "{what}: {reply:?}"
    );
    let value = reply.json();
    let errors = value["errors"]
        .as_array()
        .unwrap_or_else(|| panic!("{what}: {reply:?}"));
    assert!(!errors.is_empty(), "{what}");
    for error in errors {
        let code = error["code"]
            .as_str()
            .unwrap_or_else(|| panic!("{what}: {reply:?}"));
        assert!(CODES.contains(&code), "{what}: {reply:?}");
        let message = error["message"]
            .as_str()
            .unwrap_or_else(|| panic!("{what}: {reply:?}"));
        assert!(message.len() > 10, "{what}: {message:?} helps nobody");
    }
    let text = reply.text();
    let root = server.tree().display().to_string();
    for internal in INTERNALS.iter().copied().chain([root.as_str()]) {
        // A client may have said so itself.
        assert!(
            !text.contains(internal) || what.contains(internal),
            "{what}: {internal:?} in {text}"
        );
    }
}

/// Requests with their status and code, from one table; HEAD of what can be read too.
#[track_caller]
fn assert_refused(server: &Server, method: &str, target: &str, status: u16, code: &str) {
    let client = server.client();
    let what = format!("{method} {target}");
    let reply = client
        .request(method, target)
        .try_send()
        .unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(
        (reply.status, reply.error_code().as_deref()),
        (status, Some(code)),
        "{what}: {reply:?}"
    );
    assert_well_formed(server, &what, &reply);
    if method == "GET" {
        let head = client.head(target).send();
        assert_eq!(head.status, status, "HEAD {target}: {head:?}");
        assert!(head.body.is_empty());
    }
}

/// A server with an image, so that nothing is refused for the lack of it.
fn with_image() -> (Server, Image) {
    let (server, client) = serve();
    let image = Image::new(1);
    image.push(&client, "team/app", "v1");
    (server, image)
}

fn bad_names() -> Vec<String> {
    [
        "UPPER",
        "team/App",
        "_layers",
        "team/_manifests",
        "-a",
        "a-",
        ".a",
        "a.",
        "a..b",
        "a._b",
        "a___b",
        "a__",
        "a//b",
        "team/",
        ".",
        "..",
        "../a",
        "a/../b",
        "a/./b",
        "team/..",
        "%2e%2e/a",
        "a/%2E%2E/b",
        "a%2fb",
        "a%2Fb",
        "a%5Cb",
        "a\\b",
        "a%00b",
        "a%0ab",
        "a%20b",
        "a%25b",
        "%ff%fe",
        "a:b",
        "a@b",
        "a~b",
        "a+b",
        "a*",
        "%C3%A4",
        "%F0%9F%98%80",
        "%2561",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain(["a".repeat(256), format!("{}bc", "a/".repeat(127))])
    .collect()
}

#[test]
fn a_bad_name_is_name_invalid_everywhere() {
    let (server, image) = with_image();
    let (digest, id) = (image.digest(), "00000000-0000-4000-8000-000000000000");
    for name in bad_names() {
        for (method, rest) in [
            ("GET", "manifests/v1".to_owned()),
            ("PUT", "manifests/v1".to_owned()),
            ("DELETE", format!("manifests/{digest}")),
            ("GET", format!("blobs/{digest}")),
            ("DELETE", format!("blobs/{digest}")),
            ("POST", "blobs/uploads/".to_owned()),
            ("PATCH", format!("blobs/uploads/{id}")),
            ("PUT", format!("blobs/uploads/{id}?digest={digest}")),
            ("GET", "tags/list".to_owned()),
            ("GET", format!("referrers/{digest}")),
        ] {
            assert_refused(
                &server,
                method,
                &format!("/v2/{name}/{rest}"),
                400,
                "NAME_INVALID",
            );
        }
    }
    // The source of a mount is a name too.
    let mount = format!("/v2/team/app/blobs/uploads/?mount={digest}&from=..%2F..");
    assert_refused(&server, "POST", &mount, 400, "NAME_INVALID");
}

#[test]
fn a_name_that_is_missing_is_no_name() {
    let (server, image) = with_image();
    for target in [
        "/v2/manifests/v1".to_owned(),
        "/v2//manifests/v1".to_owned(),
        format!("/v2/blobs/{}", image.digest()),
        "/v2/tags/list".to_owned(),
    ] {
        let reply = server.client().get(&target).send();
        assert!(matches!(reply.status, 400 | 404), "{target}: {reply:?}");
        assert_well_formed(&server, &target, &reply);
    }
}

#[test]
fn a_bad_tag_is_refused_when_written_and_unknown_when_read() {
    let (server, _image) = with_image();
    for tag in [
        ".hidden",
        "-dash",
        "..",
        ".",
        "%2e%2e",
        "a%2Fb",
        "..%2f..%2fetc",
        "a%00",
        "a b".replace(' ', "%20").as_str(),
        "%C3%A4",
        "a+b",
        "a~",
        &"x".repeat(129),
    ] {
        let target = format!("/v2/team/app/manifests/{tag}");
        assert_refused(&server, "GET", &target, 404, "MANIFEST_UNKNOWN");
        assert_refused(&server, "PUT", &target, 400, "TAG_INVALID");
        assert_refused(&server, "DELETE", &target, 400, "TAG_INVALID");
    }
}

#[test]
fn a_bad_digest_is_digest_invalid_everywhere() {
    let (server, image) = with_image();
    let hex = image.digest().strip_prefix("sha256:").unwrap();
    let location = open_upload(&server.client(), "team/app");
    for digest in [
        "sha256:".to_owned(),
        "sha256:abc".to_owned(),
        format!("sha256:{}", hex.to_uppercase()),
        format!("sha256:{hex}0"),
        format!("sha256:{}", &hex[1..]),
        format!("sha256:{}g", &hex[1..]),
        format!("sha512:{hex}"),
        format!("sha384:{hex}"),
        format!("SHA256:{hex}"),
        format!("md5:{}", &hex[..32]),
        format!(":{hex}"),
        format!("sha256:{hex}%00"),
        format!("sha256:{hex}%0A"),
        format!("sha256::{hex}"),
        "sha256:..%2F..%2F..%2Fetc%2Fpasswd".to_owned(),
        format!("sha256:%2e%2e%2f{}", &hex[3..]),
    ] {
        for (method, target) in [
            ("GET", format!("/v2/team/app/blobs/{digest}")),
            ("DELETE", format!("/v2/team/app/blobs/{digest}")),
            ("GET", format!("/v2/team/app/manifests/{digest}")),
            ("PUT", format!("/v2/team/app/manifests/{digest}")),
            ("DELETE", format!("/v2/team/app/manifests/{digest}")),
            ("GET", format!("/v2/team/app/referrers/{digest}")),
            (
                "POST",
                format!("/v2/team/app/blobs/uploads/?digest={digest}"),
            ),
            (
                "POST",
                format!("/v2/team/app/blobs/uploads/?mount={digest}&from=team/app"),
            ),
            ("PUT", format!("{location}?digest={digest}")),
        ] {
            assert_refused(&server, method, &target, 400, "DIGEST_INVALID");
        }
    }
    // A digest where there is none at all.
    for target in ["/v2/team/app/blobs/latest", "/v2/team/app/blobs/.."] {
        assert_refused(&server, "GET", target, 400, "DIGEST_INVALID");
    }
    assert_refused(&server, "PUT", &location, 400, "DIGEST_INVALID");
}

#[test]
fn a_bad_upload_id_is_an_unknown_upload() {
    let (server, image) = with_image();
    for id in [
        "x",
        "..",
        "%2e%2e",
        "..%2f..%2f..%2fblobs",
        "00000000-0000-4000-8000-000000000000",
        "00000000000040008000000000000000",
        "{00000000-0000-4000-8000-000000000000}",
        "00000000-0000-4000-8000-00000000000G",
        "%00",
    ] {
        let target = format!("/v2/team/app/blobs/uploads/{id}");
        for method in ["GET", "PATCH", "DELETE"] {
            assert_refused(&server, method, &target, 404, "BLOB_UPLOAD_UNKNOWN");
        }
        let put = with_query(&target, "digest", image.digest());
        assert_refused(&server, "PUT", &put, 404, "BLOB_UPLOAD_UNKNOWN");
    }
}

#[test]
fn a_bad_content_range_is_refused() {
    let (server, client) = serve();
    let blob = Blob::random(2, 10);
    let location = open_upload(&client, "team/app");
    for range in [
        "",
        "x",
        "5",
        "-5",
        "5-",
        "9-0",
        "a-b",
        "0-9-9",
        "0 - 9",
        "lines 0-9",
        "+0-9",
        "0-99999999999999999999999",
    ] {
        for (method, target) in [
            ("PATCH", location.clone()),
            ("PUT", with_query(&location, "digest", &blob.digest)),
        ] {
            let reply = client
                .request(method, &target)
                .header("Content-Range", range)
                .body(blob.bytes.clone())
                .send();
            assert!(matches!(reply.status, 400 | 416), "{range:?}: {reply:?}");
            assert_eq!(
                reply.error_code().as_deref(),
                Some("RANGE_INVALID"),
                "{range:?}"
            );
            assert_well_formed(&server, range, &reply);
        }
    }
    // Nothing of it was taken.
    client
        .put(&with_query(&location, "digest", &blob.digest))
        .body(blob.bytes.clone())
        .send()
        .expect(201);
}

/// What may stand in a manifest's place, and what is wrong with it.
fn bad_manifests(image: &Image) -> Vec<(&'static str, Option<&'static str>, Vec<u8>)> {
    let oci = Some(OCI_MANIFEST);
    let edit = |edit: &dyn Fn(&mut Value)| image.manifest.edit(edit).blob.bytes;
    let remove = |field: &str| {
        edit(&|value: &mut Value| {
            value.as_object_mut().unwrap().remove(field);
        })
    };
    let truncated = &image.manifest.bytes()[..image.manifest.bytes().len() - 10];
    vec![
        ("nothing at all", oci, vec![]),
        ("no JSON", oci, b"no JSON".to_vec()),
        ("half of it", oci, truncated.to_vec()),
        ("two of them", oci, image.manifest.bytes().repeat(2)),
        (
            "no UTF-8",
            oci,
            b"{\"schemaVersion\":2,\"x\":\"\xff\"}".to_vec(),
        ),
        ("a list", oci, b"[]".to_vec()),
        ("a string", oci, b"\"manifest\"".to_vec()),
        ("null", oci, b"null".to_vec()),
        ("a number", oci, b"2".to_vec()),
        ("an empty object", oci, b"{}".to_vec()),
        ("an empty object of no type", None, b"{}".to_vec()),
        (
            "an empty index",
            Some(OCI_INDEX),
            b"{\"schemaVersion\":2}".to_vec(),
        ),
        ("deep nesting", oci, b"[".repeat(100_000)),
        ("no schemaVersion", oci, remove("schemaVersion")),
        ("no config", oci, remove("config")),
        (
            "docker without its type",
            Some(DOCKER_MANIFEST),
            remove("mediaType"),
        ),
        (
            "schema 3",
            oci,
            edit(&|value| value["schemaVersion"] = json!(3)),
        ),
        (
            "schema two",
            oci,
            edit(&|value| value["schemaVersion"] = json!("2")),
        ),
        (
            "layers are no list",
            oci,
            edit(&|value| value["layers"] = json!({})),
        ),
        (
            "a layer is a string",
            oci,
            edit(&|value| value["layers"] = json!(["x"])),
        ),
        (
            "config is a string",
            oci,
            edit(&|value| value["config"] = json!("x")),
        ),
        (
            "a type that is a number",
            oci,
            edit(&|value| value["mediaType"] = json!(2)),
        ),
        (
            "an unknown type",
            Some("application/vnd.example+json"),
            edit(&|value| value["mediaType"] = json!("application/vnd.example+json")),
        ),
        (
            "a digest that is none",
            oci,
            edit(&|value| value["layers"][0]["digest"] = json!("latest")),
        ),
        (
            "a digest with a path",
            oci,
            edit(&|value| value["layers"][0]["digest"] = json!("sha256:../../../etc/passwd")),
        ),
        (
            "a digest that is null",
            oci,
            edit(&|value| value["config"]["digest"] = Value::Null),
        ),
        (
            "a layer without a digest",
            oci,
            edit(&|value| {
                value["layers"][0].as_object_mut().unwrap().remove("digest");
            }),
        ),
        (
            "a layer without a size",
            oci,
            edit(&|value| {
                value["layers"][0].as_object_mut().unwrap().remove("size");
            }),
        ),
        (
            "a negative size",
            oci,
            edit(&|value| value["layers"][0]["size"] = json!(-1)),
        ),
        (
            "a size with a fraction",
            oci,
            edit(&|value| value["layers"][0]["size"] = json!(0.5)),
        ),
        (
            "annotations that are no strings",
            oci,
            edit(&|value| value["annotations"] = json!({ "a": 1 })),
        ),
    ]
}

#[test]
fn a_bad_manifest_is_manifest_invalid() {
    let (server, image) = with_image();
    let client = server.client();
    for (what, media_type, bytes) in bad_manifests(&image) {
        for reference in ["bad".to_owned(), sha256(&bytes)] {
            let put = client.put(&format!("/v2/team/app/manifests/{reference}"));
            let put = match media_type {
                Some(media_type) => put.header("Content-Type", media_type),
                None => put,
            };
            let reply = put.body(bytes.clone()).send();
            assert_eq!(
                (reply.status, reply.error_code().as_deref()),
                (400, Some("MANIFEST_INVALID")),
                "{what}: {reply:?}"
            );
            assert_well_formed(&server, what, &reply);
            client
                .get(&format!("/v2/team/app/manifests/{reference}"))
                .send()
                .expect(404);
        }
    }
    image.assert_pullable(&client, "team/app", "v1");
}

#[test]
fn a_method_that_is_not_possible_is_405_and_says_which_are() {
    let (server, image) = with_image();
    let location = open_upload(&server.client(), "team/app");
    let digest = image.digest();
    for (target, allowed) in [
        ("/v2/".to_owned(), vec!["GET", "HEAD"]),
        ("/v2/_catalog".to_owned(), vec!["GET", "HEAD"]),
        ("/v2/team/app/tags/list".to_owned(), vec!["GET", "HEAD"]),
        (
            format!("/v2/team/app/referrers/{digest}"),
            vec!["GET", "HEAD"],
        ),
        (
            "/v2/team/app/manifests/v1".to_owned(),
            vec!["GET", "HEAD", "PUT", "DELETE"],
        ),
        (
            format!("/v2/team/app/blobs/{digest}"),
            vec!["GET", "HEAD", "DELETE"],
        ),
        ("/v2/team/app/blobs/uploads/".to_owned(), vec!["POST"]),
        (location, vec!["GET", "HEAD", "PATCH", "PUT", "DELETE"]),
        ("/healthz".to_owned(), vec!["GET", "HEAD"]),
        ("/readyz".to_owned(), vec!["GET", "HEAD"]),
        ("/metrics".to_owned(), vec!["GET", "HEAD"]),
    ] {
        for method in [
            "GET", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW",
        ] {
            if allowed.contains(&method) {
                continue;
            }
            let reply = server.client().request(method, &target).send();
            let what = format!("{method} {target}");
            assert_eq!(
                (reply.status, reply.error_code().as_deref()),
                (405, Some("UNSUPPORTED")),
                "{what}: {reply:?}"
            );
            assert_well_formed(&server, &what, &reply);
            let mut said: Vec<&str> = reply
                .header("allow")
                .unwrap_or_else(|| panic!("{what}: {reply:?}"))
                .split(',')
                .map(str::trim)
                .collect();
            said.sort_unstable();
            let mut expected = allowed.clone();
            expected.sort_unstable();
            assert_eq!(said, expected, "{what}");
        }
    }
}

#[test]
fn what_lies_nowhere_is_404() {
    let (server, _image) = with_image();
    for target in [
        "/v1/",
        "/v1/_ping",
        "/v1/search?q=x&n=25",
        "/v3/",
        "/v2/x",
        "/v2/_catalog/",
        "/v2/_catalog/x",
        "/v2/team/app",
        "/v2/team/app/",
        "/v2/team/app/tags",
        "/v2/team/app/tags/",
        "/v2/team/app/tags/list/",
        "/v2/team/app/tags/v1",
        "/v2/team/app/unknown/v1",
        "/v2/team/app/_layers/sha256",
        "/favicon.ico",
        "/etc/passwd",
        "//v2/",
        "/V2/",
        "/v2%2F",
        "/./v2/",
        "/v2/../v2/",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/../../../../etc/passwd",
    ] {
        let reply = server.client().get(target).send();
        assert_eq!(reply.status, 404, "{target}: {reply:?}");
        assert_well_formed(&server, target, &reply);
    }
}

#[test]
fn a_target_that_is_too_long_is_414() {
    let (server, image) = with_image();
    let tags = "&tag=xxxxxxxxxxxxxxxx".repeat(1000);
    let target = format!("/v2/team/app/manifests/{}?{tags}", image.digest());
    assert_refused(&server, "PUT", &target, 414, "UNSUPPORTED");
    // Beyond what a server reads of a head at all.
    let reply = server
        .client()
        .get(&format!("/v2/{}/tags/list", "a/".repeat(200_000)))
        .try_send();
    if let Ok(reply) = reply {
        assert!((400..500).contains(&reply.status), "{}", reply.status);
    }
    server.client().get("/v2/").send().expect(200);
}

/// Paths as no client library would send them.
#[test]
fn no_path_leaves_the_tree() {
    let (server, image) = with_image();
    fs::write(server.dir().join("secret"), "top secret").expect("a file beside the tree");
    let sentinel = fs::read_dir(server.dir())
        .expect("the folder of the test")
        .map(|entry| entry.expect("an entry").file_name())
        .collect::<std::collections::BTreeSet<_>>();
    let before = tree::snapshot(&server.tree().join("docker"));
    let climbs = [
        "..",
        "../..",
        "../../../../../secret",
        "%2e%2e",
        "%2e%2e%2f%2e%2e",
        ".%2e/%2e.",
        "..%5c..",
        "..\\..",
        "..%00",
        "....//....//",
        "/etc",
        "//etc",
        "%2fetc%2fpasswd",
        "..;/",
        "%c0%ae%c0%ae%c0%af",
        "%252e%252e%252f",
        "a/../../../../../../secret",
    ];
    let digest = image.digest();
    for climb in climbs {
        for (method, target) in [
            ("GET", format!("/v2/{climb}/manifests/v1")),
            ("GET", format!("/v2/{climb}/tags/list")),
            ("GET", format!("/v2/team/app/manifests/{climb}")),
            ("GET", format!("/v2/team/app/blobs/{climb}")),
            ("GET", format!("/v2/team/app/blobs/sha256:{climb}")),
            ("GET", format!("/v2/team/app/referrers/sha256:{climb}")),
            ("GET", format!("/v2/_catalog?last={climb}")),
            ("GET", format!("/v2/team/app/tags/list?last={climb}")),
            ("GET", format!("/{climb}")),
            ("PUT", format!("/v2/{climb}/manifests/v1")),
            ("PUT", format!("/v2/team/app/manifests/{climb}")),
            (
                "PUT",
                format!("/v2/team/app/manifests/{digest}?tag={climb}"),
            ),
            ("POST", format!("/v2/{climb}/blobs/uploads/")),
            (
                "POST",
                format!("/v2/team/app/blobs/uploads/?mount={digest}&from={climb}"),
            ),
            ("PATCH", format!("/v2/team/app/blobs/uploads/{climb}")),
            ("DELETE", format!("/v2/team/app/blobs/uploads/{climb}")),
            ("DELETE", format!("/v2/{climb}/manifests/v1")),
            ("DELETE", format!("/v2/team/app/manifests/{climb}")),
            ("DELETE", format!("/v2/team/app/blobs/{climb}")),
        ] {
            let what = format!("{method} {target}");
            let Ok(reply) = server
                .client()
                .request(method, &target)
                .body(image.manifest.bytes())
                .try_send()
            else {
                panic!("{what}: no answer")
            };
            assert!(reply.status < 500, "{what}: {reply:?}");
            assert!(!reply.text().contains("top secret"), "{what}");
            assert!(!reply.text().contains("root:"), "{what}");
            if target.contains("last=") {
                assert_eq!(reply.status, 200, "{what}: {reply:?}");
            } else {
                // A server may also refuse a target that is none without looking further.
                assert!(matches!(reply.status, 400..=499), "{what}: {reply:?}");
            }
        }
    }
    assert_eq!(tree::snapshot(&server.tree().join("docker")), before);
    let after = fs::read_dir(server.dir())
        .expect("the folder of the test")
        .map(|entry| entry.expect("an entry").file_name())
        .collect::<std::collections::BTreeSet<_>>();
    assert_eq!(after, sentinel);
    assert!(!Path::new("/secret").exists());
    assert_eq!(
        fs::read_to_string(server.dir().join("secret")).unwrap(),
        "top secret"
    );
}

/// Whatever a client says, it gets an answer of the 4xx kind or is cut off, and the next one is served.
#[test]
fn nonsense_is_answered_and_harms_nobody() {
    let seed = seed("nonsense_is_answered_and_harms_nobody");
    let mut rng = Rng::new(seed);
    let (mut server, _image) = with_image();
    let pieces = [
        "GET ",
        "PUT ",
        "PATCH ",
        "/v2/",
        "team/app",
        "/manifests/",
        "/blobs/",
        "uploads/",
        "?",
        "&",
        "=",
        "%",
        "%00",
        "%2f",
        "..",
        "sha256:",
        "digest=",
        "mount=",
        "n=",
        "last=",
        "\u{7f}",
        "\t",
        " ",
        "HTTP/1.1",
        "[",
        "]",
        "{",
        "\"",
        "\\",
        "|",
        "^",
        "#",
        "@",
        ":",
        ";",
    ];
    for round in 0..300 {
        let mut line = rng.pick(&["GET ", "PUT ", "POST ", "DELETE "]).to_string();
        for _ in 0..1 + rng.below(12) {
            line.push_str(rng.pick::<&str>(&pieces));
        }
        let request =
            format!("{line} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        match server.client().raw(request.as_bytes()) {
            Ok(reply) => assert!(
                reply.status < 500,
                "round {round}, REGISTRY_SEED={seed}: {line:?}: {reply:?}"
            ),
            Err(e) => assert!(
                e.kind() != std::io::ErrorKind::WouldBlock,
                "round {round}, REGISTRY_SEED={seed}: {line:?} is never answered"
            ),
        }
    }
    assert_eq!(server.ended(), None);
    assert!(!server.log().contains("panicked"), "REGISTRY_SEED={seed}");
    server.client().get("/v2/").send().expect(200);
}

/// Requests whose ends two servers in a row would see at different places.
#[test]
fn heads_that_can_be_read_in_two_ways_are_refused() {
    let (server, client) = serve();
    let location = open_upload(&client, "team/app");
    for head in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5x\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
    ] {
        let request = format!(
            "PATCH {location} HTTP/1.1\r\nHost: x\r\n{head}Connection: close\r\n\r\n0\r\n\r\n"
        );
        let reply = client.raw(request.as_bytes());
        match reply {
            Ok(reply) => assert!((400..=501).contains(&reply.status), "{head:?}: {reply:?}"),
            Err(e) => assert_ne!(e.kind(), std::io::ErrorKind::WouldBlock, "{head:?}"),
        }
    }
    let status = client.get(&location).send().expect(204);
    assert_eq!(status.header("range"), Some("0-0"), "nothing was taken");
    assert!(!server.log().contains("panicked"));
}

#[test]
fn a_broken_chunk_is_400_and_what_came_before_it_stays() {
    let (server, client) = serve();
    let location = open_upload(&client, "team/app");
    let mut exchange = client.patch(&location).start_chunked().expect("sent");
    exchange.write(b"good").expect("sent");
    exchange.write_raw(b"zz\r\nbad\r\n").expect("sent");
    if let Ok(reply) = exchange.response() {
        assert_eq!(reply.status, 400, "{reply:?}");
        assert_well_formed(&server, "a broken chunk", &reply);
    }
    let good = Blob::new(*b"good and more");
    crate::support::server::eventually("the session is free again", || {
        let reply = client.patch(&location).body(*b"").send();
        (reply.status == 202).then_some(())
    });
    let status = client.get(&location).send().expect(204);
    let rest = match status.header("range") {
        Some("0-3") => &good.bytes[4..],
        Some("0-0") => &good.bytes[..],
        other => panic!("{other:?}"),
    };
    client
        .put(&with_query(&location, "digest", &good.digest))
        .body(rest)
        .send()
        .expect(201);
}

/// Whoever opens connections and says nothing does not keep others out.
#[test]
fn connections_that_say_nothing_harm_nobody() {
    let (server, client) = serve();
    let silent: Vec<TcpStream> = (0..64)
        .map(|n| {
            let mut stream = TcpStream::connect(server.addr()).expect("connects");
            if n % 2 == 0 {
                stream
                    .write_all(b"GET /v2/ HTTP/1.1\r\nHost:")
                    .expect("sent");
            }
            stream
        })
        .collect();
    push_blob(&client, "team/app", &Blob::random(3, 1000));
    client.get("/v2/").send().expect(200);
    drop(silent);
}

#[test]
fn every_answer_says_that_it_is_a_registry_and_that_nothing_is_to_be_guessed() {
    let (server, image) = with_image();
    let client: Client = server.client();
    for target in [
        "/v2/",
        "/v2/team/app/manifests/v1",
        "/v2/team/app/manifests/v2",
        "/v2/BAD/tags/list",
        "/nowhere",
        &format!("/v2/team/app/blobs/{}", image.config.digest),
    ] {
        let reply = client.get(target).send();
        assert_eq!(
            reply.header("docker-distribution-api-version"),
            Some("registry/2.0"),
            "{target}"
        );
        assert_eq!(
            reply.header("x-content-type-options"),
            Some("nosniff"),
            "{target}"
        );
    }
}
