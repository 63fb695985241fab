//! Pushing blobs: upload sessions, and the short cuts around them.

use actix_web::http::StatusCode;
use actix_web::http::header::{self, CONTENT_RANGE, HeaderValue};

use crate::notifications::Action;
use crate::oci::{Algorithm, ContentRange, Digest, RepoName};
use crate::registry::{UploadId, Writer};

use super::dispatch::Call;
use super::events;
use super::head::Head;
use super::op::Op;
use super::reply::{CHUNK_MIN, CONTENT_DIGEST, EntityTag, Failure, Reply, UPLOAD_ID};
use super::{Front, room};

pub(super) async fn start(
    call: &Call<'_>,
    repo: &RepoName,
    algorithm: Option<Algorithm>,
) -> Result<Reply, Failure> {
    let id = call.front.registry()?.start_upload(repo, algorithm).await?;
    let mut reply = session(call, StatusCode::ACCEPTED, repo, &id, 0);
    if call.front.min_chunk > 0 {
        reply.set(CHUNK_MIN.clone(), HeaderValue::from(call.front.min_chunk));
    }
    Ok(reply)
}

pub(super) async fn mount(
    call: &Call<'_>,
    repo: &RepoName,
    digest: &Digest,
    from: Option<&RepoName>,
    algorithm: Option<Algorithm>,
) -> Result<Reply, Failure> {
    let is_shown = call.may_pull();
    let shown = call.shown(&is_shown);
    let registry = &call.front.registry()?;
    if let Some(source) = registry.mount(repo, digest, from, shown).await? {
        events::blob_mounted(call, repo, digest, &source).await;
        return Ok(created(call, repo, digest));
    }
    start(call, repo, algorithm.or(Some(digest.algorithm()))).await
}

/// A whole blob in one POST. What fails leaves nothing: the client knows no session that it could resume.
pub(super) async fn push(
    call: &mut Call<'_>,
    repo: &RepoName,
    digest: &Digest,
) -> Result<Reply, Failure> {
    let algorithm = Some(digest.algorithm());
    call.make_room(room::UPLOAD).await?;
    let registry = &call.front.registry()?;
    let id = registry.start_upload(repo, algorithm).await?;
    let mut writer = match registry.resume_upload(repo, &id, Some(0), algorithm).await {
        Ok(writer) => writer.transient(),
        Err(error) => {
            let _ = registry.cancel_upload(repo, &id).await; // what went wrong with it is the answer already
            return Err(error.into());
        }
    };
    match receive(call, &mut writer, None).await {
        Ok(()) => {
            let len = writer.commit(digest).await?;
            events::blob(call, Action::Push, repo, digest, len);
        }
        Err(failure) => {
            writer.abort().await;
            return Err(failure);
        }
    }
    Ok(created(call, repo, digest))
}

pub(super) async fn status(
    call: &Call<'_>,
    repo: &RepoName,
    id: &UploadId,
) -> Result<Reply, Failure> {
    let offset = call.front.registry()?.upload_offset(repo, id).await?;
    Ok(session(call, StatusCode::NO_CONTENT, repo, id, offset))
}

pub(super) async fn append(
    call: &mut Call<'_>,
    repo: &RepoName,
    id: &UploadId,
) -> Result<Reply, Failure> {
    let chunk = Chunk::of(call)?;
    call.make_room(room::UPLOAD).await?;
    let mut writer = call
        .front
        .registry()?
        .resume_upload(repo, id, chunk.first(), None)
        .await?;
    let received = receive(call, &mut writer, chunk.len()).await;
    // Whatever came stays, also when the rest did not; what stopped it is the answer.
    let paused = writer.pause().await;
    received?;
    let offset = paused?;
    Ok(session(call, StatusCode::ACCEPTED, repo, id, offset))
}

