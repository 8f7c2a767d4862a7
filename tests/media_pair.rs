//! Two connections of the media layer in one process, joined by the session's machines alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]
#![cfg(feature = "media")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use roomtone::media::capture::SourceConfig;
use roomtone::media::peer::PeerConfig;
use roomtone::media::{Capture, Encoders, Peer, PeerEvent};
use roomtone::protocol::PeerMessage;
use roomtone::sdp::{Codec, Kind};
use roomtone::session::negotiation::Output;
use roomtone::session::{Effect, Negotiation, Terms};
use smol::channel::{Receiver, bounded};

struct Side {
    name: &'static str,
    negotiation: Negotiation,
    config: PeerConfig,
    peer: Option<Peer>,
    events: (smol::channel::Sender<PeerEvent>, Receiver<PeerEvent>),
    first_frames: Vec<Codec>,
    messages: Vec<String>,
    open_channels: usize,
    forged: bool,
    tracks: usize,
}

impl Side {
    async fn new(name: &'static str, codecs: &[Codec], send: &[Kind]) -> Self {
        let (failures, _) = bounded(16);
        let mut captures = Vec::new();
        for kind in send {
            let source = match kind {
                Kind::Video => "test",
                Kind::Audio => "tone",
            };
            let config =
                SourceConfig { source: source.into(), device: None, size: Some((160, 120)), fps: 15 };
            captures.push(Capture::start(*kind, &config, failures.clone()).await.unwrap());
        }
        let config = PeerConfig {
            encoders: Arc::new(Encoders::new(captures, 300, failures)),
            receive: Kind::ALL.to_vec(),
            codecs: codecs.to_vec(),
            stream: name.into(),
            ice: roomtone::media::transport::IceConfig::default(),
            latency: Default::default(),
        };
        Self {
            name,
            negotiation: Negotiation::new(Terms::new(true, config.wanted())),
            config,
            peer: None,
            events: bounded(256),
            first_frames: vec![],
            messages: vec![],
            open_channels: 0,
            forged: false,
            tracks: 0,
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
                Output::Negotiated | Output::Restarted => {}
                Output::Warning(text) => panic!("{}: {text}", self.name),
                Output::Declined(reason) => panic!("{}: {reason}", self.name),
                Output::Failed(step, reason) => panic!("{}: {step}: {reason}", self.name),
            }
        }
        while let Ok(event) = self.events.1.try_recv() {
            match event {
                PeerEvent::LocalCandidate(mline, candidate) => {
                    self.negotiation.handle_local_candidate(mline, candidate);
                }
                PeerEvent::FirstFrame { codec, size, .. } => {
                    if codec.kind() == Kind::Video {
                        assert_eq!(size, Some((160, 120)));
                    }
                    self.first_frames.push(codec);
                }
                PeerEvent::Message { text, .. } => self.messages.push(text),
                PeerEvent::ChannelOpen(_) => self.open_channels += 1,
                PeerEvent::Forged => self.forged = true,
                PeerEvent::Track(_) => self.tracks += 1,
                PeerEvent::Failed(reason) => panic!("{}: {reason}", self.name),
                _ => {}
            }
        }
    }
}

fn run(offerer: &[Codec], answerer: &[Codec], expected: Codec, send: (&[Kind], &[Kind])) {
    roomtone::media::init().unwrap();
    smol::block_on(async {
        let mut a = Side::new("offerer", offerer, send.0).await;
        let mut b = Side::new("answerer", answerer, send.1).await;
        let (mut to_a, mut to_b) = (VecDeque::new(), VecDeque::new());
        a.negotiation.request_offer(Instant::now());
        let started = Instant::now();
        let done = |a: &Side, b: &Side| {
            a.first_frames.len() == send.1.len()
                && b.first_frames.len() == send.0.len()
                && a.open_channels + b.open_channels >= 2
        };
        while !done(&a, &b) {
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "a {:?} b {:?}",
                a.first_frames,
                b.first_frames
            );
            a.step(&mut to_b, &mut to_a).await;
            b.step(&mut to_a, &mut to_b).await;
            smol::Timer::after(Duration::from_millis(2)).await;
        }
        eprintln!("all frames after {:?}", started.elapsed());
        for side in [&a, &b] {
            assert!(side.first_frames.iter().all(|c| *c == expected || *c == Codec::Opus));
        }
        assert!(a.peer.as_ref().unwrap().say("hello"));
        while b.messages.is_empty() {
            assert!(started.elapsed() < Duration::from_secs(20));
            b.step(&mut to_a, &mut to_b).await;
            smol::Timer::after(Duration::from_millis(2)).await;
        }
        assert_eq!(b.messages, ["hello"]);
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
        let config = SourceConfig { source: "test".into(), device: None, size: Some((160, 120)), fps: 15 };
        let capture = Capture::start(Kind::Video, &config, failures.clone()).await.unwrap();
        let encoders = Encoders::new(vec![capture], 300, failures);
        encoders.keep(Codec::Vp8).unwrap();
        // Two peers of one codec share one encode; another codec is another one, while it is needed.
        let (first, second) =
            (encoders.encoder(Codec::H264).unwrap(), encoders.encoder(Codec::H264).unwrap());
        assert!(Arc::ptr_eq(&first, &second));
        let watch = Arc::downgrade(&first);
        drop((first, second));
        assert!(watch.upgrade().is_none(), "nobody needs it");
        let kept = Arc::downgrade(&encoders.encoder(Codec::Vp8).unwrap());
        assert!(kept.upgrade().is_some());
        assert!(encoders.encoder(Codec::Opus).is_err(), "no sound is sent");
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
            let mut a = Side::new("offerer", &codecs, &Kind::ALL).await;
            let mut b = Side::new("answerer", &codecs, &Kind::ALL).await;
            let (mut to_a, mut to_b) = (VecDeque::new(), VecDeque::new());
            a.negotiation.request_offer(Instant::now());
            let started = Instant::now();
            loop {
                a.step(&mut to_b, &mut to_a).await;
                if offer_is_forged {
                    to_b.iter_mut().for_each(forge);
                }
                b.step(&mut to_a, &mut to_b).await;
                if !offer_is_forged {
                    to_a.iter_mut().for_each(forge);
                }
                let (deceived, other) = if offer_is_forged { (&b, &a) } else { (&a, &b) };
                if deceived.forged {
                    assert_eq!(deceived.tracks, 0, "nothing is shown");
                    let stats = deceived.peer.as_ref().unwrap().stats();
                    assert_eq!((stats.video_frames_sent, stats.audio_frames_sent), (0, 0), "nothing is sent");
                    assert!(!other.forged);
                    break;
                }
                assert!(started.elapsed() < Duration::from_secs(20), "it is not found out");
                smol::Timer::after(Duration::from_millis(2)).await;
            }
        });
    }
}
