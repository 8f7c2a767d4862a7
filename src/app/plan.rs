//! From the user's choice of media to what runs: sources with their fallbacks, codecs, outputs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use smol::channel::{Receiver, Sender, bounded};

use super::bridge::Bridge;
use super::ice::Ice;
use super::options::{MediaOptions, NONE, SendOptions};
use super::trace::Trace;
use super::{Event, Sink};
use crate::media::capture::{MICROPHONES, SourceConfig};
use crate::media::channel::ChannelConfig;
use crate::media::peer::PeerConfig;
use crate::media::record::Recorded;
use crate::media::stage::{Stage, StageConfig};
use crate::media::voice::{Reference, Voice};
use crate::media::{Capture, Encoders, MediaError, Stream, inventory, output};
use crate::sdp::Kind;
use crate::session::{Patience, Terms};

/// The label of the data channel that carries the chat.
const CHAT: &str = "chat";

/// Peer name in the events of a recording that mixes all peers.
pub(super) const ALL: &str = "all";

/// Running media, ready for peers.
#[derive(Debug)]
pub struct MediaPlan {
    pub(super) peer: PeerConfig,
    encoders: Arc<Encoders>,
    pub(super) bridges: Vec<Arc<Bridge>>,
    pub(super) trace: Option<Arc<Trace>>,
    /// Where the pictures of each peer go, where they do not go to the stage; and its sound.
    show: Option<String>,
    play: Option<String>,
    /// What is played, for it to be taken out of what is sent.
    pub(super) reference: Option<Arc<Reference>>,
    echo_cancel: bool,
    pub(super) record: Option<PathBuf>,
    pub(super) stats: Option<Duration>,
    pub(super) stage: Option<Arc<Stage>>,
    pub(super) ice: Arc<Ice>,
    patience: Patience,
    size: Option<(u32, u32)>,
    fps: u32,
    failed: Sender<String>,
    /// Sources and encoders that stopped.
    pub(super) failures: Receiver<String>,
}

impl MediaPlan {
    /// Starts the sources, and refuses what cannot work before any call.
    pub async fn start(options: &MediaOptions, sink: &Sink) -> Result<Self, MediaError> {
        let trace = options.connection.trace_setup.then(|| Arc::new(Trace::new(sink.clone())));
        let MediaOptions { send, receive, connection, .. } = options;
        let rates = send.rates().map_err(|error| MediaError::Parameter(error.to_string()))?;
        let step = |words: &str| trace.iter().for_each(|trace| trace.step(None, words, None));
        crate::media::init()?;
        crate::media::warm_up();
        inventory::check()?;
        check_folders(receive.record.as_deref(), receive.record_mix.as_deref())?;
        step("GStreamer is loaded");
        let ice = Ice::start(options.paths.clone(), sink).await?;
        let (failed, failures) = bounded(16);
        let show = chosen(
            receive.show(),
            "window",
            inventory::has_display,
            "no display: pictures are not shown",
            sink,
        );
        let play = chosen(
            receive.play(),
            "speaker",
            inventory::has_speaker,
            "no sound card: sound is not played",
            sink,
        );
        for (kind, output) in [(Kind::Video, &show), (Kind::Audio, &play)] {
            if let Some(output) = output {
                output::check(kind, output)?;
            }
        }
        let hears = send.echo_cancel && !send.receive_only && play.is_some();
        let reference = if hears { Reference::start()? } else { None };
        let mut sources = Vec::new();
        for kind in Kind::ALL.into_iter().filter(|_| !send.receive_only) {
            if let Some(mut config) = source(kind, send, sink) {
                config.voice = voice(&config.source, send.echo_cancel, reference.as_deref());
                sources.push((kind, config));
            }
        }
        let captures = Stream::sources(&sources, &failed).await?;
        step("the sources run");
        let encoders = Encoders::new(captures, rates, failed.clone());
        let stream = Stream::new(encoders.with_element(send.encoder.clone()));
        let encoders = stream.encoders.clone();
        // What is encoded already is passed on, where nothing else is wanted.
        let mut wanted = send.codecs();
        let is_free = send.encoder.is_none() && wanted.iter().all(|codec| codec.kind() != Kind::Video);
        wanted.extend(encoders.passed_codec(Kind::Video).filter(|_| is_free));
        let codecs = inventory::codecs(&wanted, send.encoder.as_deref())?;
        // The encoders run before the first peer comes: its first frame need not wait for them.
        for kind in Kind::ALL.into_iter().filter(|kind| encoders.has(*kind)) {
            let first = codecs.all.iter().find(|codec| codec.kind() == kind);
            first.map_or(Ok(()), |codec| encoders.keep(*codec))?;
        }
        step("the encoders run");
        let received = if receive.send_only { vec![] } else { Kind::ALL.to_vec() };
        let together = |output: &Option<String>| {
            output
                .clone()
                .filter(|output| receive.together && !output.contains("{peer}") && !receive.send_only)
        };
        let stage = StageConfig {
            show: together(&show),
            play: together(&play),
            record: receive.record_mix.clone().filter(|_| !receive.send_only),
        };
        let show = show.filter(|_| stage.show.is_none());
        let play = play.filter(|_| stage.play.is_none());
        let stage = match stage == StageConfig::default() {
            true => None,
            false => Some(Arc::new(Stage::start(&stage, reference.as_ref(), &failed)?)),
        };
        if let Some(path) = stage.as_ref().and_then(|stage| stage.recording()) {
            sink(&Event::recording(ALL, &path));
        }
        let mut bridges = Vec::new();
        for config in &options.channels.channel {
            bridges.push(Arc::new(Bridge::start(config.clone()).await?));
        }
        let wanted = bridges.iter().map(|bridge| bridge.channel().clone());
        let peer = PeerConfig {
            streams: vec![stream],
            chat: Some(ChannelConfig::reliable(CHAT)),
            channels: wanted.collect(),
            receive: received,
            codecs: codecs.all,
            preferred: codecs.preferred,
            fec: send.fec,
            ice: ice.config(),
            latency: receive.latency,
        };
        Ok(Self {
            peer,
            encoders,
            bridges,
            trace,
            show,
            play,
            reference,
            echo_cancel: send.echo_cancel,
            record: receive.record.clone(),
            stats: connection.stats(),
            stage,
            ice: Arc::new(ice),
            patience: connection.patience(),
            size: send.size,
            fps: send.fps,
            failed,
            failures,
        })
    }

