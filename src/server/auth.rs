//! Asks a back end whether a client may connect, and with which permissions.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use smol::lock::Semaphore;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::token::{Granted, TokenError, granted};
use super::webhook::{Headers, Poster, SigningSecret, WebhookUrl};
use crate::base::lock::lock;
use crate::base::random::secret_id;
use crate::base::timeout::timeout;

/// The time limit of a question, the wait for its turn included.
const PATIENCE: Duration = Duration::from_secs(3);
/// The most questions at a time.
const AT_ONCE: usize = 64;
/// How long an answer about a token holds, so that a client that connects again soon does not ask again.
const KEPT: Duration = Duration::from_secs(10);
/// The most answers that are kept.
const MOST: usize = 4096;

type Digest = [u8; 32];
type Verdict = Result<Granted, TokenError>;

/// See the module.
pub(super) struct BackEndAuth {
    poster: Poster,
    turns: Semaphore,
    kept: Mutex<HashMap<Digest, (Instant, Verdict)>>,
}

impl fmt::Debug for BackEndAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BackEndAuth")
    }
}

impl BackEndAuth {
    /// Asks at `url`, with questions signed by `secrets`.
    pub(super) fn new(url: &WebhookUrl, secrets: &[SigningSecret]) -> Self {
        let poster = Poster::new(url, secrets, PATIENCE);
        Self { poster, turns: Semaphore::new(AT_ONCE), kept: Mutex::default() }
    }

    /// Returns the permissions of a token that a client at `address` shows.
    /// `headers` pass the ids of the client's request on.
    pub(super) async fn read(&self, token: &str, address: IpAddr, headers: Headers) -> Verdict {
        let mut key: Digest = [0; 32];
        key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        if let Some(verdict) = self.known(Instant::now(), &key) {
            return verdict;
        }
        let asked = async {
            let _turn = self.turns.acquire().await;
            self.ask(token, address, headers).await
        };
        let verdict = timeout(PATIENCE, asked).await.unwrap_or(Err(TokenError::NoAnswer));
        if !matches!(verdict, Err(TokenError::NoAnswer)) {
            self.keep(Instant::now(), key, verdict.clone());
        }
        verdict
    }

    fn known(&self, now: Instant, key: &Digest) -> Option<Verdict> {
        let kept = lock(&self.kept);
        kept.get(key).filter(|(until, _)| now < *until).map(|(_, verdict)| verdict.clone())
    }

    fn keep(&self, now: Instant, key: Digest, verdict: Verdict) {
        let mut kept = lock(&self.kept);
        kept.retain(|_, (until, _)| now < *until);
        if kept.len() < MOST {
            kept.insert(key, (now + KEPT, verdict));
        }
    }

    async fn ask(&self, token: &str, address: IpAddr, headers: Headers) -> Verdict {
        let id = secret_id().map_err(|_| TokenError::NoAnswer)?;
        let time = OffsetDateTime::from(SystemTime::now()).format(&Rfc3339).unwrap_or_default();
        let data = json!({"token": token, "address": address});
        let question = json!({"type": "auth.connect", "timestamp": time, "data": data});
        let answer = self.poster.ask(&format!("msg_{id}"), &question.to_string(), headers).await;
        judge(answer.map(|(status, body)| (status, serde_json::from_slice(&body).unwrap_or_default())))
    }
}

/// Judges the answer of the back end: its status and its body.
fn judge(answer: Result<(u16, Value), String>) -> Verdict {
    let why = match answer {
        Ok((200, claims @ Value::Object(_))) => return granted(claims).map_err(TokenError::Refused),
        Ok((200, _)) => "its answer is no JSON object of claims".to_owned(),
        Ok((status @ (401 | 403), body)) => {
            let words = body["message"].as_str().unwrap_or("the back end does not let you in");
            let words = words.chars().take(200).collect();
            // A token that is unknown may be a guess; a bearer who may not come in is none.
            return Err(if status == 401 { TokenError::Forged(words) } else { TokenError::Refused(words) });
        }
        Ok((status, _)) => format!("it answers {status}"),
        Err(why) => why,
    };
    tracing::warn!("the back end cannot be asked about a client, who is not let in: {why}");
    Err(TokenError::NoAnswer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_decides_and_without_one_nobody_comes_in() {
        let grant = judge(Ok((200, json!({"sub": "ann", "rooms": ["attic"], "exp": 7})))).unwrap();
        assert_eq!((grant.grant.name, grant.expires), (Some("ann".parse().unwrap()), Some(7)));
        assert_eq!(judge(Ok((200, json!({})))).unwrap().expires, None);
        let words = || json!({"message": "pay first"});
        assert_eq!(judge(Ok((401, words()))).unwrap_err(), TokenError::Forged("pay first".into()));
        assert_eq!(judge(Ok((403, words()))).unwrap_err(), TokenError::Refused("pay first".into()));
        assert!(matches!(judge(Ok((200, json!({"sub": 7})))), Err(TokenError::Refused(_))));
        for answer in [Ok((200, json!([]))), Ok((204, Value::Null)), Ok((500, words())), Err("no".into())] {
            assert_eq!(judge(answer).unwrap_err(), TokenError::NoAnswer);
        }
    }

    #[test]
    fn an_answer_holds_for_ten_seconds() {
        let auth = BackEndAuth::new(&"http://127.0.0.1:1".parse().unwrap(), &[]);
        let (now, key) = (Instant::now(), [7; 32]);
        auth.keep(now, key, Err(TokenError::Refused("no".into())));
        assert!(auth.known(now + KEPT - Duration::from_millis(1), &key).is_some());
        assert!(auth.known(now + KEPT, &key).is_none() && auth.known(now, &[8; 32]).is_none());
    }
}
