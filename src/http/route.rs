//! From a request line to an [`Op`]. Works on the path as it came: each component is percent-decoded once and alone,
//! so that an encoded slash or dot never becomes structure.

use std::borrow::Cow;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

use crate::auth::Scopes;
use crate::oci::{Digest, DigestError, NameError, Reference, RepoName, Tag, TagError};
use crate::registry::UploadId;

use super::op::Op;
use super::query::Query;

/// Longer request targets are refused: names have 255 characters, and ten tags of 128 fit.
pub(crate) const MAX_URI: usize = 8 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Head,
    Put,
    Post,
    Patch,
    Delete,
}

impl Method {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Put => "PUT",
            Method::Post => "POST",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        use Method::{Delete, Get, Head, Patch, Post, Put};
        [Get, Head, Put, Post, Patch, Delete]
            .into_iter()
            .find(|m| m.as_str() == text)
    }
}

/// Why a request line is no operation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpError {
    #[error("the repository name {0:?} is not valid: {1}")]
    Name(String, NameError),
    #[error("the tag {0:?} is not valid: {1}")]
    Tag(String, TagError),
    /// A tag that cannot exist, asked for by a reader: the specification's suite wants a plain "not found".
    #[error("there is no manifest {0:?}: {1}")]
    NoSuchTag(String, TagError),
    #[error("the digest {0:?} is not valid: {1}")]
    Digest(String, DigestError),
    #[error(
        "the query has no `digest`: the upload ends with PUT <location>?digest=<digest of the whole blob>"
    )]
    DigestMissing,
    #[error(
        "tags in the query name a manifest that is pushed by its digest, and this one is pushed by a tag"
    )]
    TagsOfTag,
    #[error("there is no upload {0:?}")]
    Upload(String),
    #[error("n is {0:?}, and has to be a number of entries")]
    PageSize(String),
    #[error("{method} is not possible here; possible are {allow}")]
    Method { method: String, allow: &'static str },
    #[error("nothing lies at this path")]
    Path,
    /// Docker's first API; `podman search` probes it and goes on to `_catalog`.
    #[error("the registry API of version 1 does not exist here; version 2 is at /v2/")]
    Version1,
    #[error("the request's path and query have more than {MAX_URI} characters")]
    TooLong,
}

/// Where tokens are to be had.
pub(super) const TOKEN_PATH: &str = "/auth/token";
/// Where changes are switched off and on.
pub(super) const READ_ONLY_PATH: &str = "/admin/readonly";

pub(super) fn parse(method: &str, path: &str, query: &str) -> Result<Op, OpError> {
    if path.len() + query.len() > MAX_URI {
        return Err(OpError::TooLong);
    }
    if let Some(rest) = path.strip_prefix("/v2/") {
        return api(method, rest, query);
    }
    if path == TOKEN_PATH {
        return token(method, query);
    }
    if path == READ_ONLY_PATH {
        let methods = &[Method::Get, Method::Head, Method::Put];
        return Ok(match one_of(method, methods, "GET, HEAD, PUT")? {
            Method::Put => Op::SetReadOnly,
            _ => Op::GetReadOnly,
        });
    }
    let page = match path {
        "/v2" => Op::Ping,
        "/" => Op::Home,
        "/ca.crt" => Op::GetCa,
        "/trust" => Op::GetTrustScript,
        "/trust.ps1" => Op::GetTrustPowershell,
        "/healthz" => Op::Health,
        "/readyz" | "/debug/health" => Op::Ready,
        "/metrics" => Op::Metrics,
        _ if path == "/v1" || path.starts_with("/v1/") => return Err(OpError::Version1),
        _ => return Err(OpError::Path),
    };
    reading(method).map(|_| page)
}

