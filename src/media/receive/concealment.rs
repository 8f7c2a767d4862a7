//! Concealment of lost audio: from the next packet, if that repeats the lost one (Opus: RFC 6716, 2.1.7), otherwise by
//! extrapolation.

use gst::prelude::*;

/// Lets the decoders in a bin use the next packet's copy of a lost one, from the first loss on: waiting for the next
/// packet costs the time of a packet, which a stream without losses saves. opusdec itself would wait from the start, and
/// then reports a latency of 120 ms.
pub(crate) fn after_first_loss(bin: &impl IsA<gst::Bin>) {
    let elements = bin.as_ref().iterate_recurse().into_iter().filter_map(Result::ok);
    let decoders = elements.filter(|element| element.has_property("use-inband-fec"));
    for pad in decoders.filter_map(|decoder| decoder.static_pad("sink")) {
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |pad, info| {
            if info.event().is_none_or(|event| event.type_() != gst::EventType::Gap) {
                return gst::PadProbeReturn::Ok;
            }
            if let Some(decoder) = pad.parent_element() {
                decoder.set_property("use-inband-fec", true);
            }
            gst::PadProbeReturn::Remove
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::media::gst::{inventory, launch, level};
    use crate::sdp::Codec;

    #[test]
    fn lost_audio_is_concealed_without_delay_before_the_first_loss() {
        crate::media::gst::init().unwrap();
        let decoder = inventory::software_decoder(Codec::Opus).unwrap();
        let pipeline = launch::parse(&format!(
            "audiotestsrc num-buffers=100 samplesperbuffer=960 ! audio/x-raw,rate=48000,channels=1 ! opusenc \
             inband-fec=true packet-loss-percentage=20 ! identity name=lossy ! {} name=decoder ! \
             audio/x-raw,format=S16LE ! fakesink name=heard sync=false",
            decoder.pipeline
        ))
        .unwrap();
        after_first_loss(&pipeline);
        let pad =
            |name, pad| launch::by_name::<gst::Element>(&pipeline, name).unwrap().static_pad(pad).unwrap();
        let count = AtomicU32::new(0);
        let decodes: gst::Element = launch::by_name(&pipeline, "decoder").unwrap();
        let (at_once, decoding) = (Arc::new(Mutex::new(vec![])), decodes.clone());
        let seen = at_once.clone();
        pad("lossy", "src").add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            let count = count.fetch_add(1, Ordering::Relaxed) + 1;
            let is_lost = count > 50 && count.is_multiple_of(10);
            let buffer = info.buffer().unwrap();
            seen.lock().unwrap().push(decoding.property::<bool>("use-inband-fec"));
            if is_lost {
                pad.push_event(
                    gst::event::Gap::builder(buffer.pts().unwrap()).duration(buffer.duration()).build(),
                );
            }
            if is_lost { gst::PadProbeReturn::Drop } else { gst::PadProbeReturn::Ok }
        });
        let heard = Arc::new(Mutex::new(vec![]));
        let levels = heard.clone();
        level::watch(&pad("heard", "sink"), move |samples| {
            levels.lock().unwrap().push((samples.len() / 2, level::of(samples)));
        });
        pipeline.set_state(gst::State::Playing).unwrap();
        let ends = [gst::MessageType::Eos, gst::MessageType::Error];
        let end =
            pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(20), &ends).unwrap();
        pipeline.set_state(gst::State::Null).unwrap();
        assert_eq!(end.type_(), gst::MessageType::Eos, "{end:?}");
        let (waits, heard) = (at_once.lock().unwrap(), heard.lock().unwrap());
        assert!(
            waits[..60].iter().all(|waits| !waits) && waits[60..].iter().all(|waits| *waits),
            "{waits:?}"
        );
        // The tone has no gap after it has faded in: a sine is 3 dB below the maximum, its volume of 0.8 another 2 dB.
        let samples: usize = heard.iter().map(|(count, _)| count).sum();
        assert!(samples > 98 * 960, "{samples} of {}", 100 * 960);
        assert!(heard[2..].iter().all(|(_, level)| *level < 10), "{heard:?}");
    }
}
