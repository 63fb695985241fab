//! Manifests: image manifests and indexes of Docker and OCI (image-spec manifest.md, image-index.md; Docker's
//! "Image Manifest Version 2, Schema 2").

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Digest, DigestError, MediaType};

/// A manifest as a client sent it: the bytes, never re-serialised, beside what this registry reads in them.
#[derive(Clone, Debug)]
pub struct Manifest {
    bytes: Bytes,
    media_type: MediaType,
    artifact_type: Option<String>,
    annotations: BTreeMap<String, String>,
    references: Vec<(Descriptor, Role)>,
}

/// What a manifest says of a thing it refers to (image-spec descriptor.md).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub digest: Digest,
    /// In bytes, as claimed.
    pub size: u64,
    pub media_type: String,
    pub urls: Vec<String>,
    pub platform: Option<Platform>,
}

/// The part of a platform that a registry may select by.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Platform {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
}

/// How a manifest refers to a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Config,
    Layer,
    /// A layer that lies elsewhere (`urls`, or a non-distributable media type) and need not be here.
    ForeignLayer,
    /// A manifest listed by an index.
    Child,
    /// The manifest this one is about; it may come later or never.
    Subject,
}

/// Whether a manifest lists other manifests or a config and layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Image,
    Index,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("the manifest is not a JSON object of the expected form: {0}")]
    Json(String),
    #[error(
        "Docker's image manifest schema 1 is no longer supported: rebuild the image, or push it with a client that \
         writes schema 2 or OCI manifests"
    )]
    Schema1,
    #[error("schemaVersion is {0}, and has to be 2")]
    SchemaVersion(i64),
    #[error("{0:?} is not a manifest media type that this registry stores")]
    MediaType(String),
    #[error("Content-Type says {header}, but the manifest's mediaType says {field}")]
    MediaTypesDiffer { header: String, field: String },
    #[error("a manifest of type {0} has to carry a mediaType field")]
    MediaTypeMissing(&'static str),
    #[error(
        "the manifest has both `manifests` and `config` or `layers`: is it an index or an image?"
    )]
    Ambiguous,
    #[error("the manifest has no `{0}`")]
    Missing(&'static str),
    #[error("the descriptor {place} has the digest {digest:?}: {source}")]
    Digest {
        place: String,
        digest: String,
        source: DigestError,
    },
    #[error("the descriptor {place} has the size {size}")]
    Size { place: String, size: i64 },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<i64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<RawDescriptor>,
    #[serde(default, deserialize_with = "null_is_empty")]
    layers: Vec<RawDescriptor>,
    manifests: Option<Vec<RawDescriptor>>,
    subject: Option<RawDescriptor>,
    #[serde(default, deserialize_with = "null_is_empty")]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: i64,
    #[serde(default, deserialize_with = "null_is_empty")]
    urls: Vec<String>,
    platform: Option<Platform>,
}

/// Go writes an empty slice or map that was never made as `null`.
fn null_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sniffed {
    schema_version: Option<i64>,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
}

impl Manifest {
    /// Reads a manifest that a client pushes. `content_type` is the request's header; without one, or with a type
    /// that is no manifest's (some clients send `application/json`), the body decides.
    pub fn parse(bytes: Bytes, content_type: Option<&str>) -> Result<Self, ManifestError> {
        let raw: Raw =
            serde_json::from_slice(&bytes).map_err(|e| ManifestError::Json(e.to_string()))?;
        let media_type = pushed_type(&raw, content_type)?;
        if raw.manifests.is_some() && (raw.config.is_some() || !raw.layers.is_empty()) {
            return Err(ManifestError::Ambiguous); // CVE-2021-41190
        }
        let mut references = Vec::new();
        let mut refer = |raw: RawDescriptor, place: String, role| {
            descriptor(raw, place).map(|descriptor| references.push((descriptor, role)))
        };
        if media_type.is_index() {
            for (i, child) in raw
                .manifests
                .ok_or(ManifestError::Missing("manifests"))?
                .into_iter()
                .enumerate()
            {
                refer(child, format!("manifests[{i}]"), Role::Child)?;
            }
        } else {
            if raw.manifests.is_some() {
                return Err(ManifestError::Ambiguous);
            }
            refer(
                raw.config.ok_or(ManifestError::Missing("config"))?,
                "config".into(),
                Role::Config,
            )?;
            for (i, layer) in raw.layers.into_iter().enumerate() {
                let role = if is_foreign(&layer) {
                    Role::ForeignLayer
                } else {
                    Role::Layer
                };
                refer(layer, format!("layers[{i}]"), role)?;
            }
        }
        if let Some(subject) = raw.subject {
            refer(subject, "subject".into(), Role::Subject)?;
        }
        Ok(Manifest {
            bytes,
            media_type,
            artifact_type: raw.artifact_type.filter(|t| !t.is_empty()),
            annotations: raw.annotations,
            references,
        })
    }

