//! Received streams: each pad that webrtcbin makes is linked at once, unwanted ones to a fakesink, because an unlinked
//! pad stops all media of the bundle.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use gst::prelude::*;
use gst_utils::{StreamProducer, streamproducer::ProducerSettings};

use crate::base::lock::lock;
use crate::media::gst::error::MediaError;
use crate::media::gst::level::Meter;
use crate::media::gst::pipeline::running_time;
use crate::media::gst::{isolated_bin, rtp};
use crate::protocol::ParticipantId;
use crate::sdp::{Codec, Kind, payload};

/// Maximum size of a decoded frame, in pixels (a little more than 4096x2304): a decoder would allocate memory for more.
pub const MAX_PIXELS: u64 = 10_000_000;

/// Returns whether frames of this size are decoded.
pub(crate) fn is_decoded(width: u32, height: u32) -> bool {
    u64::from(width) * u64::from(height) <= MAX_PIXELS
}

/// Elements for a stream that is not wanted, and the sink that discards it.
const AS_IT_IS: &str = "identity silent=true";
const NOWHERE: &str = "fakesink sync=false async=false";

/// Counters of one received stream.
#[derive(Debug, Default)]
pub struct Counters {
    /// Frames, or packets of audio, since the start.
    pub frames: AtomicU64,
    /// Bytes of these frames.
    pub bytes: AtomicU64,
    /// Time of the last frame, in ms of the common running time.
    pub last: AtomicU64,
    /// Width of the video in pixels; 0 until known.
    pub width: AtomicU32,
    /// Height of the video in pixels; 0 until known.
    pub height: AtomicU32,
    /// Level of the audio, if it is played.
    pub meter: Meter,
}

/// A received track, still encoded.
#[derive(Debug, Clone)]
pub struct Track {
    /// The participant that sends the track; absent until the loop of the connection has assigned it.
    pub participant: Option<ParticipantId>,
    /// Id of the stream that the track belongs to (`a=msid`, RFC 8830), if the peer's description names one.
    pub stream: Option<String>,
    /// Index of the m-line, which identifies the track for the life of the connection.
    pub mline: usize,
    /// Codec.
    pub codec: Codec,
    /// Producer of the frames.
    pub producer: StreamProducer,
    /// Counters.
    pub counters: Arc<Counters>,
    gate: Arc<Gate>,
}

/// Holds back the first frame, a key frame, until its consumers exist.
#[derive(Debug)]
struct Gate {
    held: Mutex<Option<(gst::glib::WeakRef<gst::Pad>, gst::PadProbeId)>>,
    _opens: smol::Task<()>,
}

impl Gate {
    /// Maximum time that frames are held back.
    const PATIENCE: Duration = Duration::from_millis(150);

    fn before(appsink: &gst_app::AppSink) -> Arc<Self> {
        let pad = appsink.static_pad("sink");
        let hold = gst::PadProbeType::BLOCK | gst::PadProbeType::BUFFER;
        let held = pad.and_then(|pad| {
            let probe = pad.add_probe(hold, |_, _| gst::PadProbeReturn::Ok)?;
            Some((pad.downgrade(), probe))
        });
        Arc::new_cyclic(|gate: &Weak<Self>| {
            let gate = gate.clone();
            let _opens = smol::spawn(async move {
                smol::Timer::after(Self::PATIENCE).await;
                gate.upgrade().iter().for_each(|gate| gate.open());
            });
            Self { held: Mutex::new(held), _opens }
        })
    }

    fn open(&self) {
        let held = lock(&self.held).take();
        if let Some((pad, probe)) = held.and_then(|(pad, probe)| Some((pad.upgrade()?, probe))) {
            pad.remove_probe(probe);
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // A closed gate would stop all media of the bundle.
        self.open();
    }
}

impl Track {
    /// Lets the frames flow, beginning with the first, because all consumers exist. Without this call they flow 150 ms
    /// after the track's start.
    pub fn flow(&self) {
        self.gate.open();
    }

