//! Recording what a peer sends into a Matroska file, without encoding it again.
//!
//! The tracks of a file are fixed when its first frames are written, and its muxer waits for each track. A [`Recorder`]
//! therefore collects tracks until [`Recorder::begin`], and leaves out a track that stops for long. If it lacks a track
//! that starts or resumes later ([`Recorder::lacks`]), its owner starts another file.

mod stream;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use gst::prelude::*;
use smol::channel::{Receiver, Sender, bounded};

pub(crate) use self::stream::Input;
use self::stream::{Clock, LeftOut, Stream, leave_out};
use super::track::Track;
use crate::base::files;
use crate::base::lock::lock;
use crate::media::gst::error::MediaError;
use crate::media::gst::launch;
use crate::media::gst::pipeline::{BusEvent, Owned};
use crate::sdp::Kind;

/// Maximum time to write the end of a file while the file does not grow.
const FINISH: Duration = Duration::from_secs(5);

/// Interval of the checks for silent streams.
const INTERVAL: Duration = Duration::from_millis(500);

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

/// Returns a file name made of a peer's id and a time; no id leads out of the folder.
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
        Ok(Self {
            path,
            file,
            mux,
            streams: Arc::default(),
            clock: Clock::new(),
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
        let stream = Stream::start(input, self.owned.pipeline(), self.clock.clone());
        lock(&self.streams).push(stream.map_err(|error| self.failed(&error))?);
        Ok(())
    }

    fn failed(&self, reason: &dyn std::fmt::Display) -> MediaError {
        MediaError::Record { path: self.path.display().to_string(), reason: reason.to_string() }
    }

    /// Returns whether a track delivers frames that do not go into the file.
    pub fn lacks(&self, track: &Track) -> bool {
        let frames = track.counters.frames.load(Ordering::Relaxed);
        let streams = lock(&self.streams);
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
        let mut streams = lock(&self.streams);
        // The muxer must know all streams before the first frame.
        for stream in streams.iter() {
            let template = if stream.kind == Kind::Video { "video_%u" } else { "audio_%u" };
            let pad =
                self.mux.request_pad_simple(template).ok_or_else(|| self.failed(&"the muxer has no pad"))?;
            stream.end.link(&pad).map_err(|_| self.failed(&"the muxer rejects a stream"))?;
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
                smol::Timer::after(INTERVAL).await;
                let Some(streams) = weak.upgrade() else { return };
                for kind in leave_out(&mut lock(&streams), began.elapsed()) {
                    let text = format!("the recording {path} has no {kind}: no key frame arrived");
                    let _ = failures.try_send(text);
                }
            }
        }));
        Ok(())
    }

    /// Continues with another track of the same codec in place of `before`.
    pub fn switch(&mut self, before: &Track, track: &Track) {
        let mut streams = lock(&self.streams);
        let is_it = |stream: &&mut Stream| stream.producer == before.producer && stream.left_out.is_none();
        let Some(stream) = streams.iter_mut().find(is_it) else { return };
        match stream.link.change_producer(&track.producer, false) {
            Ok(()) => {
                (stream.producer, stream.counters) = (track.producer.clone(), Some(track.counters.clone()));
            }
            Err(error) => tracing::warn!("a recording does not continue: {error}"),
        }
    }

    /// Writes the end of the file. Waits for it as long as the file grows, and 5 s more.
    pub async fn finish(mut self) -> Recorded {
        if let Err(error) = self.begin() {
            let _ = self.failure.set(error.to_string());
        }
        self.watch = None;
        for stream in lock(&self.streams).iter_mut() {
            stream.end();
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
        let mut error = self.failure.get().cloned().or_else(|| written.err().map(|error| error.to_string()));
        // A file without frames, or one whose header could not be written in time, helps nobody.
        if error.is_none() && !self.clock.has_begun() || size() == Some(0) {
            let _ = std::fs::remove_file(&self.path);
            error.get_or_insert_with(|| "no frame arrived, so that no file was written".to_owned());
        }
        Recorded { path: self.path, error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::gst::pipeline::Owned;
    use crate::media::test_media;

    #[test]
    fn file_names_stay_in_the_folder_and_within_the_longest_name() {
        assert_eq!(file_name("späti", "2026-01-01T00:00:00Z"), "späti-2026-01-01T00_00_00Z.mkv");
        assert!(file_name("../../etc/passwd", "x").starts_with("______etc_passwd-"));
        // Longest id that a server accepts, in characters of four bytes each.
        let longest = "\u{1D4D0}".repeat(256);
        assert!(file_name(&longest, "2026-01-01T00:00:00Z").len() <= files::MAX_NAME - files::SPARE);
    }

    /// Returns encoded test media that runs until dropped, and the recorder's input for it.
    fn source(text: &str, kind: Kind) -> (Owned, Input) {
        let (owned, producer) = test_media::produce(text);
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

    /// Returns a recorder of `a.mkv` in a folder, and the queue of its failures.
    fn recorder(folder: &Path) -> (Recorder, Receiver<String>) {
        crate::media::init().unwrap();
        let (failures, failed) = bounded(16);
        (Recorder::open(&folder.join("a.mkv"), failures).unwrap(), failed)
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
    fn audio_of_every_codec_is_recorded() {
        for (encoder, caps) in [("mulawenc", "audio/x-mulaw"), ("alawenc", "audio/x-alaw")] {
            smol::block_on(async {
                let home = tempfile::tempdir().unwrap();
                let (mut recorder, failed) = recorder(home.path());
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

    /// Loses the first packets of a stream, of which the recorder's source hears by a gap event.
    #[test]
    fn a_stream_that_begins_with_lost_packets_is_recorded() {
        smol::block_on(async {
            let home = tempfile::tempdir().unwrap();
            let (mut recorder, failed) = recorder(home.path());
            let (owned, mut input) = sound("opusenc");
            input.through = "opusparse".to_owned();
            let valve = owned.pipeline().by_name("valve").unwrap();
            valve.set_property("drop", true);
            recorder.add_input(&input).unwrap();
            let sink = input.producer.appsink().static_pad("sink").unwrap();
            let now = crate::media::gst::pipeline::running_time();
            assert!(sink.send_event(gst::event::Gap::builder(now).build()));
            valve.set_property("drop", false);
            recorder.begin().unwrap();
            while size(recorder.path()) < 4000 && !recorder.has_failed() {
                pause(50).await;
            }
            let recorded = recorder.finish().await;
            assert_eq!((recorded.error, failed.try_recv().ok()), (None, None));
            let found = frames(&recorded.path);
            assert!(found.get("audio/x-opus").is_some_and(|count| *count > 5), "{found:?}");
        });
    }

    /// Switches a camera off in the middle: without [`QUIET`], the muxer would wait for it and lose the audio.
    #[test]
    fn a_stopped_stream_does_not_hold_up_the_recording() {
        smol::block_on(async {
            let home = tempfile::tempdir().unwrap();
            let (mut recorder, failed) = recorder(home.path());
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
                assert!(began.elapsed() < Duration::from_secs(60), "the file does not grow");
                pause(50).await;
            }
            assert_eq!(lock(&recorder.streams)[0].left_out, Some(LeftOut::Stopped(0)));
            drop(sources);
            let recorded = recorder.finish().await;
            assert_eq!((recorded.error, failed.try_recv().ok()), (None, None));
            let found = frames(&recorded.path);
            assert!(found["audio/x-mulaw"] > 50 && found["video/x-vp8"] > 3, "{found:?}");
        });
    }

    #[test]
    fn a_recording_that_ends_before_a_stream_has_begun_holds_the_others() {
        smol::block_on(async {
            let home = tempfile::tempdir().unwrap();
            let (mut recorder, failed) = recorder(home.path());
            let (sources, inputs): (Vec<_>, Vec<_>) = [pictures(), sound("mulawenc")].into_iter().unzip();
            sources[0].pipeline().by_name("valve").unwrap().set_property("drop", true);
            inputs.iter().for_each(|input| recorder.add_input(input).unwrap());
            recorder.begin().unwrap();
            pause(2000).await;
            let recorded = recorder.finish().await;
            drop(sources);
            assert_eq!((recorded.error, failed.try_recv().ok()), (None, None));
            assert!(frames(&recorded.path)["audio/x-mulaw"] > 50);
        });
    }

    #[test]
    fn a_recording_without_a_frame_is_not_complete_and_leaves_no_file() {
        smol::block_on(async {
            let home = tempfile::tempdir().unwrap();
            let (mut recorder, _) = recorder(home.path());
            let (source, input) = pictures();
            source.pipeline().by_name("valve").unwrap().set_property("drop", true);
            recorder.add_input(&input).unwrap();
            let recorded = recorder.finish().await;
            assert!(recorded.error.unwrap().contains("no frame"));
            assert!(!recorded.path.exists());
        });
    }

    #[test]
    fn a_file_that_cannot_be_written_is_reported_once_as_incomplete() {
        smol::block_on(async {
            let home = tempfile::tempdir().unwrap();
            let (mut recorder, failed) = recorder(home.path());
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