    /// The media type of a stored manifest, which the disk layout does not keep: its own field, else by its shape.
    pub fn sniff(bytes: &[u8]) -> Result<MediaType, ManifestError> {
        let raw: Sniffed =
            serde_json::from_slice(bytes).map_err(|e| ManifestError::Json(e.to_string()))?;
        match (raw.schema_version, raw.media_type.filter(|t| !t.is_empty())) {
            (Some(1), _) => Err(ManifestError::Schema1),
            (_, Some(field)) => MediaType::parse(&field).ok_or(ManifestError::MediaType(field)),
            (_, None) if raw.manifests.is_some() => Ok(MediaType::OciIndex),
            (_, None) => Ok(MediaType::OciManifest),
        }
    }

    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn media_type(&self) -> MediaType {
        self.media_type
    }

    pub fn kind(&self) -> Kind {
        if self.media_type.is_index() {
            Kind::Index
        } else {
            Kind::Image
        }
    }

    /// Everything the manifest refers to, in its order.
    pub fn references(&self) -> impl Iterator<Item = (&Descriptor, Role)> {
        self.references
            .iter()
            .map(|(descriptor, role)| (descriptor, *role))
    }

    pub fn subject(&self) -> Option<&Digest> {
        self.references()
            .find(|(_, role)| *role == Role::Subject)
            .map(|(descriptor, _)| &descriptor.digest)
    }

    /// The `artifactType` under which a referrers list shows this manifest: the field, else an image's config media
    /// type, else none (distribution-spec, "Listing Referrers").
    pub fn artifact_type(&self) -> Option<&str> {
        let config = || {
            self.references()
                .find(|(_, role)| *role == Role::Config)
                .map(|(d, _)| d.media_type.as_str())
        };
        self.artifact_type
            .as_deref()
            .or_else(config)
            .filter(|t| !t.is_empty())
    }

    /// This manifest's entry in a referrers list.
    pub fn to_referrer(&self, digest: &Digest) -> Referrer<'_> {
        Referrer {
            media_type: self.media_type.as_str(),
            digest: digest.to_string(),
            size: self.bytes.len(),
            artifact_type: self.artifact_type(),
            annotations: &self.annotations,
        }
    }
}

/// A descriptor in the answer of the referrers API.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer<'a> {
    media_type: &'static str,
    digest: String,
    size: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

fn pushed_type(raw: &Raw, content_type: Option<&str>) -> Result<MediaType, ManifestError> {
    match raw.schema_version {
        Some(2) => {}
        Some(1) => return Err(ManifestError::Schema1),
        Some(other) => return Err(ManifestError::SchemaVersion(other)),
        None if raw.fs_layers.is_some() => return Err(ManifestError::Schema1),
        None => return Err(ManifestError::Missing("schemaVersion")),
    }
    let header = content_type.map(str::trim).filter(|t| !t.is_empty());
    let field = raw.media_type.as_deref().filter(|t| !t.is_empty());
    let shape = if raw.manifests.is_some() {
        MediaType::OciIndex
    } else {
        MediaType::OciManifest
    };
    let neutral = |t: &str| {
        let essence = t.split(';').next().unwrap_or_default().trim();
        ["application/json", "application/octet-stream", "text/plain"]
            .iter()
            .any(|n| essence.eq_ignore_ascii_case(n))
    };
    let header = match header {
        None => None,
        Some(text) if neutral(text) => None,
        Some(text) => {
            Some(MediaType::parse(text).ok_or_else(|| ManifestError::MediaType(text.to_owned()))?)
        }
    };
    let field = field
        .map(|t| MediaType::parse(t).ok_or_else(|| ManifestError::MediaType(t.to_owned())))
        .transpose()?;
    match (header, field) {
        (Some(header), Some(field)) if header != field => Err(ManifestError::MediaTypesDiffer {
            header: header.as_str().to_owned(),
            field: field.as_str().to_owned(),
        }),
        // Without the field a later GET, which has only the body to go by, would name another type.
        (Some(header), None) if header.needs_field() => {
            Err(ManifestError::MediaTypeMissing(header.as_str()))
        }
        (Some(header), None) if header != shape => Err(ManifestError::MediaTypesDiffer {
            header: header.as_str().to_owned(),
            field: shape.as_str().to_owned(),
        }),
        (Some(known), _) | (None, Some(known)) => Ok(known),
        (None, None) => Ok(shape),
    }
}

