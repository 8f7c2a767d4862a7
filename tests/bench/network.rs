//! Measures a call while its network changes: RFC 8867, 5.1 to 5.3, and a loss of 10 %.

use std::time::{Duration, Instant};

use super::common::impaired::{LEFT, RIGHT};
use super::common::{Impaired, Impairment, Program, needs};
use super::number;
use super::peers::Theirs;
use super::report::{Comparison, Course, Report, percentile};
use super::timecode::{self, Camera, Ear, Screen, Shown};

/// The capacity of the path, in bit/s, from each second on.
type Schedule = &'static [(f64, u64)];

struct Case {
    name: &'static str,
    /// From the left to the right, and back.
    capacity: [Schedule; 2],
    seconds: f64,
    loss: f64,
    /// Calls beside each other; and whether both sides send.
    calls: usize,
    both: bool,
}

const WIDE: Schedule = &[(0.0, 10_000_000)];
const FIRST: Schedule = &[(0.0, 1_000_000), (40.0, 2_500_000), (60.0, 600_000), (80.0, 1_000_000)];

const CASES: [Case; 4] = [
    Case { name: "5.1, one flow", capacity: [FIRST, WIDE], seconds: 100.0, loss: 0.0, calls: 1, both: false },
    Case {
        name: "5.2, two flows",
        capacity: [
            &[(0.0, 4_000_000), (25.0, 2_000_000), (50.0, 3_500_000), (75.0, 1_000_000), (100.0, 2_000_000)],
            WIDE,
        ],
        seconds: 125.0,
        loss: 0.0,
        calls: 2,
        both: false,
    },
    Case {
        name: "5.3, both directions",
        capacity: [
            &[(0.0, 2_000_000), (20.0, 1_000_000), (40.0, 500_000), (60.0, 2_000_000)],
            &[(0.0, 2_000_000), (35.0, 800_000), (70.0, 2_000_000)],
        ],
        seconds: 100.0,
        loss: 0.0,
        calls: 1,
        both: true,
    },
    Case { name: "a loss of 10 %", capacity: [WIDE, WIDE], seconds: 60.0, loss: 0.1, calls: 1, both: false },
];

/// The measurements of one call.
struct Seen {
    /// Seconds and kbit/s through the bottleneck; seconds and ms that a packet waited there.
    rates: Vec<(f64, f64)>,
    waits: Vec<(f64, f64)>,
    /// The share of the capacity that was used, in percent.
    used: f64,
    shown: Vec<Vec<Shown>>,
    /// The share of the time in which no sound was heard that was sent, in percent; of the first call, from the left.
    missed: f64,
}

/// Changes the network as the case says, and looks at it.
fn watch(case: &Case, scale: f64, network: &Impaired, screens: &[Screen], ear: &Ear) -> Seen {
    const LOOK: Duration = Duration::from_millis(200);
    let at = |schedule: Schedule, second: f64| {
        schedule.iter().rev().find(|(from, _)| *from <= second).map(|(_, rate)| *rate)
    };
    let set = |second: f64| {
        for direction in [0, 1] {
            network.set_one(
                direction,
                Impairment {
                    delay: Duration::from_millis(50),
                    rate: at(case.capacity[direction], second),
                    loss: if direction == 0 { case.loss } else { 0.0 },
                    ..Impairment::default()
                },
            );
        }
    };
    let from = timecode::now();
    let (began, mut before) = (Instant::now(), network.counts()[0]);
    let (mut rates, mut waits, mut could) = (vec![], vec![], 0.0);
    let (first, mut last) = (before.bytes, began);
    loop {
        let second = began.elapsed().as_secs_f64() / scale;
        if second >= case.seconds {
            break;
        }
        set(second);
        std::thread::sleep(LOOK);
        let (now, count) = (Instant::now(), network.counts()[0]);
        let passed = (now - last).as_secs_f64();
        could += at(case.capacity[0], second).unwrap_or(0) as f64 * passed;
        rates.push((
            began.elapsed().as_secs_f64(),
            (count.bytes - before.bytes) as f64 * 8.0 / passed / 1000.0,
        ));
        waits.push((began.elapsed().as_secs_f64(), count.waited.as_secs_f64() * 1000.0));
        (before, last) = (count, now);
    }
    let used = (before.bytes - first) as f64 * 8.0 / could * 100.0;
    let missed = ear.missed(from, timecode::now());
    Seen { rates, waits, used, shown: screens.iter().map(Screen::shown).collect(), missed }
}

