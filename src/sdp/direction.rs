//! Directions of media (RFC 8866, 6.7), as they hold between the two sides. `sdp::webrtcbin` rewrites them for webrtcbin.

use super::{Line, Media, Sdp, Section};

/// Direction of media, from the view of the description's author (RFC 8866, 6.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Direction {
    /// Whether the author sends.
    pub send: bool,
    /// Whether the author receives.
    pub receive: bool,
}

impl Direction {
    /// Returns the attribute's name.
    pub fn as_str(self) -> &'static str {
        match (self.send, self.receive) {
            (true, true) => "sendrecv",
            (true, false) => "sendonly",
            (false, true) => "recvonly",
            (false, false) => "inactive",
        }
    }

    /// Returns the same direction from the view of the other side.
    pub fn reversed(self) -> Self {
        Self { send: self.receive, receive: self.send }
    }
}

const NAMES: [&str; 4] = ["sendrecv", "sendonly", "recvonly", "inactive"];

impl Media {
    /// Returns the direction: `sendrecv` if there is no attribute, `inactive` for a rejected m-line.
    pub fn direction(&self) -> Direction {
        let is = |name| self.attribute(name).is_some();
        let on = !self.is_rejected() && !is("inactive");
        Direction { send: on && !is("recvonly"), receive: on && !is("sendonly") }
    }

    pub(super) fn set_direction(&mut self, direction: Direction) {
        NAMES.iter().for_each(|name| self.remove_attribute(name));
        self.lines.push(Line::attribute(direction.as_str(), ""));
    }
}

/// Returns the active m-lines of audio and video, with their indexes.
pub(super) fn media_lines(sdp: &mut Sdp) -> impl Iterator<Item = (usize, &mut Media)> {
    let lines = sdp.media.iter_mut().enumerate();
    lines.filter(|(_, media)| super::Kind::of(media).is_some() && !media.is_rejected())
}
