//! The codec of ssp: an endpoint's events to the hub's commands, and the hub's notices to events. A pool is the room of
//! its name, so messages between an endpoint and a peer of the HELLO protocol are translated.

use std::collections::BTreeMap;

use serde_json::Value;

use super::descriptions::{described, text_length};
use super::rejection::Rejection;
use crate::hub::{Command, Notice};
use crate::protocol::id::IdError;
use crate::protocol::ssp::{ClientEvent, ServerEvent, SspError, Version, in_version_1};
use crate::protocol::{MAX_MESSAGE, PeerId, PeerMessage, RoomId};

const NO_ENTRY: &str = "Could not join pool.";

/// The server's state of one endpoint.
#[derive(Debug)]
pub struct Endpoint {
    /// The endpoint's id in a pool.
    id: PeerId,
    /// The version that the endpoint's events have shown.
    version: Version,
    /// The pool that the endpoint is in or asked to join.
    pool: Option<String>,
    is_in: bool,
    /// The early candidates of peers whose description the endpoint has not received; RTCPool would drop them.
    early: BTreeMap<PeerId, Vec<PeerMessage>>,
}

/// Space within [`MAX_MESSAGE`] for the words of an event and of its framing.
const FRAMING: usize = 1024;
/// The most early candidates that are kept for one peer.
const MAX_EARLY: usize = 64;
/// The longest message with an early candidate that is kept, in bytes.
const LONGEST_EARLY: usize = 2048;

fn error(message: impl ToString, reason: Option<String>) -> String {
    ServerEvent::Error { message: message.to_string(), reason }.to_string()
}

fn send(to: &str, message: &PeerMessage) -> Result<Command, Rejection> {
    let to = to
        .parse()
        .map_err(|why: IdError| Rejection::Error(error(SspError::NoTarget, Some(why.to_string()))))?;
    Ok(Command::Send { to, body: message.to_string() })
}

/// Returns the length of an id in a list or as a key in JSON, with the comma or colon after it.
fn id_length(id: &PeerId) -> usize {
    text_length(&Value::from(id.as_str())) + 1
}

impl Endpoint {
    /// Returns an endpoint that is in no pool yet; `id` becomes its id in the pool.
    pub fn new(id: PeerId) -> Self {
        Self { id, version: Version::default(), pool: None, is_in: false, early: BTreeMap::new() }
    }

    /// Converts an event of the client to commands for the hub.
    pub fn decode(&mut self, text: &str) -> Result<Vec<Command>, Rejection> {
        let event = ClientEvent::parse(text).map_err(|why| Rejection::Error(error(why, None)))?;
        if !self.is_in && !matches!(event, ClientEvent::Join(_) | ClientEvent::Other(..)) {
            return Err(Rejection::Error(error(SspError::NoPool, None)));
        }
        match event {
            ClientEvent::Join(_) if self.pool.is_some() => {
                Err(Rejection::Error(error(NO_ENTRY, Some("you are in a pool already".to_owned()))))
            }
            ClientEvent::Join(pool) => {
                let room = RoomId::from_foreign(&pool)
                    .map_err(|why| Rejection::Error(error("No such pool exists.", Some(why.to_string()))))?;
                self.pool = Some(pool);
                Ok(vec![Command::Enter(self.id.clone(), room)])
            }
            ClientEvent::Sdp(to, sdp) => {
                self.version = Version::Two;
                Ok(vec![send(&to, &PeerMessage::Description(sdp))?])
            }
            ClientEvent::Answer(to, answer) => {
                self.version = Version::One;
                Ok(vec![send(&to, &PeerMessage::Description(answer))?])
            }
            ClientEvent::Offers(offers) => {
                self.version = Version::One;
                offers.into_iter().map(|(to, offer)| send(&to, &PeerMessage::Description(offer))).collect()
            }
            ClientEvent::Candidate(to, candidate) => Ok(vec![send(&to, &candidate)?]),
            ClientEvent::Other(..) => Ok(vec![]),
        }
    }

