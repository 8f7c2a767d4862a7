//! Size of the captured video.

use gst::prelude::*;

/// Maximum frame size without a requested size, in pixels.
pub(super) const MOST: (u32, u32) = (1280, 720);
/// Minimum width and height, in pixels.
const LEAST: u32 = 16;

/// Returns the frame size for a source's size and pixel aspect ratio (width to height): the requested size, or else the
/// source's own with square pixels, at most [`MOST`]. Sides are even, as encoders of 4:2:0 video require.
fn fit(own: (i32, i32), aspect: (i32, i32), wanted: Option<(u32, u32)>) -> (i32, i32) {
    let sane = |number: i32| f64::from(number.max(1));
    let width = sane(own.0) * sane(aspect.0) / sane(aspect.1);
    let height = sane(own.1);
    let shrink = (f64::from(MOST.0) / width).min(f64::from(MOST.1) / height).min(1.0);
    let (width, height) =
        wanted.unwrap_or(((width * shrink).round() as u32, (height * shrink).round() as u32));
    let even = |side: u32| (side / 2 * 2).clamp(LEAST, 1 << 15).cast_signed();
    (even(width), even(height))
}

/// Makes `scale` and `end` of a pipeline scale video to the size of [`fit`], at the start and after each change of the
/// source's size. GStreamer's own choice may be odd or fail, and ranges of even numbers abort the process (1.22).
pub(super) fn limit(pipeline: &gst::Pipeline, wanted: Option<(u32, u32)>) {
    let (Some(scale), Some(end)) = (pipeline.by_name("scale"), pipeline.by_name("end")) else { return };
    let Some(pad) = scale.static_pad("sink") else { return };
    let end = end.downgrade();
    let types = gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::EVENT_UPSTREAM;
    pad.add_probe(types, move |_, info| match info.event().map(|event| event.view()) {
        Some(gst::EventView::Caps(event)) => {
            if let (Some(end), Some(size)) = (end.upgrade(), size_of(event.caps(), wanted)) {
                let caps = gst::Caps::builder("video/x-raw").field("format", "I420");
                let caps = caps.field("width", size.0).field("height", size.1);
                end.set_property("caps", caps.field("pixel-aspect-ratio", gst::Fraction::new(1, 1)).build());
            }
            gst::PadProbeReturn::Ok
        }
        // Hides a change of the output size from the source, which might renegotiate its own size.
        Some(gst::EventView::Reconfigure(_)) => gst::PadProbeReturn::Handled,
        _ => gst::PadProbeReturn::Ok,
    });
}

fn size_of(caps: &gst::CapsRef, wanted: Option<(u32, u32)>) -> Option<(i32, i32)> {
    let caps = caps.structure(0)?;
    let aspect = caps.get::<gst::Fraction>("pixel-aspect-ratio");
    let aspect = aspect.map_or((1, 1), |aspect| (aspect.numer(), aspect.denom()));
    Some(fit((caps.get("width").ok()?, caps.get("height").ok()?), aspect, wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_keep_their_aspect_ratio_and_are_even() {
        let fit = |own| fit(own, (1, 1), None);
        assert_eq!(
            [fit((640, 480)), fit((1280, 720)), fit((321, 241))],
            [(640, 480), (1280, 720), (320, 240)]
        );
        assert_eq!([fit((1920, 1080)), fit((1080, 1920))], [(1280, 720), (404, 720)]);
        assert_eq!([fit((1, 1)), fit((1, 4000)), fit((0, -3))], [(16, 16), (16, 720), (16, 16)]);
        assert_eq!(super::fit((720, 576), (16, 11), None), (1046, 576), "square pixels");
        assert_eq!(super::fit((720, 576), (0, 0), Some((65, 33))), (64, 32));
    }

    proptest! {
        #[test]
        fn arbitrary_sizes_are_bounded(own: (i32, i32), aspect: (i32, i32), wanted: Option<(u32, u32)>) {
            let (width, height) = fit(own, aspect, wanted);
            prop_assert!((16..=1 << 15).contains(&width) && (16..=1 << 15).contains(&height));
            prop_assert!(width % 2 == 0 && height % 2 == 0);
            prop_assert!(wanted.is_some() || width <= 1280 && height <= 720);
        }
    }
}
