//! Reader that divides bytes into messages.

use smol::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

use crate::media::webrtc::data_channel::Message;

/// Maximum size of a binary message: every WebRTC endpoint accepts it (RFC 8831, 6.6).
pub(super) const CHUNK: usize = 16 * 1024;
/// Maximum length of a line that is sent as one message, in bytes.
const MAX_LINE: usize = 64 * 1024;

/// Divides the bytes of a source into messages: one for each line, or one for all bytes that are available.
pub(super) struct Reader<R> {
    from: BufReader<R>,
    lines: bool,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(from: R, lines: bool) -> Self {
        Self { from: BufReader::with_capacity(CHUNK, from), lines }
    }

    /// Returns the next message; none at the end.
    pub(super) async fn next(&mut self) -> Option<Message> {
        if !self.lines {
            let mut read = vec![0; CHUNK];
            let length = self.from.read(&mut read).await.ok()?;
            read.truncate(length);
            return (length > 0).then_some(Message::Binary(read));
        }
        let mut line = Vec::new();
        let mut limited = (&mut self.from).take(MAX_LINE as u64);
        limited.read_until(b'\n', &mut line).await.ok()?;
        if line.is_empty() {
            return None;
        }
        if line.ends_with(b"\n") {
            line.pop();
        }
        Some(Message::Text(String::from_utf8_lossy(&line).into_owned()))
    }
}
