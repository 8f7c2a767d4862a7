//! Options of the media that a client sends and receives.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::app::bridge::{BridgeConfig, End};
use crate::app::ice::IceOptions;
use crate::app::{MediaOptions, Patience};
use crate::cli::{CliError, output, run};
use crate::media::Rates;
use crate::media::playout::Latency;
use crate::sdp::{Codec, Kind};

/// Options of media.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Media")]
pub(crate) struct MediaArgs {
    /// What to send: a source's name, a pipeline in gst-launch words, or none
    /// [default: camera; test where there is none]
    #[arg(long, value_name = "NAME|PIPELINE|none", env = "ROOMTONE_VIDEO")]
    pub video: Option<String>,
    /// The same for sound [default: microphone; tone where there is none]
    #[arg(long, value_name = "NAME|PIPELINE|none", env = "ROOMTONE_AUDIO")]
    pub audio: Option<String>,
    /// The source's device, file or address (`roomtone devices` lists devices)
    #[arg(long, value_name = "ID", env = "ROOMTONE_DEVICE")]
    pub device: Option<String>,
    /// The same for sound
    #[arg(long, value_name = "ID", env = "ROOMTONE_AUDIO_DEVICE")]
    pub audio_device: Option<String>,
    /// The codecs to prefer, the best first: vp8, h264, vp9, av1, h265; those that are not named come after
    /// them, and where the peer lacks one the next is taken [default: vp8]
    #[arg(long, value_name = "CODEC,...", env = "ROOMTONE_VIDEO_CODEC")]
    pub video_codec: Option<String>,
    /// The same for sound: opus, pcmu, pcma [default: opus]
    #[arg(long, value_name = "CODEC,...", env = "ROOMTONE_AUDIO_CODEC")]
    pub audio_codec: Option<String>,
    /// The element to encode with, where it encodes what is agreed (`roomtone codecs` lists them)
    /// [default: hardware where there is some, else software]
    #[arg(long, value_name = "ELEMENT", env = "ROOMTONE_ENCODER")]
    pub encoder: Option<String>,
    /// The picture's size [default: the source's, at most 1280x720]
    #[arg(long, value_name = "WxH", env = "ROOMTONE_SIZE")]
    pub size: Option<String>,
    /// Frames a second [default: 30]
    #[arg(long, value_name = "N", env = "ROOMTONE_FPS", value_parser = clap::value_parser!(u32).range(1..=120))]
    pub fps: Option<u32>,
    /// The pictures' bitrate to begin with, in kbit/s; it follows the network from there [default: 1500, or
    /// the bounds below]
    #[arg(long, value_name = "KBPS", env = "ROOMTONE_BITRATE", value_parser = clap::value_parser!(u32).range(30..=100_000))]
    pub bitrate: Option<u32>,
    /// Never less, in kbit/s, however bad the network is [default: 50]
    #[arg(long, value_name = "KBPS", env = "ROOMTONE_MIN_BITRATE", value_parser = clap::value_parser!(u32).range(30..=100_000))]
    pub min_bitrate: Option<u32>,
    /// Never more, in kbit/s; the same as --min-bitrate: always this one [default: as --bitrate]
    #[arg(long, value_name = "KBPS", env = "ROOMTONE_MAX_BITRATE", value_parser = clap::value_parser!(u32).range(30..=100_000))]
    pub max_bitrate: Option<u32>,
    /// Send pictures with error correction (ULPFEC), and take it: for paths on which asking again takes too long
    #[arg(long, env = "ROOMTONE_FEC", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL")]
    pub fec: Option<bool>,
    /// Send what the microphone hears as it is. Else the echo of what the speaker plays is taken out of it, and noise, and
    /// it is brought to one level
    #[arg(long, env = "ROOMTONE_NO_ECHO_CANCEL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL")]
    pub no_echo_cancel: Option<bool>,
    /// Where received pictures go [default: window; none without a display]
    #[arg(long, value_name = "window|none|PIPELINE", env = "ROOMTONE_SHOW")]
    pub show: Option<String>,
    /// Where received sound goes [default: speaker; none without a sound card]
    #[arg(long, value_name = "speaker|none|PIPELINE", env = "ROOMTONE_PLAY")]
    pub play: Option<String>,
    /// Record what each peer sends into a Matroska file in this folder, without encoding it again
    #[arg(long, value_name = "DIR", env = "ROOMTONE_RECORD")]
    pub record: Option<PathBuf>,
    /// Record all together into this Matroska file: the grid of a room, and the mixed sound
    #[arg(long, value_name = "FILE", env = "ROOMTONE_RECORD_MIX")]
    pub record_mix: Option<PathBuf>,
    /// Open a data channel and join it to stdin and stdout, a file or a TCP port of this machine; may be
    /// given more than once
    ///
    /// A label, and after it options, each behind a colon: ordered, unordered, retransmits=N (how often a
    /// lost message is sent again), lines (each line is a text message), and one of tcp=PORT (connect to
    /// it), listen=PORT (join who connects to it), send=FILE, save=FILE. Without one of these it is stdin
    /// and stdout, and commands are not read from stdin. A channel ends with its file, connection or stdin,
    /// and when the peer closes it.
    #[arg(long, value_name = "LABEL[:OPTION]...")]
    pub channel: Option<Vec<String>>,
    /// Show and play nothing
    #[arg(long, env = "ROOMTONE_HEADLESS", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL")]
    pub headless: Option<bool>,
    /// Take nothing of the peer
    #[arg(long, env = "ROOMTONE_SEND_ONLY", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL", conflicts_with = "receive_only")]
    pub send_only: Option<bool>,
    /// Send nothing
    #[arg(long, env = "ROOMTONE_RECEIVE_ONLY", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL")]
    pub receive_only: Option<bool>,
    /// How long what comes waits to be put in order: as the network wants it, or so many ms [default: auto]
    #[arg(long, value_name = "auto|MS", env = "ROOMTONE_LATENCY")]
    pub latency: Option<String>,
    /// How many seconds nothing may come of a peer until a new path to it is looked for [default: 4]
    #[arg(long, value_name = "SECONDS", env = "ROOMTONE_RECONNECT_AFTER", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub reconnect_after: Option<u32>,
    /// How many seconds a path is looked for until the call ends [default: 30]
    #[arg(long, value_name = "SECONDS", env = "ROOMTONE_GIVE_UP_AFTER", value_parser = clap::value_parser!(u32).range(1..=86400))]
    pub give_up_after: Option<u32>,
    /// Tell the counters of the call every so many seconds
    #[arg(long, value_name = "SECONDS", env = "ROOMTONE_STATS")]
    pub stats: Option<f64>,
    /// Tell each step on the way to a call, with the time since the start
    #[arg(long, env = "ROOMTONE_TRACE_SETUP", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL")]
    pub trace_setup: Option<bool>,
}

