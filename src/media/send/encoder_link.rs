//! The path of encoded frames from an encoder to one sender, which changes encoders at key frames.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use gst_utils::ConsumptionLink;

use super::encode::{Encoder, Seat};
use super::stream::Stream;
use crate::base::lock::lock;
use crate::media::gst::error::MediaError;
use crate::sdp::Codec;

/// Connection of a sender to the encoder that feeds it.
#[derive(Debug)]
pub(crate) struct EncoderLink {
    link: Arc<Mutex<ConsumptionLink>>,
    encoder: Arc<Encoder>,
    seat: Arc<Seat>,
    next: Option<Next>,
}

/// A pending change to passthrough, done at the source's next key frame: the source accepts no request for one.
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

impl EncoderLink {
    /// Connects an appsrc to an encoder of this codec. Frames are discarded until [`Self::flow`] is called.
    pub(crate) fn start(stream: &Stream, codec: Codec, appsrc: &gst_app::AppSrc) -> Result<Self, MediaError> {
        let (seat, encoder) = stream.encoders.join(codec)?;
        let link = encoder.producer().add_consumer(appsrc)?;
        link.set_discard(true);
        Ok(Self { link: Arc::new(Mutex::new(link)), encoder, seat: Arc::new(seat), next: None })
    }

    /// Returns the number of frames pushed so far.
    pub(crate) fn pushed(&self) -> u64 {
        lock(&self.link).pushed()
    }

    /// Returns whether frames are pushed rather than discarded.
    pub(crate) fn flows(&self) -> bool {
        !lock(&self.link).discard()
    }

    /// Returns the bitrate of the sender's encoder, in bit/s.
    pub(crate) fn bitrate(&self) -> u32 {
        self.encoder.bitrate()
    }

    /// Starts pushing frames, beginning with a key frame, or discards them.
    pub(crate) fn flow(&self, on: bool) {
        lock(&self.link).set_discard(!on);
        if on {
            self.encoder.serve_newcomer();
        }
    }

    /// Returns the sender's seat, by which [`super::encode::Encoders::serve`] finds the encoder that suits the sender.
    pub(crate) fn seat(&self) -> Arc<Seat> {
        self.seat.clone()
    }

    /// Changes to this encoder: at once if the encoder can make a key frame, otherwise at the source's next key frame.
    pub(crate) fn change_to(&mut self, encoder: Arc<Encoder>) -> Result<(), MediaError> {
        if let Some(next) = self.next.take_if(|next| next.is_done.load(Ordering::Relaxed)) {
            self.encoder = next.encoder.clone();
        }
        if Arc::ptr_eq(&encoder, &self.encoder) {
            self.next = None;
        } else if !encoder.passes() {
            self.next = None;
            // The link waits for a key frame of the new encoder, and requests it.
            lock(&self.link).change_producer(encoder.producer(), false)?;
            self.encoder = encoder;
        } else if self.next.as_ref().is_none_or(|next| !Arc::ptr_eq(&next.encoder, &encoder)) {
            self.next = Some(self.move_to(encoder));
        }
        Ok(())
    }

    /// Changes to another encoder right before that encoder's next key frame, so that no frame is missing in between.
    fn move_to(&self, encoder: Arc<Encoder>) -> Next {
        let (is_wanted, is_done) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let (link, done, producer) =
            (Arc::downgrade(&self.link), is_done.clone(), encoder.producer().clone());
        encoder.at_key_frame(is_wanted.clone(), move || {
            let Some(link) = link.upgrade() else { return };
            let mut link = lock(&link);
            if let Err(error) = link.change_producer(&producer, false) {
                tracing::debug!("passthrough does not start: {error}");
            }
            done.store(true, Ordering::Relaxed);
        });
        Next { encoder, is_wanted, is_done }
    }
}
