//! Starts the media that the options select: sources with their fallbacks, encoders, outputs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use smol::channel::{Receiver, Sender, bounded};

use super::bridge::Bridge;
use super::ice::Ice;
use super::options::{MediaOptions, NONE, ReceiveOptions, SendOptions};
use super::trace::Trace;
use super::{Event, Sink};
use crate::media::capture::MICROPHONES;
use crate::media::inventory::Codecs;
use crate::media::peer::PeerConfig;
use crate::media::receive::grid::{Mix, MixConfig};
use crate::media::receive::recorder::Recorded;
use crate::media::voice::{Reference, Voice};
use crate::media::webrtc::data_channel::ChannelConfig;
use crate::media::{Capture, Encoders, MediaError, Stream, inventory, output};
use crate::sdp::Kind;
use crate::session::Terms;

/// The label of the data channel that carries the chat.
const CHAT: &str = "chat";

/// Peer name in the events of a recording that mixes all peers.
pub(super) const ALL: &str = "all";

/// Sources and encoders that stopped and are not reported yet.
const MAX_FAILURES: usize = 16;

/// Running media, ready for peers.
#[derive(Debug)]
pub struct MediaSetup {
    options: MediaOptions,
    pub(super) peer: PeerConfig,
    encoders: Arc<Encoders>,
    pub(super) bridges: Vec<Arc<Bridge>>,
    pub(super) trace: Option<Arc<Trace>>,
    /// Outputs of each peer's own media.
    outputs: Outputs,
    /// Played audio, which echo cancellation removes from the audio that is sent.
    pub(super) reference: Option<Arc<Reference>>,
    pub(super) record: Option<PathBuf>,
    pub(super) stats: Option<Duration>,
    pub(super) mix: Option<Arc<Mix>>,
    pub(super) ice: Arc<Ice>,
    failed: Sender<String>,
    /// Sources and encoders that stopped.
    pub(super) failures: Receiver<String>,
}

impl MediaSetup {
    /// Starts sources, encoders and common outputs. Fails where an option cannot work, before any call.
    pub async fn start(options: &MediaOptions, sink: &Sink) -> Result<Self, MediaError> {
        let MediaOptions { send, receive, connection, .. } = options;
        let trace = connection.trace_setup.is_on().then(|| Arc::new(Trace::new(sink.clone())));
        let step = |words: &str| trace.iter().for_each(|trace| trace.step(None, words, None));
        prepare(receive)?;
        step("GStreamer is loaded");
        let ice = Ice::start(options.paths.clone(), sink).await?;
        let (failed, failures) = bounded(MAX_FAILURES);
        let outputs = Outputs::new(receive, sink)?;
        let reference = outputs.reference(send)?;
        let stream = start_sources(send, reference.as_deref(), &failed, sink).await?;
        step("the sources run");
        let encoders = stream.encoders.clone();
        let codecs = start_encoders(send, &encoders)?;
        step("the encoders run");
        let (mix, outputs) = outputs.start_mix(receive, reference.as_ref(), &failed)?;
        if let Some(path) = mix.as_ref().and_then(|mix| mix.recording()) {
            sink(&Event::recording(ALL, &path));
        }
        let mut bridges = Vec::new();
        for config in &options.channels.channel {
            bridges.push(Arc::new(Bridge::start(config.clone()).await?));
        }
        let mut peer = PeerConfig {
            streams: vec![stream],
            chat: Some(ChannelConfig::reliable(CHAT)),
            channels: bridges.iter().map(|bridge| bridge.channel().clone()).collect(),
            codecs: codecs.all,
            preferred: codecs.preferred,
            ice: ice.config(),
            ..PeerConfig::default()
        };
        send.configure(&mut peer);
        receive.configure(&mut peer);
        Ok(Self {
            options: options.clone(),
            peer,
            encoders,
            bridges,
            trace,
            outputs,
            reference,
            record: receive.record.clone(),
            stats: connection.stats(),
            mix,
            ice: Arc::new(ice),
            failed,
            failures,
        })
    }

