//! What a check found, and what can be done about it: as JSON to commands and in the report's file.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Fault {
    /// Content is not what its digest says.
    DamagedContent,
    /// Content that the disk does not give.
    UnreadableContent,
    /// Content that something leads to is not there.
    MissingContent,
    /// A manifest says that content has another size than it has.
    WrongSize,
    /// A manifest of a format that is not served.
    UnknownManifest,
    /// A tag or an index leads to a manifest that the repository does not have.
    MissingManifest,
    /// A manifest needs a blob that the repository does not show.
    MissingLayerLink,
    /// The link to a blob says something else than its path.
    DamagedLayerLink,
    /// The link to a manifest says something else than its path.
    DamagedManifestLink,
    /// The link of a tag is no digest.
    DamagedTag,
    /// A tag without a link: whoever pushed it never got an answer, or the disk lost it.
    UnfinishedTag,
    /// A link to content that is not there, and that no manifest needs.
    DanglingLink,
    /// What another registry left beside a file when it was stopped.
    UnfinishedFile,
    /// A folder that should hold a file and does not.
    EmptyFolder,
    /// An upload that nobody can continue.
    DeadUpload,
    /// Something whose name is none of the layout's.
    StrangeName,
}

/// What mends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Remedy {
    /// The path of a link says what the link has to say.
    Path,
    /// The tag ever pointed to this one manifest alone.
    History { digest: String },
    /// The upstream is asked for the content.
    Upstream,
    /// The registries of `scrub.peers` are asked for the content.
    Peer,
    /// Nobody needs it: it is removed.
    Remove,
    /// Garbage collection or the purging of uploads takes it away in time.
    Wait,
    /// Nobody here knows what it is.
    Leave,
    /// Nothing here can: it has to be pushed again, or deleted.
    Push,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    Open,
    Mended,
    Failed { reason: String },
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finding {
    pub(crate) fault: Fault,
    pub(crate) remedy: Remedy,
    /// Whether it is mended only when somebody says so.
    pub(crate) needs_consent: bool,
    pub(crate) outcome: Outcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) repository: Option<String>,
    /// Those that cannot be pulled because of it; at most [`TAGS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tags: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<String>,
    /// What `digest` alone does not say: a path below the root, sizes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) note: String,
}

/// Tags named in one finding.
pub(super) const TAGS: usize = 20;

impl Fault {
    /// Whether nothing that anybody could pull is affected.
    pub(crate) fn is_debris(self) -> bool {
        matches!(
            self,
            Fault::UnfinishedTag
                | Fault::DanglingLink
                | Fault::UnfinishedFile
                | Fault::EmptyFolder
                | Fault::DeadUpload
                | Fault::StrangeName
        )
    }

    fn text(self) -> &'static str {
        match self {
            Fault::DamagedContent => "damaged content",
            Fault::UnreadableContent => "unreadable content",
            Fault::MissingContent => "missing content",
            Fault::WrongSize => "another size than its manifest says",
            Fault::UnknownManifest => "a manifest of an unknown format",
            Fault::MissingManifest => "missing manifest",
            Fault::MissingLayerLink => "a blob that the repository does not show",
            Fault::DamagedLayerLink => "damaged link to a blob",
            Fault::DamagedManifestLink => "damaged link to a manifest",
            Fault::DamagedTag => "damaged tag",
            Fault::UnfinishedTag => "tag without a link",
            Fault::DanglingLink => "link to a blob that is gone and nobody needs",
            Fault::UnfinishedFile => "file that was never finished",
            Fault::EmptyFolder => "empty folder",
            Fault::DeadUpload => "upload that nobody can continue",
            Fault::StrangeName => "something that is not of a registry",
        }
    }
}

impl Finding {
    fn remedy_text(&self) -> String {
        match (&self.outcome, &self.remedy) {
            (Outcome::Mended, Remedy::Path) => {
                "mended: its path says what it has to say".to_owned()
            }
            (Outcome::Mended, Remedy::History { digest }) => {
                format!("mended: its history has {digest} alone")
            }
            (Outcome::Mended, Remedy::Upstream) => "mended: fetched from the upstream".to_owned(),
            (Outcome::Mended, Remedy::Peer) => "mended: fetched from another registry".to_owned(),
            (Outcome::Mended, _) => "removed".to_owned(),
            (Outcome::Failed { reason }, _) => format!("could not be mended: {reason}"),
            (Outcome::Open, Remedy::Path) => {
                "can be mended: its path says what it has to say".to_owned()
            }
            (Outcome::Open, Remedy::History { digest }) => {
                format!("can be mended: its history has {digest} alone")
            }
            (Outcome::Open, Remedy::Upstream) => "can be fetched from the upstream".to_owned(),
            (Outcome::Open, Remedy::Peer) => "can be asked for at other registries".to_owned(),
            (Outcome::Open, Remedy::Remove) => "can be removed".to_owned(),
            (Outcome::Open, Remedy::Wait) => "goes by itself in time".to_owned(),
            (Outcome::Open, Remedy::Leave) => "is left alone".to_owned(),
            (Outcome::Open, Remedy::Push) => "push it again, or delete it".to_owned(),
        }
    }
}

/// `team/app:v1,v2: damaged content sha256:... (12 bytes in place of ...): push it again, or delete it`
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(repo) = &self.repository {
            write!(f, "{repo}")?;
            if !self.tags.is_empty() {
                write!(f, ":{}", self.tags.join(","))?;
            }
            if self.tags.len() == TAGS {
                f.write_str(" and more")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(self.fault.text())?;
        if let Some(digest) = &self.digest {
            write!(f, " {digest}")?;
        }
        if !self.note.is_empty() {
            write!(f, " ({})", self.note)?;
        }
        write!(f, ": {}", self.remedy_text())
    }
}
