//! Recording what a peer sends into a Matroska file, without encoding it again.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gst::prelude::*;
use gst_utils::{ConsumptionLink, StreamProducer};
use smol::channel::{Receiver, Sender, bounded};

use super::MediaError;
use super::pipeline::{BusEvent, Owned};
use super::receive::Track;
use super::{launch, playout};
use crate::sdp::Codec;

/// How long a file's end may take to be written, while nothing more gets into the file.
const FINISH: Duration = Duration::from_secs(5);

/// Nothing that comes has waited longer than that.
const MOST: gst::ClockTime = gst::ClockTime::from_mseconds(playout::REPAIR_MOST.as_millis() as u64);

/// One stream of a recording.
pub(super) struct Input {
    pub(super) producer: StreamProducer,
    /// What it goes through, in gst-launch words.
    pub(super) through: String,
    /// What may wait for it at most. Encoded frames are small and none can be spared; pictures that are yet to
    /// be encoded are neither, and a machine that cannot keep up is to leave some out.
    pub(super) most: gst::ClockTime,
}

/// A running recording. [`Recorder::finish`] ends it in order.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    sources: Vec<gst_app::AppSrc>,
    links: Vec<(StreamProducer, ConsumptionLink)>,
    ended: Receiver<()>,
    owned: Owned,
}

/// A file name of a peer's id and a time: nothing that a peer is called leads out of the folder.
pub fn file_name(peer: &str, time: &str) -> String {
    let safe = |c: char| if c.is_alphanumeric() || "-_".contains(c) { c } else { '_' };
    let peer: String = peer.chars().take(64).map(safe).collect();
    let time: String = time.chars().map(safe).collect();
    format!("{peer}-{time}.mkv")
}

impl Recorder {
    /// Records these tracks of a peer into a new file.
    pub fn start(tracks: &[Track], path: &Path, failures: Sender<String>) -> Result<Self, MediaError> {
        let input = |track: &Track| {
            // The muxer takes H.264 as it stands in MP4, with its headers in the caps.
            let parse = match track.codec {
                Codec::H264 => "h264parse ! video/x-h264,stream-format=avc,alignment=au",
                Codec::H265 => "h265parse ! video/x-h265,stream-format=hvc1,alignment=au",
                Codec::Av1 => "av1parse ! video/x-av1,stream-format=obu-stream,alignment=tu",
                Codec::Vp9 => "vp9parse ! video/x-vp9,alignment=super-frame",
                Codec::Opus => "opusparse",
                Codec::Vp8 | Codec::Pcmu | Codec::Pcma => "identity",
            };
            let most = gst::ClockTime::from_seconds(10);
            Input { producer: track.producer.clone(), through: parse.to_owned(), most }
        };
        Self::start_with(&tracks.iter().map(input).collect::<Vec<_>>(), path, failures)
    }

