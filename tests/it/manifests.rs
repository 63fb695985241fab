//! Pushing manifests: every kind, what they refer to, limits, conditions, and several tags at once (distribution-spec,
//! "Pushing Manifests").

use std::{sync::Barrier, thread};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};

use crate::support::{
    http::{Client, Response},
    image::{
        Algorithm, Blob, DOCKER_LIST, DOCKER_MANIFEST, Image, Manifest, OCI_CONFIG, OCI_EMPTY,
        OCI_INDEX, OCI_LAYER, OCI_MANIFEST, push_blob, sha256,
    },
    server::{Server, serve},
};

const LIMIT: usize = 4 * 1024 * 1024;
const FOREIGN_LAYER: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

/// PUT of any bytes, with any type or none.
fn put(client: &Client, target: &str, media_type: Option<&str>, bytes: &[u8]) -> Response {
    let put = client.put(&format!("/v2/{target}"));
    match media_type {
        Some(media_type) => put.header("Content-Type", media_type),
        None => put,
    }
    .body(bytes)
    .send()
}

/// The manifest comes back, byte for byte, with this type, by tag and digest.
#[track_caller]
fn assert_stored(client: &Client, repo: &str, tag: &str, media_type: &str, bytes: &[u8]) {
    for reference in [tag, &sha256(bytes)] {
        let reply = client
            .get(&format!("/v2/{repo}/manifests/{reference}"))
            .send()
            .expect(200);
        assert_eq!(reply.body, bytes, "{reference}");
        assert_eq!(
            reply.header("content-type"),
            Some(media_type),
            "{reference}"
        );
        assert_eq!(
            reply.header("docker-content-digest"),
            Some(sha256(bytes).as_str())
        );
    }
}

/// `image`'s manifest with other fields; its blobs are pushed.
fn edited(client: &Client, repo: &str, image: &Image, edit: impl FnOnce(&mut Value)) -> Manifest {
    for blob in image.blobs() {
        push_blob(client, repo, blob);
    }
    image.manifest.edit(edit)
}

#[test]
fn images_and_indexes_of_docker_and_oci_are_stored() {
    let (_server, client) = serve();
    let (docker, oci) = (Image::builder(1).docker().build(), Image::new(2));
    docker.push(&client, "team/app", "docker");
    oci.push(&client, "team/app", "oci");
    for (tag, manifest, media_type) in [
        ("docker", docker.manifest.clone(), DOCKER_MANIFEST),
        ("oci", oci.manifest.clone(), OCI_MANIFEST),
        (
            "list",
            Manifest::docker_list([&docker.manifest]),
            DOCKER_LIST,
        ),
        (
            "index",
            Manifest::index([&oci.manifest, &docker.manifest]),
            OCI_INDEX,
        ),
    ] {
        let reply = manifest.push(&client, "team/app", tag);
        assert_eq!(
            reply.header("docker-content-digest"),
            Some(manifest.digest())
        );
        assert_eq!(
            reply.location(),
            format!("/v2/team/app/manifests/{}", manifest.digest())
        );
        assert_eq!(reply.header("oci-subject"), None);
        assert_stored(&client, "team/app", tag, media_type, manifest.bytes());
    }
}

#[test]
fn an_artifact_has_a_type_and_an_empty_config() {
    let (_server, client) = serve();
    let subject = Image::new(3);
    let artifact = Image::artifact(4, "application/vnd.example.sbom.v1", &subject.manifest);
    assert_eq!(
        artifact.manifest.value()["config"]["mediaType"],
        json!(OCI_EMPTY)
    );
    artifact.push(&client, "team/app", artifact.digest());
    artifact.assert_pullable(&client, "team/app", artifact.digest());
}

#[test]
fn configs_and_layers_of_any_type_are_stored() {
    let (_server, client) = serve();
    for (n, (config, layer)) in [
        (
            "application/vnd.cncf.helm.config.v1+json",
            "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
        ),
        ("application/vnd.wasm.config.v0+json", "application/wasm"),
        (
            "application/vnd.buildkit.cacheconfig.v0",
            "application/vnd.oci.image.layer.v1.tar+zstd",
        ),
        (OCI_CONFIG, "application/vnd.in-toto+json"),
        ("text/plain; charset=utf-8", "x/y"),
    ]
    .into_iter()
    .enumerate()
    {
        let manifest = edited(&client, "team/app", &Image::new(5), |value| {
            value["config"]["mediaType"] = json!(config);
            value["layers"][0]["mediaType"] = json!(layer);
        });
        let tag = format!("v{n}");
        manifest.push(&client, "team/app", &tag);
        assert_stored(&client, "team/app", &tag, OCI_MANIFEST, manifest.bytes());
    }
}

