//! A key set in a file or at an address, which is read again from time to time.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use smol::channel::{Receiver, Sender, bounded};
use smol::future::or;
use url::Url;

use super::config::KeySource;
use super::freshness::Freshness;
use super::keys::{KeySetError, Keys, MAX_SET};
use crate::base::lock::lock;
use crate::base::timeout::{sleep_until, timeout};
use crate::tls::http_agent;

/// The time limit of a request for a key set.
const REQUEST: Duration = Duration::from_secs(5);

/// The most tokens of unknown keys that wait for an attempt to read the set.
const MAX_WAITING: usize = 256;

/// A key set and its place.
pub(super) struct KeySet {
    source: KeySource,
    state: Mutex<State>,
    /// Requests for an attempt; each is answered by closing its channel.
    asks: (Sender<Sender<()>>, Receiver<Sender<()>>),
}

#[derive(Default)]
struct State {
    keys: Arc<Keys>,
    freshness: Freshness,
}

impl KeySet {
    pub(super) fn new(source: KeySource) -> Self {
        Self { source, state: Mutex::default(), asks: bounded(MAX_WAITING) }
    }

    /// Returns the keys that are known now; none if the set is too old.
    pub(super) fn keys(&self) -> Arc<Keys> {
        let state = lock(&self.state);
        if state.freshness.is_usable(Instant::now()) { state.keys.clone() } else { Arc::default() }
    }

    /// Waits until [`KeySet::keep_fresh`] has read the set for a token of an unknown key, unless that was tried a short
    /// time ago. Returns whether the last attempt succeeded, so that a key outside the set does not exist.
    pub(super) async fn renew_for_unknown_key(&self) -> bool {
        let (ask, answer) = bounded::<()>(1);
        if self.asks.0.try_send(ask).is_ok() {
            // After a reload nobody reads this set any more.
            let _ = timeout(2 * REQUEST, answer.recv()).await;
        }
        lock(&self.state).freshness.is_current()
    }

    /// Reads the set whenever that is due or asked for. Never completes. Only this task reads, so that a client that does
    /// not wait for an attempt neither ends it nor causes another one.
    pub(super) async fn keep_fresh(&self) {
        loop {
            let next = lock(&self.state).freshness.next().unwrap_or_else(Instant::now);
            let due = async {
                sleep_until(Some(next)).await;
                None
            };
            let asked = async { self.asks.1.recv().await.ok() };
            let ask = or(due, asked).await;
            let is_time = ask.is_none() || lock(&self.state).freshness.may_retry(Instant::now());
            if is_time && let Err(why) = self.read().await {
                tracing::warn!("{why}");
            }
            // Requests that came meanwhile share the attempt.
            while self.asks.1.try_recv().is_ok() {}
        }
    }

    /// Reads the set. If that fails, the set before stays in use.
    pub(super) async fn read(&self) -> Result<(), String> {
        let source = self.source.clone();
        let read = smol::unblock(move || match &source {
            KeySource::File(path) => std::fs::read(path).map_err(|error| error.to_string()),
            KeySource::Url(url) => fetch(url),
        });
        let keys = read.await.and_then(|text| Keys::parse(&text).map_err(|error| error.to_string()));
        let mut state = lock(&self.state);
        state.freshness.record(Instant::now(), keys.is_ok());
        match keys {
            Ok(keys) => {
                state.keys = Arc::new(keys);
                Ok(())
            }
            Err(why) => Err(format!("the keys for tokens cannot be read from {}: {why}", self.source)),
        }
    }
}

/// Fetches a key set. Servers are trusted as by the system; an answer other than 200, such as a redirect, is an error.
fn fetch(url: &Url) -> Result<Vec<u8>, String> {
    let response = http_agent(url, REQUEST).get(url.as_str()).call();
    let mut response = response.map_err(|error| error.to_string())?;
    if response.status().as_u16() != 200 {
        return Err(format!("the server answers {}", response.status()));
    }
    let body = response.body_mut().with_config().limit(MAX_SET as u64).read_to_vec();
    body.map_err(|error| match error {
        ureq::Error::BodyExceedsLimit(_) => KeySetError::TooLong.to_string(),
        error => error.to_string(),
    })
}
