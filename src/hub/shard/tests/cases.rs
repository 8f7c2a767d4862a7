//! Interleavings that endanger shards, one by one.

use super::*;

fn id(text: &str) -> PeerId {
    text.parse().unwrap()
}

#[test]
fn peers_of_two_shards_call_each_other() {
    let mut world = World::new(2);
    let (ann, bob) = (world.hello(0, "ann"), world.hello(1, "bob"));
    world.settle();
    world.say(ann, Command::ListPeers);
    world.settle();
    assert_eq!(world.clients[ann].listed, Some(vec![id("bob")]));
    world.say(ann, Command::Call(id("bob")));
    world.settle();
    assert_eq!(world.clients[bob].called_by, Some(id("ann")));
    assert!(world.clients[ann].in_call);
    let (there, back) = (world.text(ann, None), world.text(bob, None));
    world.settle();
    assert_eq!((&world.clients[bob].received, &world.clients[ann].received), (&vec![there], &vec![back]));
    world.close(ann);
    world.settle();
    assert_eq!(world.clients[bob].closed, Some(Reason::CallOver));
    world.check();
}

#[test]
fn peers_of_three_shards_meet_in_a_room() {
    let mut world = World::new(3);
    let all: Vec<usize> = (0..3).map(|n| world.hello(n, &format!("p{}", [0, 1, 3][n]))).collect();
    world.settle();
    for client in &all {
        world.join(*client, "attic");
        world.settle();
    }
    world.check();
    let text = world.text(all[0], Some(&id("p3")));
    world.settle();
    assert_eq!(world.clients[all[2]].received, [text]);
    world.close(all[1]);
    world.settle();
    world.check();
    world.text(all[0], Some(&id("p1")));
    world.settle();
    assert_eq!(world.clients[all[0]].refused, [Refusal::NotFound(id("p1"))]);
}

#[test]
fn a_moderator_removes_and_mutes_members_of_another_shard() {
    let mut world = World::new(2);
    let (ann, bob) = (world.hello(0, "ann"), world.hello(1, "bob"));
    let moderates = crate::hub::Moderates::All;
    let grant = crate::hub::Grant { moderates, ..crate::hub::Grant::default() };
    world.input(0, Input::Granted(world.clients[ann].conn, grant));
    world.settle();
    world.join(ann, "attic");
    world.join(bob, "attic");
    world.settle();
    world.say(ann, Command::Moderate(id("bob"), Measure::Mute(crate::protocol::hello::MediaKind::Audio)));
    world.settle();
    assert_eq!(world.clients[bob].muted_by, Some(id("ann")));
    world.say(bob, Command::Moderate(id("ann"), Measure::Remove));
    assert_eq!(world.clients[bob].refused, [Refusal::NotGranted("moderation of this room")]);
    world.say(ann, Command::Moderate(id("bob"), Measure::Remove));
    world.settle();
    assert_eq!(world.clients[bob].closed, Some(Reason::RemovedByModerator));
    world.check();
}

/// Two shards read that a name is free; one claims it first.
#[test]
fn of_two_shards_one_gets_a_name() {
    let mut world = World::new(2);
    let (one, two) = (world.hello(0, "ann"), world.hello(1, "ann"));
    world.settle();
    assert!(world.clients[one].is_registered);
    assert_eq!(world.clients[two].closed, Some(Reason::IdTaken), "the holder is alive");
    world.clients[one].is_alive = false;
    let three = world.hello(1, "ann");
    world.wait(4);
    assert_eq!(world.clients[one].closed, Some(Reason::Replaced));
    assert!(world.clients[three].is_registered);
    world.check();
}

/// Two peers of two shards call each other at once: one call begins.
#[test]
fn crossing_calls_become_one() {
    let mut world = World::new(2);
    let (ann, bob) = (world.hello(0, "ann"), world.hello(1, "bob"));
    world.settle();
    world.say(ann, Command::Call(id("bob")));
    world.say(bob, Command::Call(id("ann")));
    world.settle();
    let called = [ann, bob].into_iter().filter(|client| world.clients[*client].called_by.is_some()).count();
    assert_eq!(called, 1);
    assert!(world.clients[ann].in_call && world.clients[bob].in_call);
    assert_eq!(world.clients[ann].refused.len() + world.clients[bob].refused.len(), 1);
}

