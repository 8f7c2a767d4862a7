//! The tracks of one participant, and their outputs: windows, loudspeakers, or the mix of the room.

use std::sync::Arc;

use smol::channel::Sender;

use crate::app::setup::MediaSetup;
use crate::app::{Event, Sink};
use crate::media::MediaError;
use crate::media::output::Output;
use crate::media::receive::Track;
use crate::media::receive::grid::MixedTrack;

/// A track of the participant, and the output that it goes to.
struct Received {
    track: Track,
    /// The connection of the track was replaced; a track of the new connection takes over the output.
    is_replaced: bool,
    output: Option<Output>,
    mixed: Option<MixedTrack>,
}

/// See the module.
pub(super) struct Outputs {
    /// The participant's id.
    name: String,
    /// Text under the participant's video in a grid.
    label: String,
    received: Vec<Received>,
}

impl Outputs {
    pub(super) fn new(name: String, label: String) -> Self {
        Self { name, label, received: vec![] }
    }

    /// Shows the label under the participant's video from now on.
    pub(super) fn label(&mut self, label: String) {
        self.received.iter().filter_map(|one| one.mixed.as_ref()).for_each(|mixed| mixed.label(&label));
        self.label = label;
    }

    /// Notes that a new connection has taken the place of the one that all tracks so far came over.
    pub(super) fn replaced(&mut self) {
        self.received.iter_mut().for_each(|received| received.is_replaced = true);
    }

    /// Shows or plays a track. If it takes the place of a track of a replaced connection, returns that one; with the
    /// same codec the output goes on without interruption.
    pub(super) fn add(
        &mut self,
        track: &Track,
        setup: &MediaSetup,
        failed: &Sender<String>,
        sink: &Sink,
    ) -> Option<Track> {
        let is_same = |received: &Received| !received.is_replaced && received.track.mline == track.mline;
        if self.received.iter().any(is_same) {
            return None;
        }
        let is_before = |received: &Received| received.is_replaced && received.track.kind() == track.kind();
        let before = self.received.iter().position(is_before).map(|at| self.received.remove(at));
        let (before, outputs) = match before {
            Some(Received { track: before, mut output, mixed, .. }) if before.codec == track.codec => {
                output.iter_mut().for_each(|output| output.switch_to(track));
                mixed.iter().for_each(|mixed| mixed.switch_to(track));
                (Some(before), (output, mixed))
            }
            before => (before.map(|before| before.track), self.start(track, setup, failed, sink)),
        };
        let (track, (output, mixed)) = (track.clone(), outputs);
        self.received.push(Received { track, is_replaced: false, output, mixed });
        before
    }

    /// Ends the outputs of a track; returns whether the track had any.
    pub(super) fn remove(&mut self, track: &Track) -> bool {
        let count = self.received.len();
        self.received.retain(|received| !Arc::ptr_eq(&received.track.counters, &track.counters));
        self.received.len() < count
    }

    fn start(
        &self,
        track: &Track,
        setup: &MediaSetup,
        failed: &Sender<String>,
        sink: &Sink,
    ) -> (Option<Output>, Option<MixedTrack>) {
        let warn = |error: MediaError| sink(&Event::Warning { text: error.to_string() });
        let mixed = setup.mix.as_ref().map(|mix| mix.add(track, &self.label)).transpose();
        let mixed = mixed.map_err(warn).ok().flatten().flatten();
        let start =
            |output| Output::start(track, output, &self.name, setup.reference.as_ref(), failed.clone());
        let output = setup.own_output(track.kind()).map(start).transpose();
        (output.map_err(warn).ok().flatten(), mixed)
    }

    /// Returns the tracks that delivered a frame within the last five seconds.
    pub(super) fn live(&self) -> Vec<Track> {
        self.received.iter().map(|one| &one.track).filter(|track| track.is_live()).cloned().collect()
    }
}
