//! Time in pictures: a code drawn into each frame that is sent, read back from each that is shown, so that what is
//! measured is what somebody would see, whatever program is between.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

pub const WIDTH: usize = 640;
pub const HEIGHT: usize = 360;
pub const FPS: u64 = 30;

/// Each bit is a square of so many pixels; a second row has the complement.
const SQUARE: usize = 20;
const BITS: usize = 24;

/// The one clock of all that is measured here.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Since the beginning.
pub fn now() -> Duration {
    BEGAN.elapsed()
}

/// A frame in I420: the time on top, and below it waves that move, so that there is something to encode.
fn draw(time: Duration, number: u64) -> Vec<u8> {
    let mut frame = vec![128; WIDTH * HEIGHT * 3 / 2];
    let code = time.as_millis() as u64;
    for y in 0..HEIGHT {
        for x in 0..WIDTH {
            let (row, bit) = (y / SQUARE, x / SQUARE);
            frame[y * WIDTH + x] = match row {
                0 | 1 if bit < BITS => {
                    let is_set = code >> bit & 1 == 1;
                    if is_set == (row == 0) { 235 } else { 16 }
                }
                0 | 1 => 128,
                _ => (((x * x + y * y) / 128 + number as usize * 6) & 255) as u8 / 2 + 64,
            };
        }
    }
    frame
}

/// The time in a frame of luma alone; none where it cannot be read.
fn read(luma: &[u8]) -> Option<u64> {
    let is_set = |row: usize, bit: usize| {
        let (y, x) = (row * SQUARE + SQUARE / 2, bit * SQUARE + SQUARE / 2);
        luma[y * WIDTH + x] > 128
    };
    let bits = (0..BITS).map(|bit| (is_set(0, bit), is_set(1, bit)));
    bits.enumerate().try_fold(
        0,
        |code, (bit, (is, other))| {
            if is == other { None } else { Some(code | u64::from(is) << bit) }
        },
    )
}

/// A named pipe in a folder.
pub fn pipe(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    path
}

/// Writes frames into a pipe for as long as it is held and somebody reads.
pub struct Camera {
    path: PathBuf,
    goes_on: Arc<AtomicBool>,
}

impl Camera {
    pub fn start(folder: &Path, name: &str) -> Self {
        let path = pipe(folder, name);
        let goes_on = Arc::new(AtomicBool::new(true));
        let (to, on) = (path.clone(), goes_on.clone());
        std::thread::spawn(move || {
            let mut pipe = File::options().write(true).open(to).unwrap();
            let began = Instant::now();
            for number in 0.. {
                let due = began + Duration::from_micros(number * 1_000_000 / FPS);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                if !on.load(Ordering::Relaxed) || pipe.write_all(&draw(now(), number)).is_err() {
                    return;
                }
            }
        });
        Self { path, goes_on }
    }

    /// Returns the pipeline that reads the file, in gst-launch syntax. (Without the queue filesrc checks whether it can
    /// seek, and opens the pipe twice, the second time in the middle of a frame.)
    pub fn source(&self) -> String {
        let size = WIDTH * HEIGHT * 3 / 2;
        format!(
            "filesrc location={} blocksize={size} ! queue max-size-buffers=1 ! \
             rawvideoparse format=i420 width={WIDTH} height={HEIGHT} framerate={FPS}/1",
            self.path.display()
        )
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.goes_on.store(false, Ordering::Relaxed);
    }
}

/// A frame that was shown: when, and when it was drawn.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    pub at: Duration,
    pub drawn: Duration,
}

/// Reads frames from a pipe.
pub struct Screen {
    path: PathBuf,
    shown: Arc<Mutex<Vec<Shown>>>,
}

impl Screen {
    pub fn start(folder: &Path, name: &str) -> Self {
        let path = pipe(folder, name);
        let shown = Arc::new(Mutex::new(vec![]));
        let (from, all) = (path.clone(), shown.clone());
        std::thread::spawn(move || {
            let mut pipe = File::open(from).unwrap();
            let mut luma = vec![0; WIDTH * HEIGHT];
            while pipe.read_exact(&mut luma).is_ok() {
                if let Some(code) = read(&luma) {
                    all.lock().unwrap().push(Shown { at: now(), drawn: Duration::from_millis(code) });
                }
            }
        });
        Self { path, shown }
    }

    /// Returns the pipeline that writes the file, in gst-launch syntax: each frame at its time, as in a window.
    pub fn sink(&self) -> String {
        format!(
            "videoconvert ! videoscale ! video/x-raw,format=GRAY8,width={WIDTH},height={HEIGHT} ! \
             filesink location={} buffer-mode=unbuffered sync=true",
            self.path.display()
        )
    }

    pub fn shown(&self) -> Vec<Shown> {
        self.shown.lock().unwrap().clone()
    }

