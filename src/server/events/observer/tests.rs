use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::hub::{Admin, Command, Grant, Input, Limits, Owner};

struct World {
    hub: Hub,
    observer: Observer,
    now: Instant,
    all: Vec<Happening>,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        Self { hub: Hub::new(Limits::default()), observer: Observer::default(), now, all: vec![] }
    }

    fn input(&mut self, input: Input) {
        if let Input::Closed(conn) = input {
            self.all.extend(self.observer.ended(self.now, conn, "closed"));
        }
        self.hub.handle_input(self.now, input);
        self.observe();
    }

    fn observe(&mut self) {
        while let Some(output) = self.hub.poll_output() {
            self.all.extend(self.observer.observe(self.now, &self.hub, &output));
        }
    }

    fn say(&mut self, conn: u64, command: Command) {
        self.input(Input::Command(ConnId(conn), command));
    }

    fn register(&mut self, conn: u64, name: &str) {
        self.input(Input::Opened(ConnId(conn), Owner(1)));
        self.say(conn, Command::Register(name.parse().unwrap()));
    }

    /// Returns the events since the last call, as type and data without times.
    fn events(&mut self) -> Vec<String> {
        let shown = |happening: Happening| {
            let (kind, mut data) = happening.parts();
            let data = data.as_object_mut().unwrap();
            data.remove("seconds");
            let words: Vec<String> = data.values().map(|value| value.to_string().replace('"', "")).collect();
            format!("{kind} {}", words.join(" "))
        };
        std::mem::take(&mut self.all).into_iter().map(shown).collect()
    }
}

fn answer(port: u16) -> String {
    let sdp = format!("v=0\r\nm=audio {port} UDP/TLS/RTP/SAVPF 96\r\n");
    serde_json::json!({"sdp": {"type": "answer", "sdp": sdp}}).to_string()
}

#[test]
fn a_room_lasts_from_its_first_member_to_its_last() {
    let mut world = World::new();
    world.register(1, "ann");
    world.register(2, "bob");
    for conn in [1, 2] {
        world.say(conn, Command::Join("attic".parse().unwrap()));
    }
    // Keys are in the order of the alphabet: members, peer, reason, room.
    assert_eq!(
        world.events(),
        [
            "peer.registered ann",
            "peer.registered bob",
            "room.started attic",
            "peer.joined 1 ann attic",
            "peer.joined 2 bob attic"
        ]
    );
    world.now += Duration::from_secs(7);
    world.input(Input::Admin(Admin::Remove("ann".parse().unwrap())));
    assert!(world.all.iter().any(|one| matches!(one, Happening::Gone { seconds, .. } if *seconds == 7.0)));
    assert_eq!(world.events(), ["peer.left 1 ann removed attic", "peer.gone ann removed"]);
    world.input(Input::Admin(Admin::Close("attic".parse().unwrap())));
    assert_eq!(
        world.events(),
        ["peer.left 0 bob room_closed attic", "room.ended attic", "peer.gone bob room_closed"]
    );
    // An endpoint of a pool does both at once.
    world.input(Input::Opened(ConnId(3), Owner(1)));
    world.say(3, Command::Enter("cat".parse().unwrap(), "pool".parse().unwrap()));
    world.input(Input::Closed(ConnId(3)));
    assert_eq!(
        world.events(),
        [
            "peer.registered cat",
            "room.started pool",
            "peer.joined 1 cat pool",
            "peer.left 0 cat closed pool",
            "room.ended pool",
            "peer.gone cat closed"
        ]
    );
}

#[test]
fn a_call_is_answered_by_an_answer_that_accepts_something() {
    for (callee_says, answered) in [(Some(answer(9)), true), (Some(answer(0)), false), (None, false)] {
        let mut world = World::new();
        world.register(1, "ann");
        world.register(2, "bob");
        world.say(1, Command::Call("bob".parse().unwrap()));
        if let Some(text) = callee_says {
            world.say(2, Command::Relay(text));
        }
        world.input(Input::Closed(ConnId(1)));
        let mut wanted = vec![
            "peer.registered ann".to_owned(),
            "peer.registered bob".to_owned(),
            "call.started ann bob".to_owned(),
            format!("call.ended {answered} ann bob"),
        ];
        if !answered {
            wanted.push("call.missed ann unanswered bob".to_owned());
        }
        wanted.extend(["peer.gone ann closed".to_owned(), "peer.gone bob call_over".to_owned()]);
        assert_eq!(world.events(), wanted);
    }
}

