//! Pulling, pushing and deleting manifests and tags.

use actix_web::http::header::{self, HeaderValue};
use actix_web::http::{Method, StatusCode};
use bytes::Bytes;

use crate::oci::{Digest, Reference, RepoName, Tag};

use super::dispatch::Call;
use super::download::Download;
use super::op::Op;
use super::payload::BodyError;
use super::reply::{
    EntityTag, Failure, IMMUTABLE, REVALIDATE, Reply, ReplyBody, STALE, SUBJECT, TAG,
};
use super::{conditional, events};

/// GET and HEAD. The stored media type whatever the `Accept`: a manifest is never converted, and clients that send
/// `*/*`, `application/json` or nothing have to get it too.
pub(super) async fn get(
    call: &Call<'_>,
    repo: &RepoName,
    reference: &Reference,
) -> Result<Reply, Failure> {
    let is_head = *call.head.method == Method::HEAD;
    let registry = call.front.registry()?;
    let pulled = registry.pull_manifest(repo, reference, is_head).await?;
    let manifest = pulled.manifest;
    call.front.registry()?.note_pull(repo, &manifest.digest);
    let tag = EntityTag::new(&manifest.digest);
    conditional::of_read(call.head.headers, tag.as_str())?;
    let known = conditional::has_already(call.head.headers, tag.as_str());
    let mut reply = Reply::new(if known {
        StatusCode::NOT_MODIFIED
    } else {
        StatusCode::OK
    });
    reply.set_digest(&tag);
    if pulled.is_stale {
        reply.set(header::WARNING, STALE);
    }
    let cache = match reference {
        Reference::Digest(_) => IMMUTABLE,
        Reference::Tag(_) => REVALIDATE,
    };
    reply.set(header::CACHE_CONTROL, cache);
    reply.body = if known {
        ReplyBody::None
    } else {
        reply.set(
            header::CONTENT_TYPE,
            HeaderValue::from_static(manifest.media_type.as_str()),
        );
        events::manifest_pulled(call, repo, reference, &manifest);
        match manifest.bytes.len() {
            len if len <= Download::PIECE => ReplyBody::Bytes(manifest.bytes),
            len => ReplyBody::Stream {
                len: len as u64,
                stream: registry.manifest_pieces(manifest.digest, len as u64),
            },
        }
    };
    Ok(reply)
}

pub(super) async fn put(
    call: &mut Call<'_>,
    repo: &RepoName,
    reference: &Reference,
    tags: &[Tag],
) -> Result<Reply, Failure> {
    let condition = conditional::of_change(call.head.headers)?;
    let limit = call.front.registry()?.manifest_limit();
    let bytes = read(call, limit).await?;
    let content_type = call
        .head
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let put = call
        .front
        .registry()?
        .put_manifest(
            repo,
            reference,
            tags,
            bytes.clone(),
            content_type,
            condition,
        )
        .await?;
    events::manifest_pushed(call, repo, &put, &bytes);
    let path = Op::GetManifest {
        repo: repo.clone(),
        reference: Reference::Digest(put.digest),
    }
    .to_uri();
    let mut reply = Reply::new(StatusCode::CREATED);
    reply.set(
        header::LOCATION,
        call.front.external.location(call.head, &path),
    );
    reply.set_digest(&EntityTag::new(&put.digest));
    if let Some(subject) = &put.subject {
        reply.set(SUBJECT.clone(), EntityTag::new(subject).into_digest());
    }
    for tag in &put.tags {
        if let Ok(value) = HeaderValue::from_str(tag.as_str()) {
            reply.add(TAG.clone(), value);
        }
    }
    Ok(reply)
}

/// The whole body, with the room that it takes until the answer is made.
async fn read(call: &mut Call<'_>, limit: usize) -> Result<Bytes, Failure> {
    let length = call.body.length().unwrap_or(limit as u64);
    // What is too large is refused without room.
    if length <= limit as u64 {
        call.make_room(length).await?;
    }
    call.body
        .read_all(limit)
        .await
        .map_err(|error| match error {
            BodyError::TooLarge { .. } => Failure::Body(error),
            error => Failure::Manifest(error),
        })
}

pub(super) async fn delete(
    call: &Call<'_>,
    repo: &RepoName,
    digest: &Digest,
) -> Result<Reply, Failure> {
    let registry = call.front.registry()?;
    // What a digest names is the same at all times: there is no moment between check and removal.
    let condition = conditional::of_change(call.head.headers)?;
    if condition.check(Some(digest)).is_err() {
        registry.manifest(repo, &Reference::Digest(*digest)).await?;
        return Err(Failure::Precondition);
    }
    let deleted = registry.delete_manifest(repo, digest).await?;
    events::manifest_deleted(call, repo, digest, &deleted);
    Ok(Reply::new(StatusCode::ACCEPTED))
}

pub(super) async fn delete_tag(
    call: &Call<'_>,
    repo: &RepoName,
    tag: &Tag,
) -> Result<Reply, Failure> {
    let condition = conditional::of_change(call.head.headers)?;
    let registry = call.front.registry()?;
    registry.delete_tag(repo, tag, condition).await?;
    events::tag_deleted(call, repo, tag);
    Ok(Reply::new(StatusCode::ACCEPTED))
}
