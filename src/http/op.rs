//! Every operation this server knows, as one enum: routing, access control, the log and the metrics all use it.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::auth::Scopes;
use crate::oci::{Algorithm, Digest, Reference, RepoName, Tag};
use crate::registry::UploadId;

use super::route::{Method, OpError, READ_ONLY_PATH, TOKEN_PATH};

/// One request of a client, understood: which operation, with valid arguments. Headers and body come later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Ping,
    GetManifest {
        repo: RepoName,
        reference: Reference,
    },
    HeadManifest {
        repo: RepoName,
        reference: Reference,
    },
    /// `tags` are those of the query: more names for a manifest that is pushed by digest.
    PutManifest {
        repo: RepoName,
        reference: Reference,
        tags: Vec<Tag>,
    },
    DeleteManifest {
        repo: RepoName,
        digest: Digest,
    },
    DeleteTag {
        repo: RepoName,
        tag: Tag,
    },
    GetBlob {
        repo: RepoName,
        digest: Digest,
    },
    HeadBlob {
        repo: RepoName,
        digest: Digest,
    },
    DeleteBlob {
        repo: RepoName,
        digest: Digest,
    },
    StartUpload {
        repo: RepoName,
        algorithm: Option<Algorithm>,
    },
    /// A whole blob in one POST.
    PushBlob {
        repo: RepoName,
        digest: Digest,
    },
    /// Falls back to a new upload session, hence the algorithm.
    MountBlob {
        repo: RepoName,
        digest: Digest,
        from: Option<RepoName>,
        algorithm: Option<Algorithm>,
    },
    UploadStatus {
        repo: RepoName,
        id: UploadId,
    },
    AppendUpload {
        repo: RepoName,
        id: UploadId,
    },
    FinishUpload {
        repo: RepoName,
        id: UploadId,
        digest: Digest,
    },
    CancelUpload {
        repo: RepoName,
        id: UploadId,
    },
    ListTags {
        repo: RepoName,
        page: PageQuery,
    },
    ListRepositories {
        page: PageQuery,
    },
    ListReferrers {
        repo: RepoName,
        subject: Digest,
        artifact_type: Option<String>,
        n: Option<usize>,
        last: Option<Digest>,
    },
    /// A token for `scopes`; with `offline`, one to get others with as well.
    GetToken {
        scopes: Scopes,
        offline: bool,
    },
    /// The same; what is asked for is in the body.
    PostToken,
    /// A text for whoever opens the address in a browser.
    Home,
    /// What makes other machines trust this one: the CA's certificate, and the scripts that install it.
    GetCa,
    GetTrustScript,
    GetTrustPowershell,
    Health,
    Ready,
    Metrics,
    /// Whether changes are refused.
    GetReadOnly,
    /// Refuses them from now on, or takes them again; which is in the body.
    SetReadOnly,
}

/// Which part of a list is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PageQuery {
    pub(crate) n: Option<usize>,
    /// The list goes on after this one, which need not exist (any more).
    pub(crate) last: Option<String>,
}

impl Op {
    /// From the request line: `path` and `query` as they came, percent-encoded.
    ///
    /// # Errors
    /// Says which argument is bad, or that nothing lies there.
    pub(crate) fn parse(method: &str, path: &str, query: Option<&str>) -> Result<Op, OpError> {
        super::route::parse(method, path, query.unwrap_or_default())
    }