/// A hub that shares calls with others knows the other side by a copy, which has no events here.
#[test]
fn a_call_of_two_servers_is_reported_by_that_of_the_callee() {
    let (ann, bob) = (ConnId(1), ConnId(2));
    let name = |text: &str| text.parse::<PeerId>().unwrap();
    for (callee_says, answered) in [(Some(answer(9)), true), (None, false)] {
        let mut world = World::new();
        // The copy of the caller is registered in the hub alone.
        world.input(Input::Opened(ann, Owner(1)));
        world.hub.handle_input(world.now, Input::Command(ann, Command::Register(name("ann"))));
        while world.hub.poll_output().is_some() {}
        world.register(2, "bob");
        world.events();
        world.say(1, Command::Call(name("bob")));
        if let Some(text) = callee_says {
            world.observer.said(bob, &text);
        }
        world.input(Input::Closed(bob));
        let mut wanted = vec!["call.started ann bob".to_owned(), format!("call.ended {answered} ann bob")];
        if !answered {
            wanted.push("call.missed ann unanswered bob".to_owned());
        }
        wanted.push("peer.gone bob closed".to_owned());
        assert_eq!(world.events(), wanted);
    }
    // The server of the caller hears that the call began, and leaves the report to the other one.
    let mut world = World::new();
    world.register(1, "ann");
    world.events();
    let begun = Output::Notify(ann, Notice::CallStarted);
    assert_eq!(world.observer.observe(world.now, &world.hub, &begun), []);
    world.input(Input::Closed(ann));
    assert_eq!(world.events(), ["peer.gone ann closed"]);
}

#[test]
fn a_call_in_vain_names_both_sides() {
    let mut world = World::new();
    for (conn, name) in [(1, "ann"), (2, "bob"), (3, "cat"), (4, "dan")] {
        world.register(conn, name);
    }
    world.say(2, Command::Join("attic".parse().unwrap()));
    world.events();
    world.say(1, Command::Call("bob".parse().unwrap()));
    world.say(1, Command::Call("eve".parse().unwrap()));
    // A call to oneself, a message to a stranger and a peer that may not be seen are no calls in vain.
    world.say(1, Command::Call("ann".parse().unwrap()));
    world.say(2, Command::Send { to: "eve".parse().unwrap(), body: String::new() });
    let hidden = Grant { calls: crate::hub::Calls::None, ..Grant::default() };
    world.input(Input::Granted(ConnId(3), hidden));
    world.say(4, Command::Call("cat".parse().unwrap()));
    assert_eq!(world.events(), ["call.missed ann busy bob", "call.unreachable ann eve"]);
}

#[derive(Debug, Clone)]
enum Step {
    Register(u64, u8),
    Join(u64, u8),
    Enter(u64, u8, u8),
    Call(u64, u8),
    End(u64),
    Remove(u8),
    Close(u8),
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    let (conn, name) = (|| 0..6_u64, || 0..4_u8);
    prop_oneof![
        (conn(), name()).prop_map(|(conn, name)| Step::Register(conn, name)),
        (conn(), name()).prop_map(|(conn, room)| Step::Join(conn, room)),
        (conn(), name(), name()).prop_map(|(conn, name, room)| Step::Enter(conn, name, room)),
        (conn(), name()).prop_map(|(conn, name)| Step::Call(conn, name)),
        conn().prop_map(Step::End),
        name().prop_map(Step::Remove),
        name().prop_map(Step::Close),
        Just(Step::Wait),
    ]
}

/// The state that a back end derives from the events alone.
#[derive(Debug, Default, PartialEq)]
struct Portal {
    /// The peers, each with its room.
    peers: BTreeMap<String, Option<String>>,
    rooms: BTreeSet<String>,
    calls: BTreeSet<(String, String)>,
}

