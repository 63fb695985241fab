//! One request to the upstream, from its address to a status that means something.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{
    ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use reqwest::{Method, Response, StatusCode, Url};

use super::Error;
use super::challenge::Challenge;
use super::token::{Authorizer, WRONG_PASSWORD};
use crate::metrics::Metrics;
use crate::oci::RepoName;

/// To the upstream's TCP and TLS.
const CONNECT: Duration = Duration::from_secs(10);
/// For the next byte of an answer.
const SILENCE: Duration = Duration::from_secs(30);
/// Connections that are kept for the next request.
const IDLE: usize = 4;
/// A registry's own and that of its object store are two; more than this is a circle.
const REDIRECTS: usize = 5;
/// How long to leave an upstream alone that limits us and does not say for how long.
const LIMITED: Duration = Duration::from_secs(60);

/// The hosts that all stand for Docker Hub.
const HUB: [&str; 4] = [
    "docker.io",
    "index.docker.io",
    "registry.docker.io",
    "registry-1.docker.io",
];

pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    is_hub: bool,
    authorizer: Authorizer,
    metrics: Metrics,
}

/// A request about a repository.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) repo: &'a RepoName,
    /// Below the repository: `manifests/latest`.
    pub(super) path: String,
    pub(super) accept: Option<HeaderValue>,
    pub(super) headers: HeaderMap,
    /// Until the head of the answer is there.
    pub(super) limit: Duration,
}

impl Client {
    pub(super) fn new(
        base: &str,
        credentials: super::credentials::Credentials,
        tls: rustls::ClientConfig,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        let mut base = Url::parse(base.trim_end_matches('/'))
            .map_err(|_| Error::Malformed("proxy.remoteurl is no URL"))?;
        let is_hub = base.host_str().is_some_and(|host| HUB.contains(&host));
        if is_hub && base.host_str() == Some(HUB[0]) {
            // The name that people know is that of a web site.
            let _ = base.set_host(Some(HUB[3]));
        }
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("registry/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .pool_max_idle_per_host(IDLE)
            // Followed below, where it is seen to that no password goes along.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(Error::of)?;
        Ok(Client {
            http,
            authorizer: Authorizer::new(base.clone(), credentials),
            base,
            is_hub,
            metrics,
        })
    }

    /// The upstream's host, for people.
    pub(super) fn host(&self) -> &str {
        self.base.host_str().unwrap_or_default()
    }

    /// The name that a repository has at the upstream: what Docker calls `alpine` is `library/alpine` on Docker Hub.
    fn name(&self, repo: &RepoName) -> String {
        if self.is_hub && !repo.as_str().contains('/') {
            format!("library/{repo}")
        } else {
            repo.to_string()
        }
    }

    /// Asks, and logs in if that is wanted.
    ///
    /// # Errors
    /// Every answer that is no success, nor 304 Not Modified.
    pub(super) async fn ask(&self, ask: Ask<'_>) -> Result<Response, Error> {
        let limit = ask.limit;
        let result = match tokio::time::timeout(limit, self.asked(ask)).await {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout),
        };
        self.metrics
            .upstream_request(result.as_ref().err().map_or("ok", Error::result));
        result
    }

    async fn asked(&self, ask: Ask<'_>) -> Result<Response, Error> {
        let name = self.name(ask.repo);
        let url = format!(
            "{}/v2/{name}/{}",
            self.base.as_str().trim_end_matches('/'),
            ask.path
        );
        let url = Url::parse(&url).map_err(|_| Error::Malformed("the address is no URL"))?;
        let mut headers = ask.headers;
        headers.extend(ask.accept.map(|accept| (ACCEPT, accept)));
        let mut authorization = self.authorizer.expected(&name).await?;
        for last in [false, true] {
            let response = self
                .follow(&ask.method, url.clone(), &headers, authorization.as_ref())
                .await?;
            if response.status() != StatusCode::UNAUTHORIZED {
                return judge(response);
            }
            let values = response.headers().get_all(WWW_AUTHENTICATE);
            let values = values.iter().filter_map(|value| value.to_str().ok());
            let challenge = Challenge::choose(values).ok_or(Error::Denied)?;
            if last {
                // A token says what it is good for, which need not be this; a password is right or wrong.
                return Err(match challenge {
                    Challenge::Basic => Error::Credentials(WRONG_PASSWORD),
                    Challenge::Bearer { .. } => Error::Denied,
                });
            }
            // A connection can be used again when its answer has been read.
            let _ = read_all(response, 64 << 10).await;
            let answer = self
                .authorizer
                .answer(&self.http, &name, challenge, authorization.as_ref())
                .await?;
            authorization = Some(answer);
        }
        Err(Error::Denied)
    }

