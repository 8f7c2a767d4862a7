//! A peer's troubles stay with it, and resources of peers that left are freed.

use crate::common::{Holds, Program, Stage, wait_for};

const TINY: [&str; 8] = ["--video", "test", "--audio", "tone", "--size", "160x120", "--fps", "10"];

/// Pictures received of that peer so far.
fn pictures(program: &mut Program, peer: &str) -> u64 {
    program.stats_of(peer)["video_frames_received"].as_u64().unwrap()
}

/// Three seconds' worth of pictures more, of each of these.
fn all_go_on(program: &mut Program, peers: &[&str]) {
    let before: Vec<u64> = peers.iter().map(|peer| pictures(program, peer)).collect();
    for (peer, before) in peers.iter().zip(before) {
        wait_for(&format!("pictures of {peer}"), || (pictures(program, peer) > before + 30).then_some(()));
    }
}

#[test]
fn one_of_five_is_frozen_one_talks_junk_and_one_is_killed_and_the_others_see_nothing_of_it() {
    let stage = Stage::new();
    let mut ann = stage.join("ann").media(&TINY).ready();
    let others = ["bob", "cat", "dan", "eve"].map(|name| stage.join(name).media(&TINY).start());
    let media = ["bob", "cat", "dan", "eve"].map(|peer| [("peer", peer), ("kind", "video")]);
    ann.expect_all(&media.each_ref().map(|fields| ("media", &fields[..])));
    all_go_on(&mut ann, &["bob", "cat", "dan", "eve"]);

    others[0].signal("STOP");
    all_go_on(&mut ann, &["cat", "dan", "eve"]);

    let mut junk = stage.peer("junk");
    junk.say("ROOM attic");
    for body in [
        "nonsense",
        "{\"sdp\": {\"type\": \"offer\", \"sdp\": \"v=0\"}}",
        "{\"ice\": {\"candidate\": \"x\"}}",
    ] {
        (0..50).for_each(|_| junk.say(&format!("ROOM_PEER_MSG ann {body}")));
    }
    ann.expect("warning", &[]);
    all_go_on(&mut ann, &["cat", "dan", "eve"]);

    others[1].signal("KILL");
    ann.expect("peer", &[("peer", "cat"), ("state", "left")]);
    all_go_on(&mut ann, &["dan", "eve"]);

    // The frozen one goes on as if nothing had been.
    others[0].signal("CONT");
    all_go_on(&mut ann, &["bob", "dan", "eve"]);
}

#[test]
fn forty_joins_and_leaves_leave_nothing_behind() {
    let stage = Stage::new();
    let mut ann = stage.join("ann").media(&TINY).ready();
    let mut visit = |n: usize| {
        let name = format!("visitor{n}");
        let mut visitor = stage.join(&name).without_media().start();
        visitor.expect("media", &[("kind", "video")]);
        visitor.quit();
        ann.expect("peer", &[("peer", &name), ("state", "left")]);
        ann.pid()
    };
    // The first ones load plugins and fill pools.
    let pid = (0..5).map(&mut visit).last().unwrap();
    let before = wait_for("rest", || Some(Holds::of(pid)));
    (5..45).for_each(|n| {
        visit(n);
    });
    let mut after = before;
    wait_for("threads and descriptors to be back", || {
        after = Holds::of(pid);
        (after.threads <= before.threads && after.descriptors <= before.descriptors).then_some(())
    });
    eprintln!("{before:?} before, {after:?} after forty joins and leaves");
    assert!(after.resident < before.resident + 20_000, "{before:?} {after:?}");
}
