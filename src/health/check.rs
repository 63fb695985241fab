//! One look at one thing.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::causes::WithCauses;
use crate::registry::{Current, Error};
use crate::tls::{self, client::client_config};

use super::settings::{FileCheck, HttpCheck, Rhythm, TcpCheck};

/// The storage is not waited for longer: a drive that hangs is a drive that is gone.
const STORAGE_PATIENCE: Duration = Duration::from_secs(5);

/// Why a check cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error("health.http: {0:?} is no header, or its value cannot stand in one")]
    Header(String),
    #[error("health.http: a uri is none")]
    Uri,
    #[error(transparent)]
    Tls(#[from] tls::Error),
    #[error("health.http: the HTTP client does not start")]
    Client(#[source] reqwest::Error),
}

pub(super) struct Failure {
    /// For anybody.
    pub(super) sentence: String,
    /// For the log.
    pub(super) reason: String,
}

pub(super) struct Check {
    what: What,
    rhythm: Rhythm,
}

enum What {
    Storage(Current),
    File(PathBuf),
    Http {
        client: Client,
        uri: Url,
        headers: HeaderMap,
        status: usize,
    },
    Tcp {
        addr: String,
        timeout: Duration,
    },
}

impl Check {
    pub(super) fn storage(registry: Current, rhythm: Rhythm) -> Self {
        Check {
            what: What::Storage(registry),
            rhythm,
        }
    }

    pub(super) fn file(check: &FileCheck) -> Self {
        Check {
            what: What::File(check.file.clone()),
            rhythm: check.rhythm,
        }
    }

    pub(super) fn http(check: &HttpCheck) -> Result<Self, SetupError> {
        // The headers are for the server that was named.
        let redirect = Policy::custom(|attempt| {
            let origin = attempt.previous().first().map(Url::origin);
            match origin.is_some_and(|origin| origin == attempt.url().origin()) {
                true if attempt.previous().len() < 10 => attempt.follow(),
                _ => attempt.stop(),
            }
        });
        let client = Client::builder()
            .tls_backend_preconfigured(client_config()?)
            .no_proxy()
            .redirect(redirect)
            .timeout(check.timeout)
            .user_agent(concat!("registry/", env!("CARGO_PKG_VERSION")))
            .pool_max_idle_per_host(0)
            .build()
            .map_err(SetupError::Client)?;
        let mut headers = HeaderMap::new();
        for (name, values) in &check.headers {
            let bad = || SetupError::Header(name.clone());
            let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
            for value in values {
                let mut value = HeaderValue::from_str(value.expose()).map_err(|_| bad())?;
                value.set_sensitive(true);
                headers.append(header.clone(), value);
            }
        }
        Ok(Check {
            what: What::Http {
                client,
                uri: Url::parse(&check.uri).map_err(|_| SetupError::Uri)?,
                headers,
                status: check.status,
            },
            rhythm: check.rhythm,
        })
    }

    pub(super) fn tcp(check: &TcpCheck) -> Self {
        Check {
            what: What::Tcp {
                addr: check.addr.clone(),
                timeout: check.timeout,
            },
            rhythm: check.rhythm,
        }
    }

    pub(super) fn rhythm(&self) -> Rhythm {
        self.rhythm
    }

    /// For the log. Of a URI no more than its server: the rest may hold a secret.
    pub(super) fn subject(&self) -> String {
        match &self.what {
            What::Storage(_) => "the storage".to_owned(),
            What::File(path) => format!("the file {}", path.display()),
            What::Http { uri, .. } => uri.origin().ascii_serialization(),
            What::Tcp { addr, .. } => addr.clone(),
        }
    }

    pub(super) async fn ask(&self) -> Result<(), Failure> {
        match &self.what {
            What::Storage(registry) => storage(registry).await,
            What::File(path) => file(path).await,
            What::Http {
                client,
                uri,
                headers,
                status,
            } => {
                let request = client.head(uri.clone()).headers(headers.clone());
                match request.send().await {
                    Ok(answer) if usize::from(answer.status().as_u16()) == *status => Ok(()),
                    Ok(answer) => Err(elsewhere(format!("it answers {}", answer.status()))),
                    Err(error) => Err(elsewhere(WithCauses(&error.without_url()).to_string())),
                }
            }
            What::Tcp {
                addr,
                timeout: limit,
            } => match timeout(*limit, TcpStream::connect(addr)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(elsewhere(error.to_string())),
                Err(_) => Err(elsewhere(format!("no answer within {limit:?}"))),
            },
        }
    }
}

async fn storage(registry: &Current) -> Result<(), Failure> {
    // Of a drive that is away everybody is told at once, not when the next check is due.
    let Ok(registry) = registry.get() else {
        return Ok(());
    };
    match timeout(STORAGE_PATIENCE, registry.probe()).await {
        // A full disk is read from, and deleted from.
        Ok(Ok(()) | Err(Error::NoSpace)) => Ok(()),
        Ok(Err(Error::Away(away))) => Err(Failure {
            sentence: away.to_string(),
            reason: away.to_string(),
        }),
        Ok(Err(error)) => Err(Failure {
            sentence: "the storage does not work".to_owned(),
            reason: WithCauses(&error).to_string(),
        }),
        Err(_) => {
            let seconds = STORAGE_PATIENCE.as_secs();
            let sentence = format!("the storage did not answer for {seconds} seconds");
            Err(Failure {
                reason: sentence.clone(),
                sentence,
            })
        }
    }
}

async fn file(path: &std::path::Path) -> Result<(), Failure> {
    let sought = path.to_owned();
    // On a thread of its own: the disk may hang. What cannot be looked for is not there, as in distribution.
    let found = tokio::task::spawn_blocking(move || sought.exists()).await;
    if !found.unwrap_or(false) {
        return Ok(());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Err(Failure {
        sentence: format!("the file {name} exists, so this server is out of service"),
        reason: "it exists, so this server is out of service".to_owned(),
    })
}

/// Where is for the log alone.
fn elsewhere(reason: String) -> Failure {
    Failure {
        sentence: "a server that this one depends on does not answer as it should".to_owned(),
        reason,
    }
}
