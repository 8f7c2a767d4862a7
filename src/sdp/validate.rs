//! Checks a peer's description by the rules of JSEP (RFC 8829), and writes out what it leaves implicit.

use std::collections::{HashMap, HashSet};

use super::{Line, Media, Sdp, SdpError, Section};

/// Attributes that may stand once for the whole session and are copied into every m-line (RFC 8839, 8842).
const INHERITED: [&str; 5] = ["ice-ufrag", "ice-pwd", "ice-options", "fingerprint", "setup"];

/// Checks a peer's description and writes out what it leaves implicit: mids and a BUNDLE group, session-level ICE and DTLS
/// attributes, credentials and a fingerprint in every m-line, and a port on m-lines that are only bundled.
pub fn validate(mut sdp: Sdp) -> Result<Sdp, SdpError> {
    sdp.media.iter_mut().filter(|media| !media.is_rejected()).for_each(Media::give_port);
    inherit(&mut sdp);
    let mids = name_mlines(&mut sdp)?;
    bundle(&mut sdp, &mids)?;
    check_extensions(&mut sdp)?;
    Ok(sdp)
}

/// Gives the m-lines of an answer that have no mid those of the offer: rejected m-lines need none (RFC 8843, 7.3.3).
pub fn add_missing_mids(answer: &mut Sdp, offer: &Sdp) {
    for (media, offered) in answer.media.iter_mut().zip(&offer.media) {
        if let (None, Some(mid)) = (media.mid(), offered.mid()) {
            media.set_attribute("mid", mid);
        }
    }
}

fn inherit(sdp: &mut Sdp) {
    for name in INHERITED {
        let values: Vec<String> = sdp.attributes(name).map(str::to_owned).collect();
        for media in &mut sdp.media {
            if media.attribute(name).is_none() {
                media.lines.extend(values.iter().map(|value| Line::attribute(name, value)));
            }
        }
        sdp.remove_attribute(name);
    }
}

/// Gives every m-line a mid; returns them in order.
fn name_mlines(sdp: &mut Sdp) -> Result<Vec<String>, SdpError> {
    let mut taken: HashSet<String> = HashSet::new();
    for mid in sdp.media.iter().filter_map(|media| media.mid()) {
        if mid.contains(char::is_whitespace) {
            return Err(SdpError::BadMid);
        }
        if !taken.insert(mid.to_owned()) {
            return Err(SdpError::DuplicateMid);
        }
    }
    let mut next = 0_usize;
    for media in &mut sdp.media {
        if media.mid().is_none() {
            while taken.contains(&next.to_string()) {
                next += 1;
            }
            taken.insert(next.to_string());
            media.set_attribute("mid", &next.to_string());
        }
    }
    Ok(sdp.media.iter().filter_map(|media| media.mid().map(str::to_owned)).collect())
}

