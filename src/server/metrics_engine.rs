//! The numbers of a server that is one of several: its engine.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::engine::Measure;

/// A label with its value.
type Label = [(&'static str, &'static str); 1];

/// See the module.
#[derive(Debug)]
pub(super) struct EngineMetrics {
    up: Gauge,
    attachments: Counter,
    round_trip: Histogram,
    transactions: Family<Label, Counter>,
    messages: Family<Label, Counter>,
    inbox_delay: Histogram,
}

impl EngineMetrics {
    /// Adds the metrics to those of the server; `seconds` makes their histograms.
    pub(super) fn register(registry: &mut Registry, seconds: fn() -> Histogram) -> Self {
        let metrics = Self {
            up: Gauge::default(),
            attachments: Counter::default(),
            round_trip: seconds(),
            transactions: Family::default(),
            messages: Family::default(),
            inbox_delay: seconds(),
        };
        let own = registry.sub_registry_with_prefix("roomtone_engine");
        own.register("up", "Whether the engine carries out requests", metrics.up.clone());
        own.register("attachments", "Attachments to the engine", metrics.attachments.clone());
        own.register(
            "request_seconds",
            "Time from requests to the engine to its answers",
            metrics.round_trip.clone(),
        );
        own.register("transactions", "Transactions by their result", metrics.transactions.clone());
        own.register("messages", "Messages to and from other servers", metrics.messages.clone());
        own.register(
            "inbox_delay_seconds",
            "Time from a message to the own inbox until it is read",
            metrics.inbox_delay.clone(),
        );
        // A series that begins with its first event would hide that event from rates.
        for result in ["done", "retried"] {
            drop(metrics.transactions.get_or_create(&[("result", result)]));
        }
        for way in ["sent", "received"] {
            drop(metrics.messages.get_or_create(&[("way", way)]));
        }
        metrics
    }

    pub(super) fn set_up(&self, is_up: bool) {
        self.up.set(is_up.into());
    }

    pub(super) fn count(&self, measure: Measure) {
        match measure {
            Measure::Attached => {
                self.attachments.inc();
            }
            Measure::RoundTrip(time) => self.round_trip.observe(time.as_secs_f64()),
            Measure::InboxDelay(time) => self.inbox_delay.observe(time.as_secs_f64()),
            Measure::Transaction(is_done) => {
                let result = if is_done { "done" } else { "retried" };
                self.transactions.get_or_create(&[("result", result)]).inc();
            }
            Measure::Sent(count) => {
                let count = u64::try_from(count).unwrap_or(u64::MAX);
                self.messages.get_or_create(&[("way", "sent")]).inc_by(count);
            }
            Measure::Received => {
                self.messages.get_or_create(&[("way", "received")]).inc();
            }
        }
    }
}
