//! Deterministic images: the same seed makes the same bytes. Blobs, configs, manifests, indexes and artifacts, and the
//! pushes and pulls that most tests need.

use std::io;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha512};

use super::{
    http::{Client, Response, with_query},
    seed::Rng,
};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub(crate) const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// An `Accept` for every kind of manifest (`*/*` is not enough for CNCF distribution).
pub(crate) const ANY_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, */*";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    /// The digest of `bytes`, as the protocol writes it.
    pub(crate) fn digest(self, bytes: &[u8]) -> String {
        let hex = |sum: &[u8]| {
            sum.iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        match self {
            Self::Sha256 => format!("sha256:{}", hex(&Sha256::digest(bytes))),
            Self::Sha512 => format!("sha512:{}", hex(&Sha512::digest(bytes))),
        }
    }
}

/// `sha256:…` of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Algorithm::Sha256.digest(bytes)
}

/// The digest of `bytes` by the algorithm that `like` (a digest) uses.
pub(crate) fn digest_like(like: &str, bytes: &[u8]) -> String {
    if like.starts_with("sha512:") {
        Algorithm::Sha512.digest(bytes)
    } else {
        sha256(bytes)
    }
}

/// Bytes and their digest.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) digest: String,
    pub(crate) bytes: Vec<u8>,
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blob({}, {} bytes)", self.digest, self.bytes.len())
    }
}

impl Blob {
    pub(crate) fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self::with(Algorithm::Sha256, bytes)
    }

    pub(crate) fn with(algorithm: Algorithm, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self {
            digest: algorithm.digest(&bytes),
            bytes,
        }
    }

    pub(crate) fn random(seed: u64, len: usize) -> Self {
        Self::new(Rng::new(seed).bytes(len))
    }

    /// The two bytes `{}` that artifacts without a config point to.
    pub(crate) fn empty_json() -> Self {
        Self::new(*b"{}")
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn descriptor(&self, media_type: &str) -> Value {
        json!({ "mediaType": media_type, "digest": self.digest, "size": self.len() })
    }
}

/// A manifest or an index: bytes, digest, and the media type it is pushed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) media_type: String,
    pub(crate) blob: Blob,
}

impl Manifest {
    pub(crate) fn new(media_type: &str, value: &Value) -> Self {
        Self::with(Algorithm::Sha256, media_type, value)
    }

    pub(crate) fn with(algorithm: Algorithm, media_type: &str, value: &Value) -> Self {
        let bytes = serde_json::to_vec_pretty(value).expect("JSON");
        Self {
            media_type: media_type.to_owned(),
            blob: Blob::with(algorithm, bytes),
        }
    }

    pub(crate) fn digest(&self) -> &str {
        &self.blob.digest
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.blob.bytes
    }

    pub(crate) fn value(&self) -> Value {
        serde_json::from_slice(self.bytes()).expect("JSON")
    }

    /// The same with other fields.
    pub(crate) fn edit(&self, edit: impl FnOnce(&mut Value)) -> Self {
        let mut value = self.value();
        edit(&mut value);
        Self::new(&self.media_type, &value)
    }

    pub(crate) fn descriptor(&self) -> Value {
        self.blob.descriptor(&self.media_type)
    }

    /// An index of `children`, each for another platform.
    pub(crate) fn index<'a>(children: impl IntoIterator<Item = &'a Manifest>) -> Self {
        Self::list(OCI_INDEX, children)
    }

    /// What BuildKit writes with `--export-cache` unless it is told to write images: an index of blobs.
    pub(crate) fn build_cache(layer: &Blob, config: &Blob) -> Self {
        Self::new(
            OCI_INDEX,
            &json!({
                "schemaVersion": 2,
                "mediaType": OCI_INDEX,
                "manifests": [
                    layer.descriptor("application/vnd.oci.image.layer.v1.tar+gzip"),
                    config.descriptor("application/vnd.buildkit.cacheconfig.v0"),
                ],
            }),
        )
    }

    /// `index` with Docker's media type.
    pub(crate) fn docker_list<'a>(children: impl IntoIterator<Item = &'a Manifest>) -> Self {
        Self::list(DOCKER_LIST, children)
    }

    fn list<'a>(media_type: &str, children: impl IntoIterator<Item = &'a Manifest>) -> Self {
        let platforms = [
            ("amd64", None),
            ("arm64", Some("v8")),
            ("arm", Some("v7")),
            ("arm", Some("v6")),
            ("riscv64", None),
        ];
        let manifests: Vec<Value> = children
            .into_iter()
            .zip(platforms.iter().cycle())
            .map(|(child, (architecture, variant))| {
                let mut entry = child.descriptor();
                entry["platform"] = json!({ "architecture": architecture, "os": "linux" });
                if let Some(variant) = variant {
                    entry["platform"]["variant"] = json!(variant);
                }
                entry
            })
            .collect();
        Self::new(
            media_type,
            &json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests }),
        )
    }

    pub(crate) fn try_push(
        &self,
        client: &Client,
        repo: &str,
        reference: &str,
    ) -> io::Result<Response> {
        client
            .put(&format!("/v2/{repo}/manifests/{reference}"))
            .header("Content-Type", &self.media_type)
            .body(self.bytes())
            .try_send()
    }

    /// By tag or by digest; panics unless it is created.
    #[track_caller]
    pub(crate) fn push(&self, client: &Client, repo: &str, reference: &str) -> Response {
        self.try_push(client, repo, reference)
            .expect("an answer")
            .expect(201)
    }
}

/// A manifest with everything it points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) config: Blob,
    pub(crate) layers: Vec<Blob>,
    pub(crate) manifest: Manifest,
}

/// What an image is made of; `build` makes it.
#[derive(Clone, Debug)]
pub(crate) struct ImageBuilder {
    seed: u64,
    layers: usize,
    layer_size: usize,
    more_layers: Vec<Blob>,
    docker: bool,
    algorithm: Algorithm,
    blob_algorithm: Algorithm,
    artifact_type: Option<String>,
    subject: Option<Value>,
    annotations: Vec<(String, String)>,
}

impl Image {
    /// An OCI image of two layers of about 4 KiB, until told otherwise.
    pub(crate) fn builder(seed: u64) -> ImageBuilder {
        ImageBuilder {
            seed,
            layers: 2,
            layer_size: 4096,
            more_layers: Vec::new(),
            docker: false,
            algorithm: Algorithm::Sha256,
            blob_algorithm: Algorithm::Sha256,
            artifact_type: None,
            subject: None,
            annotations: Vec::new(),
        }
    }

    pub(crate) fn new(seed: u64) -> Self {
        Self::builder(seed).build()
    }

    /// A small artifact (a signature, an SBOM) that refers to `subject`.
    pub(crate) fn artifact(seed: u64, artifact_type: &str, subject: &Manifest) -> Self {
        Self::builder(seed)
            .layers(1)
            .layer_size(128)
            .artifact_type(artifact_type)
            .subject(subject)
            .build()
    }

    pub(crate) fn digest(&self) -> &str {
        self.manifest.digest()
    }

    /// Config and layers.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Blob> {
        std::iter::once(&self.config).chain(&self.layers)
    }

    /// Blobs first, then the manifest, by tag or (`reference` is a digest) by digest.
    #[track_caller]
    pub(crate) fn push(&self, client: &Client, repo: &str, reference: &str) -> Response {
        for blob in self.blobs() {
            push_blob(client, repo, blob);
        }
        self.manifest.push(client, repo, reference)
    }

    /// Pulls by tag or digest as a client does that has nothing yet, and compares every byte.
    #[track_caller]
    pub(crate) fn assert_pullable(&self, client: &Client, repo: &str, reference: &str) {
        let reply = client
            .get(&format!("/v2/{repo}/manifests/{reference}"))
            .header("Accept", &self.manifest.media_type)
            .send()
            .expect(200);
        assert_eq!(reply.header("docker-content-digest"), Some(self.digest()));
        assert_eq!(
            reply.header("content-type"),
            Some(self.manifest.media_type.as_str())
        );
        assert_eq!(
            reply.body,
            self.manifest.bytes(),
            "manifest {reference} of {repo}"
        );
        for blob in self.blobs() {
            assert_blob(client, repo, blob);
        }
    }
}

impl ImageBuilder {
    pub(crate) fn layers(mut self, count: usize) -> Self {
        self.layers = count;
        self
    }

    pub(crate) fn layer_size(mut self, bytes: usize) -> Self {
        self.layer_size = bytes;
        self
    }

    /// A layer beside the seed's own: one that another image has too.
    pub(crate) fn layer(mut self, layer: Blob) -> Self {
        self.more_layers.push(layer);
        self
    }

    /// Docker's media types in place of OCI's.
    pub(crate) fn docker(mut self) -> Self {
        self.docker = true;
        self
    }

    /// The algorithm of the manifest's own digest.
    pub(crate) fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// The algorithm of config and layers.
    pub(crate) fn blob_algorithm(mut self, algorithm: Algorithm) -> Self {
        self.blob_algorithm = algorithm;
        self
    }

    /// With the empty config, as artifacts have it.
    pub(crate) fn artifact_type(mut self, artifact_type: &str) -> Self {
        self.artifact_type = Some(artifact_type.to_owned());
        self
    }

    pub(crate) fn subject(self, subject: &Manifest) -> Self {
        self.subject_descriptor(subject.descriptor())
    }

    /// A subject that may not exist.
    pub(crate) fn subject_descriptor(mut self, descriptor: Value) -> Self {
        self.subject = Some(descriptor);
        self
    }

    pub(crate) fn annotation(mut self, name: &str, value: &str) -> Self {
        self.annotations.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn build(self) -> Image {
        let mut rng = Rng::new(self.seed);
        let mut layers: Vec<Blob> = (0..self.layers)
            .map(|_| Blob::with(self.blob_algorithm, rng.bytes(self.layer_size)))
            .collect();
        layers.extend(self.more_layers);
        let (manifest_type, config_type, layer_type) = if self.docker {
            (DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER)
        } else {
            (OCI_MANIFEST, OCI_CONFIG, OCI_LAYER)
        };
        let (config, config_type) = if self.artifact_type.is_some() {
            (Blob::empty_json(), OCI_EMPTY)
        } else {
            let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
            let config = json!({
                "architecture": "arm64", "os": "linux",
                "config": { "Labels": { "seed": self.seed.to_string() } },
                "rootfs": { "type": "layers", "diff_ids": diff_ids },
            });
            (
                Blob::with(self.blob_algorithm, config.to_string()),
                config_type,
            )
        };
        let mut value = json!({
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": config.descriptor(config_type),
            "layers": layers.iter().map(|layer| layer.descriptor(layer_type)).collect::<Vec<_>>(),
        });
        if let Some(artifact_type) = self.artifact_type {
            value["artifactType"] = json!(artifact_type);
        }
        if let Some(subject) = self.subject {
            value["subject"] = subject;
        }
        for (name, text) in self.annotations {
            value["annotations"][name] = json!(text);
        }
        Image {
            config,
            layers,
            manifest: Manifest::with(self.algorithm, manifest_type, &value),
        }
    }
}

/// Opens an upload: the target of the session.
#[track_caller]
pub(crate) fn open_upload(client: &Client, repo: &str) -> String {
    client
        .post(&format!("/v2/{repo}/blobs/uploads/"))
        .send()
        .expect(202)
        .location()
}

/// POST, then PUT with the whole body; the first answer that is not the expected one, or the 201.
pub(crate) fn try_push_blob(client: &Client, repo: &str, blob: &Blob) -> io::Result<Response> {
    let opened = client
        .post(&format!("/v2/{repo}/blobs/uploads/"))
        .try_send()?;
    if opened.status != 202 {
        return Ok(opened);
    }
    client
        .put(&with_query(&opened.location(), "digest", &blob.digest))
        .header("Content-Type", "application/octet-stream")
        .body(blob.bytes.clone())
        .try_send()
}

/// POST, then PUT with the whole body; panics unless the blob is created.
#[track_caller]
pub(crate) fn push_blob(client: &Client, repo: &str, blob: &Blob) -> Response {
    try_push_blob(client, repo, blob)
        .expect("an answer")
        .expect(201)
}

/// The blob is there with the right bytes.
#[track_caller]
pub(crate) fn assert_blob(client: &Client, repo: &str, blob: &Blob) {
    let reply = client
        .get(&format!("/v2/{repo}/blobs/{}", blob.digest))
        .send()
        .expect(200);
    assert_eq!(
        reply
            .header("docker-content-digest")
            .unwrap_or(&blob.digest),
        blob.digest
    );
    assert!(
        reply.body == blob.bytes,
        "blob {} of {repo}: {} bytes, not the ones pushed",
        blob.digest,
        reply.body.len()
    );
}
