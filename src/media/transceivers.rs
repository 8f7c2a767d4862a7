//! Transceivers of one webrtcbin: made for our offer, or fitted to the peer's.

use std::sync::Arc;

use gst::prelude::*;
use gst_webrtc::{WebRTCRTPTransceiver, WebRTCRTPTransceiverDirection as Direction};

use super::encode::Encoder;
use super::peer::PeerConfig;
use super::{MediaError, launch, rtp};
use crate::sdp::codec::{Payload, usable};
use crate::sdp::{Codec, Kind, Sdp};

/// What goes from an encoder to the peer.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) link: gst_utils::ConsumptionLink,
    pub(super) encoder: Arc<Encoder>,
    pub(super) mline: usize,
    /// The peer takes it.
    pub(super) is_wanted: bool,
}

impl Sender {
    /// Lets the stream flow, beginning with a key frame, once the connection stands and as long as the
    /// peer wants it.
    pub(super) fn flow(&self, connected: bool) {
        let on = connected && self.is_wanted;
        if on != self.link.discard() {
            return;
        }
        self.link.set_discard(!on);
        if let (true, Some(pad)) = (on, self.encoder.producer().appsink().static_pad("sink")) {
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

/// Adds a transceiver for each kind that we want and that has none yet, with one codec each, the
/// one that we prefer; `mlines` is the number of m-lines agreed so far.
pub(super) fn for_offer(
    pipeline: &gst::Pipeline,
    webrtc: &gst::Element,
    config: &PeerConfig,
    mut mlines: usize,
) -> Result<Vec<(Kind, Sender)>, MediaError> {
    let present: Vec<Kind> = all(webrtc).iter().filter_map(kind_of).collect();
    let mut senders = Vec::new();
    for kind in Kind::ALL {
        let (send, receive) = (config.sends(kind), config.receives(kind));
        if present.contains(&kind) || !(send || receive) {
            continue;
        }
        let codec = config.codecs.iter().find(|codec| codec.kind() == kind);
        let payload = rtp::offered(*codec.ok_or_else(|| MediaError::WebRtc(format!("no codec for {kind}")))?);
        if send {
            let sender = attach(pipeline, webrtc, config, &payload, mlines, direction(send, receive))?;
            senders.push((kind, sender));
        } else {
            add(webrtc, direction(send, receive), &payload);
        }
        mlines += 1;
    }
    Ok(senders)
}

/// Fits our side to an offer that webrtcbin has just taken: for each m-line the codec, the direction,
/// and a sender where we have something to send. The first `agreed` m-lines were fitted before.
pub(super) fn for_answer(
    pipeline: &gst::Pipeline,
    webrtc: &gst::Element,
    config: &PeerConfig,
    sending: &[Kind],
    offer: &Sdp,
    agreed: usize,
) -> Result<Vec<(Kind, Sender)>, MediaError> {
    let transceivers = all(webrtc);
    let mut senders = Vec::new();
    // What was agreed before stays: a direction that the peer changed shows in the answer, not here.
    for (mline, media) in offer.media.iter().enumerate().skip(agreed) {
        let Some(kind) = Kind::of(media) else { continue };
        // Newer versions make it with the offer, 1.22 only with the answer.
        let made = transceivers.iter().find(|t| t.mlineindex() as usize == mline);
        let payload = usable(media, &config.codecs).into_iter().next();
        let receive = config.receives(kind);
        // The first of the peer's lines of a kind is the one that we send on.
        let already = sending.contains(&kind) || senders.iter().any(|(k, _)| *k == kind);
        match payload {
            Some(payload) if config.sends(kind) && !already => {
                // No sink pad is given for a transceiver that does not send.
                if let Some(transceiver) = made {
                    transceiver.set_direction(direction(true, receive));
                }
                let sender = attach(pipeline, webrtc, config, &payload, mline, direction(true, receive))?;
                senders.push((kind, sender));
            }
            Some(payload) => receive_only(webrtc, made, direction(false, receive), &payload),
            None => receive_only(webrtc, made, Direction::Inactive, &rtp::offered(Codec::default_of(kind))),
        }
    }
    Ok(senders)
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

/// Builds `appsrc ! payloader` and links it to webrtcbin's sink pad of that m-line.
fn attach(
    pipeline: &gst::Pipeline,
    webrtc: &gst::Element,
    config: &PeerConfig,
    payload: &Payload,
    mline: usize,
    direction: Direction,
) -> Result<Sender, MediaError> {
    let ssrc = fastrand::u32(1..);
    let kind = payload.codec.kind();
    let failed = |what: &str| MediaError::WebRtc(format!("the {kind} cannot be sent: {what}"));
    let encoder = config.encoders.encoder(payload.codec)?;
    let bin = launch::parse_bin(&format!("appsrc name=in ! {}", rtp::payloader(payload, ssrc)))?;
    let appsrc: gst_app::AppSrc = launch::by_name(&bin, "in")?;
    pipeline.add(&bin).map_err(|_| failed("add"))?;
    let pad = webrtc.request_pad_simple(&format!("sink_{mline}")).ok_or_else(|| failed("no pad"))?;
    if pad.has_property("msid") {
        pad.set_property("msid", &config.stream);
    }
    let src = bin.static_pad("src").ok_or_else(|| failed("no pad of the payloader"))?;
    src.link(&pad).map_err(|_| failed("link"))?;
    let link = encoder.producer().add_consumer(&appsrc).map_err(|error| failed(&error.to_string()))?;
    // Nothing leaves before the connection stands.
    link.set_discard(true);
    bin.sync_state_with_parent().map_err(|_| failed("state"))?;
    let transceiver = pad.property::<WebRTCRTPTransceiver>("transceiver");
    transceiver.set_direction(direction);
    set_up(&transceiver, payload, Some(ssrc));
    Ok(Sender { link, encoder, mline, is_wanted: false })
}

/// The codec parameters of an m-line in words, for logs.
pub(super) fn summary(sdp: &Sdp) -> String {
    let lines = sdp
        .media
        .iter()
        .map(|media| format!("{} {} {}", media.kind, media.mid().unwrap_or("-"), media.direction().as_str()));
    lines.collect::<Vec<_>>().join(", ")
}
