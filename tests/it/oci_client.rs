//! The `oci-client` crate, which Rust programs (Spin, Kubewarden, wasmCloud) pull and push with: of the real clients the only one
//! that uploads in parts with `Content-Range`. It is a library, so its stories are told here.

use std::collections::BTreeMap;
use std::fs;

use oci_client::client::{
    BlobResponse, Certificate, CertificateEncoding, ClientConfig, ClientProtocol, Config,
    ImageLayer,
};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::{
    IMAGE_LAYER_MEDIA_TYPE, ImageIndexEntry, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE,
    OciDescriptor, OciImageIndex, OciImageManifest,
};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};

use crate::auth::Home;
use crate::support::image::{Blob, sha256};
use crate::support::server::Server;

const ANONYMOUS: &RegistryAuth = &RegistryAuth::Anonymous;

/// What makes a client trust the CA of `server` and no other.
fn trusting(server: &Server) -> ClientConfig {
    ClientConfig {
        protocol: ClientProtocol::Https,
        tls_certs_only: vec![Certificate {
            encoding: CertificateEncoding::Pem,
            data: fs::read(server.dir().join("tls/ca.crt")).unwrap(),
        }],
        ..ClientConfig::default()
    }
}

fn client(server: &Server) -> Client {
    // It leaves the choice to the program; a second call is one too many, and no harm.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::new(trusting(server))
}

fn with_tls(server: Server) -> Server {
    let folder = server.dir().join("tls");
    server
        .set("http.tls.selfsigned.enabled", "true")
        .set("http.tls.selfsigned.directory", folder.to_str().unwrap())
        .start()
}

fn reference(server: &Server, rest: &str) -> Reference {
    format!("localhost:{}/{rest}", server.addr().port())
        .parse()
        .unwrap()
}

/// Layers of more than two parts (of 4 MiB), of exactly one, and of less.
fn layers() -> Vec<ImageLayer> {
    [(1, 9 << 20), (2, 4 << 20), (3, 1000)]
        .map(|(seed, size)| ImageLayer::oci_v1(Blob::random(seed, size).bytes, None))
        .into()
}

async fn push(client: &Client, image: &Reference, auth: &RegistryAuth) -> OciImageManifest {
    let (layers, config) = (layers(), Config::oci_v1(&b"{}"[..], None));
    let manifest = OciImageManifest::build(&layers, &config, None);
    client
        .push(image, &layers, config, auth, Some(manifest.clone()))
        .await
        .unwrap();
    manifest
}

