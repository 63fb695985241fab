//! What the domain can be told: limits, maintenance, and which manifests it takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use super::Retention;
use crate::oci::{RepoName, RepoPattern, TagsOf};
use crate::upstream;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `storage.delete.enabled`. Default true: space has to come back (distribution's default is false).
    pub(crate) delete_enabled: bool,
    /// `storage.maintenance.readonly.enabled`: pushes and deletes are refused. Default false.
    pub(crate) read_only: bool,
    /// What it was switched to while the server runs.
    pub(crate) read_only_switch: Switch,
    pub(crate) purging: Purging,
    pub(crate) gc: Gc,
    pub(crate) scrub: Scrub,
    pub(crate) pressure: Pressure,
    /// `storage.minchunk`, in bytes: announced as `OCI-Chunk-Min-Length`; 0 announces nothing. Default 0.
    pub(crate) min_chunk: u64,
    /// `catalog.maxentries`: the longest page of `_catalog`. Default 1000.
    pub(crate) catalog_max: usize,
    /// `tags.maxtags`: the longest page of `tags/list`. Default none: the whole list, as clients of registry:2 expect.
    pub(crate) tags_max: Option<usize>,
    pub(crate) manifests: ManifestRules,
    /// `tags.immutable`: tags that may be neither moved nor deleted once they are there. Default none.
    pub(crate) immutable_tags: Vec<TagsOf>,
    pub(crate) retention: Retention,
    /// `quota`: how much the repositories of some patterns may have. Default none.
    pub(crate) quotas: Vec<Quota>,
    /// `undo.keep`: how long what was deleted or overwritten can be brought back, and its content stays; zero is not at
    /// all. Default 7 days.
    pub(crate) undo_keep: Duration,
}

impl Settings {
    /// Whether changes are refused now.
    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only_switch.get().unwrap_or(self.read_only)
    }
}

/// A yes or no in place of a configured one, until the process ends. Clones are one switch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Switch(Arc<AtomicU8>);

impl Switch {
    const NO: u8 = 1;
    const YES: u8 = 2;

    /// None: it was never switched.
    fn get(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            Self::NO => Some(false),
            Self::YES => Some(true),
            _ => None,
        }
    }

    pub(super) fn set(&self, to: bool) {
        let to = if to { Self::YES } else { Self::NO };
        self.0.store(to, Ordering::Relaxed);
    }
}

impl PartialEq for Switch {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Switch {}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            delete_enabled: true,
            read_only: false,
            read_only_switch: Switch::default(),
            purging: Purging::default(),
            gc: Gc::default(),
            scrub: Scrub::default(),
            pressure: Pressure::default(),
            min_chunk: 0,
            catalog_max: 1000,
            tags_max: None,
            manifests: ManifestRules::default(),
            immutable_tags: Vec::new(),
            retention: Retention::default(),
            quotas: Vec::new(),
            undo_keep: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// `storage.maintenance.uploadpurging`: what happens to abandoned uploads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Purging {
    /// Default true.
    pub(crate) enabled: bool,
    /// How long nothing may have been written to an upload. Default 168 h.
    pub(crate) age: Duration,
    /// How often to look. Default 24 h.
    pub(crate) interval: Duration,
    /// Log what would be removed, and remove nothing. Default false.
    pub(crate) dry_run: bool,
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

/// `gc`: how the space of what nothing refers to comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gc {
    /// Whether garbage is collected while the registry serves. Default true.
    pub(crate) enabled: bool,
    /// How long content stays that a client was told is here, and that nothing refers to. As long as this after a start
    /// nothing is removed. Default 1 h.
    pub(crate) grace: Duration,
    /// How often to collect, if nothing is deleted. Default 24 h.
    pub(crate) interval: Duration,
    /// How long after a delete to collect. Default 5 min.
    pub(crate) delay: Duration,
}

impl Default for Gc {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Gc {
            enabled: true,
            grace: minute * 60,
            interval: minute * 60 * 24,
            delay: minute * 5,
        }
    }
}

/// `scrub`: how damage of what is stored is found before somebody needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scrub {
    /// Whether content is checked while the registry serves. Default true.
    pub(crate) enabled: bool,
    /// How long after the end of one check of everything the next one begins. Default 30 days.
    pub(crate) interval: Duration,
    /// The most that is read for it, in bytes a second; 0 is no limit. Default 10 MB.
    pub(crate) bandwidth: u64,
    /// Other registries with the same repositories, which are asked, in this order, for what is damaged here. Of their settings
    /// only the address and the account count. Default none.
    pub(crate) peers: Vec<upstream::Settings>,
}

impl Default for Scrub {
    fn default() -> Self {
        Scrub {
            enabled: true,
            interval: Duration::from_secs(30 * 24 * 3600),
            bandwidth: 10_000_000,
            peers: Vec::new(),
        }
    }
}

/// `pressure`: what happens when the disk is nearly full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pressure {
    /// With less room than this, in bytes, what can be done without goes. At most a twentieth of the disk counts; 0 is
    /// never. Default 2 GB.
    pub(crate) collect: u64,
    /// With less room than this, in bytes, no upload is begun. At most a hundredth of the disk counts; 0 is never. Default
    /// 256 MB.
    pub(crate) refuse: u64,
}

impl Default for Pressure {
    fn default() -> Self {
        Pressure {
            collect: 2_000_000_000,
            refuse: 256_000_000,
        }
    }
}

/// An entry of `quota`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Quota {
    /// The repositories that share it: those that one of these matches.
    pub(crate) repositories: Vec<RepoPattern>,
    /// What they may have in all, in bytes.
    pub(crate) size: u64,
}

impl Quota {
    pub(super) fn covers(&self, repo: &RepoName) -> bool {
        self.repositories
            .iter()
            .any(|pattern| pattern.matches(repo))
    }

    /// What people know it by.
    pub(super) fn name(&self) -> String {
        let patterns: Vec<&str> = self.repositories.iter().map(RepoPattern::as_str).collect();
        patterns.join(", ")
    }
}

/// `validation`: which manifests may be pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ManifestRules {
    /// `validation.disabled` inverted. When false neither references, URLs nor platforms are looked at. Default true.
    pub(crate) enabled: bool,
    /// `validation.manifests.maxsize`, in bytes. Default 4 MiB, distribution's limit.
    pub(crate) max_size: u64,
    /// Regular expressions one of which a `urls` entry must match; empty allows every URL unless `deny_urls` matches it.
    pub(crate) allow_urls: Vec<String>,
    /// Regular expressions none of which a `urls` entry may match.
    pub(crate) deny_urls: Vec<String>,
    /// Whose child manifests have to be present when an index is pushed. Default all.
    pub(crate) platforms: Platforms,
    /// The platforms that `Platforms::List` means.
    pub(crate) platform_list: Vec<Platform>,
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
pub(crate) enum Platforms {
    All,
    None,
    List,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Platform {
    pub(crate) architecture: String,
    pub(crate) os: String,
}
