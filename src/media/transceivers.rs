//! Transceivers of one webrtcbin: made for our offer, or fitted to the peer's.

use std::sync::Arc;

use gst::prelude::*;
use gst_webrtc::{WebRTCRTPTransceiver, WebRTCRTPTransceiverDirection as Direction};

use super::encode::Encoder;
use super::peer::PeerConfig;
use super::stream::Stream;
use super::{MediaError, launch, rtp};
use crate::sdp::codec::{Payload, usable};
use crate::sdp::{Codec, Kind, Sdp};

/// An m-line that we can send on, and what goes over it from an encoder to the peer.
#[derive(Debug)]
pub(super) struct Sender {
    appsrc: gst_app::AppSrc,
    pad: gst::Pad,
    transceiver: WebRTCRTPTransceiver,
    codec: Codec,
    feed: Option<Feed>,
    /// Frames of what was sent over it before.
    before: u64,
    /// The peer takes it.
    pub(super) is_wanted: bool,
}

#[derive(Debug)]
struct Feed {
    stream: String,
    link: gst_utils::ConsumptionLink,
    encoder: Arc<Encoder>,
}

impl Sender {
    pub(super) fn kind(&self) -> Kind {
        self.codec.kind()
    }

    /// Its m-line, once that is agreed.
    pub(super) fn mline(&self) -> Option<usize> {
        Some(self.transceiver.mlineindex()).filter(|index| *index != u32::MAX).map(|index| index as usize)
    }

    /// Nothing is sent over it, for now.
    pub(super) fn is_idle(&self) -> bool {
        self.feed.is_none()
    }

    pub(super) fn carries(&self, stream: &str) -> bool {
        self.feed.as_ref().is_some_and(|feed| feed.stream == stream)
    }

    /// Frames sent so far.
    pub(super) fn pushed(&self) -> u64 {
        self.before + self.feed.as_ref().map_or(0, |feed| feed.link.pushed())
    }

    /// Sends this from now on.
    fn take(&mut self, stream: &Stream) -> Result<(), MediaError> {
        let encoder = stream.encoders.encoder(self.codec)?;
        if self.pad.has_property("msid") {
            self.pad.set_property("msid", &stream.id);
        }
        let link = encoder.producer().add_consumer(&self.appsrc);
        let link = link.map_err(|error| {
            MediaError::WebRtc(format!("the {} cannot be sent: {error}", self.codec.kind()))
        })?;
        // Nothing leaves before the connection stands.
        link.set_discard(true);
        self.feed = Some(Feed { stream: stream.id.clone(), link, encoder });
        Ok(())
    }

    /// Sends nothing from now on.
    pub(super) fn stop(&mut self) {
        self.before = self.pushed();
        self.feed = None;
    }

    /// Lets the stream flow, beginning with a key frame, once the connection stands and as long as the
    /// peer wants it.
    pub(super) fn flow(&self, connected: bool) {
        let on = connected && self.is_wanted;
        let Some(feed) = self.feed.as_ref().filter(|feed| on == feed.link.discard()) else { return };
        feed.link.set_discard(!on);
        if let (true, Some(pad)) = (on, feed.encoder.producer().appsink().static_pad("sink")) {
            pad.push_event(gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build());
        }
    }
}

fn direction(send: bool, receive: bool) -> Direction {
    match (send, receive) {
        (true, true) => Direction::Sendrecv,
        (true, false) => Direction::Sendonly,
        (false, true) => Direction::Recvonly,
        (false, false) => Direction::Inactive,
    }
}

fn all(webrtc: &gst::Element) -> Vec<WebRTCRTPTransceiver> {
    let get = |i: i32| webrtc.emit_by_name::<Option<WebRTCRTPTransceiver>>("get-transceiver", &[&i]);
    (0..).map_while(get).collect()
}

/// Makes room for each stream of ours that is not sent yet: an m-line that nothing is sent on any more, or
/// a new one; and for each kind that we only receive. New ones have one codec each, the one that we
/// prefer.
pub(super) fn for_offer(
    pipeline: &gst::Pipeline,
    webrtc: &gst::Element,
    config: &PeerConfig,
    streams: &[Stream],
    senders: &mut Vec<Sender>,
) -> Result<(), MediaError> {
    let present: Vec<Kind> = all(webrtc).iter().filter_map(kind_of).collect();
    for kind in Kind::ALL {
        let codec = config.codecs.iter().find(|codec| codec.kind() == kind);
        let payload = || {
            let none = || MediaError::WebRtc(format!("no codec for {kind}"));
            codec.map(|codec| rtp::offered(*codec)).ok_or_else(none)
        };
        let receive = config.receives(kind);
        for stream in streams.iter().filter(|stream| stream.has(kind)) {
            if senders.iter().any(|sender| sender.kind() == kind && sender.carries(&stream.id)) {
                continue;
            }
            match senders.iter_mut().find(|sender| sender.kind() == kind && sender.is_idle()) {
                Some(idle) => idle.take(stream)?,
                None => {
                    let line = (None, direction(true, receive));
                    senders.push(attach(pipeline, webrtc, stream, &payload()?, line)?);
                }
            }
        }
        let is_there = present.contains(&kind) || senders.iter().any(|sender| sender.kind() == kind);
        if receive && !is_there {
            add(webrtc, direction(false, true), &payload()?);
        }
    }
    Ok(())
}

