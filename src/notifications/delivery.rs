//! One endpoint: POST until it is taken.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, StatusCode, Url};

use crate::causes::WithCauses;
use crate::metrics::EndpointMetrics;
use crate::tls::{self, client::client_config};

use super::event::MEDIA_TYPE;
use super::queue::Queue;
use super::settings::Endpoint;

/// Of an answer's body, so that its connection can be used again.
const MAX_ANSWER: usize = 64 << 10;
const MAX_REDIRECTS: usize = 5;

/// Why an endpoint cannot be called.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error(
        "notifications: endpoint {endpoint}: {header:?} is no header, or its value cannot stand in one"
    )]
    Header { endpoint: String, header: String },
    #[error("notifications: endpoint {endpoint}: its url is none")]
    Url { endpoint: String },
    #[error(transparent)]
    Tls(#[from] tls::Error),
    #[error("notifications: the HTTP client does not start")]
    Client(#[source] reqwest::Error),
}

/// Why an event was not taken this time.
enum Refused {
    /// An answer other than success.
    Status(StatusCode),
    /// None at all.
    NoAnswer(String),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refused::Status(status) if status.is_redirection() => write!(
                f,
                "it answers {status}; redirects to other servers, and those that change the method, are not followed"
            ),
            Refused::Status(status) => write!(f, "it answers {status}"),
            Refused::NoAnswer(why) => f.write_str(why),
        }
    }
}

pub(super) struct Delivery {
    name: String,
    url: Url,
    headers: HeaderMap,
    client: Client,
    threshold: usize,
    backoff: Duration,
    metrics: EndpointMetrics,
    /// In a row.
    failures: usize,
}

impl Delivery {
    pub(super) fn new(endpoint: &Endpoint, metrics: EndpointMetrics) -> Result<Self, SetupError> {
        let name = &endpoint.name;
        let url = Url::parse(&endpoint.url).map_err(|_| SetupError::Url {
            endpoint: name.clone(),
        })?;
        // distribution's rule: what is not positive is the default.
        let or_default = |given: Duration, default| if given.is_zero() { default } else { given };
        let default = Endpoint::default();
        let client = Client::builder()
            .tls_backend_preconfigured(client_config()?)
            .no_proxy()
            .redirect(Policy::custom(redirect))
            .timeout(or_default(endpoint.timeout, default.timeout))
            .user_agent(concat!("registry/", env!("CARGO_PKG_VERSION")))
            .pool_max_idle_per_host(1)
            .build()
            .map_err(SetupError::Client)?;
        Ok(Delivery {
            name: name.clone(),
            url,
            headers: headers(endpoint)?,
            client,
            threshold: if endpoint.threshold == 0 {
                default.threshold
            } else {
                endpoint.threshold
            },
            backoff: or_default(endpoint.backoff, default.backoff),
            metrics,
            failures: 0,
        })
    }

    /// Until the queue is closed and empty.
    pub(super) async fn run(mut self, queue: Arc<Queue>) {
        while let Some(event) = queue.next().await {
            self.deliver(event, &queue).await;
            queue.delivered();
        }
    }

    async fn deliver(&mut self, event: Bytes, queue: &Queue) {
        loop {
            if self.failures >= self.threshold {
                tokio::time::sleep(self.backoff).await;
            }
            match self.post(event.clone()).await {
                Ok(()) => {
                    self.metrics.success();
                    if self.failures >= self.threshold {
                        log::info!("notifications: {} takes events again", self.name);
                    }
                    self.failures = 0;
                    return;
                }
                Err(refused) => {
                    match refused {
                        Refused::Status(_) => self.metrics.failure(),
                        Refused::NoAnswer(_) => self.metrics.error(),
                    }
                    self.failures = self.failures.saturating_add(1);
                    // Once: the attempts go on until it answers.
                    if self.failures == self.threshold {
                        log::warn!(
                            "notifications: {} did not take an event {} times in a row: {refused}; trying again every \
                             {:?}, {} events wait",
                            self.name,
                            self.failures,
                            self.backoff,
                            queue.pending()
                        );
                    } else {
                        log::debug!("notifications: {}: {refused}", self.name);
                    }
                }
            }
        }
    }

    async fn post(&self, event: Bytes) -> Result<(), Refused> {
        let request = self
            .client
            .post(self.url.clone())
            .headers(self.headers.clone())
            .header(CONTENT_TYPE, MEDIA_TYPE)
            .body(event);
        let mut answer = request
            .send()
            .await
            .map_err(|error| Refused::NoAnswer(reason(error)))?;
        let status = answer.status();
        let mut read = 0;
        while let Ok(Some(bytes)) = answer.chunk().await {
            read += bytes.len();
            if read > MAX_ANSWER {
                break;
            }
        }
        if status.is_success() {
            Ok(())
        } else {
            Err(Refused::Status(status))
        }
    }
}

/// An error with its causes, without the URL, which may hold a token.
fn reason(error: reqwest::Error) -> String {
    WithCauses(&error.without_url()).to_string()
}

/// To the same server, with the same method and body: the headers' secrets are for nobody else.
fn redirect(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let keeps_method = matches!(
        attempt.status(),
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
    );
    let origin = attempt.previous().first().map(Url::origin);
    let is_same = origin.is_some_and(|origin| origin == attempt.url().origin());
    if keeps_method && is_same && attempt.previous().len() <= MAX_REDIRECTS {
        attempt.follow()
    } else {
        attempt.stop()
    }
}

fn headers(endpoint: &Endpoint) -> Result<HeaderMap, SetupError> {
    let mut headers = HeaderMap::new();
    for (name, values) in &endpoint.headers {
        let bad = || SetupError::Header {
            endpoint: endpoint.name.clone(),
            header: name.clone(),
        };
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        for value in values {
            let mut value = HeaderValue::from_str(value.expose()).map_err(|_| bad())?;
            value.set_sensitive(true);
            headers.append(header.clone(), value);
        }
    }
    Ok(headers)
}
