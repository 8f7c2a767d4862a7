//! The sources of the encoders: muting, replacement, and the raw frames of encoded sources.

use std::sync::{Arc, Weak};

use smol::channel::Receiver;

use super::encoder::{Encoder, Raw};
use super::encoders::{Encoders, PASSED};
use super::turn::Turn;
use crate::base::lock::lock;
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
        let turn = self.turn();
        let (source, encoded, encoding) = {
            let state = lock(&self.state);
            let (capture, encoded) = state.encoded(Kind::Video)?;
            let encodes = |(codec, encoder): (&Codec, &Arc<Encoder>)| {
                (*codec == encoded.codec && !encoder.passes()).then_some(*codec)
            };
            (capture.id(), encoded.clone(), state.kept.iter().find_map(encodes))
        };
        if !encoded.is_proven() {
            return held.filter(|proof| proof.source == source).or_else(|| {
                let _raw = self.raw(&turn, Kind::Video).ok()?;
                Some(Proof { source, _raw })
            });
        }
        if let Some(codec) = encoding
            && let Err(error) = self.keep_in(&turn, codec)
        {
            tracing::debug!("{error}");
        }
        None
    }

    /// Returns the source of a kind: its number, the receiver of its end, and its configuration.
    pub(crate) fn source(&self, kind: Kind) -> Option<(u64, Receiver<End>, SourceConfig)> {
        let state = lock(&self.state);
        let capture = state.captures.get(&kind)?;
        Some((capture.id(), capture.ended(), capture.config().clone()))
    }

    /// Mutes or unmutes a kind: silence or black is sent while muted. Returns false if the kind is not sent.
    pub fn set_muted(&self, kind: Kind, muted: bool) -> bool {
        lock(&self.state).captures.get(&kind).map(|capture| capture.set_muted(muted)).is_some()
    }

    /// Returns whether a kind is muted.
    pub fn is_muted(&self, kind: Kind) -> bool {
        lock(&self.state).captures.get(&kind).is_some_and(|capture| capture.is_muted())
    }

    /// Returns the level of the sent audio (see [`crate::media::gst::level`]); `None` if none is measured.
    pub fn level(&self) -> Option<u8> {
        lock(&self.state).captures.get(&Kind::Audio).and_then(|capture| capture.level())
    }

    /// Replaces the source of its kind for all peers at once; returns false if the kind is not sent.
    pub fn replace(&self, capture: Capture) -> Result<bool, MediaError> {
        self.replace_if(capture, None)
    }

    /// Replaces the source of its kind as [`Self::replace`] does, but only if the current source has the number `id`.
    pub(crate) fn replace_if(&self, capture: Capture, id: Option<u64>) -> Result<bool, MediaError> {
        let turn = self.turn();
        let kind = capture.kind();
        let (old, encoding, kept) = {
            let mut state = lock(&self.state);
            let Some(old) = state.captures.get(&kind).filter(|old| id.is_none_or(|id| old.id() == id)) else {
                return Ok(false);
            };
            capture.set_muted(old.is_muted());
            let old = (state.captures.insert(kind, Arc::new(capture)), state.decoded.remove(&kind));
            let running: Vec<Arc<Encoder>> = state.running.values().filter_map(Weak::upgrade).collect();
            let (passing, encoding): (Vec<_>, Vec<_>) = running
                .into_iter()
                .filter(|encoder| encoder.kind() == kind)
                .partition(|encoder| encoder.passes());
            // Peers that got the old source's own frames get another encoder within 200 ms.
            state.running.retain(|(codec, rung), _| codec.kind() != kind || *rung != PASSED);
            let is_passing = |encoder: &Arc<Encoder>| passing.iter().any(|other| Arc::ptr_eq(other, encoder));
            let kept = state.kept.iter().filter(|(_, encoder)| is_passing(encoder)).map(|(codec, _)| *codec);
            (old, encoding, kept.collect::<Vec<Codec>>())
        };
        for encoder in encoding {
            encoder.set_source(self.raw(&turn, kind)?)?;
        }
        kept.into_iter().try_for_each(|codec| self.keep_in(&turn, codec))?;
        // The old source ends only now, when nothing uses its frames any more.
        drop(old);
        Ok(true)
    }

    /// Returns the raw frames of a kind: the source's own, or those decoded from an encoded source, whose decoder is
    /// started if it does not run.
    pub(super) fn raw(&self, _: &Turn<'_>, kind: Kind) -> Result<Raw, MediaError> {
        let (capture, running) = {
            let state = lock(&self.state);
            let capture = state.captures.get(&kind).ok_or(MediaError::NothingToSend(kind))?.clone();
            (capture, state.decoded.get(&kind).and_then(Weak::upgrade))
        };
        let fps = capture.fps();
        let encoded = match capture.frames() {
            Frames::Raw(producer) => {
                return Ok(Raw { kind, fps, producer: producer.clone(), _decoded: None });
            }
            Frames::Encoded(encoded) => encoded,
        };
        let running = match running {
            Some(running) => running,
            None => Arc::new(capture.decoded(encoded, self.failures.clone())?),
        };
        lock(&self.state).decoded.insert(kind, Arc::downgrade(&running));
        let Frames::Raw(producer) = running.frames() else { return Err(MediaError::NothingToSend(kind)) };
        Ok(Raw { kind, fps, producer: producer.clone(), _decoded: Some(running) })
    }
}
