//! The table of every key: CNCF distribution's, and ours beside them.

use super::key::{Key, ignored, items, names, refused, section, types, value, warned};
use super::slot::Slot;
use super::{keys_features, keys_health, keys_http};
use crate::auth::settings::RuleSettings;
use crate::registry::settings::{Platform, Quota};

pub(crate) static ROOT: &[Key] = &[
    // Read before `log`, whose `level` wins.
    value("loglevel", |c, _| Some(Slot::Choice(&mut c.log.level))).old(),
    section("log", LOG),
    types(
        "storage",
        STORAGE,
        &[
            "cache",
            "delete",
            "maintenance",
            "redirect",
            "tag",
            "minchunk",
        ],
    ),
    section("http", keys_http::HTTP),
    types("auth", keys_features::AUTH, &[]),
    items(
        "access",
        keys_features::ACCESS,
        |c| c.auth.rules.as_ref().map_or(0, Vec::len),
        |c| {
            let rules = c.auth.rules.get_or_insert_default();
            rules.push(RuleSettings::default());
        },
    ),
    section("validation", VALIDATION),
    section(
        "catalog",
        &[value("maxentries", |c, _| {
            Some(Slot::Count(&mut c.registry.catalog_max))
        })],
    ),
    section(
        "tags",
        &[
            value("maxtags", |c, _| {
                Some(Slot::MaybeCount(&mut c.registry.tags_max))
            }),
            value("immutable", |c, _| {
                Some(Slot::Patterns(&mut c.registry.immutable_tags))
            }),
        ],
    ),
    section(
        "undo",
        &[value("keep", |c, _| {
            Some(Slot::Span(&mut c.registry.undo_keep))
        })],
    ),
    section("retention", keys_features::RETENTION),
    items(
        "quota",
        keys_features::QUOTA,
        |c| c.registry.quotas.len(),
        |c| c.registry.quotas.push(Quota::default()),
    ),
    section("gc", GC),
    section("scrub", SCRUB),
    section("pressure", PRESSURE),
    section("health", keys_health::HEALTH),
    section("proxy", keys_features::PROXY),
    section("notifications", keys_features::NOTIFICATIONS),
    section("middleware", MIDDLEWARE),
    ignored(
        "redis",
        "nothing needs a cache server: the cache is in this process",
    ),
    warned("policy", "classes of repositories are not enforced"),
    warned(
        "compatibility",
        "schema 1 manifests are not supported, as in registry:3",
    ),
    warned("reporting", "errors are not sent anywhere but to the log"),
];

static LOG: &[Key] = &[
    value("level", |c, _| Some(Slot::Choice(&mut c.log.level))),
    value("formatter", |c, _| Some(Slot::Choice(&mut c.log.format))),
    names("fields", |c, _| Some(Slot::Fields(&mut c.log.fields))),
    section(
        "accesslog",
        &[value("disabled", |c, _| {
            Some(Slot::NotBool(&mut c.log.access))
        })],
    ),
    warned(
        "hooks",
        "mail is not sent; let the journal or a log collector do that",
    ),
    ignored(
        "reportcaller",
        "lines of the source are not part of the log",
    ),
];

const OTHER_STORE: &str = "this version stores on a local disk only";
const USE_DISK: &str = "remove it and set `storage.filesystem.rootdirectory`; `registry:2` keeps serving what is there, \
                        and `skopeo sync` copies it over";

static STORAGE: &[Key] = &[
    section("filesystem", FILESYSTEM),
    section(
        "delete",
        &[value("enabled", |c, _| {
            Some(Slot::Bool(&mut c.registry.delete_enabled))
        })],
    ),
    section("maintenance", MAINTENANCE),
    value("minchunk", |c, _| {
        Some(Slot::Bytes(&mut c.registry.min_chunk))
    }),
    ignored("cache", "the cache is always in memory and bounded"),
    ignored("redirect", "blobs are always served by this process"),
    ignored(
        "tag",
        "tags are read from an index, not by many small reads",
    ),
    refused("s3", OTHER_STORE, USE_DISK),
    refused("s3aws", OTHER_STORE, USE_DISK),
    refused("gcs", OTHER_STORE, USE_DISK),
    refused("azure", OTHER_STORE, USE_DISK),
    refused("oss", OTHER_STORE, USE_DISK),
    refused("swift", OTHER_STORE, USE_DISK),
    refused(
        "inmemory",
        "images would be lost at each stop",
        "use `storage.filesystem.rootdirectory` with a directory of a tmpfs if that is wanted",
    ),
];

