//! The names of everything stored, and the tree they make on disk. The only file with path literals.
//!
//! The tree is CNCF distribution's (its `registry/storage/paths.go`), so that `registry:2` and `registry:3` serve what
//! was written here and the other way round:
//!
//! ```text
//! <root>/
//! ├── .registry/                                      ours; distribution never looks here
//! │   ├── auth/token-keys.json                        what our own tokens are signed with, for the owner alone
//! │   ├── lock                                        flock: one process owns the tree
//! │   ├── control.sock                                where commands reach the running server
//! │   ├── drive                                       of an external drive: whose it is
//! │   ├── mirror/<name...>/                           what was not pushed but fetched from the upstream
//! │   │   ├── _tags/<tag>                                                              Key::Filled
//! │   │   └── _manifests/<alg>-<hex>, _layers/<alg>-<hex>
//! │   ├── quarantine/<alg>-<hex>[.<n>]                content that was not what its digest says                 Key::Quarantined
//! │   ├── verify/state.json, report.json              how far content has been checked, and what was found      Key::VerifyState, VerifyReport
//! │   ├── tmp/<uuid>                                  files on their way to a name; emptied at start
//! │   └── trash/<uuid>                                folders on their way out; emptied at start
//! ├── scheduler-state.json                            distribution's, when it is a mirror; only read       Key::SchedulerState
//! └── docker/registry/v2/
//!     ├── blobs/<alg>/<hex[0:2]>/<hex>/data           layers, configs and manifests        Key::Blob
//!     └── repositories/<name...>/
//!         ├── _layers/<alg>/<hex>/link                                                     Key::Layer
//!         ├── _manifests/revisions/<alg>/<hex>/link                                        Key::Revision
//!         ├── _manifests/tags/<tag>/current/link                                           Key::Tag
//!         ├── _manifests/tags/<tag>/index/<alg>/<hex>/link                                 Key::TagIndex
//!         ├── _uploads/<uuid>/data                                                         Key::UploadData
//!         ├── _uploads/<uuid>/startedat                                                    Key::UploadStarted
//!         ├── _referrers/                             ours; distribution skips it
//!         │   ├── scanned                                                                  Key::Scanned
//!         │   └── <alg>/<hex of subject>/<alg>-<hex of referrer>                           Key::Referrer
//!         └── _history/                               ours too: what was deleted, and can come back
//!             ├── pulls                                                                    Key::Pulls
//!             ├── tags/<tag>                                                               Key::TagHistory
//!             └── manifests/<alg>-<hex>                                                    Key::Removal
//! ```
//!
//! A `link` holds the text of a digest and nothing else, not even a newline.

mod filled;
mod upload_id;

use std::fmt;
use std::path::{Path, PathBuf};

pub(crate) use upload_id::UploadId;

use crate::oci::{Algorithm, Digest, RepoName, Tag};

use uuid::Uuid;

pub(crate) use filled::{Filled, FilledKind};

/// The name of one stored object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// The content of a layer, config or manifest.
    Blob(Digest),
    /// Makes a blob visible in a repository.
    Layer(RepoName, Digest),
    /// Makes a manifest visible in a repository.
    Revision(RepoName, Digest),
    /// What a tag points to now. The commit point of a tag.
    Tag(RepoName, Tag),
    /// A digest that a tag points or once pointed to.
    TagIndex(RepoName, Tag, Digest),
    UploadData(RepoName, UploadId),
    UploadStarted(RepoName, UploadId),
    /// Says that manifest `referrer` has the subject `subject`. Can be made again from the revisions.
    Referrer {
        repo: RepoName,
        subject: Digest,
        referrer: Digest,
    },
    /// The revisions that were looked through for subjects so far, one digest a line.
    Scanned(RepoName),
    /// What a tag pointed to before it was deleted.
    TagHistory(RepoName, Tag),
    /// Says when a manifest was deleted.
    Removal(RepoName, Digest),
    /// When manifests were last pulled.
    Pulls(RepoName),
    /// Says that something came from the upstream of a mirror.
    Filled(RepoName, Filled),
    /// What distribution fetched as a mirror.
    SchedulerState,
    /// Content that is not what its digest says, kept for whoever wants to know why; the number tells several apart.
    Quarantined(Digest, u32),
    /// How far the content has been checked.
    VerifyState,
    /// What the last check found.
    VerifyReport,
    /// What distribution (3.1 and later) leaves beside a file when it is stopped while it writes it.
    Unfinished(Box<Key>, Uuid),
}

