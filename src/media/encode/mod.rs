//! Encode few times, however many peers there are: each codec that some peer negotiated, at up to three rates
//! where the network does not allow all of them the same, stopped when none is left that needs it.

mod encoder;
pub mod ladder;
mod pass;
mod shape;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use smol::channel::Sender;

pub use self::encoder::Encoder;
use self::encoder::Raw;
pub use self::ladder::Rates;
use self::ladder::{Ladder, RUNGS};
use self::pass::Pass;
use super::capture::{Capture, Frames};
use super::encoded::{Encoded, Obstacle};
use super::launch::{self, Folder};
use super::{MediaError, inventory};
use crate::sdp::{Codec, Kind};

/// What sound is encoded with, in bit/s.
pub(super) const SOUND: u32 = 48_000;

/// Between two looks at whether a source can be passed on.
const PROOF: Duration = Duration::from_millis(500);

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
        let encoders = Self { kinds, rates, wanted: None, state, failures };
        encoders.prove();
        encoders
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

    /// An encoded source that may be passed on, to those whose network takes it; none for who wants an encoder of ours.
    fn passable<'a>(&self, state: &'a State, kind: Kind) -> Option<&'a Encoded> {
        let (capture, encoded) = state.encoded(kind).filter(|_| self.wanted.is_none())?;
        let fits = encoded.rate().is_none_or(|rate| rate <= self.rates.passed);
        (encoded.can_pass() && fits && !capture.is_muted()).then_some(encoded)
    }

    /// Decodes what a source begins with, and goes on as long as it is not known whether it can be passed on.
    fn prove(&self) {
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

    /// Takes a seat among those who are sent that codec, and the encoder for it, started when nobody used it yet.
    pub fn sit(&self, codec: Codec) -> Result<(Seat, Arc<Encoder>), MediaError> {
        let mut state = self.lock();
        let rates = self.bounds(codec.kind());
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
    fn raw(&self, state: &mut State, kind: Kind) -> Result<Raw, MediaError> {
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

    /// What passes an encoded source of that codec on, where there is one, started when it does not run.
    fn passing(&self, state: &mut State, codec: Codec) -> Result<Option<Arc<Encoder>>, MediaError> {
        let Some(encoded) = self.passable(state, codec.kind()).filter(|encoded| encoded.codec == codec)
        else {
            return Ok(None);
        };
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
        let Some(ladder) = state.ladders.get(&codec) else {
            return Err(MediaError::WebRtc(format!("nothing to send as {codec}")));
        };
        let (rung, rate) = (ladder.rung(seat), ladder.rate(ladder.rung(seat)));
        if state.seats.get(&(codec, seat)).is_none_or(|known| known.pass.is_on())
            && let Some(passing) = self.passing(state, codec)?
        {
            return Ok(passing);
        }
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
            let text = launch::named(Folder::Encode, choice.pipeline)?;
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