/// The connection breaks while a transaction is under way: it is executed once, whether it had arrived or not.
#[test]
fn a_transaction_is_executed_once_over_a_broken_connection() {
    for has_arrived in [false, true] {
        let mut world = World::new(2);
        let ann = world.hello(0, "ann");
        if has_arrived {
            assert!(world.execute(0));
        }
        world.cut(0);
        world.settle();
        assert!(world.clients[ann].is_registered && world.clients[ann].closed.is_none());
        world.check();
    }
}

/// A room empties and is made again: its version does not begin anew.
#[test]
fn a_room_that_is_made_again_is_newer() {
    let mut world = World::new(2);
    let ann = world.hello(0, "ann");
    world.join(ann, "attic");
    world.settle();
    world.close(ann);
    let (bob, cat) = (world.hello(1, "bob"), world.hello(0, "cat"));
    world.settle();
    world.join(bob, "attic");
    world.join(cat, "attic");
    world.settle();
    world.check();
    assert_eq!(world.clients[bob].room.as_ref().map(|(_, view)| view.len()), Some(1));
}

/// A node dies: its peers leave within the time to live and a few beats, and their names can be had at once.
#[test]
fn peers_of_a_dead_shard_leave_and_their_names_are_free() {
    let mut world = World::new(3);
    let (ann, bob) = (world.hello(0, "ann"), world.hello(1, "bob"));
    world.settle();
    world.join(ann, "attic");
    world.join(bob, "attic");
    world.settle();
    world.kill(0);
    let again = world.hello(2, "ann");
    world.wait(4);
    assert!(world.clients[again].is_registered, "the dead holder gives no sign of life");
    world.wait(14);
    world.check();
}

/// A shard pauses for longer than the time to live: its peers are closed, and nobody is left behind.
#[test]
fn a_shard_that_slept_closes_the_peers_that_others_count_as_gone() {
    let mut world = World::new(2);
    let (ann, bob) = (world.hello(0, "ann"), world.hello(1, "bob"));
    world.settle();
    world.join(ann, "attic");
    world.join(bob, "attic");
    world.settle();
    world.pause(0, 20);
    world.wait(18);
    assert_eq!(world.clients[bob].room.as_ref().map(|(_, view)| view.len()), Some(0));
    world.wait(10);
    assert_eq!(world.clients[ann].closed, Some(Reason::Expired));
    world.check();
}

/// The request that is under way when the engine goes is refused in time, and the connection is read on.
#[test]
fn a_request_that_is_under_way_when_the_engine_goes_is_refused_in_time() {
    let mut world = World::new(2);
    let (ann, bob) = (world.hello(0, "ann"), world.hello(1, "bob"));
    world.settle();
    world.join(bob, "attic");
    world.settle();
    world.is_engine_up = false;
    world.join(ann, "attic");
    let conn = world.clients[ann].conn;
    assert!(world.servers[0].shard.is_asking(conn));
    world.wait(6);
    assert_eq!(world.clients[ann].refused, [Refusal::Unavailable]);
    assert!(!world.servers[0].shard.is_asking(conn));
    world.is_engine_up = true;
    world.wait(10);
    world.check();
    world.join(ann, "attic");
    world.settle();
    assert!(world.clients[ann].room.is_some());
    world.check();
}

/// The engine is away, and comes back empty: no connection is closed, no member hears anything, and newcomers wait.
#[test]
fn an_engine_that_restarts_empty_changes_nothing() {
    let mut world = World::new(3);
    let all: Vec<usize> = (0..3).map(|n| world.hello(n, ["ann", "bob", "cat"][n])).collect();
    let (dan, eve) = (world.hello(0, "dan"), world.hello(1, "eve"));
    world.settle();
    all.iter().for_each(|client| world.join(*client, "attic"));
    world.say(dan, Command::Call(id("eve")));
    world.settle();
    let heard: Vec<usize> = all.iter().map(|client| world.clients[*client].heard.len()).collect();
    world.is_engine_up = false;
    world.wait(60);
    let late = world.hello(2, "fay");
    world.wait(6);
    assert_eq!(world.clients[late].closed, Some(Reason::Unavailable), "a newcomer is not left waiting");
    world.is_engine_up = true;
    world.flush();
    world.wait(10);
    world.check();
    assert!(all.iter().chain([&dan, &eve]).all(|client| world.clients[*client].closed.is_none()));
    let after: Vec<usize> = all.iter().map(|client| world.clients[*client].heard.len()).collect();
    assert_eq!(heard, after);
    let text = world.text(dan, None);
    world.settle();
    assert_eq!(world.clients[eve].received, [text]);
}

