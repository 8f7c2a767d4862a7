//! Encode few times, however many peers there are: each codec that some peer negotiated, at up to three rates
//! where the network does not allow all of them the same, stopped when none is left that needs it.

mod encoder;
pub mod ladder;
mod passthrough;
mod shape;
mod sources;
mod threads;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use smol::channel::Sender;

pub use self::encoder::Encoder;
pub use self::ladder::Rates;
use self::ladder::{Ladder, RUNGS};
use self::passthrough::Pass;
use super::capture::{Capture, Frames};
use super::encoded_source::{Encoded, Obstacle};
use crate::media::gst::error::MediaError;
use crate::media::gst::inventory;
use crate::media::gst::launch::{self, Folder};
use crate::sdp::{Codec, Kind};

/// What sound is encoded with, in bit/s.
pub(crate) const SOUND: u32 = 48_000;

/// In place of a rung: what passes an encoded source on.
const PASSED: usize = RUNGS;

/// The sources, and the encoders in use.
#[derive(Debug)]
pub struct Encoders {
    kinds: Vec<Kind>,
    rates: Rates,
    /// The element that the user wants to encode with.
    wanted: Option<String>,
    state: Arc<Mutex<State>>,
    failures: Sender<String>,
}

#[derive(Debug, Default)]
struct State {
    captures: HashMap<Kind, Capture>,
    /// The raw frames of encoded sources, as long as something is encoded of them.
    decoded: HashMap<Kind, Weak<Capture>>,
    running: HashMap<(Codec, usize), Weak<Encoder>>,
    /// Codecs that are encoded with or without peers, and what does it.
    kept: HashMap<Codec, Arc<Encoder>>,
    ladders: BTreeMap<Codec, Ladder>,
    /// What is known of peers, by their seats.
    seats: HashMap<(Codec, u64), Known>,
    /// The elements that failed; nothing is encoded with them again.
    broken: BTreeSet<&'static str>,
}

impl State {
    /// The source of a kind, where it is encoded already.
    fn encoded(&self, kind: Kind) -> Option<(&Capture, &Encoded)> {
        let capture = self.captures.get(&kind)?;
        match capture.frames() {
            Frames::Encoded(encoded) => Some((capture, encoded)),
            Frames::Raw(_) => None,
        }
    }
}

/// What is known of a peer.
#[derive(Debug, Default)]
struct Known {
    /// What it loses, in percent.
    lost: u32,
    pass: Pass,
}

