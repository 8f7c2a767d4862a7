//! Audio level as in RFC 6464 (3): decibels below the maximum, from 0 to 127, which is silence.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::base::lock::lock;

use gst::prelude::*;

/// Level of silence.
pub const SILENCE: u8 = 127;

/// Returns the level of 16-bit little-endian samples.
pub fn of(samples: &[u8]) -> u8 {
    let squares = samples.chunks_exact(2).map(|two| f64::from(i16::from_le_bytes([two[0], two[1]])).powi(2));
    let (sum, count) = squares.fold((0.0, 0_u32), |(sum, count), square| (sum + square, count + 1));
    let rms = (sum / f64::from(count.max(1))).sqrt() / f64::from(i16::MAX);
    if rms <= 0.0 { SILENCE } else { (-20.0 * rms.log10()).round().clamp(0.0, f64::from(SILENCE)) as u8 }
}

/// Time for which a measured level stays valid.
const FRESH: Duration = Duration::from_secs(2);

/// A level that one thread measures and others read.
#[derive(Debug, Default)]
pub struct Meter(Mutex<Option<(u8, Instant)>>);

impl Meter {
    /// Returns the level if it was measured within the last two seconds.
    pub fn level(&self) -> Option<u8> {
        self.at(Instant::now())
    }

    /// Measures passing samples.
    pub(crate) fn measure(&self, samples: &[u8]) {
        self.set(of(samples), Instant::now());
    }

    fn at(&self, now: Instant) -> Option<u8> {
        let measured = *lock(&self.0);
        measured.filter(|(_, at)| now.saturating_duration_since(*at) < FRESH).map(|(level, _)| level)
    }

    fn set(&self, level: u8, now: Instant) {
        *lock(&self.0) = Some((level, now));
    }
}

/// Passes 16-bit samples that pass a pad to `take`.
pub(crate) fn watch(pad: &gst::Pad, take: impl Fn(&[u8]) + Send + Sync + 'static) {
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let caps = pad.current_caps();
        let format = caps.as_ref().and_then(|caps| caps.structure(0)?.get::<&str>("format").ok());
        if format == Some("S16LE")
            && let Some(map) = info.buffer().and_then(|buffer| buffer.map_readable().ok())
        {
            take(&map);
        }
        gst::PadProbeReturn::Ok
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        let square = |height: i16| -> Vec<u8> {
            (0..960).flat_map(|n| (if n % 2 == 0 { height } else { -height }).to_le_bytes()).collect()
        };
        assert_eq!(of(&square(i16::MAX)), 0);
        assert_eq!(of(&square(i16::MAX / 10)), 20);
        assert_eq!(of(&square(1)), 90);
        assert_eq!([of(&square(0)), of(&[]), of(&[1])], [SILENCE; 3]);
    }

    #[test]
    fn without_samples_there_is_no_level() {
        let (meter, now) = (Meter::default(), Instant::now());
        assert_eq!(meter.at(now), None);
        meter.set(SILENCE, now);
        assert_eq!(meter.at(now + FRESH / 2), Some(SILENCE));
        // The last measurement has expired.
        assert_eq!(meter.at(now + FRESH), None);
    }
}