    /// Returns the longest search for a new path that the options name, if any.
    pub(super) fn give_up(&self) -> Option<Duration> {
        self.options.connection.give_up()
    }

    /// Returns the rules by which connections negotiate, as the polite side.
    pub(super) fn terms(&self) -> Terms {
        let terms = Terms::new(true, self.peer.wanted());
        let drops_added_lines = crate::media::forgets_offers();
        Terms {
            mdns: self.ice.mdns(),
            reach: self.ice.reach(),
            patience: self.options.connection.patience(),
            drops_added_lines,
            ..terms
        }
    }

    /// Completes the mixed recording of all peers; returns `None` if there is none.
    pub async fn finish(&self) -> Option<Recorded> {
        match &self.mix {
            Some(mix) => mix.finish().await,
            None => None,
        }
    }

    /// Returns the output of each peer's own media; `None` if the kind is not output, or all peers are output together.
    pub(super) fn own_output(&self, kind: Kind) -> Option<&str> {
        match kind {
            Kind::Video => self.outputs.show.as_deref(),
            Kind::Audio => self.outputs.play.as_deref(),
        }
    }

    /// Mutes or unmutes the source of a kind: silence or black video is sent in its place. Returns false if nothing of the
    /// kind is sent.
    pub fn set_muted(&self, kind: Kind, muted: bool) -> bool {
        self.encoders.set_muted(kind, muted)
    }

    /// Returns whether the source of a kind is muted.
    pub fn is_muted(&self, kind: Kind) -> bool {
        self.encoders.is_muted(kind)
    }

    /// Replaces the source of a kind for all peers. Returns false if nothing of the kind is sent.
    pub async fn switch(
        &self,
        kind: Kind,
        source: String,
        device: Option<String>,
    ) -> Result<bool, MediaError> {
        if !self.encoders.has(kind) {
            return Ok(false);
        }
        let send = &self.options.send;
        let voice = voice(&source, send, self.reference.as_deref());
        let config = send.source(source, device, voice);
        let capture = Capture::start(kind, &config, self.failed.clone()).await?;
        self.encoders.replace(capture)
    }
}

/// Loads GStreamer, checks that it has what every call needs, and creates the folders of recordings.
fn prepare(receive: &ReceiveOptions) -> Result<(), MediaError> {
    crate::media::init()?;
    crate::media::warm_up();
    inventory::check()?;
    check_folders(receive.record.as_deref(), receive.record_mix.as_deref())
}

/// Outputs of received media; absent if the kind is not output.
#[derive(Debug)]
struct Outputs {
    show: Option<String>,
    play: Option<String>,
}

impl Outputs {
    /// Selects the outputs: those of the options, or the defaults where this machine has them. Fails if an output does
    /// not exist.
    fn new(receive: &ReceiveOptions, sink: &Sink) -> Result<Self, MediaError> {
        let missing = "no display: video is not shown";
        let show = chosen(receive.show(), "window", inventory::has_display, missing, sink);
        let missing = "no sound card: audio is not played";
        let play = chosen(receive.play(), "speaker", inventory::has_speaker, missing, sink);
        for (kind, output) in [(Kind::Video, &show), (Kind::Audio, &play)] {
            output.as_ref().map_or(Ok(()), |output| output::check(kind, output))?;
        }
        Ok(Self { show, play })
    }

    /// Starts to collect played audio, if it is to be removed from the audio that is sent.
    fn reference(&self, send: &SendOptions) -> Result<Option<Arc<Reference>>, MediaError> {
        match send.echo_cancel.is_on() && !send.receive_only.is_on() && self.play.is_some() {
            true => Reference::start(),
            false => Ok(None),
        }
    }

