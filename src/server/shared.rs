//! The state that all connections of a server share.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use smol::channel::{Receiver, Sender, bounded};
use smol::future::or;

use super::events::happening::Happening;
use super::expiry::{Admission, Refused, Verify};
use super::guess_limit::GuessLimit;
use super::live::Live;
use super::metrics::Limit;
use super::rate_limits::RateLimits;
use super::rates::Rates;
use super::sessions::Sessions;
use super::switchboard::Switchboard;
use super::timeouts::Timeouts;
use super::token::{self, Denied, Granted, TokenError};
use super::trace;
use super::webhook::{self, Headers, WebhookConfig, Webhooks};
use crate::base::limit::Bucket;
use crate::base::lock::lock;
use crate::base::net::{Owner, is_this_machine};
use crate::base::tasks::Tasks;

/// The settings that stay as they are.
pub(super) struct Fixed {
    pub(super) plain: bool,
    pub(super) timeouts: Timeouts,
    pub(super) limits: RateLimits,
}

#[derive(Debug)]
pub(super) struct Shared {
    /// The rates of the settings.
    pub(super) limits: RateLimits,
    /// The new WebSockets and sessions of each owner of addresses.
    pub(super) connects: Rates<Owner>,
    /// The tasks of the connections; the server owns them.
    pub(super) connections: Weak<Tasks>,
    pub(super) board: Arc<Switchboard>,
    pub(super) plain: bool,
    /// The settings that a reload replaces.
    live: Mutex<Arc<Live>>,
    /// Wakes the task that reads the keys of tokens after a reload.
    reloaded: (Sender<()>, Receiver<()>),
    /// The settings of webhooks for the task that sends them, each time that they may have changed.
    webhook_settings: (Sender<WebhookConfig>, Receiver<WebhookConfig>),
    pub(super) webhooks: Arc<Webhooks>,
    /// Whether the server is to stop, and new clients should go elsewhere.
    is_draining: AtomicBool,
    /// The requests of clients behind trusted proxies, whose connections carry the requests of many.
    pub(super) requests: Rates<Owner>,
    pub(super) timeouts: Timeouts,
    pub(super) api_guesses: GuessLimit,
    /// The requests of each key of the API.
    pub(super) api_rates: Rates<String>,
    pub(super) token_guesses: GuessLimit,
    pub(super) sessions: Sessions,
}

impl Shared {
    /// Returns the state of a new server.
    pub(super) fn new(live: Live, board: Arc<Switchboard>, connections: Weak<Tasks>, fixed: &Fixed) -> Self {
        let webhook_settings = bounded(1);
        let _ = webhook_settings.0.try_send(live.webhooks.clone());
        Self {
            limits: fixed.limits,
            connects: Rates::new(fixed.limits.connects()),
            connections,
            board,
            plain: fixed.plain,
            live: Mutex::new(Arc::new(live)),
            reloaded: bounded(1),
            webhook_settings,
            webhooks: Arc::default(),
            is_draining: AtomicBool::new(false),
            requests: Rates::new(fixed.limits.requests()),
            timeouts: fixed.timeouts,
            api_guesses: GuessLimit::new("secrets for the API"),
            api_rates: Rates::new(fixed.limits.api()),
            token_guesses: GuessLimit::new("tokens"),
            sessions: Sessions::default(),
        }
    }

    /// Returns the settings that are valid now.
    pub(super) fn live(&self) -> Arc<Live> {
        lock(&self.live).clone()
    }

    /// Replaces the settings.
    pub(super) fn replace(&self, live: Live) {
        self.board.set_ice_servers(live.ice.clone());
        let _ = self.webhook_settings.0.force_send(live.webhooks.clone());
        *lock(&self.live) = Arc::new(live);
        // The key of a stream may be one of before.
        self.board.events.end_readers();
        let _ = self.reloaded.0.try_send(());
    }

    /// Counts a new WebSocket or session of an address; the error is the time until the address may have another one.
    pub(super) fn count_connect(&self, from: IpAddr) -> Result<(), Duration> {
        // A proxy or a test on this machine stands for many clients.
        if is_this_machine(from) {
            return Ok(());
        }
        self.connects.take(Instant::now(), &from.into()).inspect_err(|_| {
            self.board.metrics.count_limited(Limit::Connects);
        })
    }

