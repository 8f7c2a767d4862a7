//! Adapts a connection to its network: the bitrates of the senders, and the delays of the jitter buffers.

use std::sync::{Arc, Mutex, Weak};

use super::state::State;
use super::stats::Reports;
use crate::base::lock::lock;
use crate::media::rate::estimator::{BandwidthEstimate, Shares, UPDATE_INTERVAL};
use crate::media::receive::jitter_buffers::JitterBuffers;
use crate::media::send::encode::AUDIO_BITRATE;
use crate::media::send::stream::Stream;
use crate::sdp::Kind;

/// Returns the initial and the maximum rate of these streams together, in bit/s.
pub(super) fn rates(streams: &[Stream]) -> (u32, u32) {
    let all = streams.iter().flat_map(|stream| {
        let there = Kind::ALL.into_iter().filter(|kind| stream.has(*kind));
        there.map(|kind| stream.encoders.rates(kind))
    });
    // The first numbers are room for headers.
    all.fold((50_000, 100_000), |(start, most), rates| {
        (rates.start.saturating_add(start), rates.most.saturating_add(rates.most / 4).saturating_add(most))
    })
}

/// Updates the bandwidth estimate every [`UPDATE_INTERVAL`], gives each sender its share, and adapts the jitter buffers. Ends with
/// the connection.
pub(super) async fn run(
    state: Weak<Mutex<State>>,
    webrtc: gst::glib::WeakRef<gst::Element>,
    bandwidth: Arc<BandwidthEstimate>,
    (buffers, fec): (Arc<JitterBuffers>, bool),
) {
    loop {
        smol::Timer::after(UPDATE_INTERVAL).await;
        let (Some(shared), Some(webrtc)) = (state.upgrade(), webrtc.upgrade()) else { return };
        if lock(&shared).connected.is_none() {
            continue;
        }
        let reports = Reports::of(&webrtc);
        buffers.adapt(&webrtc, reports.round_trip());
        let state = lock(&shared);
        // Each estimator receives the feedback for all packets of the connection; the lowest estimate counts.
        let found =
            state.senders.iter().filter_map(|sender| sender.finding()).min_by_key(|found| found.estimate);
        if found.is_some() || reports.has_answer {
            bandwidth.note_report();
        }
        let (estimate, other) = bandwidth.update(found, reports.lost);
        if let Some(other) = other {
            state.senders.iter().for_each(|sender| sender.continue_from(other));
        }
        let count = |kind| state.senders.iter().filter(|s| s.kind() == kind && s.bitrate().is_some()).count();
        let (audio_streams, video_streams) = (count(Kind::Audio) as u32, count(Kind::Video) as u32);
        let shares = Shares::of(estimate, audio_streams, video_streams, AUDIO_BITRATE);
        let lost = u32::from(reports.lost) * 100 / 256;
        let mut served = vec![];
        for sender in &state.senders {
            let share = if sender.kind() == Kind::Audio { shares.audio } else { shares.video };
            if fec && sender.kind() == Kind::Video {
                sender.set_fec(lost);
            }
            served.extend(sender.seat().map(|(stream, seat)| (stream, seat, share)));
        }
        drop(state);
        for (stream, seat, share) in served {
            // This call may start an encoder, so that the state is not locked.
            let changed = stream.encoders.serve(&seat, share, lost).and_then(|encoder| {
                lock(&shared)
                    .senders
                    .iter_mut()
                    .try_for_each(|sender| sender.change_to(&seat, encoder.clone()))
            });
            if let Err(error) = changed {
                tracing::debug!("{error}");
            }
        }
    }
}