/// A folder of stored objects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Dir {
    /// Below it lie the first components of the repositories' names.
    Repositories,
    /// Below it lie the longer names, and the repository's own parts.
    Repository(RepoName),
    /// Exists in everything that distribution calls a repository.
    Manifests(RepoName),
    /// Below it lie the algorithms of its manifests' digests.
    AllRevisions(RepoName),
    Revisions(RepoName, Algorithm),
    Revision(RepoName, Digest),
    Tags(RepoName),
    Tag(RepoName, Tag),
    /// Holds the link that says what the tag points to.
    TagCurrent(RepoName, Tag),
    /// The digests that the tag ever pointed to.
    TagIndexes(RepoName, Tag, Algorithm),
    Uploads(RepoName),
    Upload(RepoName, UploadId),
    /// Below it lie the algorithms of its blobs' digests.
    AllLayers(RepoName),
    Layers(RepoName, Algorithm),
    Layer(RepoName, Digest),
    AllReferrers(RepoName),
    Referrers(RepoName, Digest),
    History(RepoName),
    TagHistories(RepoName),
    Removals(RepoName),
    /// The blobs whose hash begins with this byte.
    Shard(Algorithm, u8),
    Blob(Digest),
    /// Below it lie the first components of the names of repositories that have marks.
    Mirror,
    /// Below it lie longer names, and the marks of the repository.
    MirrorRepository(RepoName),
    Filled(RepoName, FilledKind),
}

pub(super) const BASE: &str = "docker/registry/v2";
/// In everything that distribution calls a repository.
pub(crate) const MANIFESTS: &str = "_manifests";
/// The folder of a repository's upload sessions.
pub(crate) const UPLOADS: &str = "_uploads";
/// Our own folder below the root.
pub(super) const OWN: &str = ".registry";
/// Says that what the folders mean is in GitLab's database, and not in them.
pub(super) const DATABASE_IN_USE: &str = "docker/registry/lockfiles/database-in-use";
/// Says of an external drive whose it is.
pub(super) const MARKER: &str = ".registry/drive";
/// Below our own folder, what is known of the content of a mirror.
const MIRROR: &str = ".registry/mirror";

/// Below our own folder, what was not what its digest says.
const QUARANTINE: &str = ".registry/quarantine";
/// Below our own folder, what is known of the health of the rest.
const VERIFY: &str = ".registry/verify";

/// Where the keys lie that our own tokens are signed with: no object, so nothing that is stored can take its name.
pub(crate) fn token_keys(root: &Path) -> PathBuf {
    root.join(OWN).join("auth").join("token-keys.json")
}

/// The files that are alone in a folder of their own, below that folder: of a tag, a link, a blob. The longest first.
pub(super) const ALONE: [&str; 3] = ["current/link", "link", BLOB];
/// The file that holds a blob's content, during its upload and after.
pub(crate) const BLOB: &str = "data";
/// The file that says where content is.
pub(crate) const LINK: &str = "link";
/// The file that says when an upload began.
pub(crate) const STARTED: &str = "startedat";
/// The folder of a repository's links to blobs.
pub(crate) const LAYERS: &str = "_layers";

/// What lies at `path`, relative to the root, to somebody who copies a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Content, or what says where content belongs.
    Tree,
    /// A blob's content.
    Blob(Digest),
    /// Of the process or the drive that has the tree; made again where it is missing.
    Volatile,
    /// Not ours.
    Other,
}

impl Part {
    pub(crate) fn of(path: &Path) -> Self {
        let names: Option<Vec<&str>> = path.iter().map(|name| name.to_str()).collect();
        let Some(names) = names else {
            return Part::Other;
        };
        match names[..] {
            [OWN]
            | [
                OWN,
                "tmp" | "trash" | "slots" | "lock" | "try" | "drive" | "drive.new" | "control.sock",
                ..,
            ] => Part::Volatile,
            ["docker", "registry", "v2", "blobs", algorithm, _, hex, BLOB] => algorithm
                .parse()
                .ok()
                .and_then(|algorithm| Digest::from_parts(algorithm, hex).ok())
                .map_or(Part::Tree, Part::Blob),
            [OWN | "docker", ..] => Part::Tree,
            _ => Part::Other,
        }
    }
}

