//! Calls over bad networks: delay, jitter, loss, a bottleneck, and a network that goes for a while.

use std::time::{Duration, Instant};

use crate::common::impaired::{LEFT, arrivals, call_of, call_over};
use crate::common::{Impaired, Impairment, PATIENCE, Received, SMALL, Stage, needs, until, wait_for};

/// Options of one that sends no media.
const ONLY_TAKES: [&str; 4] = ["--video", "none", "--audio", "none"];

const MS: Duration = Duration::from_millis(1);

#[test]
fn the_bad_network_is_as_bad_as_it_says() {
    let delayed = Impairment { delay: 40 * MS, jitter: 20 * MS, loss: 0.1, ..Impairment::default() };
    let found = arrivals(delayed, 1000, 100 * MS, 10_000);
    let lost = found.iter().filter(|arrival| arrival.is_none()).count();
    assert!((900..1100).contains(&lost), "{lost} of 10000");
    let came: Vec<Duration> = found.into_iter().flatten().collect();
    assert!(came.iter().all(|delay| (40 * MS..60 * MS).contains(delay)));
    assert!(came.iter().any(|delay| *delay < 41 * MS) && came.iter().any(|delay| *delay > 59 * MS));

    // Twice as much as goes through: the queue fills, and then every other packet is lost.
    let narrow = Impairment { rate: Some(1_000_000), queue: 100 * MS, ..Impairment::default() };
    let found = arrivals(narrow, 1000, 4 * MS, 1000);
    assert_eq!(found[0], Some(8 * MS));
    let longest = found.iter().flatten().max().unwrap();
    assert!((100 * MS..=108 * MS).contains(longest), "{longest:?}");
    let passed = found.iter().flatten().count();
    assert!((500..=520).contains(&passed), "{passed} of 1000");

    let cut = Impairment { cut: true, ..Impairment::default() };
    assert!(arrivals(cut, 1000, MS, 100).iter().all(Option::is_none));
}

#[test]
fn a_call_lives_with_delay_jitter_and_loss() {
    needs!(Networks);
    let bad = Impairment { delay: 30 * MS, jitter: 10 * MS, loss: 0.02, ..Impairment::default() };
    let mut setting = call_over(bad);
    let received = &setting.received;
    received.expect_moving_and_audible((0, 0), 150);
    // The network was what it should be, and the call says so itself.
    let [there, back] = setting.network.counts();
    assert!(there.lost > 0 && back.lost > 0, "{there:?} {back:?}");
    let mut trip = || setting.ann.stats()["round_trip_ms"].as_f64();
    let first = wait_for("a round trip", &mut trip);
    assert!(first >= 60.0, "{first} ms");
    // A machine that is busy adds to single measurements.
    wait_for("a round trip of less than 200 ms", || trip().filter(|trip| (60.0..200.0).contains(trip)));
    // Lost packets are retransmitted, and no other packet waits as long.
    wait_for("what was lost", || (setting.bob.stats()["packets_recovered"].as_u64()? >= 3).then_some(()));
    wait_for("a delay between 10 and 120 ms", || {
        setting.bob.stats()["delay_ms"].as_u64().filter(|delay| (10..120).contains(delay))
    });
    assert!(!setting.bob.has_seen("peer", &[("state", "reconnecting")]));
}

#[test]
fn what_is_lost_is_repaired_with_error_correction() {
    needs!(Networks);
    // Too far for what is lost to come again in time.
    let bad = Impairment { delay: 500 * MS, loss: 0.05, ..Impairment::default() };
    let options = [&SMALL[..], &["--fec"]].concat();
    let mut setting = call_of(bad, &options, &options);
    setting.received.expect_moving_and_audible((0, 0), 60);
    wait_for("repaired packets", || {
        let repaired =
            [&mut setting.bob, &mut setting.ann].map(|side| side.stats()["packets_repaired"].as_u64());
        (repaired.into_iter().flatten().sum::<u64>() >= 3).then_some(())
    });
}

#[test]
fn a_mix_waits_for_those_who_are_far_away() {
    needs!(Networks);
    // With this loss most frames wait for a lost packet.
    let far = Impairment { delay: 80 * MS, jitter: 40 * MS, loss: 0.1, ..Impairment::default() };
    let network = Impaired::new(far);
    let (stage, received) = (Stage::within(&network.left, &[]), Received::new());
    let cat = stage.join("cat").within(&network.left, "127.0.0.1").media(&["--receive-only"]);
    let mut cat = cat.receiving(&received).ready();
    let _ann = stage.join("ann").within(&network.right, LEFT).start();
    cat.expect("media", &[("peer", "ann"), ("kind", "video")]);
    // Longer than the mix waits by itself.
    wait_for("a longer delay", || (cat.stats()["delay_ms"].as_u64()? >= 220).then_some(()));
    received.expect_moving_and_audible(received.mark(), 60);
}

#[test]
fn a_call_goes_on_through_a_network_that_was_away() {
    needs!(Networks);
    let fine = Impairment { delay: 10 * MS, ..Impairment::default() };
    let mut setting = call_over(fine);
    setting.received.expect_moving_and_audible((0, 0), 20);
    setting.network.set(Impairment { cut: true, ..fine });
    setting.bob.expect("peer", &[("state", "reconnecting")]);
    setting.ann.expect("peer", &[("state", "reconnecting")]);
    setting.network.set(fine);
    for side in [&mut setting.bob, &mut setting.ann] {
        side.expect("peer", &[("state", "connected")]);
    }
    setting.received.expect_moving_and_audible(setting.received.mark(), 30);
}

#[test]
fn who_sends_no_media_is_missed_as_soon() {
    needs!(Networks);
    let mut setting = call_of(Impairment::default(), &SMALL, &ONLY_TAKES);
    setting.ann.expect("channel", &[]);
    // From the pauses between the reports of the side without media the host learns how long silence may last.
    let reports = setting.network.counts()[1].passed + 100;
    until("hundred packets of that side", PATIENCE, || {
        let passed = setting.network.counts()[1].passed;
        if passed < reports { Err(passed) } else { Ok(()) }
    });
    for side in [&mut setting.bob, &mut setting.ann] {
        assert!(!side.has_seen("peer", &[("state", "reconnecting")]));
    }
    let cut = Instant::now();
    setting.network.set(Impairment { cut: true, ..Impairment::default() });
    for side in [&mut setting.bob, &mut setting.ann] {
        side.expect("peer", &[("state", "reconnecting")]);
        // On virtual time it is 4 s (src/session/tests/path.rs); before that is learnt, 12.
        assert!(cut.elapsed() < Duration::from_secs(10), "{:?}", cut.elapsed());
    }
}
