//! Directions of media (RFC 8866, 6.7), as they hold between the two sides. [`super::webrtcbin::directions`] has what
//! webrtcbin sees instead.

use super::{Line, Media, Sdp, Section};

/// Which way media flows, from the view of the description's author (RFC 8866, 6.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Direction {
    /// The author sends.
    pub send: bool,
    /// The author receives.
    pub receive: bool,
}

impl Direction {
    /// The attribute's name.
    pub fn as_str(self) -> &'static str {
        match (self.send, self.receive) {
            (true, true) => "sendrecv",
            (true, false) => "sendonly",
            (false, true) => "recvonly",
            (false, false) => "inactive",
        }
    }

    /// The same flow from the view of the other side.
    pub fn reversed(self) -> Self {
        Self { send: self.receive, receive: self.send }
    }
}

const NAMES: [&str; 4] = ["sendrecv", "sendonly", "recvonly", "inactive"];

impl Media {
    /// The direction, `sendrecv` where none is said. A rejected section has none.
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

/// Returns the directions of a description, by m-line.
pub fn flows(sdp: &Sdp) -> Vec<Direction> {
    sdp.media.iter().map(Media::direction).collect()
}

/// Removes the directions from our answer that the offer does not have (RFC 3264, 6.1).
pub fn narrow_answer(answer: &mut Sdp, offered: &[Direction]) {
    for (mline, media) in media_lines(answer) {
        if let Some(theirs) = offered.get(mline) {
            let ours = media.direction();
            let (send, receive) = (ours.send && theirs.receive, ours.receive && theirs.send);
            media.set_direction(Direction { send, receive });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_narrowed_to_the_directions_of_its_offer() {
        let line = |d: &&str| format!("m=video 9 X 96\na={d}\n");
        let sdp =
            |all: &[&str]| Sdp::parse(&format!("v=0\n{}", all.iter().map(line).collect::<String>())).unwrap();
        let theirs = flows(&sdp(&["recvonly", "sendrecv", "inactive", "sendonly"]));
        let mut ours = sdp(&["sendrecv", "recvonly", "sendrecv", "sendonly"]);
        narrow_answer(&mut ours, &theirs);
        let names: Vec<_> = ours.media.iter().map(|media| media.direction().as_str()).collect();
        assert_eq!(names, ["sendonly", "recvonly", "inactive", "inactive"]);
    }
}
