//! Manifests: image manifests and indexes of Docker and OCI (image-spec manifest.md, image-index.md; Docker's
//! "Image Manifest Version 2, Schema 2").

mod mentions;
mod raw;

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Digest, DigestError, MediaType};
pub use mentions::Mentions;
use raw::{Embedding, Object, Raw, RawDescriptor, Sniffed, null_is_empty, object};

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
    #[serde(default, deserialize_with = "null_is_empty")]
    pub os: String,
    #[serde(default, deserialize_with = "null_is_empty")]
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
    #[error("the descriptor {place} has no `{field}`")]
    Incomplete { place: String, field: &'static str },
    #[error("the descriptor {place} has the digest {digest:?}: {source}")]
    Digest {
        place: String,
        digest: String,
        source: DigestError,
    },
    #[error("the descriptor {place} has the size {size}")]
    Size { place: String, size: i64 },
    #[error(
        "the `data` of the descriptor {digest} is not the content that its digest and size name: embed that content in \
         Base64, or leave `data` out"
    )]
    Embedded { digest: Digest },
}

impl Manifest {
    /// Reads a manifest that a client pushes. `content_type` is the request's header; without one, or with a type
    /// that is no manifest's (some clients send `application/json`), the body decides.
    pub fn parse(bytes: Bytes, content_type: Option<&str>) -> Result<Self, ManifestError> {
        let raw: Raw = object(&bytes)?;
        let media_type = pushed_type(&raw, content_type)?;
        if raw.manifests.is_some() && (raw.config.is_some() || !raw.layers.is_empty()) {
            return Err(ManifestError::Ambiguous); // CVE-2021-41190
        }
        let mut references = Vec::new();
        let mut refer = |Object(raw): Object<RawDescriptor>, place: String, role| {
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
                let role = if layer.0.is_foreign() {
                    Role::ForeignLayer
                } else {
                    Role::Layer
                };
                refer(layer, format!("layers[{i}]"), role)?;
            }
        }
        if let Some(subject) = raw.subject.filter(|subject| !subject.0.is_empty()) {
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

    /// Whether content that descriptors embed (`data`) is what they say it is (image-spec descriptor.md): clients use it
    /// instead of the blob. For pushes: what is stored already is served as it is.
    pub fn check_embedded(&self) -> Result<(), ManifestError> {
        let key = b"\"data\"";
        if !self.bytes.windows(key.len()).any(|window| window == key) {
            return Ok(());
        }
        object::<Embedding<'_>>(&self.bytes)?.check()
    }

    /// The media type of a stored manifest, which the disk layout does not keep: its own field, else by its shape.
    pub fn sniff(bytes: &[u8]) -> Result<MediaType, ManifestError> {
        let raw: Sniffed = object(bytes)?;
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
    let size = match raw.size {
        _ if raw.digest.is_empty() => Err("digest"),
        None => Err("size"),
        Some(size) => Ok(size),
    };
    let size = match size {
        Ok(size) => size,
        Err(field) => return Err(ManifestError::Incomplete { place, field }),
    };
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
    let size = u64::try_from(size).map_err(|_| ManifestError::Size { place, size })?;
    Ok(Descriptor {
        digest,
        size,
        media_type: raw.media_type,
        urls: raw.urls,
        platform: raw.platform.map(|Object(platform)| platform),
    })
}

#[cfg(test)]
mod tests;
