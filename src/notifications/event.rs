//! The JSON that endpoints get: CNCF distribution's envelope, field for field.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::oci::{Digest, RepoName, Tag};

/// What registry:2 sends. registry:3 says `v2` of the same fields, which receivers made for the older one refuse.
pub(super) const MEDIA_TYPE: &str = "application/vnd.docker.distribution.events.v1+json";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Push,
    Pull,
    Mount,
    Delete,
}

impl Action {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Action::Push => "push",
            Action::Pull => "pull",
            Action::Mount => "mount",
            Action::Delete => "delete",
        }
    }
}

/// The request that made an event, and who sent it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Origin {
    pub(crate) request: Request,
    pub(crate) actor: Actor,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Request {
    /// The same in all events of a request.
    id: String,
    /// `address:port` of the connection; none of a Unix socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    addr: Option<String>,
    /// As the client called this server.
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    method: String,
    useragent: String,
}

/// Who asked; without a name when nobody was asked who they are.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Actor {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
}

impl Origin {
    pub(crate) fn new(
        addr: Option<String>,
        host: Option<String>,
        method: &str,
        useragent: String,
        actor: Actor,
    ) -> Self {
        let request = Request {
            id: Uuid::new_v4().to_string(),
            addr,
            host,
            method: method.to_owned(),
            useragent,
        };
        Origin { request, actor }
    }
}

/// What something happened to. What does not apply is left out.
#[derive(Clone, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) repository: &'a RepoName,
    pub(crate) media_type: Option<&'a str>,
    /// In bytes.
    pub(crate) size: Option<u64>,
    pub(crate) digest: Option<&'a Digest>,
    /// Where a mounted blob came from.
    pub(crate) from_repository: Option<&'a RepoName>,
    /// Where the content can be had.
    pub(crate) url: Option<String>,
    pub(crate) tag: Option<&'a Tag>,
    /// The manifest whose references are to be named.
    pub(crate) references_of: Option<&'a [u8]>,
}

impl<'a> Target<'a> {
    pub(crate) fn new(repository: &'a RepoName) -> Self {
        Target {
            repository,
            media_type: None,
            size: None,
            digest: None,
            from_repository: None,
            url: None,
            tag: None,
            references_of: None,
        }
    }
}

/// The server that tells.
#[derive(Debug, Serialize)]
pub(super) struct Source {
    pub(super) addr: String,
    /// Of this run of it.
    #[serde(rename = "instanceID")]
    pub(super) instance_id: String,
}

#[derive(Serialize)]
struct Envelope<'a> {
    events: [Event<'a>; 1],
}

#[derive(Serialize)]
struct Event<'a> {
    id: String,
    timestamp: String,
    action: &'static str,
    target: TargetJson<'a>,
    #[serde(flatten)]
    origin: &'a Origin,
    source: &'a Source,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TargetJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    length: Option<u64>,
    repository: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_repository: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    references: Vec<Reference<'a>>,
}

/// A descriptor, as far as distribution passes it on.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Reference<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    media_type: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    size: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    digest: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    urls: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    annotations: Option<&'a RawValue>,
}

/// The config first, then the layers or the manifests, in the order of the manifest.
#[derive(Default, Deserialize)]
struct References<'a> {
    #[serde(borrow)]
    config: Option<Reference<'a>>,
    #[serde(borrow)]
    layers: Option<Vec<Reference<'a>>>,
    #[serde(borrow)]
    manifests: Option<Vec<Reference<'a>>>,
}

fn references(manifest: &[u8]) -> Vec<Reference<'_>> {
    // It was accepted as a manifest; what cannot be read in this form has nothing to name.
    let found: References<'_> = serde_json::from_slice(manifest).unwrap_or_default();
    let lists = [found.layers, found.manifests].into_iter().flatten();
    found.config.into_iter().chain(lists.flatten()).collect()
}

/// An envelope with one event, as it is sent.
pub(super) fn envelope(
    origin: &Origin,
    action: Action,
    target: &Target<'_>,
    source: &Source,
) -> Bytes {
    let size = target.size.filter(|size| *size > 0);
    let target = TargetJson {
        media_type: target.media_type,
        size,
        digest: target.digest.map(Digest::to_string),
        length: size,
        repository: target.repository.as_str(),
        from_repository: target.from_repository.map(RepoName::as_str),
        url: target.url.as_deref(),
        tag: target.tag.map(Tag::as_str),
        references: target.references_of.map(references).unwrap_or_default(),
    };
    let event = Event {
        id: Uuid::new_v4().to_string(),
        // Every time has this form until the year 9999.
        timestamp: OffsetDateTime::now_utc()
            .format(&Rfc3339)
            .unwrap_or_default(),
        action: action.as_str(),
        target,
        origin,
        source,
    };
    let envelope = Envelope { events: [event] };
    // Strings and numbers alone: this does not fail.
    serde_json::to_vec(&envelope).unwrap_or_default().into()
}