/// What lies below `/v2/`. The last components decide, since a repository may be called `a/manifests` or `blobs`.
fn api(method: &str, path: &str, query: &str) -> Result<Op, OpError> {
    if path.is_empty() {
        return reading(method).map(|_| Op::Ping);
    }
    let query = Query::new(query);
    if path == "_catalog" {
        reading(method)?;
        return Ok(Op::ListRepositories {
            page: query.page()?,
        });
    }
    let (head, last) = path.rsplit_once('/').ok_or(OpError::Path)?;
    let (head, kind) = head.rsplit_once('/').unwrap_or(("", head));
    match (kind, last) {
        ("manifests", reference) => manifest(method, head, reference, &query),
        ("blobs", "uploads") => start(method, head, &query),
        ("blobs", digest) => blob(method, head, digest),
        ("tags", "list") => {
            reading(method)?;
            Ok(Op::ListTags {
                repo: name(head)?,
                page: query.page()?,
            })
        }
        ("referrers", subject) => {
            reading(method)?;
            Ok(Op::ListReferrers {
                repo: name(head)?,
                subject: digest(subject)?,
                artifact_type: query
                    .get("artifactType")
                    .filter(|t| !t.is_empty())
                    .map(Cow::into_owned),
                n: query.number()?,
                last: query
                    .parsed("last")
                    .transpose()
                    .map_err(|(text, e)| OpError::Digest(text, e))?,
            })
        }
        ("uploads", id) => {
            let no_name = (head == "blobs").then_some("");
            let repo = head
                .strip_suffix("/blobs")
                .or(no_name)
                .ok_or(OpError::Path)?;
            if id.is_empty() {
                start(method, repo, &query)
            } else {
                upload(method, repo, id, &query)
            }
        }
        _ => Err(OpError::Path),
    }
}

fn manifest(method: &str, repo: &str, reference: &str, query: &Query<'_>) -> Result<Op, OpError> {
    let method = one_of(
        method,
        &[Method::Get, Method::Head, Method::Put, Method::Delete],
        "GET, HEAD, PUT, DELETE",
    )?;
    let repo = name(repo)?;
    let text = decode(reference);
    let reference = if text.contains(':') {
        Reference::Digest(
            Digest::from_str(&text).map_err(|e| OpError::Digest(text.into_owned(), e))?,
        )
    } else {
        match (Tag::from_str(&text), method) {
            (Ok(tag), _) => Reference::Tag(tag),
            (Err(e), Method::Get | Method::Head) => {
                return Err(OpError::NoSuchTag(text.into_owned(), e));
            }
            (Err(e), _) => return Err(OpError::Tag(text.into_owned(), e)),
        }
    };
    match (method, reference) {
        (Method::Head, reference) => Ok(Op::HeadManifest { repo, reference }),
        (Method::Put, reference) => {
            let tags = query
                .all("tag")
                .map(|t| Tag::from_str(&t).map_err(|e| OpError::Tag(t.into_owned(), e)));
            let tags = tags.collect::<Result<Vec<Tag>, OpError>>()?;
            if !tags.is_empty() && matches!(reference, Reference::Tag(_)) {
                return Err(OpError::TagsOfTag);
            }
            Ok(Op::PutManifest {
                repo,
                reference,
                tags,
            })
        }
        (Method::Delete, Reference::Tag(tag)) => Ok(Op::DeleteTag { repo, tag }),
        (Method::Delete, Reference::Digest(digest)) => Ok(Op::DeleteManifest { repo, digest }),
        (_, reference) => Ok(Op::GetManifest { repo, reference }),
    }
}

fn blob(method: &str, repo: &str, text: &str) -> Result<Op, OpError> {
    let method = one_of(
        method,
        &[Method::Get, Method::Head, Method::Delete],
        "GET, HEAD, DELETE",
    )?;
    let repo = name(repo)?;
    let digest = digest(text)?;
    Ok(match method {
        Method::Head => Op::HeadBlob { repo, digest },
        Method::Delete => Op::DeleteBlob { repo, digest },
        _ => Op::GetBlob { repo, digest },
    })
}

