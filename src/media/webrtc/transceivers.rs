//! Transceivers of one webrtcbin, created for our offer or fitted to the peer's.

use std::sync::Arc;

use gst::prelude::*;
use gst_webrtc::{WebRTCRTPTransceiver, WebRTCRTPTransceiverDirection as Direction};

use super::config::PeerConfig;
use crate::media::gst::error::MediaError;
use crate::media::gst::{launch, rtp};
use crate::media::rate::estimator::{Estimator, Finding};
use crate::media::send::encode::{Encoder, Seat};
use crate::media::send::encoder_link::EncoderLink;
use crate::media::send::stream::Stream;
use crate::sdp::codec::{Payload, usable};
use crate::sdp::{Codec, Kind, Sdp};

/// Minimum number of error correction packets for a hundred video packets.
const LEAST_FEC: u32 = 30;

/// An m-line on which we can send, with the link from the encoder to the peer.
#[derive(Debug)]
pub(crate) struct Sender {
    kind: Kind,
    pipeline: gst::glib::WeakRef<gst::Pipeline>,
    pad: gst::Pad,
    transceiver: WebRTCRTPTransceiver,
    ssrc: u32,
    /// Stream that is sent.
    stream: Option<Stream>,
    /// Codec and input of the payloader, once a codec is agreed.
    payloader: Option<(Codec, gst_app::AppSrc)>,
    link: Option<EncoderLink>,
    estimator: Option<Estimator>,
    /// Frames of streams that were sent on it earlier.
    before: u64,
    /// Whether the peer rejected the m-line; a rejection is final.
    is_rejected: bool,
    /// Whether the peer receives on the m-line.
    pub(crate) is_wanted: bool,
}

impl Sender {
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the index of the m-line, once known.
    pub(crate) fn mline(&self) -> Option<usize> {
        Some(self.transceiver.mlineindex()).filter(|index| *index != u32::MAX).map(|index| index as usize)
    }

    /// Returns whether no stream is sent at present.
    pub(crate) fn is_idle(&self) -> bool {
        self.stream.is_none()
    }

    pub(crate) fn carries(&self, stream: &str) -> bool {
        self.stream.as_ref().is_some_and(|own| own.id == stream)
    }

    /// Returns the number of frames sent so far.
    pub(crate) fn pushed(&self) -> u64 {
        self.before + self.link.as_ref().map_or(0, EncoderLink::pushed)
    }

    /// Returns the findings of the estimator, if there are any.
    pub(crate) fn finding(&self) -> Option<Finding> {
        self.estimator.as_ref().and_then(Estimator::finding)
    }

    /// Makes the estimator continue from this estimate, in bit/s.
    pub(crate) fn continue_from(&self, estimate: u32) {
        self.estimator.iter().for_each(|estimator| estimator.continue_from(estimate));
    }

    /// Returns the bitrate of the encoder, in bit/s; `None` while nothing is sent.
    pub(crate) fn bitrate(&self) -> Option<u32> {
        let link = self.link.as_ref().filter(|link| link.flows());
        link.map(EncoderLink::bitrate)
    }

    /// Sends a stream from now on, or once a codec is agreed.
    fn send(&mut self, stream: &Stream) -> Result<(), MediaError> {
        if self.pad.has_property("msid") {
            self.pad.set_property("msid", &stream.id);
        }
        self.stream = Some(stream.clone());
        self.connect()
    }

    /// Applies an agreed codec: links a payloader to webrtcbin's pad, and the stream to the payloader.
    fn agree(&mut self, payload: &Payload) -> Result<(), MediaError> {
        if self.payloader.is_some() {
            return Ok(());
        }
        let failed = |what: &str| MediaError::pipeline(format!("preparing to send {}", self.kind), what);
        let pipeline = self.pipeline.upgrade().ok_or_else(|| failed("it is over"))?;
        let text =
            format!("appsrc name=in format=time is-live=true ! {}", rtp::payloader(payload, self.ssrc));
        let bin = launch::parse_bin(&text)?;
        let appsrc: gst_app::AppSrc = launch::by_name(&bin, "in")?;
        pipeline.add(&bin).map_err(|_| failed("add"))?;
        let src = bin.static_pad("src").ok_or_else(|| failed("no pad of the payloader"))?;
        src.link(&self.pad).map_err(|_| failed("link"))?;
        if self.kind == Kind::Video && payload.transport_cc.is_some() {
            let start = self.stream.as_ref().map_or(0, |stream| stream.encoders.rates(self.kind).start);
            self.estimator = Estimator::beside(&src, &pipeline, start);
        }
        // With these events webrtcbin links the pad when the description is applied, not at the first packet.
        self.pad.send_event(gst::event::StreamStart::new(&format!("roomtone-{:08x}", self.ssrc)));
        self.pad
            .send_event(gst::event::Caps::new(&rtp::caps(std::slice::from_ref(payload), Some(self.ssrc))));
        bin.sync_state_with_parent().map_err(|_| failed("state"))?;
        self.payloader = Some((payload.codec, appsrc));
        self.connect()
    }