/// A peer's place among those who are sent one codec of one source.
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

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Encoders {
    /// Encoders over these sources, with the bounds of the pictures' bitrate.
    pub fn new(captures: Vec<Capture>, rates: Rates, failures: Sender<String>) -> Self {
        let kinds = captures.iter().map(Capture::kind).collect();
        let captures = captures.into_iter().map(|capture| (capture.kind(), capture)).collect();
        let state = Arc::new(Mutex::new(State { captures, ..State::default() }));
        Self { kinds, rates, wanted: None, state, failures }
    }

    /// With an element to encode with, where it can encode what is asked for.
    pub fn with_element(mut self, element: Option<String>) -> Self {
        self.wanted = element;
        self
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Returns the sender of reports to the user about sources and encoders.
    pub(crate) fn failures(&self) -> &Sender<String> {
        &self.failures
    }

    /// Whether there is something to send of that kind.
    pub fn has(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }

    /// The bounds of the rate of that kind, with room for an encoded source.
    pub fn rates(&self, kind: Kind) -> Rates {
        let bounds = self.bounds(kind);
        let state = self.lock();
        let Some(rate) = self.passable(&state, kind).and_then(|encoded| encoded.rate()) else {
            return bounds;
        };
        let (start, most) = (bounds.start.max(rate), bounds.most.max(rate.saturating_add(rate / 2)));
        Rates { start, most, ..bounds }
    }

    /// The bounds of what is encoded here.
    fn bounds(&self, kind: Kind) -> Rates {
        match kind {
            Kind::Video => self.rates,
            Kind::Audio => Rates { least: SOUND / 3, start: SOUND, most: SOUND, passed: 0 },
        }
    }

    /// The codec of a source that is passed on as it comes, where there is one.
    pub fn passed_codec(&self, kind: Kind) -> Option<Codec> {
        self.passable(&self.lock(), kind).map(|encoded| encoded.codec)
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
    pub fn sit(&self, codec: Codec) -> Result<(Seat, Arc<Encoder>), MediaError> {
        let mut state = self.lock();
        let rates = self.bounds(codec.kind());
        let id = state.ladders.entry(codec).or_insert_with(|| Ladder::new(rates)).enter();
        let seat = Seat { codec, id, state: Arc::downgrade(&self.state) };
        let encoder = self.encoded_for(&mut state, codec, id);
        let encoder = encoder.or_else(|error| self.passing(&mut state, codec)?.ok_or(error));
        drop(state);
        Ok((seat, encoder?))
    }

    /// The network allows a peer so much (bit/s) of this, and loses so many percent; the encoder that it is to have
    /// from now on.
    pub fn follow(&self, seat: &Seat, allowed: u32, lost: u32) -> Result<Arc<Encoder>, MediaError> {
        let mut state = self.lock();
        let codec = seat.codec;
        if let Some(ladder) = state.ladders.get_mut(&codec) {
            ladder.allow(seat.id, allowed);
        }
        let rate = self.passable(&state, codec.kind()).and_then(|encoded| encoded.rate());
        let known = state.seats.entry((codec, seat.id)).or_default();
        known.lost = lost;
        if let Some(rate) = rate {
            known.pass.update(Instant::now(), allowed, rate);
        }
        let encoder = self.encoder_of(&mut state, codec, seat.id)?;
        for rung in 0..RUNGS {
            let rate = state.ladders.get(&codec).map(|ladder| ladder.rate(rung));
            let running = state.running.get(&(codec, rung)).and_then(Weak::upgrade);
            if let (Some(running), Some(rate)) = (running, rate) {
                running.set_bitrate(rate);
                if codec.kind() == Kind::Audio {
                    let of_codec = state.seats.iter().filter(|((of, _), _)| *of == codec);
                    running.set_loss(of_codec.map(|(_, known)| known.lost).max().unwrap_or_default());
                }
            }
        }
        Ok(encoder)
    }

    /// Starts an encoder that then runs with or without peers: the first peer need not wait for it.
    pub fn keep(&self, codec: Codec) -> Result<(), MediaError> {
        self.keep_in(&mut self.lock(), codec)
    }

    fn keep_in(&self, state: &mut State, codec: Codec) -> Result<(), MediaError> {
        let encoder = match self.passing(state, codec)? {
            Some(passing) => passing,
            None => self.running(state, codec, 0, self.bounds(codec.kind()).start)?,
        };
        state.kept.insert(codec, encoder);
        Ok(())
    }

    /// What passes an encoded source of that codec on, where there is one, started when it does not run.
    fn passing(&self, state: &mut State, codec: Codec) -> Result<Option<Arc<Encoder>>, MediaError> {
        let is_this = |encoded: &&Encoded| encoded.codec == codec && encoded.is_proven();
        let Some(encoded) = self.passable(state, codec.kind()).filter(is_this) else { return Ok(None) };
        let there = state.running.get(&(codec, PASSED)).and_then(Weak::upgrade);
        if let Some(encoder) = there.filter(|encoder| !encoder.is_broken()) {
            return Ok(Some(encoder));
        }
        let is_muted = state.captures.get(&codec.kind()).map(Capture::mutes).unwrap_or_default();
        let of = encoded.clone();
        let encoder = Encoder::pass(encoded, is_muted, move |error| {
            tracing::debug!("{error}");
            of.refuse(Obstacle::Broken);
        })?;
        let encoder = Arc::new(encoder);
        state.running.insert((codec, PASSED), Arc::downgrade(&encoder));
        Ok(Some(encoder))
    }

    fn encoder_of(&self, state: &mut State, codec: Codec, seat: u64) -> Result<Arc<Encoder>, MediaError> {
        if state.seats.get(&(codec, seat)).is_none_or(|known| known.pass.is_on())
            && let Some(passing) = self.passing(state, codec)?
        {
            return Ok(passing);
        }
        self.encoded_for(state, codec, seat)
    }

    /// Returns the encoder of the rung that a seat is on.
    fn encoded_for(&self, state: &mut State, codec: Codec, seat: u64) -> Result<Arc<Encoder>, MediaError> {
        let Some(ladder) = state.ladders.get(&codec) else {
            return Err(MediaError::WebRtc(format!("nothing to send as {codec}")));
        };
        let (rung, rate) = (ladder.rung(seat), ladder.rate(ladder.rung(seat)));
        self.running(state, codec, rung, rate)
    }

    /// The encoder of a rung, started when it does not run, or runs no more.
    fn running(
        &self,
        state: &mut State,
        codec: Codec,
        rung: usize,
        rate: u32,
    ) -> Result<Arc<Encoder>, MediaError> {
        let there = state.running.get(&(codec, rung)).and_then(Weak::upgrade);
        if let Some(encoder) = there.filter(|encoder| !encoder.is_broken()) {
            return Ok(encoder);
        }
        let encoder = Arc::new(self.start(state, codec, rate)?);
        state.running.insert((codec, rung), Arc::downgrade(&encoder));
        if let (0, Some(kept)) = (rung, state.kept.get_mut(&codec)) {
            *kept = encoder.clone();
        }
        Ok(encoder)
    }

    /// Starts the first of the encoders of a codec that works here.
    fn start(&self, state: &mut State, codec: Codec, rate: u32) -> Result<Encoder, MediaError> {
        let raw = self.raw(state, codec.kind())?;
        let broken = &mut state.broken;
        let mut left = inventory::encoders(codec, self.wanted.as_deref())?;
        left.retain(|choice| !broken.contains(choice.element));
        let mut reason = MediaError::WebRtc(format!(
            "no encoder of {codec} works here: {}",
            names(broken.iter().copied())
        ));
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
            let text = launch::named(Folder::Encode, choice.way)?;
            match Encoder::start((codec, &text), rate, raw.clone(), failed) {
                Ok(encoder) => return Ok(encoder),
                Err(error) => {
                    fell_back(codec, element, next, &error.to_string());
                    broken.insert(element);
                    reason = error;
                }
            }
        }
        Err(reason)
    }
}

/// Says that an encoder is given up for another; false where there is none.
fn fell_back(codec: Codec, element: &str, next: Option<&str>, error: &str) -> bool {
    if let Some(next) = next {
        tracing::warn!("{element} does not encode {codec}: {error}; {next} takes its place");
    }
    next.is_some()
}

fn names<'a>(elements: impl Iterator<Item = &'a str>) -> String {
    elements.collect::<Vec<_>>().join(", ")
}