    /// Starts the outputs and the recording of all peers together, if there are any. Returns them with the outputs that
    /// remain for each peer.
    fn start_mix(
        self,
        receive: &ReceiveOptions,
        reference: Option<&Arc<Reference>>,
        failed: &Sender<String>,
    ) -> Result<(Option<Arc<Mix>>, Self), MediaError> {
        let is_together = |output: &String| receive.together && !output.contains("{peer}");
        let config = MixConfig {
            show: self.show.clone().filter(is_together),
            play: self.play.clone().filter(is_together),
            record: receive.record_mix.clone().filter(|_| !receive.send_only.is_on()),
        };
        let remaining = Self {
            show: self.show.filter(|_| config.show.is_none()),
            play: self.play.filter(|_| config.play.is_none()),
        };
        let mix = match config == MixConfig::default() {
            true => None,
            false => Some(Arc::new(Mix::start(&config, reference, failed)?)),
        };
        Ok((mix, remaining))
    }
}

/// Starts the sources of the media that is sent.
async fn start_sources(
    send: &SendOptions,
    reference: Option<&Reference>,
    failed: &Sender<String>,
    sink: &Sink,
) -> Result<Stream, MediaError> {
    let rates = send.rates().map_err(|error| MediaError::Parameter(error.to_string()))?;
    let mut sources = Vec::new();
    for kind in Kind::ALL.into_iter().filter(|_| !send.receive_only.is_on()) {
        if let Some((source, device)) = source(kind, send, sink) {
            let voice = voice(&source, send, reference);
            sources.push((kind, send.source(source, device, voice)));
        }
    }
    let captures = Stream::sources(&sources, failed).await?;
    let encoders = Encoders::new(captures, rates, failed.clone());
    Ok(Stream::new(encoders.with_element(send.encoder.clone())))
}

/// Starts the preferred encoder of each kind before the first peer comes, so that its first frame does not wait for
/// them. Returns the codecs that work here.
fn start_encoders(send: &SendOptions, encoders: &Encoders) -> Result<Codecs, MediaError> {
    // Media that is encoded already is passed on unless the options name a codec or an encoder.
    let mut wanted = send.codecs();
    let is_free = send.encoder.is_none() && send.video_codec.is_empty();
    wanted.extend(encoders.passed_codec(Kind::Video).filter(|_| is_free));
    let codecs = inventory::codecs(&wanted, send.encoder.as_deref())?;
    for kind in Kind::ALL.into_iter().filter(|kind| encoders.has(*kind)) {
        let first = codecs.all.iter().find(|codec| codec.kind() == kind);
        first.map_or(Ok(()), |codec| encoders.keep(*codec))?;
    }
    Ok(codecs)
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

/// Returns the source of a kind and its device; `None` if the user wants no source. The default is a camera or
/// microphone; without one it is the test video or tone, of which the user is warned.
fn source(kind: Kind, options: &SendOptions, sink: &Sink) -> Option<(String, Option<String>)> {
    let (wanted, device, real, fallback, missing) = match kind {
        Kind::Video => (
            &options.video,
            options.device.clone(),
            "camera",
            "test",
            "no camera found: a test video is sent",
        ),
        // A file or an address may contain video and audio.
        Kind::Audio => {
            let shared = ["file", "rtsp"].iter().any(|name| options.audio.as_deref() == Some(name));
            let device = options.audio_device.clone().or_else(|| options.device.clone().filter(|_| shared));
            let missing = "no microphone found: a test tone is sent";
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
            return Some((fallback.to_owned(), None));
        }
    };
    Some((source, device))
}

/// Returns the processing of a source's audio.
fn voice(source: &str, send: &SendOptions, reference: Option<&Reference>) -> Voice {
    let is_treated =
        MICROPHONES.contains(&source) && send.echo_cancel.is_on() && inventory::is_installed("webrtcdsp");
    match reference {
        _ if !is_treated => Voice::AsItIs,
        None => Voice::Clean,
        Some(reference) => Voice::WithoutEcho(reference.name().to_owned()),
    }
}

/// Returns the output that the user chose, or the default if this machine has it; `None` for no output.
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
