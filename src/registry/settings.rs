//! What the domain can be told: limits, maintenance, and which manifests it takes.

use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `storage.delete.enabled`. Default true: space has to come back (distribution's default is false).
    pub delete_enabled: bool,
    /// `storage.maintenance.readonly.enabled`: pushes and deletes are refused. Default false.
    pub read_only: bool,
    pub purging: Purging,
    /// `storage.minchunk`, in bytes: announced as `OCI-Chunk-Min-Length`; 0 announces nothing. Default 0.
    pub min_chunk: u64,
    /// `catalog.maxentries`: the longest page of `_catalog`. Default 1000.
    pub catalog_max: usize,
    /// `tags.maxtags`: the longest page of `tags/list`. Default none: the whole list, as clients of registry:2 expect.
    pub tags_max: Option<usize>,
    pub manifests: ManifestRules,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            delete_enabled: true,
            read_only: false,
            purging: Purging::default(),
            min_chunk: 0,
            catalog_max: 1000,
            tags_max: None,
            manifests: ManifestRules::default(),
        }
    }
}

/// `storage.maintenance.uploadpurging`: what happens to abandoned uploads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purging {
    /// Default true.
    pub enabled: bool,
    /// How long nothing may have been written to an upload. Default 168 h.
    pub age: Duration,
    /// How often to look. Default 24 h.
    pub interval: Duration,
    /// Log what would be removed, and remove nothing. Default false.
    pub dry_run: bool,
}

impl Default for Purging {
    fn default() -> Self {
        let hour = Duration::from_secs(3600);
        Purging {
            enabled: true,
            age: hour * 168,
            interval: hour * 24,
            dry_run: false,
        }
    }
}

/// `validation`: which manifests may be pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestRules {
    /// `validation.disabled` inverted. When false neither references, URLs nor platforms are looked at. Default true.
    pub enabled: bool,
    /// `validation.manifests.maxsize`, in bytes. Default 4 MiB, distribution's limit.
    pub max_size: u64,
    /// Regular expressions one of which a `urls` entry must match; empty allows every URL unless `deny_urls` matches it.
    pub allow_urls: Vec<String>,
    /// Regular expressions none of which a `urls` entry may match.
    pub deny_urls: Vec<String>,
    /// Whose child manifests have to be present when an index is pushed. Default all.
    pub platforms: Platforms,
    /// The platforms that `Platforms::List` means.
    pub platform_list: Vec<Platform>,
}

impl Default for ManifestRules {
    fn default() -> Self {
        ManifestRules {
            enabled: true,
            max_size: 4 << 20,
            allow_urls: Vec::new(),
            deny_urls: Vec::new(),
            platforms: Platforms::All,
            platform_list: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platforms {
    All,
    None,
    List,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Platform {
    pub architecture: String,
    pub os: String,
}