/// python-dxf names the data itself as the config: nobody may try to read it.
#[test]
fn a_config_need_not_be_json() {
    let (_server, client) = serve();
    let data = Blob::random(6, 200_000);
    push_blob(&client, "team/app", &data);
    let manifest = Manifest::new(
        DOCKER_MANIFEST,
        &json!({
            "schemaVersion": 2, "mediaType": DOCKER_MANIFEST,
            "config": data.descriptor("application/octet-stream"),
            "layers": [data.descriptor("application/octet-stream")],
        }),
    );
    manifest.push(&client, "team/app", "v1");
    assert_stored(&client, "team/app", "v1", DOCKER_MANIFEST, manifest.bytes());
}

#[test]
fn a_manifest_may_have_no_layers() {
    let (_server, client) = serve();
    let config = Blob::empty_json();
    push_blob(&client, "team/app", &config);
    for (tag, layers) in [("empty", json!([])), ("null", Value::Null)] {
        let manifest = Manifest::new(
            OCI_MANIFEST,
            &json!({
                "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "application/x",
                "config": config.descriptor(OCI_EMPTY), "layers": layers,
            }),
        );
        manifest.push(&client, "team/app", tag);
        assert_stored(&client, "team/app", tag, OCI_MANIFEST, manifest.bytes());
    }
    for (tag, manifests) in [("none", json!([])), ("null-too", Value::Null)] {
        if manifests.is_null() {
            continue; // what lists nothing at all is no index
        }
        let index = Manifest::new(
            OCI_INDEX,
            &json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests }),
        );
        index.push(&client, "team/app", tag);
        assert_stored(&client, "team/app", tag, OCI_INDEX, index.bytes());
    }
}

#[test]
fn unknown_fields_and_the_writing_itself_are_kept_byte_for_byte() {
    let (_server, client) = serve();
    let image = Image::new(7);
    let value = edited(&client, "team/app", &image, |value| {
        value["x-unknown"] = json!({ "nested": [1, 2.5, null, "\u{1F600}"] });
        value["config"]["unknown"] = json!(true);
        value["layers"][0]["annotations"] = json!({ "a": "b" });
    })
    .value();
    let compact = value.to_string();
    let pretty = serde_json::to_string_pretty(&value).unwrap();
    for (tag, text) in [
        ("compact", compact.clone()),
        ("pretty", pretty.clone()),
        ("tabs", pretty.replace("  ", "\t")),
        ("crlf", pretty.replace('\n', "\r\n")),
        ("newline", format!("{compact}\n")),
        ("blanks", format!("\n\n  {compact}  \n\n")),
        (
            "escaped",
            compact.replace("application", "\\u0061pplication"),
        ),
        ("slashes", compact.replace('/', "\\/")),
        ("twice", compact.replacen('{', "{\"x-a\":1,\"x-a\":2,", 1)),
    ] {
        let reply = put(
            &client,
            &format!("team/app/manifests/{tag}"),
            Some(OCI_MANIFEST),
            text.as_bytes(),
        )
        .expect(201);
        assert_eq!(
            reply.header("docker-content-digest"),
            Some(sha256(text.as_bytes()).as_str())
        );
        assert_stored(&client, "team/app", tag, OCI_MANIFEST, text.as_bytes());
    }
}

/// image-spec, descriptor.md: clients take `data` for the blob itself, so it has to be that.
#[test]
fn data_in_descriptors_is_kept_if_it_is_the_content() {
    let (_server, client) = serve();
    let image = Image::new(8);
    let embed = |config: &[u8], layer: &[u8]| {
        let (config, layer) = (BASE64.encode(config), BASE64.encode(layer));
        edited(&client, "team/app", &image, |value| {
            value["config"]["data"] = json!(config);
            value["layers"][0]["data"] = json!(layer);
        })
    };
    let right = embed(&image.config.bytes, &image.layers[0].bytes);
    right.push(&client, "team/app", "v1");
    assert_stored(&client, "team/app", "v1", OCI_MANIFEST, right.bytes());

    let wrong = embed(&image.config.bytes, b"something else");
    let reply = wrong.try_push(&client, "team/app", "v1").unwrap();
    let reply = reply.expect_error(400, "MANIFEST_INVALID");
    let text = String::from_utf8(reply.body).unwrap();
    assert!(
        text.contains("`data`") && text.contains(&image.layers[0].digest),
        "{text}"
    );
    assert_stored(&client, "team/app", "v1", OCI_MANIFEST, right.bytes());
}

