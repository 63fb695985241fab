//! The body of a request, read with a limit on how long nothing may come.

use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout, timeout_at};

use super::appetite::Helping;
use super::pace::Pace;
use super::room::Share;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the connection ended before the body did")]
    Incomplete,
    #[error("no byte of the body came for {} seconds", .0.as_secs())]
    Stalled(Duration),
    #[error("the body came too slowly: http.timeouts.minrate is what it has to keep up")]
    TooSlow,
    #[error("other clients waited for the room that the body took, and it came too slowly")]
    Displaced,
    #[error("the body's transfer encoding is broken")]
    Malformed,
    #[error("the body has more than {limit} bytes")]
    TooLarge { limit: usize },
}

pub(crate) struct RequestBody {
    payload: Payload,
    length: Option<u64>,
    pace: Pace,
    received: u64,
    ended: bool,
    /// None only in tests.
    helping: Option<Helping>,
    share: Option<Share>,
}

impl RequestBody {
    /// What of a refused request's body is still read, so that a client that sends before it listens sees the answer.
    const DRAIN_BYTES: u64 = 4 << 20;
    const DRAIN_TIME: Duration = Duration::from_secs(3);

    pub(crate) fn new(
        payload: Payload,
        length: Option<u64>,
        pace: Pace,
        helping: Option<Helping>,
    ) -> Self {
        let ended = matches!(payload, Payload::None);
        RequestBody {
            payload,
            length,
            pace,
            received: 0,
            ended,
            helping,
            share: None,
        }
    }

    /// What follows is received into this room.
    pub(super) fn hold(&mut self, share: Share) {
        self.share = Some(share);
    }

    /// `Content-Length`, when the client gave one; 0 when there is no body.
    pub(crate) fn length(&self) -> Option<u64> {
        if self.ended && self.received == 0 {
            Some(0)
        } else {
            self.length
        }
    }

    /// Bytes read so far.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        if self.ended {
            return Ok(None);
        }
        if let Some(helping) = &mut self.helping {
            helping.want();
        }
        if let Some(share) = &self.share {
            share.wait();
        }
        let asked = Instant::now();
        let next = timeout(self.pace.patience(), self.payload.next());
        let next = match &self.share {
            None => next.await,
            Some(share) => tokio::select! {
                biased;
                next = next => next,
                () = share.lost() => return Err(BodyError::Displaced),
            },
        };
        if let Some(share) = &self.share {
            let came = match &next {
                Ok(Some(Ok(bytes))) => bytes.len(),
                _ => 0,
            };
            share.received(came);
        }
        match next {
            Ok(Some(Ok(bytes))) => {
                if let Some(helping) = &self.helping {
                    helping.taken(bytes.len());
                }
                self.pace.moved(bytes.len(), asked.elapsed());
                self.received += bytes.len() as u64;
                Ok(Some(bytes))
            }
            Ok(None) => {
                self.ended = true;
                Ok(None)
            }
            Ok(Some(Err(error))) => {
                self.ended = true;
                Err(match error {
                    PayloadError::EncodingCorrupted | PayloadError::UnknownLength => {
                        BodyError::Malformed
                    }
                    _ if self.helping.as_ref().is_some_and(Helping::is_malformed) => {
                        BodyError::Malformed
                    }
                    _ => BodyError::Incomplete,
                })
            }
            Err(_) if self.pace.is_tired() => Err(BodyError::TooSlow),
            Err(_) => Err(BodyError::Stalled(self.pace.patience())),
        }
    }

    /// The whole body, of at most `limit` bytes.
    pub(crate) async fn read_all(&mut self, limit: usize) -> Result<Bytes, BodyError> {
        if self.length().is_some_and(|length| length > limit as u64) {
            return Err(BodyError::TooLarge { limit });
        }
        let Some(first) = self.next().await? else {
            return Ok(Bytes::new());
        };
        let mut rest: Option<BytesMut> = None;
        while let Some(bytes) = self.next().await? {
            let all = rest.get_or_insert_with(|| {
                let capacity = self
                    .length
                    .map_or(first.len() * 2, |length| length as usize);
                let mut all = BytesMut::with_capacity(capacity.min(limit));
                all.extend_from_slice(&first);
                all
            });
            if all.len() + bytes.len() > limit {
                return Err(BodyError::TooLarge { limit });
            }
            all.extend_from_slice(&bytes);
        }
        match rest {
            Some(all) => Ok(all.freeze()),
            None if first.len() > limit => Err(BodyError::TooLarge { limit }),
            // Shares the connection's read buffer: copied by whoever keeps it.
            None => Ok(first),
        }
    }

    /// Reads on for a while and forgets it. What is left then, the connection swallows while it closes.
    pub(crate) async fn drain(&mut self) {
        let end = Instant::now() + Self::DRAIN_TIME;
        let mut drained = 0;
        while !self.ended && drained < Self::DRAIN_BYTES {
            match timeout_at(end, self.next()).await {
                Ok(Ok(Some(bytes))) => drained += bytes.len() as u64,
                _ => return,
            }
        }
    }
}