    /// Connects the stream to its encoder if the sender has a stream and an agreed codec.
    fn connect(&mut self) -> Result<(), MediaError> {
        let (Some(stream), Some((codec, appsrc))) = (&self.stream, &self.payloader) else { return Ok(()) };
        self.link = Some(EncoderLink::start(stream, *codec, appsrc)?);
        Ok(())
    }

    /// Returns the stream that is sent, and the seat of this sender among the receivers of its encoders.
    pub(crate) fn seat(&self) -> Option<(Stream, Arc<Seat>)> {
        Some((self.stream.clone()?, self.link.as_ref()?.seat()))
    }

    /// Sends from this encoder if the sender still has this seat.
    pub(crate) fn change_to(&mut self, seat: &Arc<Seat>, encoder: Arc<Encoder>) -> Result<(), MediaError> {
        match self.link.as_mut().filter(|link| Arc::ptr_eq(&link.seat(), seat)) {
            Some(link) => link.change_to(encoder),
            None => Ok(()),
        }
    }

    /// Sets the share of error correction packets (RFC 5109) by the loss, in percent.
    pub(crate) fn set_fec(&self, lost: u32) {
        const MOST: u32 = 100;
        self.transceiver.set_property("fec-percentage", lost.saturating_mul(4).clamp(LEAST_FEC, MOST));
    }

    /// Stops sending.
    pub(crate) fn stop(&mut self) {
        self.before = self.pushed();
        (self.link, self.stream) = (None, None);
    }

    /// Stops encoding for an m-line that the peer rejected. Its stream still counts as offered, so that it gets no new
    /// m-line.
    fn reject(&mut self) {
        self.before = self.pushed();
        (self.link, self.is_rejected) = (None, true);
    }

