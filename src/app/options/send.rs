//! Options of the media that a client sends.

use clap::ArgAction;
use clap::builder::RangedI64ValueParser;

use crate::base::flag::Flag;
use crate::media::Rates;
use crate::media::capture::SourceConfig;
use crate::media::peer::PeerConfig;
use crate::media::voice::Voice;
use crate::sdp::{Codec, Kind};

/// Initial bitrate of video, in kbit/s.
const INITIAL: u32 = 1500;
/// Minimum bitrate of video, in kbit/s.
const MINIMUM: u32 = 50;

/// Media that a client sends. A source is the name of a file in `pipelines/source`, the text of a pipeline, or
/// [`NONE`](super::NONE).
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Sending")]
pub struct SendOptions {
    /// Video source: the name of a source, a pipeline in gst-launch syntax, or none [default: camera; test if there
    /// is no camera]
    #[arg(long, value_name = "NAME|PIPELINE|none")]
    pub video: Option<String>,
    /// Audio source, given likewise [default: microphone; tone if there is no microphone]
    #[arg(long, value_name = "NAME|PIPELINE|none")]
    pub audio: Option<String>,
    /// Device, file or address of the source; `roomtone devices` lists devices
    #[arg(long, value_name = "ID")]
    pub device: Option<String>,
    /// Device, file or address of the audio source, if it differs
    #[arg(long, value_name = "ID")]
    pub audio_device: Option<String>,
    /// Preferred video codecs, the best first: vp8, h264, vp9, av1, h265. Codecs that are not named follow; the
    /// next one is used where the peer lacks one [default: vp8]
    #[arg(long, value_name = "CODEC,...", value_delimiter = ',', value_parser = |text: &str| codec(Kind::Video, text))]
    pub video_codec: Vec<Codec>,
    /// Preferred audio codecs, given likewise: opus, pcmu, pcma [default: opus]
    #[arg(long, value_name = "CODEC,...", value_delimiter = ',', value_parser = |text: &str| codec(Kind::Audio, text))]
    pub audio_codec: Vec<Codec>,
    /// Element that encodes video, if it supports the agreed codec; `roomtone codecs` lists them [default: hardware
    /// where available, else software]
    #[arg(long, value_name = "ELEMENT")]
    pub encoder: Option<String>,
    /// Frame size in pixels [default: the source's, at most 1280x720]
    #[arg(long, value_name = "WxH", value_parser = size)]
    pub size: Option<(u32, u32)>,
    /// Frame rate, in frames per second
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=120))]
    pub fps: u32,
    /// Initial video bitrate in kbit/s, which then adapts to the network [default: 1500, within the bounds below]
    #[arg(long, value_name = "KBPS", value_parser = kbps())]
    pub bitrate: Option<u32>,
    /// Minimum video bitrate in kbit/s [default: 50]
    #[arg(long, value_name = "KBPS", value_parser = kbps())]
    pub min_bitrate: Option<u32>,
    /// Maximum video bitrate in kbit/s; the same as --min-bitrate fixes the bitrate [default: as --bitrate]
    #[arg(long, value_name = "KBPS", value_parser = kbps())]
    pub max_bitrate: Option<u32>,
    /// Send and accept forward error correction (ULPFEC) for video: for paths on which retransmissions come too
    /// late
    #[arg(long, action = ArgAction::SetTrue)]
    pub fec: Flag,
    /// Remove the loudspeaker's echo and noise from the microphone's audio, and level it; --no-echo-cancel sends it
    /// unchanged
    #[arg(long, action = ArgAction::SetTrue, default_value_t = Flag::On)]
    pub echo_cancel: Flag,
    /// Send no media
    #[arg(long, action = ArgAction::SetTrue)]
    pub receive_only: Flag,
}

impl SendOptions {
    /// Returns the options of a client that sends nothing.
    pub fn nothing() -> Self {
        Self {
            video: None,
            audio: None,
            device: None,
            audio_device: None,
            video_codec: vec![],
            audio_codec: vec![],
            encoder: None,
            size: None,
            fps: 30,
            bitrate: None,
            min_bitrate: None,
            max_bitrate: None,
            fec: Flag::Off,
            echo_cancel: Flag::On,
            receive_only: Flag::On,
        }
    }

