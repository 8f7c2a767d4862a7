//! Measurements of the media that a client received.

use std::time::{Duration, Instant};

use super::{pace, settled, wait_for};

/// Received pictures and sound, as outputs write them into files: small grey pictures, and samples.
pub struct Received {
    folder: std::sync::Arc<tempfile::TempDir>,
    /// The suffix of the files' names: empty, or a peer's id.
    of: String,
    /// Whether the outputs wait until it is time, as a window and a speaker do.
    in_time: bool,
}

const WIDTH: usize = 32;
const HEIGHT: usize = 24;
const RATE: usize = 8000;
/// -70 dBFS: a browser takes its fake microphone's beeps for noise, and suppresses them to -66 dBFS within a
/// minute (measured with Chromium). Silence is below that.
const AUDIBLE: f64 = 0.000316;

impl Received {
    pub fn new() -> Self {
        Self { folder: std::sync::Arc::new(tempfile::tempdir().unwrap()), of: String::new(), in_time: false }
    }

    /// Shown and played when it is time, as by a window and a speaker.
    pub fn in_time() -> Self {
        Self { in_time: true, ..Self::new() }
    }

    /// For a room: files for each peer.
    pub fn of_each() -> Self {
        Self { of: "{peer}".into(), ..Self::new() }
    }

    /// Returns the media received from that peer.
    pub fn from(&self, peer: &str) -> Self {
        Self { folder: self.folder.clone(), of: peer.into(), in_time: self.in_time }
    }

    /// The options that write the files.
    pub fn options(&self) -> [String; 4] {
        let file = |name: &str| {
            let path = self.folder.path().join(format!("{name}{}", self.of));
            let (sync, path) = (self.in_time, path.display());
            format!("filesink buffer-mode=unbuffered append=true sync={sync} location={path}")
        };
        let show = format!(
            "videoconvert ! videoscale ! video/x-raw,format=GRAY8,width={WIDTH},height={HEIGHT} ! {}",
            file("pictures")
        );
        let play = format!(
            "audioconvert ! audioresample ! audio/x-raw,format=S16LE,channels=1,rate={RATE} ! {}",
            file("sound")
        );
        ["--show".into(), show, "--play".into(), play]
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder.path().join(format!("{name}{}", self.of))).unwrap_or_default()
    }

    /// How much was written so far, to look only at what comes after.
    pub fn mark(&self) -> (usize, usize) {
        (self.bytes("pictures").len(), self.bytes("sound").len())
    }

    /// How many pictures were shown so far.
    pub fn pictures(&self) -> usize {
        self.mark().0 / (WIDTH * HEIGHT)
    }

    /// Pictures that differ from the one before, and seconds of audible sound, that come in a second, measured over so
    /// many.
    pub fn rates(&self, seconds: u64) -> (f64, f64) {
        let (before, began) = (self.mark(), Instant::now());
        pace(began + Duration::from_secs(seconds));
        let (now, passed) = (self.mark(), began.elapsed().as_secs_f64());
        let size = WIDTH * HEIGHT;
        let bytes = self.bytes("pictures");
        let pictures: Vec<&[u8]> =
            bytes[before.0.next_multiple_of(size).min(now.0)..now.0].chunks_exact(size).collect();
        let moved = pictures.windows(2).filter(|pair| pair[0] != pair[1]).count();
        let sound = self.power(before.1, RATE / 50).into_iter().filter(|power| *power > AUDIBLE).count();
        (moved as f64 / passed, sound as f64 / 50.0 / passed)
    }

    /// Waits for `count` whole pictures after the mark of which at least a third differ from the one
    /// before, and for half a second of audible sound.
    pub fn expect_moving_and_audible(&self, since: (usize, usize), count: usize) {
        self.expect_moving(since, count);
        wait_for(&format!("sound of {:?}", self.of), || {
            self.loudness(since.1).into_iter().any(|half| half > AUDIBLE).then_some(())
        });
    }

    /// The same of the pictures alone.
    pub fn expect_moving(&self, since: (usize, usize), count: usize) {
        let size = WIDTH * HEIGHT;
        wait_for(&format!("moving pictures of {:?}", self.of), || {
            let bytes = self.bytes("pictures");
            let pictures: Vec<&[u8]> =
                bytes[since.0.next_multiple_of(size).min(bytes.len())..].chunks_exact(size).collect();
            let moved = pictures.windows(2).filter(|pair| pair[0] != pair[1]).count();
            (pictures.len() >= count && moved * 3 >= count).then_some(())
        });
    }

    /// Waits for a second and a half without audible sound.
    pub fn expect_silence(&self) {
        wait_for("silence", || {
            let since = self.mark().1.saturating_sub(3 * RATE);
            let recent = self.loudness(since);
            (recent.len() >= 3 && recent.iter().all(|half| *half < AUDIBLE)).then_some(())
        });
    }

    /// Waits for two seconds in which no sound comes at all.
    pub fn expect_no_sound(&self) {
        settled("end of the sound", Duration::from_secs(2), || self.mark().1);
    }

    /// Waits for a picture whose left and right halves are lit as that says (black is about 16 of 255).
    pub fn expect_halves(&self, lit: [bool; 2]) {
        wait_for("the halves of the picture", || {
            let bytes = self.bytes("pictures");
            let last = bytes.chunks_exact(WIDTH * HEIGHT).next_back()?;
            // The middle row, away from the borders and from what moves.
            let row: Vec<u32> = last[WIDTH * HEIGHT / 2..][..WIDTH].iter().map(|p| u32::from(*p)).collect();
            let mean = |part: &[u32]| part.iter().sum::<u32>() / part.len() as u32;
            let halves = [mean(&row[4..WIDTH / 2 - 4]), mean(&row[WIDTH / 2 + 4..WIDTH - 4])];
            (halves.map(|half| half > 40) == lit).then_some(())
        });
    }

    /// Waits until fifteen pictures in a row are the same.
    pub fn expect_still(&self) {
        wait_for("a still picture", || {
            let bytes = self.bytes("pictures");
            let pictures: Vec<&[u8]> = bytes.chunks_exact(WIDTH * HEIGHT).collect();
            let last = pictures.len().checked_sub(15).map(|from| &pictures[from..])?;
            last.windows(2).all(|pair| pair[0] == pair[1]).then_some(())
        });
    }

    /// The root mean square of each half second of sound after that byte, 1 being the loudest.
    pub fn loudness(&self, since: usize) -> Vec<f64> {
        self.power(since, RATE / 2)
    }

    /// The same of so many samples each.
    fn power(&self, since: usize, count: usize) -> Vec<f64> {
        let bytes = self.bytes("sound");
        let recent = &bytes[since.next_multiple_of(2).min(bytes.len())..];
        let samples: Vec<f64> =
            recent.chunks_exact(2).map(|b| f64::from(i16::from_le_bytes([b[0], b[1]])) / 32768.0).collect();
        let power = |some: &[f64]| (some.iter().map(|s| s * s).sum::<f64>() / some.len() as f64).sqrt();
        samples.chunks_exact(count).map(power).collect()
    }
}
