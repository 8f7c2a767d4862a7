//! The numbers of a server for Prometheus.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

#[cfg(feature = "engine")]
use super::metrics_engine::EngineMetrics;
use super::process;
use crate::hub::Command;

/// A label with its value. No label names a room or a peer: their number has no small bound.
type Label = [(&'static str, &'static str); 1];

/// Numbers at the time of a request, which nobody counts up and down.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Now {
    /// Connections that speak the HELLO protocol, and those that speak ssp.
    pub(super) connections: [usize; 2],
    pub(super) peers: usize,
    pub(super) rooms: usize,
    pub(super) calls: usize,
}

/// The limit that refused something.
#[derive(Debug, Clone, Copy)]
pub(super) enum Limit {
    /// The most connections of one address.
    Connections,
    /// The rate of new connections of one address.
    Connects,
    /// The rate of messages of one connection.
    Messages,
    /// The rate of HTTP requests.
    Requests,
    /// The rate of wrong tokens and API secrets.
    Guesses,
    /// The rate of requests of one key of the API.
    Api,
    /// The rate of lists of rooms and peers.
    Lists,
}

/// The result of a new connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Connect {
    Accepted,
    /// The TLS handshake failed or took too long.
    Handshake,
    /// The header of a proxy was refused.
    Proxy,
}

