//! ssp at the server's edge: an endpoint's events to the hub's commands, and the hub's notices to events. A pool
//! and a room of one name are one, so what goes between an endpoint and a room's peer is translated. Pure.

use super::room::Rejection;
use crate::hub::{Command, Notice};
use crate::protocol::ssp::{ClientEvent, ServerEvent, in_version_1};
use crate::protocol::{PeerId, PeerMessage, RoomId};

const NO_ENTRY: &str = "Could not join pool.";
const NO_TARGET: &str = "Please specify a valid answer target.";

/// Which version an endpoint speaks, as far as its words tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Unknown,
    One,
    Two,
}

/// One connection's side of the protocol.
#[derive(Debug)]
pub struct Endpoint {
    version: Version,
    /// The id that it has or is to have, and the pool.
    me: Option<(PeerId, String)>,
    is_in: bool,
}

impl Default for Endpoint {
    fn default() -> Self {
        Self { version: Version::Unknown, me: None, is_in: false }
    }
}

fn error(message: &str, reason: Option<String>) -> String {
    ServerEvent::Error { message: message.to_owned(), reason }.to_string()
}

fn send(to: &str, message: &PeerMessage) -> Result<Command, Rejection> {
    let to =
        PeerId::from_foreign(to).map_err(|why| Rejection::Error(error(NO_TARGET, Some(format!("{why}")))))?;
    Ok(Command::Send { to, body: message.to_string() })
}