/// The engine is away: the texts that wait for it have a bound, and those that fit arrive later, in order.
#[test]
fn texts_that_wait_for_the_engine_have_a_bound() {
    let mut world = World::new(2);
    let (ann, bob) = (world.hello(0, "ann"), world.hello(1, "bob"));
    world.settle();
    world.say(ann, Command::Call(id("bob")));
    world.settle();
    let server = world.clients[ann].server;
    let shard = &mut world.servers[server].shard;
    let conn = world.clients[ann].conn;
    for n in 1..=100 {
        let body = format!("{}{n}", "0".repeat(200_000));
        shard.handle_input(world.now, Input::Command(conn, Command::Relay(body)));
    }
    let dropped = shard.dropped();
    world.pass(Duration::from_millis(1));
    assert!((55..65).contains(&dropped), "{dropped} of 100 texts of 200 kB");
    world.settle();
    assert_eq!(world.clients[bob].received.len() as u64, 100 - dropped);
    world.texts = 100;
    let text = world.text(ann, None);
    world.settle();
    assert_eq!(world.clients[bob].received.last(), Some(&text), "there is space again");
}

/// The connection to the engine breaks while a name's holder is asked for a sign of life: the question arrives all the same,
/// and the holder keeps its name.
#[test]
fn a_question_to_a_holder_survives_a_broken_connection() {
    for reads in 0..3 {
        let mut world = World::new(2);
        let ann = world.hello(0, "ann");
        world.settle();
        let second = world.hello(1, "ann");
        for _ in 0..reads {
            assert!(world.execute(1) && world.answer(1));
            world.read(1);
        }
        world.cut(1);
        world.cut(0);
        world.wait(6);
        assert_eq!(world.clients[second].closed, Some(Reason::IdTaken));
        assert!(world.clients[ann].closed.is_none());
        world.check();
    }
}

/// The engine is away while a name's holder is asked for a sign of life: the claim is refused in time, and the holder, whose
/// answer could not arrive, keeps its name.
#[test]
fn a_holder_keeps_its_name_while_the_engine_is_away() {
    for reads in 1..4 {
        let mut world = World::new(2);
        let ann = world.hello(0, "ann");
        world.settle();
        let second = world.hello(1, "ann");
        for _ in 0..reads {
            if world.execute(1) {
                assert!(world.answer(1));
                world.read(1);
            }
        }
        world.is_engine_up = false;
        world.wait(9);
        assert_eq!(world.clients[second].closed, Some(Reason::Unavailable));
        world.is_engine_up = true;
        world.wait(6);
        assert!(world.clients[ann].closed.is_none(), "after {reads} reads");
        world.check();
    }
}

/// The engine has no memory: newcomers are refused, and those who are there go on.
#[test]
fn a_full_engine_accepts_no_newcomers() {
    let mut world = World::new(2);
    let (ann, bob) = (world.hello(0, "ann"), world.hello(1, "bob"));
    world.settle();
    world.servers[0].shard.handle_engine(world.now, FromEngine::Full(true));
    let late = world.hello(0, "cat");
    assert_eq!(world.clients[late].closed, Some(Reason::Unavailable));
    world.join(ann, "attic");
    world.join(bob, "attic");
    world.settle();
    world.close(bob);
    world.settle();
    world.check();
    world.servers[0].shard.handle_engine(world.now, FromEngine::Full(false));
    let cat = world.hello(0, "cat");
    world.settle();
    assert!(world.clients[cat].is_registered);
    world.check();
}

