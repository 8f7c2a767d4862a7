//! Sound with a real sound server: what the speaker plays does not come back, and who speaks in the room is heard.

use std::time::Duration;

use crate::common::pulse::{MICROPHONE, Pulse, speech};
use crate::common::{Program, Received, needs, strings, wait_for};

/// How loud a second is at the far end, in dB below the loudest: the median of the last five.
fn heard(received: &Received) -> f64 {
    let since = received.mark().1;
    let mut levels = wait_for("ten half seconds of sound", || {
        let levels = received.loudness(since);
        (levels.len() >= 10).then_some(levels)
    });
    levels.sort_by(f64::total_cmp);
    20.0 * levels[levels.len() / 2].max(1e-6).log10()
}

/// A call with one who has a speaker and a microphone in one room; how loud the far end hears itself, and then somebody
/// who speaks in that room, in dB below the loudest.
fn call(options: &[&str]) -> [f64; 2] {
    let pulse = Pulse::start();
    let home = tempfile::tempdir().unwrap();
    let (far, near) = (home.path().join("far.wav"), home.path().join("near.wav"));
    speech(&far, 1, 0.5);
    speech(&near, 2, 0.5);
    let mut server = Program::start(home.path(), &["serve", "--plain", "--listen", "127.0.0.1:0"]);
    let url = crate::common::ws(&server.link());
    let bob = ["answer", "--id", "bob", "--server", &url, "--video", "none", "--audio", "pulse"];
    let sound = ["--audio-device", MICROPHONE];
    let mut bob = Program::start_with(home.path(), &[&bob, &sound[..], options].concat(), &pulse.variables());
    bob.expect("registered", &[]);
    let received = Received::new();
    let output = received.options();
    let ann = ["call", "bob", "--server", &url, "--video", "none", "--audio", "file", "--audio-device"];
    let output = strings(&output);
    let mut ann = Program::start(home.path(), &[&ann[..], &[far.to_str().unwrap()], &output[..]].concat());
    ann.expect("media", &[("kind", "audio")]);
    bob.expect("media", &[("kind", "audio")]);
    // The echo canceller adapts to the room meanwhile.
    std::thread::sleep(Duration::from_secs(5));
    let alone = heard(&received);
    let _speaks = pulse.speak(&near);
    std::thread::sleep(Duration::from_secs(2));
    let both = heard(&received);
    eprintln!("{options:?}: {alone:.1} dB, and {both:.1} dB with somebody who speaks");
    [alone, both]
}

#[test]
fn the_far_end_does_not_hear_itself_but_who_speaks() {
    needs!(SoundServer);
    let [echo, _] = call(&["--no-echo-cancel"]);
    let [left, near] = call(&[]);
    assert!(echo > -40.0, "an echo of {echo:.1} dB without cancellation");
    assert!(left < echo - 15.0, "{left:.1} dB of {echo:.1} dB are left");
    assert!(near > left + 10.0, "{near:.1} dB of who speaks, beside {left:.1} dB");
}
