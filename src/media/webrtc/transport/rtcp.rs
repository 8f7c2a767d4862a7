//! Reads RTCP compounds (RFC 3550, 6.1). The bytes may be arbitrary: what is cut off counts as absent.

/// Types of RTCP packets (RFC 3550, 12.1).
pub(crate) const SENDER_REPORT: u8 = 200;
pub(crate) const RECEIVER_REPORT: u8 = 201;
pub(crate) const SDES: u8 = 202;
pub(crate) const BYE: u8 = 203;
/// Type of feedback on the transport (RFC 4585, 6.2): NACK, and transport-wide arrival times.
pub(crate) const TRANSPORT_FEEDBACK: u8 = 205;

/// Packet of a compound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet<'a> {
    /// Type of the packet.
    pub(crate) kind: u8,
    /// Number of report blocks or chunks, from the first byte.
    pub(crate) count: u8,
    /// Bytes after the header of one word; most types begin with the sender's SSRC.
    pub(crate) body: &'a [u8],
}

/// Returns the packets of a compound.
pub(crate) fn packets(mut compound: &[u8]) -> impl Iterator<Item = Packet<'_>> {
    std::iter::from_fn(move || {
        let [first, kind, high, low, rest @ ..] = compound else { return None };
        let length = 4 * usize::from(u16::from_be_bytes([*high, *low]));
        let (body, next) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        compound = next;
        Some(Packet { kind: *kind, count: first & 0x1f, body })
    })
}

/// Returns the 32-bit word at an offset in bytes.
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
