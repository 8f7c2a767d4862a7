//! Number of encoder threads for a frame. VP8 threads of libvpx wait for each other's rows without sleeping, so that
//! unneeded threads take processor time from everything else.

use std::thread::available_parallelism;

use gst::prelude::*;

/// Returns the number of threads for a frame size on a machine with this many cores, as in libwebrtc.
fn fit((width, height): (i32, i32), cores: usize) -> i32 {
    match i64::from(width) * i64::from(height) {
        pixels if pixels > 1280 * 960 && cores >= 6 => 3,
        pixels if pixels > 640 * 480 && cores >= 3 => 2,
        _ => 1,
    }
}

/// Sets the number of threads of vp8enc, unless the user has set it, by the first frame that leaves over `source`.
/// Later frames change nothing, because libvpx before 1.13.1 crashes at a change.
pub(super) fn adapt(pipeline: &gst::Pipeline, source: &gst::Pad) {
    let mut all = pipeline.iterate_all_by_element_factory_name("vp8enc").into_iter().filter_map(Result::ok);
    let Some(encoder) = all.find(|encoder| encoder.property::<i32>("threads") == 0) else { return };
    let weak = encoder.downgrade();
    source.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let Some(gst::EventView::Caps(event)) = info.event().map(|event| event.view()) else {
            return gst::PadProbeReturn::Ok;
        };
        let size =
            event.caps().structure(0).and_then(|s| Some((s.get("width").ok()?, s.get("height").ok()?)));
        if let (Some(size), Some(encoder)) = (size, weak.upgrade()) {
            encoder.set_property("threads", fit(size, available_parallelism().map_or(1, usize::from)));
        }
        gst::PadProbeReturn::Remove
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_frames_and_small_machines_get_one_thread() {
        let of = |size| [1, 2, 4, 8].map(|cores| fit(size, cores));
        assert_eq!(of((640, 360)), [1, 1, 1, 1]);
        assert_eq!(of((1280, 720)), [1, 1, 2, 2]);
        assert_eq!(of((1920, 1080)), [1, 1, 2, 3]);
        assert_eq!(of((i32::MAX, i32::MAX)), [1, 1, 2, 3]);
    }

    #[test]
    fn the_number_of_threads_is_set_before_the_first_frame_unless_given() {
        crate::media::gst::init().unwrap();
        for (said, has) in [("", 1), ("threads=3", 3)] {
            let text = format!(
                "videotestsrc num-buffers=1 ! video/x-raw,width=640,height=360 ! identity name=in ! \
                 vp8enc name=enc {said} ! fakesink"
            );
            let pipeline = crate::media::gst::launch::parse(&text).unwrap();
            let pad = pipeline.by_name("in").unwrap().static_pad("src").unwrap();
            adapt(&pipeline, &pad);
            pipeline.set_state(gst::State::Playing).unwrap();
            let bus = pipeline.bus().unwrap();
            let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
            let end = bus.timed_pop_filtered(gst::ClockTime::from_seconds(10), &kinds).unwrap();
            assert_eq!(end.type_(), gst::MessageType::Eos);
            assert_eq!(pipeline.by_name("enc").unwrap().property::<i32>("threads"), has);
            pipeline.set_state(gst::State::Null).unwrap();
        }
    }
}
