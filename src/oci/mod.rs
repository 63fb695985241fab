//! The nouns of the OCI distribution and image specifications: names, tags, digests, manifests, ranges and error codes.
//!
//! Pure: no I/O, no async, no HTTP framework. Every type here has private fields and is made only by a validating
//! parse, so whoever holds one never checks it again.

mod code;
mod digest;
mod image_pattern;
mod manifest;
mod media_type;
mod name;
mod pattern;
mod range;
mod reference;

pub use code::ErrorCode;
pub use digest::{Algorithm, Digest, DigestError, Hasher};
pub use image_pattern::{
    ImagePart, ImagePattern, ImagePatternError, TagPattern, TagPatternError, TagsOf,
};
pub use manifest::{Descriptor, Kind, Manifest, ManifestError, Mentions, Platform, Referrer, Role};
pub use media_type::MediaType;
pub use name::{NameError, RepoName};
pub use pattern::{PatternError, RepoPattern};
pub use range::{ByteRange, ContentRange, RangeError};
pub use reference::{Reference, ReferenceError, Tag, TagError};