/// Fits our side to an offer that webrtcbin has just taken: for each m-line the codec, the direction,
/// and a sender where we have something to send. The first `agreed` m-lines were fitted before.
pub(super) fn for_answer(
    pipeline: &gst::Pipeline,
    webrtc: &gst::Element,
    config: &PeerConfig,
    streams: &[Stream],
    senders: &mut Vec<Sender>,
    offer: &Sdp,
    agreed: usize,
) -> Result<(), MediaError> {
    let transceivers = all(webrtc);
    // Those of an offer of ours that was forgotten: webrtcbin takes them for the peer's new m-lines.
    let mut waiting: Vec<Kind> = senders.iter().filter(|s| s.mline().is_none()).map(Sender::kind).collect();
    // What was agreed before stays: a direction that the peer changed shows in the answer, not here.
    for (mline, media) in offer.media.iter().enumerate().skip(agreed) {
        let Some(kind) = Kind::of(media) else { continue };
        // Newer versions make it with the offer, 1.22 only with the answer.
        let made = transceivers.iter().find(|t| t.mlineindex() as usize == mline);
        let payload = usable(media, &config.codecs).into_iter().next();
        let receive = config.receives(kind);
        if let (Some(at), Some(_)) = (waiting.iter().position(|waits| *waits == kind), &payload) {
            waiting.remove(at);
            continue;
        }
        // The peer's lines of a kind take our streams in turn.
        let is_sent = |id: &str| senders.iter().any(|s: &Sender| s.kind() == kind && s.carries(id));
        let stream = streams.iter().find(|stream| stream.has(kind) && !is_sent(&stream.id));
        match (payload, stream) {
            (Some(payload), Some(stream)) => {
                // No sink pad is given for a transceiver that does not send.
                if let Some(transceiver) = made {
                    transceiver.set_direction(direction(true, receive));
                }
                let line = (made.map(|_| mline), direction(true, receive));
                senders.push(attach(pipeline, webrtc, stream, &payload, line)?);
            }
            (Some(payload), None) => receive_only(webrtc, made, direction(false, receive), &payload),
            (None, _) => {
                receive_only(webrtc, made, Direction::Inactive, &rtp::offered(Codec::default_of(kind)));
            }
        }
    }
    Ok(())
}

fn kind_of(transceiver: &WebRTCRTPTransceiver) -> Option<Kind> {
    match transceiver.kind() {
        gst_webrtc::WebRTCKind::Audio => Some(Kind::Audio),
        gst_webrtc::WebRTCKind::Video => Some(Kind::Video),
        _ => None,
    }
}

/// The transceiver of an m-line that we send nothing on: the one that is there, or a new one.
fn receive_only(
    webrtc: &gst::Element,
    made: Option<&WebRTCRTPTransceiver>,
    direction: Direction,
    payload: &Payload,
) {
    match made {
        Some(transceiver) => {
            transceiver.set_direction(direction);
            set_up(transceiver, payload, None);
        }
        None => add(webrtc, direction, payload),
    }
}

/// A transceiver that sends nothing.
fn add(webrtc: &gst::Element, direction: Direction, payload: &Payload) {
    let args: [&dyn gst::glib::value::ToValue; 2] = [&direction, &rtp::caps(payload, None)];
    set_up(&webrtc.emit_by_name::<WebRTCRTPTransceiver>("add-transceiver", &args), payload, None);
}

/// One payload type, and retransmission for pictures.
fn set_up(transceiver: &WebRTCRTPTransceiver, payload: &Payload, ssrc: Option<u32>) {
    transceiver.set_codec_preferences(Some(&rtp::caps(payload, ssrc)));
    if payload.codec.kind() == Kind::Video && payload.feedback.iter().any(|feedback| feedback == "nack") {
        transceiver.set_property("do-nack", true);
    }
}

/// Builds `appsrc ! payloader`, links it to a sink pad of webrtcbin, and sends the stream over it: on that
/// m-line, which has a transceiver, or on the one that the next description of ours gives it.
fn attach(
    pipeline: &gst::Pipeline,
    webrtc: &gst::Element,
    stream: &Stream,
    payload: &Payload,
    (mline, direction): (Option<usize>, Direction),
) -> Result<Sender, MediaError> {
    let ssrc = fastrand::u32(1..);
    let kind = payload.codec.kind();
    let failed = |what: &str| MediaError::WebRtc(format!("the {kind} cannot be sent: {what}"));
    let bin = launch::parse_bin(&format!("appsrc name=in ! {}", rtp::payloader(payload, ssrc)))?;
    let appsrc: gst_app::AppSrc = launch::by_name(&bin, "in")?;
    pipeline.add(&bin).map_err(|_| failed("add"))?;
    let pad = match mline {
        Some(mline) => webrtc.request_pad_simple(&format!("sink_{mline}")),
        // Without a name the m-line stays open: the peer may offer one for the same place in this moment. 1.22
        // gives names of its own that are taken where others were asked for.
        None => {
            let caps = rtp::caps(payload, None);
            webrtc.pad_template("sink_%u").and_then(|pads| webrtc.request_pad(&pads, None, Some(&caps)))
        }
    };
    let pad = pad.ok_or_else(|| failed("no pad"))?;
    let src = bin.static_pad("src").ok_or_else(|| failed("no pad of the payloader"))?;
    src.link(&pad).map_err(|_| failed("link"))?;
    let transceiver = pad.property::<WebRTCRTPTransceiver>("transceiver");
    let codec = payload.codec;
    let mut sender = Sender { appsrc, pad, transceiver, codec, feed: None, before: 0, is_wanted: false };
    sender.take(stream)?;
    bin.sync_state_with_parent().map_err(|_| failed("state"))?;
    sender.transceiver.set_direction(direction);
    set_up(&sender.transceiver, payload, Some(ssrc));
    Ok(sender)
}

/// The codec parameters of an m-line in words, for logs.
pub(super) fn summary(sdp: &Sdp) -> String {
    let lines = sdp
        .media
        .iter()
        .map(|media| format!("{} {} {}", media.kind, media.mid().unwrap_or("-"), media.direction().as_str()));
    lines.collect::<Vec<_>>().join(", ")
}
