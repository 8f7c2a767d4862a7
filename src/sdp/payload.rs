//! Check of RTP payloads that a depayloader would read, or count, beyond their end.
//!
//! `rtph265depay` (at least 1.22 to 1.26) computes a size of nearly 4 GB for a fragment that is shorter than its
//! header, which ends the process. Malformed payloads are therefore dropped before this depayloader and before that
//! of H.264.

use super::Codec;

/// The fixed header of RTP (RFC 3550, 5.1), in bytes.
const HEADER: usize = 12;

/// Returns whether the payload of an RTP packet is as long as its own headers claim. Only H.264 and H.265 are
/// checked.
pub fn is_sound(codec: Codec, packet: &[u8]) -> bool {
    let Some(payload) = of(packet) else { return false };
    match codec {
        Codec::H264 => is_sound_h264(payload),
        Codec::H265 => is_sound_h265(payload),
        Codec::Vp8 | Codec::Vp9 | Codec::Av1 | Codec::Opus | Codec::Pcmu | Codec::Pcma => true,
    }
}

/// Returns the payload of a packet without padding (RFC 3550, 5.1 and 5.3.1); `None` if its headers exceed the
/// packet.
fn of(packet: &[u8]) -> Option<&[u8]> {
    let first = *packet.first()?;
    let mut start = HEADER + 4 * usize::from(first & 0x0f);
    if first & 0x10 != 0 {
        let words: [u8; 2] = packet.get(start + 2..start + 4)?.try_into().ok()?;
        start += 4 + 4 * usize::from(u16::from_be_bytes(words));
    }
    let padding = if first & 0x20 != 0 { usize::from(*packet.last()?) } else { 0 };
    packet.get(start..packet.len().checked_sub(padding)?)
}

/// Checks the lengths of H.264 aggregates (RFC 6184, 5.7.1) and fragments (5.8).
fn is_sound_h264(payload: &[u8]) -> bool {
    let Some(first) = payload.first() else { return true };
    match first & 0x1f {
        // STAP-A; STAP-B also has a decoding order number of two bytes.
        24 => are_sound_units(&payload[1..], 1),
        25 => payload.len() > 3 && are_sound_units(&payload[3..], 1),
        // MTAP16 and MTAP24 do not occur in calls.
        26 | 27 => false,
        // FU-A; FU-B also has a decoding order number of two bytes.
        28 => payload.len() > 2,
        29 => payload.len() > 4,
        _ => true,
    }
}

/// Checks the lengths of the H.265 header, of two bytes, of aggregates (RFC 7798, 4.4.2) and of fragments (4.4.3).
fn is_sound_h265(payload: &[u8]) -> bool {
    let Some(first) = payload.first() else { return true };
    match (first >> 1) & 0x3f {
        48 => payload.len() > 2 && are_sound_units(&payload[2..], 3),
        49 => payload.len() > 3,
        // PACI packets are dropped: no depayloader here reads them.
        50 => false,
        _ => payload.len() > 2,
    }
}

/// Returns whether `rest` consists of complete units of at least `least` bytes, each behind its length in two bytes.
fn are_sound_units(mut rest: &[u8], least: usize) -> bool {
    while !rest.is_empty() {
        let Some((length, after)) = rest.split_first_chunk::<2>() else { return false };
        let length = usize::from(u16::from_be_bytes(*length));
        if length < least || length > after.len() {
            return false;
        }
        rest = &after[length..];
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(payload: &[u8]) -> Vec<u8> {
        [&[0x80; HEADER][..], payload].concat()
    }

    #[test]
    fn payloads_that_end_before_their_headers_are_not_sound() {
        let h264 = |payload: &[u8]| is_sound(Codec::H264, &packet(payload));
        assert!(h264(&[0x65]) && h264(&[28, 0x85, 1]) && h264(&[24, 0, 1, 0x67, 0, 2, 0x68, 1]));
        for wrong in [
            &[28][..],
            &[28, 0x45],
            &[29, 0, 0, 0x85],
            &[24, 0, 2, 0x67],
            &[24, 0, 0],
            &[24, 0],
            &[26, 0, 0, 0],
        ] {
            assert!(!h264(wrong), "{wrong:?}");
        }
        let h265 = |payload: &[u8]| is_sound(Codec::H265, &packet(payload));
        assert!(h265(&[2, 1, 0]) && h265(&[98, 1, 0x81, 1]) && h265(&[96, 1, 0, 3, 64, 1, 2]));
        for wrong in [
            &[98][..],
            &[98, 1],
            &[98, 1, 0x41],
            &[96, 1, 0, 4, 64, 1, 2],
            &[96, 1, 0, 1, 64],
            &[100, 1, 0],
            &[2, 1],
        ] {
            assert!(!h265(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn the_payload_lies_between_the_headers_and_the_padding() {
        let mut packet = packet(&[1, 2, 3, 0, 2]);
        packet[0] = 0xa0;
        assert_eq!(of(&packet), Some(&[1, 2, 3][..]));
        *packet.last_mut().unwrap() = 200;
        assert_eq!(of(&packet), None);
        // A header with two contributing sources and an extension of one word.
        let long = [&[0x92; HEADER][..], &[0; 8], &[0xbe, 0xde, 0, 1, 9, 9, 9, 9], &[7]].concat();
        assert_eq!(of(&long), Some(&[7][..]));
        assert_eq!(of(&long[..22]), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            for codec in Codec::ALL {
                is_sound(codec, &bytes);
            }
        }
    }
}