async fn assert_pullable(client: &Client, image: &Reference, auth: &RegistryAuth) {
    let pulled = client
        .pull(image, auth, vec![IMAGE_LAYER_MEDIA_TYPE])
        .await
        .unwrap();
    let mut found: Vec<String> = pulled.layers.iter().map(|l| sha256(&l.data)).collect();
    let mut expected: Vec<String> = layers().iter().map(|l| sha256(&l.data)).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn it_pushes_in_parts_and_pulls() {
    let server = with_tls(Server::new());
    let (client, image) = (client(&server), reference(&server, "rust/app:1"));
    push(&client, &image, ANONYMOUS).await;
    // Nothing of the push is left in this one.
    assert_pullable(&self::client(&server), &image, ANONYMOUS).await;
    let parts = server
        .log()
        .lines()
        .filter(|line| line.contains(" append-upload rust/app ") && line.contains(" status=202 "))
        .count();
    assert_eq!(parts, 3 + 1 + 1 + 1, "three layers and a configuration");

    // The other ways of its library: one request, and a digest that is known at the end.
    let whole = Blob::random(7, 5 << 20);
    let stream = |bytes: &[u8]| {
        let parts: Vec<Result<_, OciDistributionError>> = bytes
            .chunks(100_000)
            .map(|part| Ok(part.to_vec().into()))
            .collect();
        futures_util::stream::iter(parts)
    };
    let pushed = client
        .push_blob_stream_chunked(&image, stream(&whole.bytes))
        .await
        .unwrap();
    assert_eq!(
        (pushed.blob_digest, pushed.size),
        (whole.digest.clone(), 5 << 20)
    );
    let once = Client::new(ClientConfig {
        use_monolithic_push: true,
        ..trusting(&server)
    });
    let other = Blob::random(8, 5 << 20);
    once.push_blob(&image, other.bytes.clone(), &other.digest)
        .await
        .unwrap();
    for blob in [&whole, &other] {
        assert!(client.blob_exists(&image, &blob.digest).await.unwrap());
    }
    let rest = client
        .pull_blob_stream_partial(&image, whole.digest.as_str(), 5_000_000, None)
        .await
        .unwrap();
    assert!(matches!(rest, BlobResponse::Partial(_)));
}

#[tokio::test]
async fn it_mounts_lists_and_finds_referrers() {
    let server = with_tls(Server::new());
    let (client, image) = (client(&server), reference(&server, "rust/app:1"));
    let manifest = push(&client, &image, ANONYMOUS).await;
    let digest = client
        .fetch_manifest_digest(&image, ANONYMOUS)
        .await
        .unwrap();

    let elsewhere = reference(&server, "rust/other:1");
    for part in manifest.layers.iter().chain([&manifest.config]) {
        client
            .mount_blob(&elsewhere, &image, &part.digest)
            .await
            .unwrap();
    }
    client
        .push_manifest(&elsewhere, &manifest.clone().into())
        .await
        .unwrap();
    assert_pullable(&client, &elsewhere, ANONYMOUS).await;

    let (bytes, told) = client
        .pull_manifest_raw(&image, ANONYMOUS, &[OCI_IMAGE_MEDIA_TYPE])
        .await
        .unwrap();
    assert_eq!((&told, &sha256(&bytes)), (&digest, &digest));
    let size = i64::try_from(bytes.len()).unwrap();
    let index = OciImageIndex {
        schema_version: 2,
        media_type: Some(OCI_IMAGE_INDEX_MEDIA_TYPE.into()),
        manifests: vec![ImageIndexEntry {
            media_type: OCI_IMAGE_MEDIA_TYPE.into(),
            digest: digest.clone(),
            size,
            platform: None,
            annotations: None,
            artifact_type: None,
        }],
        artifact_type: None,
        annotations: None,
    };
    let many = reference(&server, "rust/app:many");
    client
        .push_manifest_list(&many, ANONYMOUS, index)
        .await
        .unwrap();

    let signature = OciImageManifest {
        artifact_type: Some("application/vnd.example.signature".into()),
        subject: Some(OciDescriptor {
            media_type: OCI_IMAGE_MEDIA_TYPE.into(),
            digest: digest.clone(),
            size,
            ..OciDescriptor::default()
        }),
        annotations: Some(BTreeMap::from([("n".into(), "1".into())])),
        ..manifest
    };
    let signed = reference(&server, "rust/app:signature");
    client
        .push_manifest(&signed, &signature.into())
        .await
        .unwrap();
    let subject = reference(&server, &format!("rust/app@{digest}"));
    for (wanted, found) in [
        (None, 1),
        (Some("application/vnd.example.signature"), 1),
        (Some("application/vnd.example.sbom"), 0),
    ] {
        let referrers = client.pull_referrers(&subject, wanted).await.unwrap();
        assert_eq!(referrers.manifests.len(), found, "{wanted:?}");
    }

    let tags = client
        .list_tags(&image, ANONYMOUS, Some(2), Some("1"))
        .await
        .unwrap();
    assert_eq!(tags.tags, ["many", "signature"]);
    let catalog = client.catalog(&image, ANONYMOUS, None, None).await.unwrap();
    assert_eq!(catalog.repositories, ["rust/app", "rust/other"]);
}

/// By our own tokens: everybody pulls, one pushes.
#[tokio::test]
async fn it_logs_in() {
    let home = Home::new("");
    home.add_user("alice", "wonderland");
    let server = with_tls(
        Server::new()
            .set("auth.htpasswd.realm", "Registry")
            .set(
                "auth.htpasswd.path",
                home.path("htpasswd").to_str().unwrap(),
            )
            .set(
                "access",
                "[{who: users, allow: [pull, push]}, {who: anyone, allow: pull}]",
            ),
    );
    let image = reference(&server, "rust/app:1");
    let alice = RegistryAuth::Basic("alice".into(), "wonderland".into());
    push(&client(&server), &image, &alice).await;
    assert_pullable(&client(&server), &image, ANONYMOUS).await;

    for nobody in [
        RegistryAuth::Anonymous,
        RegistryAuth::Basic("alice".into(), "looking-glass".into()),
    ] {
        let client = client(&server);
        client
            .store_auth_if_needed(image.resolve_registry(), &nobody)
            .await;
        let refused = client
            .push_blob(
                &image,
                &b"not for everybody"[..],
                &sha256(b"not for everybody"),
            )
            .await;
        assert!(refused.is_err(), "{nobody:?}");
    }
}