/// The engine is away: the orders that wait for it have a bound, and further ones are refused.
#[test]
fn orders_that_wait_for_the_engine_have_a_bound() {
    let mut world = World::new(2);
    let (ann, bob) = (world.hello(0, "ann"), world.hello(1, "bob"));
    let grant = crate::hub::Grant { moderates: crate::hub::Moderates::All, ..crate::hub::Grant::default() };
    world.input(0, Input::Granted(world.clients[ann].conn, grant));
    world.settle();
    world.join(ann, "attic");
    world.join(bob, "attic");
    world.settle();
    world.is_engine_up = false;
    let order = || Input::Admin(Admin::Mute(id("bob"), crate::protocol::hello::MediaKind::Audio));
    let given = (0..5_000).take_while(|_| {
        let takes = world.servers[0].shard.takes_orders();
        world.input(0, order());
        takes
    });
    assert!((1_000..1_010).contains(&given.count()));
    world.say(ann, Command::Moderate(id("bob"), Measure::Remove));
    assert_eq!(world.clients[ann].refused, [Refusal::Unavailable]);
    world.is_engine_up = true;
    while world.execute(0) | world.answer(0) | world.read(0) | world.read(1) {}
    assert!(world.servers[0].shard.takes_orders(), "there is space again");
    assert!(world.clients[bob].closed.is_none());
}

/// The permissions of a peer change with its next token: other shards list it and let it be called by the new ones, also in a
/// room, and after the engine was away.
#[test]
fn renewed_permissions_reach_other_shards() {
    use crate::hub::{Calls, Grant};
    let mut world = World::new(2);
    let (ann, bob) = (world.hello(0, "ann"), world.hello(1, "bob"));
    world.settle();
    let renew = |world: &mut World, grant: Grant| {
        let conn = world.clients[bob].conn;
        world.input(1, Input::Granted(conn, grant));
    };
    let list = |world: &mut World| {
        world.say(ann, Command::ListPeers);
        world.settle();
        world.clients[ann].listed.take().unwrap()
    };
    renew(&mut world, Grant { is_hidden: true, ..Grant::default() });
    world.settle();
    assert_eq!(list(&mut world), []);
    world.is_engine_up = false;
    renew(&mut world, Grant { calls: Calls::Peers([id("cat")].into()), ..Grant::default() });
    renew(&mut world, Grant { calls: Calls::Peers([id("dan")].into()), ..Grant::default() });
    world.wait(6);
    world.is_engine_up = true;
    world.wait(4);
    assert_eq!(list(&mut world), []);
    world.say(ann, Command::Call(id("bob")));
    world.settle();
    assert_eq!(world.clients[ann].refused, [Refusal::NotFound(id("bob"))]);
    let dan = world.hello(0, "dan");
    world.settle();
    world.join(ann, "attic");
    world.join(bob, "attic");
    world.settle();
    world.join(dan, "attic");
    world.settle();
    let shown = |world: &World| world.servers[0].shard.hub().shows(world.clients[ann].conn, &id("bob"));
    assert!(!shown(&world));
    renew(&mut world, Grant::default());
    world.settle();
    assert!(shown(&world));
    renew(&mut world, Grant { is_hidden: true, ..Grant::default() });
    world.settle();
    assert!(!shown(&world));
    renew(&mut world, Grant::default());
    world.settle();
    assert!(shown(&world));
    world.close(dan);
    world.settle();
    world.check();
}

/// A shard reads where peers of others are; a connection sees those whose permissions allow it.
#[test]
fn a_shard_sees_the_peers_of_others() {
    use crate::hub::{Calls, Grant};
    let mut world = World::new(2);
    let (ann, bob) = (world.hello(0, "ann"), world.hello(1, "bob"));
    world.settle();
    let look = |world: &mut World| {
        let shard = &mut world.servers[0].shard;
        shard.look(world.now, [id("bob"), id("cat")].into());
        shard.look(world.now, [id("dan")].into());
        world.pass(Duration::from_millis(1));
        world.settle();
        let shard = &mut world.servers[0].shard;
        assert_eq!([(); 3].map(|()| shard.poll_looked()), [Some(id("bob")), Some(id("cat")), None]);
        assert_eq!(shard.sees(world.clients[ann].conn, &id("cat")), None);
        shard.sees(world.clients[ann].conn, &id("bob"))
    };
    assert_eq!(look(&mut world), Some(true));
    world.join(bob, "attic");
    world.settle();
    assert_eq!(look(&mut world), Some(false));
    for grant in
        [Grant { is_hidden: true, ..Grant::default() }, Grant { calls: Calls::None, ..Grant::default() }]
    {
        let conn = world.clients[bob].conn;
        world.input(1, Input::Granted(conn, grant));
        world.settle();
        assert_eq!(look(&mut world), None, "the peer may not be seen");
        world.input(1, Input::Granted(conn, Grant::default()));
        world.settle();
        assert_eq!(look(&mut world), Some(false));
    }
    world.close(bob);
    world.settle();
    assert_eq!(look(&mut world), None);
}

