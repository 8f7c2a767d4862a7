//! The way of encoded frames from an encoder to one sender, which moves from encoder to encoder at key frames.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gst_utils::ConsumptionLink;

use super::MediaError;
use super::encode::{Encoder, Seat};
use super::stream::Stream;
use crate::sdp::Codec;

/// What a sender is fed by.
#[derive(Debug)]
pub(super) struct Feed {
    link: Arc<Mutex<ConsumptionLink>>,
    encoder: Arc<Encoder>,
    seat: Seat,
    next: Option<Next>,
}

/// A move to what passes a source on, at the source's next key frame, which cannot be asked for.
#[derive(Debug)]
struct Next {
    encoder: Arc<Encoder>,
    is_wanted: Arc<AtomicBool>,
    is_done: Arc<AtomicBool>,
}

impl Drop for Next {
    fn drop(&mut self) {
        self.is_wanted.store(false, Ordering::Relaxed);
    }
}

impl Feed {
    /// Feeds an appsrc with a stream in a codec. Nothing leaves before it is told to flow.
    pub(super) fn start(stream: &Stream, codec: Codec, appsrc: &gst_app::AppSrc) -> Result<Self, MediaError> {
        let (seat, encoder) = stream.encoders.sit(codec)?;
        let link = encoder.producer().add_consumer(appsrc);
        let link = link.map_err(|error| MediaError::WebRtc(format!("{codec} cannot be sent: {error}")))?;
        link.set_discard(true);
        Ok(Self { link: Arc::new(Mutex::new(link)), encoder, seat, next: None })
    }

    fn link(&self) -> MutexGuard<'_, ConsumptionLink> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frames that left so far.
    pub(super) fn pushed(&self) -> u64 {
        self.link().pushed()
    }

    /// Whether frames leave.
    pub(super) fn flows(&self) -> bool {
        !self.link().discard()
    }

    /// What is encoded for it, in bit/s.
    pub(super) fn bitrate(&self) -> u32 {
        self.encoder.bitrate()
    }

    /// Lets frames leave, beginning with a key frame, or holds them back.
    pub(super) fn flow(&self, on: bool) {
        self.link().set_discard(!on);
        if on {
            self.encoder.begin();
        }
    }

    /// The network allows so much (bit/s) and loses so many percent: another encoder may suit better.
    pub(super) fn follow(&mut self, stream: &Stream, allowed: u32, lost: u32) -> Result<(), MediaError> {
        if let Some(next) = self.next.take_if(|next| next.is_done.load(Ordering::Relaxed)) {
            self.encoder = next.encoder.clone();
        }
        let encoder = stream.encoders.follow(&self.seat, allowed, lost)?;
        if Arc::ptr_eq(&encoder, &self.encoder) {
            self.next = None;
        } else if !encoder.passes() {
            self.next = None;
            // It goes on with a key frame of the other encoder, which is asked for.
            let changed = self.link().change_producer(encoder.producer(), false);
            changed.map_err(|error| MediaError::WebRtc(error.to_string()))?;
            self.encoder = encoder;
        } else if self.next.as_ref().is_none_or(|next| !Arc::ptr_eq(&next.encoder, &encoder)) {
            self.next = Some(self.move_to(encoder));
        }
        Ok(())
    }

    /// Moves to another encoder right before its next key frame, so that nothing is missing in between.
    fn move_to(&self, encoder: Arc<Encoder>) -> Next {
        let (is_wanted, is_done) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let (link, done, producer) =
            (Arc::downgrade(&self.link), is_done.clone(), encoder.producer().clone());
        encoder.at_key_frame(is_wanted.clone(), move || {
            let Some(link) = link.upgrade() else { return };
            let mut link = link.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = link.change_producer(&producer, false) {
                tracing::debug!("the source is not passed on: {error}");
            }
            done.store(true, Ordering::Relaxed);
        });
        Next { encoder, is_wanted, is_done }
    }
}
