//! A thousand mutants of real offers: webrtcbin answers or refuses those that pass the check, and the
//! process lives.

use std::collections::BTreeMap;

use crate::common::in_time;
use roomtone::media::Peer;
use roomtone::media::peer::PeerConfig;
use roomtone::protocol::SdpKind;
use roomtone::sdp::{self, Codec, Kind, Sdp};
use roomtone::session::{Effect, EffectId};
use smol::channel::bounded;

const OFFERS: [(&str, &str); 5] = [
    ("Chromium", include_str!("../../src/sdp/testdata/chromium-offer.sdp")),
    ("Firefox", include_str!("../../src/sdp/testdata/firefox-offer.sdp")),
    ("Safari", include_str!("../../src/sdp/testdata/safari-offer.sdp")),
    ("aiortc", include_str!("../../src/sdp/testdata/aiortc-offer.sdp")),
    ("webrtcbin", include_str!("../../src/sdp/testdata/webrtcbin-offer.sdp")),
];
const EACH: u64 = 200;

/// Makes between one and four changes of the kinds that bugs and attackers make.
fn mutate(offer: &str, chance: &mut fastrand::Rng) -> String {
    let mut lines: Vec<String> = offer.lines().map(str::to_owned).collect();
    for _ in 0..chance.usize(1..5) {
        let at = chance.usize(1..lines.len());
        match chance.u8(0..9) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, lines[at].clone()),
            2 => {
                let other = chance.usize(1..lines.len());
                lines.swap(at, other);
            }
            3 => {
                let length = chance.usize(2..=lines[at].chars().count().max(2));
                lines[at] = lines[at].chars().take(length).collect();
            }
            4 => {
                let number = ["0", "-1", "4294967296", "99999", "65535", "127"][chance.usize(0..6)];
                let digits = lines[at].find(|c: char| c.is_ascii_digit());
                if let Some(from) = digits {
                    let end = lines[at][from..].find(|c: char| !c.is_ascii_digit());
                    let to = end.map_or(lines[at].len(), |to| from + to);
                    lines[at].replace_range(from..to, number);
                }
            }
            5 => lines[at] = lines[at].replace(' ', ["  ", "", " x ", "/"][chance.usize(0..4)]),
            6 => lines[at].push_str([";", " 1", "=", ":x", "\u{fffd}"][chance.usize(0..5)]),
            7 => lines[at] = lines[at].replacen([':', '/', ';'], ["", "::", ";"][chance.usize(0..3)], 1),
            _ => {
                let word =
                    ["sendonly", "inactive", "bundle-only", "rtcp-mux", "setup:passive", "setup:holdconn"];
                lines.insert(at, format!("a={}", word[chance.usize(0..6)]));
            }
        }
        if lines.len() < 3 {
            break;
        }
    }
    lines.join("\r\n") + "\r\n"
}

/// Returns webrtcbin's reaction.
async fn offered(config: &PeerConfig, sdp: Sdp) -> &'static str {
    let (event, events) = bounded(512);
    let peer = Peer::open(config.clone(), event).unwrap();
    let answer = async {
        let applied = peer.execute(Effect::ApplyRemote(EffectId(1), SdpKind::Offer, sdp)).await;
        let Some((_, Ok(None))) = applied else { return "refused" };
        match peer.execute(Effect::CreateAnswer { id: EffectId(2), restarts_ice: false }).await {
            Some((_, Ok(Some(_)))) => "answered",
            _ => "not answered",
        }
    };
    let outcome = in_time("an answer of webrtcbin", answer).await;
    drop(events);
    outcome
}

#[test]
fn webrtcbin_survives_all_offers_that_pass_the_check() {
    roomtone::media::init().unwrap();
    let config = PeerConfig {
        receive: Kind::ALL.to_vec(),
        codecs: vec![Codec::Vp8, Codec::H264, Codec::Opus],
        preferred: vec![],
        ..PeerConfig::default()
    };
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    smol::block_on(async {
        for (name, offer) in OFFERS {
            let healthy = sdp::validate(Sdp::parse(offer).unwrap()).unwrap();
            assert_eq!(offered(&config, healthy).await, "answered", "{name} itself");
            for seed in 0..EACH {
                // The seed identifies a mutant that kills the process.
                let mutant = mutate(offer, &mut fastrand::Rng::with_seed(seed));
                let outcome = match Sdp::parse(&mutant).and_then(sdp::validate) {
                    Ok(sdp) => offered(&config, sdp).await,
                    Err(_) => "refused by us",
                };
                *outcomes.entry(outcome).or_default() += 1;
            }
        }
    });
    eprintln!("{outcomes:?}");
    assert_eq!(outcomes.values().sum::<usize>(), 1000);
    assert!(outcomes["answered"] > 300 && outcomes["refused by us"] > 50, "{outcomes:?}");
}