/// A failover loses a registration; another shard registers the name: the first holder is closed, once.
#[test]
fn of_two_holders_after_a_failover_one_is_closed() {
    let mut world = World::new(2);
    let bob = world.hello(1, "bob");
    world.settle();
    let ann = world.hello(0, "ann");
    assert!(world.execute(0));
    assert!(world.answer(0) && world.read(0));
    assert!(world.clients[ann].is_registered);
    world.rewind(1);
    let other = world.hello(1, "ann");
    world.wait(40);
    world.check();
    assert!(world.clients[ann].closed.is_some() != world.clients[other].closed.is_some());
    assert!(world.clients[bob].closed.is_none());
}

/// After a failover a join is executed, and its outcome is lost with the attachment: the connection does not enter by the
/// record that it left, but by the join that follows, so that all members hear of it.
#[test]
fn a_join_whose_outcome_is_lost_is_made_again_and_heard_by_all() {
    let mut world = World::new(2);
    let (ann, bob, cat, dan) =
        (world.hello(0, "ann"), world.hello(1, "bob"), world.hello(1, "cat"), world.hello(0, "dan"));
    world.settle();
    world.join(ann, "attic");
    world.join(bob, "attic");
    world.settle();
    world.join(dan, "attic");
    assert!(world.execute(0) && world.answer(0) && world.read(0));
    // Conflicts with dan's join, which the failover then takes back.
    world.join(cat, "attic");
    assert!(world.read(1) && world.execute(1));
    world.rewind(2);
    world.wait(20);
    world.check();
    assert_eq!(world.clients[cat].refused, []);
    assert_eq!(world.clients[ann].room.as_ref().map(|(_, view)| view.len()), Some(3));
}

/// A failover takes back a join, and the member is called before its shard asserts it: the assertion reads the room and the
/// caller together.
#[test]
fn a_member_that_is_called_after_a_failover_is_asserted() {
    let mut world = World::new(2);
    let (ann, bob) = (world.hello(1, "ann"), world.hello(0, "bob"));
    world.settle();
    world.join(ann, "attic");
    assert!(world.execute(1) && world.answer(1) && world.read(1));
    world.say(bob, Command::Call(id("ann")));
    assert!(world.execute(0));
    // Notices the failover after the call has been made again.
    world.hello(1, "cat");
    world.rewind(2);
    world.wait(20);
    world.check();
    assert!(world.clients[ann].room.is_some() && world.clients[ann].closed.is_none());
}

/// A peer that was told that the engine is away does not join later, after its shard has attached again.
#[test]
fn a_refused_join_is_not_made_again_after_a_new_attachment() {
    let mut world = World::new(2);
    let ann = world.hello(0, "ann");
    world.settle();
    world.is_engine_up = false;
    world.join(ann, "attic");
    world.wait(6);
    assert_eq!(world.clients[ann].refused, [Refusal::Unavailable]);
    world.is_engine_up = true;
    world.flush();
    world.wait(20);
    assert!(world.clients[ann].room.is_none() && world.clients[ann].closed.is_none());
    world.check();
}

/// The engine's clock jumps by an hour, either way: nobody is counted as dead for that.
#[test]
fn a_clock_that_jumps_ends_nobody() {
    for skew in [-3_600_000, 3_600_000] {
        let mut world = World::new(2);
        let (ann, bob) = (world.hello(0, "ann"), world.hello(1, "bob"));
        world.wait(4);
        world.skew = skew;
        world.wait(30);
        assert!(world.clients[ann].closed.is_none() && world.clients[bob].closed.is_none());
        world.check();
    }
}
