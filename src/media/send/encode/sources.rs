//! What is encoded: the sources, muted or not, one in place of another, and their raw frames where they give encoded ones.

use std::sync::{Arc, Weak};

use smol::channel::Receiver;

use super::encoder::{Encoder, Raw};
use super::{Encoders, PASSED, State};
use crate::media::gst::error::MediaError;
use crate::media::send::capture::{Capture, End, Frames, SourceConfig};
use crate::sdp::{Codec, Kind};

/// Decoder of an encoded source that is not proven to allow passthrough yet.
#[derive(Debug)]
pub(crate) struct Proof {
    source: u64,
    _raw: Raw,
}

impl Encoders {
    /// Decodes an encoded source until it is proven to allow passthrough, then replaces the encoders that run without
    /// peers by passthrough. The caller repeats the call at intervals and hands back the value returned last.
    pub(crate) fn prove(&self, held: Option<Proof>) -> Option<Proof> {
        let mut state = self.lock();
        let (source, encoded) =
            state.encoded(Kind::Video).map(|(capture, encoded)| (capture.id(), encoded.clone()))?;
        if !encoded.is_proven() {
            return held.filter(|proof| proof.source == source).or_else(|| {
                let _raw = self.raw(&mut state, Kind::Video).ok()?;
                Some(Proof { source, _raw })
            });
        }
        let encodes = |(codec, encoder): (&Codec, &Arc<Encoder>)| {
            (*codec == encoded.codec && !encoder.passes()).then_some(*codec)
        };
        if let Some(codec) = state.kept.iter().find_map(encodes)
            && let Err(error) = self.keep_in(&mut state, codec)
        {
            tracing::debug!("{error}");
        }
        None
    }

    /// Returns the source of a kind: its number, the receiver of its end, and its configuration.
    pub(crate) fn source(&self, kind: Kind) -> Option<(u64, Receiver<End>, SourceConfig)> {
        let state = self.lock();
        let capture = state.captures.get(&kind)?;
        Some((capture.id(), capture.ended(), capture.config().clone()))
    }

    /// Silence or black from now on, or the source again; false where nothing of the kind is sent.
    pub fn set_muted(&self, kind: Kind, muted: bool) -> bool {
        self.lock().captures.get(&kind).map(|capture| capture.set_muted(muted)).is_some()
    }

    /// Whether silence or black is sent of that kind.
    pub fn is_muted(&self, kind: Kind) -> bool {
        self.lock().captures.get(&kind).is_some_and(Capture::is_muted)
    }

    /// How loud the sound that is sent is (see [`crate::media::gst::level`]); none where none is.
    pub fn level(&self) -> Option<u8> {
        self.lock().captures.get(&Kind::Audio).and_then(Capture::level)
    }

    /// Another source in place of the one of its kind, for all peers at once; false where nothing of the
    /// kind is sent.
    pub fn replace(&self, capture: Capture) -> Result<bool, MediaError> {
        self.replace_if(capture, None)
    }

    /// Replaces the source of its kind as [`Self::replace`] does, but only if the current source has the number `id`.
    pub(crate) fn replace_if(&self, capture: Capture, id: Option<u64>) -> Result<bool, MediaError> {
        let mut state = self.lock();
        let kind = capture.kind();
        let Some(old) = state.captures.get(&kind).filter(|old| id.is_none_or(|id| old.id() == id)) else {
            return Ok(false);
        };
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