fn size(text: &str) -> Result<(u32, u32), CliError> {
    let parsed = text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    let fits = |n: &u32| (16..=8192).contains(n) && n.is_multiple_of(2);
    parsed.filter(|(width, height)| fits(width) && fits(height)).ok_or_else(|| {
        CliError::Usage(format!("'{text}' is no size: two even numbers from 16 to 8192, as in 1280x720"))
    })
}

fn latency(text: &str) -> Result<Latency, CliError> {
    let fixed = || text.parse().ok().filter(|ms| (0..=5000).contains(ms)).map(Duration::from_millis);
    match text {
        "auto" => Ok(Latency::Auto),
        _ => fixed().map(Latency::Fixed).ok_or_else(|| {
            CliError::Usage(format!("--latency: '{text}' is neither auto nor a number of ms up to 5000"))
        }),
    }
}

pub(in crate::cli) fn media_options(args: &MediaArgs, ice: IceOptions) -> Result<MediaOptions, CliError> {
    let args: MediaArgs = args.clone();
    let headless = args.headless == Some(true);
    let channels: Result<Vec<BridgeConfig>, _> =
        args.channel.unwrap_or_default().iter().map(|text| text.parse()).collect();
    let channels = channels.map_err(|error| CliError::Usage(format!("--channel: {error}")))?;
    if uses_stdio(&channels)? {
        output::leave_stdout();
    }
    let nothing = || headless.then(|| "none".to_owned());
    Ok(MediaOptions {
        video: args.video,
        audio: args.audio,
        device: args.device,
        audio_device: args.audio_device,
        codecs: codecs(Kind::Video, args.video_codec)?
            .into_iter()
            .chain(codecs(Kind::Audio, args.audio_codec)?)
            .collect(),
        encoder: args.encoder,
        size: args.size.as_deref().map(size).transpose()?,
        fps: args.fps.unwrap_or(30).clamp(1, 120),
        rates: rates(args.bitrate, args.min_bitrate, args.max_bitrate)?,
        fec: args.fec == Some(true),
        untreated: args.no_echo_cancel == Some(true),
        show: args.show.or_else(nothing),
        play: args.play.or_else(nothing),
        record: args.record,
        record_mix: args.record_mix,
        together: false,
        receive_only: args.receive_only == Some(true),
        send_only: args.send_only == Some(true),
        stats: args.stats.filter(|s| s.is_finite() && *s > 0.0).map(Duration::from_secs_f64),
        ice,
        channels,
        trace: (args.trace_setup == Some(true)).then_some(*run::BEGAN),
        latency: args.latency.as_deref().map_or(Ok(Latency::Auto), latency)?,
        patience: Patience {
            quiet: Duration::from_secs(args.reconnect_after.unwrap_or(4).into()),
            give_up: Duration::from_secs(args.give_up_after.unwrap_or(30).into()),
        },
    })
}

