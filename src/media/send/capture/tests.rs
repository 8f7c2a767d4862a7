//! Tests sources of many kinds: the process survives, and frames leave an encoder. No network except loopback.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use super::*;
use crate::base::timeout::timeout;
use crate::media::send::encode::{Encoder, Rates, Seat};
use crate::media::send::stream::Stream;
use crate::media::test_media;
use crate::sdp::Codec;

/// Maximum time that a test waits for an expected event.
const PATIENCE: Duration = Duration::from_secs(60);

fn config(source: &str) -> SourceConfig {
    SourceConfig::named(source)
}

fn file(path: &Path) -> SourceConfig {
    SourceConfig { device: Some(path.to_str().unwrap().to_owned()), ..config("file") }
}

/// Runs a pipeline to its end, and writes its output to a file of that name.
fn make(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    let pipeline = launch::parse(&format!("{text} ! filesink location={}", path.display())).unwrap();
    launch::run_to_end(&pipeline).unwrap();
    path
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|| panic!("waited in vain: {what}"))
}

/// Starts a stream of these sources; returns it with the receiver of its reports.
async fn stream(sources: &[(Kind, SourceConfig)]) -> Result<(Stream, Receiver<String>), MediaError> {
    crate::media::gst::init()?;
    let (failures, reports) = bounded(64);
    Ok((Stream::start(sources, Rates::fixed(300_000), failures).await?, reports))
}

/// Takes a seat at an encoder; returns a receiver of the width and height of each encoded frame.
fn watch(stream: &Stream, codec: Codec) -> (Seat, Arc<Encoder>, Receiver<(i32, i32)>) {
    let (seat, encoder) = stream.encoders.join(codec).unwrap();
    let (seen, frames) = bounded(10_000);
    let pad = encoder.producer().appsink().static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        // A sender that changes encoders must not see times of another base.
        let buffer = info.buffer().unwrap();
        let ahead = buffer.pts().unwrap().saturating_sub(crate::media::gst::pipeline::running_time());
        assert!(buffer.dts().is_none() && ahead < gst::ClockTime::SECOND, "{buffer:?}");
        let caps = pad.current_caps();
        let side = |name| caps.as_ref().and_then(|caps| caps.structure(0)?.get::<i32>(name).ok());
        let _ = seen.try_send((side("width").unwrap_or(0), side("height").unwrap_or(0)));
        gst::PadProbeReturn::Ok
    });
    (seat, encoder, frames)
}

/// Returns the size after `count` encoded frames of a source, or the error of its start.
async fn frames_of(config: &SourceConfig, count: usize) -> Result<(i32, i32), MediaError> {
    let (stream, _told) = stream(&[(Kind::Video, config.clone())]).await?;
    let (_seat, _encoder, frames) = watch(&stream, Codec::Vp8);
    let mut size = (0, 0);
    for _ in 0..count {
        size = within(&format!("{config:?}"), frames.recv()).await.unwrap();
    }
    Ok(size)
}