    /// The next page of a list, as its `Link` says: on the same server, or not at all.
    pub(super) fn next_page(&self, response: &Response) -> Option<String> {
        let link = response.headers().get("link")?.to_str().ok()?;
        let (target, parameters) = link.strip_prefix('<')?.split_once('>')?;
        if !parameters.replace('"', "").contains("rel=next") {
            return None;
        }
        let next = response.url().join(target).ok()?;
        next.query().map(str::to_owned)
    }

    /// Sends, and goes where the answer points. What proves who we are is for the upstream alone.
    async fn follow(
        &self,
        method: &Method,
        mut url: Url,
        headers: &HeaderMap,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, Error> {
        for _ in 0..=REDIRECTS {
            let mut request = self
                .http
                .request(method.clone(), url.clone())
                .headers(headers.clone());
            if let Some(authorization) =
                authorization.filter(|_| url.origin() == self.base.origin())
            {
                request = request.header(AUTHORIZATION, authorization);
            }
            let response = request.send().await.map_err(Error::of)?;
            let status = response.status();
            if !status.is_redirection() || status == StatusCode::NOT_MODIFIED {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION);
            let next = location
                .and_then(|location| url.join(location.to_str().ok()?).ok())
                .ok_or(Error::Malformed("it redirects to nowhere"))?;
            if next.scheme() != "https" && (url.scheme() == "https" || next.scheme() != "http") {
                return Err(Error::Malformed(
                    "it redirects from https to something else",
                ));
            }
            url = next;
        }
        Err(Error::Malformed("it redirects in a circle"))
    }

    /// The next piece of an answer's body.
    pub(super) async fn chunk(&self, response: &mut Response) -> Result<Option<Bytes>, Error> {
        let chunk = response.chunk().await.map_err(Error::of)?;
        if let Some(chunk) = &chunk {
            self.metrics.upstream_bytes(chunk.len() as u64);
        }
        Ok(chunk)
    }

    /// A whole small answer.
    pub(super) async fn whole(&self, response: Response, limit: usize) -> Result<Bytes, Error> {
        let bytes = read_all(response, limit).await?;
        self.metrics.upstream_bytes(bytes.len() as u64);
        Ok(bytes)
    }
}

fn judge(response: Response) -> Result<Response, Error> {
    match response.status() {
        status if status.is_success() => Ok(response),
        StatusCode::NOT_MODIFIED => Ok(response),
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(Error::Unknown),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Error::Denied),
        StatusCode::TOO_MANY_REQUESTS => Err(limited(&response)),
        other => Err(Error::Failed(other.as_u16())),
    }
}

/// `Retry-After` in seconds counts, within reason; a date, which nobody sends here, does not.
pub(super) fn limited(response: &Response) -> Error {
    let seconds = response.headers().get(RETRY_AFTER);
    let seconds = seconds.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Error::Limited {
        retry_after: seconds.map_or(LIMITED, |s: u64| Duration::from_secs(s.clamp(1, 3600))),
    }
}

pub(super) async fn read_all(mut response: Response, limit: usize) -> Result<Bytes, Error> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(Error::of)? {
        if bytes.len() + chunk.len() > limit {
            return Err(Error::Malformed("it is longer than it may be"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::credentials::Credentials;

    #[test]
    fn docker_hub_has_two_names_for_an_official_image() {
        let name = |base: &str, repo: &str| {
            let tls = crate::tls::client::client_config().unwrap();
            let client = Client::new(base, Credentials::Anonymous, tls, Metrics::new("1")).unwrap();
            (
                client.host().to_owned(),
                client.name(&repo.parse().unwrap()),
            )
        };
        let hub = |name: &str| ("registry-1.docker.io".to_owned(), name.to_owned());
        assert_eq!(
            name("https://registry-1.docker.io", "alpine"),
            hub("library/alpine")
        );
        assert_eq!(
            name("https://docker.io/", "library/alpine"),
            hub("library/alpine")
        );
        assert_eq!(name("https://docker.io", "team/app"), hub("team/app"));
        assert_eq!(
            name("https://registry.example.com:5000/", "alpine"),
            ("registry.example.com".to_owned(), "alpine".to_owned())
        );
    }
}
