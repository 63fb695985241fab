//! Answers to an upstream's challenges: passwords, and the tokens that they are exchanged for.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{StatusCode, Url};
use serde::Deserialize;

use super::Error;
use super::challenge::Challenge;
use super::client::{limited, read_all};
use super::credentials::{Credentials, Login};

pub(super) const WRONG_PASSWORD: &str = "it refuses the user name and the password";

/// Repositories whose tokens are remembered, at some 2 KiB each.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");
/// What a token server may send, in bytes.
const ANSWER_LIMIT: usize = 64 << 10;
/// How long a token is good for if its server does not say ("Docker Registry v2 authentication", `expires_in`).
const LIFETIME: u64 = 60;

pub(super) struct Authorizer {
    /// Of the upstream: what its answers are sent to.
    upstream: Url,
    credentials: Credentials,
    known: Mutex<Known>,
    /// One exchange at a time: those who wait for the same token find it afterwards.
    exchanging: tokio::sync::Mutex<()>,
}

struct Known {
    /// The upstream wants the password itself.
    basic: bool,
    tokens: LruCache<String, Token>,
}

struct Token {
    header: HeaderValue,
    good_until: Instant,
}

impl Authorizer {
    pub(super) fn new(upstream: Url, credentials: Credentials) -> Self {
        Authorizer {
            upstream,
            credentials,
            known: Mutex::new(Known {
                basic: false,
                tokens: LruCache::new(REMEMBERED),
            }),
            exchanging: tokio::sync::Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the upstream will want for a repository, as far as that is known.
    pub(super) async fn expected(&self, repo: &str) -> Result<Option<HeaderValue>, Error> {
        let token = self.token(repo);
        if token.is_none() && self.known().basic {
            return self.basic().await;
        }
        Ok(token)
    }

    fn token(&self, repo: &str) -> Option<HeaderValue> {
        let mut known = self.known();
        let token = known.tokens.get(repo)?;
        (token.good_until > Instant::now()).then(|| token.header.clone())
    }

    async fn basic(&self) -> Result<Option<HeaderValue>, Error> {
        let login = self.credentials.login().await?;
        login.as_ref().map(basic).transpose()
    }

    /// What to send after `challenge` was the answer to `refused`.
    ///
    /// # Errors
    /// `Denied` when there is nothing (else) to send.
    pub(super) async fn answer(
        &self,
        http: &reqwest::Client,
        repo: &str,
        challenge: Challenge,
        refused: Option<&HeaderValue>,
    ) -> Result<HeaderValue, Error> {
        match challenge {
            Challenge::Basic => match self.basic().await? {
                Some(header) if refused != Some(&header) => {
                    self.known().basic = true;
                    Ok(header)
                }
                Some(_) => Err(Error::Credentials(WRONG_PASSWORD)),
                None => Err(Error::Denied),
            },
            Challenge::Bearer {
                realm,
                service,
                scope,
            } => {
                let _exchanging = self.exchanging.lock().await;
                if let Some(header) = self.token(repo).filter(|header| refused != Some(header)) {
                    return Ok(header); // somebody else was quicker
                }
                let scope = scope.unwrap_or_else(|| format!("repository:{repo}:pull"));
                let token = self
                    .exchange(http, &realm, service.as_deref(), &scope)
                    .await?;
                let header = token.header.clone();
                self.known().tokens.put(repo.to_owned(), token);
                Ok(header)
            }
        }
    }

    async fn exchange(
        &self,
        http: &reqwest::Client,
        realm: &str,
        service: Option<&str>,
        scope: &str,
    ) -> Result<Token, Error> {
        let mut url = self
            .upstream
            .join(realm)
            .map_err(|_| Error::Malformed("its token server has no valid address"))?;
        url.query_pairs_mut()
            .extend_pairs(service.map(|service| ("service", service)))
            .append_pair("scope", scope);
        // Who asks in plain text learns nothing from us that the upstream would not have got in plain text, too.
        if url.scheme() != "https" && (self.upstream.scheme() == "https" || url.scheme() != "http")
        {
            return Err(Error::Malformed("its token server is not reached by https"));
        }
        let mut request = http.get(url);
        let login = self.credentials.login().await?;
        if let Some(login) = &login {
            request = request.header(AUTHORIZATION, basic(login)?);
        }
        let asked = Instant::now();
        let response = request.send().await.map_err(Error::of)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if login.is_some() => {
                return Err(Error::Credentials(
                    "its token server refuses the user name and the password",
                ));
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(Error::Denied),
            StatusCode::TOO_MANY_REQUESTS => return Err(limited(&response)),
            other => return Err(Error::Failed(other.as_u16())),
        }
        let answer = read_all(response, ANSWER_LIMIT).await?;
        parse(&answer, asked)
    }
}

fn basic(login: &Login) -> Result<HeaderValue, Error> {
    use base64::Engine as _;
    let text = format!("{}:{}", login.username, login.password.expose());
    let encoded = base64::engine::general_purpose::STANDARD.encode(text);
    secret_header(&format!("Basic {encoded}"))
}

fn secret_header(value: &str) -> Result<HeaderValue, Error> {
    let mut header = HeaderValue::from_str(value)
        .map_err(|_| Error::Malformed("its token cannot stand in a header"))?;
    header.set_sensitive(true);
    Ok(header)
}

fn parse(answer: &[u8], asked: Instant) -> Result<Token, Error> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        /// The name that OAuth 2 has for it.
        access_token: Option<String>,
        expires_in: Option<u64>,
    }
    let answer: Answer = serde_json::from_slice(answer)
        .map_err(|_| Error::Malformed("its token server sent no token"))?;
    let token = answer
        .token
        .filter(|token| !token.is_empty())
        .or(answer.access_token)
        .ok_or(Error::Malformed("its token server sent no token"))?;
    // A day at the most, since nobody can take a token back; and not to the last second, since clocks and networks are slow.
    let seconds = answer.expires_in.unwrap_or(LIFETIME).min(24 * 3600);
    Ok(Token {
        header: secret_header(&format!("Bearer {token}"))?,
        good_until: asked + Duration::from_secs(seconds) * 9 / 10,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_two_names_and_end() {
        let asked = Instant::now();
        let seconds = |json: &str| {
            let token = parse(json.as_bytes(), asked).unwrap();
            assert_eq!(token.header, "Bearer x");
            assert!(token.header.is_sensitive());
            (token.good_until - asked).as_secs()
        };
        assert_eq!(seconds(r#"{"token":"x","expires_in":300}"#), 270);
        assert_eq!(seconds(r#"{"access_token":"x"}"#), 54);
        assert_eq!(
            seconds(r#"{"token":"x","expires_in":18446744073709551615}"#),
            77760
        );
        for bad in ["", "{}", r#"{"token":"a\nb"}"#, r#"{"token":1}"#] {
            assert!(matches!(
                parse(bad.as_bytes(), asked),
                Err(Error::Malformed(_))
            ));
        }
    }
}
