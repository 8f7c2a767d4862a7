//! Claims for names whose holders answer late.

use super::*;

/// Returns a world with a silent holder of a name at server 0, and a client at server 1 that claims the name.
fn claimed() -> (World, usize, usize) {
    let mut world = World::new(2);
    let holder = world.hello(0, "ann");
    world.settle();
    world.clients[holder].is_alive = false;
    let claimant = world.hello(1, "ann");
    world.settle();
    (world, holder, claimant)
}

#[test]
fn a_holder_that_gets_more_time_is_not_removed() {
    let (mut world, holder, claimant) = claimed();
    let conn = world.clients[holder].conn;
    world.pass(Duration::from_millis(1_500));
    world.input(0, Input::Late(conn));
    world.pass(Duration::from_millis(1_500));
    // The claimant's server reads the name; the request for more time arrives before the outcome.
    while world.execute(0) {}
    world.settle();
    assert_eq!(world.clients[holder].closed, None);
    world.input(0, Input::Alive(conn));
    world.settle();
    assert_eq!(world.clients[claimant].closed, Some(Reason::IdTaken));
    world.check();
}

#[test]
fn a_sign_of_life_does_not_wait_behind_other_jobs() {
    let (mut world, holder, claimant) = claimed();
    for n in 0..20 {
        world.hello(0, &format!("p{n}"));
    }
    world.input(0, Input::Alive(world.clients[holder].conn));
    for _ in 0..4 {
        world.execute(0);
        world.answer(0);
        world.read(0);
    }
    while world.read(1) {}
    assert_eq!(world.clients[claimant].closed, Some(Reason::IdTaken));
    world.settle();
    world.check();
}

#[test]
fn a_holder_that_changes_while_it_is_removed_is_asked_again() {
    let (mut world, holder, claimant) = claimed();
    world.pass(Duration::from_secs(3));
    while world.execute(1) {}
    while world.answer(1) | world.read(1) {}
    // The removal is under way.
    world.clients[holder].is_alive = true;
    world.join(holder, "attic");
    while world.execute(0) {}
    world.settle();
    assert_eq!(world.clients[holder].closed, None);
    assert_eq!(world.clients[claimant].closed, Some(Reason::IdTaken));
    world.check();
}