#[test]
fn video_of_any_size_and_rate_is_sent() {
    let live = "videotestsrc is-live=true ! video/x-raw";
    let sources = [
        format!("{live},framerate=0/1"),
        format!("{live},framerate=0/1,max-framerate=30/1"),
        format!("{live},framerate=1/1000"),
        format!("{live},framerate=1000/1"),
        format!("{live},framerate=1001/1"),
        format!("{live},width=1,height=1,framerate=30/1"),
        format!("{live},width=1,height=4000,framerate=30/1"),
        format!("{live},width=321,height=241,framerate=30/1"),
        format!("{live},pixel-aspect-ratio=1/1000,framerate=30/1"),
        format!("{live},pixel-aspect-ratio=2147483647/1,framerate=30/1"),
        format!("{live},format=GRAY8,framerate=30/1"),
        format!("{live},format=GRAY16_LE,framerate=0/1"),
        format!("{live},format=I420_10LE,framerate=30/1"),
        format!("{live},format=Y444_12LE,framerate=30/1"),
        format!("{live},format=RGBA,interlace-mode=interleaved,framerate=30/1"),
        // The caps change their size, format and rate while the source runs.
        "videotestsrc is-live=true num-buffers=5 ! video/x-raw,width=64,height=48,framerate=30/1 ! c.sink_0 \
         videotestsrc is-live=true ! video/x-raw,format=GRAY8,width=99,height=1,framerate=0/1 ! c.sink_1 \
         concat name=c adjust-base=true"
            .to_owned(),
        "fakesrc is-live=true sizetype=fixed sizemax=100 do-timestamp=true ! video/x-raw ! identity"
            .to_owned(),
    ];
    smol::block_on(async {
        crate::media::gst::init().unwrap();
        // Groups of six run in sequence, because the CI machine is small.
        for group in sources.chunks(6) {
            let all = group.iter().map(|source| async move { (source, frames_of(&config(source), 3).await) });
            for (source, came) in futures_util::future::join_all(all).await {
                match came {
                    Ok((width, height)) => {
                        let is_even = width % 2 == 0 && height % 2 == 0;
                        assert!(is_even && width >= 16 && height >= 16, "{source}: {width}x{height}");
                    }
                    // A source without a size, or with one that cannot be scaled, must report an error.
                    Err(MediaError::Source { .. })
                        if source.contains("height=4000")
                            || source.contains("fakesrc")
                            || source.contains("aspect") => {}
                    Err(error) => panic!("{source}: {error}"),
                }
            }
        }
    });
}

#[test]
fn audio_of_any_format_is_sent() {
    let live = "audiotestsrc is-live=true ! audio/x-raw";
    let sources = [
        format!("{live},format=U8,rate=8000,channels=1"),
        format!("{live},format=F64BE,rate=192000,channels=8"),
        format!("{live},rate=1,channels=1"),
        format!("{live},layout=non-interleaved,format=S24LE,channels=2"),
    ];
    smol::block_on(async {
        for source in sources {
            let started = stream(&[(Kind::Audio, config(&format!("{source} ! identity")))]).await;
            match started {
                Ok((stream, _told)) => {
                    let (_seat, _encoder, frames) = watch(&stream, Codec::Opus);
                    within(&source, frames.recv()).await.unwrap();
                }
                Err(error) => assert!(source.contains("rate=1,"), "{source}: {error}"),
            }
        }
    });
}

#[test]
fn a_still_picture_serves_late_peers_too() {
    crate::media::gst::init().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let one = "videotestsrc num-buffers=1 ! video/x-raw,width=160,height=120";
    let stills = [
        make(folder.path(), "a.png", &format!("{one} ! pngenc")),
        make(folder.path(), "b.jpg", &format!("{one} ! jpegenc")),
    ];
    smol::block_on(async {
        for still in stills {
            let (stream, reports) = stream(&[(Kind::Video, file(&still))]).await.unwrap();
            let (_seat, _encoder, frames) = watch(&stream, Codec::Vp8);
            for _ in 0..3 {
                assert_eq!(within("the still", frames.recv()).await.unwrap(), (160, 120));
            }
            let (_late, _other, late) = watch(&stream, Codec::H264);
            assert_eq!(within("the still in another codec", late.recv()).await.unwrap(), (160, 120));
            assert!(reports.is_empty(), "{:?}", reports.try_recv());
        }
    });
}

#[test]
fn a_missing_kind_of_a_file_is_reported_and_the_other_is_sent() {
    crate::media::gst::init().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let film = make(
        folder.path(),
        "film.mkv",
        "videotestsrc num-buffers=50 ! video/x-raw,width=160,height=120,framerate=25/1 ! vp8enc deadline=1 ! matroskamux",
    );
    let song = make(folder.path(), "song.ogg", "audiotestsrc num-buffers=100 ! opusenc ! oggmux");
    let (video, audio) = (|path: &Path| (Kind::Video, file(path)), |path: &Path| (Kind::Audio, file(path)));
    smol::block_on(async {
        for (path, has, lacks) in [(&film, Kind::Video, "audio"), (&song, Kind::Audio, "video")] {
            let (stream, reports) = within("a stream", stream(&[video(path), audio(path)])).await.unwrap();
            assert!(Kind::ALL.into_iter().all(|kind| stream.has(kind) == (kind == has)));
            let note = reports.try_recv().unwrap();
            assert!(
                note.contains(path.to_str().unwrap()) && note.contains(&format!("has no {lacks}")),
                "{note}"
            );
        }
        let error = stream(&[video(&song), audio(&film)]).await.unwrap_err().to_string();
        assert!(error.contains("song.ogg has no video"), "{error}");
    });
}

