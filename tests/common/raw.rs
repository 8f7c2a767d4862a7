//! A caller on webrtcbin that sends whatever the test requests.
#![cfg(feature = "media")]

use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::Resumed;
use async_tungstenite::tungstenite::{self, Message};
use gst::prelude::*;
use gst_webrtc::{WebRTCSDPType, WebRTCSessionDescription};
use serde_json::{Value, json};

/// A call that lasts until the value is dropped.
pub struct RawCall {
    pipeline: gst::Pipeline,
    /// Sender whose drop ends the thread of the signalling connection.
    _out: Sender<String>,
}

impl RawCall {
    /// Calls `peer` under the id `id`. `text` is a pipeline in gst-launch syntax that leads into `rtc.`.
    pub fn start(url: &str, id: &str, peer: &str, text: &str) -> Self {
        roomtone::media::init().unwrap();
        let text = format!("webrtcbin name=rtc bundle-policy=max-bundle {text}");
        let pipeline = gst::parse::launch(&text).unwrap().downcast::<gst::Pipeline>().unwrap();
        let rtc = pipeline.by_name("rtc").unwrap();
        let (out, said) = channel();
        let candidates = out.clone();
        rtc.connect("on-ice-candidate", false, move |args| {
            let (mline, candidate) = (args[1].get::<u32>().unwrap(), args[2].get::<String>().unwrap());
            let ice = json!({"ice": {"sdpMLineIndex": mline, "candidate": candidate}});
            let _ = candidates.send(ice.to_string());
            None
        });
        let weak = pipeline.downgrade();
        rtc.connect_pad_added(move |_, pad| {
            let Some(pipeline) = weak.upgrade().filter(|_| pad.direction() == gst::PadDirection::Src) else {
                return;
            };
            let sink = gst::ElementFactory::make("fakesink").property("async", false).build().unwrap();
            pipeline.add(&sink).unwrap();
            sink.sync_state_with_parent().unwrap();
            pad.link(&sink.static_pad("sink").unwrap()).unwrap();
        });
        let stream = TcpStream::connect(url.trim_start_matches("ws://")).unwrap();
        let (mut socket, _) = tungstenite::client(url, Resumed(stream)).unwrap();
        for (word, answer) in [(format!("HELLO {id}"), "HELLO"), (format!("SESSION {peer}"), "SESSION_OK")] {
            socket.send(Message::text(word)).unwrap();
            assert_eq!(socket.read().unwrap().into_text().unwrap().as_str(), answer);
        }
        pipeline.set_state(gst::State::Playing).unwrap();
        let (talker, says) = (rtc.clone(), out.clone());
        std::thread::spawn(move || talk(socket, &talker, &said, &says));
        // The streams to be sent have their caps by the time of this signal.
        let (ready, is_ready) = channel();
        rtc.connect("on-negotiation-needed", false, move |_| {
            let _ = ready.send(());
            None
        });
        let _ = is_ready.recv_timeout(Duration::from_millis(500));
        describe(&rtc, "offer", &out);
        Self { pipeline, _out: out }
    }

    /// Returns the element of that name.
    pub fn element(&self, name: &str) -> gst::Element {
        self.pipeline.by_name(name).unwrap_or_else(|| panic!("no {name}"))
    }

    /// Changes each RTP packet before it is encrypted, or with `reports` each RTCP packet.
    pub fn tamper(&self, reports: bool, change: impl Fn(&mut [u8]) + Send + Sync + 'static) {
        let change = std::sync::Arc::new(change);
        let rtc = self.element("rtc").downcast::<gst::Bin>().unwrap();
        let all = rtc.iterate_recurse().into_iter().filter_map(Result::ok);
        for encoder in all.filter(|element| element.factory().is_some_and(|of| of.name() == "srtpenc")) {
            let is_meant = |pad: &gst::Pad| pad.name().starts_with(if reports { "rtcp" } else { "rtp" });
            for pad in encoder.sink_pads().into_iter().filter(is_meant) {
                let change = change.clone();
                pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |_, info| {
                    if let Some(buffer) = info.buffer_mut() {
                        change(&mut buffer.make_mut().map_writable().unwrap());
                    } else if let Some(list) = info.buffer_list_mut() {
                        list.make_mut().foreach_mut(|mut buffer, _| {
                            change(&mut buffer.make_mut().map_writable().unwrap());
                            std::ops::ControlFlow::Continue(Some(buffer))
                        });
                    }
                    gst::PadProbeReturn::Ok
                });
            }
        }
    }
}

impl Drop for RawCall {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

fn talk(
    mut socket: tungstenite::WebSocket<Resumed<TcpStream>>,
    rtc: &gst::Element,
    said: &Receiver<String>,
    says: &Sender<String>,
) {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    let weak = rtc.downgrade();
    socket.get_ref().0.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    loop {
        while let Ok(text) = said.try_recv() {
            if socket.send(Message::text(text)).is_err() {
                return;
            }
        }
        let Some(rtc) = weak.upgrade().filter(|rtc| rtc.current_state() > gst::State::Ready) else { return };
        match socket.read() {
            Ok(Message::Text(text)) => {
                let value: Value = serde_json::from_str(text.as_str()).unwrap_or_default();
                if let Some(ice) = value["ice"]["candidate"].as_str() {
                    let mline = value["ice"]["sdpMLineIndex"].as_u64().unwrap_or(0) as u32;
                    rtc.emit_by_name::<()>("add-ice-candidate", &[&mline, &ice]);
                }
                if let Some(sdp) = value["sdp"]["sdp"].as_str() {
                    let is_offer = value["sdp"]["type"] == "offer";
                    let kind = if is_offer { WebRTCSDPType::Offer } else { WebRTCSDPType::Answer };
                    let sdp = gst_sdp::SDPMessage::parse_buffer(sdp.as_bytes()).unwrap();
                    set(&rtc, "remote", &WebRTCSessionDescription::new(kind, sdp));
                    if is_offer {
                        describe(&rtc, "answer", says);
                    }
                }
            }
            Ok(_) => {}
            Err(tungstenite::Error::Io(error)) if matches!(error.kind(), WouldBlock | TimedOut) => {}
            Err(_) => return,
        }
    }
}

fn set(rtc: &gst::Element, whose: &str, description: &WebRTCSessionDescription) {
    let promise = gst::Promise::new();
    rtc.emit_by_name::<()>(&format!("set-{whose}-description"), &[description, &promise]);
    promise.wait();
}

fn describe(rtc: &gst::Element, kind: &str, out: &Sender<String>) {
    let promise = gst::Promise::new();
    rtc.emit_by_name::<()>(&format!("create-{kind}"), &[&None::<gst::Structure>, &promise]);
    promise.wait();
    let made = promise.get_reply().unwrap().get::<WebRTCSessionDescription>(kind).unwrap();
    set(rtc, "local", &made);
    let sdp = made.sdp().as_text().unwrap();
    let _ = out.send(json!({"sdp": {"type": kind, "sdp": sdp}}).to_string());
}