/// The result of an attempt to deliver an event to a webhook.
#[derive(Debug, Clone, Copy)]
pub(super) enum Delivery {
    Delivered,
    /// The attempt failed, and another one follows.
    Failed,
    /// The event will not be delivered: it is too old, or too many waited.
    Lost,
    /// The address wants no further events.
    Ended,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    connections: Family<Label, Gauge>,
    peers: Gauge,
    rooms: Gauge,
    calls: Gauge,
    connects: Family<Label, Counter>,
    messages: Family<Label, Counter>,
    message_seconds: Histogram,
    round_trip: Histogram,
    requests: Family<[(&'static str, u16); 1], Counter>,
    request_seconds: Histogram,
    auth_seconds: Histogram,
    slow_peers: Counter,
    limited: Family<Label, Counter>,
    webhooks: Family<Label, Counter>,
    descriptors: Gauge,
    memory: Gauge,
    /// The metrics of the engine, if the server is one of several.
    #[cfg(feature = "engine")]
    engine: Option<EngineMetrics>,
}

/// Returns a histogram whose buckets grow fourfold from 10 µs to 42 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_01, 4.0, 12))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            connections: Family::default(),
            peers: Gauge::default(),
            rooms: Gauge::default(),
            calls: Gauge::default(),
            connects: Family::default(),
            messages: Family::default(),
            message_seconds: seconds(),
            round_trip: seconds(),
            requests: Family::default(),
            request_seconds: seconds(),
            auth_seconds: seconds(),
            slow_peers: Counter::default(),
            limited: Family::default(),
            webhooks: Family::default(),
            descriptors: Gauge::default(),
            memory: Gauge::default(),
            #[cfg(feature = "engine")]
            engine: None,
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    /// Returns the metrics of a server that is one of several.
    #[cfg(feature = "engine")]
    pub(super) fn with_engine() -> Self {
        let mut metrics = Self::default();
        metrics.engine = Some(EngineMetrics::register(&mut metrics.registry, seconds));
        metrics
    }

    /// Returns the metrics of the engine, if the server has one.
    #[cfg(feature = "engine")]
    pub(super) fn engine(&self) -> Option<&EngineMetrics> {
        self.engine.as_ref()
    }

    fn register(&mut self) {
        let own = self.registry.sub_registry_with_prefix("roomtone");
        own.register("connections", "Open connections of clients", self.connections.clone());
        own.register("peers", "Registered peers", self.peers.clone());
        own.register("rooms", "Rooms and pools", self.rooms.clone());
        own.register("calls", "Calls of two peers", self.calls.clone());
        own.register("connects", "New connections", self.connects.clone());
        own.register("messages", "Messages of clients by their kind", self.messages.clone());
        own.register(
            "message_seconds",
            "Time from a message of a client to the queues of its receivers",
            self.message_seconds.clone(),
        );
        own.register("client_rtt_seconds", "Time from a ping to its answer", self.round_trip.clone());
        own.register("http_requests", "HTTP requests by the status of their answer", self.requests.clone());
        own.register("http_request_seconds", "Time to answer an HTTP request", self.request_seconds.clone());
        own.register("auth_seconds", "Time to verify a token", self.auth_seconds.clone());
        own.register("slow_peers", "Peers dropped because they do not read", self.slow_peers.clone());
        own.register("limited", "Refusals by the limit that refused", self.limited.clone());
        own.register("webhooks", "Attempts to deliver events by their result", self.webhooks.clone());
        own.register("build", "The running program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        let process = self.registry.sub_registry_with_prefix("process");
        process.register("open_fds", "Open descriptors", self.descriptors.clone());
        process.register("resident_memory_bytes", "Resident memory", self.memory.clone());
        let limit = Gauge::<i64>::default();
        limit.set(process::descriptor_limit());
        process.register("max_fds", "Limit of descriptors", limit);
        let started = Gauge::<i64>::default();
        started.set(number(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()));
        process.register("start_time_seconds", "Start of the server since 1970", started);
    }

    /// Returns all numbers as text in the format of OpenMetrics, which Prometheus reads.
    pub(super) fn text(&self, now: Now) -> String {
        for (protocol, connections) in ["hello", "ssp"].into_iter().zip(now.connections) {
            self.connections.get_or_create(&[("protocol", protocol)]).set(number(connections));
        }
        self.peers.set(number(now.peers));
        self.rooms.set(number(now.rooms));
        self.calls.set(number(now.calls));
        self.descriptors.set(process::open_descriptors());
        self.memory.set(process::resident_bytes());
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(_) => String::new(),
        }
    }

    pub(super) fn count_connect(&self, result: Connect) {
        let result = match result {
            Connect::Accepted => "accepted",
            Connect::Handshake => "handshake",
            Connect::Proxy => "proxy",
        };
        self.connects.get_or_create(&[("result", result)]).inc();
    }

    pub(super) fn count_limited(&self, limit: Limit) {
        let limit = match limit {
            Limit::Connections => "connections",
            Limit::Connects => "connects",
            Limit::Messages => "messages",
            Limit::Requests => "requests",
            Limit::Guesses => "guesses",
            Limit::Api => "api",
            Limit::Lists => "lists",
        };
        self.limited.get_or_create(&[("which", limit)]).inc();
    }

    pub(super) fn count_deliveries(&self, result: Delivery, events: u64) {
        let result = match result {
            Delivery::Delivered => "delivered",
            Delivery::Failed => "failed",
            Delivery::Lost => "lost",
            Delivery::Ended => "ended",
        };
        self.webhooks.get_or_create(&[("result", result)]).inc_by(events);
    }

    pub(super) fn count_message(&self, command: &Command) {
        let kind = match command {
            Command::Register(_) => "register",
            Command::Call(_) => "call",
            Command::Join(_) | Command::Enter(..) => "join",
            Command::Send { .. } | Command::Relay(_) => "relay",
            Command::Moderate(..) => "moderate",
            Command::ListRoom | Command::ListPeers => "list",
        };
        self.messages.get_or_create(&[("kind", kind)]).inc();
    }

    /// Counts a message of a client that arrived at `since` and has been handled.
    pub(super) fn time_message(&self, since: Instant) {
        self.message_seconds.observe(since.elapsed().as_secs_f64());
    }

    /// Counts the answer to a ping.
    pub(super) fn time_ping(&self, round_trip: Duration) {
        self.round_trip.observe(round_trip.as_secs_f64());
    }

    /// Counts an HTTP request that arrived at `since` and is answered with this status.
    pub(super) fn time_request(&self, since: Instant, status: u16) {
        self.requests.get_or_create(&[("code", status)]).inc();
        self.request_seconds.observe(since.elapsed().as_secs_f64());
    }

    /// Counts a token whose verification began at `since`.
    pub(super) fn time_token(&self, since: Instant) {
        self.auth_seconds.observe(since.elapsed().as_secs_f64());
    }

    pub(super) fn count_slow_peer(&self) {
        self.slow_peers.inc();
    }
}

fn number(n: impl TryInto<i64>) -> i64 {
    n.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_each_number_with_its_labels() {
        let metrics = Metrics::default();
        metrics.count_connect(Connect::Accepted);
        metrics.count_limited(Limit::Connections);
        metrics.count_message(&Command::ListPeers);
        metrics.time_message(Instant::now());
        metrics.time_request(Instant::now(), 404);
        metrics.count_slow_peer();
        let text = metrics.text(Now { connections: [3, 4], peers: 5, rooms: 2, calls: 1 });
        for line in [
            "roomtone_connections{protocol=\"hello\"} 3",
            "roomtone_connections{protocol=\"ssp\"} 4",
            "roomtone_peers 5",
            "roomtone_rooms 2",
            "roomtone_calls 1",
            "roomtone_connects_total{result=\"accepted\"} 1",
            "roomtone_limited_total{which=\"connections\"} 1",
            "roomtone_messages_total{kind=\"list\"} 1",
            "roomtone_message_seconds_count 1",
            "roomtone_message_seconds_bucket{le=\"+Inf\"} 1",
            "roomtone_client_rtt_seconds_count 0",
            "roomtone_http_requests_total{code=\"404\"} 1",
            "roomtone_slow_peers_total 1",
            "# TYPE roomtone_message_seconds histogram",
            "# EOF",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in:\n{text}");
        }
        assert!(
            text.contains(&format!("roomtone_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")))
        );
    }
}