    /// Converts a notice to events. `describe` returns the back end's description of a peer.
    pub fn encode(&mut self, notice: Notice, describe: impl Fn(&PeerId) -> Value) -> Vec<String> {
        let one = |event: ServerEvent| vec![event.to_string()];
        match notice {
            Notice::Joined(peers) => {
                self.is_in = true;
                self.early = peers.iter().map(|peer| (peer.clone(), vec![])).collect();
                let Some(pool) = &self.pool else { return vec![] };
                let mut described = described([&self.id].into_iter().chain(&peers), describe);
                // Descriptions that exceed the longest message, [`MAX_MESSAGE`] bytes, follow in events of their own.
                let mut bytes = FRAMING + id_length(&self.id) + text_length(&Value::from(pool.as_str()));
                bytes += peers.iter().map(id_length).sum::<usize>();
                let mut fits = |(id, description): &(PeerId, Value)| {
                    bytes += id_length(id) + text_length(description) + 1;
                    bytes <= MAX_MESSAGE
                };
                let rest = described.iter().position(|one| !fits(one)).unwrap_or(described.len());
                let later = described.split_off(rest);
                let mut texts = one(ServerEvent::Joined {
                    id: self.id.to_string(),
                    pool: pool.clone(),
                    descriptions: described.into_iter().map(|(id, what)| (id.to_string(), what)).collect(),
                    peers: peers.iter().map(PeerId::to_string).collect(),
                });
                let later = later.into_iter().filter(|(_, what)| !what.is_null());
                texts.extend(later.map(|(id, what)| ServerEvent::Describe(id.to_string(), what).to_string()));
                texts
            }
            Notice::PeerJoined(peer) => {
                let id = peer.to_string();
                self.early.insert(peer, vec![]);
                let mut texts = one(ServerEvent::Peer(id.clone()));
                // Each version ignores the event of the other one.
                if self.version != Version::Two {
                    texts.push(ServerEvent::RequestOffers(id).to_string());
                }
                texts
            }
            Notice::Described(peer, description) => one(ServerEvent::Describe(peer.to_string(), description)),
            Notice::Stopped => one(ServerEvent::Stop),
            Notice::PeerLeft(peer) => {
                self.early.remove(&peer);
                one(ServerEvent::Close(peer.to_string()))
            }
            Notice::From { from, body } => self.relayed(&from, &body),
            Notice::Refused(why) if self.is_in => vec![error(SspError::NoTarget, Some(why.to_string()))],
            Notice::Refused(why) => {
                self.pool = None;
                vec![error(NO_ENTRY, Some(why.to_string()))]
            }
            // ssp has no words for moderation; an endpoint is never in a 1-1 call, and requests no lists.
            Notice::Moderator
            | Notice::MuteRequested(..)
            | Notice::Registered
            | Notice::CallStarted
            | Notice::CalledBy(_)
            | Notice::Relayed(_)
            | Notice::RoomList(_)
            | Notice::PeerList(_) => vec![],
        }
    }

