//! Parts of a pipeline whose errors are their own: the rest of the pipeline, and whoever owns it, go on.
//!
//! An element that fails returns an error to the element before it, which passes it on, up to the source, which stops; and
//! it posts a message, which ends what the pipeline is for. A part is a bin that lets no error up, and its messages are told
//! apart from all others ([`BusEvent::Part`](super::pipeline::BusEvent::Part)). What failed in it is made anew, for some
//! elements take nothing any more after an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gst::prelude::*;
use gst::{FlowError, FlowSuccess};
use gst_video::UpstreamForceKeyUnitEvent;

use super::{MediaError, launch};

/// What the names of parts begin with.
const PREFIX: &str = "part-";

/// The name of what is made anew in a part.
const INNER: &str = "inner";

/// The name of what it leads into.
const END: &str = "end";

/// After an error a part takes nothing for so long: a peer may cause an error with each packet.
const REST: Duration = Duration::from_millis(500);

/// Makes a bin, which is in no pipeline yet, a part: its name is told with its errors.
pub(super) fn name(bin: &gst::Bin) {
    bin.set_property("name", format!("{PREFIX}{}", bin.name()));
}

/// The name of the part that an object is in, where it is in one.
pub(super) fn of(object: &gst::Object) -> Option<String> {
    let mut next = Some(object.clone());
    while let Some(object) = next {
        let name = object.name();
        if name.starts_with(PREFIX) {
            return Some(name.into());
        }
        next = object.parent();
    }
    None
}

/// A part of two texts: `inner`, which may fail, with an open end on each side, and `end`, which it leads into. Also its pad,
/// which takes whatever comes, and passes on what `is_sound`. The first error is told to `on_fault`.
pub(super) fn make(
    inner: String,
    end: &str,
    is_sound: impl Fn(&[u8]) -> bool + Send + Sync + 'static,
    on_fault: impl Fn(FlowError) + Send + Sync + 'static,
) -> Result<(gst::Bin, gst::GhostPad), MediaError> {
    let bin = gst::Bin::new();
    name(&bin);
    let end = launch::parse_bin(end)?;
    end.set_property("name", END);
    bin.add(&end).map_err(|error| failed(&error))?;
    let fence = Arc::new(Fence { inner, bin: bin.downgrade(), is_closed: AtomicBool::new(false) });
    let has_told = AtomicBool::new(false);
    let takes = fence.clone();
    let take = move |pad: &gst::GhostPad, parent: Option<&gst::Object>, buffer: gst::Buffer| {
        let is_sound = buffer.map_readable().is_ok_and(|bytes| is_sound(&bytes));
        if takes.is_closed.load(Ordering::Relaxed) || !is_sound {
            return;
        }
        match gst::ProxyPad::chain_default(pad, parent, buffer) {
            Ok(_) | Err(FlowError::Flushing | FlowError::Eos) => {}
            Err(error) => {
                takes.clone().close(pad);
                if !has_told.swap(true, Ordering::Relaxed) {
                    on_fault(error);
                }
            }
        }
    };
    let take = Arc::new(take);
    let takes = take.clone();
    let pad = gst::GhostPad::builder(gst::PadDirection::Sink)
        .name("sink")
        .chain_function(move |pad, parent, buffer| {
            takes(pad, parent, buffer);
            Ok(FlowSuccess::Ok)
        })
        .chain_list_function(move |pad, parent, list| {
            list.iter_owned().for_each(|buffer| take(pad, parent, buffer));
            Ok(FlowSuccess::Ok)
        })
        .event_function(|pad, parent, event| {
            // Caps that are not taken would be an error of the next packet.
            let _ = gst::Pad::event_default(pad, parent, event);
            true
        })
        .build();
    fence.fill(&pad)?;
    bin.add_pad(&pad).map_err(|error| failed(&error))?;
    Ok((bin, pad))
}

/// What stands before the inner elements of a part.
#[derive(Debug)]
struct Fence {
    /// The inner elements in gst-launch words.
    inner: String,
    bin: gst::glib::WeakRef<gst::Bin>,
    /// Nothing gets in.
    is_closed: AtomicBool,
}

impl Fence {
    /// Lets nothing in until the inner elements are made anew.
    fn close(self: Arc<Self>, pad: &gst::GhostPad) {
        if self.is_closed.swap(true, Ordering::Relaxed) {
            return;
        }
        let pad = pad.downgrade();
        // Not on the thread that is in those elements.
        smol::spawn(async move {
            smol::Timer::after(REST).await;
            let Some(pad) = pad.upgrade() else { return };
            let filled = smol::unblock(move || {
                let filled = self.fill(&pad);
                self.is_closed.store(filled.is_err(), Ordering::Relaxed);
                // Pictures go on with a key frame; sound takes no notice.
                pad.push_event(UpstreamForceKeyUnitEvent::builder().all_headers(true).build());
                filled
            });
            if let Err(error) = filled.await {
                tracing::warn!("a received stream that broke is not taken any more: {error}");
            }
        })
        .detach();
    }

    /// Makes the inner elements, in place of those that are there.
    fn fill(&self, pad: &gst::GhostPad) -> Result<(), MediaError> {
        let Some(bin) = self.bin.upgrade() else { return Ok(()) };
        let of = |element: &gst::Element, pad: &str| {
            element.static_pad(pad).ok_or_else(|| MediaError::WebRtc(format!("a part has no pad '{pad}'")))
        };
        if let Some(old) = bin.by_name(INNER) {
            pad.set_target(None::<&gst::Pad>).map_err(|error| failed(&error))?;
            let _ = old.set_state(gst::State::Null);
            bin.remove(&old).map_err(|error| failed(&error))?;
        }
        // Caps cannot end a text.
        let new: gst::Element =
            launch::parse_bin(&format!("{} ! identity silent=true", self.inner))?.upcast();
        new.set_property("name", INNER);
        bin.add(&new).map_err(|error| failed(&error))?;
        let end: gst::Element = launch::by_name(&bin, END)?;
        of(&new, "src")?.link(&of(&end, "sink")?).map_err(|error| failed(&error))?;
        pad.set_target(Some(&of(&new, "sink")?)).map_err(|error| failed(&error))?;
        new.sync_state_with_parent().map_err(|error| failed(&error))
    }
}

fn failed(error: &dyn std::fmt::Display) -> MediaError {
    MediaError::WebRtc(format!("a part of a pipeline cannot be made: {error}"))
}