    /// Returns the limit on the messages of a connection from an address.
    pub(super) fn message_limit(&self, from: IpAddr) -> Option<Bucket> {
        let (burst, rate) = self.limits.messages();
        (!is_this_machine(from) && rate != u32::MAX).then(|| Bucket::new(burst, rate))
    }

    /// Returns whether new clients should go elsewhere.
    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Reports from now on that new clients should go elsewhere, or that they should come.
    pub(super) fn drain(&self, is_draining: bool) {
        if is_draining && !self.is_draining.swap(true, Ordering::Relaxed) {
            self.board.events.add(vec![Happening::Draining]);
        }
        self.is_draining.store(is_draining, Ordering::Relaxed);
    }

    /// Sends events to webhooks. Never completes.
    pub(super) fn send_webhooks(&self) -> impl Future<Output = ()> + Send + 'static {
        webhook::run(self.webhooks.clone(), self.board.clone(), self.webhook_settings.1.clone())
    }

    /// Reads the keys of tokens whenever that is due. Never completes.
    pub(super) async fn keep_fresh(&self) {
        loop {
            let live = self.live();
            let fresh = async {
                match &live.tokens {
                    Some(tokens) => tokens.keep_fresh().await,
                    None => std::future::pending().await,
                }
            };
            let reloaded = async {
                let _ = self.reloaded.1.recv().await;
            };
            or(fresh, reloaded).await;
        }
    }

    /// Returns the permissions of a request from the address `from`, according to its token.
    pub(super) async fn admit<B>(
        &self,
        request: &hyper::Request<B>,
        from: IpAddr,
    ) -> Result<Admission, Denied> {
        match self.live().needs_tokens() {
            false => Ok(Admission::default()),
            true => {
                let token = token::shown(request).ok_or(TokenError::Missing)?;
                let headers = trace::passed_on(request.headers());
                self.verify(&token, from, headers, &self.token_guesses).await
            }
        }
    }

    /// Returns a function that verifies the next token of a connected client from the address `from`, if connections end
    /// with their tokens.
    pub(super) fn renewal(self: &Arc<Self>, from: IpAddr) -> Option<Verify> {
        self.live().enforce_expiry.then(|| {
            let this = Arc::downgrade(self);
            // Guesses of others at the address must not end the connection.
            let guesses = Arc::new(GuessLimit::new("next tokens"));
            let refused = |why: String, is_for_now| Refused { why, is_for_now };
            let verify: Verify = Arc::new(move |token| {
                let (this, guesses) = (this.upgrade(), guesses.clone());
                Box::pin(async move {
                    let this = this.ok_or_else(|| refused("the server stops".to_owned(), true))?;
                    let verdict = this.verify(&token, from, vec![], &guesses).await;
                    verdict.map_err(|denied| refused(denied.to_string(), denied.is_for_now()))
                })
            });
            verify
        })
    }

    /// Returns the permissions that a token from the address `from` grants. A wrong token counts in `guesses`.
    async fn verify(
        &self,
        token: &str,
        from: IpAddr,
        headers: Headers,
        guesses: &GuessLimit,
    ) -> Result<Admission, Denied> {
        let live = self.live();
        let wait = guesses.wait(from.into());
        // A proxy on this machine serves many clients: wrong tokens of one client must not block the good tokens of
        // others.
        if let Some(wait) = wait.filter(|_| !is_this_machine(from)) {
            self.board.metrics.count_limited(Limit::Guesses);
            return Err(Denied::Later(wait));
        }
        let since = Instant::now();
        let granted = match (&live.tokens, &live.back_end) {
            (Some(tokens), _) => tokens.read(token).await,
            (None, Some(back_end)) => back_end.read(token, from, headers).await,
            // A reload has ended the need for tokens.
            (None, None) => return Ok(Admission::default()),
        };
        self.board.metrics.time_token(since);
        if let Err(TokenError::Forged(_)) = granted {
            guesses.record(from.into());
            if let Some(wait) = wait {
                return Err(Denied::Later(wait));
            }
        }
        let Granted { grant, expires } = granted?;
        // As late as a new connection is let in with the token.
        let until =
            expires.filter(|_| live.enforce_expiry).map(|end| instant(end.saturating_add(token::LEEWAY)));
        Ok(Admission { grant, until })
    }
}

/// Returns the instant of a time in seconds since 1970; times beyond a year count as in a year.
fn instant(seconds: u64) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Instant::now() + Duration::from_secs(seconds).saturating_sub(now).min(YEAR)
}