    /// Records streams into a new file, each through elements in gst-launch words.
    pub(super) fn start_with(
        inputs: &[Input],
        path: &Path,
        failures: Sender<String>,
    ) -> Result<Self, MediaError> {
        let failed = |reason: String| MediaError::Record { path: path.display().to_string(), reason };
        let mut text =
            String::from("matroskamux name=mux writing-app=roomtone ! filesink name=file async=false");
        for (i, Input { through, .. }) in inputs.iter().enumerate() {
            text.push_str(&format!(
                " appsrc name=in{i} ! {through} ! identity name=same{i} ! \
                 queue max-size-time=10000000000 max-size-buffers=0 max-size-bytes=0 ! mux."
            ));
        }
        let pipeline = launch::parse(&text)?;
        let file: gst::Element = launch::by_name(&pipeline, "file")?;
        file.set_property("location", path.to_string_lossy().as_ref());
        let (end, ended) = bounded(1);
        let shown = path.display().to_string();
        let owned = Owned::new(pipeline.clone(), move |_, event| match event {
            BusEvent::Eos => {
                let _ = end.try_send(());
            }
            BusEvent::Error(_, reason) => {
                let _ = failures.try_send(format!("recording to {shown} stopped: {reason}"));
                let _ = end.try_send(());
            }
        });
        let mut sources = Vec::new();
        let mut links = Vec::new();
        let origin = Arc::new(OnceLock::new());
        let earliest = super::pipeline::running_time().saturating_sub(MOST);
        for (i, Input { producer, most, .. }) in inputs.iter().enumerate() {
            let source: gst_app::AppSrc = launch::by_name(&pipeline, &format!("in{i}"))?;
            from_zero(&source, origin.clone(), earliest);
            let same: gst::Element = launch::by_name(&pipeline, &format!("same{i}"))?;
            same.static_pad("src").iter().for_each(keep_first_caps);
            let settings =
                gst_utils::streamproducer::ConsumerSettings { max_time: *most, ..Default::default() };
            let link = producer.add_consumer_with(&source, settings);
            links.push((producer.clone(), link.map_err(|error| failed(error.to_string()))?));
            sources.push(source);
        }
        owned.play().map_err(|_| failed("the file cannot be written".into()))?;
        Ok(Self { path: path.to_owned(), sources, links, ended, owned })
    }

    /// Goes on with another track of the same codec in place of the one before.
    pub fn follow(&mut self, before: &Track, track: &Track) {
        let link = self.links.iter_mut().find(|(of, _)| *of == before.producer);
        if let Some((of, link)) = link {
            match link.change_producer(&track.producer, false) {
                Ok(()) => *of = track.producer.clone(),
                Err(error) => tracing::warn!("a recording does not go on: {error}"),
            }
        }
    }

    /// Writes the file's end and waits for it, as long as the file grows, and 5 s more.
    pub async fn finish(mut self) -> PathBuf {
        self.links.clear();
        for source in &self.sources {
            let _ = source.end_of_stream();
        }
        let size = || std::fs::metadata(&self.path).map(|file| file.len()).ok();
        let stalled = async {
            let mut before = None;
            while before != size() {
                before = size();
                smol::Timer::after(FINISH).await;
            }
            tracing::warn!("the recording could not be finished in time");
        };
        smol::future::or(async { self.ended.recv().await.unwrap_or_default() }, stalled).await;
        // The file is complete only when the sink has closed it.
        let pipeline = self.owned.pipeline().clone();
        smol::unblock(move || {
            let _ = pipeline.set_state(gst::State::Null);
        })
        .await;
        self.path.clone()
    }
}

/// The file's time begins with the first of what is recorded, not with the process. (Not with the moment at which it
/// begins either: what comes then has waited to be put in order, and would be lost as older than the file.)
fn from_zero(source: &gst_app::AppSrc, origin: Arc<OnceLock<gst::ClockTime>>, earliest: gst::ClockTime) {
    let Some(pad) = source.static_pad("src") else { return };
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer_mut() {
            let pts = buffer.pts().map(|pts| pts.saturating_sub(*origin.get_or_init(|| pts.max(earliest))));
            let buffer = buffer.make_mut();
            buffer.set_pts(pts);
            buffer.set_dts(gst::ClockTime::NONE);
        }
        gst::PadProbeReturn::Ok
    });
}

/// Whoever sends changes the picture's size with the network, and a mix its colours' description with its
/// inputs. Key frames carry all that is needed (VP8 its size, H.264 and H.265 their parameter sets, which are sent within
/// the stream), but the muxer would stop at new caps.
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

    #[test]
    fn no_peer_leads_out_of_the_folder() {
        assert_eq!(
            file_name("../../etc/passwd", "2026-01-01T00:00:00Z"),
            "______etc_passwd-2026-01-01T00_00_00Z.mkv"
        );
        assert_eq!(file_name("späti", "x"), "späti-x.mkv");
    }
}