#[test]
fn a_missing_media_type_is_that_of_the_content() {
    let (_server, client) = serve();
    let image = Image::new(9);
    let manifest = edited(&client, "team/app", &image, |value| {
        value.as_object_mut().unwrap().remove("mediaType");
    });
    let index = Manifest::index([&manifest]).edit(|value| {
        value.as_object_mut().unwrap().remove("mediaType");
    });
    for (tag, content, header, served) in [
        ("typed", &manifest, Some(OCI_MANIFEST), OCI_MANIFEST),
        ("untyped", &manifest, None, OCI_MANIFEST),
        ("json", &manifest, Some("application/json"), OCI_MANIFEST),
        ("index", &index, Some(OCI_INDEX), OCI_INDEX),
        ("untyped-index", &index, None, OCI_INDEX),
    ] {
        put(
            &client,
            &format!("team/app/manifests/{tag}"),
            header,
            content.bytes(),
        )
        .expect(201);
        assert_stored(&client, "team/app", tag, served, content.bytes());
    }
}

#[test]
fn the_content_decides_when_the_header_says_nothing() {
    let (_server, client) = serve();
    let docker = Image::builder(10).docker().build();
    docker.push(&client, "team/app", "v1");
    for (n, header) in [
        None,
        Some("application/json"),
        Some("application/octet-stream"),
        Some("application/vnd.docker.distribution.manifest.v2+json; charset=utf-8"),
        Some("Application/Vnd.Docker.Distribution.Manifest.V2+JSON"),
    ]
    .into_iter()
    .enumerate()
    {
        let tag = format!("t{n}");
        put(
            &client,
            &format!("team/app/manifests/{tag}"),
            header,
            docker.manifest.bytes(),
        )
        .expect(201);
        assert_stored(
            &client,
            "team/app",
            &tag,
            DOCKER_MANIFEST,
            docker.manifest.bytes(),
        );
    }
}

#[test]
fn a_header_that_contradicts_the_content_is_refused() {
    let (_server, client) = serve();
    let (docker, oci) = (Image::builder(11).docker().build(), Image::new(12));
    docker.push(&client, "team/app", "docker");
    oci.push(&client, "team/app", "oci");
    let index = Manifest::index([&oci.manifest]);
    for (header, content) in [
        (OCI_MANIFEST, &docker.manifest),
        (DOCKER_MANIFEST, &oci.manifest),
        (OCI_INDEX, &oci.manifest),
        (OCI_MANIFEST, &index),
        (DOCKER_LIST, &index),
        ("application/vnd.example.unknown+json", &oci.manifest),
        ("image/png", &oci.manifest),
    ] {
        put(
            &client,
            "team/app/manifests/new",
            Some(header),
            content.bytes(),
        )
        .expect_error(400, "MANIFEST_INVALID");
    }
    client.get("/v2/team/app/manifests/new").send().expect(404);
}

/// CVE-2021-41190: content that two clients read differently.
#[test]
fn what_is_both_an_image_and_an_index_is_refused() {
    let (_server, client) = serve();
    let image = Image::new(13);
    image.push(&client, "team/app", "v1");
    let both = image.manifest.edit(|value| {
        value["manifests"] = json!([image.manifest.descriptor()]);
    });
    let without_type = both.edit(|value| {
        value.as_object_mut().unwrap().remove("mediaType");
    });
    for (header, content) in [
        (Some(OCI_MANIFEST), &both),
        (Some(OCI_MANIFEST), &without_type),
        (Some(OCI_INDEX), &without_type),
        (None, &without_type),
    ] {
        put(&client, "team/app/manifests/both", header, content.bytes())
            .expect_error(400, "MANIFEST_INVALID");
    }
}

/// What BuildKit writes with `--export-cache` unless it is told to write images: layers and a configuration.
#[test]
fn an_index_may_list_blobs_of_its_repository() {
    let (_server, client) = serve();
    let (layer, config) = (Blob::random(71, 500), Blob::new("{\"layers\":[]}"));
    let index = Manifest::build_cache(&layer, &config);
    let push = || {
        let put = client.put("/v2/cache/manifests/buildcache");
        put.header("Content-Type", OCI_INDEX)
            .body(index.bytes())
            .send()
    };
    push_blob(&client, "cache", &layer);
    let refusal = push().expect_error(400, "MANIFEST_BLOB_UNKNOWN");
    let error = &refusal.json()["errors"];
    assert_eq!(error[0]["detail"]["digest"], json!(config.digest));
    push_blob(&client, "cache", &config);
    push().expect(201);
    let pulled = client.get("/v2/cache/manifests/buildcache").send();
    assert_eq!(pulled.expect(200).body, index.bytes());
}

