//! From a name and a password to somebody: hashed once, then remembered.

use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{num::NonZeroUsize, thread};

use tokio::sync::Semaphore;

use super::accounts::{Accounts, Snapshot};
use super::backoff::{Backoff, InLine, Source};
use super::identity::{Identity, ROBOT_PREFIX, Subject};
use super::place::Place;
use super::remembered::{Fingerprint, Remembered};
use super::settings::Htpasswd;
use super::{AuthError, Denied, audit};

/// More than this is no password; hashing it would only be work.
const MAX_PASSWORD: usize = 1024;

/// What `auth.htpasswd` stands for.
#[derive(Debug)]
pub(super) struct LogIn {
    accounts: Accounts,
    state: Arc<State>,
    /// Passwords that are hashed at the same time: half of the cores are left to those who are served.
    hashing: Arc<Semaphore>,
}

/// What a hash that is under way goes on with when the client has left.
#[derive(Debug)]
struct State {
    remembered: Remembered,
    backoff: Backoff,
}

struct Attempt {
    name: String,
    password: Vec<u8>,
    place: Place,
    source: Source,
    fingerprint: Fingerprint,
    snapshot: Arc<Snapshot>,
}

impl LogIn {
    pub(super) fn new(settings: &Htpasswd) -> Result<Self, AuthError> {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let no_randomness = |_| AuthError::Randomness;
        Ok(LogIn {
            accounts: Accounts::open(settings)?,
            state: Arc::new(State {
                remembered: Remembered::new().map_err(no_randomness)?,
                backoff: Backoff::new(),
            }),
            hashing: Arc::new(Semaphore::new((cores / 2).clamp(1, 8))),
        })
    }

    /// As [`Identity::name`] spells it.
    pub(super) fn subject(&self, name: &str) -> Option<Subject> {
        self.accounts.current().subject(name)
    }

    /// Beside the subject a short text that is another one with another password or key; what was issued for the one before
    /// ends with it.
    pub(super) fn account(&self, name: &str) -> Option<(Subject, String)> {
        let snapshot = self.accounts.current();
        Some((snapshot.subject(name)?, snapshot.fingerprint(name)?))
    }

    /// Whether there is a user or a robot at all.
    pub(super) fn has_accounts(&self) -> bool {
        let snapshot = self.accounts.current();
        snapshot.users.len() > 0 || snapshot.robots.iter().next().is_some()
    }

    pub(super) async fn check(
        &self,
        name: String,
        password: Vec<u8>,
        place: &Place,
    ) -> Result<Identity, Denied> {
        let snapshot = self.accounts.current();
        if name.starts_with(ROBOT_PREFIX) {
            return self.robot(&name, &password, place, &snapshot);
        }
        let state = &self.state;
        let fingerprint = state.remembered.fingerprint(&name, &password);
        if let Some(known) = state.remembered.get(&fingerprint, snapshot.generation) {
            return known.map(Identity::of).ok_or(Denied::Credentials);
        }
        if password.is_empty() || password.len() > MAX_PASSWORD {
            return Err(Denied::Credentials);
        }
        let source = Source::from(place.address());
        let attempt = Attempt {
            name,
            password,
            place: place.clone(),
            source,
            fingerprint,
            snapshot,
        };
        if let Some(wait) = state.backoff.wait(source, &attempt.name, Instant::now()) {
            return Err(attempt.throttled(wait));
        }
        let Some(in_line) = state.backoff.line_up(source) else {
            return Err(attempt.throttled(Duration::from_secs(1)));
        };
        let Ok(permit) = self.hashing.clone().acquire_owned().await else {
            return Err(Denied::Credentials);
        };
        // A client sends several requests at once: the first one's hash is for all of them, and so is its failure.
        let generation = attempt.snapshot.generation;
        if let Some(known) = state.remembered.get(&fingerprint, generation) {
            return known.map(Identity::of).ok_or(Denied::Credentials);
        }
        if let Some(wait) = state.backoff.wait(source, &attempt.name, Instant::now()) {
            return Err(attempt.throttled(wait));
        }
        let (state, in_line): (_, InLine) = (state.clone(), in_line);
        // To its end, also when the client leaves: or whoever leaves early could try on for nothing, and have any number
        // of hashes made.
        let hashed = tokio::task::spawn_blocking(move || {
            let _held = (permit, in_line);
            attempt.hash(&state)
        });
        let subject = hashed.await.unwrap_or(None);
        subject.map(Identity::of).ok_or(Denied::Credentials)
    }

    fn robot(
        &self,
        name: &str,
        key: &[u8],
        place: &Place,
        snapshot: &Snapshot,
    ) -> Result<Identity, Denied> {
        let short = name.strip_prefix(ROBOT_PREFIX).unwrap_or_default();
        let now = time::OffsetDateTime::now_utc();
        match snapshot.robots.check(short, key, now) {
            Some(robot) => Ok(Identity::of(Subject::Robot {
                name: short.into(),
                scope: robot.scope(),
            })),
            None => {
                let expired = snapshot.robots.get(short);
                let expired = expired.is_some_and(|robot| robot.has_expired(now));
                let result = if expired { "expired" } else { "wrong key" };
                audit::record(name, place, "log in", result);
                Err(Denied::Credentials)
            }
        }
    }
}

impl Attempt {
    fn hash(self, state: &State) -> Option<Subject> {
        let users = &self.snapshot.users;
        let of_user = users.get(&self.name);
        // Who does not exist takes as long as somebody who does.
        let hash = of_user.or_else(|| users.any(state.remembered.number(&self.name)));
        let is_right = hash.is_some_and(|hash| hash.verify(&self.password));
        let subject = (is_right && of_user.is_some())
            .then(|| self.snapshot.subject(&self.name))
            .flatten();
        let generation = self.snapshot.generation;
        state
            .remembered
            .insert(self.fingerprint, generation, subject.clone());
        let result = if subject.is_some() {
            state.backoff.succeeded(self.source, &self.name);
            "ok"
        } else {
            state
                .backoff
                .failed(self.source, &self.name, Instant::now());
            "wrong password or user"
        };
        audit::record(&self.name, &self.place, "log in", result);
        subject
    }

    fn throttled(&self, retry_after: Duration) -> Denied {
        log::debug!(target: audit::TARGET, "{} from {} has to wait", self.name, self.place);
        Denied::TooMany { retry_after }
    }
}