fn descriptor(raw: RawDescriptor, place: String) -> Result<Descriptor, ManifestError> {
    let digest = match raw.digest.parse() {
        Ok(digest) => digest,
        Err(source) => {
            return Err(ManifestError::Digest {
                place,
                digest: raw.digest,
                source,
            });
        }
    };
    let size = u64::try_from(raw.size).map_err(|_| ManifestError::Size {
        place,
        size: raw.size,
    })?;
    Ok(Descriptor {
        digest,
        size,
        media_type: raw.media_type,
        urls: raw.urls,
        platform: raw.platform,
    })
}

/// Layers that a registry need not hold: Docker's foreign layers and OCI's (deprecated) non-distributable ones.
fn is_foreign(layer: &RawDescriptor) -> bool {
    !layer.urls.is_empty()
        || layer
            .media_type
            .starts_with("application/vnd.docker.image.rootfs.foreign.")
        || layer
            .media_type
            .starts_with("application/vnd.oci.image.layer.nondistributable.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";

    fn parse(body: &str, content_type: Option<&str>) -> Result<Manifest, ManifestError> {
        Manifest::parse(
            Bytes::copy_from_slice(body.replace("$D", D).as_bytes()),
            content_type,
        )
    }

    fn image(extra: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"x/y","digest":"{D}","size":2}},"layers":[]{extra}}}"#
        )
    }

    #[test]
    fn the_type_comes_from_header_field_or_shape() {
        assert_eq!(
            parse(&image(""), None).unwrap().media_type(),
            MediaType::OciManifest
        );
        assert_eq!(
            parse(&image(""), Some(OCI)).unwrap().media_type(),
            MediaType::OciManifest
        );
        assert_eq!(
            parse(&image(""), Some("application/json"))
                .unwrap()
                .media_type(),
            MediaType::OciManifest
        );
        let docker = image(&format!(r#","mediaType":"{DOCKER}""#));
        assert_eq!(
            parse(&docker, None).unwrap().media_type(),
            MediaType::DockerManifest
        );
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        assert_eq!(parse(index, Some(INDEX)).unwrap().kind(), Kind::Index);
    }

    #[test]
    fn refuses_contradictions_and_gaps() {
        let error = |body: &str, header| parse(body, header).unwrap_err();
        assert!(matches!(error("[]", None), ManifestError::Json(_)));
        assert!(matches!(error("{", None), ManifestError::Json(_)));
        assert_eq!(error("{}", None), ManifestError::Missing("schemaVersion"));
        assert_eq!(
            error(r#"{"schemaVersion":1}"#, None),
            ManifestError::Schema1
        );
        assert_eq!(
            error(r#"{"schemaVersion":3}"#, None),
            ManifestError::SchemaVersion(3)
        );
        assert_eq!(
            error(r#"{"schemaVersion":2}"#, None),
            ManifestError::Missing("config")
        );
        assert!(
            error(r#"{"schemaVersion":2}"#, Some(INDEX))
                .to_string()
                .contains(INDEX)
        );
        assert!(matches!(
            error(&image(r#","mediaType":"a/b""#), None),
            ManifestError::MediaType(_)
        ));
        assert!(matches!(
            error(&image(""), Some("a/b")),
            ManifestError::MediaType(_)
        ));
        assert!(matches!(
            error(&image(""), Some(DOCKER)),
            ManifestError::MediaTypeMissing(_)
        ));
        let field = image(&format!(r#","mediaType":"{OCI}""#));
        assert!(matches!(
            error(&field, Some(DOCKER)),
            ManifestError::MediaTypesDiffer { .. }
        ));
        assert_eq!(
            error(&image(r#","manifests":[]"#), None),
            ManifestError::Ambiguous
        );
        assert!(
            matches!(
                error(&image(r#","schemaVersion":2"#), None),
                ManifestError::Json(_)
            ),
            "a key twice"
        );
        let layer = |d: &str| {
            format!(r#"{{"schemaVersion":2,"config":{{"digest":"$D","size":0}},"layers":[{d}]}}"#)
        };
        assert!(matches!(
            error(&layer(r#"{"digest":"$D","size":-1}"#), None),
            ManifestError::Size { .. }
        ));
        assert!(matches!(
            error(&layer(r#"{"digest":"sha256:x","size":1}"#), None),
            ManifestError::Digest { .. }
        ));
    }

    #[test]
    fn names_every_reference_and_its_role() {
        let body = r#"{"schemaVersion":2,"config":{"mediaType":"c/c","digest":"$D","size":1},"layers":[
            {"mediaType":"l/l","digest":"$D","size":2},
            {"mediaType":"l/l","digest":"$D","size":3,"urls":["https://example.com/x"]},
            {"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar","digest":"$D","size":4}],
            "subject":{"mediaType":"s/s","digest":"$D","size":5},"x-unknown":{"kept":true}}"#;
        let manifest = parse(body, None).unwrap();
        let roles: Vec<_> = manifest
            .references()
            .map(|(d, role)| (d.size, role))
            .collect();
        assert_eq!(
            roles,
            [
                (1, Role::Config),
                (2, Role::Layer),
                (3, Role::ForeignLayer),
                (4, Role::ForeignLayer),
                (5, Role::Subject)
            ]
        );
        assert_eq!(
            manifest.bytes(),
            &body.replace("$D", D),
            "the bytes stay as they came"
        );
        assert_eq!(manifest.artifact_type(), Some("c/c"));
    }

    #[test]
    fn null_lists_are_empty_ones() {
        assert!(parse(&image(r#","annotations":null"#), None).is_ok());
        let body = r#"{"schemaVersion":2,"config":{"digest":"$D","size":0},"layers":null}"#;
        assert_eq!(parse(body, None).unwrap().references().count(), 1);
    }

    #[test]
    fn an_index_shows_no_artifact_type_of_its_own() {
        let manifest = parse(
            r#"{"schemaVersion":2,"manifests":[],"artifactType":""}"#,
            Some(INDEX),
        )
        .unwrap();
        assert_eq!(manifest.artifact_type(), None);
    }

    #[test]
    fn a_stored_manifest_tells_its_type() {
        assert_eq!(
            Manifest::sniff(image("").as_bytes()),
            Ok(MediaType::OciManifest)
        );
        assert_eq!(
            Manifest::sniff(br#"{"schemaVersion":2,"manifests":[]}"#),
            Ok(MediaType::OciIndex)
        );
        assert_eq!(
            Manifest::sniff(br#"{"schemaVersion":1}"#),
            Err(ManifestError::Schema1)
        );
        assert!(Manifest::sniff(b"").is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Manifest::sniff(&bytes);
            let _ = Manifest::parse(bytes.into(), None);
        }

        #[test]
        fn what_is_accepted_is_served_under_the_same_type(docker: bool, index: bool, field: bool) {
            let media_type = match (docker, index) {
                (false, false) => MediaType::OciManifest,
                (false, true) => MediaType::OciIndex,
                (true, false) => MediaType::DockerManifest,
                (true, true) => MediaType::DockerList,
            };
            let field = if field { format!(r#","mediaType":"{}""#, media_type.as_str()) } else { String::new() };
            let body = if index { format!(r#"{{"schemaVersion":2,"manifests":[]{field}}}"#) } else { image(&field) };
            if let Ok(manifest) = parse(&body, Some(media_type.as_str())) {
                prop_assert_eq!(Manifest::sniff(manifest.bytes()), Ok(media_type));
            }
        }
    }
}
