//! Recording what a peer sends into a Matroska file, without encoding it again.
//!
//! The tracks of a file are fixed when its first frames are written, and its muxer waits for each track. A [`Recorder`]
//! therefore collects tracks until [`Recorder::begin`], and leaves out a track that stops for long. If it lacks a track
//! that starts or resumes later ([`Recorder::lacks`]), its owner starts another file.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst_utils::streamproducer::ConsumerSettings;
use gst_utils::{ConsumptionLink, StreamProducer};
use smol::channel::{Receiver, Sender, bounded};

use super::playout_delay;
use super::track::{Counters, Track};
use crate::base::files;
use crate::media::gst::error::MediaError;
use crate::media::gst::launch;
use crate::media::gst::pipeline::{BusEvent, Owned, running_time};
use crate::sdp::{Codec, Kind};

/// How long a file's end may take to be written, while nothing more gets into the file.
const FINISH: Duration = Duration::from_secs(5);

/// Nothing that comes has waited longer than that.
const MOST: gst::ClockTime = gst::ClockTime::from_mseconds(playout_delay::REPAIR_MOST.as_millis() as u64);

/// Interval of the checks for silent streams.
const LOOK: Duration = Duration::from_millis(500);

/// Silence after which a stream is left out of the rest of the file, because the muxer makes the others wait for it;
/// less than [`QUEUE`].
const QUIET: gst::ClockTime = gst::ClockTime::from_seconds(5);

/// Maximum length of a stream that is queued while it waits for the others, in ns.
const QUEUE: u64 = 20_000_000_000;

/// Maximum time until the first frame of a stream, which is a key frame, is in the file; less than [`QUEUE`].
const FIRST: Duration = Duration::from_secs(15);

/// One stream of a recording.
pub(crate) struct Input {
    pub(crate) producer: StreamProducer,
    pub(crate) kind: Kind,
    /// Counters of the peer's track; absent for other streams.
    pub(crate) counters: Option<Arc<Counters>>,
    /// What it goes through, in gst-launch words.
    pub(crate) through: String,
    /// What may wait for it at most. Encoded frames are small and none can be spared; pictures that are yet to
    /// be encoded are neither, and a machine that cannot keep up is to leave some out.
    pub(crate) most: gst::ClockTime,
}

impl Input {
    fn of(track: &Track) -> Self {
        // The muxer accepts H.264 as stored in MP4, with the parameter sets in the caps. For codecs without a parser,
        // the caps select the muxer's pad.
        let parse = match track.codec {
            Codec::H264 => "h264parse ! video/x-h264,stream-format=avc,alignment=au",
            Codec::H265 => "h265parse ! video/x-h265,stream-format=hvc1,alignment=au",
            Codec::Av1 => "av1parse ! video/x-av1,stream-format=obu-stream,alignment=tu",
            Codec::Vp9 => "vp9parse ! video/x-vp9,alignment=super-frame",
            Codec::Opus => "opusparse",
            Codec::Vp8 | Codec::Pcmu | Codec::Pcma => "identity",
        };
        let most = gst::ClockTime::from_seconds(10);
        let (producer, counters) = (track.producer.clone(), Some(track.counters.clone()));
        Self { producer, kind: track.kind(), counters, through: parse.to_owned(), most }
    }
}

/// Elements of one stream, up to the muxer.
#[derive(Debug)]
struct Stream {
    producer: StreamProducer,
    link: ConsumptionLink,
    kind: Kind,
    source: gst_app::AppSrc,
    /// Pad that leads to the muxer; blocked until the recording begins.
    end: gst::Pad,
    hold: Option<gst::PadProbeId>,
    /// Arrival time of the last frame, in ns of the running time; 0 before the first frame.
    last: Arc<AtomicU64>,
    counters: Option<Arc<Counters>>,
    left_out: Option<LeftOut>,
}

