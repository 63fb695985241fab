//! How a client reaches this server, as its request tells: for `Location` headers and the home page.

use actix_web::http::Version;
use actix_web::http::header::{FORWARDED, HOST, HeaderMap, HeaderValue};

use super::forwarded::{elements, parameter};
use super::head::Head;
use super::settings::Settings;

/// `http.host`, `http.relativeurls` and `http.prefix`.
///
/// A `Location` is absolute unless `http.relativeurls` is set and `http.host` is not: that is what CNCF distribution sends, and
/// scripts exist that cannot resolve a path. A path in `http.host` is all that clients see of paths. Without a host in the request (HTTP/1.0) it is a path. Whoever forges `X-Forwarded-*`
/// misleads nobody but themselves: no answer that depends on them is cacheable.
#[derive(Debug)]
pub(crate) struct External {
    /// `scheme://host`
    host: Option<String>,
    /// What comes after that in `http.host`.
    host_path: Option<String>,
    relative: bool,
    prefix: String,
}

impl External {
    pub(crate) fn new(settings: &Settings) -> Self {
        let host = settings
            .host
            .as_deref()
            .map(|host| host.trim_end_matches('/'));
        let host = host.filter(|host| !host.is_empty());
        let authority = |url: &str| url.find("://").map_or(0, |at| at + 3);
        let parts = host.map(|url| match url[authority(url)..].find('/') {
            Some(at) => url.split_at(authority(url) + at),
            None => (url, ""),
        });
        External {
            host: parts.map(|(host, _)| host.to_owned()),
            host_path: parts
                .map(|(_, path)| path.to_owned())
                .filter(|path| !path.is_empty()),
            relative: settings.relative_urls && host.is_none(),
            prefix: settings.prefix.trim_end_matches('/').to_owned(),
        }
    }

    /// The part of a request's path that operations are parsed from; none when it does not lie below the prefix.
    pub(crate) fn strip_prefix<'a>(&self, path: &'a str) -> Option<&'a str> {
        match path.strip_prefix(self.prefix.as_str())? {
            "" => Some("/"),
            rest if rest.starts_with('/') => Some(rest),
            _ => None,
        }
    }

    /// `path` as the client has to say it, without scheme and host.
    pub(crate) fn path(&self, head: &Head<'_>, path: &str) -> String {
        if let Some(host_path) = &self.host_path {
            return format!("{host_path}{path}");
        }
        let outer = forwarded(head.headers, "x-forwarded-prefix").unwrap_or_default();
        let outer = if is_path(outer) {
            outer.trim_end_matches('/')
        } else {
            ""
        };
        format!("{outer}{}{path}", self.prefix)
    }

    /// `path` as a `Location`.
    pub(crate) fn location(&self, head: &Head<'_>, path: &str) -> HeaderValue {
        let path = self.path(head, path);
        let url = if self.relative {
            path
        } else {
            match self.origin(head) {
                Some(origin) => origin + &path,
                None => path,
            }
        };
        // Made of checked parts only.
        HeaderValue::try_from(url).unwrap_or_else(|_| HeaderValue::from_static("/"))
    }

    /// `path` as a URL, also where a `Location` would be a path; a path when the request names no host.
    pub(crate) fn url(&self, head: &Head<'_>, path: &str) -> String {
        self.origin(head).unwrap_or_default() + &self.path(head, path)
    }

    /// Distribution's `autoredirect`: `path` of the host that was asked for, by HTTPS unless a proxy says otherwise.
    pub(crate) fn same_host(&self, head: &Head<'_>, path: &str) -> String {
        let scheme = match forwarded(head.headers, "x-forwarded-proto") {
            Some(scheme) if scheme.eq_ignore_ascii_case("http") => "http",
            _ => "https",
        };
        let host = authority(head).filter(|host| is_host(host));
        format!("{scheme}://{}{path}", host.unwrap_or_default())
    }

    /// `scheme://host`.
    pub(crate) fn origin(&self, head: &Head<'_>) -> Option<String> {
        if let Some(host) = &self.host {
            return Some(host.clone());
        }
        let headers = head.headers;
        let direct = (Some(head.scheme()), authority(head));
        let (scheme, host) = match headers.get(FORWARDED).and_then(|value| value.to_str().ok()) {
            Some(value) => {
                // The first element is the one the outermost proxy wrote.
                let first = elements(value).first().copied().unwrap_or_default();
                (
                    parameter(first, "proto").or(direct.0),
                    parameter(first, "host").or(direct.1),
                )
            }
            None => {
                let scheme = forwarded(headers, "x-forwarded-proto").or(direct.0);
                (scheme, forwarded(headers, "x-forwarded-host").or(direct.1))
            }
        };
        let scheme = match scheme {
            Some(scheme) if scheme.eq_ignore_ascii_case("https") => "https",
            _ => "http",
        };
        let host = host.filter(|host| is_host(host))?;
        let port = forwarded(headers, "x-forwarded-port").filter(|_| !has_port(host));
        let port = port.filter(|port| {
            port.parse::<u16>()
                .is_ok_and(|port| port != default_port(scheme))
        });
        Some(match port {
            Some(port) => format!("{scheme}://{host}:{port}"),
            None => format!("{scheme}://{host}"),
        })
    }
}

