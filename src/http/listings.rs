//! Tags, repositories and referrers, page by page.

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use bytes::Bytes;
use serde_json::value::RawValue;

use crate::oci::{Digest, MediaType, RepoName};
use crate::registry::Shown;

use super::dispatch::Call;
use super::op::{Op, PageQuery};
use super::reply::{FILTERS_APPLIED, Failure, REVALIDATE, Reply, STALE};

pub(super) async fn tags(
    call: &Call<'_>,
    repo: &RepoName,
    query: &PageQuery,
) -> Result<Reply, Failure> {
    let (page, is_stale) = call
        .front
        .registry()?
        .pull_tags(repo, query.last.as_deref(), query.n)
        .await?;
    let names = page.items.iter().map(|tag| tag.as_str());
    let body = list(&format!("{{\"name\":\"{repo}\",\"tags\":["), names);
    let mut reply = json(call, body)?;
    if is_stale {
        reply.set(header::WARNING, STALE);
    }
    if let (true, Some(last)) = (page.more, page.items.last()) {
        let page = PageQuery {
            n: query.n.or(Some(page.items.len())),
            last: Some(last.to_string()),
        };
        link(
            call,
            &mut reply,
            &Op::ListTags {
                repo: repo.clone(),
                page,
            },
        );
    }
    Ok(reply)
}

pub(super) async fn repositories(call: &Call<'_>, query: &PageQuery) -> Result<Reply, Failure> {
    let (auth, asker) = (&call.front.auth, call.asker);
    let is_shown = |name: &RepoName| auth.may_see(&asker.identity, &asker.place, name);
    let shown = if auth.may_see_all(&asker.identity, &asker.place) {
        Shown::All
    } else {
        Shown::Only(&is_shown)
    };
    let page = call
        .front
        .registry()?
        .catalog(query.last.as_deref(), query.n, shown)
        .await?;
    let names = page.items.iter().map(RepoName::as_str);
    let mut reply = json(call, list("{\"repositories\":[", names))?;
    if let (true, Some(last)) = (page.more, page.items.last()) {
        let page = PageQuery {
            n: query.n.or(Some(page.items.len())),
            last: Some(last.to_string()),
        };
        link(call, &mut reply, &Op::ListRepositories { page });
    }
    Ok(reply)
}

/// A list even when nothing of that digest exists: clients probe for the API with a digest of zeroes.
pub(super) async fn referrers(
    call: &Call<'_>,
    repo: &RepoName,
    subject: &Digest,
    artifact_type: Option<&str>,
    n: Option<usize>,
    last: Option<&Digest>,
) -> Result<Reply, Failure> {
    let turn = call.front.lists.turn().await;
    let page = call
        .front
        .registry()?
        .referrers(repo, subject, artifact_type, last, n)
        .await?;
    let body = referrers_list(&page.descriptors);
    drop(turn);
    let body = call.front.lists.share(body.into())?;
    let mut reply = referrers_reply(body, artifact_type.is_some());
    if let Some(last) = page.next {
        let next = Op::ListReferrers {
            repo: repo.clone(),
            subject: *subject,
            artifact_type: artifact_type.map(str::to_owned),
            n,
            last: Some(last),
        };
        link(call, &mut reply, &next);
    }
    Ok(reply)
}

/// The answer about a subject that nothing refers to.
pub(super) fn no_referrers(op: &Op) -> Reply {
    let filtered = matches!(
        op,
        Op::ListReferrers {
            artifact_type: Some(_),
            ..
        }
    );
    referrers_reply(referrers_list(&[]).into(), filtered)
}

fn referrers_list(descriptors: &[Box<RawValue>]) -> String {
    let mut body = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{}\",\"manifests\":[",
        MediaType::OciIndex.as_str()
    );
    for (i, descriptor) in descriptors.iter().enumerate() {
        body.push_str(if i > 0 { "," } else { "" });
        body.push_str(descriptor.get());
    }
    body.push_str("]}");
    body
}

fn referrers_reply(body: Bytes, filtered: bool) -> Reply {
    let mut reply = Reply::json(StatusCode::OK, MediaType::OciIndex.as_str(), body);
    reply.set(header::CACHE_CONTROL, REVALIDATE);
    if filtered {
        reply.set(
            FILTERS_APPLIED.clone(),
            HeaderValue::from_static("artifactType"),
        );
    }
    reply
}

fn json(call: &Call<'_>, body: String) -> Result<Reply, Failure> {
    let body = call.front.lists.share(body.into())?;
    let mut reply = Reply::json(StatusCode::OK, "application/json", body);
    reply.set(header::CACHE_CONTROL, REVALIDATE);
    Ok(reply)
}

/// Names and tags have no character that JSON escapes.
fn list<'a>(start: &str, names: impl Iterator<Item = &'a str>) -> String {
    let mut json = String::with_capacity(start.len() + 32 * names.size_hint().0 + 2);
    json.push_str(start);
    for (i, name) in names.enumerate() {
        json.push_str(if i > 0 { ",\"" } else { "\"" });
        json.push_str(name);
        json.push('"');
    }
    json.push_str("]}");
    json
}

/// Path and query only: every client follows it, and no proxy has to be understood for it.
fn link(call: &Call<'_>, reply: &mut Reply, next: &Op) {
    let uri = call.front.external.path(call.head, &next.to_uri());
    reply.set_text(header::LINK, format!("<{uri}>; rel=\"next\""));
}