/// Serves a file to every request, without ranges; returns its address and the number of requests.
fn web_server(file: Vec<u8>) -> (String, Arc<AtomicUsize>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/film.mkv", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let counts = requests.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 4096]);
            counts.fetch_add(1, Ordering::Relaxed);
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", file.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&file));
        }
    });
    (address, requests)
}

#[test]
fn a_film_of_a_web_server_without_ranges_is_played_again_without_a_report() {
    crate::media::gst::init().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let text = "videotestsrc num-buffers=25 ! video/x-raw,width=64,height=48,framerate=25/1 ! vp8enc deadline=1 ! matroskamux";
    let film = std::fs::read(make(folder.path(), "film.mkv", text)).unwrap();
    let (address, requests) = web_server(film);
    smol::block_on(async {
        let config = SourceConfig { device: Some(address), ..config("file") };
        let (stream, reports) = within("a stream", stream(&[(Kind::Video, config)])).await.unwrap();
        let (_seat, _encoder, frames) = watch(&stream, Codec::Vp8);
        while requests.load(Ordering::Relaxed) < 3 {
            within("frames", frames.recv()).await.unwrap();
        }
        assert!(reports.is_empty(), "{:?}", reports.try_recv());
    });
}

#[test]
fn sources_that_are_not_live_are_paced_and_their_end_is_reported() {
    smol::block_on(async {
        let source = "videotestsrc num-buffers=15 ! video/x-raw,width=64,height=48,framerate=25/1";
        let began = Instant::now();
        let (stream, reports) = stream(&[(Kind::Video, config(source))]).await.unwrap();
        let end = within("its end", reports.recv()).await.unwrap();
        assert_eq!(end, "the video pipeline has ended");
        assert!(began.elapsed() >= Duration::from_millis(14 * 40), "{:?}", began.elapsed());
        // The last video frame stays after the end.
        let (_seat, _encoder, frames) = watch(&stream, Codec::Vp8);
        within("the last picture", frames.recv()).await.unwrap();
    });
}

#[test]
fn a_paced_frame_does_not_delay_the_end() {
    smol::block_on(async {
        let source = "videotestsrc ! video/x-raw,width=64,height=48,framerate=1/1000 ! identity";
        let (failures, _told) = bounded(8);
        crate::media::gst::init().unwrap();
        let capture = Capture::start(Kind::Video, &config(source), failures).await.unwrap();
        let pipeline = capture.running.owned.pipeline().clone();
        drop(capture);
        let stopped = async {
            while pipeline.current_state() != gst::State::Null {
                smol::Timer::after(Duration::from_millis(10)).await;
            }
        };
        within("the end", stopped).await;
    });
}

#[test]
fn rotated_video_is_sent_upright() {
    let turned = "videotestsrc is-live=true ! video/x-raw,format=I420,width=160,height=120,framerate=25/1 ! \
                  taginject tags=image-orientation=rotate-90";
    let encoded =
        format!("{turned} ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! h264parse");
    smol::block_on(async {
        for source in [&format!("{turned} ! identity"), &encoded] {
            assert_eq!(frames_of(&config(source), 3).await.unwrap(), (120, 160), "{source}");
        }
    });
}

