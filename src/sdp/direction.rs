//! Directions of media, kept apart from what webrtcbin is told of them: it cannot change a
//! transceiver's direction once negotiated. It is shown a peer that takes and sends all that our side
//! does, always the same; the peer is told what really holds; and what the peer does not want is held
//! back before it reaches webrtcbin.

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

fn media_lines(sdp: &mut Sdp) -> impl Iterator<Item = (usize, &mut Media)> {
    let lines = sdp.media.iter_mut().enumerate();
    lines.filter(|(_, media)| super::Kind::of(media).is_some() && !media.is_rejected())
}

/// The peer's true directions, by m-line.
pub fn flows(sdp: &Sdp) -> Vec<Direction> {
    sdp.media.iter().map(Media::direction).collect()
}

/// The peer's offer as webrtcbin is to see it: everything both ways.
pub fn widen_offer(offer: &mut Sdp) {
    media_lines(offer).for_each(|(_, media)| media.set_direction(Direction { send: true, receive: true }));
}

/// The peer's answer as webrtcbin is to see it: all that we offered.
pub fn widen_answer(answer: &mut Sdp, offer: &Sdp) {
    for (mline, media) in media_lines(answer) {
        if let Some(offered) = offer.media.get(mline) {
            media.set_direction(offered.direction().reversed());
        }
    }
}

fn change(sdp: &mut Sdp, mlines: &[usize], to: impl Fn(Direction) -> Direction) {
    for (mline, media) in media_lines(sdp) {
        if mlines.contains(&mline) {
            media.set_direction(to(media.direction()));
        }
    }
}

fn change_text(sdp: &str, mlines: &[usize], to: impl Fn(Direction) -> Direction) -> String {
    match Sdp::parse(sdp) {
        Ok(mut parsed) if !mlines.is_empty() => {
            change(&mut parsed, mlines, to);
            parsed.to_string()
        }
        Ok(_) | Err(_) => sdp.to_owned(),
    }
}

/// A description of webrtcbin as others are to see it, with these m-lines on which nothing is sent for now.
pub fn silence(sdp: &str, mlines: &[usize]) -> String {
    change_text(sdp, mlines, |direction| Direction { send: false, ..direction })
}

/// A description of ours as webrtcbin is to see it, which sends on these m-lines all the time.
pub fn unsilence(sdp: &str, mlines: &[usize]) -> String {
    change_text(sdp, mlines, |direction| Direction { send: true, ..direction })
}

/// The peer's description as webrtcbin is to see it, which takes what is sent on these m-lines.
pub fn listen(sdp: &mut Sdp, mlines: &[usize]) {
    change(sdp, mlines, |direction| Direction { receive: true, ..direction });
}

/// webrtcbin's answer as the peer is to see it: no more than its offer had (RFC 3264, 6.1).
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

    fn sdp(directions: &[&str]) -> Sdp {
        let line = |d: &&str| format!("m=video 9 X 96\na={d}\n");
        Sdp::parse(&format!("v=0\n{}", directions.iter().map(line).collect::<String>())).unwrap()
    }

    fn names(sdp: &Sdp) -> Vec<&'static str> {
        sdp.media.iter().map(|media| media.direction().as_str()).collect()
    }

    #[test]
    fn webrtcbin_sees_always_the_same_and_the_peer_what_holds() {
        let mut offer = sdp(&["recvonly", "sendrecv", "inactive", "sendonly"]);
        let theirs = flows(&offer);
        widen_offer(&mut offer);
        assert_eq!(names(&offer), ["sendrecv"; 4]);

        let mut ours = sdp(&["sendrecv", "recvonly", "sendrecv", "sendonly"]);
        narrow_answer(&mut ours, &theirs);
        assert_eq!(names(&ours), ["sendonly", "recvonly", "inactive", "inactive"]);

        let mut answer = sdp(&["inactive", "recvonly", "sendrecv"]);
        widen_answer(&mut answer, &sdp(&["sendrecv", "sendonly", "recvonly"]));
        assert_eq!(names(&answer), ["sendrecv", "recvonly", "sendonly"]);
    }

    #[test]
    fn a_rejected_line_stays_rejected() {
        let mut offer = Sdp::parse("v=0\nm=video 0 X 96\na=inactive\n").unwrap();
        widen_offer(&mut offer);
        assert_eq!(names(&offer), ["inactive"]);
    }
}
