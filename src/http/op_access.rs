//! What the rules are asked about an operation.

use crate::auth::{Access, Action};

use super::op::Op;

impl Op {
    /// A new operation does not compile until it has its action.
    pub(crate) fn access(&self) -> Access<'_> {
        let action = match self {
            Op::Home
            | Op::GetCa
            | Op::GetTrustScript
            | Op::GetTrustPowershell
            | Op::Health
            | Op::Ready => Action::Public,
            Op::GetToken { .. } | Op::PostToken => Action::Token,
            Op::Ping => Action::Ping,
            Op::Metrics => Action::Metrics,
            Op::GetReadOnly | Op::SetReadOnly => Action::Admin,
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
