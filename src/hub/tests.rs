use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn id(text: &str) -> PeerId {
    text.parse().unwrap()
}

struct Bench {
    hub: Hub,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self { hub: Hub::new(Limits::default()), now: Instant::now() }
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        self.hub.handle_input(self.now, input);
        std::iter::from_fn(|| self.hub.poll_output()).collect()
    }

    fn say(&mut self, conn: u64, command: Command) -> Vec<Output> {
        self.input(Input::Command(ConnId(conn), command))
    }

    fn registered(names: &[&str]) -> Self {
        let mut bench = Self::new();
        for (i, name) in (1..).zip(names) {
            bench.input(Input::Opened(ConnId(i), Owner((i % 2).into())));
            assert_eq!(bench.say(i, Command::Register(id(name))), [notify(i, Notice::Registered)]);
        }
        bench
    }
}

fn notify(conn: u64, notice: Notice) -> Output {
    Output::Notify(ConnId(conn), notice)
}

fn refused(conn: u64, refusal: Refusal) -> Vec<Output> {
    vec![notify(conn, Notice::Refused(refusal))]
}

#[test]
fn a_call_relays_both_ways_and_ends_with_either() {
    let mut bench = Bench::registered(&["ann", "bob", "cat"]);
    let started = bench.say(1, Command::Call(id("bob")));
    assert_eq!(started, [notify(2, Notice::CalledBy(id("ann"))), notify(1, Notice::CallStarted)]);
    assert_eq!(bench.say(2, Command::Relay("x".into())), [notify(1, Notice::Relayed("x".into()))]);
    assert_eq!(bench.say(1, Command::Relay("y".into())), [notify(2, Notice::Relayed("y".into()))]);
    assert_eq!(bench.say(3, Command::Call(id("ann"))), refused(3, Refusal::Busy(id("ann"))));
    assert_eq!(bench.say(3, Command::Call(id("cat"))), refused(3, Refusal::Busy(id("cat"))));
    assert_eq!(bench.say(3, Command::Call(id("dan"))), refused(3, Refusal::NotFound(id("dan"))));
    assert_eq!(bench.input(Input::Closed(ConnId(2))), [Output::Close(ConnId(1), Reason::CallOver)]);
    assert_eq!(bench.input(Input::Closed(ConnId(1))), []);
    assert_eq!(bench.hub.counts(), (1, 1, 0));
}

#[test]
fn a_room_reports_joins_and_leaves() {
    let mut bench = Bench::registered(&["ann", "bob", "cat"]);
    let room: RoomId = "attic".parse().unwrap();
    assert_eq!(bench.say(1, Command::Join(room.clone())), [notify(1, Notice::Joined(vec![]))]);
    let joined = bench.say(2, Command::Join(room.clone()));
    assert_eq!(
        joined,
        [notify(2, Notice::Joined(vec![id("ann")])), notify(1, Notice::PeerJoined(id("bob")))]
    );
    assert_eq!(bench.say(2, Command::ListRoom), [notify(2, Notice::RoomList(vec![id("ann")]))]);
    let body = || "hi".to_owned();
    let sent = bench.say(1, Command::Send { to: id("bob"), body: body() });
    assert_eq!(sent, [notify(2, Notice::From { from: id("ann"), body: body() })]);
    let sent = bench.say(1, Command::Send { to: id("cat"), body: body() });
    assert_eq!(sent, refused(1, Refusal::NotInRoom(id("cat"))));
    assert_eq!(bench.say(3, Command::Call(id("ann"))), refused(3, Refusal::Busy(id("ann"))));
    assert_eq!(bench.say(1, Command::Join(room)), refused(1, Refusal::InRoom));
    assert_eq!(bench.input(Input::Closed(ConnId(1))), [notify(2, Notice::PeerLeft(id("ann")))]);
    bench.input(Input::Closed(ConnId(2)));
    assert_eq!(bench.hub.counts(), (1, 1, 0), "an empty room is forgotten");
}