/// The folder below `root` that all content is in.
pub(crate) fn content(root: &Path) -> PathBuf {
    root.join(BASE)
}

/// Where files below `root` may be written before they have a name; emptied when the tree is opened.
pub(crate) fn staging(root: &Path) -> PathBuf {
    root.join(OWN).join("tmp")
}

/// The folders that everything else lies in, the topmost first.
pub(super) fn trunk() -> [String; 4] {
    [
        "docker".to_owned(),
        BASE.to_owned(),
        format!("{BASE}/blobs"),
        Dir::Repositories.path(),
    ]
}

/// The folders that blobs named by sha256 are spread over.
pub(super) fn blob_shards() -> impl Iterator<Item = String> {
    (0..=255).map(|first| Dir::Shard(Algorithm::Sha256, first).path())
}

/// The socket through which commands talk to the process that owns the tree below `root`.
pub(crate) fn control_socket(root: &Path) -> PathBuf {
    root.join(OWN).join("control.sock")
}

/// What the last check of the tree below `root` found.
pub(crate) fn verify_report(root: &Path) -> PathBuf {
    root.join(Key::VerifyReport.path())
}

/// A digest as a file name: without the colon, which some file systems do not take.
fn digest_name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm(), digest.hex())
}

/// The file name of a referrer's entry.
pub(crate) fn referrer_name(referrer: &Digest) -> String {
    digest_name(referrer)
}

/// The referrer that an entry of this name is for.
pub(crate) fn referrer_of(name: &str) -> Option<Digest> {
    digest_of(name)
}

/// The manifest whose removal a file of this name speaks of.
pub(crate) fn removal_of(name: &str) -> Option<Digest> {
    digest_of(name)
}

fn digest_of(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.split_once('-')?;
    Digest::from_parts(algorithm.parse().ok()?, hex).ok()
}

/// The id in the name of what distribution left beside `file` when it was stopped: `link.<uuid>.tmp`.
pub(crate) fn unfinished(name: &str, file: &str) -> Option<Uuid> {
    let id = name
        .strip_prefix(file)?
        .strip_prefix('.')?
        .strip_suffix(".tmp")?;
    let uuid = Uuid::try_parse(id).ok()?;
    (uuid.hyphenated().to_string() == id).then_some(uuid)
}

fn hex_path(digest: &Digest) -> String {
    format!("{}/{}", digest.algorithm(), digest.hex())
}

impl Key {
    /// Relative to the root, components joined by `/`.
    pub(crate) fn path(&self) -> String {
        match self {
            Key::Blob(digest) => {
                let hex = digest.hex();
                format!(
                    "{BASE}/blobs/{}/{}/{hex}/data",
                    digest.algorithm(),
                    &hex[..2]
                )
            }
            Key::Layer(repo, digest) => format!(
                "{BASE}/repositories/{repo}/{LAYERS}/{}/link",
                hex_path(digest)
            ),
            Key::Revision(repo, digest) => {
                format!(
                    "{BASE}/repositories/{repo}/{MANIFESTS}/revisions/{}/link",
                    hex_path(digest)
                )
            }
            Key::Tag(repo, tag) => {
                format!("{BASE}/repositories/{repo}/{MANIFESTS}/tags/{tag}/current/link")
            }
            Key::TagIndex(repo, tag, digest) => {
                format!(
                    "{BASE}/repositories/{repo}/{MANIFESTS}/tags/{tag}/index/{}/link",
                    hex_path(digest)
                )
            }
            Key::UploadData(repo, id) => format!("{BASE}/repositories/{repo}/{UPLOADS}/{id}/data"),
            Key::UploadStarted(repo, id) => {
                format!("{BASE}/repositories/{repo}/{UPLOADS}/{id}/startedat")
            }
            Key::Referrer {
                repo,
                subject,
                referrer,
            } => {
                format!(
                    "{BASE}/repositories/{repo}/_referrers/{}/{}",
                    hex_path(subject),
                    referrer_name(referrer)
                )
            }
            Key::Scanned(repo) => format!("{BASE}/repositories/{repo}/_referrers/scanned"),
            Key::TagHistory(repo, tag) => {
                format!("{}/{tag}", Dir::TagHistories(repo.clone()).path())
            }
            Key::Removal(repo, digest) => {
                let folder = Dir::Removals(repo.clone()).path();
                format!("{folder}/{}", digest_name(digest))
            }
            Key::Pulls(repo) => format!("{}/pulls", Dir::History(repo.clone()).path()),
            Key::SchedulerState => "scheduler-state.json".to_owned(),
            Key::Quarantined(digest, 0) => format!("{QUARANTINE}/{}", digest_name(digest)),
            Key::Quarantined(digest, n) => format!("{QUARANTINE}/{}.{n}", digest_name(digest)),
            Key::VerifyState => format!("{VERIFY}/state.json"),
            Key::VerifyReport => format!("{VERIFY}/report.json"),
            Key::Unfinished(key, id) => format!("{}.{}.tmp", key.path(), id.hyphenated()),
            Key::Filled(repo, what) => format!("{MIRROR}/{repo}/{}", what.path()),
        }
    }

