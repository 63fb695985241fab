//! Another registry that content is fetched from: the upstream of a mirror, in the words of the distribution specification.
//!
//! ```text
//! Upstream (what can be asked, and whether asking is of any use now)
//!   `- client      one request: address, redirects, login, status
//!        `- token  passwords and tokens, as challenge says and from where credentials has them
//! ```
//!
//! Nothing here is kept on a disk, and nothing of it is believed: whoever asked compares content with its digest.

mod challenge;
mod client;
mod credentials;
mod error;
pub(crate) mod settings;
mod token;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, IF_NONE_MATCH, RANGE,
};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::metrics::Metrics;
use crate::oci::{Digest, MediaType, Reference, RepoName, Tag};

use client::{Ask, Client};
pub(crate) use error::Error;
pub(crate) use settings::Settings;

type Result<T> = std::result::Result<T, Error>;

/// For the head of an answer that a client waits for.
const PATIENCE: Duration = Duration::from_secs(30);
/// For whether what we have is still right: there is an answer without, so nobody should wait for long.
const CHECK: Duration = Duration::from_secs(5);
/// One page of a list, in bytes.
const PAGE_LIMIT: usize = 4 << 20;
/// Names in a list, all pages together.
const LIST_LIMIT: usize = 100_000;
/// The names of the header in which registries say what they send.
const DIGEST: &str = "docker-content-digest";

/// The upstream of this mirror. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Upstream(Arc<Inner>);

struct Inner {
    client: Client,
    health: Mutex<Health>,
}

/// Whether it is of any use to ask.
#[derive(Default)]
struct Health {
    failures: u32,
    /// Until then, and why.
    away: Option<(Instant, Error)>,
}

/// A manifest as the upstream sent it.
pub(crate) struct Manifest {
    pub(crate) bytes: Bytes,
    pub(crate) content_type: Option<String>,
}

/// A blob on its way here.
pub(crate) struct Body {
    upstream: Upstream,
    response: Response,
    /// Of the whole blob, if the upstream says so.
    pub(crate) len: Option<u64>,
}

/// An entry of a list of referrers.
#[derive(Clone, Debug)]
pub(crate) struct Referrer {
    pub(crate) digest: Digest,
    pub(crate) artifact_type: Option<String>,
    /// The descriptor as it was sent.
    pub(crate) json: Box<RawValue>,
}

impl Upstream {
    /// # Errors
    /// What of the settings cannot be used.
    pub(crate) fn new(
        settings: &Settings,
        tls: rustls::ClientConfig,
        metrics: Metrics,
    ) -> Result<Self> {
        let credentials = credentials::Credentials::new(settings);
        let is_open = settings.remote_url.starts_with("http://")
            && !matches!(credentials, credentials::Credentials::Anonymous);
        let client = Client::new(&settings.remote_url, credentials, tls, metrics)?;
        if is_open {
            let host = client.host();
            log::warn!("{host} is not asked by https: whoever is on the way can read the password");
        }
        Ok(Upstream(Arc::new(Inner {
            client,
            health: Mutex::default(),
        })))
    }