#[test]
fn a_name_is_refused_while_its_holder_is_alive() {
    let mut bench = Bench::registered(&["ann", "bob"]);
    bench.input(Input::Opened(ConnId(8), Owner(8 % 2)));
    assert_eq!(bench.say(8, Command::Register(id("ann"))), [Output::Probe(ConnId(1))]);
    assert_eq!(bench.input(Input::Alive(ConnId(1))), [Output::Close(ConnId(8), Reason::IdTaken)]);

    bench.input(Input::Opened(ConnId(9), Owner(9 % 2)));
    assert_eq!(bench.say(9, Command::Register(id("ann"))), [Output::Probe(ConnId(1))]);
    let deadline = bench.hub.poll_timeout().unwrap();
    bench.hub.handle_timeout(deadline);
    let outputs: Vec<Output> = std::iter::from_fn(|| bench.hub.poll_output()).collect();
    assert_eq!(outputs, [Output::Close(ConnId(1), Reason::Replaced), notify(9, Notice::Registered)]);
    assert_eq!(bench.hub.poll_timeout(), None);
    assert_eq!(bench.input(Input::Closed(ConnId(1))), [], "the old socket's end touches nobody");
    assert_eq!(bench.hub.counts(), (2, 2, 0));
}

#[test]
fn an_id_of_a_token_is_for_its_bearer_and_is_inherited_from_a_dead_holder() {
    let mut bench = Bench::registered(&["ann"]);
    let room: RoomId = "attic".parse().unwrap();
    let enter = |name: &str| Command::Enter(id(name), "attic".parse().unwrap());
    let open = |bench: &mut Bench, conn: u64, rooms: &[&str]| {
        bench.input(Input::Opened(ConnId(conn), Owner(1)));
        let names = rooms.iter().map(|room| room.parse().unwrap()).collect();
        let rooms = Some(Rooms { names, ..Rooms::default() });
        let grant = Grant { name: Some(id("ann")), rooms, calls: Calls::None, ..Grant::default() };
        bench.input(Input::Granted(ConnId(conn), grant));
    };
    open(&mut bench, 2, &["attic"]);
    assert_eq!(bench.say(2, enter("bob")), [Output::Close(ConnId(2), Reason::NotGranted)]);
    // A connection that may not join must not trigger a probe of the holder.
    open(&mut bench, 3, &["cellar"]);
    assert_eq!(bench.say(3, enter("ann")), refused(3, Refusal::NotGranted("this room")));
    // A living holder keeps its id, and the claimant may try again.
    open(&mut bench, 4, &["attic"]);
    assert_eq!(bench.say(4, enter("ann")), [Output::Probe(ConnId(1))]);
    assert_eq!(bench.input(Input::Alive(ConnId(1))), refused(4, Refusal::IdTaken));
    assert_eq!(bench.say(4, enter("ann")), [Output::Probe(ConnId(1))]);
    let deadline = bench.hub.poll_timeout().unwrap();
    bench.hub.handle_timeout(deadline);
    let outputs: Vec<Output> = std::iter::from_fn(|| bench.hub.poll_output()).collect();
    assert_eq!(outputs, [Output::Close(ConnId(1), Reason::Replaced), notify(4, Notice::Joined(vec![]))]);
    assert!(bench.hub.has_peer(&id("ann")) && bench.hub.has_room(&room));
}

#[test]
fn calls_are_allowed_only_where_both_permissions_name_the_other_peer() {
    let mut bench = Bench::registered(&["ann", "bob", "cat"]);
    let calls = Calls::Peers([id("bob"), id("nobody")].into());
    bench.input(Input::Granted(ConnId(1), Grant { calls, ..Grant::default() }));
    let list = |bench: &mut Bench, conn: u64| bench.say(conn, Command::ListPeers);
    assert_eq!(list(&mut bench, 1), [notify(1, Notice::PeerList(vec![id("bob")]))]);
    assert_eq!(list(&mut bench, 3), [notify(3, Notice::PeerList(vec![id("bob")]))]);
    // A peer outside the list is as good as absent, for both sides.
    assert_eq!(bench.say(1, Command::Call(id("cat"))), refused(1, Refusal::NotGranted("calls")));
    assert_eq!(bench.say(1, Command::Call(id("nobody"))), refused(1, Refusal::NotFound(id("nobody"))));
    assert_eq!(bench.say(3, Command::Call(id("ann"))), refused(3, Refusal::NotFound(id("ann"))));
    let called = [notify(1, Notice::CalledBy(id("bob"))), notify(2, Notice::CallStarted)];
    assert_eq!(bench.say(2, Command::Call(id("ann"))), called);
}

