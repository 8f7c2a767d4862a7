//! Encode few times, however many peers there are: each codec that some peer negotiated, at up to three rates
//! where the network does not allow all of them the same, stopped when none is left that needs it.

mod encoder;
pub mod ladder;
mod shape;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use smol::channel::Sender;

pub use self::encoder::Encoder;
pub use self::ladder::Rates;
use self::ladder::{Ladder, RUNGS};
use super::capture::Capture;
use super::launch::{self, Folder};
use super::{MediaError, inventory};
use crate::sdp::{Codec, Kind};

/// What sound is encoded with, in bit/s.
pub(super) const SOUND: u32 = 48_000;

/// What an encoder of sound is told of losses until more is known, in percent.
const LOSS: u32 = 5;

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
    running: HashMap<(Codec, usize), Weak<Encoder>>,
    /// Codecs that are encoded with or without peers, and what does it.
    kept: HashMap<Codec, Arc<Encoder>>,
    ladders: BTreeMap<Codec, Ladder>,
    /// What peers lose, in percent, by their seats.
    losses: HashMap<(Codec, u64), u32>,
    /// The elements that failed; nothing is encoded with them again.
    broken: BTreeSet<&'static str>,
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
            state.losses.remove(&(self.codec, self.id));
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

    /// Whether there is something to send of that kind.
    pub fn has(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }

    /// The bounds of the rate of that kind.
    pub fn rates(&self, kind: Kind) -> Rates {
        match kind {
            Kind::Video => self.rates,
            Kind::Audio => Rates { least: SOUND / 3, start: SOUND, most: SOUND },
        }
    }

    /// Takes a seat among those who are sent that codec, and the encoder for it, started when nobody used it yet.
    pub fn sit(&self, codec: Codec) -> Result<(Seat, Arc<Encoder>), MediaError> {
        let mut state = self.lock();
        let rates = self.rates(codec.kind());
        let id = state.ladders.entry(codec).or_insert_with(|| Ladder::new(rates)).enter();
        let seat = Seat { codec, id, state: Arc::downgrade(&self.state) };
        let encoder = self.encoder_of(&mut state, codec, id);
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
        state.losses.insert((codec, seat.id), lost);
        let encoder = self.encoder_of(&mut state, codec, seat.id)?;
        for rung in 0..RUNGS {
            let rate = state.ladders.get(&codec).map(|ladder| ladder.rate(rung));
            let running = state.running.get(&(codec, rung)).and_then(Weak::upgrade);
            if let (Some(running), Some(rate)) = (running, rate) {
                running.set_bitrate(rate);
                if codec.kind() == Kind::Audio {
                    let of_codec = state.losses.iter().filter(|((of, _), _)| *of == codec);
                    running.set_loss(of_codec.map(|(_, lost)| *lost).max().unwrap_or(LOSS));
                }
            }
        }
        Ok(encoder)
    }

    /// Starts an encoder that then runs with or without peers: the first peer need not wait for it.
    pub fn keep(&self, codec: Codec) -> Result<(), MediaError> {
        let mut state = self.lock();
        let encoder = self.running(&mut state, codec, 0, self.rates(codec.kind()).start)?;
        state.kept.insert(codec, encoder);
        Ok(())
    }

    /// Silence or black from now on, or the source again; false where nothing of the kind is sent.
    pub fn set_muted(&self, kind: Kind, muted: bool) -> bool {
        self.lock().captures.get(&kind).map(|capture| capture.set_muted(muted)).is_some()
    }

    /// Whether silence or black is sent of that kind.
    pub fn is_muted(&self, kind: Kind) -> bool {
        self.lock().captures.get(&kind).is_some_and(Capture::is_muted)
    }

    /// How loud the sound that is sent is (see [`super::level`]); none where none is.
    pub fn level(&self) -> Option<u8> {
        self.lock().captures.get(&Kind::Audio).map(Capture::level)
    }

    /// Another source in place of the one of its kind, for all peers at once; false where nothing of the
    /// kind is sent.
    pub fn replace(&self, capture: Capture) -> Result<bool, MediaError> {
        let mut state = self.lock();
        let Some(old) = state.captures.get(&capture.kind()) else { return Ok(false) };
        capture.set_muted(old.is_muted());
        for encoder in state.running.values().filter_map(Weak::upgrade) {
            if encoder.kind() == capture.kind() {
                encoder.take(&capture)?;
            }
        }
        state.captures.insert(capture.kind(), capture);
        Ok(true)
    }

    fn encoder_of(&self, state: &mut State, codec: Codec, seat: u64) -> Result<Arc<Encoder>, MediaError> {
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
        let State { captures, broken, .. } = state;
        let capture = captures.get(&codec.kind());
        let capture = capture.ok_or_else(|| MediaError::WebRtc(format!("nothing to send as {codec}")))?;
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
            let text = launch::named(Folder::Encode, choice.pipeline)?;
            match Encoder::start((codec, &text), rate, capture, failed) {
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
