//! Two connections of the media layer in one process, joined by the session's machines alone.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::{PATIENCE, in_time, pace};
use roomtone::media::capture::SourceConfig;
use roomtone::media::peer::PeerConfig;
use roomtone::media::receive::Track;
use roomtone::media::webrtc::data_channel::{Channel, ChannelConfig, Message};
use roomtone::media::{Capture, Encoders, Peer, PeerEvent, Rates, Stream};
use roomtone::protocol::PeerMessage;
use roomtone::sdp::{Codec, Kind};
use roomtone::session::negotiation::Event;
use roomtone::session::{Effect, Negotiation, Output, Terms};
use smol::channel::{Receiver, bounded};

/// Small test pictures, a tone, or both.
async fn stream(kinds: &[Kind]) -> Stream {
    let (failures, _) = bounded(16);
    let mut captures = Vec::new();
    for kind in kinds {
        let source = match kind {
            Kind::Video => "test",
            Kind::Audio => "tone",
        };
        let config = SourceConfig { size: Some((160, 120)), fps: 15, ..SourceConfig::named(source) };
        captures.push(Capture::start(*kind, &config, failures.clone()).await.unwrap());
    }
    Stream::new(Encoders::new(captures, Rates::fixed(300_000), failures))
}

struct Side {
    name: &'static str,
    negotiation: Negotiation,
    config: PeerConfig,
    peer: Option<Peer>,
    events: (smol::channel::Sender<PeerEvent>, Receiver<PeerEvent>),
    first_frames: Vec<Codec>,
    channels: Vec<Channel>,
    forged: bool,
    tracks: Vec<Track>,
    ended: Vec<Track>,
}

impl std::fmt::Debug for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct(self.name)
            .field("first_frames", &self.first_frames)
            .field("channels", &self.channels)
            .field("tracks", &self.tracks)
            .field("ended", &self.ended)
            .field("stats", &self.peer.as_ref().map(Peer::stats))
            .field("negotiation", &self.negotiation)
            .finish()
    }
}

impl Side {
    async fn new(name: &'static str, codecs: &[Codec], send: &[Kind]) -> Self {
        let streams = if send.is_empty() { vec![] } else { vec![stream(send).await] };
        let config = PeerConfig {
            streams,
            chat: Some(ChannelConfig::reliable("chat")),
            receive: Kind::ALL.to_vec(),
            codecs: codecs.to_vec(),
            preferred: codecs.to_vec(),
            ..PeerConfig::default()
        };
        Self {
            name,
            negotiation: Negotiation::new(Terms {
                drops_added_lines: roomtone::media::forgets_offers(),
                ..Terms::new(true, config.wanted())
            }),
            config,
            peer: None,
            events: bounded(256),
            first_frames: vec![],
            channels: vec![],
            forged: false,
            tracks: vec![],
            ended: vec![],
        }
    }

    async fn step(&mut self, to: &mut VecDeque<PeerMessage>, from: &mut VecDeque<PeerMessage>) {
        while let Some(message) = from.pop_front() {
            self.negotiation.handle_peer(Instant::now(), message);
        }
        while let Some(output) = self.negotiation.poll_output() {
            match output {
                Output::Effect(Effect::Open) => {
                    self.peer = Some(Peer::open(self.config.clone(), self.events.0.clone()).unwrap());
                }
                Output::Effect(effect) => {
                    let peer = self.peer.as_ref().unwrap();
                    if let Some((id, result)) = peer.execute(effect).await {
                        self.negotiation.handle_result(Instant::now(), id, result);
                    }
                }
                Output::Send(message) => to.push_back(message),
                other => panic!("{}: {other:?}", self.name),
            }
        }
        while let Some(event) = self.negotiation.poll_event() {
            let is_good = matches!(event, Event::Negotiated | Event::Replaced | Event::IceRestarted);
            assert!(is_good, "{}: {event:?}", self.name);
        }
        while let Ok(event) = self.events.1.try_recv() {
            match event {
                PeerEvent::LocalCandidate(candidate) => {
                    self.negotiation.handle_local_candidate(candidate);
                }
                PeerEvent::FirstFrame { track, size, .. } => {
                    let codec = track.codec;
                    if codec.kind() == Kind::Video {
                        assert_eq!(size, Some((160, 120)));
                    }
                    self.first_frames.push(codec);
                }
                PeerEvent::Channel(channel) => self.channels.push(channel),
                PeerEvent::Forged => self.forged = true,
                PeerEvent::Track(track) => self.tracks.push(track),
                PeerEvent::TrackEnded(track) => self.ended.push(track),
                PeerEvent::Failed(reason) => panic!("{}: {reason}", self.name),
                _ => {}
            }
        }
    }
}

