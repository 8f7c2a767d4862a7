//! Sound with a real sound server: what the speaker plays does not come back, and who speaks in the room is heard.

use std::path::PathBuf;

use crate::common::pulse::{MICROPHONE, Pulse, speech};
use crate::common::{PATIENCE, Program, Received, needs, strings, until, wait_for};

/// A call with one who has a speaker and a microphone in one room.
struct Room {
    pulse: Pulse,
    /// Audio that the far end receives from that room.
    received: Received,
    /// Speech of somebody in the room.
    near: PathBuf,
    _programs: [Program; 3],
    _home: tempfile::TempDir,
}

impl Room {
    fn with(options: &[&str]) -> Self {
        let pulse = Pulse::start();
        let home = tempfile::tempdir().unwrap();
        let (far, near) = (home.path().join("far.wav"), home.path().join("near.wav"));
        speech(&far, 1, 0.5);
        speech(&near, 2, 0.5);
        let mut server = Program::start(home.path(), &["serve", "--plain", "--listen", "127.0.0.1:0"]);
        let url = crate::common::ws(&server.link());
        let bob = ["answer", "--id", "bob", "--server", &url, "--video", "none", "--audio", "pulse"];
        let sound = ["--audio-device", MICROPHONE];
        let mut bob =
            Program::start_with(home.path(), &[&bob, &sound[..], options].concat(), &pulse.variables());
        bob.expect("registered", &[]);
        let received = Received::new();
        let output = received.options();
        let ann = ["call", "bob", "--server", &url, "--video", "none", "--audio", "file", "--audio-device"];
        let output = strings(&output);
        let mut ann =
            Program::start(home.path(), &[&ann[..], &[far.to_str().unwrap()], &output[..]].concat());
        ann.expect("media", &[("kind", "audio")]);
        bob.expect("media", &[("kind", "audio")]);
        Self { pulse, received, near, _programs: [server, bob, ann], _home: home }
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
