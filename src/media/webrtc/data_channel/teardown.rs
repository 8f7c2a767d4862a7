//! Removal of the elements of closed data channels from a webrtcbin.
//!
//! webrtcbin (1.22) keeps the elements of a closed channel, with a thread, for the life of the connection. If a peer
//! reuses the stream's number before webrtcbin has handled the end of the last channel, data goes to that channel,
//! which has been freed. Channels are therefore held here, and their elements removed later.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use gst::glib::WeakRef;
use gst::prelude::*;
use gst_webrtc::WebRTCDataChannel;

use crate::base::lock::lock;
use crate::base::tasks::Tasks;
use crate::media::gst::elements;

/// Time after a channel's end during which webrtcbin may still use the channel.
const PAUSE: Duration = Duration::from_secs(1);
/// Maximum number of channels that are removed at a time: the number of SCTP streams (RFC 8831, 6.2).
const MAX_STREAMS: usize = 65_535;
/// Type of the bins that webrtcbin makes for a channel.
const BIN: &str = "WebRTCErrorIgnoreBin";

/// The channels of a webrtcbin with their elements.
#[derive(Debug)]
pub(crate) struct Teardown {
    webrtc: WeakRef<gst::Element>,
    channels: Mutex<Vec<OfChannel>>,
    /// Serialises removals: the thread pool for blocking work keeps as many threads as it needed at once.
    turn: smol::lock::Mutex<()>,
    removals: Tasks,
}

#[derive(Debug, Clone)]
struct OfChannel {
    channel: WebRTCDataChannel,
    /// The bins for sending and for receiving.
    bins: Vec<gst::Element>,
    /// Number of the peer's channels that used the receiving bin.
    came: Arc<AtomicUsize>,
    /// The SCTP stream's pad behind the sending bin.
    stream: Arc<Mutex<WeakRef<gst::Pad>>>,
}

impl Teardown {
    /// Manages the data channels that this webrtcbin opens from now on.
    pub(crate) fn watch(webrtc: &gst::Element) {
        let own = Arc::new(Self {
            webrtc: webrtc.downgrade(),
            channels: Mutex::default(),
            turn: Default::default(),
            removals: Tasks::new(MAX_STREAMS),
        });
        let held = own.clone();
        webrtc.connect("prepare-data-channel", false, move |args| {
            held.hold(args.get(1)?.get::<WebRTCDataChannel>().ok()?);
            None
        });
        // webrtcbin announces a channel and adds its bins before it announces another.
        webrtc.connect("element-added", false, move |args| {
            let element = args.get(1)?.get::<gst::Element>().ok()?;
            if element.type_().name() == BIN {
                own.add(element);
            }
            None
        });
        elements::on_added(webrtc, &["sctpdec"], |decoder| {
            decoder.connect_pad_added(|_, pad| drop_unaccepted(pad));
        });
    }

    fn hold(self: &Arc<Self>, channel: WebRTCDataChannel) {
        let held = Arc::downgrade(self);
        channel.connect_on_close(move |channel| {
            if let Some(held) = held.upgrade() {
                held.removals.spawn(Self::clear(Arc::downgrade(&held), channel.clone()));
            }
        });
        lock(&self.channels).push(OfChannel {
            channel,
            bins: vec![],
            came: Arc::default(),
            stream: Arc::default(),
        });
    }

    fn add(&self, bin: gst::Element) {
        let mut channels = lock(&self.channels);
        let Some(last) = channels.last_mut() else { return };
        if let Some(receiving) = bin.static_pad("sink") {
            let came = last.came.clone();
            receiving.connect_linked(move |_, _| {
                came.fetch_add(1, Ordering::Relaxed);
            });
        }
        if let Some(sending) = bin.static_pad("src") {
            let stream = last.stream.clone();
            sending.connect_linked(move |_, pad| {
                *lock(&stream) = pad.downgrade();
            });
        }
        last.bins.push(bin);
    }