fn run(offerer: &[Codec], answerer: &[Codec], expected: Codec, send: (&[Kind], &[Kind])) {
    roomtone::media::init().unwrap();
    smol::block_on(async {
        let a = Side::new("offerer", offerer, send.0).await;
        let b = Side::new("answerer", answerer, send.1).await;
        let mut pair = Pair::new(a, b);
        pair.until("first frames and channels", |a, b| {
            a.first_frames.len() == send.1.len()
                && b.first_frames.len() == send.0.len()
                && a.channels.len() + b.channels.len() >= 2
        })
        .await;
        for side in [&pair.a, &pair.b] {
            assert!(side.first_frames.iter().all(|c| *c == expected || *c == Codec::Opus));
        }
        assert!(pair.a.channels[0].try_send(&Message::Text("hello".into())));
        let received = in_time("the message", pair.b.channels[0].receive()).await;
        assert_eq!(received, Some(Message::Text("hello".into())));
    });
}

#[test]
fn vp8_and_opus_both_ways() {
    run(
        &[Codec::Vp8, Codec::Opus],
        &[Codec::Vp8, Codec::H264, Codec::Opus],
        Codec::Vp8,
        (&Kind::ALL, &Kind::ALL),
    );
}

#[test]
fn h264_and_opus_both_ways() {
    run(
        &[Codec::H264, Codec::Opus],
        &[Codec::Vp8, Codec::H264, Codec::Opus],
        Codec::H264,
        (&Kind::ALL, &Kind::ALL),
    );
}

#[test]
fn one_way() {
    run(&[Codec::Vp8, Codec::Opus], &[Codec::Vp8, Codec::Opus], Codec::Vp8, (&Kind::ALL, &[]));
    run(&[Codec::Vp8, Codec::Opus], &[Codec::Vp8, Codec::Opus], Codec::Vp8, (&[], &Kind::ALL));
}

#[test]
fn an_encoder_runs_as_long_as_somebody_needs_it() {
    roomtone::media::init().unwrap();
    smol::block_on(async {
        let (failures, _) = bounded(16);
        let config = SourceConfig { size: Some((160, 120)), fps: 15, ..SourceConfig::named("test") };
        let capture = Capture::start(Kind::Video, &config, failures.clone()).await.unwrap();
        let encoders = Encoders::new(vec![capture], Rates::fixed(300_000), failures);
        encoders.keep(Codec::Vp8).unwrap();
        // Two peers of one codec share one encode; another codec is another one, while it is needed.
        let (first, second) = (encoders.join(Codec::H264).unwrap(), encoders.join(Codec::H264).unwrap());
        assert!(Arc::ptr_eq(&first.1, &second.1));
        let watch = Arc::downgrade(&first.1);
        drop((first, second));
        assert!(watch.upgrade().is_none(), "nobody needs it");
        let kept = Arc::downgrade(&encoders.join(Codec::Vp8).unwrap().1);
        assert!(kept.upgrade().is_some());
        assert!(encoders.join(Codec::Opus).is_err(), "no sound is sent");
    });
}

/// Between the two somebody writes another fingerprint into what one of them says.
fn forge(message: &mut PeerMessage) {
    if let PeerMessage::Description(description) = message {
        let digit = |c: char| if c == 'A' { 'B' } else { 'A' };
        let forged = |line: &str| match line.strip_prefix("a=fingerprint:sha-256 ") {
            Some(digest) => {
                let first = digest.chars().next().map(digit).unwrap();
                format!("a=fingerprint:sha-256 {first}{}\r\n", &digest[1..])
            }
            None => format!("{line}\r\n"),
        };
        description.sdp = description.sdp.lines().map(forged).collect();
    }
}

