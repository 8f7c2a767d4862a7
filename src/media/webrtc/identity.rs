//! Verifies the peer: no media or data flows in either direction before its certificate matches its description.

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use gst::glib::WeakRef;
use smol::channel::Sender as EventSender;

use super::events::PeerEvent;
use super::state::{State, report};
use super::transport::data_gate::DataGate;
use super::transport::dtls::{self, Identity};
use crate::base::lock::lock;
use crate::session::ConnectionState;

/// Interval of the checks for a certificate.
const INTERVAL: Duration = Duration::from_millis(10);
/// Maximum time without a peer certificate once ICE and DTLS are connected. After it, the connection counts as failed,
/// not as forged.
const AT_MOST: Duration = Duration::from_secs(5);

/// Runs once ICE and DTLS are connected: lets media and data flow if the certificate matches the peer's description.
pub(super) async fn connected(
    webrtc: WeakRef<gst::Element>,
    state: Weak<Mutex<State>>,
    data: Arc<DataGate>,
    events: EventSender<PeerEvent>,
) {
    let until = Instant::now() + AT_MOST;
    loop {
        let (Some(webrtc), Some(shared)) = (webrtc.upgrade(), state.upgrade()) else { return };
        let named = lock(&shared).fingerprints.clone();
        // webrtcbin (before 1.28.5) accepts any certificate.
        match dtls::identify(&webrtc, &named) {
            Identity::Named => return accept_peer(&shared, &data, &events),
            Identity::Another => return report(&events, PeerEvent::Forged),
            Identity::Unknown if until <= Instant::now() => {
                tracing::warn!("ICE and DTLS are connected, but the peer has shown no certificate");
                return report(&events, PeerEvent::Connection(ConnectionState::Failed));
            }
            Identity::Unknown => {}
        }
        drop((webrtc, shared));
        smol::Timer::after(INTERVAL).await;
    }
}

/// Accepts the verified peer: starts sending, opens the data channels, and reports that the connection is up, then the
/// events held back so far. The lock keeps events of other threads behind that report.
fn accept_peer(state: &Mutex<State>, data: &DataGate, events: &EventSender<PeerEvent>) {
    let mut state = lock(state);
    state.connected.get_or_insert_with(Instant::now);
    state.senders.iter().for_each(|sender| sender.flow(true));
    data.open();
    report(events, PeerEvent::Connection(ConnectionState::Connected));
    state.held.drain(..).for_each(|event| report(events, event));
}

#[cfg(test)]
mod tests {
    use smol::channel::bounded;

    use super::*;
    use crate::media::webrtc::state::report_of_peer;
    use crate::sdp::Codec;

    #[test]
    fn the_connection_is_up_before_anything_of_the_peer_is_reported() {
        let (events, reported) = bounded(4);
        let state = Mutex::new(State::new(vec![], vec![]));
        report_of_peer(&state, &events, PeerEvent::Broken(Codec::Opus));
        assert!(reported.is_empty(), "the peer is not verified yet");
        accept_peer(&state, &DataGate::default(), &events);
        report_of_peer(&state, &events, PeerEvent::Broken(Codec::Vp8));
        let all: Vec<PeerEvent> = std::iter::from_fn(|| reported.try_recv().ok()).collect();
        assert!(
            matches!(
                all[..],
                [
                    PeerEvent::Connection(ConnectionState::Connected),
                    PeerEvent::Broken(Codec::Opus),
                    PeerEvent::Broken(Codec::Vp8)
                ]
            ),
            "{all:?}"
        );
    }
}