/// Other registries cannot read it, and the garbage collection of distribution ends at it.
#[test]
fn arrays_in_the_place_of_objects_are_refused() {
    let (_server, client) = serve();
    let image = Image::new(72);
    image.push(&client, "team/app", "v1");
    let config = &image.manifest.value()["config"];
    let array = json!([
        config["mediaType"],
        config["digest"],
        config["size"],
        [],
        null
    ]);
    for body in [
        json!([2, OCI_MANIFEST, null, array, [], null, null, {}, null]),
        json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": array, "layers": [] }),
        json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [array] }),
    ] {
        let put = client.put("/v2/team/app/manifests/array");
        let put = put.header("Content-Type", OCI_MANIFEST);
        let refusal = put.body(body.to_string()).send();
        let refusal = refusal.expect_error(400, "MANIFEST_INVALID").text();
        assert!(refusal.contains("expected a JSON object"), "{refusal}");
        assert!(!refusal.contains("struct"), "{refusal}");
    }
    client
        .get("/v2/team/app/manifests/array")
        .send()
        .expect(404);
}

#[test]
fn an_index_may_list_indexes() {
    let (_server, client) = serve();
    let (a, b) = (Image::new(14), Image::builder(15).docker().build());
    a.push(&client, "team/app", a.digest());
    b.push(&client, "team/app", b.digest());
    let inner = Manifest::index([&a.manifest, &b.manifest]);
    let middle = Manifest::docker_list([&inner, &a.manifest]);
    let outer = Manifest::index([&middle, &inner]);
    // Children first.
    outer
        .try_push(&client, "team/app", "outer")
        .expect("an answer")
        .expect_error(400, "MANIFEST_BLOB_UNKNOWN");
    inner.push(&client, "team/app", inner.digest());
    middle.push(&client, "team/app", middle.digest());
    outer.push(&client, "team/app", "outer");
    assert_stored(&client, "team/app", "outer", OCI_INDEX, outer.bytes());
}

#[test]
fn references_that_are_not_there_are_named_one_by_one() {
    let (_server, client) = serve();
    let image = Image::builder(16).layers(3).build();
    let unknown = |reply: Response| -> Vec<String> {
        let reply = reply.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
        let errors = reply.json()["errors"].as_array().unwrap().clone();
        let digest = |error: &Value| error["detail"]["digest"].as_str().unwrap().to_owned();
        assert!(
            errors
                .iter()
                .all(|error| error["code"] == "MANIFEST_BLOB_UNKNOWN")
        );
        let mut digests: Vec<String> = errors.iter().map(digest).collect();
        digests.sort();
        digests
    };
    let mut missing: Vec<Blob> = image.blobs().cloned().collect();
    missing.sort_by(|a, b| a.digest.cmp(&b.digest));
    while let Some(next) = missing.pop() {
        let reply = image.manifest.try_push(&client, "team/app", "v1").unwrap();
        let mut expected: Vec<String> = missing.iter().map(|blob| blob.digest.clone()).collect();
        expected.push(next.digest.clone());
        assert_eq!(unknown(reply), expected);
        client.get("/v2/team/app/manifests/v1").send().expect(404);
        // In another repository is not here.
        push_blob(&client, "team/other", &next);
        push_blob(&client, "team/app", &next);
    }
    image.manifest.push(&client, "team/app", "v1");
    let index = Manifest::index([&image.manifest]);
    let reply = index.try_push(&client, "team/other", "v1").unwrap();
    assert_eq!(unknown(reply), [image.digest()]);
}

#[test]
fn a_reference_with_a_wrong_size_is_refused() {
    let (_server, client) = serve();
    for (n, wrong) in [0, 4095, 4097, u64::MAX / 2].into_iter().enumerate() {
        let manifest = edited(&client, "team/app", &Image::new(17), |value| {
            value["layers"][0]["size"] = json!(wrong);
        });
        manifest
            .try_push(&client, "team/app", &format!("v{n}"))
            .unwrap()
            .expect_error(400, "SIZE_INVALID");
    }
}