    /// Cleans up after a channel: closes channels that the peer opened with the same number since, removes the
    /// elements, and drops the channel.
    async fn clear(held: Weak<Self>, channel: WebRTCDataChannel) {
        let Some(webrtc) = held.upgrade().map(|held| held.webrtc.clone()) else { return };
        let find = |held: Arc<Self>| lock(&held.channels).iter().find(|of| of.channel == channel).cloned();
        let Some(of_channel) = held.upgrade().and_then(find) else { return };
        let (mut seen, mut is_another) = (1, false);
        while webrtc.upgrade().is_some() {
            let came = of_channel.came.load(Ordering::Relaxed);
            is_another |= came > seen;
            seen = seen.max(came);
            of_channel.close_stream(&webrtc, is_another);
            smol::Timer::after(PAUSE).await;
            // usrsctp ignores a reset of a stream that is being closed, so that the check is repeated.
            is_another = of_channel.is_linked();
            if !is_another && of_channel.came.load(Ordering::Relaxed) <= seen {
                break;
            }
        }
        if let Some(held) = held.upgrade() {
            lock(&held.channels).retain(|of| of.channel != channel);
            let _turn = held.turn.lock().await;
            smol::unblock(move || of_channel.take_out(&webrtc)).await;
        }
    }
}

impl OfChannel {
    fn is_linked(&self) -> bool {
        self.bins.iter().flat_map(|bin| bin.pads()).any(|pad| pad.is_linked())
    }

    /// Closes our direction of the SCTP stream, which closes the peer's channel (RFC 8831, 6.7): if webrtcbin left it
    /// open, as 1.26 does when the end of the number's last channel arrived late, or if the peer has opened another
    /// channel there.
    fn close_stream(&self, webrtc: &WeakRef<gst::Element>, is_another: bool) {
        let stream = lock(&self.stream).upgrade();
        let left = stream.filter(|pad| !pad.is_linked()).and_then(|pad| Some((pad.parent_element()?, pad)));
        let other = || {
            let encoder = elements::all_of(&webrtc.upgrade()?, "sctpenc").into_iter().next()?;
            let pad = encoder.request_pad_simple(&format!("sink_{}", self.channel.id()))?;
            Some((encoder, pad))
        };
        for (encoder, pad) in left.into_iter().chain(is_another.then(other).flatten()) {
            encoder.release_request_pad(&pad);
        }
    }

    fn take_out(&self, webrtc: &WeakRef<gst::Element>) {
        for bin in &self.bins {
            let _ = bin.set_state(gst::State::Null);
            if let Some(webrtc) = webrtc.upgrade().and_downcast::<gst::Bin>() {
                let _ = webrtc.remove(bin);
            }
        }
    }
}

