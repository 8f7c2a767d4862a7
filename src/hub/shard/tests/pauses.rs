//! Pauses: of the engine, of one server, and of the whole machine.

use super::super::model::Model;
use super::*;

fn attach(name: &str) -> Attach {
    Attach { node: NodeId(name.into()), old: None, epoch: None, is_rewound: false }
}

/// The last server beats late, again and again: the one that is dead ends nevertheless.
#[test]
fn a_dead_attachment_ends_although_beats_are_late() {
    for interval in [2_100, 3_500, 5_000] {
        let (mut model, mut now) = (Model::default(), 1_000_000);
        let epoch = model.attach(now, &attach("a")).epoch;
        model.attach(now, &attach("b"));
        let beat = |node: &str| Beat { node: NodeId(node.into()), epoch: epoch.clone(), op: 0, place: 0 };
        while now < 1_060_000 {
            now += interval;
            assert_eq!(model.beat(now, &beat("a")).0, Verdict::Taken);
        }
        assert_eq!(model.beat(now, &beat("b")).0, Verdict::Fenced, "beats every {interval} ms");
    }
}

/// The engine is away for some seconds: each server has time to return.
#[test]
fn an_attachment_survives_a_short_outage() {
    for outage in [4_000, 9_000, 20_000] {
        let (mut model, mut now) = (Model::default(), 1_000_000);
        let epoch = model.attach(now, &attach("a")).epoch;
        model.attach(now, &attach("b"));
        let beat = |node: &str| Beat { node: NodeId(node.into()), epoch: epoch.clone(), op: 0, place: 0 };
        now += 2_000;
        model.beat(now, &beat("a"));
        now += outage;
        // A returns at once. The beat of B was due, and B connects after the longest pause.
        (0..2).for_each(|n| drop(model.beat(now + n * 2_000, &beat("a"))));
        assert_eq!(model.beat(now + 4_000, &beat("b")).0, Verdict::Taken, "an outage of {outage} ms");
    }
}

/// The engine has lost its data, one server has attached again, and the whole machine pauses: nobody is closed afterwards, and
/// a newcomer meets everybody.
#[test]
fn a_new_epoch_waits_for_all_servers_after_a_pause_of_the_machine() {
    for seconds in [1, 5, 30] {
        let mut world = World::new(2);
        let (ann, bob) = (world.hello(0, "ann"), world.hello(1, "bob"));
        world.settle();
        world.join(ann, "attic");
        world.join(bob, "attic");
        world.settle();
        world.wait(4);
        world.flush();
        while world.execute(0) | world.answer(0) {}
        (0..2).for_each(|server| world.pause(server, seconds));
        world.pass(Duration::from_secs(seconds));
        let cat = world.hello(0, "cat");
        // The server that was first goes on before the other one is heard.
        while world.execute(0) | world.answer(0) | world.read(0) {}
        world.wait(6);
        world.join(cat, "attic");
        world.settle();
        assert!(world.clients.iter().all(|client| client.closed.is_none()), "after {seconds} s");
        assert_eq!(world.clients[cat].room.as_ref().map(|(_, peers)| peers.len()), Some(2));
        world.check();
    }
}