/// The start of the network, before the case's own settings.
fn fresh(case: &Case) -> Impaired {
    let rate = case.capacity[0].first().map(|(_, rate)| *rate);
    Impaired::new(Impairment { delay: Duration::from_millis(50), rate, ..Impairment::default() })
}

fn ours(case: &Case, scale: f64) -> Seen {
    let (network, home) = (fresh(case), tempfile::tempdir().unwrap());
    let _server = Program::serve_in(&network.left, home.path());
    let url = format!("ws://{LEFT}:7000");
    let (mut programs, mut cameras, mut screens) = (vec![], vec![], vec![]);
    let ear = Ear::start(home.path(), "ear");
    let hears = ear.sink();
    for call in 0..case.calls {
        let mut make = |name: &str| {
            cameras.push(Camera::start(home.path(), &format!("{name}-in{call}")));
            screens.push(Screen::start(home.path(), &format!("{name}-out{call}")));
            (cameras[cameras.len() - 1].source(), screens[screens.len() - 1].sink())
        };
        let (source, sink) = make("there");
        let back = case.both.then(|| make("back"));
        let size = ["--size", "640x360", "--fps", "30"];
        let rates = ["--bitrate", "600", "--max-bitrate", "2500"];
        // The first is listened to.
        let (tone, play) = if call == 0 { ("tone", hears.as_str()) } else { ("none", "none") };
        let id = format!("bob{call}");
        let mut bob = vec!["answer", "--id", &id, "--server", &url, "--video", &source];
        let mut ann = vec!["call", &id, "--server", &url, "--show", &sink, "--play", play];
        match &back {
            Some((source, sink)) => {
                bob.extend(["--show", sink, "--play", "none"]);
                ann.extend(["--video", source, "--audio", "none"]);
                ann.extend(size);
                ann.extend(rates);
            }
            None => {
                bob.push("--send-only");
                ann.push("--receive-only");
            }
        }
        bob.extend(["--audio", tone]);
        bob.extend(size);
        bob.extend(rates);
        let mut bob = Program::start_in(&network.left, home.path(), &bob);
        bob.expect("registered", &[]);
        programs.push(bob);
        programs.push(Program::start_in(&network.right, home.path(), &ann));
    }
    for screen in &screens {
        screen.first();
    }
    watch(case, scale, &network, &screens, &ear)
}

fn theirs(case: &Case, scale: f64) -> Option<Seen> {
    Theirs::program()?;
    let (network, home) = (fresh(case), tempfile::tempdir().unwrap());
    let ear = Ear::start(home.path(), "ear");
    let (mut cameras, mut screens, mut running) = (vec![], vec![], vec![]);
    let there = (&network.left, &network.right, LEFT);
    let back = case.both.then_some((&network.right, &network.left, RIGHT));
    for (n, (from, to, address)) in std::iter::repeat_n(there, case.calls).chain(back).enumerate() {
        let (camera, screen) =
            (Camera::start(home.path(), &format!("in{n}")), Screen::start(home.path(), &format!("out{n}")));
        let port = 8443 + n as u16;
        // The first is listened to.
        let ear = (n == 0).then_some(&ear);
        running.push(Theirs::sender(Some(from), &camera, port, 2_500_000, ear.is_some()));
        std::thread::sleep(Duration::from_millis(1500));
        running.push(Theirs::receiver(Some(to), address, port, &screen, ear));
        cameras.push(camera);
        screens.push(screen);
    }
    for screen in &screens {
        screen.first();
    }
    Some(watch(case, scale, &network, &screens, &ear))
}