    /// How connections negotiate, whoever is polite.
    pub(super) fn terms(&self) -> Terms {
        let terms = Terms::new(true, self.peer.wanted());
        let forgets = crate::media::forgets_offers();
        Terms { mdns: self.ice.mdns(), reach: self.ice.reach(), patience: self.patience, forgets, ..terms }
    }

    /// Completes the mixed recording of all peers; returns `None` if there is none.
    pub async fn finish(&self) -> Option<Recorded> {
        match &self.stage {
            Some(stage) => stage.finish().await,
            None => None,
        }
    }

    /// The output of one peer alone, where not all are together.
    pub(super) fn own_output(&self, kind: Kind) -> Option<&str> {
        match kind {
            Kind::Video => self.show.as_deref(),
            Kind::Audio => self.play.as_deref(),
        }
    }

    /// Sends silence or black of a kind from now on, or its source again; false where nothing is sent.
    pub fn set_muted(&self, kind: Kind, muted: bool) -> bool {
        self.encoders.set_muted(kind, muted)
    }

    /// Whether silence or black is sent.
    pub fn is_muted(&self, kind: Kind) -> bool {
        self.encoders.is_muted(kind)
    }

    /// Sends another source to all peers from now on; false where nothing of the kind is sent.
    pub async fn switch(
        &self,
        kind: Kind,
        source: String,
        device: Option<String>,
    ) -> Result<bool, MediaError> {
        if !self.encoders.has(kind) {
            return Ok(false);
        }
        let voice = voice(&source, self.echo_cancel, self.reference.as_deref());
        let config = SourceConfig { source, device, size: self.size, fps: self.fps, voice };
        let capture = Capture::start(kind, &config, self.failed.clone()).await?;
        self.encoders.replace(capture)
    }
}

/// Creates the folders of the recordings; fails before any call if a folder is not writable.
fn check_folders(record: Option<&Path>, mix: Option<&Path>) -> Result<(), MediaError> {
    let mix = mix.and_then(Path::parent);
    let mix = mix.filter(|folder| !folder.as_os_str().is_empty());
    for folder in record.into_iter().chain(mix) {
        let probe = folder.join(format!(".roomtone-{}", std::process::id()));
        let written = std::fs::create_dir_all(folder)
            .and_then(|()| File::options().write(true).create_new(true).open(&probe))
            .and_then(|_| std::fs::remove_file(&probe));
        written.map_err(|error| MediaError::Record {
            path: folder.display().to_string(),
            reason: error.to_string(),
        })?;
    }
    Ok(())
}

fn warn(sink: &Sink, text: &str) {
    sink(&Event::Warning { text: text.to_owned() });
}

/// The source of a kind; none where the user wants none. By default a camera or microphone, or else
/// the test picture or tone, with a word about it.
fn source(kind: Kind, options: &SendOptions, sink: &Sink) -> Option<SourceConfig> {
    let of = |source, device| SourceConfig {
        source,
        device,
        size: options.size,
        fps: options.fps,
        voice: Voice::AsItIs,
    };
    let (wanted, device, real, fallback, missing) = match kind {
        Kind::Video => (
            &options.video,
            options.device.clone(),
            "camera",
            "test",
            "no camera: the test picture is sent (--video chooses another source)",
        ),
        // A file or an address holds both.
        Kind::Audio => {
            let shared = ["file", "rtsp"].iter().any(|name| options.audio.as_deref() == Some(name));
            let device = options.audio_device.clone().or_else(|| options.device.clone().filter(|_| shared));
            let missing = "no microphone: a test tone is sent (--audio chooses another source)";
            (&options.audio, device, "microphone", "tone", missing)
        }
    };
    let source = match wanted.as_deref() {
        Some(NONE) => return None,
        Some(source) => source.to_owned(),
        None if device.is_some() || inventory::sources().iter().any(|device| device.kind == kind) => {
            real.to_owned()
        }
        None => {
            warn(sink, missing);
            return Some(of(fallback.into(), None));
        }
    };
    Some(of(source, device))
}

/// What becomes of the sound of a source.
fn voice(source: &str, echo_cancel: bool, reference: Option<&Reference>) -> Voice {
    let is_treated = MICROPHONES.contains(&source) && echo_cancel && inventory::is_installed("webrtcdsp");
    match reference {
        _ if !is_treated => Voice::AsItIs,
        None => Voice::Clean,
        Some(reference) => Voice::WithoutEcho(reference.name().to_owned()),
    }
}

/// An output: what the user said, or the default where this machine has it.
fn chosen(
    said: Option<&str>,
    default: &str,
    is_there: impl FnOnce() -> bool,
    missing: &str,
    sink: &Sink,
) -> Option<String> {
    match said {
        Some(NONE) => None,
        Some(said) => Some(said.to_owned()),
        None if is_there() => Some(default.to_owned()),
        None => {
            warn(sink, missing);
            None
        }
    }
}