#[test]
fn validation_can_be_switched_off() {
    let server = Server::new().set("validation.disabled", "true").start();
    let client = server.client();
    let image = Image::new(18);
    image.manifest.push(&client, "team/app", "v1");
    assert_stored(
        &client,
        "team/app",
        "v1",
        OCI_MANIFEST,
        image.manifest.bytes(),
    );
}

#[test]
fn a_subject_may_come_before_after_or_never() {
    let (_server, client) = serve();
    let subject = Image::new(19);
    let before = Image::artifact(20, "application/x", &subject.manifest);
    let after = Image::artifact(21, "application/x", &subject.manifest);
    let reply = before.push(&client, "team/app", before.digest());
    assert_eq!(reply.header("oci-subject"), Some(subject.digest()));
    subject.push(&client, "team/app", "v1");
    let reply = after.push(&client, "team/app", "with-a-tag");
    assert_eq!(reply.header("oci-subject"), Some(subject.digest()));
    // An index can be about something, too.
    let index = Manifest::index([&subject.manifest]).edit(|value| {
        value["subject"] = Manifest::index([&before.manifest]).descriptor();
        value["artifactType"] = json!("application/x");
    });
    let reply = index.push(&client, "team/app", "index");
    assert_eq!(
        reply.header("oci-subject"),
        Some(Manifest::index([&before.manifest]).digest())
    );
}

#[test]
fn a_sparse_index_is_taken_where_the_configuration_says_so() {
    let image = Image::new(22);
    let absent = Image::new(23);
    let index = Manifest::index([&image.manifest, &absent.manifest]); // linux/amd64, linux/arm64
    let list = r#"[{ architecture: amd64, os: linux }]"#;
    let other = r#"[{ architecture: arm64, os: linux }]"#;
    for (settings, taken) in [
        (vec![], false),
        (vec![("platforms", "all")], false),
        (vec![("platforms", "none")], true),
        (vec![("platforms", "list"), ("platformlist", list)], true),
        (vec![("platforms", "list"), ("platformlist", other)], false),
    ] {
        let server = settings.iter().fold(Server::new(), |server, (key, value)| {
            server.set(&format!("validation.manifests.indexes.{key}"), value)
        });
        let server = server.start();
        let client = server.client();
        image.push(&client, "team/app", "v1");
        let reply = index.try_push(&client, "team/app", "multi").unwrap();
        if taken {
            reply.expect(201);
            assert_stored(&client, "team/app", "multi", OCI_INDEX, index.bytes());
        } else {
            reply.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
        }
    }
}

/// A manifest with a layer that lies at `urls`.
fn with_foreign_layer(client: &Client, media_type: &str, urls: Value) -> Manifest {
    let image = Image::builder(24).docker().build();
    edited(client, "team/app", &image, |value| {
        value["layers"].as_array_mut().unwrap().push(json!({
            "mediaType": media_type, "size": 1234, "digest": sha256(b"elsewhere"), "urls": urls,
        }));
    })
}

#[test]
fn foreign_layers_need_not_be_there() {
    let (_server, client) = serve();
    for (tag, media_type) in [
        ("docker", FOREIGN_LAYER),
        (
            "oci",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        ),
    ] {
        let urls = json!(["https://mirror.example/layer.tar.gz"]);
        let manifest = with_foreign_layer(&client, media_type, urls);
        manifest.push(&client, "team/app", tag);
        assert_stored(&client, "team/app", tag, DOCKER_MANIFEST, manifest.bytes());
    }
}

#[test]
fn the_configuration_says_where_foreign_layers_may_lie() {
    let server = Server::new()
        .set(
            "validation.manifests.urls.allow",
            r#"['^https?://[^/]+\.example/']"#,
        )
        .set(
            "validation.manifests.urls.deny",
            r#"['^https?://evil\.example/']"#,
        )
        .start();
    let client = server.client();
    for (url, taken) in [
        ("https://mirror.example/layer", true),
        ("http://mirror.example/layer", true),
        ("https://evil.example/layer", false),
        ("https://mirror.test/layer", false),
        ("file:///etc/passwd", false),
        ("mirror.example/layer", false),
    ] {
        let manifest = with_foreign_layer(&client, FOREIGN_LAYER, json!([url]));
        let reply = manifest.try_push(&client, "team/app", "v1").unwrap();
        if taken {
            reply.expect(201);
        } else {
            reply.expect_error(400, "MANIFEST_INVALID");
        }
    }
}

