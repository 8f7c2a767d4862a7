//! Sends signed messages to one address.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::config::{SigningSecret, WebhookUrl};
use super::schedule::Answer;
use super::signature::sign;
use crate::tls::http_agent;

/// The time limit of a request, until the end of the answer.
const REQUEST: Duration = Duration::from_secs(10);
/// The longest answer that is read, so that the connection can serve the next message, in bytes.
const MAX_ANSWER: u64 = 64 * 1024;
/// The name of this program to the back end.
const AGENT: &str = concat!("roomtone/", env!("CARGO_PKG_VERSION"));

/// See the module.
#[derive(Debug)]
pub(super) struct Poster {
    agent: ureq::Agent,
    url: String,
    secrets: Arc<[SigningSecret]>,
}

impl Poster {
    pub(super) fn new(url: &WebhookUrl, secrets: &[SigningSecret]) -> Self {
        Self { agent: http_agent(url.url(), REQUEST), url: url.as_str().to_owned(), secrets: secrets.into() }
    }

    /// Sends a message in a thread of its own, and returns the answer.
    pub(super) async fn post(&self, id: &str, body: &str) -> Answer {
        let (agent, url, secrets) = (self.agent.clone(), self.url.clone(), self.secrets.clone());
        let (id, body) = (id.to_owned(), body.to_owned());
        smol::unblock(move || post(&agent, &url, &secrets, &id, &body)).await
    }
}

fn post(agent: &ureq::Agent, url: &str, secrets: &[SigningSecret], id: &str, body: &str) -> Answer {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let request = agent
        .post(url)
        .header("content-type", "application/json")
        .header("user-agent", AGENT)
        .header("webhook-id", id)
        .header("webhook-timestamp", time.to_string())
        .header("webhook-signature", sign(secrets, id, time, body));
    match request.send(body) {
        Ok(mut answer) => {
            let wish = answer.headers().get("retry-after").and_then(|wish| wish.to_str().ok()?.parse().ok());
            let status = answer.status().as_u16();
            // The status decides: an answer that is cut short or too long costs the connection alone.
            let _ = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
            Answer::Status(status, wish.map(Duration::from_secs))
        }
        Err(error) => Answer::None(error.to_string()),
    }
}