pub(super) async fn finish(
    call: &mut Call<'_>,
    repo: &RepoName,
    id: &UploadId,
    digest: &Digest,
) -> Result<Reply, Failure> {
    let chunk = Chunk::of(call)?;
    // Mostly the whole blob is here by then.
    if call.body.length() != Some(0) {
        call.make_room(room::UPLOAD).await?;
    }
    let mut writer = call
        .front
        .registry()?
        .resume_upload(repo, id, chunk.first(), Some(digest.algorithm()))
        .await?;
    if let Err(failure) = receive(call, &mut writer, chunk.len()).await {
        let _ = writer.pause().await;
        return Err(failure);
    }
    let len = writer.commit(digest).await?;
    events::blob(call, Action::Push, repo, digest, len);
    Ok(created(call, repo, digest))
}

pub(super) async fn cancel(
    call: &Call<'_>,
    repo: &RepoName,
    id: &UploadId,
) -> Result<Reply, Failure> {
    call.front.registry()?.cancel_upload(repo, id).await?;
    Ok(Reply::no_content())
}

/// Says where an upload stands: after success, and with the refusal of a chunk that belongs elsewhere.
pub(super) fn describe(
    front: &Front,
    head: &Head<'_>,
    reply: &mut Reply,
    repo: &RepoName,
    id: &UploadId,
    offset: u64,
) {
    let path = Op::UploadStatus {
        repo: repo.clone(),
        id: *id,
    }
    .to_uri();
    reply.set(header::LOCATION, front.external.location(head, &path));
    // `0-0` also stands for nothing at all: the header has no form for an empty range, and docker expects one.
    reply.set_text(header::RANGE, format!("0-{}", offset.saturating_sub(1)));
    reply.set_text(UPLOAD_ID.clone(), id.to_string());
}

fn session(
    call: &Call<'_>,
    status: StatusCode,
    repo: &RepoName,
    id: &UploadId,
    offset: u64,
) -> Reply {
    let mut reply = match status {
        StatusCode::NO_CONTENT => Reply::no_content(),
        status => Reply::new(status),
    };
    describe(call.front, call.head, &mut reply, repo, id, offset);
    reply
}

fn created(call: &Call<'_>, repo: &RepoName, digest: &Digest) -> Reply {
    let path = Op::GetBlob {
        repo: repo.clone(),
        digest: *digest,
    }
    .to_uri();
    let mut reply = Reply::new(StatusCode::CREATED);
    reply.set(
        header::LOCATION,
        call.front.external.location(call.head, &path),
    );
    reply.set(CONTENT_DIGEST.clone(), EntityTag::new(digest).into_digest());
    reply
}

/// What the client says about the part of the blob that it sends.
struct Chunk(Option<ContentRange>);

impl Chunk {
    fn of(call: &Call<'_>) -> Result<Self, Failure> {
        let Some(header) = call.head.headers.get(CONTENT_RANGE) else {
            return Ok(Chunk(None));
        };
        let bad = || Failure::ChunkRange(String::from_utf8_lossy(header.as_bytes()).into_owned());
        let range: ContentRange = header
            .to_str()
            .map_err(|_| bad())?
            .parse()
            .map_err(|_| bad())?;
        match call.body.length() {
            Some(body) if body != range.len() => Err(Failure::ChunkLength {
                range: range.len(),
                body,
            }),
            _ => Ok(Chunk(Some(range))),
        }
    }

    fn first(&self) -> Option<u64> {
        self.0.map(|range| range.first)
    }

    fn len(&self) -> Option<u64> {
        self.0.map(ContentRange::len)
    }
}

/// Moves the body into the upload. `expected` is the length that `Content-Range` promised; what goes beyond it is not
/// written.
async fn receive(
    call: &mut Call<'_>,
    writer: &mut Writer,
    expected: Option<u64>,
) -> Result<(), Failure> {
    if let Some(length) = call.body.length() {
        writer.expect(length).await?;
    }
    let mut received = 0;
    while let Some(bytes) = call.body.next().await? {
        received += bytes.len() as u64;
        match expected {
            Some(range) if received > range => {
                return Err(Failure::ChunkLength {
                    range,
                    body: received,
                });
            }
            _ => writer.write(bytes).await?,
        }
    }
    match expected {
        Some(range) if received != range => Err(Failure::ChunkLength {
            range,
            body: received,
        }),
        _ => Ok(()),
    }
}