impl Portal {
    fn hear(&mut self, happening: &Happening) {
        match happening {
            Happening::Registered { peer } => {
                assert_eq!(self.peers.insert(peer.to_string(), None), None, "registered twice");
            }
            Happening::Gone { peer, .. } => {
                assert_eq!(self.peers.remove(peer.as_str()), Some(None), "gone from a room, or twice");
            }
            Happening::RoomStarted { room } => assert!(self.rooms.insert(room.to_string())),
            Happening::RoomEnded { room, .. } => {
                assert!(self.rooms.remove(room.as_str()));
                assert!(!self.peers.values().flatten().any(|there| there == room.as_str()));
            }
            Happening::Joined { room, peer, members } => {
                assert!(self.rooms.contains(room.as_str()), "joined before the room began");
                self.peers.insert(peer.to_string(), Some(room.to_string())).unwrap();
                let there = self.peers.values().flatten().filter(|there| *there == room.as_str());
                assert_eq!(there.count(), *members);
            }
            Happening::Left { room, peer, .. } => {
                let before = self.peers.insert(peer.to_string(), None).unwrap();
                assert_eq!(before.as_deref(), Some(room.as_str()));
            }
            Happening::CallStarted { from, to } => {
                assert!(self.calls.insert((from.to_string(), to.to_string())));
            }
            Happening::CallEnded { from, to, .. } => {
                assert!(self.calls.remove(&(from.to_string(), to.to_string())));
            }
            Happening::Missed { .. } | Happening::Unreachable { .. } | Happening::Draining => {}
        }
    }
}

proptest! {
    /// A back end that hears all events knows the peers, rooms and calls of the hub at any time.
    #[test]
    fn the_events_tell_the_whole_state(steps in prop::collection::vec(step(), 1..80)) {
        let name = |n: u8| format!("p{n}").parse::<PeerId>().unwrap();
        let room = |n: u8| format!("r{n}").parse::<RoomId>().unwrap();
        let (mut world, mut portal) = (World::new(), Portal::default());
        (0..6).for_each(|conn| world.input(Input::Opened(ConnId(conn), Owner(1))));
        for step in steps {
            match step {
                Step::Register(conn, n) => world.say(conn, Command::Register(name(n))),
                Step::Join(conn, n) => world.say(conn, Command::Join(room(n))),
                Step::Enter(conn, n, at) => world.say(conn, Command::Enter(name(n), room(at))),
                Step::Call(conn, n) => world.say(conn, Command::Call(name(n))),
                Step::End(conn) => {
                    world.input(Input::Closed(ConnId(conn)));
                    world.input(Input::Opened(ConnId(conn), Owner(1)));
                }
                Step::Remove(n) => world.input(Input::Admin(Admin::Remove(name(n)))),
                Step::Close(n) => world.input(Input::Admin(Admin::Close(room(n)))),
                Step::Wait => {
                    world.now += Duration::from_secs(3);
                    let now = world.now;
                    world.hub.handle_timeout(now);
                    world.observe();
                }
            }
            std::mem::take(&mut world.all).iter().for_each(|one| portal.hear(one));
            let mut real = Portal::default();
            for peer in world.hub.names() {
                let place = match world.hub.presence(peer) {
                    Presence::Room(room) => Some(room.to_string()),
                    _ => None,
                };
                real.peers.insert(peer.to_string(), place);
            }
            real.rooms = world.hub.rooms().map(|(room, _)| room.to_string()).collect();
            prop_assert_eq!(&real.peers, &portal.peers);
            prop_assert_eq!(&real.rooms, &portal.rooms);
            prop_assert_eq!(world.hub.calls(), portal.calls.len());
        }
    }
}

#[test]
fn calls_in_vain_are_reported_at_a_limited_rate() {
    let mut world = World::new();
    world.register(1, "ann");
    world.events();
    for n in 0..1000 {
        world.say(1, Command::Call(format!("ghost{n}").parse().unwrap()));
    }
    assert_eq!(world.events().len(), VAIN.0 as usize);
    world.now += Duration::from_secs(3);
    for n in 0..1000 {
        world.say(1, Command::Call(format!("ghost{n}").parse().unwrap()));
    }
    assert_eq!(world.events().len(), 3);
}
