//! The JSON of manifests, read as tolerantly as distribution reads it: Go takes `null` for nothing at all.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{ManifestError, Platform};
use crate::oci::Digest;

/// A JSON object. Derived readers of structs take an array of the fields' values as well, which is no manifest for
/// anybody else.
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfMap<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for OfMap<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(OfMap(PhantomData)).map(Object)
    }
}

/// One JSON object and nothing after it.
pub(super) fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, ManifestError> {
    match serde_json::from_slice(json) {
        Ok(Object(value)) => Ok(value),
        Err(e) => Err(ManifestError::Json(e.to_string())),
    }
}

/// Go writes an empty slice or map that was never made as `null`, and reads `null` as one.
pub(super) fn null_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn strings<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let map: Option<BTreeMap<String, Option<String>>> = Option::deserialize(deserializer)?;
    let pairs = map.unwrap_or_default().into_iter();
    Ok(pairs
        .map(|(key, value)| (key, value.unwrap_or_default()))
        .collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Raw {
    pub(super) schema_version: Option<i64>,
    pub(super) media_type: Option<String>,
    pub(super) artifact_type: Option<String>,
    pub(super) config: Option<Object<RawDescriptor>>,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(super) layers: Vec<Object<RawDescriptor>>,
    pub(super) manifests: Option<Vec<Object<RawDescriptor>>>,
    pub(super) subject: Option<Object<RawDescriptor>>,
    #[serde(default, deserialize_with = "strings")]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawDescriptor {
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(super) media_type: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(super) digest: String,
    pub(super) size: Option<i64>,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(super) urls: Vec<String>,
    pub(super) platform: Option<Object<Platform>>,
}

impl RawDescriptor {
    /// What Go writes for a descriptor that was never filled in.
    pub(super) fn is_empty(&self) -> bool {
        self.digest.is_empty() && self.media_type.is_empty() && self.size.unwrap_or(0) == 0
    }

    /// Layers that a registry need not hold: Docker's foreign layers and OCI's (deprecated) non-distributable ones.
    pub(super) fn is_foreign(&self) -> bool {
        !self.urls.is_empty()
            || self
                .media_type
                .starts_with("application/vnd.docker.image.rootfs.foreign.")
            || self
                .media_type
                .starts_with("application/vnd.oci.image.layer.nondistributable.")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sniffed {
    pub(super) schema_version: Option<i64>,
    pub(super) media_type: Option<String>,
    pub(super) manifests: Option<serde::de::IgnoredAny>,
}

/// The descriptors again, with the content that they may carry along.
#[derive(Deserialize)]
pub(super) struct Embedding<'a> {
    #[serde(borrow)]
    config: Option<Object<Embedded<'a>>>,
    #[serde(borrow)]
    layers: Option<Vec<Object<Embedded<'a>>>>,
    #[serde(borrow)]
    manifests: Option<Vec<Object<Embedded<'a>>>>,
    #[serde(borrow)]
    subject: Option<Object<Embedded<'a>>>,
}

#[derive(Deserialize)]
struct Embedded<'a> {
    #[serde(borrow)]
    digest: Option<Cow<'a, str>>,
    size: Option<u64>,
    #[serde(borrow)]
    data: Option<Cow<'a, str>>,
}

impl Embedding<'_> {
    pub(super) fn check(&self) -> Result<(), ManifestError> {
        let lists = [&self.layers, &self.manifests];
        let lists = lists.into_iter().flatten().flatten();
        let ones = [&self.config, &self.subject].into_iter().flatten();
        ones.chain(lists).try_for_each(|Object(one)| one.check())
    }
}

impl Embedded<'_> {
    fn check(&self) -> Result<(), ManifestError> {
        let digest = self.digest.as_deref().unwrap_or_default();
        let (Some(data), Ok(digest)) = (&self.data, digest.parse::<Digest>()) else {
            return Ok(());
        };
        match BASE64.decode(data.as_bytes()) {
            Ok(data)
                if Some(data.len() as u64) == self.size
                    && digest.algorithm().digest(&data) == digest =>
            {
                Ok(())
            }
            _ => Err(ManifestError::Embedded { digest }),
        }
    }
}
