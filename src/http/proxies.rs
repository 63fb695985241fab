//! From where a request comes, as far as that can be known: the connection, and what proxies say of it.

use std::net::{IpAddr, SocketAddr};

use actix_web::http::header::{FORWARDED, HeaderMap, HeaderName};

use crate::auth::{Hop, Network, Place};

use super::connection::Peer;
use super::forwarded::{elements, parameter};
use super::head::Head;

/// More stations than this are nobody's network; they are not looked at, and not believed.
const MAX_HOPS: usize = 32;

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Follows the stations back from the connection, as long as they are proxies of `trusted` (`http.trustedproxies`).
pub(super) fn place(head: &Head<'_>, trusted: &[Network]) -> Place {
    let peer = match head.client {
        None => Hop::Own(None),
        Some(client) if head.peer.is_some_and(Peer::is_own) => {
            Hop::Own(Some(client.ip().to_canonical()))
        }
        Some(client) => Hop::Address(client.ip().to_canonical()),
    };
    let is_trusted = |hop: &Hop| trusted.iter().any(|network| network.contains(hop));
    let mut lists = Vec::new();
    for list in [
        listed(head.headers, &X_FORWARDED_FOR, x_forwarded_for),
        listed(head.headers, &FORWARDED, forwarded_for),
    ] {
        lists.extend(list);
    }
    if lists.is_empty() {
        return Place::new(peer);
    }
    if !is_trusted(&peer) {
        return Place::claiming(peer, lists.concat());
    }
    // The first station that is no proxy of ours is the client, which each proxy between wrote down. A proxy writes one of
    // the two headers and may let the other one pass, so where they differ neither is believed more.
    let mut clients: Vec<Hop> = lists
        .iter()
        .map(|hops| {
            let client = hops.iter().find(|hop| !is_trusted(hop));
            *client.or(hops.last()).unwrap_or(&peer)
        })
        .collect();
    clients.dedup();
    let client = clients.remove(0);
    Place::claiming(client, clients)
}

/// All stations of a header, nearest first; none if it is not there.
fn listed(
    headers: &HeaderMap,
    name: &HeaderName,
    read: fn(&str) -> Option<Hop>,
) -> Option<Vec<Hop>> {
    let mut hops = Vec::new();
    for value in headers.get_all(name) {
        match value.to_str() {
            Ok(text) => hops.extend(
                elements(text)
                    .into_iter()
                    .take(MAX_HOPS + 1)
                    .filter_map(|item| read(item.trim())),
            ),
            Err(_) => hops.push(Hop::Unknown),
        }
    }
    if hops.is_empty() {
        return None;
    }
    if hops.len() > MAX_HOPS {
        return Some(vec![Hop::Unknown]);
    }
    hops.reverse();
    Some(hops)
}

fn x_forwarded_for(item: &str) -> Option<Hop> {
    Some(address(item).map_or(Hop::Unknown, Hop::Address))
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn address(item: &str) -> Option<IpAddr> {
    let bare = || item.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || Some(item.parse::<SocketAddr>().ok()?.ip());
    item.parse().ok().or_else(with_port).or_else(bare)
}

/// `for="[2001:db8::1]:80";proto=https` (RFC 7239 section 4). None when it tells of something else only.
fn forwarded_for(item: &str) -> Option<Hop> {
    parameter(item, "for").and_then(x_forwarded_for)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn place_of(peer: &str, headers: &[(&'static str, &str)], trusted: &[&str]) -> Place {
        let mut request = TestRequest::get().uri("/v2/");
        for header in headers {
            request = request.append_header(*header);
        }
        let request = request.peer_addr(peer.parse().unwrap()).to_http_request();
        let trusted: Vec<Network> = trusted.iter().map(|text| text.parse().unwrap()).collect();
        place(&Head::from(&request), &trusted)
    }

    fn at(address: &str) -> Hop {
        Hop::Address(address.parse().unwrap())
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let xff = "x-forwarded-for";
        let inner = "10.0.0.1:4000";
        for (headers, trusted, expected) in [
            (vec![], vec!["10.0.0.0/8"], Place::new(at("10.0.0.1"))),
            // Nobody is trusted: a claim, on top of what is known.
            (
                vec![(xff, "8.8.8.8")],
                vec![],
                Place::claiming(at("10.0.0.1"), vec![at("8.8.8.8")]),
            ),
            (
                vec![(xff, "192.168.1.1, 8.8.8.8")],
                vec![],
                Place::claiming(at("10.0.0.1"), vec![at("8.8.8.8"), at("192.168.1.1")]),
            ),
            (
                vec![(xff, "8.8.8.8")],
                vec!["10.0.0.1"],
                Place::new(at("8.8.8.8")),
            ),
            // What the client made up lies further back than what the proxy wrote.
            (
                vec![(xff, "127.0.0.1, 8.8.8.8")],
                vec!["10.0.0.1"],
                Place::new(at("8.8.8.8")),
            ),
            (
                vec![(xff, "127.0.0.1"), (xff, "8.8.8.8")],
                vec!["10.0.0.1"],
                Place::new(at("8.8.8.8")),
            ),
            (
                vec![(xff, "8.8.8.8, 10.0.0.2")],
                vec!["10.0.0.0/8"],
                Place::new(at("8.8.8.8")),
            ),
            (
                vec![(xff, "8.8.8.8, 10.9.0.2")],
                vec!["10.0.0.0/16"],
                Place::new(at("10.9.0.2")),
            ),
            (
                vec![(xff, "10.0.0.7, 10.0.0.2")],
                vec!["10.0.0.0/8"],
                Place::new(at("10.0.0.7")),
            ),
            (
                vec![(xff, "[2001:db8::1]:99")],
                vec!["10.0.0.1"],
                Place::new(at("2001:db8::1")),
            ),
            (
                vec![(xff, "8.8.8.8:1234")],
                vec!["10.0.0.1"],
                Place::new(at("8.8.8.8")),
            ),
            (
                vec![(xff, "me")],
                vec!["10.0.0.1"],
                Place::new(Hop::Unknown),
            ),
            (vec![(xff, "")], vec!["10.0.0.1"], Place::new(Hop::Unknown)),
            (
                vec![(
                    "forwarded",
                    "for=1.1.1.1, For=\"[2001:db8::1]:4\";proto=https",
                )],
                vec!["10.0.0.1"],
                Place::new(at("2001:db8::1")),
            ),
            (
                vec![("forwarded", "for=_hidden")],
                vec!["10.0.0.1"],
                Place::new(Hop::Unknown),
            ),
            (
                vec![("forwarded", "proto=https")],
                vec!["10.0.0.1"],
                Place::new(at("10.0.0.1")),
            ),
            // One of the two may be the client's own words.
            (
                vec![(xff, "8.8.8.8"), ("forwarded", "for=127.0.0.1")],
                vec!["10.0.0.1"],
                Place::claiming(at("8.8.8.8"), vec![at("127.0.0.1")]),
            ),
            (
                vec![(xff, "8.8.8.8"), ("forwarded", "for=8.8.8.8")],
                vec!["10.0.0.1"],
                Place::new(at("8.8.8.8")),
            ),
        ] {
            assert_eq!(
                place_of(inner, &headers, &trusted),
                expected,
                "{headers:?} {trusted:?}"
            );
        }
        let long = vec!["1.1.1.1"; 5000].join(",");
        assert_eq!(
            place_of(inner, &[(xff, &long)], &["10.0.0.1"]),
            Place::new(Hop::Unknown)
        );
    }
}
