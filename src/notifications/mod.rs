//! Webhooks: who is told of pushes, pulls, mounts and deletes (`notifications` of the configuration).
//!
//! ```text
//! handler -> Notifier::report -> one queue an endpoint -> its task -> POST, again and again until it is taken
//!            (event: the JSON)   (queue: bounded)         (delivery)
//! ```
//!
//! The events and their envelope are CNCF distribution's, and so are the rules of delivery: in order, one at a time,
//! repeated until the endpoint takes it. Reporting never waits and never fails. Queues are in memory alone: what is not
//! delivered when the process ends is lost, and so is the oldest event of a full queue.

mod delivery;
mod event;
mod queue;
pub(crate) mod settings;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::metrics::Metrics;

use delivery::Delivery;
use event::Source;
use queue::Queue;
use settings::Settings;

pub(crate) use delivery::SetupError;
pub(crate) use event::{Action, Actor, Origin, Target};

/// Where handlers report to; clones report to the same endpoints.
#[derive(Clone)]
pub(crate) struct Notifier(Arc<Inner>);

struct Inner {
    include_references: bool,
    source: Source,
    endpoints: Vec<Subscription>,
}

/// What an endpoint wants to know, and the way to it.
struct Subscription {
    ignored_media_types: Vec<String>,
    ignored_actions: Vec<String>,
    queue: Arc<Queue>,
}

/// The tasks that deliver.
pub(crate) struct Deliveries(Vec<(String, Arc<Queue>, JoinHandle<()>)>);

impl Notifier {
    /// Starts a task for each endpoint that is not disabled. `addr` is how this server calls itself
    /// (`<host name>:<port>`).
    ///
    /// # Errors
    /// A header or a URL that is none, and those of the TLS library.
    pub(crate) fn start(
        settings: &Settings,
        addr: String,
        metrics: &Metrics,
    ) -> Result<(Self, Deliveries), SetupError> {
        let (mut endpoints, mut tasks) = (Vec::new(), Vec::new());
        for endpoint in settings
            .endpoints
            .iter()
            .filter(|endpoint| !endpoint.disabled)
        {
            let metrics = metrics.endpoint(&endpoint.name);
            let queue = Arc::new(Queue::new(&endpoint.name, metrics.clone()));
            let delivery = Delivery::new(endpoint, metrics)?;
            let task = tokio::spawn(delivery.run(queue.clone()));
            tasks.push((endpoint.name.clone(), queue.clone(), task));
            let ignored = endpoint.ignored_media_types.iter();
            endpoints.push(Subscription {
                ignored_media_types: ignored
                    .chain(&endpoint.ignore_media_types)
                    .cloned()
                    .collect(),
                ignored_actions: endpoint.ignore_actions.clone(),
                queue,
            });
        }
        let notifier = Notifier(Arc::new(Inner {
            include_references: settings.include_references,
            source: Source {
                addr,
                instance_id: Uuid::new_v4().to_string(),
            },
            endpoints,
        }));
        Ok((notifier, Deliveries(tasks)))
    }

    /// Whether anybody listens: without, nothing need be put together.
    pub(crate) fn is_active(&self) -> bool {
        !self.0.endpoints.is_empty()
    }

    /// Whether events name what a manifest refers to.
    pub(crate) fn includes_references(&self) -> bool {
        self.0.include_references
    }

    /// Queues an event for every endpoint that did not say it ignores it.
    pub(crate) fn report(&self, origin: &Origin, action: Action, target: &Target<'_>) {
        let mut made = None;
        for endpoint in &self.0.endpoints {
            if endpoint.ignores(action, target) {
                continue;
            }
            let event =
                made.get_or_insert_with(|| event::envelope(origin, action, target, &self.0.source));
            endpoint.queue.push(event.clone());
        }
    }
}

impl Subscription {
    fn ignores(&self, action: Action, target: &Target<'_>) -> bool {
        let is_in = |list: &[String], what: &str| list.iter().any(|ignored| ignored == what);
        is_in(&self.ignored_actions, action.as_str())
            || target
                .media_type
                .is_some_and(|media_type| is_in(&self.ignored_media_types, media_type))
    }
}

impl Deliveries {
    /// Takes no more events and delivers those that wait, until `end` at the latest; says which endpoints lost some.
    pub(crate) async fn drain(self, end: Instant) {
        // However late it is, an endpoint that answers gets what fits into a moment.
        let end = end.max(Instant::now() + Duration::from_secs(1));
        for (_, queue, _) in &self.0 {
            queue.close();
        }
        for (name, queue, mut task) in self.0 {
            if timeout_at(end, &mut task).await.is_err() {
                task.abort();
                log::warn!(
                    "notifications: {} events were not delivered to {name} and are lost",
                    queue.pending()
                );
            }
        }
    }
}