    /// The host, for people.
    pub(crate) fn host(&self) -> &str {
        self.0.client.host()
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.0.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why it is better not to ask now, if there is another way: it failed a moment ago, or wants to be left alone.
    pub(crate) fn away(&self) -> Option<Error> {
        let health = self.health();
        let (until, why) = health.away.as_ref()?;
        (*until > Instant::now()).then(|| why.clone())
    }

    /// Draws the conclusions from an answer.
    fn learn<T>(&self, result: Result<T>) -> Result<T> {
        let mut health = self.health();
        match &result {
            Err(error) if error.is_transient() => {
                health.failures = (health.failures + 1).min(5);
                let pause = match error {
                    Error::Limited { retry_after } => *retry_after,
                    // 2 s, 4 s ... 32 s
                    _ => Duration::from_secs(1 << health.failures),
                };
                if health.away.is_none() {
                    log::warn!(
                        "{}: {error}; what is here is served without asking",
                        self.host()
                    );
                }
                health.away = Some((Instant::now() + pause, error.clone()));
            }
            // A password that is wrong says nothing about the network.
            Err(Error::Credentials(_)) => {}
            _ => {
                if health.away.take().is_some() {
                    log::info!("{}: the upstream answers again", self.host());
                }
                health.failures = 0;
            }
        }
        result
    }

    async fn ask(&self, ask: Ask<'_>) -> Result<Response> {
        let what = format!("{} {} {}", ask.method, ask.repo, ask.path);
        let started = Instant::now();
        let result = self.0.client.ask(ask).await;
        let ms = started.elapsed().as_millis();
        match &result {
            Ok(response) => {
                log::debug!("upstream: {what}: {}, {ms} ms", response.status().as_u16())
            }
            Err(error) if error.is_unknown() => log::debug!("upstream: {what}: {error}, {ms} ms"),
            Err(error) => log::warn!("upstream: {what}: {error}, {ms} ms"),
        }
        self.learn(result)
    }

    /// What a tag points to now; `None` if the upstream does not say without being asked for the manifest itself. `known` is
    /// what it pointed to before.
    pub(crate) async fn resolve(
        &self,
        repo: &RepoName,
        tag: &Tag,
        known: &Digest,
    ) -> Result<Option<Digest>> {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_str(&format!("\"{known}\"")) {
            headers.insert(IF_NONE_MATCH, value);
        }
        let response = self
            .ask(Ask {
                method: Method::HEAD,
                repo,
                path: format!("manifests/{tag}"),
                accept: manifests(),
                headers,
                limit: CHECK,
            })
            .await?;
        Ok(match response.status() {
            StatusCode::NOT_MODIFIED => Some(*known),
            _ => announced(&response),
        })
    }

    /// A manifest of at most `limit` bytes. Its digest is the one that was asked for, or that the upstream announced.
    pub(crate) async fn manifest(
        &self,
        repo: &RepoName,
        reference: &Reference,
        limit: usize,
    ) -> Result<Manifest> {
        let response = self
            .ask(Ask {
                method: Method::GET,
                repo,
                path: format!("manifests/{reference}"),
                accept: manifests(),
                headers: HeaderMap::new(),
                limit: PATIENCE,
            })
            .await?;
        let content_type = response.headers().get(CONTENT_TYPE);
        let content_type = content_type.and_then(|value| Some(value.to_str().ok()?.to_owned()));
        let expected = match reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(_) => announced(&response),
        };
        let whole = self.0.client.whole(response, limit);
        let bytes = tokio::time::timeout(PATIENCE, whole).await;
        let bytes = self.learn(bytes.unwrap_or(Err(Error::Timeout)))?;
        if expected.is_some_and(|digest| digest.algorithm().digest(&bytes) != digest) {
            return Err(Error::Mismatch("a manifest that has another digest"));
        }
        Ok(Manifest {
            bytes,
            content_type,
        })
    }

    /// The size of a blob in bytes, if the upstream says it.
    pub(crate) async fn blob_size(&self, repo: &RepoName, digest: &Digest) -> Result<Option<u64>> {
        let response = self
            .ask(Ask {
                method: Method::HEAD,
                repo,
                path: format!("blobs/{digest}"),
                accept: None,
                headers: HeaderMap::new(),
                limit: PATIENCE,
            })
            .await?;
        // The library's own idea of the length is that of the body, which HEAD does not have.
        Ok(number(response.headers().get(CONTENT_LENGTH)))
    }

    /// A blob from byte `from` on.
    pub(crate) async fn blob(&self, repo: &RepoName, digest: &Digest, from: u64) -> Result<Body> {
        let mut headers = HeaderMap::new();
        if from > 0
            && let Ok(value) = HeaderValue::from_str(&format!("bytes={from}-"))
        {
            headers.insert(RANGE, value);
        }
        let response = self
            .ask(Ask {
                method: Method::GET,
                repo,
                path: format!("blobs/{digest}"),
                accept: None,
                headers,
                limit: PATIENCE,
            })
            .await?;
        let len = match (from, response.status()) {
            (0, StatusCode::OK) => response.content_length(),
            (0, _) => {
                return Err(Error::Malformed(
                    "a part of a blob that was asked for whole",
                ));
            }
            (_, StatusCode::PARTIAL_CONTENT) => {
                let range = response.headers().get(CONTENT_RANGE);
                let range = range.and_then(|range| range.to_str().ok());
                if !range.is_some_and(|range| range.starts_with(&format!("bytes {from}-"))) {
                    return Err(Error::Malformed(
                        "another part of the blob than was asked for",
                    ));
                }
                None
            }
            _ => return Err(Error::Malformed("it cannot continue a blob")),
        };
        Ok(Body {
            upstream: self.clone(),
            response,
            len,
        })
    }