#[test]
fn schema_1_is_refused_with_a_sentence() {
    let (_server, client) = serve();
    let blob = Blob::random(25, 100);
    push_blob(&client, "team/app", &blob);
    let unsigned = json!({
        "schemaVersion": 1, "name": "team/app", "tag": "v1", "architecture": "amd64",
        "fsLayers": [{ "blobSum": blob.digest }],
        "history": [{ "v1Compatibility": "{}" }],
    });
    let mut signed = unsigned.clone();
    signed["signatures"] = json!([{ "header": {}, "signature": "x", "protected": "y" }]);
    for (header, value) in [
        (
            Some("application/vnd.docker.distribution.manifest.v1+json"),
            &unsigned,
        ),
        (
            Some("application/vnd.docker.distribution.manifest.v1+prettyjws"),
            &signed,
        ),
        (Some("application/json"), &signed),
        (None, &unsigned),
    ] {
        let reply = put(
            &client,
            "team/app/manifests/v1",
            header,
            value.to_string().as_bytes(),
        )
        .expect_error(400, "MANIFEST_INVALID");
        let message = reply.json()["errors"][0]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(
            message.contains("schema 1") && message.contains("no longer supported"),
            "{message}"
        );
    }
}

/// A manifest of exactly `len` bytes.
fn padded(client: &Client, repo: &str, len: usize) -> Manifest {
    let image = Image::new(26);
    let pad = |padding: usize| {
        image.manifest.edit(|value| {
            value["annotations"]["padding"] = json!("x".repeat(padding));
        })
    };
    for blob in image.blobs() {
        push_blob(client, repo, blob);
    }
    let manifest = pad(len - pad(0).bytes().len());
    assert_eq!(manifest.bytes().len(), len);
    manifest
}

#[test]
fn a_manifest_of_4_mib_is_stored_and_one_byte_more_is_413() {
    let (_server, client) = serve();
    let largest = padded(&client, "team/app", LIMIT);
    largest.push(&client, "team/app", "largest");
    assert_stored(
        &client,
        "team/app",
        "largest",
        OCI_MANIFEST,
        largest.bytes(),
    );
    let too_large = padded(&client, "team/app", LIMIT + 1);
    let refused = [
        too_large.try_push(&client, "team/app", "too-large"),
        too_large.try_push(&client, "team/app", too_large.digest()),
        // Without a length it is only found out on the way.
        client
            .put("/v2/team/app/manifests/too-large")
            .header("Content-Type", OCI_MANIFEST)
            .chunked(too_large.bytes(), 100_000)
            .try_send(),
        client
            .put("/v2/team/app/manifests/too-large")
            .header("Content-Type", OCI_MANIFEST)
            .body(too_large.bytes())
            .expect_continue()
            .try_send(),
    ];
    for reply in refused {
        reply
            .expect("an answer")
            .expect_error(413, "MANIFEST_INVALID");
    }
    client
        .get("/v2/team/app/manifests/too-large")
        .send()
        .expect(404);
}

#[test]
fn the_limit_of_a_manifest_can_be_set() {
    let server = Server::new()
        .set("validation.manifests.maxsize", "8KiB")
        .start();
    let client = server.client();
    padded(&client, "team/app", 8192).push(&client, "team/app", "v1");
    padded(&client, "team/app", 8193)
        .try_push(&client, "team/app", "v2")
        .unwrap()
        .expect_error(413, "MANIFEST_INVALID");
}

#[test]
fn a_manifest_pushed_by_digest_has_to_have_it() {
    let (_server, client) = serve();
    let image = Image::new(27);
    for blob in image.blobs() {
        push_blob(&client, "team/app", blob);
    }
    for digest in [sha256(b"other"), Algorithm::Sha512.digest(b"other")] {
        image
            .manifest
            .try_push(&client, "team/app", &digest)
            .unwrap()
            .expect_error(400, "DIGEST_INVALID");
        client
            .get(&format!("/v2/team/app/manifests/{digest}"))
            .send()
            .expect(404);
    }
    let reply = image.manifest.push(&client, "team/app", image.digest());
    assert_eq!(reply.header("docker-content-digest"), Some(image.digest()));
    // By digest alone: no tag.
    let list = client.get("/v2/team/app/tags/list").send().expect(200);
    assert_eq!(list.json(), json!({ "name": "team/app", "tags": [] }));
}

