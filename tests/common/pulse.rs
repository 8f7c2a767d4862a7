//! A sound card of the test's own: a PulseAudio server whose one speaker is heard by its one microphone.

use std::process::{Child, Command};

use super::External;

/// A running server, as long as it is held.
pub struct Pulse {
    _server: External,
    _folder: tempfile::TempDir,
    address: String,
}

/// The source that records the speaker.
pub const MICROPHONE: &str = "room.monitor";

impl Pulse {
    /// Starts a server of the test's own.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("native");
        let mut server = Command::new("pulseaudio");
        server
            .args(["-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "--realtime=no"])
            .args(["-L", "module-null-sink sink_name=room rate=48000"])
            .args([
                "-L",
                &format!("module-native-protocol-unix auth-anonymous=1 socket={}", socket.display()),
            ])
            .envs(["HOME", "XDG_RUNTIME_DIR", "PULSE_RUNTIME_PATH"].map(|name| (name, folder.path())));
        let mut server = External::start(&mut server);
        server.wait_for("PulseAudio", |_| std::os::unix::net::UnixStream::connect(&socket).ok());
        Self { _server: server, address: format!("unix:{}", socket.display()), _folder: folder }
    }

    /// Environment variables for programs that use this sound server.
    pub fn variables(&self) -> [(&str, &str); 1] {
        [("PULSE_SERVER", &self.address)]
    }

    /// Somebody speaks in the room, until this is dropped: the sound of a file.
    pub fn speak(&self, file: &str) -> Voice {
        let text = format!(
            "filesrc location={file} ! wavparse ! audioconvert ! audioresample ! pulsesink device=room"
        );
        let child = Command::new("gst-launch-1.0")
            .arg("-q")
            .args(text.split_whitespace())
            .envs(self.variables())
            .spawn();
        Voice(child.unwrap())
    }
}

/// See [`Pulse::speak`].
pub struct Voice(Child);

impl Drop for Voice {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A minute of what speech is to signal processing: noise of changing colour in bursts, as loud as that (1 is the loudest).
pub fn speech(path: &str, seed: u64, loudness: f64) {
    const RATE: usize = 48_000;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut samples: Vec<i16> = vec![];
    while samples.len() < 60 * RATE {
        // A vowel: a pitch with overtones, shaped by a resonance; then a pause.
        let (pitch, centre) = (90.0 + 120.0 * random.f64(), 400.0 + 1500.0 * random.f64());
        let length = RATE / 10 + random.usize(..RATE / 4);
        for n in 0..length {
            let time = n as f64 / RATE as f64;
            let envelope = (std::f64::consts::PI * n as f64 / length as f64).sin();
            let tone: f64 = (1..30)
                .map(|k| f64::from(k) * pitch)
                .map(|hz| {
                    (-((hz - centre) / 500.0).powi(2)).exp() * (std::f64::consts::TAU * hz * time).sin()
                })
                .sum();
            samples.push((envelope * (tone + 0.2 * (random.f64() - 0.5)) * loudness * 8000.0) as i16);
        }
        samples.resize(samples.len() + RATE / 20 + random.usize(..RATE / 8), 0);
    }
    let data: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let size = u32::try_from(data.len()).unwrap();
    let mut wav = [&b"RIFF"[..], &(36 + size).to_le_bytes(), b"WAVEfmt ", &16_u32.to_le_bytes()].concat();
    // PCM, one channel, the rate, bytes a second, bytes a sample, bits a sample.
    wav.extend([1_u16, 1].iter().flat_map(|n| n.to_le_bytes()));
    wav.extend([RATE as u32, RATE as u32 * 2].iter().flat_map(|n| n.to_le_bytes()));
    wav.extend([2_u16, 16].iter().flat_map(|n| n.to_le_bytes()));
    wav.extend([b"data", &size.to_le_bytes()[..], &data].concat());
    std::fs::write(path, wav).unwrap();
}