fn start(method: &str, repo: &str, query: &Query<'_>) -> Result<Op, OpError> {
    one_of(method, &[Method::Post], "POST")?;
    let repo = name(repo)?;
    let bad = |(text, e)| OpError::Digest(text, e);
    let algorithm = query.parsed("digest-algorithm").transpose().map_err(bad)?;
    if let Some(digest) = query.parsed("mount").transpose().map_err(bad)? {
        let from = query.get("from").filter(|from| !from.is_empty());
        let from = from
            .map(|from| RepoName::from_str(&from).map_err(|e| OpError::Name(from.into_owned(), e)));
        return Ok(Op::MountBlob {
            repo,
            digest,
            from: from.transpose()?,
            algorithm,
        });
    }
    match query.parsed("digest").transpose().map_err(bad)? {
        Some(digest) => Ok(Op::PushBlob { repo, digest }),
        None => Ok(Op::StartUpload { repo, algorithm }),
    }
}

fn upload(method: &str, repo: &str, id: &str, query: &Query<'_>) -> Result<Op, OpError> {
    let all = [
        Method::Get,
        Method::Head,
        Method::Patch,
        Method::Put,
        Method::Delete,
    ];
    let method = one_of(method, &all, "GET, HEAD, PATCH, PUT, DELETE")?;
    let repo = name(repo)?;
    let id = decode(id);
    let id = UploadId::from_str(&id).map_err(|_| OpError::Upload(id.into_owned()))?;
    Ok(match method {
        Method::Patch => Op::AppendUpload { repo, id },
        Method::Delete => Op::CancelUpload { repo, id },
        Method::Put => {
            let digest = query.parsed("digest").ok_or(OpError::DigestMissing)?;
            Op::FinishUpload {
                repo,
                id,
                digest: digest.map_err(|(text, e)| OpError::Digest(text, e))?,
            }
        }
        _ => Op::UploadStatus { repo, id },
    })
}

/// Other keys (`account`, `client_id`, `service`) are for token servers that serve several.
fn token(method: &str, query: &str) -> Result<Op, OpError> {
    match one_of(method, &[Method::Get, Method::Post], "GET, POST")? {
        Method::Post => Ok(Op::PostToken),
        _ => {
            // Encoded as a form: a plus is a space here.
            let pairs = || form_urlencoded::parse(query.as_bytes());
            let scopes: Vec<_> = pairs()
                .filter(|(key, _)| key == "scope")
                .map(|(_, value)| value)
                .collect();
            Ok(Op::GetToken {
                scopes: Scopes::parse(scopes.iter().map(AsRef::as_ref)),
                offline: pairs().any(|(key, value)| key == "offline_token" && value == "true"),
            })
        }
    }
}

fn reading(method: &str) -> Result<Method, OpError> {
    one_of(method, &[Method::Get, Method::Head], "GET, HEAD")
}

fn one_of(method: &str, possible: &[Method], allow: &'static str) -> Result<Method, OpError> {
    Method::parse(method)
        .filter(|m| possible.contains(m))
        .ok_or_else(|| OpError::Method {
            method: method.chars().take(20).collect(),
            allow,
        })
}

fn name(raw: &str) -> Result<RepoName, OpError> {
    if !raw.contains('%') {
        return RepoName::from_str(raw).map_err(|e| OpError::Name(raw.to_owned(), e));
    }
    // A component that decodes to a slash would change where it lies: it makes the name a bad one, as it stands.
    let components: Vec<Cow<'_, str>> = raw.split('/').map(decode).collect();
    if components.iter().any(|c| c.contains('/')) {
        return Err(OpError::Name(raw.to_owned(), NameError::Format));
    }
    let text = components.join("/");
    RepoName::from_str(&text).map_err(|e| OpError::Name(text, e))
}

fn digest(raw: &str) -> Result<Digest, OpError> {
    let text = decode(raw);
    Digest::from_str(&text).map_err(|e| OpError::Digest(text.into_owned(), e))
}

/// What is no UTF-8 becomes U+FFFD, which no name, tag or digest has.
fn decode(raw: &str) -> Cow<'_, str> {
    if raw.contains('%') {
        percent_decode_str(raw).decode_utf8_lossy()
    } else {
        Cow::Borrowed(raw)
    }
}