#[test]
fn one_push_by_digest_may_set_many_tags() {
    let (_server, client) = serve();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let repo = match algorithm {
            Algorithm::Sha256 => "team/app",
            Algorithm::Sha512 => "team/long",
        };
        let image = Image::builder(28).algorithm(algorithm).build();
        for blob in image.blobs() {
            push_blob(&client, repo, blob);
        }
        let tags: Vec<String> = (0..16).map(|n| format!("1.2.{n}")).collect();
        let query: Vec<String> = tags.iter().map(|tag| format!("tag={tag}")).collect();
        let reply = put(
            &client,
            &format!("{repo}/manifests/{}?{}", image.digest(), query.join("&")),
            Some(OCI_MANIFEST),
            image.manifest.bytes(),
        )
        .expect(201);
        let mut said: Vec<&str> = reply
            .header_values("oci-tag")
            .into_iter()
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .collect();
        said.sort_unstable();
        let mut expected: Vec<&str> = tags.iter().map(String::as_str).collect();
        expected.sort_unstable();
        assert_eq!(said, expected);
        for tag in &tags {
            image.assert_pullable(&client, repo, tag);
        }
        let list = client.get(&format!("/v2/{repo}/tags/list")).send();
        assert_eq!(list.expect(200).json()["tags"], json!(expected));
    }
}

#[test]
fn a_bad_tag_among_many_sets_none() {
    let (_server, client) = serve();
    let image = Image::new(29);
    for blob in image.blobs() {
        push_blob(&client, "team/app", blob);
    }
    for bad in ["-x", "a%2Fb", "", &"x".repeat(129)] {
        put(
            &client,
            &format!("team/app/manifests/{}?tag=good&tag={bad}", image.digest()),
            Some(OCI_MANIFEST),
            image.manifest.bytes(),
        )
        .expect_error(400, "TAG_INVALID");
    }
    client.get("/v2/team/app/manifests/good").send().expect(404);
    // With a tag in the path there is no room for others.
    put(
        &client,
        "team/app/manifests/v1?tag=v2",
        Some(OCI_MANIFEST),
        image.manifest.bytes(),
    )
    .expect_error(400, "TAG_INVALID");
}

#[test]
fn a_tag_moves_and_the_old_manifest_stays() {
    let (_server, client) = serve();
    let images: Vec<Image> = (30..34).map(Image::new).collect();
    for image in &images {
        image.push(&client, "team/app", "latest");
        image.assert_pullable(&client, "team/app", "latest");
    }
    for image in &images {
        image.assert_pullable(&client, "team/app", image.digest());
    }
    // And back.
    images[0].manifest.push(&client, "team/app", "latest");
    images[0].assert_pullable(&client, "team/app", "latest");
}

#[test]
fn tags_of_every_allowed_form_are_taken() {
    let (_server, client) = serve();
    let image = Image::new(34);
    for tag in [
        "latest",
        "v1.2.3-rc.1_x",
        "_",
        "0",
        "UPPER",
        "sha256",
        &image.digest().replace(':', "-"),
        &format!("{}.sig", image.digest().replace(':', "-")),
        &"x".repeat(128),
        "current",
        "link",
        "index",
    ] {
        image.push(&client, "team/app", tag);
        image.assert_pullable(&client, "team/app", tag);
    }
}

/// Names of the disk's own parts, where the specification allows them.
#[test]
fn repositories_may_be_called_like_parts_of_the_api() {
    let (_server, client) = serve();
    let image = Image::new(35);
    for repo in [
        "manifests",
        "blobs",
        "tags",
        "uploads",
        "blobs/uploads",
        "a/tags/list",
        "a/manifests",
        "a/blobs/uploads",
        "referrers",
        "v2",
        "link/current/data",
    ] {
        image.push(&client, repo, "v1");
        image.assert_pullable(&client, repo, "v1");
        let list = client.get(&format!("/v2/{repo}/tags/list")).send();
        assert_eq!(
            list.expect(200).json(),
            json!({ "name": repo, "tags": ["v1"] })
        );
    }
}

#[test]
fn a_name_of_255_characters_is_taken() {
    let (_server, client) = serve();
    let image = Image::new(36);
    for repo in ["a".repeat(255), format!("{}b", "a/".repeat(127))] {
        image.push(&client, &repo, "v1");
        image.assert_pullable(&client, &repo, "v1");
    }
}

