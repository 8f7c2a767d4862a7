//! Answers that decline a call: every m-line is rejected by port 0 (RFC 3264, 6), and the session's information (`i=`, RFC
//! 8866, 5.4) has the reason. To other clients it is an answer without media.

use super::{Line, Media, Sdp, Section};

/// Maximum length of a reason, in characters.
const MAX_REASON: usize = 200;

/// Returns an answer that declines all of an offer.
pub fn decline(offer: &Sdp, reason: &str) -> Sdp {
    let line = |letter, value: &str| Line { letter, value: value.to_owned() };
    let reason: String = reason.chars().filter(|c| !c.is_control()).take(MAX_REASON).collect();
    let media = offer.media.iter().map(|media| {
        let (_, formats) = media.rest.split_once(' ').unwrap_or_default();
        let mut lines = vec![line('c', "IN IP4 0.0.0.0")];
        lines.extend(media.mid().map(|mid| Line::attribute("mid", mid)));
        lines.push(Line::attribute("inactive", ""));
        Media { kind: media.kind.clone(), rest: format!("0 {formats}"), lines }
    });
    let mut session = vec![line('v', "0"), line('o', "- 0 0 IN IP4 127.0.0.1"), line('s', "-")];
    session.push(line('i', if reason.is_empty() { "declined" } else { &reason }));
    session.push(line('t', "0 0"));
    // Rejected m-lines leave the bundle (RFC 9143, 7.3.3); browsers miss a group that is not there.
    if offer.attribute("group").is_some() {
        session.push(Line::attribute("group", "BUNDLE"));
    }
    Sdp { session, media: media.collect() }
}

/// Returns the reason of an answer that declines all m-lines; `None` if it accepts any.
pub fn reason(answer: &Sdp) -> Option<String> {
    let information = answer.session.iter().find(|line| line.letter == 'i');
    let reason = information.map_or("it gave no reason", |line| &line.value);
    answer.media.iter().all(Media::is_rejected).then(|| reason.chars().take(MAX_REASON).collect())
}

#[cfg(test)]
mod tests {
    use super::super::tests::CHROMIUM;
    use super::*;

    #[test]
    fn an_answer_that_declines_says_why() {
        let offer = Sdp::parse(CHROMIUM).unwrap();
        let answer = decline(&offer, "not now\r\na=evil");
        assert_eq!(Sdp::parse(&answer.to_string()), Ok(answer.clone()));
        assert_eq!(reason(&answer).as_deref(), Some("not nowa=evil"));
        assert_eq!(answer.media.len(), offer.media.len());
        assert_eq!(answer.mid(1), offer.mid(1));
        assert_eq!(reason(&offer), None);
        assert_eq!(reason(&decline(&offer, "")).as_deref(), Some("declined"));
    }
}