    /// The name in the log and the metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Op::Ping => "ping",
            Op::GetManifest { .. } => "get-manifest",
            Op::HeadManifest { .. } => "head-manifest",
            Op::PutManifest { .. } => "put-manifest",
            Op::DeleteManifest { .. } => "delete-manifest",
            Op::DeleteTag { .. } => "delete-tag",
            Op::GetBlob { .. } => "get-blob",
            Op::HeadBlob { .. } => "head-blob",
            Op::DeleteBlob { .. } => "delete-blob",
            Op::StartUpload { .. } => "start-upload",
            Op::PushBlob { .. } => "push-blob",
            Op::MountBlob { .. } => "mount-blob",
            Op::UploadStatus { .. } => "upload-status",
            Op::AppendUpload { .. } => "append-upload",
            Op::FinishUpload { .. } => "finish-upload",
            Op::CancelUpload { .. } => "cancel-upload",
            Op::ListTags { .. } => "list-tags",
            Op::ListRepositories { .. } => "list-repositories",
            Op::ListReferrers { .. } => "list-referrers",
            Op::GetToken { .. } => "get-token",
            Op::PostToken => "post-token",
            Op::Home => "home",
            Op::GetCa => "get-ca",
            Op::GetTrustScript | Op::GetTrustPowershell => "get-trust-script",
            Op::Health => "health",
            Op::Ready => "ready",
            Op::Metrics => "metrics",
            Op::GetReadOnly => "get-readonly",
            Op::SetReadOnly => "set-readonly",
        }
    }

    /// The method it is asked with; a HEAD of what has no HEAD variant is the same operation without the body.
    #[cfg_attr(
        not(any(test, fuzzing)),
        expect(dead_code, reason = "half of the round-trip property")
    )]
    pub(crate) fn method(&self) -> Method {
        match self {
            Op::HeadManifest { .. } | Op::HeadBlob { .. } => Method::Head,
            Op::PutManifest { .. } | Op::FinishUpload { .. } | Op::SetReadOnly => Method::Put,
            Op::DeleteManifest { .. }
            | Op::DeleteTag { .. }
            | Op::DeleteBlob { .. }
            | Op::CancelUpload { .. } => Method::Delete,
            Op::StartUpload { .. } | Op::PushBlob { .. } | Op::MountBlob { .. } | Op::PostToken => {
                Method::Post
            }
            Op::AppendUpload { .. } => Method::Patch,
            Op::Ping
            | Op::GetManifest { .. }
            | Op::GetBlob { .. }
            | Op::UploadStatus { .. }
            | Op::ListTags { .. }
            | Op::ListRepositories { .. }
            | Op::ListReferrers { .. }
            | Op::GetToken { .. }
            | Op::Home
            | Op::GetCa
            | Op::GetTrustScript
            | Op::GetTrustPowershell
            | Op::Health
            | Op::Ready
            | Op::Metrics
            | Op::GetReadOnly => Method::Get,
        }
    }

    pub(crate) fn repository(&self) -> Option<&RepoName> {
        match self {
            Op::GetManifest { repo, .. }
            | Op::HeadManifest { repo, .. }
            | Op::PutManifest { repo, .. }
            | Op::DeleteManifest { repo, .. }
            | Op::DeleteTag { repo, .. }
            | Op::GetBlob { repo, .. }
            | Op::HeadBlob { repo, .. }
            | Op::DeleteBlob { repo, .. }
            | Op::StartUpload { repo, .. }
            | Op::PushBlob { repo, .. }
            | Op::MountBlob { repo, .. }
            | Op::UploadStatus { repo, .. }
            | Op::AppendUpload { repo, .. }
            | Op::FinishUpload { repo, .. }
            | Op::CancelUpload { repo, .. }
            | Op::ListTags { repo, .. }
            | Op::ListReferrers { repo, .. } => Some(repo),
            Op::Ping
            | Op::ListRepositories { .. }
            | Op::GetToken { .. }
            | Op::PostToken
            | Op::Home
            | Op::GetCa
            | Op::GetTrustScript
            | Op::GetTrustPowershell
            | Op::Health
            | Op::Ready
            | Op::Metrics
            | Op::GetReadOnly
            | Op::SetReadOnly => None,
        }
    }

    /// Path and query that parse to this again: what a `Location` or a `Link` says.
    pub(crate) fn to_uri(&self) -> String {
        match self {
            Op::Ping => "/v2/".to_owned(),
            Op::GetManifest { repo, reference } | Op::HeadManifest { repo, reference } => {
                format!("/v2/{repo}/manifests/{reference}")
            }
            Op::PutManifest {
                repo,
                reference,
                tags,
            } => {
                let mut uri = Query::new(format!("/v2/{repo}/manifests/{reference}"));
                tags.iter().for_each(|tag| uri.add("tag", tag.as_str()));
                uri.0
            }
            Op::DeleteManifest { repo, digest } => format!("/v2/{repo}/manifests/{digest}"),
            Op::DeleteTag { repo, tag } => format!("/v2/{repo}/manifests/{tag}"),
            Op::GetBlob { repo, digest }
            | Op::HeadBlob { repo, digest }
            | Op::DeleteBlob { repo, digest } => {
                format!("/v2/{repo}/blobs/{digest}")
            }
            Op::StartUpload { repo, algorithm } => {
                let mut uri = Query::new(format!("/v2/{repo}/blobs/uploads/"));
                uri.add_some("digest-algorithm", algorithm.as_ref());
                uri.0
            }
            Op::PushBlob { repo, digest } => format!("/v2/{repo}/blobs/uploads/?digest={digest}"),
            Op::MountBlob {
                repo,
                digest,
                from,
                algorithm,
            } => {
                let mut uri = Query::new(format!("/v2/{repo}/blobs/uploads/"));
                uri.add("mount", digest);
                uri.add_some("from", from.as_ref());
                uri.add_some("digest-algorithm", algorithm.as_ref());
                uri.0
            }
            Op::UploadStatus { repo, id }
            | Op::AppendUpload { repo, id }
            | Op::CancelUpload { repo, id } => {
                format!("/v2/{repo}/blobs/uploads/{id}")
            }
            Op::FinishUpload { repo, id, digest } => {
                format!("/v2/{repo}/blobs/uploads/{id}?digest={digest}")
            }
            Op::ListTags { repo, page } => page.to_uri(format!("/v2/{repo}/tags/list")),
            Op::ListRepositories { page } => page.to_uri("/v2/_catalog".to_owned()),
            Op::ListReferrers {
                repo,
                subject,
                artifact_type,
                n,
                last,
            } => {
                let mut uri = Query::new(format!("/v2/{repo}/referrers/{subject}"));
                uri.add_some("artifactType", artifact_type.as_ref());
                uri.add_some("last", last.as_ref());
                uri.add_some("n", n.as_ref());
                uri.0
            }
            Op::GetToken { scopes, offline } => {
                let mut uri = Query::new(TOKEN_PATH.to_owned());
                if *offline {
                    uri.add("offline_token", "true");
                }
                scopes.0.iter().for_each(|scope| uri.add("scope", scope));
                uri.0
            }
            Op::PostToken => TOKEN_PATH.to_owned(),
            Op::Home => "/".to_owned(),
            Op::GetCa => "/ca.crt".to_owned(),
            Op::GetTrustScript => "/trust".to_owned(),
            Op::GetTrustPowershell => "/trust.ps1".to_owned(),
            Op::Health => "/healthz".to_owned(),
            Op::Ready => "/readyz".to_owned(),
            Op::Metrics => "/metrics".to_owned(),
            Op::GetReadOnly | Op::SetReadOnly => READ_ONLY_PATH.to_owned(),
        }
    }
}

impl PageQuery {
    fn to_uri(&self, path: String) -> String {
        let mut uri = Query::new(path);
        uri.add_some("last", self.last.as_ref());
        uri.add_some("n", self.n.as_ref());
        uri.0
    }
}

/// A URI that gets its query key by key.
struct Query(String);

impl Query {
    fn new(path: String) -> Self {
        Query(path)
    }

    fn add(&mut self, key: &str, value: impl ToString) {
        /// Colons stay readable, everything else that is no letter or digit is encoded.
        const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
            .remove(b':')
            .remove(b'-')
            .remove(b'.')
            .remove(b'_');
        self.0.push(if self.0.contains('?') { '&' } else { '?' });
        self.0.push_str(key);
        self.0.push('=');
        self.0
            .extend(utf8_percent_encode(&value.to_string(), ENCODED));
    }

    fn add_some(&mut self, key: &str, value: Option<&impl ToString>) {
        if let Some(value) = value {
            self.add(key, value.to_string());
        }
    }
}

#[cfg(test)]
mod tests;