/// Checks the BUNDLE group, or makes one of all m-lines in use. Its m-lines share the credentials of the first and have a
/// fingerprint each.
fn bundle(sdp: &mut Sdp, mids: &[String]) -> Result<(), SdpError> {
    let group = sdp
        .attributes("group")
        .find_map(|value| value.strip_prefix("BUNDLE"))
        .map(|group| group.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    let group = match group {
        Some(group) => {
            if group.iter().any(|mid| !mids.contains(mid)) {
                return Err(SdpError::BundleMid);
            }
            group
        }
        None => {
            let live = sdp.media.iter().filter(|media| !media.is_rejected());
            let group: Vec<String> = live.filter_map(|media| media.mid().map(str::to_owned)).collect();
            if !group.is_empty() {
                sdp.session.push(Line::attribute("group", &format!("BUNDLE {}", group.join(" "))));
            }
            group
        }
    };
    // The tagged m-line (RFC 8843, 7.1.3) describes the transport; a rejected one does not.
    let live = |media: &&Media| !media.is_rejected();
    let of = |mid: &String| sdp.media.iter().filter(live).find(|media| media.mid() == Some(mid));
    let tagged = group.iter().find_map(of).or_else(|| sdp.media.iter().find(live));
    let source = tagged.unwrap_or(&sdp.media[0]).clone();
    let ufrag = source.attribute("ice-ufrag").ok_or(SdpError::NoIce)?.to_owned();
    let pwd = source.attribute("ice-pwd").ok_or(SdpError::NoIce)?.to_owned();
    // RFC 8839, 5.4: at least 4 and 22 characters.
    if !(4..=256).contains(&ufrag.len()) || !(22..=256).contains(&pwd.len()) {
        return Err(SdpError::NoIce);
    }
    let fingerprints: Vec<String> = source.attributes("fingerprint").map(str::to_owned).collect();
    if fingerprints.is_empty() {
        return Err(SdpError::NoFingerprint);
    }
    for media in &mut sdp.media {
        let bundled = media.mid().is_some_and(|mid| group.iter().any(|other| other == mid));
        if bundled || media.attribute("ice-ufrag").is_none() {
            media.set_attribute("ice-ufrag", &ufrag);
            media.set_attribute("ice-pwd", &pwd);
        }
        if media.attribute("fingerprint").is_none() {
            media.lines.extend(fingerprints.iter().map(|value| Line::attribute("fingerprint", value)));
        }
        // A bundled m-line may omit attributes that the tagged one has (RFC 8843, 7.1.3).
        if let (None, Some(setup)) = (media.attribute("setup"), source.attribute("setup")) {
            media.lines.push(Line::attribute("setup", setup));
        }
    }
    Ok(())
}

/// Checks that each id stands for a single extension in the whole description. An extension given twice in a section
/// counts once.
fn check_extensions(sdp: &mut Sdp) -> Result<(), SdpError> {
    let mut ids: HashMap<String, String> = HashMap::new();
    for media in &mut sdp.media {
        let mut seen = HashSet::new();
        let mut twisted = false;
        media.lines.retain(|line| {
            let Some(("extmap", value)) = line.as_attribute() else { return true };
            let mut words = value.split_whitespace();
            let (Some(id), Some(uri)) = (words.next(), words.next()) else { return false };
            let id = id.split('/').next().unwrap_or(id);
            twisted |= ids.insert(id.to_owned(), uri.to_owned()).is_some_and(|other| other != uri);
            seen.insert(uri.to_owned())
        });
        if twisted {
            return Err(SdpError::Extmap);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::CHROMIUM;
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Sdp, SdpError> {
        validate(Sdp::parse(text)?)
    }

    const SESSION_LEVEL: &str = "v=0\no=- 1 1 IN IP4 0.0.0.0\ns=-\nt=0 0\na=ice-ufrag:abcd\n\
        a=ice-pwd:0123456789012345678901\na=fingerprint:sha-256 AA:BB\na=setup:actpass\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\na=rtpmap:111 opus/48000/2\nm=video 0 UDP/TLS/RTP/SAVPF 96\n";

    #[test]
    fn session_level_attributes_are_copied_into_every_m_line() {
        let sdp = parse(SESSION_LEVEL).unwrap();
        assert_eq!(sdp.attribute("group"), Some("BUNDLE 0"));
        for media in &sdp.media {
            assert_eq!(media.attribute("ice-ufrag"), Some("abcd"));
            assert_eq!(media.attribute("setup"), Some("actpass"));
            assert_eq!(media.attribute("fingerprint"), Some("sha-256 AA:BB"));
        }
        assert_eq!(sdp.attribute("setup"), None);
        assert_eq!((sdp.mid(0), sdp.mid(1)), (Some("0"), Some("1")));
    }

    #[test]
    fn a_complete_description_stays_as_it_is() {
        assert_eq!(parse(CHROMIUM), Sdp::parse(CHROMIUM));
    }

    #[test]
    fn contradictory_and_incomplete_descriptions_are_refused() {
        assert_eq!(parse(&CHROMIUM.replace("BUNDLE 0 1 2", "BUNDLE 0 1 7")), Err(SdpError::BundleMid));
        assert_eq!(parse(&CHROMIUM.replace("a=mid:1", "a=mid:0")), Err(SdpError::DuplicateMid));
        assert_eq!(parse(&CHROMIUM.replace("extmap:14 ", "extmap:3 ")), Err(SdpError::Extmap));
        assert_eq!(parse(&CHROMIUM.replace("ice-ufrag", "x")), Err(SdpError::NoIce));
        assert_eq!(parse(&CHROMIUM.replace("fingerprint", "x")), Err(SdpError::NoFingerprint));
    }

    #[test]
    fn bundled_m_lines_share_the_credentials_of_the_first() {
        let mut sdp = Sdp::parse(CHROMIUM).unwrap();
        sdp.media[2].set_attribute("ice-ufrag", "evil");
        let sdp = validate(sdp).unwrap();
        assert!(sdp.media.iter().all(|media| media.attribute("ice-ufrag") == Some("4ZcD")));
    }

    proptest! {
        #[test]
        fn validating_a_mutated_offer_twice_changes_nothing(
            cuts in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..4), 0..12)
        ) {
            let mut lines: Vec<&str> = CHROMIUM.lines().collect();
            for (at, what) in cuts {
                let at = at.index(lines.len() - 1) + 1;
                match what {
                    0 => { lines.remove(at); }
                    1 => { let line = lines[at]; lines.push(line); }
                    2 => { let last = lines.len() - 1; lines.swap(at, last); }
                    _ => lines[at] = &lines[at][..lines[at].len() / 2],
                }
                if lines.len() < 3 { break; }
            }
            if let Ok(sdp) = parse(&lines.join("\n")) {
                prop_assert_eq!(validate(sdp.clone()), Ok(sdp));
            }
        }
    }
}