/// Reason why a stream is left out of the rest of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LeftOut {
    /// No key frame arrived in time.
    NeverBegan,
    /// The stream stopped after this many frames.
    Stopped(u64),
}

impl Stream {
    fn frames(&self) -> u64 {
        self.counters.as_ref().map_or(0, |counters| counters.frames.load(Ordering::Relaxed))
    }

    /// Returns the reason to leave out the stream if it holds up the others; `since` is the time since the recording
    /// began.
    fn is_missed(&self, since: Duration) -> Option<LeftOut> {
        let last = self.last.load(Ordering::Relaxed);
        let is_quiet = || running_time() >= gst::ClockTime::from_nseconds(last) + QUIET;
        match (self.left_out, last) {
            (Some(_), _) => None,
            (None, 0) => (since >= FIRST).then_some(LeftOut::NeverBegan),
            (None, _) => is_quiet().then(|| LeftOut::Stopped(self.frames())),
        }
    }
}

/// Timeline of a file: zero is the first recorded frame, not the start of the process. The start of the recording would
/// be wrong too: frames that arrive then bear times from before their wait in the jitter buffer, and would be lost as
/// older than the file.
#[derive(Debug)]
struct Clock {
    origin: OnceLock<gst::ClockTime>,
    earliest: gst::ClockTime,
}

impl Clock {
    fn in_file(&self, pts: gst::ClockTime) -> gst::ClockTime {
        pts.saturating_sub(*self.origin.get_or_init(|| pts.max(self.earliest)))
    }
}

/// A running recording. [`Recorder::finish`] ends it in order.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    /// The file that the pipeline writes to, by its descriptor.
    file: File,
    mux: gst::Element,
    streams: Arc<Mutex<Vec<Stream>>>,
    clock: Arc<Clock>,
    has_begun: bool,
    /// Reason why the file is not complete.
    failure: Arc<OnceLock<String>>,
    failures: Sender<String>,
    ended: Receiver<()>,
    watch: Option<smol::Task<()>>,
    owned: Owned,
}

/// A finished recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Path of the file.
    pub path: PathBuf,
    /// Reason why the file is not complete; absent if it is complete.
    pub error: Option<String>,
}

/// A file name of a peer's id and a time: nothing that a peer is called leads out of the folder.
pub fn file_name(peer: &str, time: &str) -> String {
    const END: &str = ".mkv";
    let time: String =
        time.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    let room = files::MAX_NAME.saturating_sub(files::SPARE + 1 + time.len() + END.len());
    format!("{}-{time}{END}", files::name_of(peer, room))
}

