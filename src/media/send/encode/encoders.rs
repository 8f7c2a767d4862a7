//! The encoders in use: each codec at up to three rates, stopped when the last peer that needs one leaves.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use smol::channel::Sender;

use super::encoder::Encoder;
use super::ladder::{Ladder, RUNGS, Rates};
use super::passthrough::Passthrough;
use super::turn::{Turn, Turns};
use crate::base::lock::lock;
use crate::media::gst::error::MediaError;
use crate::media::gst::inventory;
use crate::media::gst::launch::{self, Folder};
use crate::media::send::capture::{Capture, Frames};
use crate::media::send::encoded_source::{Encoded, Obstacle};
use crate::sdp::{Codec, Kind};

/// Bitrate of encoded audio, in bit/s.
pub(crate) const AUDIO_BITRATE: u32 = 48_000;

/// Number of the passthrough among the rungs.
pub(super) const PASSED: usize = RUNGS;

/// The sources, and the encoders in use.
#[derive(Debug)]
pub struct Encoders {
    kinds: Vec<Kind>,
    rates: Rates,
    /// Encoder element that the user wants.
    wanted: Option<String>,
    pub(super) state: Arc<Mutex<State>>,
    turns: Turns,
    pub(super) failures: Sender<String>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) captures: HashMap<Kind, Arc<Capture>>,
    /// Decoders of encoded sources, which run as long as an encoder uses their raw frames.
    pub(super) decoded: HashMap<Kind, Weak<Capture>>,
    pub(super) running: HashMap<(Codec, usize), Weak<Encoder>>,
    /// Encoders that run with or without peers.
    pub(super) kept: HashMap<Codec, Arc<Encoder>>,
    ladders: BTreeMap<Codec, Ladder>,
    /// Peers by their seats.
    seats: HashMap<(Codec, u64), SeatState>,
    /// Encoder elements that have failed; none is used again.
    broken: BTreeSet<&'static str>,
}

impl State {
    /// Returns the source of a kind if it is an encoded one.
    pub(super) fn encoded(&self, kind: Kind) -> Option<(&Arc<Capture>, &Encoded)> {
        let capture = self.captures.get(&kind)?;
        match capture.frames() {
            Frames::Encoded(encoded) => Some((capture, encoded)),
            Frames::Raw(_) => None,
        }
    }

    /// Returns the encoder of a rung if it runs and has not failed.
    fn running(&self, codec: Codec, rung: usize) -> Option<Arc<Encoder>> {
        let encoder = self.running.get(&(codec, rung)).and_then(Weak::upgrade);
        encoder.filter(|encoder| !encoder.is_broken())
    }
}

/// State of a peer.
#[derive(Debug, Default)]
struct SeatState {
    /// Loss that the peer reports, in percent.
    lost: u32,
    pass: Passthrough,
}

/// A peer's place among the receivers of one codec; given up when dropped.
#[derive(Debug)]
pub struct Seat {
    codec: Codec,
    id: u64,
    state: Weak<Mutex<State>>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(state) = self.state.upgrade() {
            let mut state = lock(&state);
            state.seats.remove(&(self.codec, self.id));
            if let Some(ladder) = state.ladders.get_mut(&self.codec) {
                ladder.leave(self.id);
            }
        }
    }
}

impl Encoders {
    /// Creates encoders over these sources; `rates` bounds the bitrate of video.
    pub fn new(captures: Vec<Capture>, rates: Rates, failures: Sender<String>) -> Self {
        let kinds = captures.iter().map(Capture::kind).collect();
        let captures = captures.into_iter().map(|capture| (capture.kind(), Arc::new(capture))).collect();
        let state = Arc::new(Mutex::new(State { captures, ..State::default() }));
        Self { kinds, rates, wanted: None, state, turns: Turns::default(), failures }
    }

    /// Sets the element to encode with, for the codecs that the element supports.
    pub fn with_element(mut self, element: Option<String>) -> Self {
        self.wanted = element;
        self
    }

