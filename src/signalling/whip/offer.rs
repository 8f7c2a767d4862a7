//! Offers as endpoints of WHIP and WHEP expect them, and their answers as the session expects them.
//!
//! Some endpoints read mids as numbers, and take an m-line of port 0 for a rejected one. Offers therefore have the index of
//! each m-line as its mid, and a port on each.
//!
//! Pure: no clock, chance, socket or GStreamer.

use crate::protocol::whip::fragment::Fragment;
use crate::sdp::{self, Sdp, SdpError, Section};

/// Reason why a description is no answer to our offer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AnswerError {
    /// The body is not SDP, or not valid.
    #[error("{0}")]
    Sdp(#[from] SdpError),
    /// The body is an offer: it leaves the DTLS role open (RFC 8842, 5.2).
    #[error("it sent an offer in place of an answer")]
    Offer,
    /// All m-lines are rejected.
    #[error("its answer rejects all media: it supports none of the offered codecs")]
    Rejected,
}

/// An offer of our side that may be sent several times.
#[derive(Debug)]
pub(super) struct Offer {
    /// The offer as the session made it.
    ours: Sdp,
    /// The offer as it is sent.
    sent: Sdp,
}

impl Offer {
    /// Reads an offer of the session.
    pub(super) fn parse(text: &str) -> Result<Self, SdpError> {
        let ours = Sdp::parse(text)?;
        let mut sent = ours.clone();
        for (index, media) in sent.media.iter_mut().enumerate() {
            media.set_attribute("mid", &index.to_string());
            media.give_port();
        }
        let mids: Vec<String> = (0..sent.media.len()).map(|index| index.to_string()).collect();
        sent.set_attribute("group", &format!("BUNDLE {}", mids.join(" ")));
        Ok(Self { ours, sent })
    }

    /// Returns the offer as it is sent.
    pub(super) fn text(&self) -> String {
        self.sent.to_string()
    }

    /// Reads the endpoint's answer; returns it with the mids of the session's offer.
    pub(super) fn answer(&self, body: &[u8]) -> Result<String, AnswerError> {
        let text = std::str::from_utf8(body).map_err(|_| SdpError::NoVersion)?;
        let mut answer = Sdp::parse(text)?;
        sdp::add_missing_mids(&mut answer, &self.sent);
        if answer.media.iter().all(sdp::Media::is_rejected) {
            return Err(AnswerError::Rejected);
        }
        let mut answer = sdp::validate(answer)?;
        if !self.sent.is_answered_by(&answer) {
            return Err(SdpError::OtherLines.into());
        }
        if answer.media.iter().any(|media| media.attribute("setup") == Some("actpass")) {
            return Err(AnswerError::Offer);
        }
        let group =
            answer.attribute("group").and_then(|group| group.strip_prefix("BUNDLE")).unwrap_or_default();
        let group: Vec<&str> = group.split_whitespace().filter_map(|mid| self.own_mid(mid)).collect();
        let group = format!("BUNDLE {}", group.join(" "));
        answer.set_attribute("group", &group);
        for (media, ours) in answer.media.iter_mut().zip(&self.ours.media) {
            ours.mid().into_iter().for_each(|mid| media.set_attribute("mid", mid));
        }
        Ok(answer.to_string())
    }

    fn own_mid(&self, sent: &str) -> Option<&str> {
        self.sent.mline(sent).and_then(|index| self.ours.mid(index))
    }

    /// Returns candidates of our side as a fragment.
    pub(super) fn fragment(&self, candidates: &[String]) -> String {
        let Some(first) = self.sent.media.first() else { return String::new() };
        let value = |name| first.attribute(name).or_else(|| self.sent.attribute(name)).unwrap_or_default();
        let fragment = Fragment {
            mlines: self.sent.media.len(),
            mline: &format!("{} {}", first.kind, first.rest),
            credentials: (value("ice-ufrag"), value("ice-pwd")),
            candidates,
        };
        fragment.to_string()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns a description with these mids: video, then audio.
    pub(crate) fn description(mids: [&str; 2], setup: &str) -> String {
        let [video, audio] = mids;
        let transport = format!(
            "a=ice-ufrag:ufrag\r\na=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 AA\r\na=setup:{setup}\r\n"
        );
        format!(
            "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {video} {audio}\r\n\
             m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:{video}\r\n{transport}\
             m=audio 0 UDP/TLS/RTP/SAVPF 97\r\na=bundle-only\r\na=mid:{audio}\r\n{transport}"
        )
    }

    fn offer() -> Offer {
        Offer::parse(&description(["video0", "audio1"], "actpass")).unwrap()
    }

    #[test]
    fn an_offer_has_numbers_as_mids_and_a_port_on_each_m_line() {
        let sent = Sdp::parse(&offer().text()).unwrap();
        assert_eq!((sent.mid(0), sent.mid(1)), (Some("0"), Some("1")));
        assert_eq!(sent.attribute("group"), Some("BUNDLE 0 1"));
        assert!(
            sent.media
                .iter()
                .all(|media| media.rest.starts_with("9 ") && media.attribute("bundle-only").is_none())
        );
        let fragment = offer().fragment(&["candidate:1".to_owned()]);
        assert_eq!(
            fragment,
            "a=group:BUNDLE 0 1\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\na=ice-ufrag:ufrag\r\n\
             a=ice-pwd:0123456789012345678901\r\na=candidate:1\r\n"
        );
    }

    #[test]
    fn an_answer_gets_the_mids_of_the_offer() {
        let answer = offer().answer(description(["0", "1"], "active").as_bytes()).unwrap();
        let answer = Sdp::parse(&answer).unwrap();
        assert_eq!((answer.mid(0), answer.mid(1)), (Some("video0"), Some("audio1")));
        assert_eq!(answer.attribute("group"), Some("BUNDLE video0 audio1"));
        assert!(offer().ours.is_answered_by(&answer));
    }

    #[test]
    fn a_body_that_is_no_answer_is_named() {
        let error = |body: &str| offer().answer(body.as_bytes()).unwrap_err().to_string();
        assert_eq!(error("<html>"), "no SDP: it does not begin with v=0");
        assert_eq!(error(""), "no SDP: it does not begin with v=0");
        assert_eq!(error(&description(["0", "1"], "actpass")), "it sent an offer in place of an answer");
        assert_eq!(error(&description(["1", "0"], "active")), SdpError::OtherLines.to_string());
        let one = description(["0", "1"], "active");
        let one = &one[..one.find("m=audio").unwrap()].replace("BUNDLE 0 1", "BUNDLE 0");
        assert_eq!(error(one), SdpError::OtherLines.to_string());
        let rejected =
            description(["0", "1"], "active").replace("video 9", "video 0").replace("a=bundle-only\r\n", "");
        assert!(error(&rejected).starts_with("its answer rejects all media"));
        assert_eq!(
            error(&description(["0", "1"], "active").replace("ice-ufrag", "x")),
            SdpError::NoIce.to_string()
        );
        assert!(offer().answer(&[0xff]).is_err());
    }

    proptest! {
        #[test]
        fn any_body_is_handled(at: prop::sample::Index, byte: u8, junk in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut body = description(["0", "1"], "active").into_bytes();
            let at = at.index(body.len());
            body[at] = byte;
            for body in [body, junk] {
                if let Ok(answer) = offer().answer(&body) {
                    prop_assert!(offer().ours.is_answered_by(&Sdp::parse(&answer).unwrap()));
                }
            }
        }
    }
}
