//! One fetch for all who ask for the same thing at the same time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{BoxFuture, FutureExt as _, Shared};
use tokio::sync::oneshot;

use crate::registry::Error;
use crate::{storage, upstream};

/// Why a fetch brought nothing, told to everybody who waited for it.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    Upstream(upstream::Error),
    Local(Arc<Error>),
}

impl From<upstream::Error> for Failure {
    fn from(error: upstream::Error) -> Self {
        Failure::Upstream(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Local(Arc::new(error))
    }
}

impl From<storage::Error> for Failure {
    fn from(error: storage::Error) -> Self {
        Error::from(error).into()
    }
}

impl Failure {
    /// What a client is told; `unknown` is what it asked for.
    pub(super) fn into_error(self, unknown: Error) -> Error {
        match self {
            Failure::Upstream(e) if e.is_unknown() => unknown,
            Failure::Upstream(upstream::Error::Limited { retry_after }) => {
                Error::UpstreamLimited { retry_after }
            }
            Failure::Upstream(upstream::Error::Timeout) => Error::UpstreamTimeout,
            Failure::Upstream(other) => Error::UpstreamFailed(other),
            Failure::Local(e) => match Arc::try_unwrap(e) {
                Ok(error) => error,
                Err(shared) if matches!(*shared, Error::NoSpace | Error::NearlyFull { .. }) => {
                    Error::NoSpace
                }
                Err(shared) => {
                    log::error!("a fetch from the upstream failed here: {shared}");
                    Error::Aborted
                }
            },
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Upstream(error) => error.fmt(f),
            Failure::Local(error) => error.fmt(f),
        }
    }
}

type Outcome<T> = Shared<BoxFuture<'static, Result<T, Failure>>>;
type Table<K, T> = Arc<Mutex<HashMap<K, Outcome<T>>>>;

/// What is under way. Whoever asks for a key that is in the table gets the same outcome as the others.
pub(super) struct Flights<K, T>(Table<K, T>);

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Flights(Arc::default())
    }
}

/// Ends a flight when it is dropped: who asks from then on starts another one.
pub(super) struct Landing<K: Hash + Eq, T> {
    key: K,
    table: Table<K, T>,
}

fn lock<K, T>(table: &Table<K, T>) -> MutexGuard<'_, HashMap<K, Outcome<T>>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Hash + Eq, T> Drop for Landing<K, T> {
    fn drop(&mut self) {
        lock(&self.table).remove(&self.key);
    }
}

impl<K, T> Flights<K, T>
where
    K: Hash + Eq + Clone + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// The outcome of the work under way for `key`, which begins if there is none. It goes on when the caller goes away. The
    /// work holds the [`Landing`] for as long as others shall join it.
    pub(super) async fn join<F>(
        &self,
        key: K,
        work: impl FnOnce(Landing<K, T>) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let (outcome, begin) = {
            let mut table = lock(&self.0);
            match table.get(&key) {
                Some(outcome) => (outcome.clone(), None),
                None => {
                    let (tell, told) = oneshot::channel();
                    let outcome = told
                        .map(|told| told.unwrap_or_else(|_| Err(Error::Aborted.into())))
                        .boxed()
                        .shared();
                    table.insert(key.clone(), outcome.clone());
                    (outcome, Some(tell))
                }
            }
        };
        if let Some(tell) = begin {
            let work = work(Landing {
                key,
                table: self.0.clone(),
            });
            tokio::spawn(async move {
                let _ = tell.send(work.await); // nobody may be left to hear it
            });
        }
        outcome.await
    }

    /// What is under way for `key` now.
    pub(super) fn find(&self, key: &K) -> Option<Outcome<T>> {
        lock(&self.0).get(key).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn those_who_ask_at_once_share_one_fetch() {
        let flights: Flights<u8, usize> = Flights::default();
        let begun = Arc::new(AtomicUsize::new(0));
        let (open, gate) = tokio::sync::watch::channel(false);
        let ask = || {
            let (begun, mut gate) = (begun.clone(), gate.clone());
            flights.join(1, move |landing| async move {
                let n = begun.fetch_add(1, Ordering::SeqCst);
                let _ = gate.wait_for(|open| *open).await;
                drop(landing);
                Ok(n)
            })
        };
        // One that goes away after it began the work.
        let first = tokio::time::timeout(std::time::Duration::from_millis(1), ask()).await;
        assert!(first.is_err());
        let others = futures_util::future::join_all((0..20).map(|_| ask()));
        let (others, _) = tokio::join!(others, async { open.send(true) });
        assert!(others.into_iter().all(|n| n.ok() == Some(0)));
        assert_eq!(ask().await.ok(), Some(1));
    }

    #[tokio::test]
    async fn work_that_is_lost_is_not_waited_for() {
        let flights: Flights<u8, ()> = Flights::default();
        let lost = flights.join(1, |landing| async move {
            let _landing = landing;
            panic!("on purpose");
        });
        assert!(lost.await.is_err());
        assert!(flights.find(&1).is_none());
    }
}