#[test]
fn a_manifest_is_replaced_only_if_it_is_the_expected_one() {
    let (_server, client) = serve();
    let (one, two, three) = (Image::new(37), Image::new(38), Image::new(39));
    for image in [&one, &two, &three] {
        for blob in image.blobs() {
            push_blob(&client, "team/app", blob);
        }
    }
    let put = |image: &Image, condition: &str, value: &str| {
        client
            .put("/v2/team/app/manifests/latest")
            .header("Content-Type", OCI_MANIFEST)
            .header(condition, value)
            .body(image.manifest.bytes())
            .send()
    };
    let etag = |image: &Image| format!("\"{}\"", image.digest());
    // There is nothing yet.
    put(&one, "If-Match", &etag(&one)).expect(412);
    put(&one, "If-Match", "*").expect(412);
    let reply = put(&one, "If-None-Match", "*").expect(201);
    assert_eq!(reply.header("etag"), Some(etag(&one).as_str()));
    // Now there is.
    put(&two, "If-None-Match", "*").expect_error(412, "MANIFEST_INVALID");
    put(&two, "If-Match", &etag(&two)).expect(412);
    put(&two, "If-Match", "\"no digest\"").expect(412);
    one.assert_pullable(&client, "team/app", "latest");
    put(&two, "If-Match", &etag(&one)).expect(201);
    put(&three, "If-Match", &etag(&one)).expect(412);
    two.assert_pullable(&client, "team/app", "latest");
    put(
        &three,
        "If-Match",
        &format!("{}, {}", etag(&one), etag(&two)),
    )
    .expect(201);
    put(&one, "If-Match", "*").expect(201);
    one.assert_pullable(&client, "team/app", "latest");
}

/// Clients that keep a list in a tag (the referrers tag schema) rely on it.
#[test]
fn of_many_that_want_to_replace_one_manifest_one_wins() {
    let (_server, client) = serve();
    let images: Vec<Image> = (40..46).map(Image::new).collect();
    for image in &images {
        for blob in image.blobs() {
            push_blob(&client, "team/app", blob);
        }
    }
    let mut condition = ("If-None-Match", "*".to_owned());
    let mut current = String::new();
    for _round in 0..5 {
        let others = images.iter().filter(|image| image.digest() != current);
        let start = Barrier::new(others.count());
        let replies: Vec<(u16, &Image)> = thread::scope(|scope| {
            let pushes: Vec<_> = images
                .iter()
                .filter(|image| image.digest() != current) // which would change nothing
                .map(|image| {
                    let (client, start, condition) = (&client, &start, &condition);
                    scope.spawn(move || {
                        let put = client
                            .put("/v2/team/app/manifests/list")
                            .header("Content-Type", OCI_MANIFEST)
                            .header(condition.0, &condition.1)
                            .body(image.manifest.bytes());
                        start.wait();
                        (put.send().status, image)
                    })
                })
                .collect();
            pushes
                .into_iter()
                .map(|push| push.join().unwrap())
                .collect()
        });
        let winners: Vec<&Image> = replies
            .iter()
            .filter(|(status, _)| *status == 201)
            .map(|(_, image)| *image)
            .collect();
        let reply = client.get("/v2/team/app/manifests/list").send().expect(200);
        let digest = reply.header("docker-content-digest").unwrap().to_owned();
        assert_eq!(winners.len(), 1, "{replies:?}");
        assert_eq!(winners[0].digest(), digest);
        assert!(
            replies
                .iter()
                .all(|(status, _)| matches!(status, 201 | 412)),
            "{replies:?}"
        );
        condition = ("If-Match", format!("\"{digest}\""));
        current = digest;
    }
}

#[test]
fn what_was_pushed_is_seen_by_every_next_request() {
    let (_server, client) = serve();
    thread::scope(|scope| {
        for n in 0..4_u64 {
            let client = client.clone();
            scope.spawn(move || {
                let repo = format!("team/app-{}", n % 2);
                for round in 0..10 {
                    let image = Image::new(1000 + n * 100 + round);
                    let tag = format!("t{n}");
                    image.push(&client, &repo, &tag);
                    // On connections of its own.
                    let other = client.clone().without_keep_alive();
                    image.assert_pullable(&other, &repo, &tag);
                    let tags = other.get(&format!("/v2/{repo}/tags/list")).send();
                    assert!(
                        tags.expect(200).json()["tags"]
                            .as_array()
                            .unwrap()
                            .contains(&json!(tag))
                    );
                }
            });
        }
    });
}

#[test]
fn a_layer_that_is_listed_twice_is_one_blob() {
    let (_server, client) = serve();
    let layer = Blob::random(47, 500);
    let manifest = edited(&client, "team/app", &Image::new(47), |value| {
        let descriptor = layer.descriptor(OCI_LAYER);
        value["layers"] = json!([descriptor, descriptor]);
    });
    push_blob(&client, "team/app", &layer);
    manifest.push(&client, "team/app", "v1");
    assert_stored(&client, "team/app", "v1", OCI_MANIFEST, manifest.bytes());
}