#[test]
fn a_forged_fingerprint_is_found_out_before_anything_is_sent_or_shown() {
    roomtone::media::init().unwrap();
    for offer_is_forged in [true, false] {
        smol::block_on(async {
            let codecs = [Codec::Vp8, Codec::Opus];
            let a = Side::new("offerer", &codecs, &Kind::ALL).await;
            let b = Side::new("answerer", &codecs, &Kind::ALL).await;
            let mut pair = Pair::new(a, b);
            pair.forged = [offer_is_forged, !offer_is_forged];
            pair.until("alarm", |a, b| a.forged || b.forged).await;
            let (deceived, other) = if offer_is_forged { (&pair.b, &pair.a) } else { (&pair.a, &pair.b) };
            assert!(deceived.forged && !other.forged);
            assert!(deceived.tracks.is_empty(), "nothing is shown");
            let stats = deceived.peer.as_ref().unwrap().stats();
            assert_eq!((stats.video_frames_sent, stats.audio_frames_sent), (0, 0), "nothing is sent");
        });
    }
}

/// Two sides, and what is on its way between them.
struct Pair {
    a: Side,
    b: Side,
    to_a: VecDeque<PeerMessage>,
    to_b: VecDeque<PeerMessage>,
    /// Whether the fingerprints in the messages of `a`, and in those of `b`, are replaced.
    forged: [bool; 2],
}

impl Pair {
    /// Returns two sides of which `a` is about to offer.
    fn new(mut a: Side, b: Side) -> Self {
        a.negotiation.request_offer(Instant::now());
        Self { a, b, to_a: VecDeque::new(), to_b: VecDeque::new(), forged: [false; 2] }
    }

    async fn until(&mut self, what: &str, done: impl Fn(&Side, &Side) -> bool) {
        let started = Instant::now();
        while !done(&self.a, &self.b) {
            let is_in_time = started.elapsed() < PATIENCE;
            assert!(is_in_time, "no {what} within {PATIENCE:?}; so far:\n{:?}\n{:?}", self.a, self.b);
            self.a.step(&mut self.to_b, &mut self.to_a).await;
            self.to_b.iter_mut().filter(|_| self.forged[0]).for_each(forge);
            self.b.step(&mut self.to_a, &mut self.to_b).await;
            self.to_a.iter_mut().filter(|_| self.forged[1]).for_each(forge);
            pace(Instant::now() + Duration::from_millis(2));
        }
    }

    /// Ten more frames come of each of these.
    async fn until_they_move(&mut self, what: &str, tracks: Vec<Track>) {
        let frames = |track: &Track| track.counters.frames.load(std::sync::atomic::Ordering::Relaxed);
        let before: Vec<u64> = tracks.iter().map(frames).collect();
        let move_on = || tracks.iter().zip(&before).all(|(track, before)| frames(track) > before + 10);
        self.until(what, |_, _| move_on()).await;
    }
}

#[test]
fn streams_and_channels_come_and_go_while_the_connection_stands() {
    roomtone::media::init().unwrap();
    smol::block_on(async {
        let codecs = [Codec::Vp8, Codec::Opus];
        let mut a = Side::new("impolite", &codecs, &[]).await;
        let b = Side::new("polite", &codecs, &[]).await;
        a.negotiation = Negotiation::new(Terms::new(false, Kind::ALL.to_vec()));
        let mut pair = Pair::new(a, b);
        pair.until("a channel", |a, b| !a.channels.is_empty() && !b.channels.is_empty()).await;
        assert!(pair.a.tracks.is_empty() && pair.b.tracks.is_empty());

        let first = stream(&[Kind::Video]).await;
        let add = |side: &mut Side, stream: &Stream| {
            side.peer.as_ref().unwrap().add_stream(stream.clone());
            side.negotiation.request_offer(Instant::now());
        };
        add(&mut pair.a, &first);
        pair.until("the first stream", |_, b| b.tracks.len() == 1).await;
        let track = pair.b.tracks[0].clone();
        pair.until_they_move("the first stream", vec![track.clone()]).await;

        // Both at once: their offers collide, and both streams come. Where an offer cannot be dropped, that takes
        // a fresh connection, which is the matter of those who hold the streams.
        let (second, third) = (stream(&[Kind::Video]).await, stream(&Kind::ALL).await);
        add(&mut pair.a, &second);
        if !roomtone::media::forgets_offers() {
            pair.until("the second stream", |_, b| b.tracks.len() == 2).await;
        }
        add(&mut pair.b, &third);
        pair.until("all streams", |a, b| b.tracks.len() == 2 && a.tracks.len() == 2).await;
        let all = pair.a.tracks.iter().chain(&pair.b.tracks).cloned().collect();
        pair.until_they_move("all streams", all).await;

        // A stream is removed, the others stay.
        pair.a.peer.as_ref().unwrap().remove_stream(&first.id);
        pair.a.negotiation.request_offer(Instant::now());
        pair.until("the end of the first", |_, b| b.ended.len() == 1).await;
        assert_eq!(pair.b.ended[0].mline, track.mline);
        let frames = || track.counters.frames.load(std::sync::atomic::Ordering::Relaxed);
        // Frames that were on their way have come by the time that the other streams moved.
        let others = [&pair.b.tracks[1], &pair.a.tracks[0], &pair.a.tracks[1]].map(Track::clone).to_vec();
        pair.until_they_move("frames of the other streams", others.clone()).await;
        let stopped = frames();
        pair.until_they_move("more frames of the other streams", others).await;
        assert_eq!(frames(), stopped, "it still comes");

        // Another takes its place.
        let fourth = stream(&[Kind::Video]).await;
        add(&mut pair.a, &fourth);
        pair.until("the fourth", |_, b| b.tracks.len() == 3).await;
        pair.until_they_move("the fourth", vec![pair.b.tracks[2].clone()]).await;
        assert_eq!(pair.b.tracks[2].mline, track.mline, "no m-line is wasted");

        // A channel takes no negotiation any more.
        let late = ChannelConfig { label: "late".into(), ordered: false, retransmits: Some(3) };
        assert!(!pair.b.peer.as_ref().unwrap().open_channel(&late).unwrap());
        pair.until("a late channel", |a, _| a.channels.iter().any(|c| c.label() == "late")).await;
        pair.until("both ends of it", |_, b| b.channels.iter().any(|c| c.label() == "late")).await;
    });
}