    /// Sends, beginning with a key frame, or pauses: the stream is sent while connected and the peer receives it.
    pub(crate) fn flow(&self, connected: bool) {
        let on = connected && self.is_wanted;
        if let Some(link) = self.link.as_ref().filter(|link| on != link.flows()) {
            link.flow(on);
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

/// Prepares an offer: each stream that is not sent yet gets an idle m-line or a new one, and each kind that is only
/// received gets an m-line. New m-lines offer all our codecs in our order, under the payload types that the peer knows.
pub(crate) fn for_offer(
    pipeline: &gst::Pipeline,
    webrtc: &gst::Element,
    (config, known, kinds): (&PeerConfig, &[Payload], &[Kind]),
    streams: &[Stream],
    senders: &mut Vec<Sender>,
) -> Result<(), MediaError> {
    let present: Vec<Kind> = all(webrtc).iter().filter_map(kind_of).collect();
    for kind in Kind::ALL {
        let codecs = config.codecs.iter().filter(|codec| codec.kind() == kind);
        let payloads: Vec<Payload> = codecs.map(|codec| rtp::offered_beside(*codec, known)).collect();
        let wanted = || match payloads.is_empty() {
            true => Err(MediaError::NoCodec(kind)),
            false => Ok(payloads.as_slice()),
        };
        let receive = config.receives(kind);
        for stream in streams.iter().filter(|stream| stream.has(kind)) {
            if senders.iter().any(|sender| sender.kind() == kind && sender.carries(&stream.id)) {
                continue;
            }
            match senders.iter_mut().find(|s| s.kind() == kind && s.is_idle() && !s.is_rejected) {
                Some(idle) => idle.send(stream)?,
                None => {
                    let line = (None, direction(true, receive));
                    senders.push(attach((pipeline, webrtc), config, stream, wanted()?, line)?);
                }
            }
        }
        let is_there = present.contains(&kind) || senders.iter().any(|sender| sender.kind() == kind);
        if receive && !is_there {
            add(webrtc, config, direction(false, true), wanted()?);
        }
        // The peer may send on as many m-lines of the kind as it has.
        let lines = all(webrtc).iter().filter(|transceiver| kind_of(transceiver) == Some(kind)).count();
        for _ in lines..kinds.iter().filter(|other| **other == kind).count() {
            if receive {
                add(webrtc, config, direction(false, true), wanted()?);
            }
        }
    }
    Ok(())
}

/// Returns whether a stream of ours has no m-line although another one of its kind has: the peer offered too few. Streams
/// of a kind that cannot be sent do not count.
pub(crate) fn lacks_mlines(streams: &[Stream], senders: &[Sender]) -> bool {
    Kind::ALL.into_iter().any(|kind| {
        let of_kind = || senders.iter().filter(|sender| sender.kind() == kind);
        let is_sent = |stream: &&Stream| of_kind().any(|sender| sender.carries(&stream.id));
        of_kind().any(|sender| sender.payloader.is_some() && !sender.is_rejected)
            && !streams.iter().filter(|stream| stream.has(kind)).all(|stream| is_sent(&stream))
    })
}

/// Fits our side to an offer that webrtcbin has just applied: for each m-line the codec, the direction, and a sender if
/// we have something to send. The first `agreed` m-lines are fitted already.
pub(crate) fn for_answer(
    pipeline: &gst::Pipeline,
    webrtc: &gst::Element,
    config: &PeerConfig,
    streams: &[Stream],
    senders: &mut Vec<Sender>,
    offer: &Sdp,
    agreed: usize,
) -> Result<(), MediaError> {
    let transceivers = all(webrtc);
    // Agreed m-lines stay as they are: a direction that the peer changed shows in the answer, not here.
    for (mline, media) in offer.media.iter().enumerate().skip(agreed) {
        let Some(kind) = Kind::of(media) else { continue };
        // Newer versions create the transceiver with the offer, 1.22 only with the answer.
        let made = transceivers.iter().find(|t| t.mlineindex() as usize == mline);
        let payload = usable(media, &config.codecs, &config.preferred).into_iter().next();
        let receive = config.receives(kind);
        // A transceiver of an offer that was dropped: webrtcbin uses it for the peer's new m-line.
        let waiting =
            senders.iter_mut().find(|s| s.kind() == kind && s.mline().is_none() && s.payloader.is_none());
        if let (Some(waiting), Some(payload)) = (waiting, &payload) {
            set_up(&waiting.transceiver, config, std::slice::from_ref(payload), Some(waiting.ssrc));
            waiting.agree(payload)?;
            continue;
        }
        // The peer's m-lines of a kind get our streams in order.
        let is_sent =
            |id: &str| senders.iter().any(|s: &Sender| s.kind() == kind && s.carries(id) && !s.is_rejected);
        let stream = streams.iter().find(|stream| stream.has(kind) && !is_sent(&stream.id));
        match (payload, stream) {
            (Some(payload), Some(stream)) => {
                // webrtcbin gives no sink pad for a transceiver that does not send.
                if let Some(transceiver) = made {
                    transceiver.set_direction(direction(true, receive));
                }
                let line = (made.map(|_| mline), direction(true, receive));
                warn_if_not_preferred(config, payload.codec);
                let mut sender =
                    attach((pipeline, webrtc), config, stream, std::slice::from_ref(&payload), line)?;
                sender.agree(&payload)?;
                senders.push(sender);
            }
            (Some(payload), None) => {
                receive_only((webrtc, config), made, direction(false, receive), &payload)
            }
            (None, stream) => {
                if stream.is_some() && !media.is_rejected() {
                    tracing::warn!("the peer offers no {kind} codec that is here: no {kind} is sent");
                }
                receive_only(
                    (webrtc, config),
                    made,
                    Direction::Inactive,
                    &rtp::offered(Codec::default_of(kind)),
                );
            }
        }
    }
    Ok(())
}

/// Applies the codecs of the peer's answer to the m-lines that we offered. The first `agreed` m-lines are older.
/// webrtcbin does not report yet which m-line belongs to which of the other senders, but they are in the senders' order.
pub(crate) fn by_answer(
    config: &PeerConfig,
    senders: &mut [Sender],
    answer: &Sdp,
    (agreed, rejected): (usize, &[usize]),
) -> Result<(), MediaError> {
    for kind in Kind::ALL {
        let all = answer.media.iter().enumerate();
        let mut new = all.skip(agreed).filter(|(_, media)| Kind::of(media) == Some(kind));
        let is_new = |s: &Sender| s.mline().is_none_or(|mline| mline >= agreed);
        let waiting = senders.iter_mut().filter(|s| s.kind() == kind && s.payloader.is_none() && is_new(s));
        for sender in waiting {
            // webrtcbin 1.26 knows the m-line of a transceiver since the offer; in 1.22 the next new m-line belongs to
            // it.
            let known = |mline| answer.media.get(mline).map(|media| (mline, media));
            let Some((mline, media)) = sender.mline().map_or_else(|| new.next(), known) else { continue };
            match usable(media, &config.codecs, &config.preferred).first() {
                _ if rejected.contains(&mline) => {
                    tracing::warn!("the peer rejects our {kind}");
                    sender.reject();
                }
                None => tracing::warn!("the peer's answer has no {kind} codec that is here"),
                Some(payload) => {
                    warn_if_not_preferred(config, payload.codec);
                    sender.agree(payload)?;
                }
            }
        }
    }
    Ok(())
}

/// Stops sending on the m-lines that the peer has rejected.
pub(crate) fn end_rejected(senders: &mut [Sender], rejected: &[usize]) {
    let is_meant = |sender: &&mut Sender| sender.mline().is_some_and(|mline| rejected.contains(&mline));
    senders.iter_mut().filter(is_meant).filter(|sender| !sender.is_rejected).for_each(Sender::reject);
}

/// Warns if the agreed codec is not the one that the user prefers.
fn warn_if_not_preferred(config: &PeerConfig, codec: Codec) {
    let first = config.preferred.iter().find(|first| first.kind() == codec.kind());
    if let Some(first) = first.filter(|first| **first != codec) {
        tracing::warn!("the peer does not take {first}: {codec} is sent");
    }
}

fn kind_of(transceiver: &WebRTCRTPTransceiver) -> Option<Kind> {
    match transceiver.kind() {
        gst_webrtc::WebRTCKind::Audio => Some(Kind::Audio),
        gst_webrtc::WebRTCKind::Video => Some(Kind::Video),
        _ => None,
    }
}

/// Fits or creates the transceiver of an m-line on which we send nothing.
fn receive_only(
    (webrtc, config): (&gst::Element, &PeerConfig),
    made: Option<&WebRTCRTPTransceiver>,
    direction: Direction,
    payload: &Payload,
) {
    match made {
        Some(transceiver) => {
            transceiver.set_direction(direction);
            set_up(transceiver, config, std::slice::from_ref(payload), None);
        }
        None => add(webrtc, config, direction, std::slice::from_ref(payload)),
    }
}

/// Creates a transceiver that sends nothing.
fn add(webrtc: &gst::Element, config: &PeerConfig, direction: Direction, payloads: &[Payload]) {
    let args: [&dyn gst::glib::value::ToValue; 2] = [&direction, &rtp::caps(payloads, None)];
    set_up(&webrtc.emit_by_name::<WebRTCRTPTransceiver>("add-transceiver", &args), config, payloads, None);
}

/// Sets the codecs of a transceiver, retransmission for video, and forward error correction if wanted.
fn set_up(transceiver: &WebRTCRTPTransceiver, config: &PeerConfig, payloads: &[Payload], ssrc: Option<u32>) {
    if config.fec && payloads.iter().any(|payload| payload.codec.kind() == Kind::Video) {
        transceiver.set_property_from_str("fec-type", "ulp-red");
        transceiver.set_property("fec-percentage", LEAST_FEC);
    }
    transceiver.set_codec_preferences(Some(&rtp::caps(payloads, ssrc)));
    let again = |payload: &Payload| {
        payload.codec.kind() == Kind::Video && payload.feedback.iter().any(|feedback| feedback == "nack")
    };
    if payloads.iter().any(again) {
        transceiver.set_property("do-nack", true);
    }
}

/// Requests a sink pad of webrtcbin for a stream, on the m-line of an existing transceiver or on a new one of our next
/// description.
fn attach(
    (pipeline, webrtc): (&gst::Pipeline, &gst::Element),
    config: &PeerConfig,
    stream: &Stream,
    payloads: &[Payload],
    (mline, direction): (Option<usize>, Direction),
) -> Result<Sender, MediaError> {
    let no_pad = || MediaError::pipeline("requesting a pad of webrtcbin", "no pad");
    let kind = payloads.first().ok_or_else(no_pad)?.codec.kind();
    let pad = match mline {
        Some(mline) => webrtc.request_pad_simple(&format!("sink_{mline}")),
        // Without a name the m-line stays open, because the peer may offer one at the same index at this moment. 1.22
        // gives such pads names that may belong to requested ones.
        None => {
            let caps = rtp::caps(payloads, None);
            webrtc.pad_template("sink_%u").and_then(|pads| webrtc.request_pad(&pads, None, Some(&caps)))
        }
    };
    let pad = pad.ok_or_else(no_pad)?;
    let mut sender = Sender {
        kind,
        pipeline: pipeline.downgrade(),
        transceiver: pad.property::<WebRTCRTPTransceiver>("transceiver"),
        pad,
        ssrc: fastrand::u32(1..),
        stream: None,
        payloader: None,
        link: None,
        estimator: None,
        before: 0,
        is_rejected: false,
        is_wanted: false,
    };
    sender.send(stream)?;
    sender.transceiver.set_direction(direction);
    set_up(&sender.transceiver, config, payloads, Some(sender.ssrc));
    Ok(sender)
}

/// Returns kind, mid and direction of the m-lines, for logs.
pub(crate) fn summary(sdp: &Sdp) -> String {
    let lines = sdp
        .media
        .iter()
        .map(|media| format!("{} {} {}", media.kind, media.mid().unwrap_or("-"), media.direction().as_str()));
    lines.collect::<Vec<_>>().join(", ")
}
