//! Data channels that a connection opens, or accepts from its peer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use gst::glib;
use gst::prelude::*;
use gst_webrtc::{WebRTCDataChannel, WebRTCDataChannelState as ChannelState};
use smol::channel::Sender;

use super::data_channel::{Channel, ChannelConfig};
use super::events::PeerEvent;
use super::state::{State, report_of_peer};
use crate::base::lock::lock;
use crate::media::gst::error::MediaError;

/// Number of the data channel that keeps the m-line: the highest one, which no peer chooses.
const KEEPER: i32 = 65_534;

/// Opens a data channel that carries nothing, unless the connection has one. webrtcbin leaves the m-line of data channels
/// out of an offer while no channel is open, and then refuses every answer to that offer. The peer does not learn of
/// this channel: it counts as negotiated by other means (RFC 8832, 4), so nothing is sent on it.
///
/// The channel must precede webrtcbin's SCTP transport: afterwards 1.22 refuses any number but 0.
pub(super) fn keep_mline(webrtc: &gst::Element, state: &Mutex<State>) {
    if std::mem::replace(&mut lock(state).keeps_mline, true) {
        return;
    }
    let options = gst::Structure::builder("config").field("negotiated", true).field("id", KEEPER).build();
    let args: [&dyn glib::value::ToValue; 2] = [&"", &options];
    if webrtc.emit_by_name::<Option<WebRTCDataChannel>>("create-data-channel", &args).is_none() {
        tracing::warn!("the m-line of data channels ends with the last channel");
    }
}

/// Returns the options that webrtcbin's `create-data-channel` expects for a channel.
fn structure(config: &ChannelConfig) -> gst::Structure {
    let structure = gst::Structure::builder("config").field("ordered", config.ordered);
    match config.retransmits {
        Some(times) => structure.field("max-retransmits", i32::from(times)).build(),
        None => structure.build(),
    }
}

/// Opens a channel. Before the first offer the channel becomes part of that offer; the first channel after it needs a
/// new offer.
pub(super) fn open(
    webrtc: &gst::Element,
    state: &Arc<Mutex<State>>,
    events: &Sender<PeerEvent>,
    config: &ChannelConfig,
) -> Result<(), MediaError> {
    keep_mline(webrtc, state);
    let args: [&dyn glib::value::ToValue; 2] = [&config.label, &structure(config)];
    let made = webrtc.emit_by_name::<Option<WebRTCDataChannel>>("create-data-channel", &args);
    let made = made.ok_or_else(|| MediaError::NoChannel(config.label.clone()))?;
    adopt(webrtc, state, events, made);
    Ok(())
}

/// Accepts a data channel, and reports when messages can be sent.
pub(super) fn adopt(
    webrtc: &gst::Element,
    state: &Arc<Mutex<State>>,
    events: &Sender<PeerEvent>,
    inner: WebRTCDataChannel,
) {
    if !lock(state).has_room() {
        inner.close();
        return;
    }
    let over = lock(state).over.1.clone();
    let channel = Channel::new(webrtc, inner.clone(), over);
    // A channel of the peer may open before or after the handler is installed; the flag makes either report the only
    // one.
    let (opened, is_reported) = (events.clone(), AtomicBool::new(false));
    let of = Arc::downgrade(state);
    let on_open = Arc::new(move |inner: &WebRTCDataChannel| {
        if let (false, Some(state)) = (is_reported.swap(true, Ordering::Relaxed), of.upgrade()) {
            let channels = lock(&state).channels.clone();
            if let Some(channel) = channels.into_iter().find(|channel| channel.is(inner)) {
                report_of_peer(&state, &opened, PeerEvent::Channel(channel));
            }
        }
    });
    lock(state).add_channel(channel);
    let later = on_open.clone();
    inner.connect_on_open(move |inner| later(inner));
    if inner.ready_state() == ChannelState::Open {
        on_open(&inner);
    }
    let of = Arc::downgrade(state);
    inner.connect_on_close(move |inner| {
        if let Some(state) = of.upgrade() {
            lock(&state).channels.retain(|channel| !channel.is(inner));
        }
    });
}