impl Recorder {
    /// Creates a new file without tracks; if the name is taken, the file gets a similar name.
    pub fn open(wanted: &Path, failures: Sender<String>) -> Result<Self, MediaError> {
        let failed = |reason: String| MediaError::Record { path: wanted.display().to_string(), reason };
        let (file, path) = files::create_new(wanted).map_err(|error| failed(error.to_string()))?;
        let pipeline = launch::parse(&format!(
            "matroskamux name=mux writing-app=roomtone ! fdsink name=file fd={} async=false",
            file.as_raw_fd()
        ))?;
        let mux: gst::Element = launch::by_name(&pipeline, "mux")?;
        let (end, ended) = bounded(1);
        let failure = Arc::new(OnceLock::new());
        let (shown, fails, tell) = (path.display().to_string(), failure.clone(), failures.clone());
        let owned = Owned::new(pipeline, move |_, event| {
            // A failing element makes others fail, which report errors too: the first report names the cause.
            if let BusEvent::Error(_, reason) = event
                && fails.set(reason.clone()).is_ok()
            {
                let _ = tell.try_send(format!("the recording {shown} is not complete: {reason}"));
            }
            let _ = end.try_send(());
        });
        owned.play().map_err(|_| failed("the file cannot be written".into()))?;
        let earliest = running_time().saturating_sub(MOST);
        let clock = Arc::new(Clock { origin: OnceLock::new(), earliest });
        Ok(Self {
            path,
            file,
            mux,
            streams: Arc::default(),
            clock,
            has_begun: false,
            failure,
            failures,
            ended,
            watch: None,
            owned,
        })
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a track to a recording that has not begun. Frames of the track are queued until then.
    pub fn add(&mut self, track: &Track) -> Result<(), MediaError> {
        self.add_input(&Input::of(track))
    }

    /// Adds any stream, as [`Self::add`] does for tracks.
    pub(crate) fn add_input(&mut self, input: &Input) -> Result<(), MediaError> {
        let failed = |reason: String| MediaError::Record { path: self.path.display().to_string(), reason };
        let text = format!(
            "appsrc name=in ! {} ! identity name=same ! \
             queue name=end max-size-time={QUEUE} max-size-buffers=0 max-size-bytes=0",
            input.through
        );
        let bin = launch::parse_bin_ending(&text, "end")?;
        let source: gst_app::AppSrc = launch::by_name(&bin, "in")?;
        let same: gst::Element = launch::by_name(&bin, "same")?;
        let last = Arc::new(AtomicU64::new(0));
        from_zero(&source, self.clock.clone(), last.clone());
        same.static_pad("src").iter().for_each(keep_first_caps);
        let end = bin.static_pad("src").ok_or_else(|| failed("a stream has no end".into()))?;
        let hold = end.add_probe(gst::PadProbeType::BLOCK_DOWNSTREAM, |_, _| gst::PadProbeReturn::Ok);
        self.owned.pipeline().add(&bin).map_err(|error| failed(error.to_string()))?;
        // The appsrc must be live and have its format set before it starts.
        let settings = ConsumerSettings { max_time: input.most, ..Default::default() };
        StreamProducer::configure_consumer_with(&source, settings.clone());
        bin.sync_state_with_parent().map_err(|error| failed(error.to_string()))?;
        let link = input.producer.add_consumer_with(&source, settings);
        let link = link.map_err(|error| failed(error.to_string()))?;
        let (producer, counters, kind) = (input.producer.clone(), input.counters.clone(), input.kind);
        self.lock().push(Stream { producer, link, kind, source, end, hold, last, counters, left_out: None });
        Ok(())
    }

    /// Returns whether a track delivers frames that do not go into the file.
    pub fn lacks(&self, track: &Track) -> bool {
        let frames = track.counters.frames.load(Ordering::Relaxed);
        let streams = self.lock();
        let stream = streams.iter().find(|stream| stream.producer == track.producer);
        match stream.map(|stream| stream.left_out) {
            None => frames > 0,
            Some(Some(LeftOut::Stopped(before))) => frames > before,
            Some(None | Some(LeftOut::NeverBegan)) => false,
        }
    }

    /// Returns whether the file's tracks are fixed.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Returns whether writing has failed, so that no more frames go into the file.
    pub fn has_failed(&self) -> bool {
        self.failure.get().is_some()
    }

    /// Starts writing the added tracks, from their first queued frames on.
    pub fn begin(&mut self) -> Result<(), MediaError> {
        if std::mem::replace(&mut self.has_begun, true) {
            return Ok(());
        }
        let failed =
            |what: &str| MediaError::Record { path: self.path.display().to_string(), reason: what.into() };
        let mut streams = self.lock();
        // The muxer must know all streams before the first frame.
        for stream in streams.iter() {
            let template = if stream.kind == Kind::Video { "video_%u" } else { "audio_%u" };
            let pad = self.mux.request_pad_simple(template).ok_or_else(|| failed("the muxer has no pad"))?;
            stream.end.link(&pad).map_err(|_| failed("the muxer does not take a stream"))?;
        }
        for stream in streams.iter_mut() {
            stream.hold.take().into_iter().for_each(|hold| stream.end.remove_probe(hold));
        }
        drop(streams);
        let weak = Arc::downgrade(&self.streams);
        let (path, failures, began) =
            (self.path.display().to_string(), self.failures.clone(), Instant::now());
        self.watch = Some(smol::spawn(async move {
            loop {
                smol::Timer::after(LOOK).await;
                let Some(streams) = weak.upgrade() else { return };
                for kind in leave_out(&mut lock(&streams), began.elapsed()) {
                    let text = format!("the recording {path} has no {kind}: no key frame came");
                    let _ = failures.try_send(text);
                }
            }
        }));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Stream>> {
        lock(&self.streams)
    }

    /// Goes on with another track of the same codec in place of the one before.
    pub fn follow(&mut self, before: &Track, track: &Track) {
        let mut streams = self.lock();
        let is_it = |stream: &&mut Stream| stream.producer == before.producer && stream.left_out.is_none();
        let Some(stream) = streams.iter_mut().find(is_it) else { return };
        match stream.link.change_producer(&track.producer, false) {
            Ok(()) => {
                (stream.producer, stream.counters) = (track.producer.clone(), Some(track.counters.clone()));
            }
            Err(error) => tracing::warn!("a recording does not go on: {error}"),
        }
    }

    /// Writes the file's end and waits for it, as long as the file grows, and 5 s more.
    pub async fn finish(mut self) -> Recorded {
        if let Err(error) = self.begin() {
            let _ = self.failure.set(error.to_string());
        }
        self.watch = None;
        for stream in self.lock().iter_mut() {
            stream.link.disconnect();
            let _ = stream.source.end_of_stream();
        }
        let path = self.path.clone();
        let size = || std::fs::metadata(&path).map(|file| file.len()).ok();
        let stalled = async {
            let mut before = None;
            while before != size() {
                before = size();
                smol::Timer::after(FINISH).await;
            }
            let _ = self.failure.set("its end could not be written in time".to_owned());
        };
        if !self.has_failed() {
            smol::future::or(async { self.ended.recv().await.unwrap_or_default() }, stalled).await;
        }
        // The file is complete only after the muxer has rewritten its header.
        let (pipeline, file) = (self.owned.pipeline().clone(), self.file);
        let written = smol::unblock(move || {
            let _ = pipeline.set_state(gst::State::Null);
            file.sync_all()
        })
        .await;
        let error = self.failure.get().cloned().or_else(|| written.err().map(|error| error.to_string()));
        Recorded { path: self.path, error }
    }
}

fn lock(streams: &Mutex<Vec<Stream>>) -> MutexGuard<'_, Vec<Stream>> {
    streams.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Leaves out the streams that hold up the others. Returns the kinds of the streams without any frame in the file.
fn leave_out(streams: &mut [Stream], since: Duration) -> Vec<Kind> {
    let mut empty = Vec::new();
    for stream in streams {
        let Some(why) = stream.is_missed(since) else { continue };
        stream.left_out = Some(why);
        stream.link.disconnect();
        let _ = stream.source.end_of_stream();
        if why == LeftOut::NeverBegan {
            empty.push(stream.kind);
        }
    }
    empty
}

fn from_zero(source: &gst_app::AppSrc, clock: Arc<Clock>, last: Arc<AtomicU64>) {
    let Some(pad) = source.static_pad("src") else { return };
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer_mut() {
            last.store(running_time().nseconds(), Ordering::Relaxed);
            let pts = buffer.pts().map(|pts| clock.in_file(pts));
            let buffer = buffer.make_mut();
            buffer.set_pts(pts);
            buffer.set_dts(gst::ClockTime::NONE);
        }
        gst::PadProbeReturn::Ok
    });
}