/// Drops data for a channel whose elements are being removed (1.26): a pad in flushing state would return an error that
/// ends all data of the connection.
fn drop_unaccepted(pad: &gst::Pad) {
    pad.add_probe(gst::PadProbeType::BUFFER, |pad, _| {
        let is_accepted = pad.peer().is_some_and(|peer| !peer.pad_flags().contains(gst::PadFlags::FLUSHING));
        if is_accepted { gst::PadProbeReturn::Ok } else { gst::PadProbeReturn::Drop }
    });
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use gst_webrtc::{WebRTCDataChannelState as ChannelState, WebRTCSessionDescription};
    use smol::channel::{bounded, unbounded};

    use super::*;
    use crate::base::timeout::timeout;

    /// Number of the peer's control channel; the other channels have numbers from `FIRST` on.
    const CONTROL: i32 = 1;
    const FIRST: i32 = 101;

    struct End(gst::Pipeline, gst::Element);

    impl End {
        fn new() -> Self {
            let pipeline = gst::Pipeline::new();
            let webrtc = gst::ElementFactory::make("webrtcbin").build().unwrap();
            pipeline.add(&webrtc).unwrap();
            pipeline.set_state(gst::State::Playing).unwrap();
            Self(pipeline, webrtc)
        }

        fn open(&self, id: i32) -> WebRTCDataChannel {
            let config = gst::Structure::builder("config").field("id", id).build();
            let made = self
                .1
                .emit_by_name::<Option<WebRTCDataChannel>>("create-data-channel", &[&"channel", &config]);
            made.unwrap()
        }

        async fn describe(&self, how: &str) -> WebRTCSessionDescription {
            let (promise, reply) = gst::Promise::new_future();
            self.1.emit_by_name::<()>(&format!("create-{how}"), &[&None::<gst::Structure>, &promise]);
            let reply = reply.await.unwrap().unwrap().get::<WebRTCSessionDescription>(how).unwrap();
            self.apply("local", &reply).await;
            reply
        }

        async fn apply(&self, whose: &str, description: &WebRTCSessionDescription) {
            let (promise, reply) = gst::Promise::new_future();
            self.1.emit_by_name::<()>(&format!("set-{whose}-description"), &[description, &promise]);
            let _ = reply.await;
        }

        fn gives_candidates_to(&self, other: &Self) {
            let other = other.1.clone();
            self.1.connect("on-ice-candidate", false, move |args| {
                other.emit_by_name_with_values("add-ice-candidate", &args[1..]);
                None
            });
        }

        fn bins(&self) -> usize {
            let children = self.1.downcast_ref::<gst::Bin>().unwrap().children();
            children.iter().filter(|element| element.type_().name() == BIN).count()
        }
    }

    impl Drop for End {
        fn drop(&mut self) {
            self.0.set_state(gst::State::Null).unwrap();
        }
    }

    /// Opens a channel, sends until it is closed, and reuses its number at once, `times` times.
    async fn open_again_and_again(peer: Arc<End>, id: i32, times: usize) {
        for _ in 0..times {
            let (closes, closed) = bounded::<()>(1);
            let channel = peer.open(id);
            channel.connect_on_close(move |_| {
                closes.close();
            });
            let talks = async {
                loop {
                    smol::Timer::after(Duration::from_millis(5)).await;
                    let _ = channel.send_string_full(Some("who hears it?"));
                }
            };
            smol::future::or(async { closed.recv().await.unwrap_or_default() }, talks).await;
        }
    }

    #[test]
    fn reused_channel_numbers_work_and_leave_no_elements() {
        gst::init().unwrap();
        if gst::version() >= (1, 24, 0, 0) {
            // 1.26.2 may lose the end of a channel here, or the connection, by faults of its own.
            return;
        }
        smol::block_on(async {
            let (ours, peer) = (End::new(), Arc::new(End::new()));
            Teardown::watch(&ours.1);
            Teardown::watch(&peer.1);
            ours.gives_candidates_to(&peer);
            peer.gives_candidates_to(&ours);
            let (said, heard) = unbounded();
            let refused = Arc::new(AtomicUsize::new(0));
            let refuses = refused.clone();
            ours.1.connect("on-data-channel", false, move |args| {
                let channel = args.get(1)?.get::<WebRTCDataChannel>().ok()?;
                if channel.id() == CONTROL {
                    let said = said.clone();
                    channel.connect_on_message_string(move |_, text| {
                        said.try_send(text.unwrap_or_default().to_owned()).unwrap();
                    });
                } else {
                    // A slow webrtcbin gives the peer time to be first.
                    std::thread::sleep(Duration::from_millis(10));
                    channel.close();
                    refuses.fetch_add(1, Ordering::Relaxed);
                }
                None
            });

            let control = peer.open(CONTROL);
            let offer = peer.describe("offer").await;
            ours.apply("remote", &offer).await;
            peer.apply("remote", &ours.describe("answer").await).await;
            let started = Instant::now();
            while control.ready_state() != ChannelState::Open {
                assert!(started.elapsed() < Duration::from_secs(60), "no connection");
                smol::Timer::after(Duration::from_millis(20)).await;
            }
            let all = async {
                let open = |n| smol::spawn(open_again_and_again(peer.clone(), FIRST + 2 * n, 10));
                for channel in (0..8).map(open).collect::<Vec<_>>() {
                    channel.await;
                }
            };
            let closed = timeout(Duration::from_secs(60), all).await;
            closed.unwrap_or_else(|| panic!("{} refused, not all closed", refused.load(Ordering::Relaxed)));
            control.send_string_full(Some("still here")).unwrap();
            let text = timeout(Duration::from_secs(60), heard.recv()).await;
            assert_eq!(text.expect("the path is broken").unwrap(), "still here");
            let started = Instant::now();
            while ours.bins() > 2 || peer.bins() > 2 {
                assert!(
                    started.elapsed() < Duration::from_secs(60),
                    "{} and {} bins",
                    ours.bins(),
                    peer.bins()
                );
                smol::Timer::after(Duration::from_millis(50)).await;
            }
        });
    }
}
