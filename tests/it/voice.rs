//! Sound with a real sound server: what the speaker plays does not come back, and who speaks in the room is heard.

use crate::common::pulse::{MICROPHONE, Pulse, speech};
use crate::common::{PATIENCE, Program, Received, Stage, needs, until, wait_for};

/// A call with one who has a speaker and a microphone in one room.
struct Room {
    pulse: Pulse,
    /// Audio that the far end receives from that room.
    received: Received,
    /// Speech of somebody in the room.
    near: String,
    _programs: [Program; 2],
    _stage: Stage,
}

impl Room {
    fn with(options: &[&str]) -> Self {
        let pulse = Pulse::start();
        let (stage, received) = (Stage::new(), Received::new());
        let (far, near) = (stage.path("far.wav"), stage.path("near.wav"));
        speech(&far, 1, 0.5);
        speech(&near, 2, 0.5);
        let sound = ["--video", "none", "--audio", "pulse", "--audio-device", MICROPHONE];
        let [(name, address)] = pulse.variables();
        let bob = stage.answer("bob").media(&sound).outputs(&[]).with(options);
        let mut bob = bob.variable(name, address).ready();
        let sound = ["--video", "none", "--audio", "file", "--audio-device", &far];
        let mut ann = stage.call("bob").media(&sound).receiving(&received).start();
        ann.expect("media", &[("kind", "audio")]);
        bob.expect("media", &[("kind", "audio")]);
        Self { pulse, received, near, _programs: [bob, ann], _stage: stage }
    }

    /// Returns the level at the far end over the next five seconds, in dB below full scale: the median of half seconds.
    fn level(&self) -> f64 {
        let since = self.received.mark().1;
        let mut levels = wait_for("ten half seconds of sound", || {
            let levels = self.received.loudness(since);
            (levels.len() >= 10).then_some(levels)
        });
        levels.sort_by(f64::total_cmp);
        20.0 * levels[levels.len() / 2].max(1e-6).log10()
    }

    /// Waits until the level is as wanted; returns it.
    fn expect(&self, what: &str, is_wanted: impl Fn(f64) -> bool) -> f64 {
        until(what, PATIENCE, || {
            let level = self.level();
            if is_wanted(level) { Ok(level) } else { Err(format!("{level:.1} dB")) }
        })
    }
}

#[test]
fn the_far_end_does_not_hear_itself_but_who_speaks() {
    needs!(SoundServer);
    let echo = Room::with(&["--no-echo-cancel"]).expect("echo without cancellation", |level| level > -40.0);
    let room = Room::with(&[]);
    // The echo canceller adapts to the room meanwhile.
    let left = room.expect(&format!("15 dB less than {echo:.1} dB of echo"), |level| level < echo - 15.0);
    let _speaks = room.pulse.speak(&room.near);
    room.expect(&format!("10 dB more than the {left:.1} dB of echo left"), |level| level > left + 10.0);
}