    /// Waits for the right to start an encoder. The caller must not have the state locked.
    pub(super) fn turn(&self) -> Turn<'_> {
        self.turns.take()
    }

    /// Returns the sender of reports to the user about sources and encoders.
    pub(crate) fn failures(&self) -> &Sender<String> {
        &self.failures
    }

    /// Returns whether there is a source of this kind.
    pub fn has(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }

    /// Returns the bounds of the bitrate of this kind, including an encoded source that passes through.
    pub fn rates(&self, kind: Kind) -> Rates {
        let bounds = self.bounds(kind);
        let state = lock(&self.state);
        let Some(rate) = self.passable(&state, kind).and_then(|encoded| encoded.rate()) else {
            return bounds;
        };
        let (start, most) = (bounds.start.max(rate), bounds.most.max(rate.saturating_add(rate / 2)));
        Rates { start, most, ..bounds }
    }

    /// Returns the bounds of the bitrate of encoders.
    fn bounds(&self, kind: Kind) -> Rates {
        match kind {
            Kind::Video => self.rates,
            Kind::Audio => {
                Rates { least: AUDIO_BITRATE / 3, start: AUDIO_BITRATE, most: AUDIO_BITRATE, passed: 0 }
            }
        }
    }

    /// Returns the codec of the source of this kind if it may pass through.
    pub fn passed_codec(&self, kind: Kind) -> Option<Codec> {
        self.passable(&lock(&self.state), kind).map(|encoded| encoded.codec)
    }

    /// Returns the encoded source if nothing known forbids its passthrough to peers with enough bandwidth; `None` if
    /// the user wants an encoder, the source is muted, or its rate exceeds `rates.passed`.
    fn passable<'a>(&self, state: &'a State, kind: Kind) -> Option<&'a Encoded> {
        let (capture, encoded) = state.encoded(kind).filter(|_| self.wanted.is_none())?;
        let fits = encoded.rate().is_none_or(|rate| rate <= self.rates.passed);
        (encoded.can_pass() && fits && !capture.is_muted()).then_some(encoded)
    }

    /// Registers a receiver of this codec, and returns its seat with an encoder, which is started if none runs. The
    /// encoder encodes even if the source allows passthrough, because a change to passthrough needs a key frame of the
    /// source; passthrough is used at once only if no encoder starts.
    pub fn join(&self, codec: Codec) -> Result<(Seat, Arc<Encoder>), MediaError> {
        let rates = self.bounds(codec.kind());
        let (seat, rung, rate) = {
            let mut state = lock(&self.state);
            let ladder = state.ladders.entry(codec).or_insert_with(|| Ladder::new(rates));
            let id = ladder.enter();
            let (rung, rate) = on(ladder, id);
            (Seat { codec, id, state: Arc::downgrade(&self.state) }, rung, rate)
        };
        let turn = self.turn();
        let encoder = match self.running(&turn, codec, rung, rate) {
            Ok(encoder) => encoder,
            Err(error) => self.passing(&turn, codec)?.ok_or(error)?,
        };
        Ok((seat, encoder))
    }

    /// Reports the bandwidth estimate (`allowed`, in bit/s) and the loss (`lost`, in percent) of a peer, and returns
    /// the encoder that serves the peer from now on, which is started if it does not run.
    pub fn serve(&self, seat: &Seat, allowed: u32, lost: u32) -> Result<Arc<Encoder>, MediaError> {
        let codec = seat.codec;
        let there = {
            let mut state = lock(&self.state);
            self.note(&mut state, seat, allowed, lost);
            let (rung, _) = self.place(&state, seat)?;
            state.running(codec, rung)
        };
        let encoder = match there {
            Some(encoder) => encoder,
            None => self.start_for(seat)?,
        };
        self.adapt(codec);
        Ok(encoder)
    }

    /// Stores the bandwidth estimate and the loss of a peer.
    fn note(&self, state: &mut State, seat: &Seat, allowed: u32, lost: u32) {
        if let Some(ladder) = state.ladders.get_mut(&seat.codec) {
            ladder.allow(seat.id, allowed);
        }
        let rate = self.passable(state, seat.codec.kind()).and_then(|encoded| encoded.rate());
        let known = state.seats.entry((seat.codec, seat.id)).or_default();
        known.lost = lost;
        if let Some(rate) = rate {
            known.pass.update(Instant::now(), allowed, rate);
        }
    }

    /// Returns the rung that serves a seat now, with its rate in bit/s; the rung is [`PASSED`] for passthrough.
    fn place(&self, state: &State, seat: &Seat) -> Result<(usize, u32), MediaError> {
        let may_pass = state.seats.get(&(seat.codec, seat.id)).is_none_or(|known| known.pass.is_on());
        if may_pass && self.passed(state, seat.codec).is_some() {
            return Ok((PASSED, 0));
        }
        let ladder = state.ladders.get(&seat.codec).ok_or(MediaError::NothingToSend(seat.codec.kind()))?;
        Ok(on(ladder, seat.id))
    }

    fn start_for(&self, seat: &Seat) -> Result<Arc<Encoder>, MediaError> {
        let turn = self.turn();
        let (rung, rate) = self.place(&lock(&self.state), seat)?;
        match rung {
            PASSED => self.passing(&turn, seat.codec)?.ok_or(MediaError::NothingToSend(seat.codec.kind())),
            rung => self.running(&turn, seat.codec, rung, rate),
        }
    }

    /// Sets the rates and the loss of the running encoders of a codec.
    fn adapt(&self, codec: Codec) {
        let state = lock(&self.state);
        let Some(ladder) = state.ladders.get(&codec) else { return };
        let of_codec = state.seats.iter().filter(|((of, _), _)| *of == codec);
        let lost = of_codec.map(|(_, known)| known.lost).max().unwrap_or_default();
        for rung in 0..RUNGS {
            if let Some(running) = state.running.get(&(codec, rung)).and_then(Weak::upgrade) {
                running.set_bitrate(ladder.rate(rung));
                if codec.kind() == Kind::Audio {
                    running.set_loss(lost);
                }
            }
        }
    }

    /// Starts an encoder that then runs with or without peers, so that the first peer need not wait for it.
    pub fn keep(&self, codec: Codec) -> Result<(), MediaError> {
        self.keep_in(&self.turn(), codec)
    }

    pub(super) fn keep_in(&self, turn: &Turn<'_>, codec: Codec) -> Result<(), MediaError> {
        let encoder = match self.passing(turn, codec)? {
            Some(passing) => passing,
            None => self.running(turn, codec, 0, self.bounds(codec.kind()).start)?,
        };
        // The last owner of an encoder stops its pipeline.
        let replaced = lock(&self.state).kept.insert(codec, encoder);
        drop(replaced);
        Ok(())
    }

    /// Returns the encoded source of this codec if passthrough is allowed and proven to work.
    fn passed<'a>(&self, state: &'a State, codec: Codec) -> Option<&'a Encoded> {
        let is_this = |encoded: &&Encoded| encoded.codec == codec && encoded.is_proven();
        self.passable(state, codec.kind()).filter(is_this)
    }

    /// Returns the passthrough of an encoded source of this codec, if there is such a source; starts it if it does not
    /// run.
    fn passing(&self, _: &Turn<'_>, codec: Codec) -> Result<Option<Arc<Encoder>>, MediaError> {
        let (encoded, is_muted) = {
            let state = lock(&self.state);
            let Some(encoded) = self.passed(&state, codec) else { return Ok(None) };
            if let Some(running) = state.running(codec, PASSED) {
                return Ok(Some(running));
            }
            let is_muted = state.captures.get(&codec.kind()).map(|capture| capture.mutes());
            (encoded.clone(), is_muted.unwrap_or_default())
        };
        let of = encoded.clone();
        let encoder = Arc::new(Encoder::pass(&encoded, is_muted, move |error| {
            tracing::debug!("{error}");
            of.refuse(Obstacle::Broken);
        })?);
        lock(&self.state).running.insert((codec, PASSED), Arc::downgrade(&encoder));
        Ok(Some(encoder))
    }

    /// Returns the encoder of a rung; starts it if it does not run, or has failed.
    fn running(
        &self,
        turn: &Turn<'_>,
        codec: Codec,
        rung: usize,
        rate: u32,
    ) -> Result<Arc<Encoder>, MediaError> {
        if let Some(running) = lock(&self.state).running(codec, rung) {
            return Ok(running);
        }
        let encoder = Arc::new(self.start(turn, codec, rate)?);
        let mut state = lock(&self.state);
        state.running.insert((codec, rung), Arc::downgrade(&encoder));
        let replaced = match state.kept.get_mut(&codec) {
            Some(kept) if rung == 0 => Some(std::mem::replace(kept, encoder.clone())),
            _ => None,
        };
        drop((state, replaced));
        Ok(encoder)
    }

    /// Starts the first encoder of a codec that works here.
    fn start(&self, turn: &Turn<'_>, codec: Codec, rate: u32) -> Result<Encoder, MediaError> {
        let raw = self.raw(turn, codec.kind())?;
        let broken = lock(&self.state).broken.clone();
        let mut left = inventory::encoders(codec, self.wanted.as_deref())?;
        left.retain(|choice| !broken.contains(choice.element));
        let mut reason = MediaError::NoEncoder { codec, failed: broken.into_iter().collect() };
        for (at, choice) in left.iter().enumerate() {
            let (element, next) = (choice.element, left.get(at + 1).map(|next| next.element));
            let (failures, state) = (self.failures.clone(), Arc::downgrade(&self.state));
            let failed = move |error: String| {
                if let Some(state) = state.upgrade() {
                    lock(&state).broken.insert(element);
                }
                if !fell_back(codec, element, next, &error) {
                    let _ = failures.try_send(format!("the {codec} encoder stopped: {error}"));
                }
            };
            let text = launch::named(Folder::Encode, choice.pipeline)?;
            match Encoder::start((codec, &text), rate, raw.clone(), failed) {
                Ok(encoder) => return Ok(encoder),
                Err(error) => {
                    fell_back(codec, element, next, &error.to_string());
                    lock(&self.state).broken.insert(element);
                    reason = error;
                }
            }
        }
        Err(reason)
    }
}

/// Returns the rung of a seat and the rung's rate in bit/s.
fn on(ladder: &Ladder, seat: u64) -> (usize, u32) {
    let rung = ladder.rung(seat);
    (rung, ladder.rate(rung))
}

/// Logs that another encoder replaces a failed one; returns false if there is no other.
fn fell_back(codec: Codec, element: &str, next: Option<&str>, error: &str) -> bool {
    if let Some(next) = next {
        tracing::warn!("{element} does not encode {codec}: {error}; {next} replaces it");
    }
    next.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::test_media;

    #[test]
    fn no_lock_is_held_while_an_encoder_starts() {
        let (encoders, _failed) = smol::block_on(test_media::pictures());
        let encoders = Arc::new(encoders);
        let of = encoders.clone();
        let ((_seat, encoder), steps) = test_media::steps_unlocked(
            move || of.state.try_lock().is_ok() && of.turns.is_unlocked(),
            || encoders.join(Codec::Vp8).unwrap(),
        );
        assert!(steps.contains("\"vp8enc\"") && steps.contains("completed state change"), "{steps}");
        assert!(!encoder.passes());
    }
}