#[test]
fn a_peer_that_joins_between_key_frames_gets_video_at_once() {
    let source = "videotestsrc is-live=true ! video/x-raw,format=I420,width=160,height=120,framerate=25/1 ! \
                  x264enc tune=zerolatency speed-preset=ultrafast key-int-max=2000 ! h264parse";
    smol::block_on(async {
        let (stream, _told) = stream(&[(Kind::Video, config(source))]).await.unwrap();
        assert_eq!(stream.encoders.passed_codec(Kind::Video), Some(Codec::H264));
        // Joins before and after the source turns out to be unfit for passthrough; the source has only one key frame.
        for pause in [1, 5] {
            smol::Timer::after(Duration::from_secs(pause)).await;
            let (_seat, encoder, frames) = watch(&stream, Codec::H264);
            assert!(!encoder.passes());
            within("the first frame", frames.recv()).await.unwrap();
        }
        // Four seconds of the source show it, which take a busy machine longer.
        test_media::wait("the end of passthrough", || stream.encoders.passed_codec(Kind::Video).is_none());
    });
}

#[test]
fn passthrough_begins_once_proven_and_at_a_key_frame() {
    let source = "videotestsrc is-live=true ! video/x-raw,format=I420,width=160,height=120,framerate=25/1 ! \
                  x264enc tune=zerolatency speed-preset=ultrafast bitrate=100 key-int-max=25 ! h264parse";
    smol::block_on(async {
        let (stream, _told) = stream(&[(Kind::Video, config(source))]).await.unwrap();
        stream.encoders.keep(Codec::H264).unwrap();
        for _ in 0..2 {
            let (seat, encoder, frames) = watch(&stream, Codec::H264);
            assert!(!encoder.passes());
            within("the first frame", frames.recv()).await.unwrap();
            let passed = async {
                while !stream.encoders.serve(&seat, u32::MAX, 0).unwrap().passes() {
                    smol::Timer::after(Duration::from_millis(50)).await;
                }
            };
            within("it is passed on", passed).await;
        }
    });
}

#[test]
fn a_source_that_ends_is_restarted_and_both_are_reported_once() {
    smol::block_on(async {
        let source =
            "videotestsrc is-live=true num-buffers=20 ! video/x-raw,width=64,height=48,framerate=25/1";
        let (stream, reports) = stream(&[(Kind::Video, config(source))]).await.unwrap();
        let (_seat, _encoder, frames) = watch(&stream, Codec::Vp8);
        let stopped = "the video pipeline has stopped: it ended; trying again";
        for expected in [stopped, "the video pipeline is back", stopped] {
            assert_eq!(within(expected, reports.recv()).await.unwrap(), expected);
            // Drains frames of the source and of its stand-in.
            while frames.try_recv().is_ok() {}
            within("frames", frames.recv()).await.unwrap();
        }
        // A replaced source must not be restarted.
        let (failures, _) = bounded(8);
        let other = Capture::start(Kind::Video, &config("smpte"), failures).await.unwrap();
        let id = other.id();
        assert!(stream.encoders.replace(other).unwrap());
        // The replaced source may have come back before.
        while reports.try_recv().is_ok() {}
        smol::Timer::after(Duration::from_secs(3)).await;
        assert_eq!(stream.encoders.source(Kind::Video).unwrap().0, id);
        assert!(reports.is_empty(), "{:?}", reports.try_recv());
    });
}

#[test]
fn black_is_sent_until_a_network_camera_comes_up() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let camera = format!("rtsp://me:secret@{free}/camera");
    let config = SourceConfig { device: Some(camera), ..config("rtsp") };
    smol::block_on(async {
        let sources = [(Kind::Video, config.clone()), (Kind::Audio, config)];
        let (stream, reports) = within("a stand-in", stream(&sources)).await.unwrap();
        let (_seat, _encoder, frames) = watch(&stream, Codec::Vp8);
        within("black", frames.recv()).await.unwrap();
        let (_seat, _encoder, sounds) = watch(&stream, Codec::Opus);
        within("silence", sounds.recv()).await.unwrap();
        let text = within("a word", reports.recv()).await.unwrap();
        assert!(text.contains(&format!("the camera rtsp://{free}/camera does not start")), "{text}");
        assert!(text.ends_with("; trying again") && !text.contains("secret"), "{text}");
    });
}