#[test]
fn a_channel_comes_to_a_connection_that_had_none() {
    roomtone::media::init().unwrap();
    smol::block_on(async {
        let codecs = [Codec::Vp8, Codec::Opus];
        let mut a = Side::new("offerer", &codecs, &[Kind::Audio]).await;
        let mut b = Side::new("answerer", &codecs, &[]).await;
        (a.config.chat, b.config.chat) = (None, None);
        let mut pair = Pair::new(a, b);
        pair.until("the sound", |_, b| b.tracks.len() == 1).await;
        pair.until_they_move("the sound", pair.b.tracks.clone()).await;
        assert!(pair.b.peer.as_ref().unwrap().open_channel(&ChannelConfig::reliable("late")).unwrap());
        pair.b.negotiation.request_offer(Instant::now());
        pair.until("the channel", |a, b| a.channels.len() == 1 && b.channels.len() == 1).await;
        assert!(pair.a.channels[0].try_send(&Message::Binary(vec![0, 255])));
        let received = in_time("the message", pair.b.channels[0].receive()).await;
        assert_eq!(received, Some(Message::Binary(vec![0, 255])));
        pair.until_they_move("the sound, still", pair.b.tracks.clone()).await;
    });
}

/// Tests that either side can offer a stream after all data channels were closed: webrtcbin would leave their m-line out.
#[test]
fn streams_are_added_after_the_last_channel_was_closed() {
    roomtone::media::init().unwrap();
    smol::block_on(async {
        let codecs = [Codec::Vp8, Codec::Opus];
        let a = Side::new("offerer", &codecs, &[Kind::Audio]).await;
        let b = Side::new("answerer", &codecs, &[]).await;
        let mut pair = Pair::new(a, b);
        pair.until("both ends of the channel", |a, b| a.channels.len() == 1 && b.channels.len() == 1).await;
        pair.a.peer.as_ref().unwrap().finish_channels(None).await;
        pair.until("its end", |a, b| !a.channels[0].is_open() && !b.channels[0].is_open()).await;
        let first = stream(&[Kind::Video]).await;
        pair.a.peer.as_ref().unwrap().add_stream(first);
        pair.a.negotiation.request_offer(Instant::now());
        pair.until("video of the side that offered first", |_, b| b.tracks.len() == 2).await;
        pair.until_they_move("all of its streams", pair.b.tracks.clone()).await;
        let second = stream(&[Kind::Audio]).await;
        pair.b.peer.as_ref().unwrap().add_stream(second);
        pair.b.negotiation.request_offer(Instant::now());
        pair.until("audio of the other side", |a, _| a.tracks.len() == 1).await;
        pair.until_they_move("all streams", pair.a.tracks.iter().chain(&pair.b.tracks).cloned().collect())
            .await;
    });
}
