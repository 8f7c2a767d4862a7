//! What is encoded: the sources, muted or not, one in place of another, and their raw frames where they give encoded ones.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use super::encoder::{Encoder, Raw};
use super::{Encoders, PASSED, State, lock};
use crate::media::MediaError;
use crate::media::capture::{Capture, Frames};
use crate::sdp::{Codec, Kind};

/// Between two looks at whether a source can be passed on.
const PROOF: Duration = Duration::from_millis(500);

impl Encoders {
    /// Decodes what a source begins with, and goes on as long as it is not known whether it can be passed on.
    pub(super) fn prove(&self) {
        let mut state = self.lock();
        let Some(encoded) = state.encoded(Kind::Video).map(|(_, encoded)| encoded.clone()) else { return };
        let Ok(raw) = self.raw(&mut state, Kind::Video) else { return };
        let state = Arc::downgrade(&self.state);
        smol::spawn(async move {
            let is_there = |state: Arc<Mutex<State>>| {
                lock(&state).encoded(Kind::Video).is_some_and(|(_, of)| of.producer == encoded.producer)
            };
            while !encoded.is_proven() && state.upgrade().is_some_and(is_there) {
                smol::Timer::after(PROOF).await;
            }
            drop(raw);
        })
        .detach();
    }

    /// Silence or black from now on, or the source again; false where nothing of the kind is sent.
    pub fn set_muted(&self, kind: Kind, muted: bool) -> bool {
        self.lock().captures.get(&kind).map(|capture| capture.set_muted(muted)).is_some()
    }

    /// Whether silence or black is sent of that kind.
    pub fn is_muted(&self, kind: Kind) -> bool {
        self.lock().captures.get(&kind).is_some_and(Capture::is_muted)
    }

    /// How loud the sound that is sent is (see [`crate::media::level`]); none where none is.
    pub fn level(&self) -> Option<u8> {
        self.lock().captures.get(&Kind::Audio).and_then(Capture::level)
    }

    /// Another source in place of the one of its kind, for all peers at once; false where nothing of the
    /// kind is sent.
    pub fn replace(&self, capture: Capture) -> Result<bool, MediaError> {
        let mut state = self.lock();
        let kind = capture.kind();
        let Some(old) = state.captures.get(&kind) else { return Ok(false) };
        capture.set_muted(old.is_muted());
        // What runs goes over to it before the old one ends.
        let _old = (state.captures.insert(kind, capture), state.decoded.remove(&kind));
        let running: Vec<Arc<Encoder>> = state.running.values().filter_map(Weak::upgrade).collect();
        let (passing, encoding): (Vec<_>, Vec<_>) = running
            .into_iter()
            .filter(|encoder| encoder.kind() == kind)
            .partition(|encoder| encoder.passes());
        for encoder in encoding {
            encoder.take(self.raw(&mut state, kind)?)?;
        }
        // Who was passed the old source gets another encoder soon.
        state.running.retain(|(codec, rung), _| codec.kind() != kind || *rung != PASSED);
        let is_passing = |encoder: &Arc<Encoder>| passing.iter().any(|other| Arc::ptr_eq(other, encoder));
        let kept: Vec<Codec> =
            state.kept.iter().filter(|(_, encoder)| is_passing(encoder)).map(|(codec, _)| *codec).collect();
        kept.into_iter().try_for_each(|codec| self.keep_in(&mut state, codec))?;
        drop(state);
        self.prove();
        Ok(true)
    }

    /// The raw frames of a kind: the source's own, or those that its encoded ones are decoded to.
    pub(super) fn raw(&self, state: &mut State, kind: Kind) -> Result<Raw, MediaError> {
        let nothing = || MediaError::WebRtc(format!("no {kind} to send"));
        let State { captures, decoded, .. } = state;
        let capture = captures.get(&kind).ok_or_else(nothing)?;
        let fps = capture.fps();
        let encoded = match capture.frames() {
            Frames::Raw(producer) => {
                return Ok(Raw { kind, fps, producer: producer.clone(), _decoded: None });
            }
            Frames::Encoded(encoded) => encoded,
        };
        let running = decoded.get(&kind).and_then(Weak::upgrade);
        let running = match running {
            Some(running) => running,
            None => Arc::new(capture.decoded(encoded, self.failures.clone())?),
        };
        decoded.insert(kind, Arc::downgrade(&running));
        let Frames::Raw(producer) = running.frames() else { return Err(nothing()) };
        Ok(Raw { kind, fps, producer: producer.clone(), _decoded: Some(running) })
    }
}
