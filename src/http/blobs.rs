//! Pulling and deleting blobs.

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};

use crate::notifications::Action;
use crate::oci::{ByteRange, Digest, RepoName};
use crate::storage;

use super::dispatch::Call;
use super::reply::{EntityTag, Failure, IMMUTABLE, Reply, ReplyBody};
use super::{conditional, events};

pub(super) async fn head(
    call: &Call<'_>,
    repo: &RepoName,
    digest: &Digest,
) -> Result<Reply, Failure> {
    let tag = EntityTag::new(digest);
    let len = call.front.registry()?.pull_blob_size(repo, digest).await?;
    conditional::of_read(call.head.headers, tag.as_str())?;
    events::blob(call, Action::Pull, repo, digest, len);
    if conditional::has_already(call.head.headers, tag.as_str()) {
        return Ok(not_modified(&tag));
    }
    let mut reply = content(StatusCode::OK, &tag);
    reply.body = ReplyBody::Length(len);
    Ok(reply)
}

pub(super) async fn get(
    call: &Call<'_>,
    repo: &RepoName,
    digest: &Digest,
) -> Result<Reply, Failure> {
    let headers = call.head.headers;
    let tag = EntityTag::new(digest);
    if headers.contains_key(header::IF_NONE_MATCH)
        && conditional::has_already(headers, tag.as_str())
    {
        let len = call.front.registry()?.pull_blob_size(repo, digest).await?;
        events::blob(call, Action::Pull, repo, digest, len);
        return Ok(not_modified(&tag));
    }
    // What is no single byte range is ignored, as RFC 9110 has it: the whole blob is an answer to any range.
    let range = headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok());
    let range = range.filter(|_| conditional::range_counts(headers, tag.as_str()));
    let range = range.and_then(|range| ByteRange::parse(range).ok());
    let blob = call
        .front
        .registry()?
        .pull_blob(repo, digest, range)
        .await?;
    conditional::of_read(headers, tag.as_str())?;
    events::blob(call, Action::Pull, repo, digest, blob.len);
    let mut reply = match blob.is_part {
        false => content(StatusCode::OK, &tag),
        true => {
            let mut reply = content(StatusCode::PARTIAL_CONTENT, &tag);
            let (first, last) = (blob.range.start, blob.range.end.saturating_sub(1));
            reply.set_text(
                header::CONTENT_RANGE,
                format!("bytes {first}-{last}/{}", blob.len),
            );
            reply
        }
    };
    reply.body = match blob.body {
        storage::Body::Bytes(bytes) => ReplyBody::Bytes(bytes),
        storage::Body::Stream(stream) => ReplyBody::Stream {
            len: blob.range.end - blob.range.start,
            stream,
        },
    };
    Ok(reply)
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
        registry.stat_blob(repo, digest).await?;
        return Err(Failure::Precondition);
    }
    registry.delete_blob(repo, digest).await?;
    events::blob_deleted(call, repo, digest);
    Ok(Reply::new(StatusCode::ACCEPTED))
}

fn content(status: StatusCode, tag: &EntityTag) -> Reply {
    let mut reply = Reply::new(status);
    reply.set_digest(tag);
    reply.set(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    reply.set(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    reply.set(header::CACHE_CONTROL, IMMUTABLE);
    reply
}

fn not_modified(tag: &EntityTag) -> Reply {
    let mut reply = Reply::new(StatusCode::NOT_MODIFIED);
    reply.body = ReplyBody::None;
    reply.set_digest(tag);
    reply.set(header::CACHE_CONTROL, IMMUTABLE);
    reply
}
