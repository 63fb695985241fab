//! What the rules are asked about an operation.

use crate::oci::RepoName;

use super::op::Op;

/// What an operation does to what, as the rules are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access<'a> {
    /// None for what concerns the whole server.
    pub(crate) repository: Option<&'a RepoName>,
    pub(crate) action: Action,
    /// A second repository that is read: the source of a mount.
    pub(crate) also_pull: Option<&'a RepoName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Health and the home page: says nothing about the content.
    Public,
    /// Asks whether the credentials are good for anything.
    Ping,
    Catalog,
    Metrics,
    Pull,
    Push,
    Delete,
}

impl Op {
    pub(crate) fn access(&self) -> Access<'_> {
        let action = match self {
            Op::Home | Op::Health | Op::Ready | Op::GetToken { .. } | Op::PostToken => {
                Action::Public
            }
            Op::Ping => Action::Ping,
            Op::Metrics => Action::Metrics,
            Op::ListRepositories { .. } => Action::Catalog,
            Op::GetManifest { .. }
            | Op::HeadManifest { .. }
            | Op::GetBlob { .. }
            | Op::HeadBlob { .. }
            | Op::ListTags { .. }
            | Op::ListReferrers { .. } => Action::Pull,
            Op::PutManifest { .. }
            | Op::StartUpload { .. }
            | Op::PushBlob { .. }
            | Op::MountBlob { .. }
            | Op::UploadStatus { .. }
            | Op::AppendUpload { .. }
            | Op::FinishUpload { .. }
            | Op::CancelUpload { .. } => Action::Push,
            Op::DeleteManifest { .. } | Op::DeleteTag { .. } | Op::DeleteBlob { .. } => {
                Action::Delete
            }
        };
        let also_pull = match self {
            Op::MountBlob { from, .. } => from.as_ref(),
            _ => None,
        };
        Access {
            repository: self.repository(),
            action,
            also_pull,
        }
    }
}
