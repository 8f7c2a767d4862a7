//! Elements inside a bin, found by the factory that made them.

use gst::prelude::*;

/// Calls `work` with each element from one of these factories that is added to `bin` from now on, at any depth.
pub(crate) fn on_added(
    bin: &gst::Element,
    factories: &'static [&'static str],
    work: impl Fn(&gst::Element) + Send + Sync + 'static,
) {
    bin.connect("deep-element-added", false, move |args| {
        let element = args.get(2)?.get::<gst::Element>().ok()?;
        if element.factory().is_some_and(|of| factories.contains(&of.name().as_str())) {
            work(&element);
        }
        None
    });
}

/// Returns the elements from this factory that `within` contains at any depth.
pub(crate) fn all_of(within: &gst::Element, factory: &'static str) -> Vec<gst::Element> {
    let all = within.downcast_ref::<gst::Bin>().map(|bin| bin.iterate_recurse());
    let is_it = |element: &gst::Element| element.factory().is_some_and(|of| of.name() == factory);
    all.into_iter().flatten().filter_map(Result::ok).filter(is_it).collect()
}