impl Endpoint {
    /// Reads an event of the endpoint, which is to have that id if it comes into a pool.
    pub fn decode(
        &mut self,
        text: &str,
        id: impl FnOnce() -> Option<PeerId>,
    ) -> Result<Vec<Command>, Rejection> {
        let event =
            ClientEvent::parse(text).map_err(|why| Rejection::Error(error(&why.to_string(), None)))?;
        if !self.is_in && !matches!(event, ClientEvent::Join(_) | ClientEvent::Other(_)) {
            return Err(Rejection::Error(error("Please specify a pool to join.", None)));
        }
        match event {
            ClientEvent::Join(_) if self.me.is_some() => {
                Err(Rejection::Error(error(NO_ENTRY, Some("you are in a pool already".to_owned()))))
            }
            ClientEvent::Join(pool) => {
                let room = RoomId::from_foreign(&pool)
                    .map_err(|why| Rejection::Error(error("No such pool exists.", Some(why.to_string()))))?;
                let Some(id) = id() else {
                    return Err(Rejection::Error(error(NO_ENTRY, None)));
                };
                self.me = Some((id.clone(), pool));
                Ok(vec![Command::Enter(id, room)])
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
            ClientEvent::Other(_) => Ok(vec![]),
        }
    }

    /// What the endpoint is told.
    pub fn encode(&mut self, notice: Notice) -> Vec<String> {
        let one = |event: ServerEvent| vec![event.to_string()];
        match notice {
            Notice::Joined(peers) => {
                self.is_in = true;
                let Some((id, pool)) = &self.me else { return vec![] };
                let all = peers.iter().chain([id]);
                one(ServerEvent::Joined {
                    id: id.to_foreign(),
                    pool: pool.clone(),
                    descriptions: all.map(|id| (id.to_foreign(), serde_json::Value::Null)).collect(),
                    peers: peers.iter().map(PeerId::to_foreign).collect(),
                })
            }
            // Each generation ignores the other's word for it.
            Notice::PeerJoined(peer) if self.version == Version::Two => {
                one(ServerEvent::Peer(peer.to_foreign()))
            }
            Notice::PeerJoined(peer) => [
                ServerEvent::Peer(peer.to_foreign()).to_string(),
                ServerEvent::RequestOffers(peer.to_foreign()).to_string(),
            ]
            .into(),
            Notice::PeerLeft(peer) => one(ServerEvent::Close(peer.to_foreign())),
            Notice::From { from, body } => self.relayed(from.to_foreign(), &body),
            Notice::Refused(why) if self.is_in => vec![error(NO_TARGET, Some(why.to_string()))],
            Notice::Refused(why) => {
                self.me = None;
                vec![error(NO_ENTRY, Some(why.to_string()))]
            }
            // An endpoint is never in a call of two, and asks for no lists.
            Notice::Registered
            | Notice::CallStarted
            | Notice::CalledBy(_)
            | Notice::Relayed(_)
            | Notice::RoomList(_)
            | Notice::PeerList(_) => vec![],
        }
    }

    /// What a peer says, in words of the endpoint's version; what ssp has no words for is left out.
    fn relayed(&self, from: String, body: &str) -> Vec<String> {
        match PeerMessage::parse(body) {
            Ok(PeerMessage::Description(sdp)) => {
                let of_one = || in_version_1(from.clone(), sdp.clone()).to_string();
                let of_two = || ServerEvent::Sdp(from.clone(), sdp.clone()).to_string();
                match self.version {
                    Version::One => vec![of_one()],
                    Version::Two => vec![of_two()],
                    Version::Unknown => vec![of_two(), of_one()],
                }
            }
            Ok(candidate @ (PeerMessage::Candidate(_) | PeerMessage::EndOfCandidates)) => {
                vec![ServerEvent::Candidate(from, candidate).to_string()]
            }
            Ok(PeerMessage::OfferRequest | PeerMessage::Placeholder) | Err(_) => vec![],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Refusal;
    use crate::protocol::{Description, SdpKind};

    fn id(text: &str) -> PeerId {
        text.parse().unwrap()
    }

    fn say(endpoint: &mut Endpoint, text: &str) -> Result<Vec<Command>, String> {
        endpoint.decode(text, || Some(id("e1"))).map_err(|rejection| match rejection {
            Rejection::Error(text) => match ServerEvent::parse(&text).unwrap() {
                ServerEvent::Error { message, .. } => message,
                other => panic!("{other:?}"),
            },
            Rejection::Close(..) => panic!("an endpoint is not closed on"),
        })
    }

    fn joined() -> Endpoint {
        let mut endpoint = Endpoint::default();
        let join = ClientEvent::Join("the attic".into()).to_string();
        let room = RoomId::from_foreign("the attic").unwrap();
        assert_eq!(say(&mut endpoint, &join), Ok(vec![Command::Enter(id("e1"), room)]));
        let told = endpoint.encode(Notice::Joined(vec![id("ann")]));
        let Ok(ServerEvent::Joined { id, pool, peers, descriptions }) = ServerEvent::parse(&told[0]) else {
            panic!("{told:?}")
        };
        assert_eq!((id.as_str(), pool.as_str(), peers), ("e1", "the attic", vec!["ann".to_owned()]));
        assert_eq!(descriptions.len(), 2, "of us, too");
        endpoint
    }

    #[test]
    fn whoever_is_not_in_a_pool_can_only_join_one() {
        let mut endpoint = Endpoint::default();
        let early = ClientEvent::Candidate("x".into(), PeerMessage::EndOfCandidates).to_string();
        assert_eq!(say(&mut endpoint, &early), Err("Please specify a pool to join.".into()));
        assert_eq!(say(&mut endpoint, r#"{"type":"hello","data":{}}"#), Ok(vec![]));
        let mut endpoint = joined();
        let again = ClientEvent::Join("the attic".into()).to_string();
        assert_eq!(say(&mut endpoint, &again), Err("Could not join pool.".into()));
        // Who was refused may try again.
        let mut endpoint = Endpoint::default();
        say(&mut endpoint, &again).unwrap();
        let told = endpoint.encode(Notice::Refused(Refusal::TooManyRooms));
        assert!(told[0].contains("Could not join pool.") && told[0].contains("no room for more rooms"));
        assert!(say(&mut endpoint, &again).is_ok());
    }

    #[test]
    fn each_is_spoken_to_in_its_own_version() {
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
        assert_eq!(types(&unknown.encode(Notice::PeerJoined(id("bob")))), ["peer", "request_offers"]);
        assert_eq!(types(&unknown.encode(from())), ["sdp", "offer"]);
        let mut second = joined();
        say(&mut second, &ClientEvent::Sdp("ann".into(), offer.clone()).to_string()).unwrap();
        assert_eq!(types(&second.encode(from())), ["sdp"]);
        assert_eq!(types(&second.encode(Notice::PeerJoined(id("bob")))), ["peer"]);
        let mut first = joined();
        let offers = ClientEvent::Offers(vec![("ann".into(), offer.clone()), ("bob".into(), offer.clone())]);
        assert_eq!(say(&mut first, &offers.to_string()).unwrap().len(), 2);
        assert_eq!(types(&first.encode(from())), ["offer"]);
        let request = Notice::From { from: id("ann"), body: "OFFER_REQUEST".into() };
        assert_eq!(first.encode(request), Vec::<String>::new());
    }
}