    /// Converts a peer's message to events of the endpoint's version; a message without such an event is left out.
    fn relayed(&mut self, from: &PeerId, body: &str) -> Vec<String> {
        let id = from.to_string();
        let candidate = |candidate| ServerEvent::Candidate(id.clone(), candidate).to_string();
        match (PeerMessage::parse(body), self.early.get_mut(from)) {
            (Ok(PeerMessage::Description(sdp)), _) => {
                let of_one = || in_version_1(id.clone(), sdp.clone()).to_string();
                let of_two = || ServerEvent::Sdp(id.clone(), sdp.clone()).to_string();
                let mut texts = match self.version {
                    Version::One => vec![of_one()],
                    Version::Two => vec![of_two()],
                    Version::Auto => vec![of_two(), of_one()],
                };
                texts.extend(self.early.remove(from).into_iter().flatten().map(candidate));
                texts
            }
            (Ok(found @ (PeerMessage::Candidate(_) | PeerMessage::EndOfCandidates)), early) => match early {
                None => vec![candidate(found)],
                Some(early) => {
                    if early.len() < MAX_EARLY && body.len() <= LONGEST_EARLY {
                        early.push(found);
                    }
                    vec![]
                }
            },
            (Ok(PeerMessage::OfferRequest | PeerMessage::Placeholder) | Err(_), _) => vec![],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    use crate::hub::Refusal;
    use crate::protocol::{Description, SdpKind};

    fn nothing(_: &PeerId) -> Value {
        Value::Null
    }

    fn id(text: &str) -> PeerId {
        text.parse().unwrap()
    }

    fn say(endpoint: &mut Endpoint, text: &str) -> Result<Vec<Command>, String> {
        endpoint.decode(text).map_err(|rejection| match rejection {
            Rejection::Error(text) => match ServerEvent::parse(&text).unwrap() {
                ServerEvent::Error { message, .. } => message,
                other => panic!("{other:?}"),
            },
            Rejection::Close(..) => panic!("an endpoint is not closed on"),
        })
    }

    fn joined() -> Endpoint {
        let mut endpoint = Endpoint::new(id("e1"));
        let join = ClientEvent::Join("the attic".into()).to_string();
        let room = RoomId::from_foreign("the attic").unwrap();
        assert_eq!(say(&mut endpoint, &join), Ok(vec![Command::Enter(id("e1"), room)]));
        let texts = endpoint.encode(Notice::Joined(vec![id("ann")]), nothing);
        let Ok(ServerEvent::Joined { id, pool, peers, descriptions }) = ServerEvent::parse(&texts[0]) else {
            panic!("{texts:?}")
        };
        assert_eq!((id.as_str(), pool.as_str(), peers), ("e1", "the attic", vec!["ann".to_owned()]));
        assert_eq!(descriptions.len(), 2, "of us, too");
        endpoint
    }

    #[test]
    fn an_endpoint_outside_a_pool_can_only_join_one() {
        let mut endpoint = Endpoint::new(id("e1"));
        let early = ClientEvent::Candidate("x".into(), PeerMessage::EndOfCandidates).to_string();
        assert_eq!(say(&mut endpoint, &early), Err("Please specify a pool to join.".into()));
        assert_eq!(say(&mut endpoint, r#"{"type":"hello","data":{}}"#), Ok(vec![]));
        let mut endpoint = joined();
        let again = ClientEvent::Join("the attic".into()).to_string();
        assert_eq!(say(&mut endpoint, &again), Err("Could not join pool.".into()));
        // An endpoint that was refused may try again.
        let mut endpoint = Endpoint::new(id("e1"));
        say(&mut endpoint, &again).unwrap();
        let texts = endpoint.encode(Notice::Refused(Refusal::TooManyRooms), nothing);
        assert!(texts[0].contains("Could not join pool.") && texts[0].contains("no room for more rooms"));
        assert!(say(&mut endpoint, &again).is_ok());
    }

    #[test]
    fn early_candidates_are_few_and_short() {
        let mut endpoint = joined();
        let mut hear = |body: String| endpoint.encode(Notice::From { from: id("ann"), body }, nothing);
        let candidate = |text: &str| json!({"ice": {"candidate": text, "sdpMLineIndex": 0}}).to_string();
        assert!(hear(candidate(&"x".repeat(LONGEST_EARLY))).is_empty());
        (0..100).for_each(|_| assert!(hear(candidate("candidate:1")).is_empty()));
        let texts = hear(json!({"sdp": {"type": "offer", "sdp": "v=0"}}).to_string());
        let kept = texts.iter().filter(|text| text.contains("candidate:1"));
        assert_eq!(kept.count(), MAX_EARLY);
        assert!(texts.iter().all(|text| text.len() < LONGEST_EARLY));
    }

    #[test]
    fn peers_of_rooms_keep_their_ids() {
        let mut endpoint = joined();
        for name in ["100%", "%41", "späti"] {
            let texts = endpoint.encode(Notice::PeerJoined(id(name)), nothing);
            assert!(texts[0].contains(&format!(r#""id":"{name}""#)), "{texts:?}");
            let offer = Description { kind: SdpKind::Offer, sdp: "v=0".into() };
            let body = PeerMessage::Description(offer.clone()).to_string();
            let said = say(&mut endpoint, &ClientEvent::Sdp(name.into(), offer).to_string());
            assert_eq!(said, Ok(vec![Command::Send { to: id(name), body }]));
        }
        let nobody = ClientEvent::Candidate("a b".into(), PeerMessage::EndOfCandidates).to_string();
        assert_eq!(say(&mut endpoint, &nobody), Err(SspError::NoTarget.to_string()));
    }

    #[test]
    fn each_endpoint_receives_its_own_version() {
        let offer = Description { kind: SdpKind::Offer, sdp: "v=0".into() };
        let from =
            || Notice::From { from: id("ann"), body: PeerMessage::Description(offer.clone()).to_string() };
        let types = |lines: &[String]| -> Vec<String> {
            lines
                .iter()
                .map(|line| {
                    line.split("\"type\":\"rtc:").nth(1).unwrap().split('"').next().unwrap().to_owned()
                })
                .collect()
        };
        let mut unknown = joined();
        assert_eq!(
            types(&unknown.encode(Notice::PeerJoined(id("bob")), nothing)),
            ["peer", "request_offers"]
        );
        assert_eq!(types(&unknown.encode(from(), nothing)), ["sdp", "offer"]);
        let mut second = joined();
        say(&mut second, &ClientEvent::Sdp("ann".into(), offer.clone()).to_string()).unwrap();
        assert_eq!(types(&second.encode(from(), nothing)), ["sdp"]);
        assert_eq!(types(&second.encode(Notice::PeerJoined(id("bob")), nothing)), ["peer"]);
        let mut first = joined();
        let offers = ClientEvent::Offers(vec![("ann".into(), offer.clone()), ("bob".into(), offer.clone())]);
        assert_eq!(say(&mut first, &offers.to_string()).unwrap().len(), 2);
        assert_eq!(types(&first.encode(from(), nothing)), ["offer"]);
        let request = Notice::From { from: id("ann"), body: "OFFER_REQUEST".into() };
        assert_eq!(first.encode(request, nothing), Vec::<String>::new());
    }

    #[test]
    fn a_full_pool_with_the_longest_ids_fits_into_one_message() {
        let mut endpoint = Endpoint::new(id("e1"));
        say(&mut endpoint, &ClientEvent::Join("\"".repeat(256)).to_string()).unwrap();
        // Each character of these ids has two bytes in JSON.
        let peers: Vec<PeerId> = (0..1000).map(|n| id(&format!("{n:0>4}{}", "\"".repeat(252)))).collect();
        let what = Value::from("x".repeat(250));
        let texts = endpoint.encode(Notice::Joined(peers.clone()), |_| what.clone());
        assert!(texts.iter().all(|text| text.len() + FRAMING <= MAX_MESSAGE), "{}", texts[0].len());
        let Ok(ServerEvent::Joined { peers: told, descriptions, .. }) = ServerEvent::parse(&texts[0]) else {
            panic!("{}", texts[0])
        };
        assert_eq!(told.len(), 1000);
        // Each peer, and the endpoint itself, is described once.
        let mut described: Vec<String> = descriptions.iter().map(|(id, _)| id.clone()).collect();
        for text in &texts[1..] {
            let Ok(ServerEvent::Describe(id, found)) = ServerEvent::parse(text) else { panic!("{text}") };
            assert_eq!(found, what);
            described.push(id);
        }
        described.sort();
        described.dedup();
        assert_eq!((described.len(), descriptions.len() + texts.len() - 1), (1001, 1001));
    }
}