    /// Returns whether a frame of the track arrived within the last five seconds.
    pub fn is_live(&self) -> bool {
        const FRESH: u64 = 5000;
        let last = self.counters.last.load(Ordering::Relaxed);
        self.counters.frames.load(Ordering::Relaxed) > 0 && running_time().mseconds() < last + FRESH
    }

    /// Audio or video.
    pub fn kind(&self) -> Kind {
        self.codec.kind()
    }
}

#[cfg(test)]
impl Track {
    /// Returns a track with the frames of a producer.
    pub(crate) fn of(codec: Codec, producer: &StreamProducer) -> Self {
        let gate = Gate::before(producer.appsink());
        let (producer, counters) = (producer.clone(), Arc::default());
        Self { participant: None, stream: None, mline: 0, codec, producer, counters, gate }
    }
}

/// Links a pad of webrtcbin, and returns its track if the stream's codec is supported and wanted; m-line and stream of the
/// track are still unset. `on_first` is called at the first frame, once the video size is known, and `on_fault` at most
/// once, when data of the stream cannot be read. Unreadable data is left out, and the rest of the stream continues.
pub(crate) fn link(
    pipeline: &gst::Pipeline,
    pad: &gst::Pad,
    wanted: impl Fn(Kind) -> bool,
    on_first: impl Fn(Codec, &Counters) + Send + Sync + 'static,
    on_fault: impl Fn(Codec) + Send + Sync + 'static,
) -> Result<Option<Track>, MediaError> {
    let on_fault = Arc::new(on_fault);
    let caps = pad.current_caps();
    let name =
        caps.as_ref().and_then(|caps| caps.structure(0)).and_then(|s| s.get::<String>("encoding-name").ok());
    let codec = name.and_then(|name| Codec::from_encoding_name(&name)).filter(|codec| wanted(codec.kind()));
    let (inner, end) = match codec {
        Some(codec) => (rtp::depayloader(codec), "appsink name=out sync=false max-buffers=100"),
        None => (AS_IT_IS, NOWHERE),
    };
    let make = |inner: &str, end| {
        let on_fault = on_fault.clone();
        let is_sound = move |packet: &[u8]| codec.is_none_or(|codec| payload::is_sound(codec, packet));
        isolated_bin::make(inner.to_owned(), end, is_sound, move |error| {
            tracing::debug!(?codec, "a received stream is broken: {error}");
            codec.into_iter().for_each(&*on_fault);
        })
    };
    let (bin, sink) = match make(inner, end) {
        Ok(made) => made,
        Err(error) => {
            tracing::warn!("a received stream is ignored: {error}");
            make(AS_IT_IS, NOWHERE)?
        }
    };
    let failed = |what: &str| MediaError::pipeline("linking a received stream", what);
    let track = match (codec, bin.by_name("out").and_downcast::<gst_app::AppSink>()) {
        (Some(codec), Some(appsink)) => {
            appsink.set_async(false);
            let counters = Arc::new(Counters::default());
            count(&appsink, codec, &counters, on_first);
            let gate = Gate::before(&appsink);
            let producer = StreamProducer::with(&appsink, ProducerSettings { sync: false });
            Some(Track { participant: None, stream: None, mline: 0, codec, producer, counters, gate })
        }
        _ => None,
    };
    pipeline.add(&bin).map_err(|_| failed("add"))?;
    bin.sync_state_with_parent().map_err(|_| failed("state"))?;
    let sink: gst::Pad = sink.upcast();
    refuse_nothing(&sink);
    pad.link(&sink).map_err(|_| failed("link"))?;
    Ok(track)
}

/// Accepts all caps at a sink pad. webrtcbin queries the element behind a pad for the caps of the m-line, and rejects the
/// m-line if they are not accepted; but a stream that arrived before the offer that names its SSRC may be on the pad of
/// another m-line, of another kind.
fn refuse_nothing(sink: &gst::Pad) {
    let answered = gst::PadProbeType::QUERY_DOWNSTREAM | gst::PadProbeType::PULL;
    sink.add_probe(answered, |_, info| {
        if let Some(gst::QueryViewMut::Caps(caps)) = info.query_mut().map(|query| query.view_mut())
            && caps.result().is_some_and(|caps| caps.is_empty())
            && let Some(filter) = caps.filter_owned()
        {
            caps.set_result(&filter);
        }
        gst::PadProbeReturn::Ok
    });
}

/// Returns the stream's SSRC from the pad's caps.
pub(crate) fn ssrc(pad: &gst::Pad) -> Option<u32> {
    pad.current_caps()?.structure(0)?.get("ssrc").ok()
}

fn count(
    appsink: &gst_app::AppSink,
    codec: Codec,
    counters: &Arc<Counters>,
    on_first: impl Fn(Codec, &Counters) + Send + Sync + 'static,
) {
    let Some(pad) = appsink.static_pad("sink") else { return };
    let counters = counters.clone();
    let too_large = AtomicBool::new(false);
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let Some(buffer) = info.buffer() else { return gst::PadProbeReturn::Ok };
        // The size may change with each key frame.
        if !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT) {
            read_size(pad, &counters);
        }
        if !is_decoded(counters.width.load(Ordering::Relaxed), counters.height.load(Ordering::Relaxed)) {
            if !too_large.swap(true, Ordering::Relaxed) {
                tracing::warn!("a video frame of more than {MAX_PIXELS} pixels is dropped");
            }
            return gst::PadProbeReturn::Handled;
        }
        counters.bytes.fetch_add(buffer.size() as u64, Ordering::Relaxed);
        counters.last.store(running_time().mseconds(), Ordering::Relaxed);
        if counters.frames.fetch_add(1, Ordering::Relaxed) == 0 {
            on_first(codec, &counters);
        }
        gst::PadProbeReturn::Ok
    });
}

