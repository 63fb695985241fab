//! When content is compared with its digests: once in a while all of it, slowly; at once what somebody was about to serve;
//! and when a command says so. A tree that has never been checked, one of another registry perhaps, is looked through first.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc::Sender;

use super::{Event, Pace};
use crate::registry::settings::Scrub as Settings;
use crate::registry::{Check, Checked, Error, HealthReport, Mend, Progress, Registry, UnderWay};

/// How long after the start content is read, at the least: by then the clock of a machine without a clock battery has been
/// set, and whoever restarted it has what they wanted.
const FIRST: Duration = Duration::from_secs(15 * 60);
/// How often it is noted how far it is: what a restart costs at most, at one small write.
const NOTE: Duration = Duration::from_secs(3600);
/// After a failure; and the longest that the clock is trusted to stay as it is.
const AGAIN: Duration = Duration::from_secs(3600);
/// How often whoever watches hears of progress, and how often the log does at the first look.
const PROGRESS: Duration = Duration::from_millis(500);
const TELL: Duration = Duration::from_secs(10);

/// Checks whenever it is time.
pub(crate) struct Scrub {
    registry: Registry,
    settings: Settings,
}

impl Scrub {
    pub(crate) fn new(registry: Registry) -> Self {
        let settings = registry.settings().scrub.clone();
        Scrub { registry, settings }
    }

    /// Goes on until it is dropped.
    pub(crate) async fn run(self) {
        tokio::join!(self.suspects(), self.checks());
    }

    /// What was about to be served and is not what it should be is out of the way soon after.
    async fn suspects(&self) {
        loop {
            for digest in self.registry.suspects().await {
                if let Err(e) = self.registry.confirm_damage(&digest, true).await {
                    log::warn!("{digest} could not be looked into: {e}");
                }
            }
        }
    }