#[test]
fn a_message_reveals_only_peers_that_the_sender_may_call() {
    let mut bench = Bench::registered(&["ann", "bob", "cat"]);
    bench.input(Input::Granted(ConnId(3), Grant { calls: Calls::None, ..Grant::default() }));
    bench.say(1, Command::Join("attic".parse().unwrap()));
    let send = |name: &str| Command::Send { to: id(name), body: "hi".into() };
    assert_eq!(bench.say(1, send("bob")), refused(1, Refusal::NotInRoom(id("bob"))));
    for name in ["cat", "nobody"] {
        assert_eq!(bench.say(1, send(name)), refused(1, Refusal::NotFound(id(name))));
    }
}

#[test]
fn a_hidden_peer_is_in_no_list_and_can_be_called() {
    let mut bench = Bench::registered(&["ann", "bob"]);
    bench.input(Input::Granted(ConnId(1), Grant { is_hidden: true, ..Grant::default() }));
    assert_eq!(bench.say(2, Command::ListPeers), [notify(2, Notice::PeerList(vec![]))]);
    assert_eq!(bench.say(1, Command::ListPeers), [notify(1, Notice::PeerList(vec![id("bob")]))]);
    let called = [notify(1, Notice::CalledBy(id("bob"))), notify(2, Notice::CallStarted)];
    assert_eq!(bench.say(2, Command::Call(id("ann"))), called);
}

#[test]
fn a_peer_without_permission_to_create_rooms_joins_existing_rooms_that_its_token_names() {
    let mut bench = Bench::registered(&["ann", "bob"]);
    let rooms = Some(Rooms { prefixes: vec!["team-".to_owned()], ..Rooms::default() });
    let grant = Grant { rooms, creates_rooms: false, ..Grant::default() };
    bench.input(Input::Granted(ConnId(1), grant));
    let join = |name: &str| Command::Join(name.parse().unwrap());
    assert_eq!(bench.say(1, join("team-a")), refused(1, Refusal::NotGranted("a new room")));
    bench.say(2, join("team-a"));
    assert_eq!(bench.say(1, join("teams")), refused(1, Refusal::NotGranted("this room")));
    let joined = [notify(1, Notice::Joined(vec![id("bob")])), notify(2, Notice::PeerJoined(id("ann")))];
    assert_eq!(bench.say(1, join("team-a")), joined);
}

#[test]
fn a_connection_limited_to_rooms_lists_no_peers_elsewhere() {
    let mut bench = Bench::registered(&["ann", "bob", "cat"]);
    let rooms = Some(Rooms { names: ["attic".parse().unwrap()].into(), ..Rooms::default() });
    let grant = Grant { rooms, calls: Calls::None, ..Grant::default() };
    let granted = bench.input(Input::Granted(ConnId(1), grant));
    assert_eq!(granted, []);
    assert_eq!(bench.say(1, Command::ListPeers), [notify(1, Notice::PeerList(vec![]))]);
    assert_eq!(bench.say(2, Command::ListPeers), [notify(2, Notice::PeerList(vec![id("cat")]))]);
    for name in ["bob", "nobody"] {
        assert_eq!(bench.say(1, Command::Call(id(name))), refused(1, Refusal::NotGranted("calls")));
    }
    assert_eq!(bench.say(2, Command::Call(id("ann"))), refused(2, Refusal::NotFound(id("ann"))));
    bench.say(1, Command::Join("attic".parse().unwrap()));
    assert_eq!(bench.say(2, Command::Call(id("ann"))), refused(2, Refusal::NotFound(id("ann"))));
    for name in ["bob", "nobody"] {
        let send = Command::Send { to: id(name), body: "hi".into() };
        assert_eq!(bench.say(1, send), refused(1, Refusal::NotInRoom(id(name))));
    }
}

