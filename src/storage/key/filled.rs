//! What a mirror fetches, and the names of the marks that say so.

use super::{LAYERS, MANIFESTS, digest_name, digest_of};
use crate::oci::{Digest, Tag};

/// What a mirror fetches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Filled {
    Tag(Tag),
    Manifest(Digest),
    Blob(Digest),
}

/// A kind of what a mirror fetches: the folders in which its marks lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum FilledKind {
    Tag,
    Manifest,
    Blob,
}

impl FilledKind {
    pub(crate) const ALL: [FilledKind; 3] =
        [FilledKind::Tag, FilledKind::Manifest, FilledKind::Blob];

    pub(super) fn folder(self) -> &'static str {
        match self {
            FilledKind::Tag => "_tags",
            FilledKind::Manifest => MANIFESTS,
            FilledKind::Blob => LAYERS,
        }
    }

    /// What the mark of this name is about.
    pub(crate) fn of_name(self, name: &str) -> Option<Filled> {
        match self {
            FilledKind::Tag => name.parse().ok().map(Filled::Tag),
            FilledKind::Manifest => digest_of(name).map(Filled::Manifest),
            FilledKind::Blob => digest_of(name).map(Filled::Blob),
        }
    }
}

impl Filled {
    pub(super) fn path(&self) -> String {
        match self {
            Filled::Tag(tag) => format!("{}/{tag}", FilledKind::Tag.folder()),
            Filled::Manifest(digest) => {
                format!("{}/{}", FilledKind::Manifest.folder(), digest_name(digest))
            }
            Filled::Blob(digest) => {
                format!("{}/{}", FilledKind::Blob.folder(), digest_name(digest))
            }
        }
    }
}