    async fn checks(&self) {
        if !self.settings.enabled || self.registry.settings().read_only {
            return;
        }
        while let Err(e) = self.first_look().await {
            log::warn!("the tree could not be looked through: {e}");
            tokio::time::sleep(AGAIN).await;
        }
        tokio::time::sleep(FIRST.min(self.settings.interval)).await;
        loop {
            let checked = match self.wait_until_due().await {
                Ok(progress) => self.check(progress).await,
                Err(e) => Err(e),
            };
            if let Err(e) = checked {
                log::warn!("the content could not be checked: {e}");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    /// Looks through a tree that has never been checked: what leads to what, and what is not there.
    async fn first_look(&self) -> Result<(), Error> {
        if self.registry.last_report().await?.is_some() {
            return Ok(());
        }
        let mut check = self.registry.verification(Check {
            mend: Mend::Proven,
            ..Check::default()
        });
        let (mut pace, mut told) = (Pace::default(), Instant::now());
        loop {
            let started = Instant::now();
            let stepped = check.step().await?;
            check.take_news();
            if stepped == Checked::Done {
                break;
            }
            if told.elapsed() >= TELL {
                told = Instant::now();
                let report = check.report();
                log::info!(
                    "looking through the tree: {} repositories, {} manifests so far",
                    report.repositories.len(),
                    report.manifests
                );
            }
            pace.rest(started.elapsed()).await;
        }
        let report = check.report();
        if !report.repositories.is_empty() {
            log::info!(
                "the tree was looked through: {} (`registry verify --report` says more)",
                said(report)
            );
        }
        Ok(())
    }

    /// Waits until the last check is old enough, or one is to be gone on with.
    async fn wait_until_due(&self) -> Result<Progress, Error> {
        loop {
            let progress = self.registry.verify_progress().await?;
            let age = progress.last.map(|last| now().saturating_sub(last));
            let age = age.map_or(Duration::MAX, Duration::from_secs);
            let wait = self.settings.interval.saturating_sub(age);
            if progress.under_way.is_some() || wait.is_zero() {
                return Ok(progress);
            }
            tokio::time::sleep(wait.min(AGAIN)).await;
        }
    }

    async fn check(&self, progress: Progress) -> Result<(), Error> {
        let mut check = self.registry.verification(Check {
            contents: true,
            mend: Mend::Proven,
            from: progress.under_way.clone(),
            ..Check::default()
        });
        let (mut pace, mut cap) = (Pace::default(), Cap::new(self.settings.bandwidth));
        let mut noted = Instant::now();
        loop {
            let started = Instant::now();
            let stepped = check.step().await;
            check.take_news();
            match stepped {
                Ok(Checked::Done) => break,
                Ok(Checked::Read(bytes)) => cap.rest(bytes).await,
                Ok(Checked::Looked) => pace.rest(started.elapsed()).await,
                Err(e) => {
                    let _ = self.note(&progress, check.under_way().clone()).await;
                    return Err(e);
                }
            }
            if noted.elapsed() >= NOTE {
                noted = Instant::now();
                self.note(&progress, check.under_way().clone()).await?;
            }
        }
        let report = check.report();
        let text = said(report);
        if report.damage > report.mended {
            log::error!("all content was checked: {text} (`registry verify --report` says more)");
        } else {
            log::info!("all content was checked: {text}");
        }
        let done = Progress {
            last: Some(now()),
            under_way: None,
        };
        self.registry.note_progress(&done).await
    }

    async fn note(&self, before: &Progress, under_way: UnderWay) -> Result<(), Error> {
        let progress = Progress {
            last: before.last,
            under_way: Some(under_way),
        };
        self.registry.note_progress(&progress).await
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

fn said(report: &HealthReport) -> String {
    let mut text = format!(
        "{} tags in {} repositories are whole",
        report.healthy,
        report.repositories.len()
    );
    if report.damage > 0 {
        text += &format!(
            ", {} things were damaged or missing and {} of them were mended, {} tags are not whole",
            report.damage, report.mended, report.unhealthy
        );
    }
    text
}

/// Keeps reading below a number of bytes a second.
struct Cap {
    /// 0 is none.
    bandwidth: u64,
    since: Instant,
    read: u64,
}

/// What was not read in time is not made up for beyond this.
const BURST: Duration = Duration::from_secs(1);

impl Cap {
    fn new(bandwidth: u64) -> Self {
        Cap {
            bandwidth,
            since: Instant::now(),
            read: 0,
        }
    }

    fn time_for(&self, bytes: u64) -> Duration {
        match self.bandwidth {
            0 => Duration::ZERO,
            bandwidth => Duration::from_secs_f64(bytes as f64 / bandwidth as f64),
        }
    }

    async fn rest(&mut self, bytes: u64) {
        self.read += bytes;
        let needed = self.time_for(self.read);
        match needed.checked_sub(self.since.elapsed()) {
            Some(early) => tokio::time::sleep(early).await,
            None if self.since.elapsed() > needed + BURST => *self = Cap::new(self.bandwidth),
            None => {}
        }
    }
}

/// Checks once, and tells whoever holds the other end of `events`, the outcome last. Ends early when nobody does.
pub(crate) async fn verify(registry: Registry, scope: Check, events: Sender<Event>) {
    let is_whole = scope.contents && scope.repos.is_empty() && !scope.dry_run;
    let mut check = registry.verification(scope);
    let mut told = Instant::now();
    loop {
        let stepped = check.step().await;
        let mut news: Vec<Event> = check.take_news().into_iter().map(Event::Finding).collect();
        match stepped {
            Ok(Checked::Done) => {
                let report = check.report();
                if is_whole {
                    let done = Progress {
                        last: Some(now()),
                        under_way: None,
                    };
                    if let Err(e) = registry.note_progress(&done).await {
                        log::warn!("that all content was checked could not be noted: {e}");
                    }
                }
                news.push(Event::Verified(HealthReport {
                    findings: Vec::new(),
                    repositories: Vec::new(),
                    ..report.clone()
                }));
            }
            Ok(_) if told.elapsed() >= PROGRESS => {
                told = Instant::now();
                news.push(Event::checking(check.report(), check.under_way()));
            }
            Ok(_) => {}
            Err(e) => {
                log::warn!("verifying ended early: {e}");
                let reason = e.to_string();
                news.push(Event::Failed { reason });
            }
        }
        for event in news {
            let is_last = event.is_last();
            if events.send(event).await.is_err() || is_last {
                return;
            }
        }
        if events.is_closed() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_more_is_read_than_is_allowed() {
        let (mut cap, began) = (Cap::new(1_000_000), Instant::now());
        for _ in 0..10 {
            cap.rest(10_000).await;
        }
        assert!(began.elapsed() >= Duration::from_millis(99));
        let (mut none, began) = (Cap::new(0), Instant::now());
        none.rest(u64::MAX / 2).await;
        assert!(began.elapsed() < Duration::from_secs(1));
    }
}