static FILESYSTEM: &[Key] = &[
    value("rootdirectory", |c, _| {
        Some(Slot::Directory(&mut c.storage.root))
    }),
    value("drive", |c, _| Some(Slot::MaybePath(&mut c.storage.drive))),
    value("maxthreads", |c, _| {
        Some(Slot::Count(&mut c.storage.max_threads))
    }),
];

static MAINTENANCE: &[Key] = &[
    section(
        "uploadpurging",
        &[
            value("enabled", |c, _| {
                Some(Slot::Bool(&mut c.registry.purging.enabled))
            }),
            value("age", |c, _| Some(Slot::Span(&mut c.registry.purging.age))),
            value("interval", |c, _| {
                Some(Slot::Span(&mut c.registry.purging.interval))
            }),
            value("dryrun", |c, _| {
                Some(Slot::Bool(&mut c.registry.purging.dry_run))
            }),
        ],
    ),
    section(
        "readonly",
        &[value("enabled", |c, _| {
            Some(Slot::Bool(&mut c.registry.read_only))
        })],
    ),
];

static GC: &[Key] = &[
    value("enabled", |c, _| {
        Some(Slot::Bool(&mut c.registry.gc.enabled))
    }),
    value("grace", |c, _| Some(Slot::Span(&mut c.registry.gc.grace))),
    value("interval", |c, _| {
        Some(Slot::Span(&mut c.registry.gc.interval))
    }),
    value("delay", |c, _| Some(Slot::Span(&mut c.registry.gc.delay))),
];

static SCRUB: &[Key] = &[
    value("enabled", |c, _| {
        Some(Slot::Bool(&mut c.registry.scrub.enabled))
    }),
    value("interval", |c, _| {
        Some(Slot::Span(&mut c.registry.scrub.interval))
    }),
    value("bandwidth", |c, _| {
        Some(Slot::Bytes(&mut c.registry.scrub.bandwidth))
    }),
    items(
        "peers",
        keys_features::PEER,
        |c| c.registry.scrub.peers.len(),
        |c| c.registry.scrub.peers.push(Default::default()),
    ),
];

static PRESSURE: &[Key] = &[
    value("collect", |c, _| {
        Some(Slot::Bytes(&mut c.registry.pressure.collect))
    }),
    value("refuse", |c, _| {
        Some(Slot::Bytes(&mut c.registry.pressure.refuse))
    }),
];

static VALIDATION: &[Key] = &[
    value("disabled", |c, _| {
        Some(Slot::NotBool(&mut c.registry.manifests.enabled))
    }),
    ignored(
        "enabled",
        "as in distribution, only `validation.disabled` counts",
    ),
    section("manifests", MANIFESTS),
];

static MANIFESTS: &[Key] = &[
    value("maxsize", |c, _| {
        Some(Slot::Bytes(&mut c.registry.manifests.max_size))
    }),
    section(
        "urls",
        &[
            value("allow", |c, _| {
                Some(Slot::Texts(&mut c.registry.manifests.allow_urls))
            }),
            value("deny", |c, _| {
                Some(Slot::Texts(&mut c.registry.manifests.deny_urls))
            }),
        ],
    ),
    section(
        "indexes",
        &[
            value("platforms", |c, _| {
                Some(Slot::Choice(&mut c.registry.manifests.platforms))
            }),
            items(
                "platformlist",
                PLATFORM,
                |c| c.registry.manifests.platform_list.len(),
                |c| c.registry.manifests.platform_list.push(Platform::default()),
            ),
        ],
    ),
];

static PLATFORM: &[Key] = &[
    value("architecture", |c, i| {
        c.registry
            .manifests
            .platform_list
            .get_mut(i)
            .map(|p| Slot::Text(&mut p.architecture))
    }),
    value("os", |c, i| {
        c.registry
            .manifests
            .platform_list
            .get_mut(i)
            .map(|p| Slot::Text(&mut p.os))
    }),
];

const NO_MIDDLEWARE: &str = "distribution's middleware is Go code inside its binary";
const DROP_MIDDLEWARE: &str =
    "remove it; blobs are served by this process, and a proxy or CDN can stand in front";

static MIDDLEWARE: &[Key] = &[
    refused("registry", NO_MIDDLEWARE, DROP_MIDDLEWARE),
    refused("repository", NO_MIDDLEWARE, DROP_MIDDLEWARE),
    refused("storage", NO_MIDDLEWARE, DROP_MIDDLEWARE),
];
