//! What a client received, measured.

use super::wait_for;

/// Received pictures and sound, as outputs write them into files: small grey pictures, and samples.
pub struct Received {
    folder: tempfile::TempDir,
}

const WIDTH: usize = 32;
const HEIGHT: usize = 24;
const RATE: usize = 8000;

impl Received {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// The options that write the files.
    pub fn options(&self) -> [String; 4] {
        let file = |name: &str| {
            let path = self.folder.path().join(name);
            format!("filesink buffer-mode=unbuffered append=true sync=false location={}", path.display())
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
        std::fs::read(self.folder.path().join(name)).unwrap_or_default()
    }

    /// How much was written so far, to look only at what comes after.
    pub fn mark(&self) -> (usize, usize) {
        (self.bytes("pictures").len(), self.bytes("sound").len())
    }

    /// Waits for `count` whole pictures after the mark of which at least a third differ from the one
    /// before, and for half a second of sound that is louder than -50 dBFS.
    pub fn expect_moving_and_audible(&self, since: (usize, usize), count: usize) {
        let size = WIDTH * HEIGHT;
        wait_for("moving pictures", || {
            let bytes = self.bytes("pictures");
            let pictures: Vec<&[u8]> =
                bytes[since.0.next_multiple_of(size).min(bytes.len())..].chunks_exact(size).collect();
            let moved = pictures.windows(2).filter(|pair| pair[0] != pair[1]).count();
            (pictures.len() >= count && moved * 3 >= count).then_some(())
        });
        wait_for("sound", || {
            let bytes = self.bytes("sound");
            let recent = &bytes[since.1.next_multiple_of(2).min(bytes.len())..];
            let samples: Vec<f64> = recent
                .chunks_exact(2)
                .map(|b| f64::from(i16::from_le_bytes([b[0], b[1]])) / 32768.0)
                .collect();
            let loudest = samples
                .chunks_exact(RATE / 2)
                .map(|half| (half.iter().map(|s| s * s).sum::<f64>() / half.len() as f64).sqrt());
            loudest.fold(0.0, f64::max).ge(&0.00316).then_some(())
        });
    }
}
