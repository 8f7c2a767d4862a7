//! Webhooks: sends each event to the addresses of back ends, signed as Standard Webhooks
//! (<https://www.standardwebhooks.com>) wants it.
//!
//! Each address gets one event at a time, in the order of their numbers, and the next one only once it has answered with
//! 2xx. Events wait in the [`Log`]; an address that is further behind than the log keeps loses the oldest ones, and the
//! next event that it gets says how many (`lost`).

mod config;
mod post;
mod schedule;
mod signature;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use smol::channel::Receiver;

use self::config::MAX_WEBHOOKS;
pub use self::config::{AuthUrl, EventType, SigningSecret, WebhookConfig, WebhookError, WebhookUrl};
use self::post::Turn;
pub(super) use self::post::{Headers, Poster};
use self::schedule::{Schedule, Verdict};
use super::events::Event;
use super::events::log::Log;
use super::metrics::{Delivery, Metrics};
use super::switchboard::Switchboard;
use crate::base::limit::Bucket;
use crate::base::lock::lock;
use crate::base::tasks::Tasks;

/// The time limit of a request, until the end of the answer.
const REQUEST: Duration = Duration::from_secs(10);

/// Pause between two lines in the log about events that an address loses.
const LOSS_LOGGED: Duration = Duration::from_secs(10);

/// The progress of each address, by its whole URL; outlasts a reload of the settings.
#[derive(Debug, Default)]
pub(super) struct Webhooks(Mutex<BTreeMap<String, Progress>>);

/// The progress of one address.
#[derive(Debug, Clone, Default)]
struct Progress {
    /// The number of the last event that needs no further attempt.
    done: u64,
    /// The events since the last delivered one that the address did not get.
    lost: u64,
    /// The address answered 410: it gets nothing more until the server starts again.
    has_ended: bool,
    /// Held by a request until its end, also after a reload: no other request begins meanwhile.
    turn: Turn,
}

/// The result of the attempts to deliver one event.
enum Sent {
    Delivered,
    Lost,
    Ended,
}

/// Sends events to the addresses in the last settings that were received. Never completes while there may be further
/// settings.
pub(super) async fn run(webhooks: Arc<Webhooks>, board: Arc<Switchboard>, settings: Receiver<WebhookConfig>) {
    // Dropping the tasks of the settings before cancels their attempts; the events are sent again.
    let mut tasks = Tasks::new(MAX_WEBHOOKS);
    // The addresses of the first settings get all events: clients may have come before this task ran.
    let mut is_first = true;
    while let Ok(config) = settings.recv().await {
        drop(std::mem::replace(&mut tasks, Tasks::new(MAX_WEBHOOKS)));
        let last = if std::mem::take(&mut is_first) { 0 } else { board.events.last() };
        webhooks.keep(&config, last);
        for url in &config.urls {
            let (url, config) = (url.clone(), config.clone());
            let (webhooks, board) = (webhooks.clone(), board.clone());
            tasks.spawn(async move { webhooks.send_all(&url, &config, &board).await });
        }
    }
}

impl Webhooks {
    /// Keeps the progress of the addresses in the settings alone; a new address begins behind the event `last`.
    fn keep(&self, config: &WebhookConfig, last: u64) {
        let mut all = lock(&self.0);
        let mut old = std::mem::take(&mut *all);
        for url in &config.urls {
            let new = Progress { done: last, ..Progress::default() };
            all.insert(url.as_str().to_owned(), old.remove(url.as_str()).unwrap_or(new));
        }
    }

    /// Returns whether no address has an event to wait for.
    pub(super) fn is_quiet(&self, last: u64) -> bool {
        lock(&self.0).values().all(|one| one.has_ended || one.done >= last)
    }

    /// Returns the progress of an address that wants further events.
    fn progress(&self, url: &WebhookUrl) -> Option<Progress> {
        lock(&self.0).get(url.as_str()).filter(|one| !one.has_ended).cloned()
    }

    /// Sends all events to one address, until it wants no more.
    async fn send_all(&self, url: &WebhookUrl, config: &WebhookConfig, board: &Switchboard) {
        let (log, metrics) = (&board.events, &board.metrics);
        let poster = Poster::new(url, &config.secrets, REQUEST);
        let mut lines = Bucket::every(1, LOSS_LOGGED);
        while let Some(progress) = self.progress(url) {
            let (missed, event) = log.next(progress.done).await;
            if missed > 0 {
                if lines.take(Instant::now()) {
                    tracing::warn!("{missed} events for the webhook {url} are lost: too many waited");
                }
                metrics.count_deliveries(Delivery::Lost, missed);
            }
            let lost = progress.lost + missed;
            let is_wanted = config.wants(event.kind());
            let sent = match is_wanted {
                true => send((&poster, &progress.turn), url, log, &event, lost, metrics).await,
                false => Sent::Delivered,
            };
            let (lost, has_ended) = match sent {
                Sent::Delivered => (if is_wanted { 0 } else { lost }, false),
                Sent::Lost => (lost + 1, false),
                Sent::Ended => (0, true),
            };
            // A reload may have removed the address.
            if let Some(progress) = lock(&self.0).get_mut(url.as_str()) {
                *progress = Progress { done: event.number, lost, has_ended, turn: progress.turn.clone() };
            }
        }
    }
}

/// Sends one event until the address accepts it, it is too old, or the address wants no more.
async fn send(
    (poster, turn): (&Poster, &Turn),
    url: &WebhookUrl,
    log: &Log,
    event: &Event,
    lost: u64,
    metrics: &Metrics,
) -> Sent {
    let (id, body) = (format!("msg_{}_{}", log.run, event.number), event.json(lost));
    let mut schedule = Schedule::new(event.since);
    loop {
        let answer = poster.post(&id, &body, turn).await;
        match schedule.judge(Instant::now(), &answer) {
            Verdict::Delivered => {
                metrics.count_deliveries(Delivery::Delivered, 1);
                return Sent::Delivered;
            }
            Verdict::Ended => {
                tracing::warn!("the webhook {url} answers 410 (gone): it gets no further events");
                metrics.count_deliveries(Delivery::Ended, 1);
                return Sent::Ended;
            }
            Verdict::Lost => {
                tracing::warn!("the event {id} for the webhook {url} is lost: {answer}");
                metrics.count_deliveries(Delivery::Lost, 1);
                return Sent::Lost;
            }
            Verdict::Again(pause) => {
                tracing::warn!("the webhook {url} gets the event {id} again in {pause:?}: {answer}");
                metrics.count_deliveries(Delivery::Failed, 1);
                smol::Timer::after(pause).await;
            }
        }
    }
}
