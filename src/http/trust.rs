//! How other machines come to trust this server, and what plain HTTP from elsewhere is told.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::http::Uri;
use actix_web::http::header::{self, HeaderValue};
use data_encoding::BASE64;

use crate::tls::trust::{Address, Trust};

use super::Front;
use super::connection::Peer;
use super::dispatch::Call;
use super::head::Head;
use super::reply::{Failure, Reply};

/// `/ca.crt`.
pub(super) fn ca(call: &Call<'_>) -> Result<Reply, Failure> {
    let trust = published(call.front)?;
    let reply = text(StatusCode::OK, trust.ca_pem.clone());
    Ok(typed(reply, "application/x-x509-ca-cert"))
}

/// `/trust`, a shell script. What came over plain HTTP may have been changed by anybody on the way, so that copy is one to
/// read: it runs nothing.
pub(super) fn script(call: &Call<'_>) -> Result<Reply, Failure> {
    let trust = published(call.front)?;
    let at = address(call.front, call.head, &trust).ok_or(Failure::NoTrustScript)?;
    let script = trust.script(&at);
    let reply = if is_plain_from_elsewhere(call.head) {
        text(StatusCode::OK, read_only(&trust, &at, &script))
    } else {
        text(StatusCode::OK, script)
    };
    Ok(typed(reply, "text/x-shellscript; charset=utf-8"))
}

/// `/trust.ps1`, with the same rule.
pub(super) fn powershell(call: &Call<'_>) -> Result<Reply, Failure> {
    let trust = published(call.front)?;
    let at = address(call.front, call.head, &trust).ok_or(Failure::NoTrustScript)?;
    let mut script = trust.powershell(&at);
    if is_plain_from_elsewhere(call.head) {
        script = format!(
            "throw 'This copy came over plain HTTP and is for reading only: see {url}/'\n\n{script}",
            url = at.url(),
        );
    }
    Ok(text(StatusCode::OK, script))
}

fn read_only(trust: &Trust, at: &Address, script: &str) -> String {
    let line = trust.line(at);
    format!(
        "#!/bin/sh\n\
         # This copy came over plain HTTP, where anybody on the way can change it, so it is for reading only. What runs it\n\
         # safely is this line, if `registry cert show` on the registry's machine prints the same:\n\
         #\n\
         #   {line}\n\
         echo 'trust: this copy came over plain HTTP and is for reading only; its first lines say how to run it' >&2\n\
         exit 1\n\n{script}"
    )
}

/// What a refusal of plain HTTP says: `message` for people, through their clients.
pub(super) fn refuse_plain(front: &Front, head: &Head<'_>) -> Failure {
    let trust = front.trust.get();
    let at = trust
        .as_deref()
        .and_then(|trust| address(front, head, trust));
    let message = match (&trust, &at) {
        (Some(trust), Some(at)) => format!(
            "this registry does not answer that over plain HTTP: take it off the client's list of insecure registries, let \
             this machine trust the registry's CA (open http://{host}{prefix}/ or run `registry cert show` on the \
             registry's machine; SHA-256 of its ca.crt: {sum}), and use {url}",
            host = at.authority(),
            prefix = at.path(),
            sum = trust.sha256,
            url = at.url(),
        ),
        _ => "this registry does not answer that over plain HTTP: use https:// and this port, make the client trust the \
              registry's CA, and take the registry off the client's list of insecure registries"
            .to_owned(),
    };
    Failure::PlainDenied {
        message,
        ca_sha256: trust.map(|trust| trust.sha256.clone()),
    }
}

/// What people see who come with plain HTTP: with a browser, or with curl.
pub(super) fn page(front: &Front, head: &Head<'_>, status: StatusCode) -> Reply {
    let trust = front.trust.get();
    let at = trust
        .as_deref()
        .and_then(|trust| address(front, head, trust));
    let (Some(trust), Some(at)) = (trust, at) else {
        return text(
            status,
            "This is a container registry. It answers over TLS: use https:// and this port.\n",
        );
    };
    if wants_html(head) {
        return page_of(status, html(&trust, &at));
    }
    text(status, words(&trust, &at))
}

pub(super) fn wants_html(head: &Head<'_>) -> bool {
    let accept = head.headers.get(header::ACCEPT);
    accept.is_some_and(|accept| accept.to_str().is_ok_and(|text| text.contains("text/html")))
}

/// Where a restricted connection gets the page instead of what it asked for.
pub(super) fn is_plain_from_elsewhere(head: &Head<'_>) -> bool {
    head.peer.is_some_and(Peer::is_restricted)
}

fn words(trust: &Trust, at: &Address) -> String {
    format!(
        "This is a container registry. It answers over TLS, with a certificate by a CA of its own.\n\n\
         To make a Linux machine or a Mac trust it, paste there:\n\n  {line}\n\n\
         Windows, in PowerShell:\n\n  {powershell}\n\n\
         Then push: docker push {host}/app:v1\n\n\
         Whoever sits between could have changed this page. `registry cert show`, on the registry's machine, prints the \
         same line;\nwhat has to be equal is s={sum}\n",
        line = trust.line(at),
        powershell = trust.line_powershell(at),
        host = at.of_images(),
        sum = trust.sha256,
    )
}

fn html(trust: &Trust, at: &Address) -> String {
    let escaped = |text: &str| {
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
    };
    format!(
        include_str!("trust.html"),
        host = escaped(&at.of_images()),
        line = escaped(&trust.line(at)),
        powershell = escaped(&trust.line_powershell(at)),
        sum = trust.sha256,
        prefix = escaped(at.path()),
    )
}

fn published(front: &Front) -> Result<Arc<Trust>, Failure> {
    front.trust.get().ok_or(Failure::NoAuthority)
}

/// As the client called this server, if the certificate is for that; else by the name that it has for others.
fn address(front: &Front, head: &Head<'_>, trust: &Trust) -> Option<Address> {
    let origin = front
        .external
        .origin(head)
        .and_then(|origin| origin.parse::<Uri>().ok());
    let port = origin
        .as_ref()
        .map(|origin| match (origin.port_u16(), origin.scheme_str()) {
            (Some(port), _) => port,
            (None, Some("https")) => 443,
            (None, _) => 80,
        });
    let host = origin.as_ref().and_then(|origin| origin.host());
    let host = host.filter(|host| trust.is_for(host)).map(str::to_owned);
    let prefix = front.external.path(head, "");
    Address::new(&host.unwrap_or_else(|| trust.host()), port?, &prefix)
}

/// It may be another one tomorrow.
fn text(status: StatusCode, text: impl Into<bytes::Bytes>) -> Reply {
    let mut reply = Reply::text(status, text);
    reply.set(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

/// HTML of ours: without a script, with no style but its own, and for nobody's frame.
fn page_of(status: StatusCode, html: String) -> Reply {
    let style = html
        .split_once("<style>")
        .and_then(|(_, rest)| rest.split_once("</style>"))
        .map_or("", |(style, _)| style);
    let hash = ring::digest::digest(&ring::digest::SHA256, style.as_bytes());
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        BASE64.encode(hash.as_ref())
    );
    let mut reply = text(status, html);
    reply.set_text(header::CONTENT_SECURITY_POLICY, policy);
    reply.set(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    reply.set(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    typed(reply, "text/html; charset=utf-8")
}

fn typed(mut reply: Reply, media_type: &'static str) -> Reply {
    reply.set(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    reply
}
