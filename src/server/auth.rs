//! Asks a back end whether a client may connect, and with which permissions.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use smol::lock::{Semaphore, SemaphoreGuardArc};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::token::{Granted, TokenError, check_length, check_times, granted};
use super::webhook::{Headers, Poster, SigningSecret, WebhookUrl};
use crate::base::lock::lock;
use crate::base::net::{Owner, is_this_machine};
use crate::base::random::secret_id;
use crate::base::timeout::timeout;

/// The time limit of a question, the wait for its turn included.
const PATIENCE: Duration = Duration::from_secs(3);
/// The most questions at a time. Each occupies a thread of the pool that webhooks use, too.
const AT_ONCE: usize = 64;
/// The most questions at a time about clients of one owner of addresses, so that no owner takes all turns.
const EACH: usize = 8;
/// How long an answer about a token holds, so that a client that connects again soon does not ask again.
const KEPT: Duration = Duration::from_secs(10);
/// The most answers that are kept.
const MOST: usize = 4096;

/// SHA-256 of a token, and the address of the client that shows it: a back end may judge by both.
type Key = ([u8; 32], IpAddr);
type Verdict = Result<Granted, TokenError>;

/// See the module.
pub(super) struct BackEndAuth {
    poster: Poster,
    turns: Arc<Semaphore>,
    /// The turns of the owners about whose clients questions are asked now.
    owners: Mutex<HashMap<Owner, Arc<Semaphore>>>,
    kept: Mutex<HashMap<Key, (Instant, Verdict)>>,
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
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        Self { poster, turns, owners: Mutex::default(), kept: Mutex::default() }
    }

    /// Returns the permissions of a token that a client at `address` shows.
    /// `headers` pass the ids of the client's request on.
    pub(super) async fn read(&self, token: &str, address: IpAddr, headers: Headers) -> Verdict {
        check_length(token)?;
        let mut key: Key = ([0; 32], address);
        key.0.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        if let Some(verdict) = self.known(Instant::now(), &key) {
            return verdict;
        }
        let asked = async {
            let turn = self.turn(address).await;
            self.ask(token, address, headers, turn).await
        };
        let verdict = timeout(PATIENCE, asked).await.unwrap_or(Err(TokenError::NoAnswer));
        if !matches!(verdict, Err(TokenError::NoAnswer)) {
            self.keep(Instant::now(), key, verdict.clone());
        }
        verdict
    }

    /// Waits for the turn of a question. Its guards count the question until they are dropped.
    async fn turn(&self, address: IpAddr) -> [SemaphoreGuardArc; 2] {
        let own = {
            let mut owners = lock(&self.owners);
            owners.retain(|_, turns| Arc::strong_count(turns) > 1);
            // A proxy on this machine stands for many clients.
            let most = if is_this_machine(address) { AT_ONCE } else { EACH };
            owners.entry(address.into()).or_insert_with(|| Arc::new(Semaphore::new(most))).clone()
        };
        let own = own.acquire_arc().await;
        [own, self.turns.acquire_arc().await]
    }

    fn known(&self, now: Instant, key: &Key) -> Option<Verdict> {
        let kept = lock(&self.kept);
        kept.get(key).filter(|(until, _)| now < *until).map(|(_, verdict)| verdict.clone())
    }

    fn keep(&self, now: Instant, key: Key, verdict: Verdict) {
        let mut kept = lock(&self.kept);
        kept.retain(|_, (until, _)| now < *until);
        if kept.len() < MOST {
            kept.insert(key, (now + KEPT, verdict));
        }
    }

    async fn ask(
        &self,
        token: &str,
        address: IpAddr,
        headers: Headers,
        turn: [SemaphoreGuardArc; 2],
    ) -> Verdict {
        let id = secret_id().map_err(|_| TokenError::NoAnswer)?;
        let time = OffsetDateTime::from(SystemTime::now()).format(&Rfc3339).unwrap_or_default();
        let data = json!({"token": token, "address": address});
        let question = json!({"type": "auth.connect", "timestamp": time, "data": data});
        let answer = self.poster.ask(&format!("msg_{id}"), &question.to_string(), headers, turn).await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        judge(now, answer.map(|(status, body)| (status, serde_json::from_slice(&body).unwrap_or_default())))
    }
}

