//! Sends signed messages to one address.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::header::HeaderName;

use super::config::{SigningSecret, WebhookUrl};
use super::schedule::Answer;
use super::signature::sign;
use crate::tls::http_agent;

/// The longest answer that is read, so that the connection can serve the next message, in bytes.
const MAX_ANSWER: u64 = 64 * 1024;
/// The name of this program to the back end.
const AGENT: &str = concat!("roomtone/", env!("CARGO_PKG_VERSION"));

/// The right to send to an address: one request at a time has it, until its end.
pub(super) type Turn = Arc<smol::lock::Mutex<()>>;

/// See the module.
#[derive(Debug)]
pub(in crate::server) struct Poster {
    agent: ureq::Agent,
    url: String,
    secrets: Arc<[SigningSecret]>,
}

impl Poster {
    /// Sends to `url`, and waits for the end of each answer for the time `limit`.
    pub(in crate::server) fn new(url: &WebhookUrl, secrets: &[SigningSecret], limit: Duration) -> Self {
        let (agent, url) = (http_agent(url.url(), limit), url.as_str().to_owned());
        Self { agent, url, secrets: secrets.into() }
    }

    /// Sends a message in a thread of its own once it is the message's turn, and returns the status. The thread keeps the turn
    /// until its end, also if this future is dropped before.
    pub(super) async fn post(&self, id: &str, body: &str, turn: &Turn) -> Answer {
        match self.exchange(id, body, vec![], turn.lock_arc().await).await {
            // The status decides: an answer that is cut short or too long costs the connection alone.
            Ok((status, wish, _)) => Answer::Status(status, wish),
            Err(why) => Answer::None(why),
        }
    }

    /// Sends a message in a thread of its own, and returns the status and the body of the answer. The thread drops `turn` at its
    /// end, which may be later than the end of this future.
    ///
    /// # Errors
    ///
    /// The reason in words, if there is no complete answer of up to 64 KiB.
    pub(in crate::server) async fn ask(
        &self,
        id: &str,
        body: &str,
        headers: Headers,
        turn: impl Send + 'static,
    ) -> Result<(u16, Vec<u8>), String> {
        let (status, _, body) = self.exchange(id, body, headers, turn).await?;
        Ok((status, body?))
    }

    async fn exchange(
        &self,
        id: &str,
        body: &str,
        headers: Headers,
        turn: impl Send + 'static,
    ) -> Result<Exchange, String> {
        let (agent, url, secrets) = (self.agent.clone(), self.url.clone(), self.secrets.clone());
        let (id, body) = (id.to_owned(), body.to_owned());
        let work = move || {
            let _turn = turn;
            post(&agent, &url, &secrets, (&id, &body), headers)
        };
        smol::unblock(work).await
    }
}

/// Further headers of a request.
pub(in crate::server) type Headers = Vec<(HeaderName, String)>;

/// The status of an answer, the pause that its header `Retry-After` wants, and its body.
type Exchange = (u16, Option<Duration>, Result<Vec<u8>, String>);

fn post(
    agent: &ureq::Agent,
    url: &str,
    secrets: &[SigningSecret],
    (id, body): (&str, &str),
    headers: Headers,
) -> Result<Exchange, String> {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut request = agent
        .post(url)
        .header("content-type", "application/json")
        .header("user-agent", AGENT)
        .header("webhook-id", id)
        .header("webhook-timestamp", time.to_string())
        .header("webhook-signature", sign(secrets, id, time, body));
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let mut answer = request.send(body).map_err(|error| error.to_string())?;
    let wish = answer.headers().get("retry-after").and_then(|wish| wish.to_str().ok()?.parse().ok());
    let status = answer.status().as_u16();
    let body = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
    Ok((status, wish.map(Duration::from_secs), body.map_err(|error| error.to_string())))
}