#[test]
fn a_full_room_and_too_many_rooms_are_refused() {
    let mut bench = Bench::registered(&["ann", "bob"]);
    bench.hub.limits = Limits { rooms: 1, room_size: 1, ..Limits::default() };
    let room = |name: &str| -> RoomId { name.parse().unwrap() };
    bench.say(1, Command::Join(room("attic")));
    bench.hub.limits.rooms_per_owner = 1;
    assert_eq!(bench.say(2, Command::Join(room("attic"))), refused(2, Refusal::RoomFull(room("attic"))));
    assert_eq!(bench.say(2, Command::Join(room("yard"))), refused(2, Refusal::TooManyRooms));
}

#[test]
fn a_moderator_removes_members_of_its_rooms_alone_and_asks_them_to_mute() {
    let mut bench = Bench::registered(&["ann", "bob", "cat", "dan"]);
    let room = |name: &str| -> RoomId { name.parse().unwrap() };
    let moderates = Moderates::Rooms([room("attic")].into());
    bench.input(Input::Granted(ConnId(1), Grant { moderates, ..Grant::default() }));
    let joined = bench.say(1, Command::Join(room("attic")));
    assert_eq!(joined, [notify(1, Notice::Joined(vec![])), notify(1, Notice::Moderator)]);
    bench.say(2, Command::Join(room("attic")));
    bench.say(3, Command::Join(room("attic")));
    bench.say(4, Command::Join(room("cellar")));
    let remove = |name: &str| Command::Moderate(id(name), Measure::Remove);
    let mute = |name: &str| Command::Moderate(id(name), Measure::Mute(MediaKind::Video));
    let asked = notify(2, Notice::MuteRequested(MediaKind::Video, Some(id("ann"))));
    assert_eq!(bench.say(1, mute("bob")), [asked]);
    // No other member moderates, and neither strangers nor the moderator itself can be meant.
    for order in [remove("ann"), mute("ann"), remove("nobody")] {
        assert_eq!(bench.say(2, order), refused(2, Refusal::NotGranted("moderation of this room")));
    }
    for name in ["dan", "nobody", "ann"] {
        assert_eq!(bench.say(1, remove(name)), refused(1, Refusal::NotInRoom(id(name))));
        assert_eq!(bench.say(1, mute(name)), refused(1, Refusal::NotInRoom(id(name))));
    }
    let left = |conn: u64| notify(conn, Notice::PeerLeft(id("bob")));
    let removed = Output::Close(ConnId(2), Reason::RemovedByModerator);
    assert_eq!(bench.say(1, remove("bob")), [removed, left(1), left(3)]);
    assert!(!bench.hub.has_peer(&id("bob")));
    // In another room the moderator is a member like any other, and in none an order is out of place.
    bench.input(Input::Opened(ConnId(5), Owner(1)));
    let moderates = Moderates::Rooms([room("attic")].into());
    bench.input(Input::Granted(ConnId(5), Grant { moderates, ..Grant::default() }));
    bench.say(5, Command::Register(id("eve")));
    assert_eq!(bench.say(5, remove("cat")), refused(5, Refusal::Outside));
    assert_eq!(bench.say(5, Command::Join(room("cellar"))).len(), 2, "no moderator there");
    assert_eq!(bench.say(5, remove("dan")), refused(5, Refusal::NotGranted("moderation of this room")));
    // The next token may make the member a moderator, who hears of it once.
    let all = || Input::Granted(ConnId(5), Grant { moderates: Moderates::All, ..Grant::default() });
    assert_eq!(bench.input(all()), [notify(5, Notice::Moderator)]);
    assert!(bench.input(all()).is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Open,
    Close(usize),
    Alive(usize),
    Late(usize),
    Wait,
    Say(usize, Command),
    Admin(Admin),
}

fn step() -> impl Strategy<Value = Step> {
    let name = || (0..6_u8).prop_map(|n| id(&format!("p{n}")));
    let room = || (0..3_u8).prop_map(|n| format!("r{n}").parse::<RoomId>().unwrap());
    let command = prop_oneof![
        4 => name().prop_map(Command::Register),
        2 => name().prop_map(Command::Call),
        3 => room().prop_map(Command::Join),
        2 => (name(), room()).prop_map(|(name, room)| Command::Enter(name, room)),
        1 => name().prop_map(|to| Command::Send { to, body: "b".into() }),
        1 => name().prop_map(|peer| Command::Moderate(peer, Measure::Remove)),
        1 => name().prop_map(|peer| Command::Moderate(peer, Measure::Mute(MediaKind::Audio))),
        1 => Just(Command::Relay("r".into())),
        1 => Just(Command::ListRoom),
        1 => Just(Command::ListPeers),
    ];
    let admin = prop_oneof![
        2 => name().prop_map(|peer| Admin::Describe(peer, "d".into())),
        1 => name().prop_map(Admin::Remove),
        1 => room().prop_map(Admin::Close),
    ];
    prop_oneof![
        1 => admin.prop_map(Step::Admin),
        3 => Just(Step::Open),
        2 => any::<usize>().prop_map(Step::Close),
        1 => any::<usize>().prop_map(Step::Alive),
        1 => any::<usize>().prop_map(Step::Late),
        1 => Just(Step::Wait),
        12 => (any::<usize>(), command).prop_map(|(conn, command)| Step::Say(conn, command)),
    ]
}

#[test]
fn an_assigned_name_cannot_be_claimed() {
    let mut bench = Bench::new();
    let room: RoomId = "attic".parse().unwrap();
    bench.input(Input::Opened(ConnId(1), Owner(1)));
    bench.say(1, Command::Enter(id("made"), room));
    bench.input(Input::Opened(ConnId(2), Owner(1)));
    assert_eq!(bench.say(2, Command::Register(id("made"))), [Output::Close(ConnId(2), Reason::IdTaken)]);
    assert_eq!(bench.hub.poll_timeout(), None, "its holder is not asked");
}

#[test]
fn a_probe_waits_for_a_late_answer() {
    let mut bench = Bench::registered(&["ann"]);
    bench.input(Input::Opened(ConnId(2), Owner(1)));
    assert_eq!(bench.say(2, Command::Register(id("ann"))), [Output::Probe(ConnId(1))]);
    for _ in 0..3 {
        bench.now += Limits::default().probe;
        assert_eq!(bench.hub.overdue(bench.now), [ConnId(1)]);
        bench.input(Input::Late(ConnId(1)));
        assert_eq!(bench.hub.overdue(bench.now), []);
    }
    assert!(bench.hub.is_probed(ConnId(1)));
    assert_eq!(bench.input(Input::Alive(ConnId(1))), [Output::Close(ConnId(2), Reason::IdTaken)]);
    assert!(!bench.hub.is_probed(ConnId(1)));
}

/// The state of a client according to its notices.
#[derive(Debug, Default)]
struct View {
    room: Option<BTreeSet<PeerId>>,
    in_call: bool,
}

proptest! {
    /// Any interleaving of messages and disconnects leaves no ghost and no half-session, and every member of a room is
    /// notified of every join and leave once, in order.
    #[test]
    fn no_ghosts(steps in prop::collection::vec(step(), 0..120)) {
        let mut bench = Bench::new();
        let mut open: BTreeMap<ConnId, View> = BTreeMap::new();
        let mut next = 0;
        let pick = |open: &BTreeMap<ConnId, View>, n: usize| open.keys().nth(n % open.len().max(1)).copied();
        for step in steps {
            let outputs = match step {
                Step::Open => {
                    next += 1;
                    open.insert(ConnId(next), View::default());
                    let opened = bench.input(Input::Opened(ConnId(next), Owner((next % 2).into())));
                    let moderates = if next % 3 == 0 { Moderates::All } else { Moderates::None };
                    bench.input(Input::Granted(ConnId(next), Grant { moderates, ..Grant::default() }));
                    opened
                }
                Step::Close(n) => {
                    let Some(conn) = pick(&open, n) else { continue };
                    open.remove(&conn);
                    bench.input(Input::Closed(conn))
                }
                Step::Alive(n) => {
                    let Some(conn) = pick(&open, n) else { continue };
                    bench.input(Input::Alive(conn))
                }
                Step::Late(n) => {
                    let Some(conn) = pick(&open, n) else { continue };
                    bench.input(Input::Late(conn))
                }
                Step::Wait => {
                    bench.now += Limits::default().probe;
                    bench.hub.handle_timeout(bench.now);
                    std::iter::from_fn(|| bench.hub.poll_output()).collect()
                }
                Step::Admin(admin) => bench.input(Input::Admin(admin)),
                Step::Say(n, command) => {
                    let Some(conn) = pick(&open, n) else { continue };
                    bench.say(conn.0, command)
                }
            };
            for output in outputs {
                match output {
                    Output::Probe(conn) => prop_assert!(open.contains_key(&conn)),
                    Output::Close(conn, _) => prop_assert!(open.remove(&conn).is_some(), "closed twice"),
                    Output::Notify(conn, notice) => {
                        let view = open.get_mut(&conn).expect("only open connections are notified");
                        match notice {
                            Notice::Joined(peers) => {
                                let peers: BTreeSet<PeerId> = peers.into_iter().collect();
                                prop_assert!(view.room.replace(peers).is_none());
                            }
                            Notice::PeerJoined(peer) => {
                                prop_assert!(view.room.as_mut().unwrap().insert(peer), "a peer joined twice");
                            }
                            Notice::PeerLeft(peer) => {
                                prop_assert!(view.room.as_mut().unwrap().remove(&peer), "left twice");
                            }
                            Notice::RoomList(peers) => {
                                let peers: BTreeSet<PeerId> = peers.into_iter().collect();
                                prop_assert_eq!(Some(&peers), view.room.as_ref());
                            }
                            Notice::CallStarted | Notice::CalledBy(_) => {
                                prop_assert!(!std::mem::replace(&mut view.in_call, true));
                            }
                            Notice::Relayed(_) => prop_assert!(view.in_call),
                            Notice::From { from, .. } => {
                                prop_assert!(view.room.as_ref().unwrap().contains(&from));
                            }
                            Notice::Described(peer, _) => {
                                prop_assert!(view.room.as_ref().unwrap().contains(&peer));
                            }
                            Notice::Moderator => prop_assert!(view.room.is_some()),
                            Notice::MuteRequested(_, by) => {
                                prop_assert!(view.room.as_ref().unwrap().contains(&by.unwrap()));
                            }
                            Notice::Stopped => prop_assert!(view.room.take().is_some()),
                            Notice::Registered | Notice::PeerList(_) | Notice::Refused(_) => {}
                        }
                    }
                }
            }
            check(&bench.hub, &open)?;
        }
        for conn in open.into_keys().collect::<Vec<_>>() {
            bench.input(Input::Closed(conn));
        }
        prop_assert_eq!(bench.hub.counts(), (0, 0, 0));
        prop_assert!(bench.hub.probes.is_empty());
    }
}

fn check(hub: &Hub, open: &BTreeMap<ConnId, View>) -> Result<(), TestCaseError> {
    prop_assert_eq!(hub.conns.len(), open.len());
    for (name, conn) in &hub.names {
        prop_assert_eq!(hub.conns[conn].name.as_ref(), Some(name));
    }
    for (conn, state) in &hub.conns {
        let view = &open[conn];
        match &state.state {
            State::Unregistered => prop_assert!(state.name.is_none()),
            State::Idle => prop_assert!(state.name.is_some()),
            State::Call(other) => {
                prop_assert!(view.in_call);
                prop_assert_eq!(&hub.conns[other].state, &State::Call(*conn));
            }
            State::Room(room) => {
                let others: BTreeSet<PeerId> = hub.others(room, *conn).into_iter().collect();
                prop_assert_eq!(view.room.as_ref(), Some(&others), "the notices match the state");
            }
        }
    }
    let made: usize = hub.rooms_by_owner.values().sum();
    prop_assert_eq!(made, hub.rooms.len());
    for room in hub.rooms.values() {
        prop_assert!(!room.members.is_empty());
    }
    for (holder, (_, waiting)) in &hub.probes {
        prop_assert!(hub.conns[holder].name.is_some() && !waiting.is_empty());
        prop_assert!(waiting.iter().all(|claim| hub.conns[&claim.conn].state == State::Unregistered));
    }
    Ok(())
}