    /// Waits for the first frame; when it came.
    pub fn first(&self) -> Duration {
        super::common::wait_for("the first frame", || {
            std::thread::sleep(Duration::from_millis(1));
            self.shown.lock().unwrap().first().map(|shown| shown.at)
        })
    }
}

/// Hears a tone that is sent without a pause.
pub struct Ear {
    path: PathBuf,
    heard: Arc<Mutex<Vec<Duration>>>,
}

impl Ear {
    /// The analysed block: its samples, and its duration.
    const SAMPLES: usize = 160;
    const LASTS: Duration = Duration::from_millis(20);

    pub fn start(folder: &Path, name: &str) -> Self {
        let path = pipe(folder, name);
        let heard = Arc::new(Mutex::new(vec![]));
        let (from, all) = (path.clone(), heard.clone());
        std::thread::spawn(move || {
            let mut pipe = File::open(from).unwrap();
            let mut bytes = vec![0; Self::SAMPLES * 2];
            while pipe.read_exact(&mut bytes).is_ok() {
                if is_tone(&bytes) {
                    all.lock().unwrap().push(now());
                }
            }
        });
        Self { path, heard }
    }

    /// A tone that it hears, in gst-launch words.
    pub fn source() -> &'static str {
        "audiotestsrc is-live=true wave=sine freq=440 volume=0.3 samplesperbuffer=480"
    }

    /// Returns the pipeline that writes the file, in gst-launch syntax: audio at its time, as from a speaker.
    pub fn sink(&self) -> String {
        format!(
            "audioconvert ! audioresample ! audio/x-raw,format=S16LE,channels=1,rate=8000 ! \
             filesink location={} buffer-mode=unbuffered sync=true",
            self.path.display()
        )
    }

    /// The share of that time in which the tone was not heard, in percent. Sound that comes all at once after a pause is not
    /// heard either: a speaker plays what is due and leaves out what is late, so no moment has more of it than it lasts.
    pub fn missed(&self, from: Duration, to: Duration) -> f64 {
        const MOMENT: u32 = 5;
        let heard = self.heard.lock().unwrap();
        let moments = (to - from).as_millis() as usize / (Self::LASTS * MOMENT).as_millis() as usize;
        let mut counts = vec![0; moments];
        for at in heard.iter().filter(|at| **at >= from) {
            let moment = (*at - from).as_millis() / (Self::LASTS * MOMENT).as_millis();
            if let Some(count) = counts.get_mut(moment as usize) {
                *count += 1;
            }
        }
        // A block that is a little early or late counts for the neighbouring moment.
        let all: u32 = counts.iter().map(|count| (*count).min(MOMENT + 1)).sum();
        (1.0 - f64::from(all) / f64::from(MOMENT * moments.max(1) as u32)).max(0.0) * 100.0
    }
}

/// Whether samples are louder than a quarter of the tone.
fn is_tone(bytes: &[u8]) -> bool {
    let squares = bytes.chunks_exact(2).map(|two| f64::from(i16::from_le_bytes([two[0], two[1]])).powi(2));
    (squares.sum::<f64>() / (bytes.len() / 2) as f64).sqrt() > 0.3 / 2.0_f64.sqrt() / 4.0 * 32768.0
}

#[test]
fn a_tone_is_heard() {
    let tone = |loudness: f64| -> Vec<u8> {
        let sample =
            |n: usize| (std::f64::consts::TAU * 440.0 * n as f64 / 8000.0).sin() * loudness * 32767.0;
        (0..Ear::SAMPLES).flat_map(|n| (sample(n) as i16).to_le_bytes()).collect()
    };
    assert!(is_tone(&tone(0.3)) && is_tone(&tone(0.1)) && !is_tone(&tone(0.03)) && !is_tone(&tone(0.0)));
}

#[test]
fn sound_that_comes_all_at_once_is_not_heard() {
    let heard = |times: &[u64]| {
        let heard = Arc::new(Mutex::new(times.iter().map(|ms| Duration::from_millis(*ms)).collect()));
        let ear = Ear { path: PathBuf::new(), heard };
        ear.missed(Duration::ZERO, Duration::from_millis(1000)).round()
    };
    let all: Vec<u64> = (0..50).map(|n| n * 20).collect();
    assert_eq!(heard(&all), 0.0);
    assert_eq!(heard(&all.iter().map(|ms| ms + 7 - ms % 15).collect::<Vec<_>>()), 0.0, "a little uneven");
    assert_eq!(heard(&all[..25]), 50.0);
    // Half a second late, and all of it then.
    assert_eq!(heard(&all.iter().map(|ms| (*ms).max(500)).collect::<Vec<_>>()), 48.0);
}

#[test]
fn what_is_drawn_is_read() {
    for ms in [0, 1, 77_777, (1 << BITS) - 1] {
        let frame = draw(Duration::from_millis(ms), 3);
        assert_eq!(read(&frame[..WIDTH * HEIGHT]), Some(ms));
    }
    assert_eq!(read(&vec![128; WIDTH * HEIGHT]), None);
}