/// Judges the answer of the back end: its status and its body. `now` is in seconds since 1970.
fn judge(now: u64, answer: Result<(u16, Value), String>) -> Verdict {
    let why = match answer {
        Ok((200, claims @ Value::Object(_))) => {
            let checked = check_times(&claims, now);
            return checked.and_then(|()| granted(claims)).map_err(TokenError::Refused);
        }
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
        let judge = |answer| judge(7, answer);
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
    fn claims_of_the_back_end_count_at_their_times() {
        let at = |now, claims: Value| judge(now, Ok((200, claims))).map(|granted| granted.expires);
        assert_eq!(at(1030, json!({"exp": 1000})), Ok(Some(1000)));
        assert_eq!(at(1031, json!({"exp": 1000})), Err(TokenError::Refused("it has expired (exp)".into())));
        assert_eq!(at(970, json!({"nbf": 1000})), Ok(None));
        assert_eq!(
            at(969, json!({"nbf": 1000})),
            Err(TokenError::Refused("it is not valid yet (nbf)".into()))
        );
        assert!(matches!(at(1000, json!({"exp": "soon"})), Err(TokenError::Refused(_))));
    }

    #[test]
    fn an_answer_holds_for_ten_seconds() {
        let auth = BackEndAuth::new(&"http://127.0.0.1:1".parse().unwrap(), &[]);
        let here = |address: &str| ([7; 32], address.parse().unwrap());
        let (now, key) = (Instant::now(), here("192.0.2.1"));
        auth.keep(now, key, Err(TokenError::Refused("no".into())));
        assert!(auth.known(now + KEPT - Duration::from_millis(1), &key).is_some());
        assert!(auth.known(now + KEPT, &key).is_none() && auth.known(now, &([8; 32], key.1)).is_none());
        assert!(
            auth.known(now, &here("192.0.2.2")).is_none(),
            "the back end may judge another address otherwise"
        );
    }

    /// Returns the turns that clients at an address can get at once.
    fn turns(auth: &BackEndAuth, address: &str) -> Vec<[SemaphoreGuardArc; 2]> {
        let turn = || smol::block_on(smol::future::poll_once(auth.turn(address.parse().unwrap())));
        std::iter::from_fn(turn).take(2 * AT_ONCE).collect()
    }

    #[test]
    fn no_owner_of_addresses_takes_all_turns() {
        let auth = BackEndAuth::new(&"http://127.0.0.1:1".parse().unwrap(), &[]);
        let first = turns(&auth, "192.0.2.1");
        let second = turns(&auth, "2001:db8::1");
        assert_eq!((first.len(), second.len()), (EACH, EACH));
        assert!(turns(&auth, "2001:db8::2").is_empty(), "the same network");
        // A proxy on this machine stands for many clients.
        assert_eq!(turns(&auth, "127.0.0.1").len(), AT_ONCE - 2 * EACH);
        drop((first, second));
        assert_eq!(turns(&auth, "127.0.0.1").len(), AT_ONCE);
        drop(turns(&auth, "192.0.2.3"));
        assert_eq!(lock(&auth.owners).len(), 1, "the others ask nothing");
    }

    #[test]
    fn a_question_that_is_given_up_counts_until_its_end() {
        // A back end that accepts connections and never answers.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let url = url.parse().unwrap();
        let poster = Poster::new(&url, &[], Duration::from_secs(600));
        let auth = BackEndAuth { poster, ..BackEndAuth::new(&url, &[]) };
        let address = "192.0.2.1".parse().unwrap();
        smol::block_on(async {
            let turn = auth.turn(address).await;
            let question =
                async { panic!("an answer: {:?}", auth.ask("a token", address, vec![], turn).await) };
            let arrives = smol::unblock(move || listener.accept().map(|(stream, _)| (listener, stream)));
            // The question is dropped as soon as it arrives; its thread goes on.
            let kept = smol::future::or(async { arrives.await.unwrap() }, question).await;
            assert_eq!(turns(&auth, "192.0.2.1").len(), EACH - 1);
            drop(kept);
        });
    }

    #[test]
    fn a_long_token_is_not_passed_on() {
        let auth = BackEndAuth::new(&"http://127.0.0.1:1".parse().unwrap(), &[]);
        let long = "x".repeat(8 * 1024 + 1);
        let verdict = smol::block_on(auth.read(&long, "192.0.2.1".parse().unwrap(), vec![]));
        assert!(matches!(verdict, Err(TokenError::Forged(why)) if why.contains("longer than")));
    }
}