fn read_size(pad: &gst::Pad, counters: &Counters) {
    let caps = pad.current_caps();
    let size = |key| caps.as_ref()?.structure(0)?.get::<i32>(key).ok()?.try_into().ok();
    if let (Some(width), Some(height)) = (size("width"), size("height")) {
        counters.width.store(width, Ordering::Relaxed);
        counters.height.store(height, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::gst::pipeline::{BusEvent, Owned};
    use crate::media::gst::{inventory, launch};

    #[test]
    fn frames_larger_than_a_camera_makes_are_not_decoded() {
        assert!(is_decoded(0, 0) && is_decoded(3840, 2160) && is_decoded(4096, 2304));
        assert!(!is_decoded(16383, 16383) && !is_decoded(u32::MAX, u32::MAX));
    }

    /// Returns the packets of half a second of test media.
    fn packets(codec: Codec) -> Option<Vec<Vec<u8>>> {
        let encoder = inventory::encoder(codec).ok()?.pipeline;
        let bitrate = [("bitrate", Some("100".to_owned())), ("bitrate_bps", Some("100000".to_owned()))];
        let encoder =
            launch::fill(&launch::named(launch::Folder::Encode, encoder).unwrap(), &bitrate).unwrap();
        let source = match codec.kind() {
            Kind::Video => {
                "videotestsrc num-buffers=8 ! video/x-raw,format=I420,width=64,height=48,framerate=15/1"
            }
            Kind::Audio => {
                "audiotestsrc num-buffers=25 samplesperbuffer=960 ! audio/x-raw,rate=48000,channels=1"
            }
        };
        let convert =
            if codec.kind() == Kind::Video { "videoconvert" } else { "audioconvert ! audioresample" };
        let payload = rtp::payloader(&rtp::offered(codec), SSRC);
        let text = format!(
            "{source} ! {convert} ! {encoder} ! {payload} ! appsink name=out sync=false max-buffers=1000"
        );
        let pipeline = launch::parse(&text).unwrap();
        let out: gst_app::AppSink = launch::by_name(&pipeline, "out").unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let packet = || Some(out.pull_sample().ok()?.buffer()?.map_readable().ok()?.to_vec());
        let packets = std::iter::from_fn(packet).collect();
        pipeline.set_state(gst::State::Null).unwrap();
        Some(packets)
    }

    const SSRC: u32 = 1;

    /// Returns packets with garbage payloads: every possible first byte, in five lengths.
    fn rubbish(payload_type: u8) -> impl Iterator<Item = Vec<u8>> {
        (0..=255_u8).flat_map(move |first| {
            [1, 2, 3, 40, 900].map(|length: usize| {
                let mut packet =
                    vec![0x80, payload_type | (first & 0x80), 0, 0, 0, 0, first / 4, 0, 0, 0, 0, SSRC as u8];
                let noise = (0..length).map(|n| (n as u8).wrapping_mul(first | 1).wrapping_mul(151) ^ first);
                packet.extend(noise);
                packet[12] = first;
                packet
            })
        })
    }

    #[test]
    fn garbage_of_any_codec_is_dropped_and_the_stream_continues() {
        crate::media::gst::init().unwrap();
        for codec in Codec::ALL {
            let offered = rtp::offered(codec);
            let pipeline = launch::parse("appsrc name=in format=time ! rtpptdemux name=demux").unwrap();
            let source: gst_app::AppSrc = launch::by_name(&pipeline, "in").unwrap();
            let caps = rtp::caps(std::slice::from_ref(&offered), Some(SSRC));
            source.set_caps(Some(&caps));
            let demux: gst::Element = launch::by_name(&pipeline, "demux").unwrap();
            let given = caps.clone();
            demux.connect("request-pt-map", false, move |_| Some(given.to_value()));
            let (tracks, taken) = smol::channel::bounded(4);
            let faults = Arc::new(AtomicU64::new(0));
            let (weak, counts) = (pipeline.downgrade(), faults.clone());
            demux.connect_pad_added(move |_, pad| {
                let (pipeline, counts) = (weak.upgrade().unwrap(), counts.clone());
                let fault = move |_| {
                    counts.fetch_add(1, Ordering::Relaxed);
                };
                let track = link(&pipeline, pad, |_| true, |_, _| {}, fault).unwrap().unwrap();
                track.flow();
                tracks.try_send(track).unwrap();
            });
            let (errors, failed) = smol::channel::bounded(16);
            let owned = Owned::new(pipeline, move |_, event| {
                if let BusEvent::Error(element, reason) = event {
                    let _ = errors.try_send((element, reason));
                }
            });
            owned.play().unwrap();
            let mut sequence = 0_u16;
            let mut push = |mut packet: Vec<u8>| {
                packet[2..4].copy_from_slice(&sequence.to_be_bytes());
                sequence = sequence.wrapping_add(1);
                let mut buffer = gst::Buffer::from_mut_slice(packet);
                buffer.get_mut().unwrap().set_pts(running_time());
                source.push_buffer(buffer).unwrap_or_else(|error| panic!("{codec}: {error}"));
            };
            rubbish(offered.pt).for_each(&mut push);
            let track = taken.recv_blocking().unwrap();
            let before = || (track.counters.frames.load(Ordering::Relaxed), source.current_level_buffers());
            let began = std::time::Instant::now();
            while source.current_level_buffers() > 0 {
                assert!(began.elapsed().as_secs() < 60, "{codec}: it is stuck: {:?}", before());
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(Duration::from_millis(250));
            let rubbish = track.counters.frames.load(Ordering::Relaxed);
            if let Some(packets) = packets(codec) {
                // A part accepts nothing for a moment after a fault, so that the packets are repeated.
                while track.counters.frames.load(Ordering::Relaxed) < rubbish + 5 {
                    assert!(
                        began.elapsed().as_secs() < 60,
                        "{codec}: nothing is taken any more: {:?}",
                        before()
                    );
                    packets.iter().cloned().for_each(&mut push);
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
            eprintln!("{codec}: {} faults, {rubbish} frames of rubbish", faults.load(Ordering::Relaxed));
            assert_eq!(failed.try_recv().ok(), None, "{codec}");
            assert!(faults.load(Ordering::Relaxed) <= 1, "{codec}");
        }
    }
}