/// The time that nothing new was shown for, beyond half a second at once, in percent of all.
fn frozen(shown: &[Shown]) -> f64 {
    let gaps = shown.windows(2).map(|pair| (pair[1].at - pair[0].at).as_secs_f64());
    let frozen: f64 = gaps.filter(|gap| *gap > 0.5).sum();
    let all = shown.first().zip(shown.last()).map_or(0.0, |(a, b)| (b.at - a.at).as_secs_f64());
    frozen / all.max(1e-9) * 100.0
}

#[test]
#[ignore = "a measurement"]
fn network() {
    needs!(Networks);
    // The share of the cases' original times.
    let scale = number("PERCENT", 50) as f64 / 100.0;
    let (mut comparisons, mut courses) = (vec![], vec![]);
    for case in CASES.iter().take(number("CASES", 4) as usize).skip(number("FIRST", 0) as usize) {
        let own = ours(case, scale);
        let mut all = vec![("roomtone".to_owned(), own)];
        all.extend(theirs(case, scale).map(|seen| ("webrtcsink".to_owned(), seen)));
        let mut compare = |what: &str, unit, of: &dyn Fn(&Seen) -> Vec<f64>| {
            let samples = all.iter().map(|(who, seen)| (who.clone(), of(seen))).collect();
            comparisons.push(Comparison { what: format!("{}: {what}", case.name), unit, samples });
        };
        compare("capacity used", "%", &|seen| vec![seen.used]);
        compare("wait at the bottleneck", "ms", &|seen| seen.waits.iter().map(|(_, ms)| *ms).collect());
        compare("age of pictures when shown", "ms", &|seen| {
            let all = seen.shown.iter().flatten();
            all.map(|one| one.at.saturating_sub(one.drawn).as_secs_f64() * 1000.0).collect()
        });
        compare("pictures a second", "", &|seen| {
            let rate = |shown: &Vec<Shown>| {
                let ends = shown.first().zip(shown.last());
                shown.len() as f64 / ends.map_or(1.0, |(a, b)| (b.at - a.at).as_secs_f64().max(1e-9))
            };
            seen.shown.iter().map(rate).collect()
        });
        compare("sound that is missing", "%", &|seen| vec![seen.missed]);
        compare("frozen", "%", &|seen| seen.shown.iter().map(|shown| frozen(shown)).collect());
        compare("until four fifths of the first capacity are used", "s", &|seen| {
            let first = case.capacity[0].first().map_or(0.0, |(_, rate)| *rate as f64 / 1000.0);
            let most = first.min(2500.0 * case.calls as f64);
            let reached = seen.rates.windows(5).find(|five| {
                percentile(&five.iter().map(|(_, rate)| *rate).collect::<Vec<_>>(), 50.0) > most * 0.8
            });
            reached.map(|five| five[0].0).into_iter().collect()
        });
        for (what, unit, of) in [
            ("through the bottleneck", "kbit/s", (|seen: &Seen| seen.rates.clone()) as fn(&Seen) -> _),
            ("wait at the bottleneck", "ms", |seen: &Seen| seen.waits.clone()),
        ] {
            let lines = all.iter().map(|(who, seen)| (who.clone(), of(seen))).collect();
            courses.push(Course { what: format!("{}: {what}", case.name), unit, lines });
        }
    }
    Report {
        name: "network",
        about: format!(
            "The cases of RFC 8867, at {:.0} % of their time: 50 ms of delay each way, a queue of 300 ms, 640x360 \
             pictures at up to 30 a second and 2.5 Mbit/s, beginning at 600 kbit/s.",
            scale * 100.0
        ),
        comparisons,
        courses,
    }
    .finish();
}
