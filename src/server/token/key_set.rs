//! A key set in a file or at an address, which is read again from time to time.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ureq::tls::{Certificate, RootCerts, TlsConfig};
use url::Url;

use super::config::KeySource;
use super::freshness::Freshness;
use super::keys::{KeySetError, Keys, MAX_SET};
use crate::base::lock::lock;

/// The time limit of a request for a key set.
const REQUEST: Duration = Duration::from_secs(5);

/// A key set and its place.
pub(super) struct KeySet {
    source: KeySource,
    state: Mutex<State>,
    /// Held while the set is read: all who wait for it share one attempt.
    reading: smol::lock::Mutex<()>,
}

#[derive(Default)]
struct State {
    keys: Arc<Keys>,
    freshness: Freshness,
}

impl KeySet {
    pub(super) fn new(source: KeySource) -> Self {
        Self { source, state: Mutex::default(), reading: smol::lock::Mutex::new(()) }
    }

    /// Returns the keys that are known now; none if the set is too old.
    pub(super) fn keys(&self) -> Arc<Keys> {
        let state = lock(&self.state);
        if state.freshness.is_usable(Instant::now()) { state.keys.clone() } else { Arc::default() }
    }

    /// Reads the set. If that fails, the set before stays in use.
    pub(super) async fn refresh(&self) -> Result<(), String> {
        let _reading = self.reading.lock().await;
        self.read().await
    }

    /// Reads the set for a token of an unknown key, unless an attempt was made a short time ago.
    pub(super) async fn renew_for_unknown_key(&self) {
        let _reading = self.reading.lock().await;
        if lock(&self.state).freshness.may_retry(Instant::now()) {
            self.read_and_warn().await;
        }
    }

    /// Reads the set whenever that is due. Never completes.
    pub(super) async fn keep_fresh(&self) {
        loop {
            let next = lock(&self.state).freshness.next();
            match next.filter(|next| *next > Instant::now()) {
                Some(next) => {
                    smol::Timer::at(next).await;
                }
                None => {
                    let _reading = self.reading.lock().await;
                    self.read_and_warn().await;
                }
            }
        }
    }

    async fn read_and_warn(&self) {
        if let Err(why) = self.read().await {
            tracing::warn!("{why}");
        }
    }

    async fn read(&self) -> Result<(), String> {
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
    let roots = rustls_native_certs::load_native_certs().certs;
    let roots: Vec<_> = roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(crate::tls::provider())
        .root_certs(RootCerts::new_with_certs(&roots))
        .build();
    let agent = ureq::Agent::config_builder().tls_config(tls).timeout_global(Some(REQUEST)).max_redirects(0);
    let response = agent.http_status_as_error(false).build().new_agent().get(url.as_str()).call();
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
