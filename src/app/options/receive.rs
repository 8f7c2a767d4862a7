//! Options of the media that a client receives.

use std::path::PathBuf;
use std::time::Duration;

use clap::ArgAction;

use crate::base::flag::Flag;
use crate::media::peer::PeerConfig;
use crate::media::receive::playout_delay::{FIXED_MAX, Latency};
use crate::sdp::Kind;

/// The word for no source or no output.
pub const NONE: &str = "none";

/// Use of the media that a client receives. An output is the name of a file in `pipelines/output`, the text of a
/// pipeline, or [`NONE`].
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Receiving")]
pub struct ReceiveOptions {
    /// Output of received video [default: window; none without a display]
    #[arg(long, value_name = "window|none|PIPELINE")]
    pub show: Option<String>,
    /// Output of received audio [default: speaker; none without a sound card]
    #[arg(long, value_name = "speaker|none|PIPELINE")]
    pub play: Option<String>,
    /// Neither show video nor play audio
    #[arg(long, action = ArgAction::SetTrue)]
    pub headless: Flag,
    /// Record the media of each peer into a Matroska file in this folder, without encoding it again
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,
    /// Record all peers together into this Matroska file: their video in a grid, their audio mixed
    #[arg(long, value_name = "FILE")]
    pub record_mix: Option<PathBuf>,
    /// Playout delay: adapted to the network (auto), or fixed, in ms
    #[arg(long, value_name = "auto|MS", default_value = "auto", value_parser = latency)]
    pub latency: Latency,
    /// Receive no media
    #[arg(long, action = ArgAction::SetTrue)]
    pub send_only: Flag,
    /// Shows all peers in one window and plays them through one speaker, unless an output contains `{peer}`. Set by the
    /// command: rooms do so, calls do not.
    #[arg(skip)]
    pub together: bool,
}

impl ReceiveOptions {
    /// Returns the options of a client that receives nothing.
    pub fn nothing() -> Self {
        Self {
            show: None,
            play: None,
            headless: Flag::Off,
            record: None,
            record_mix: None,
            latency: Latency::Auto,
            send_only: Flag::On,
            together: false,
        }
    }

    /// Returns the output of video; `None` selects the default.
    pub fn show(&self) -> Option<&str> {
        self.output(&self.show)
    }

    /// Returns the output of audio; `None` selects the default.
    pub fn play(&self) -> Option<&str> {
        self.output(&self.play)
    }

    /// Sets the options that each connection reads.
    pub fn configure(&self, peer: &mut PeerConfig) {
        peer.receive = if self.send_only.is_on() { vec![] } else { Kind::ALL.to_vec() };
        peer.latency = self.latency;
    }

    fn output<'a>(&self, wanted: &'a Option<String>) -> Option<&'a str> {
        match wanted.as_deref() {
            _ if self.send_only.is_on() => Some(NONE),
            None if self.headless.is_on() => Some(NONE),
            wanted => wanted,
        }
    }
}

/// Parses a playout delay: `auto` or a number of ms.
fn latency(text: &str) -> Result<Latency, String> {
    let fixed = || text.parse().ok().map(Duration::from_millis).filter(|delay| *delay <= FIXED_MAX);
    match text {
        "auto" => Ok(Latency::Auto),
        _ => fixed().map(Latency::Fixed).ok_or_else(|| {
            format!("'{text}' is neither auto nor a number of ms up to {}", FIXED_MAX.as_millis())
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_playout_delay_is_auto_or_a_number_of_ms() {
        assert_eq!(latency("auto"), Ok(Latency::Auto));
        assert_eq!(latency("0"), Ok(Latency::Fixed(Duration::ZERO)));
        assert_eq!(latency("5000"), Ok(Latency::Fixed(Duration::from_secs(5))));
        for wrong in ["", "5001", "-1", "1.5", "slow"] {
            assert!(latency(wrong).is_err(), "{wrong}");
        }
    }
}