    /// Returns the preferred codecs of both kinds, the most preferred first.
    pub fn codecs(&self) -> Vec<Codec> {
        self.video_codec.iter().chain(&self.audio_codec).copied().collect()
    }

    /// Returns the configuration of a source.
    pub fn source(&self, source: String, device: Option<String>, voice: Voice) -> SourceConfig {
        SourceConfig { source, device, size: self.size, fps: self.fps, voice }
    }

    /// Sets the options that each connection reads.
    pub fn configure(&self, peer: &mut PeerConfig) {
        peer.fec = self.fec.is_on();
    }

    /// Returns the bounds of the video bitrate, in bit/s.
    pub fn rates(&self) -> Result<Rates, BitrateError> {
        let (start, least, most) = (self.bitrate, self.min_bitrate, self.max_bitrate);
        let most_or = most.or(start).unwrap_or(INITIAL.max(least.unwrap_or(0)));
        let least_or = least.unwrap_or(MINIMUM.min(most_or));
        let begin = start.unwrap_or(INITIAL.clamp(least_or.min(most_or), most_or));
        if least_or > most_or || !(least_or..=most_or).contains(&begin) {
            return Err(BitrateError { minimum: least_or, initial: begin, maximum: most_or });
        }
        let passed = most.map_or(u32::MAX, |most| most * 1000);
        Ok(Rates { least: least_or * 1000, start: begin * 1000, most: most_or * 1000, passed })
    }
}

/// Bitrates that are not in ascending order, in kbit/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a minimum bitrate of {minimum}, an initial one of {initial} and a maximum of {maximum} kbit/s contradict each other: \
     they must be in ascending order"
)]
pub struct BitrateError {
    /// Minimum bitrate.
    pub minimum: u32,
    /// Initial bitrate.
    pub initial: u32,
    /// Maximum bitrate.
    pub maximum: u32,
}

/// Parses a bitrate in kbit/s.
fn kbps() -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(30..=100_000)
}

/// Parses the name of a codec of one kind.
fn codec(kind: Kind, text: &str) -> Result<Codec, String> {
    match text.parse::<Codec>()? {
        codec if codec.kind() == kind => Ok(codec),
        codec => Err(format!("{codec} is no {kind} codec")),
    }
}

/// Parses a frame size, `WIDTHxHEIGHT` in pixels.
fn size(text: &str) -> Result<(u32, u32), String> {
    let parsed = text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    let fits = |n: &u32| (16..=8192).contains(n) && n.is_multiple_of(2);
    parsed.filter(|(width, height)| fits(width) && fits(height)).ok_or_else(|| {
        format!("'{text}' is not a frame size: two even numbers from 16 to 8192, as in 1280x720")
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Probe {
        #[command(flatten)]
        send: SendOptions,
    }

    type Bitrates = (Option<u32>, Option<u32>, Option<u32>);

    fn rates((min_bitrate, bitrate, max_bitrate): Bitrates) -> Result<Rates, BitrateError> {
        let send = Probe::try_parse_from(["probe"]).unwrap().send;
        SendOptions { min_bitrate, bitrate, max_bitrate, ..send }.rates()
    }

    #[test]
    fn one_bitrate_determines_the_others() {
        for (options, expected) in [
            ((None, None, None), (50, 1500, 1500)),
            ((None, Some(800), None), (50, 800, 800)),
            ((None, Some(40), None), (40, 40, 40)),
            ((None, None, Some(4000)), (50, 1500, 4000)),
            ((None, None, Some(300)), (50, 300, 300)),
            ((Some(2000), None, None), (2000, 2000, 2000)),
            ((Some(100), Some(200), Some(300)), (100, 200, 300)),
        ] {
            let found = rates(options).unwrap();
            assert_eq!((found.least / 1000, found.start / 1000, found.most / 1000), expected, "{options:?}");
        }
        for wrong in [(Some(2000), Some(1000), None), (None, Some(2000), Some(1000))] {
            assert!(rates(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn sizes_and_codecs_are_checked() {
        assert_eq!(size("640x480"), Ok((640, 480)));
        for wrong in ["1x1", "641x480", "640", "x", "640x99999"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert!(codec(Kind::Video, "h264").is_ok());
        assert!(codec(Kind::Audio, "h264").unwrap_err().ends_with("is no audio codec"));
    }
}
