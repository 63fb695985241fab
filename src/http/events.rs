//! What webhooks are told of a request: the same occasions as CNCF distribution's.
//!
//! A pull is also one that was answered with 304 or to HEAD, where distribution counts it: blobs always, manifests unless
//! the client has them already. A deleted manifest is an event of its own, one for each tag that pointed to it, and one
//! for each referrer that went with it.

use actix_web::http::header::USER_AGENT;

use crate::notifications::{Action, Actor, Origin, Target};
use crate::oci::{Digest, Reference, RepoName, Tag};
use crate::registry::{Deleted, Put, StoredManifest};

use super::dispatch::Call;
use super::external::authority;
use super::op::Op;

pub(super) fn manifest_pulled(
    call: &Call<'_>,
    repo: &RepoName,
    reference: &Reference,
    manifest: &StoredManifest,
) {
    let Some(origin) = origin(call) else {
        return;
    };
    let tag = match reference {
        Reference::Tag(tag) => Some(tag),
        Reference::Digest(_) => None,
    };
    let target = Target {
        media_type: Some(manifest.media_type.as_str()),
        tag,
        ..manifest_target(call, repo, &manifest.digest, &manifest.bytes)
    };
    call.front.notifier.report(&origin, Action::Pull, &target);
}

pub(super) fn manifest_pushed(call: &Call<'_>, repo: &RepoName, put: &Put, bytes: &[u8]) {
    let Some(origin) = origin(call) else {
        return;
    };
    let mut target = Target {
        media_type: Some(put.media_type.as_str()),
        ..manifest_target(call, repo, &put.digest, bytes)
    };
    let mut tags = put.tags.iter();
    // One without a tag if there is none.
    target.tag = tags.next();
    call.front.notifier.report(&origin, Action::Push, &target);
    for tag in tags {
        target.tag = Some(tag);
        call.front.notifier.report(&origin, Action::Push, &target);
    }
}

pub(super) fn manifest_deleted(
    call: &Call<'_>,
    repo: &RepoName,
    digest: &Digest,
    deleted: &Deleted,
) {
    let Some(origin) = origin(call) else {
        return;
    };
    let report = |target| {
        call.front.notifier.report(&origin, Action::Delete, &target);
    };
    report(digest_target(repo, digest));
    deleted
        .tags
        .iter()
        .for_each(|tag| report(tag_target(repo, tag)));
    let referrers = deleted.referrers.iter();
    referrers.for_each(|digest| report(digest_target(repo, digest)));
}

pub(super) fn tag_deleted(call: &Call<'_>, repo: &RepoName, tag: &Tag) {
    if let Some(origin) = origin(call) {
        let target = tag_target(repo, tag);
        call.front.notifier.report(&origin, Action::Delete, &target);
    }
}

pub(super) fn blob_deleted(call: &Call<'_>, repo: &RepoName, digest: &Digest) {
    if let Some(origin) = origin(call) {
        let target = digest_target(repo, digest);
        call.front.notifier.report(&origin, Action::Delete, &target);
    }
}

/// `size` in bytes.
pub(super) fn blob(call: &Call<'_>, action: Action, repo: &RepoName, digest: &Digest, size: u64) {
    if let Some(origin) = origin(call) {
        let target = blob_target(call, repo, digest, Some(size));
        call.front.notifier.report(&origin, action, &target);
    }
}

pub(super) async fn blob_mounted(
    call: &Call<'_>,
    repo: &RepoName,
    digest: &Digest,
    from: &RepoName,
) {
    let Some(origin) = origin(call) else {
        return;
    };
    // It was there a moment ago; if it is gone, the mount is news all the same.
    let size = call.front.registry.stat_blob(repo, digest).await.ok();
    let target = Target {
        from_repository: Some(from),
        ..blob_target(call, repo, digest, size)
    };
    call.front.notifier.report(&origin, Action::Mount, &target);
}

/// None when nobody listens.
fn origin(call: &Call<'_>) -> Option<Origin> {
    if !call.front.notifier.is_active() {
        return None;
    }
    let head = call.head;
    let user_agent = head
        .headers
        .get(USER_AGENT)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    Some(Origin::new(
        head.client.map(|client| client.to_string()),
        authority(head).map(str::to_owned),
        head.method.as_str(),
        user_agent.unwrap_or_default(),
        actor(call),
    ))
}

fn actor(call: &Call<'_>) -> Actor {
    let identity = &call.asker.identity;
    Actor {
        name: (!identity.is_anonymous()).then(|| identity.name().into_owned()),
    }
}

fn manifest_target<'a>(
    call: &Call<'_>,
    repo: &'a RepoName,
    digest: &'a Digest,
    bytes: &'a [u8],
) -> Target<'a> {
    let path = Op::GetManifest {
        repo: repo.clone(),
        reference: Reference::Digest(*digest),
    }
    .to_uri();
    Target {
        digest: Some(digest),
        size: Some(bytes.len() as u64),
        url: url(call, &path),
        references_of: call.front.notifier.includes_references().then_some(bytes),
        ..Target::new(repo)
    }
}

fn blob_target<'a>(
    call: &Call<'_>,
    repo: &'a RepoName,
    digest: &'a Digest,
    size: Option<u64>,
) -> Target<'a> {
    let path = Op::GetBlob {
        repo: repo.clone(),
        digest: *digest,
    }
    .to_uri();
    Target {
        digest: Some(digest),
        size,
        url: url(call, &path),
        // Nobody knows what a blob is: whoever refers to it says so.
        media_type: Some("application/octet-stream"),
        ..Target::new(repo)
    }
}

fn digest_target<'a>(repo: &'a RepoName, digest: &'a Digest) -> Target<'a> {
    Target {
        digest: Some(digest),
        ..Target::new(repo)
    }
}

fn tag_target<'a>(repo: &'a RepoName, tag: &'a Tag) -> Target<'a> {
    Target {
        tag: Some(tag),
        ..Target::new(repo)
    }
}

/// As in a `Location`.
fn url(call: &Call<'_>, path: &str) -> Option<String> {
    let location = call.front.external.location(call.head, path);
    location.to_str().ok().map(str::to_owned)
}