/// Drops all caps but the first. Senders change their frame size with the bandwidth, and a mix changes its colorimetry
/// with its inputs. Key frames contain all that decoders need (VP8 the size; H.264 and H.265 the parameter sets, sent
/// in the stream), but the muxer would stop at new caps.
fn keep_first_caps(pad: &gst::Pad) {
    let seen = Arc::new(AtomicBool::new(false));
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let is_caps = info.event().is_some_and(|event| event.type_() == gst::EventType::Caps);
        match is_caps && seen.swap(true, Ordering::Relaxed) {
            true => gst::PadProbeReturn::Handled,
            false => gst::PadProbeReturn::Ok,
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::gst::pipeline::Owned;
    use gst_utils::streamproducer::ProducerSettings;

    #[test]
    fn no_peer_leads_out_of_the_folder_or_has_too_long_a_name() {
        assert_eq!(file_name("späti", "2026-01-01T00:00:00Z"), "späti-2026-01-01T00_00_00Z.mkv");
        assert!(file_name("../../etc/passwd", "x").starts_with("______etc_passwd-"));
        // Longest id that a server accepts, in characters of four bytes each.
        let longest = "\u{1D4D0}".repeat(256);
        assert!(file_name(&longest, "2026-01-01T00:00:00Z").len() <= files::MAX_NAME - files::SPARE);
    }

    /// Returns encoded test media that runs until dropped, and the recorder's input for it.
    fn source(text: &str, kind: Kind) -> (Owned, Input) {
        let text = format!("{text} ! valve name=valve ! appsink name=out sync=false");
        let pipeline = launch::parse(&text).unwrap();
        let appsink: gst_app::AppSink = launch::by_name(&pipeline, "out").unwrap();
        let producer = StreamProducer::with(&appsink, ProducerSettings { sync: false });
        let owned = Owned::new(pipeline, |_, _| {});
        owned.play().unwrap();
        let through = "identity".to_owned();
        (owned, Input { producer, kind, counters: None, through, most: gst::ClockTime::from_seconds(10) })
    }

    fn pictures() -> (Owned, Input) {
        let text = "videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=20/1 ! \
                    vp8enc deadline=1 keyframe-max-dist=10";
        source(text, Kind::Video)
    }

    fn sound(encoder: &str) -> (Owned, Input) {
        let text = "audiotestsrc is-live=true samplesperbuffer=160 ! audio/x-raw,rate=8000,channels=1";
        source(&format!("{text} ! {encoder}"), Kind::Audio)
    }

    fn size(path: &Path) -> u64 {
        std::fs::metadata(path).map_or(0, |file| file.len())
    }

    async fn pause(ms: u64) {
        smol::Timer::after(Duration::from_millis(ms)).await;
    }

    /// Returns the number of frames in a file, by the name of their caps.
    fn frames(path: &Path) -> std::collections::BTreeMap<String, u32> {
        let text = format!("filesrc location=\"{}\" ! matroskademux name=demux", path.display());
        let pipeline = launch::parse(&text).unwrap();
        let found = Arc::new(Mutex::new(std::collections::BTreeMap::new()));
        let (weak, counts) = (pipeline.downgrade(), found.clone());
        pipeline.by_name("demux").unwrap().connect_pad_added(move |_, pad| {
            let sink = gst::ElementFactory::make("fakesink").property("async", false).build().unwrap();
            weak.upgrade().unwrap().add(&sink).unwrap();
            sink.sync_state_with_parent().unwrap();
            let counts = counts.clone();
            pad.add_probe(gst::PadProbeType::BUFFER, move |pad, _| {
                let name = pad.current_caps().unwrap().structure(0).unwrap().name().to_string();
                *counts.lock().unwrap().entry(name).or_insert(0) += 1;
                gst::PadProbeReturn::Ok
            });
            pad.link(&sink.static_pad("sink").unwrap()).unwrap();
        });
        launch::run_to_end(&pipeline).unwrap();
        let found = found.lock().unwrap();
        found.clone()
    }

    #[test]
    fn sound_of_every_codec_is_in_the_file() {
        crate::media::gst::init().unwrap();
        for (encoder, caps) in [("mulawenc", "audio/x-mulaw"), ("alawenc", "audio/x-alaw")] {
            smol::block_on(async {
                let home = tempfile::tempdir().unwrap();
                let (failures, failed) = bounded(16);
                let mut recorder = Recorder::open(&home.path().join("a.mkv"), failures).unwrap();
                let (sources, inputs): (Vec<_>, Vec<_>) = [pictures(), sound(encoder)].into_iter().unzip();
                inputs.iter().for_each(|input| recorder.add_input(input).unwrap());
                recorder.begin().unwrap();
                while size(recorder.path()) < 8000 {
                    pause(50).await;
                }
                let recorded = recorder.finish().await;
                assert_eq!((recorded.error, failed.try_recv().ok()), (None, None));
                let found = frames(&recorded.path);
                assert!(found.get(caps).is_some_and(|count| *count > 5), "{found:?}");
                assert!(found.get("video/x-vp8").is_some_and(|count| *count > 5), "{found:?}");
                drop(sources);
            });
        }
    }

    /// Switches a camera off in the middle: without [`QUIET`], the muxer would wait for it and lose the audio.
    #[test]
    fn a_stream_that_stops_holds_up_no_other() {
        crate::media::gst::init().unwrap();
        smol::block_on(async {
            let home = tempfile::tempdir().unwrap();
            let (failures, failed) = bounded(16);
            let mut recorder = Recorder::open(&home.path().join("a.mkv"), failures).unwrap();
            let (sources, inputs): (Vec<_>, Vec<_>) = [pictures(), sound("mulawenc")].into_iter().unzip();
            inputs.iter().for_each(|input| recorder.add_input(input).unwrap());
            recorder.begin().unwrap();
            while size(recorder.path()) < 8000 {
                pause(50).await;
            }
            let valve = sources[0].pipeline().by_name("valve").unwrap();
            valve.set_property("drop", true);
            pause(1000).await;
            // The audio has 8000 bytes per second.
            let (before, began) = (size(recorder.path()), Instant::now());
            while size(recorder.path()) < before + 8000 {
                assert!(began.elapsed() < Duration::from_secs(20), "the file does not grow");
                pause(50).await;
            }
            assert_eq!(recorder.lock()[0].left_out, Some(LeftOut::Stopped(0)));
            drop(sources);
            let recorded = recorder.finish().await;
            assert_eq!((recorded.error, failed.try_recv().ok()), (None, None));
            let found = frames(&recorded.path);
            assert!(found["audio/x-mulaw"] > 50 && found["video/x-vp8"] > 3, "{found:?}");
        });
    }

    #[test]
    fn a_file_that_cannot_be_written_is_told_once_and_not_complete() {
        crate::media::gst::init().unwrap();
        smol::block_on(async {
            let home = tempfile::tempdir().unwrap();
            let (failures, failed) = bounded(16);
            let mut recorder = Recorder::open(&home.path().join("a.mkv"), failures).unwrap();
            // Every write to this device fails as on a full disk.
            let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
            let sink = recorder.owned.pipeline().by_name("file").unwrap();
            recorder.owned.pipeline().set_state(gst::State::Null).unwrap();
            sink.set_property("fd", full.as_raw_fd());
            recorder.owned.play().unwrap();
            let (sources, inputs): (Vec<_>, Vec<_>) = [pictures(), sound("mulawenc")].into_iter().unzip();
            inputs.iter().for_each(|input| recorder.add_input(input).unwrap());
            recorder.begin().unwrap();
            let text = failed.recv().await.unwrap();
            assert!(text.contains("a.mkv is not complete: No space left"), "{text}");
            assert!(recorder.has_failed());
            pause(300).await;
            let recorded = recorder.finish().await;
            assert!(recorded.error.unwrap().contains("No space left"));
            assert!(failed.is_empty(), "{:?}", failed.try_recv());
            drop(sources);
        });
    }
}
