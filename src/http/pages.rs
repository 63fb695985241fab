//! What is not the registry protocol: a word for people, health and metrics.

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};

use crate::metrics::{CONTENT_TYPE, Checks, Disk};

use super::dispatch::Call;
use super::reply::{Failure, Reply};

pub(super) fn ping() -> Reply {
    Reply::json(StatusCode::OK, "application/json", "{}")
}

pub(super) fn home(call: &Call<'_>) -> Reply {
    let origin = call.front.external.origin(call.head);
    let host = origin
        .as_deref()
        .and_then(|origin| origin.split_once("://"))
        .map_or("HOST:PORT", |(_, host)| host);
    let text = format!(
        "This is a container registry ({name} {version}).\n\n\
         Push an image to it:\n\n    \
         docker tag IMAGE {host}/IMAGE\n    \
         docker push {host}/IMAGE\n\n\
         and pull it from any machine that reaches it:\n\n    \
         docker pull {host}/IMAGE\n\n\
         What it holds: {catalog}\n",
        name = env!("CARGO_PKG_NAME"),
        version = env!("CARGO_PKG_VERSION"),
        catalog = call.front.external.path(call.head, "/v2/_catalog"),
    );
    Reply::text(StatusCode::OK, text)
}

/// The process answers; that is all.
pub(super) fn health() -> Reply {
    uncached(Reply::text(StatusCode::OK, "ok\n"))
}

/// The drive is there, and all is well with what `health` looks at.
pub(super) fn ready(call: &Call<'_>) -> Result<Reply, Failure> {
    call.front.registry()?; // known at once, without a check
    match call.front.health.complaint() {
        Some(complaint) => Err(Failure::NotReady(complaint)),
        None => Ok(uncached(Reply::text(StatusCode::OK, "ok\n"))),
    }
}

pub(super) async fn metrics(call: &Call<'_>) -> Reply {
    let mut space = None;
    if let Ok(registry) = call.front.registry() {
        space = registry.space().await.ok().flatten();
        call.front.metrics.uploads_open(registry.open_uploads());
        let freed = registry.collected();
        let metrics = &call.front.metrics;
        metrics.collected(freed.blobs, freed.bytes, freed.last);
        for quota in registry.quotas() {
            let used = quota.is_known.then_some(quota.used);
            metrics.quota(&quota.repositories, quota.limit, used, quota.refused);
        }
        let health = registry.health();
        call.front.metrics.health(Checks {
            read: health.read,
            damaged: health.damaged,
            mended: health.mended,
            open: health.open,
            last: health.last,
        });
    }
    let text = call.front.metrics.encode(|| {
        space.map(|space| Disk {
            free: space.available,
            total: space.total,
        })
    });
    let mut reply = Reply::text(StatusCode::OK, text);
    reply.set(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    uncached(reply)
}

fn uncached(mut reply: Reply) -> Reply {
    reply.set(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}