/// A preference list of one kind.
fn codecs(kind: Kind, list: Option<String>) -> Result<Vec<Codec>, CliError> {
    let one = |text: &str| match text.parse::<Codec>() {
        Ok(codec) if codec.kind() == kind => Ok(codec),
        Ok(codec) => Err(CliError::Usage(format!("{codec} is no {kind} codec"))),
        Err(error) => Err(CliError::Usage(error)),
    };
    list.iter().flat_map(|list| list.split(',')).map(one).collect()
}

/// The bounds of the pictures' bitrate, from kbit/s.
fn rates(start: Option<u32>, least: Option<u32>, most: Option<u32>) -> Result<Rates, CliError> {
    const DEFAULT: u32 = 1500;
    const LEAST: u32 = 50;
    if let Some(wrong) =
        [start, least, most].into_iter().flatten().find(|rate| !(30..=100_000).contains(rate))
    {
        return Err(CliError::Usage(format!("a bitrate of {wrong} kbit/s: from 30 to 100000")));
    }
    let most_or = most.or(start).unwrap_or(DEFAULT.max(least.unwrap_or(0)));
    let least_or = least.unwrap_or(LEAST.min(most_or));
    let begin = start.unwrap_or(DEFAULT.clamp(least_or.min(most_or), most_or));
    if least_or > most_or || !(least_or..=most_or).contains(&begin) {
        return Err(CliError::Usage(format!(
            "--min-bitrate {least_or}, --bitrate {begin} and --max-bitrate {most_or} are not in this order"
        )));
    }
    let passed = most.map_or(u32::MAX, |most| most * 1000);
    Ok(Rates { least: least_or * 1000, start: begin * 1000, most: most_or * 1000, passed })
}

/// Whether a channel is joined to stdin and stdout, which only one can be.
fn uses_stdio(channels: &[BridgeConfig]) -> Result<bool, CliError> {
    let mut labels: Vec<&str> = channels.iter().map(|one| one.channel.label.as_str()).collect();
    labels.sort_unstable();
    if let Some(twice) = labels.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(CliError::Usage(format!("--channel: '{}' is there twice", twice[0])));
    }
    match channels.iter().filter(|one| one.end == End::Stdio).count() {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(CliError::Usage("--channel: only one can be joined to stdin and stdout".to_owned())),
    }
}