    /// All tags of a repository, in no order.
    pub(crate) async fn tags(&self, repo: &RepoName) -> Result<Vec<Tag>> {
        #[derive(Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let mut tags = Vec::new();
        let pages = self.pages(repo, "tags/list", Some("n=1000".to_owned()), None);
        for page in pages.await? {
            let page: Page = serde_json::from_slice(&page)
                .map_err(|_| Error::Malformed("its list of tags is not JSON"))?;
            let page = page.tags.unwrap_or_default();
            tags.extend(page.iter().filter_map(|tag| tag.parse::<Tag>().ok()));
        }
        tags.truncate(LIST_LIMIT);
        Ok(tags)
    }

    /// The manifests that are about `subject`.
    pub(crate) async fn referrers(
        &self,
        repo: &RepoName,
        subject: &Digest,
    ) -> Result<Vec<Referrer>> {
        #[derive(Deserialize)]
        struct Page {
            manifests: Vec<Box<RawValue>>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Entry {
            digest: String,
            artifact_type: Option<String>,
        }
        let accept = HeaderValue::from_static(MediaType::OciIndex.as_str());
        let mut referrers = Vec::new();
        let path = format!("referrers/{subject}");
        for page in self.pages(repo, &path, None, Some(accept)).await? {
            let page: Page = serde_json::from_slice(&page)
                .map_err(|_| Error::Malformed("its list of referrers is not JSON"))?;
            for json in page.manifests {
                let entry: Entry = serde_json::from_str(json.get())
                    .map_err(|_| Error::Malformed("its list of referrers has no digests"))?;
                if let Ok(digest) = entry.digest.parse() {
                    referrers.push(Referrer {
                        digest,
                        artifact_type: entry.artifact_type,
                        json,
                    });
                }
            }
        }
        Ok(referrers)
    }

    /// The pages of a list, some at the most.
    async fn pages(
        &self,
        repo: &RepoName,
        path: &str,
        mut query: Option<String>,
        accept: Option<HeaderValue>,
    ) -> Result<Vec<Bytes>> {
        /// Together with `PAGE_LIMIT` what one list may take of the memory for a moment.
        const TOTAL: usize = 8 << 20;
        let mut pages: Vec<Bytes> = Vec::new();
        loop {
            let path = match &query {
                Some(query) => format!("{path}?{query}"),
                None => path.to_owned(),
            };
            let response = self
                .ask(Ask {
                    method: Method::GET,
                    repo,
                    path,
                    accept: accept.clone(),
                    headers: HeaderMap::new(),
                    limit: PATIENCE,
                })
                .await?;
            let next = self.0.client.next_page(&response);
            let whole = self.0.client.whole(response, PAGE_LIMIT);
            let page = tokio::time::timeout(PATIENCE, whole).await;
            pages.push(self.learn(page.unwrap_or(Err(Error::Timeout)))?);
            let total: usize = pages.iter().map(Bytes::len).sum();
            if next.is_none() || next == query || total > TOTAL {
                return Ok(pages);
            }
            query = next;
        }
    }
}

impl Body {
    /// The next piece; `None` at the end, which comes early only with an error.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let chunk = self.upstream.0.client.chunk(&mut self.response).await;
        self.upstream.learn(chunk)
    }
}

/// Every kind of manifest there is: without it registries convert, or do not find what they have.
fn manifests() -> Option<HeaderValue> {
    HeaderValue::from_str(&MediaType::ALL.map(MediaType::as_str).join(", ")).ok()
}

fn announced(response: &Response) -> Option<Digest> {
    response.headers().get(DIGEST)?.to_str().ok()?.parse().ok()
}

fn number(value: Option<&HeaderValue>) -> Option<u64> {
    value?.to_str().ok()?.trim().parse().ok()
}
