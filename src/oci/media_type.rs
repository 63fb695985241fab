//! Media types of manifests.

/// The manifest formats this registry stores. What a manifest's config, layers or children are is the client's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaType {
    DockerManifest,
    DockerList,
    OciManifest,
    OciIndex,
}

impl MediaType {
    pub const ALL: [MediaType; 4] = [
        MediaType::DockerManifest,
        MediaType::DockerList,
        MediaType::OciManifest,
        MediaType::OciIndex,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            MediaType::DockerManifest => "application/vnd.docker.distribution.manifest.v2+json",
            MediaType::DockerList => "application/vnd.docker.distribution.manifest.list.v2+json",
            MediaType::OciManifest => "application/vnd.oci.image.manifest.v1+json",
            MediaType::OciIndex => "application/vnd.oci.image.index.v1+json",
        }
    }

    /// By the value of a `mediaType` field, or of a `Content-Type` whose parameters are ignored.
    pub fn parse(text: &str) -> Option<Self> {
        let essence = text.split(';').next().unwrap_or_default().trim();
        MediaType::ALL
            .into_iter()
            .find(|t| t.as_str().eq_ignore_ascii_case(essence))
    }

    /// Lists other manifests instead of a config and layers.
    pub fn is_index(self) -> bool {
        matches!(self, MediaType::DockerList | MediaType::OciIndex)
    }

    /// Docker's formats demand a `mediaType` in the body; OCI's only recommend it.
    pub fn needs_field(self) -> bool {
        matches!(self, MediaType::DockerManifest | MediaType::DockerList)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_case_do_not_matter() {
        for media_type in MediaType::ALL {
            assert_eq!(MediaType::parse(media_type.as_str()), Some(media_type));
            let noisy = format!(" {}; charset=utf-8", media_type.as_str().to_uppercase());
            assert_eq!(MediaType::parse(&noisy), Some(media_type));
        }
        assert_eq!(MediaType::parse("application/json"), None);
    }
}