    /// Whether the object lies below `dir`.
    pub(crate) fn is_below(&self, dir: &Dir) -> bool {
        self.path()
            .strip_prefix(&dir.path())
            .is_some_and(|rest| rest.starts_with('/'))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

impl Dir {
    /// Relative to the root, components joined by `/`.
    pub(crate) fn path(&self) -> String {
        match self {
            Dir::Repositories => format!("{BASE}/repositories"),
            Dir::Repository(repo) => format!("{BASE}/repositories/{repo}"),
            Dir::Manifests(repo) => format!("{BASE}/repositories/{repo}/{MANIFESTS}"),
            Dir::AllRevisions(repo) => {
                format!("{BASE}/repositories/{repo}/{MANIFESTS}/revisions")
            }
            Dir::Revisions(repo, algorithm) => {
                format!("{BASE}/repositories/{repo}/{MANIFESTS}/revisions/{algorithm}")
            }
            Dir::Revision(repo, digest) => format!(
                "{BASE}/repositories/{repo}/{MANIFESTS}/revisions/{}",
                hex_path(digest)
            ),
            Dir::Tags(repo) => format!("{BASE}/repositories/{repo}/{MANIFESTS}/tags"),
            Dir::Tag(repo, tag) => format!("{BASE}/repositories/{repo}/{MANIFESTS}/tags/{tag}"),
            Dir::TagCurrent(repo, tag) => {
                format!("{BASE}/repositories/{repo}/{MANIFESTS}/tags/{tag}/current")
            }
            Dir::TagIndexes(repo, tag, algorithm) => {
                format!("{BASE}/repositories/{repo}/{MANIFESTS}/tags/{tag}/index/{algorithm}")
            }
            Dir::Uploads(repo) => format!("{BASE}/repositories/{repo}/{UPLOADS}"),
            Dir::Upload(repo, id) => format!("{BASE}/repositories/{repo}/{UPLOADS}/{id}"),
            Dir::AllLayers(repo) => format!("{BASE}/repositories/{repo}/_layers"),
            Dir::Layers(repo, algorithm) => {
                format!("{BASE}/repositories/{repo}/_layers/{algorithm}")
            }
            Dir::Layer(repo, digest) => {
                format!("{BASE}/repositories/{repo}/_layers/{}", hex_path(digest))
            }
            Dir::AllReferrers(repo) => format!("{BASE}/repositories/{repo}/_referrers"),
            Dir::Referrers(repo, subject) => format!(
                "{BASE}/repositories/{repo}/_referrers/{}",
                hex_path(subject)
            ),
            Dir::History(repo) => format!("{BASE}/repositories/{repo}/_history"),
            Dir::TagHistories(repo) => format!("{BASE}/repositories/{repo}/_history/tags"),
            Dir::Removals(repo) => format!("{BASE}/repositories/{repo}/_history/manifests"),
            Dir::Shard(algorithm, first) => format!("{BASE}/blobs/{algorithm}/{first:02x}"),
            Dir::Blob(digest) => {
                let hex = digest.hex();
                format!("{BASE}/blobs/{}/{}/{hex}", digest.algorithm(), &hex[..2])
            }
            Dir::Mirror => MIRROR.to_owned(),
            Dir::MirrorRepository(repo) => format!("{MIRROR}/{repo}"),
            Dir::Filled(repo, kind) => format!("{MIRROR}/{repo}/{}", kind.folder()),
        }
    }
}

impl fmt::Display for Dir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

#[cfg(test)]
mod tests;