/// The host that the client asked for. HTTP/2 has it in the request line.
pub(super) fn authority<'a>(head: &Head<'a>) -> Option<&'a str> {
    let uri = head.uri.authority().map(|authority| authority.as_str());
    let header = || head.headers.get(HOST).and_then(|value| value.to_str().ok());
    if head.version == Version::HTTP_2 {
        uri.or_else(header)
    } else {
        header().or(uri)
    }
}

fn forwarded<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let value = headers.get(name)?.to_str().ok()?;
    value
        .split(',')
        .next()
        .map(str::trim)
        .filter(|value| !value.is_empty())
}

/// Nothing but what a host and a port are written with may get into a header of ours.
fn is_host(host: &str) -> bool {
    !host.is_empty()
        && host
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || b"-._:[]".contains(&c))
}

fn is_path(path: &str) -> bool {
    path.starts_with('/')
        && !path.starts_with("//")
        && path
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || b"-._~/%".contains(&c))
}

fn has_port(host: &str) -> bool {
    host.rsplit_once(':')
        .is_some_and(|(_, port)| !port.contains(']'))
}

fn default_port(scheme: &str) -> u16 {
    if scheme == "https" { 443 } else { 80 }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn location(settings: &Settings, headers: &[(&'static str, &str)]) -> String {
        let mut request = TestRequest::get().uri("/v2/");
        for header in headers {
            request = request.insert_header(*header);
        }
        let external = External::new(settings);
        external
            .location(&Head::from(&request.to_http_request()), "/v2/a/blobs/x")
            .to_str()
            .unwrap()
            .to_owned()
    }

    #[test]
    fn follows_the_request_and_the_proxies_before_it() {
        let plain = Settings::default();
        for (headers, expected) in [
            (
                vec![("host", "reg.lan:5000")],
                "http://reg.lan:5000/v2/a/blobs/x",
            ),
            (
                vec![("host", "[::1]:5000")],
                "http://[::1]:5000/v2/a/blobs/x",
            ),
            (vec![], "/v2/a/blobs/x"),
            (vec![("host", "evil/x\"<y>")], "/v2/a/blobs/x"),
            (
                vec![("host", "in:1"), ("x-forwarded-proto", "https")],
                "https://in:1/v2/a/blobs/x",
            ),
            (
                vec![
                    ("host", "in:1"),
                    ("x-forwarded-proto", "https, http"),
                    ("x-forwarded-host", "out.example, in"),
                ],
                "https://out.example/v2/a/blobs/x",
            ),
            (
                vec![
                    ("x-forwarded-proto", "https"),
                    ("x-forwarded-host", "out"),
                    ("x-forwarded-port", "8443"),
                ],
                "https://out:8443/v2/a/blobs/x",
            ),
            (
                vec![
                    ("x-forwarded-proto", "https"),
                    ("x-forwarded-host", "out"),
                    ("x-forwarded-port", "443"),
                ],
                "https://out/v2/a/blobs/x",
            ),
            (
                vec![
                    ("host", "out:8443"),
                    ("x-forwarded-proto", "https"),
                    ("x-forwarded-port", "443"),
                ],
                "https://out:8443/v2/a/blobs/x",
            ),
            (
                vec![
                    ("host", "in"),
                    (
                        "forwarded",
                        "for=1.2.3.4;Host=\"out:99\";proto=https, for=x;host=y",
                    ),
                ],
                "https://out:99/v2/a/blobs/x",
            ),
            (
                vec![
                    ("host", "in"),
                    ("forwarded", "for=\"a,b\";proto=https;host=pub"),
                ],
                "https://pub/v2/a/blobs/x",
            ),
            (
                vec![("host", "in"), ("x-forwarded-prefix", "/reg/")],
                "http://in/reg/v2/a/blobs/x",
            ),
            (
                vec![("host", "in"), ("x-forwarded-prefix", "//evil")],
                "http://in/v2/a/blobs/x",
            ),
        ] {
            assert_eq!(location(&plain, &headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn the_configuration_has_the_last_word() {
        let host = Settings {
            host: Some("https://reg.example.com/".to_owned()),
            ..Settings::default()
        };
        let headers = [("host", "in"), ("x-forwarded-host", "out")];
        assert_eq!(
            location(&host, &headers),
            "https://reg.example.com/v2/a/blobs/x"
        );
        let both = Settings {
            relative_urls: true,
            prefix: "/deep/er".to_owned(),
            ..host
        };
        let expected = "https://reg.example.com/deep/er/v2/a/blobs/x";
        assert_eq!(location(&both, &headers), expected);
        // The path that clients know, whatever the prefix is that a proxy in between makes of it.
        let with_path = Settings {
            host: Some("https://reg.example.com/p/".to_owned()),
            prefix: "/p".to_owned(),
            ..Settings::default()
        };
        let expected = "https://reg.example.com/p/v2/a/blobs/x";
        assert_eq!(location(&with_path, &headers), expected);
        let relative = Settings { host: None, ..both };
        assert_eq!(location(&relative, &headers), "/deep/er/v2/a/blobs/x");
    }

    #[test]
    fn strips_whole_components() {
        let external = External::new(&Settings {
            prefix: "/reg".to_owned(),
            ..Settings::default()
        });
        assert_eq!(external.strip_prefix("/reg/v2/"), Some("/v2/"));
        assert_eq!(external.strip_prefix("/reg"), Some("/"));
        assert_eq!(external.strip_prefix("/registry/v2/"), None);
        assert_eq!(external.strip_prefix("/v2/"), None);
        assert_eq!(
            External::new(&Settings::default()).strip_prefix("/v2/"),
            Some("/v2/")
        );
    }
}
