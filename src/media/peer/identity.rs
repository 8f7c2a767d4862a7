//! Who the peer is: nothing flows in either direction before its certificate was compared with its description.

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use gst::glib::WeakRef;
use smol::channel::Sender as EventSender;

use super::PeerEvent;
use super::state::{State, lock, report};
use crate::media::transport::{self, DataGate, Identity};
use crate::session::ConnectionState;

/// Between two looks at the certificates.
const LOOK: Duration = Duration::from_millis(10);
/// How long a connection that is through may show no certificate. It then counts as failed, not as forged.
const AT_MOST: Duration = Duration::from_secs(5);

/// ICE and DTLS are through: lets media and data flow if the peer is the one that its description names.
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
        // webrtcbin (before 1.28.5) takes whatever certificate comes.
        match transport::identify(&webrtc, &named) {
            Identity::Named => {
                welcome(&shared, &data, &events);
                drop(shared);
                let path = crate::media::stats::candidate_types(&webrtc).await;
                if let Some(state) = state.upgrade() {
                    lock(&state).path = path;
                }
                return;
            }
            Identity::Another => return report(&events, PeerEvent::Forged),
            Identity::Unknown if until <= Instant::now() => {
                tracing::warn!("the connection is through, but the peer shows no certificate");
                return report(&events, PeerEvent::Connection(ConnectionState::Failed));
            }
            Identity::Unknown => {}
        }
        drop((webrtc, shared));
        smol::Timer::after(LOOK).await;
    }
}

/// The peer is known: what was held goes, and what is sent begins.
fn welcome(state: &Mutex<State>, data: &DataGate, events: &EventSender<PeerEvent>) {
    let mut state = lock(state);
    state.connected.get_or_insert_with(Instant::now);
    state.senders.iter().for_each(|sender| sender.flow(true));
    data.open();
    state.held.drain(..).for_each(|event| report(events, event));
    drop(state);
    report(events, PeerEvent::Connection(ConnectionState::Connected));
}
