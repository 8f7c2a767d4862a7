//! Directions as webrtcbin sees them. It cannot change the direction of a transceiver once it is negotiated: it always sees
//! a peer that sends and receives all that our side does, and media that the peer does not want is held back before it.

use crate::sdp::direction::media_lines;
use crate::sdp::{Direction, Sdp};

/// Makes the peer's offer send and receive on all m-lines.
pub(super) fn widen_offer(offer: &mut Sdp) {
    media_lines(offer).for_each(|(_, media)| media.set_direction(Direction { send: true, receive: true }));
}

/// Makes the peer's answer accept all directions of our offer.
pub(super) fn widen_answer(answer: &mut Sdp, offer: &Sdp) {
    for (mline, media) in media_lines(answer) {
        if let Some(offered) = offer.media.get(mline) {
            media.set_direction(offered.direction().reversed());
        }
    }
}

/// Removes the directions from our answer that the peer's offer does not have (RFC 3264, 6.1); webrtcbin saw a wider offer.
pub(super) fn narrow_answer(answer: &mut Sdp, offered: &[Direction]) {
    for (mline, media) in media_lines(answer) {
        if let Some(theirs) = offered.get(mline) {
            let ours = media.direction();
            let (send, receive) = (ours.send && theirs.receive, ours.receive && theirs.send);
            media.set_direction(Direction { send, receive });
        }
    }
}

/// Removes sending from these m-lines of a description that webrtcbin made: nothing is sent on them for now.
pub(super) fn silence(ours: &mut Sdp, mlines: &[usize]) {
    change(ours, mlines, |direction| Direction { send: false, ..direction });
}

/// Adds sending to these m-lines of our description: webrtcbin sends on them all the time.
pub(super) fn unsilence(ours: &mut Sdp, mlines: &[usize]) {
    change(ours, mlines, |direction| Direction { send: true, ..direction });
}

/// Adds receiving to these m-lines of the peer's description: webrtcbin sends on them.
pub(super) fn listen(theirs: &mut Sdp, mlines: &[usize]) {
    change(theirs, mlines, |direction| Direction { receive: true, ..direction });
}

fn change(sdp: &mut Sdp, mlines: &[usize], to: impl Fn(Direction) -> Direction) {
    for (mline, media) in media_lines(sdp) {
        if mlines.contains(&mline) {
            media.set_direction(to(media.direction()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sdp::Media;

    fn sdp(directions: &[&str]) -> Sdp {
        let line = |d: &&str| format!("m=video 9 X 96\na={d}\n");
        Sdp::parse(&format!("v=0\n{}", directions.iter().map(line).collect::<String>())).unwrap()
    }

    fn names(sdp: &Sdp) -> Vec<&'static str> {
        sdp.media.iter().map(|media| media.direction().as_str()).collect()
    }

    #[test]
    fn webrtcbin_sees_the_same_directions_in_every_description() {
        let mut offer = sdp(&["recvonly", "sendrecv", "inactive", "sendonly"]);
        widen_offer(&mut offer);
        assert_eq!(names(&offer), ["sendrecv"; 4]);
        let mut answer = sdp(&["inactive", "recvonly", "sendrecv"]);
        widen_answer(&mut answer, &sdp(&["sendrecv", "sendonly", "recvonly"]));
        assert_eq!(names(&answer), ["sendrecv", "recvonly", "sendonly"]);
    }

    #[test]
    fn an_answer_is_narrowed_to_the_directions_of_its_offer() {
        let offer = sdp(&["recvonly", "sendrecv", "inactive", "sendonly"]);
        let theirs: Vec<Direction> = offer.media.iter().map(Media::direction).collect();
        let mut ours = sdp(&["sendrecv", "recvonly", "sendrecv", "sendonly"]);
        narrow_answer(&mut ours, &theirs);
        assert_eq!(names(&ours), ["sendonly", "recvonly", "inactive", "inactive"]);
    }

    #[test]
    fn an_m_line_is_silenced_for_the_peer_alone() {
        let mut ours = sdp(&["sendrecv", "sendonly", "sendrecv"]);
        silence(&mut ours, &[0, 1]);
        assert_eq!(names(&ours), ["recvonly", "inactive", "sendrecv"]);
        unsilence(&mut ours, &[0, 1]);
        assert_eq!(names(&ours), ["sendrecv", "sendonly", "sendrecv"]);
        let mut theirs = sdp(&["sendonly", "inactive"]);
        listen(&mut theirs, &[0]);
        assert_eq!(names(&theirs), ["sendrecv", "inactive"]);
    }

    #[test]
    fn a_rejected_m_line_stays_rejected() {
        let mut offer = Sdp::parse("v=0\nm=video 0 X 96\na=inactive\n").unwrap();
        widen_offer(&mut offer);
        assert_eq!(names(&offer), ["inactive"]);
    }
}
