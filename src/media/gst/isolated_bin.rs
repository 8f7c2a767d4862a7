//! Isolates errors of parts of a pipeline: the rest of the pipeline, and its owner, continue.
//!
//! An element that fails returns an error to the element before it, which passes it upstream to the source, which
//! stops. The element also posts a message, which ends the owner's work. A part is a bin that returns no error
//! upstream, and whose messages are reported separately ([`BusEvent::Part`](super::pipeline::BusEvent::Part)). The
//! failed elements are created again, because some elements accept no data after an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gst::prelude::*;
use gst::{FlowError, FlowSuccess};
use gst_video::UpstreamForceKeyUnitEvent;

use super::error::MediaError;
use super::launch;
use crate::base::tasks::Tasks;

/// Prefix of the names of parts.
const PREFIX: &str = "part-";

/// Name of the replaceable elements of a part.
const INNER: &str = "inner";

/// Name of the bin that the replaceable elements lead into.
const END: &str = "end";

/// Time for which a part drops all data after an error: a peer may cause an error with each packet.
const PAUSE: Duration = Duration::from_millis(500);

/// Makes a bin a part, by a name that its errors are reported with. The bin must not be in a pipeline yet.
pub(crate) fn name(bin: &gst::Bin) {
    bin.set_property("name", format!("{PREFIX}{}", bin.name()));
}

/// Returns the name of the part that contains an object, if any does.
pub(crate) fn of(object: &gst::Object) -> Option<String> {
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

/// Builds a part of two texts: `inner`, which may fail and has an open end on each side, and `end`, which `inner` leads
/// into. Returns the part and its sink pad, which accepts all data and forwards what `is_sound` approves. Reports the
/// first error to `on_fault`.
pub(crate) fn make(
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
    let fence = Arc::new(Fence {
        inner,
        bin: bin.downgrade(),
        is_closed: AtomicBool::new(false),
        replacements: Tasks::new(2),
    });
    let is_reported = AtomicBool::new(false);
    let takes = fence.clone();
    let take = move |pad: &gst::GhostPad, parent: Option<&gst::Object>, buffer: gst::Buffer| {
        let is_sound = buffer.map_readable().is_ok_and(|bytes| is_sound(&bytes));
        if takes.is_closed.load(Ordering::Relaxed) || !is_sound {
            return;
        }
        match gst::ProxyPad::chain_default(pad, parent, buffer) {
            Ok(_) | Err(FlowError::Flushing | FlowError::Eos) => {}
            Err(error) => {
                takes.close(pad);
                if !is_reported.swap(true, Ordering::Relaxed) {
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
            // Rejected caps would make the next packet an error.
            let _ = gst::Pad::event_default(pad, parent, event);
            true
        })
        .build();
    fence.fill(&pad)?;
    bin.add_pad(&pad).map_err(|error| failed(&error))?;
    Ok((bin, pad))
}

/// Guard before the inner elements of a part.
#[derive(Debug)]
struct Fence {
    /// The inner elements in gst-launch syntax.
    inner: String,
    bin: gst::glib::WeakRef<gst::Bin>,
    /// Whether all data is dropped.
    is_closed: AtomicBool,
    /// The running replacement of the inner elements, and at most one that has done its work.
    replacements: Tasks,
}

impl Fence {
    /// Drops all data until the inner elements have been replaced.
    fn close(self: &Arc<Self>, pad: &gst::GhostPad) {
        if self.is_closed.swap(true, Ordering::Relaxed) {
            return;
        }
        let (fence, pad) = (Arc::downgrade(self), pad.downgrade());
        // The replacement runs on another thread, because the failed one is still inside the inner elements.
        self.replacements.spawn(async move {
            smol::Timer::after(PAUSE).await;
            let (Some(fence), Some(pad)) = (fence.upgrade(), pad.upgrade()) else { return };
            let filled = smol::unblock(move || {
                let filled = fence.fill(&pad);
                fence.is_closed.store(filled.is_err(), Ordering::Relaxed);
                // Video resumes at a key frame; audio ignores the request.
                pad.push_event(UpstreamForceKeyUnitEvent::builder().all_headers(true).build());
                filled
            });
            if let Err(error) = filled.await {
                tracing::warn!("a received stream is dropped after an error: {error}");
            }
        });
    }

    /// Creates the inner elements, and replaces the present ones.
    fn fill(&self, pad: &gst::GhostPad) -> Result<(), MediaError> {
        let Some(bin) = self.bin.upgrade() else { return Ok(()) };
        let of = |element: &gst::Element, pad: &str| {
            element.static_pad(pad).ok_or_else(|| failed(&format!("no pad '{pad}'")))
        };
        if let Some(old) = bin.by_name(INNER) {
            pad.set_target(None::<&gst::Pad>).map_err(|error| failed(&error))?;
            let _ = old.set_state(gst::State::Null);
            bin.remove(&old).map_err(|error| failed(&error))?;
        }
        // A gst-launch text cannot end in caps.
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
    MediaError::pipeline("building a part of a pipeline", error)
}
