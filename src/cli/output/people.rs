//! Events as lines of text, for people.

use crate::app::{Event, PeerState};
use crate::base::text::{brief, shown};
#[cfg(feature = "media")]
use crate::media::peer::Stats;

/// Returns an event as a line for people; `None` if it concerns programs only.
pub(super) fn human_line(event: &Event) -> Option<String> {
    Some(match event {
        Event::Listening { url, fingerprint: None } => format!("on this machine   {url}"),
        Event::Listening { url, fingerprint: Some(_) } => format!("from others       {url}"),
        Event::Registered { id, server } => format!("registered as {} at {}", brief(id), brief(server)),
        Event::Room { room, peers } => {
            let peers: Vec<String> = peers.iter().map(|peer| brief(peer)).collect();
            let with = if peers.is_empty() { "nobody else yet".to_owned() } else { peers.join(", ") };
            format!("in the room {}: {with}", brief(room))
        }
        Event::Peer { peer, state, reason } => {
            format!("{}{}", brief(peer), peer_state(*state, reason.as_deref()))
        }
        Event::Media { peer, kind, codec, width, height, first_frame_ms, .. } => {
            let size = match (width, height) {
                (Some(width), Some(height)) => format!(" {width}x{height}"),
                _ => String::new(),
            };
            format!("{}: receives {kind}, {codec}{size}, first frame after {first_frame_ms} ms", brief(peer))
        }
        Event::Described { peer, description } => {
            format!("{} is {}", brief(peer), brief(&description.to_string()))
        }
        Event::Application { name, data } => format!("{}: {}", brief(name), brief(&data.to_string())),
        Event::Channel { peer, channel } => {
            format!("{}: messages can be sent ({}); type: say TEXT", brief(peer), brief(channel))
        }
        Event::Message { peer, text, .. } => format!("{} says: {}", brief(peer), shown(text)),
        transfer @ Event::Transfer { .. } => transfer_line(transfer)?,
        Event::Recording { path, error: Some(error), .. } => {
            format!("the recording {} is not complete: {}", shown(path), brief(error))
        }
        Event::Recording { path, finished: false, .. } => format!("recording to {}", shown(path)),
        Event::Recording { path, finished: true, .. } => format!("recorded {}", shown(path)),
        Event::Sending { kind, what } => format!("{kind}: {}", brief(what)),
        #[cfg(feature = "media")]
        Event::Stats { peer, stats } => format!("{}: {}", brief(peer), stats_line(stats)),
        Event::Setup { peer, step, ms, took_ms } => {
            let with = peer.as_ref().map(|peer| format!("{}: ", brief(peer))).unwrap_or_default();
            let took = took_ms.map(|took| format!(" (took {took:.1} ms)")).unwrap_or_default();
            format!("{ms:8.1} ms  {with}{}{took}", shown(step))
        }
        Event::TokenExpires { seconds } => {
            format!("your token ends in {seconds} s: give the next one with the command 'token'")
        }
        Event::Warning { text } => format!("note: {}", brief(text)),
        Event::Ended { reason } => format!("ended: {}", brief(reason)),
    })
}

/// Returns what follows the name of a peer that is in a new state.
fn peer_state(state: PeerState, reason: Option<&str>) -> String {
    let because = reason.map(|reason| format!(": {}", brief(reason))).unwrap_or_default();
    match state {
        PeerState::Joined => " is here".to_owned(),
        PeerState::Calling => " calls: y answers the call, n declines it".to_owned(),
        PeerState::Declined => format!(": declined{because}"),
        PeerState::Connecting => ": connecting".to_owned(),
        PeerState::Connected => ": connected".to_owned(),
        PeerState::Reconnecting => ": the path is lost, reconnecting".to_owned(),
        PeerState::Left => format!(": the call has ended{because}"),
        PeerState::Failed => format!(": the call failed{because}"),
    }
}

/// Returns the line of a transfer over a data channel; `None` for other events.
fn transfer_line(event: &Event) -> Option<String> {
    let Event::Transfer { peer, channel, sent, received, total, path, finished } = event else { return None };
    let of = total.map(|total| format!(" of {}", bytes(total))).unwrap_or_default();
    let how = match (finished, path) {
        (false, _) => "is open".to_owned(),
        (true, Some(path)) => format!("is saved in {}", shown(path)),
        (true, None) => "is closed".to_owned(),
    };
    let (sent, received) = (bytes(*sent), bytes(*received));
    Some(format!("{}: channel {} {how}, {sent}{of} sent, {received} received", brief(peer), brief(channel)))
}

/// Returns the counters of a connection in one line.
#[cfg(feature = "media")]
fn stats_line(stats: &Stats) -> String {
    let size = stats.width.zip(stats.height).map(|(w, h)| format!(" ({w}x{h})")).unwrap_or_default();
    let round_trip = stats.round_trip_ms.map(|ms| format!(", round trip {ms:.0} ms")).unwrap_or_default();
    let rate = stats.video_kbps.zip(stats.network_kbps);
    let rate = rate.map(|(made, taken)| format!(", {made} of {taken} kbit/s")).unwrap_or_default();
    let path = stats.local_candidate.iter().zip(&stats.remote_candidate);
    let path: String = path.map(|(ours, theirs)| format!(", path {ours} to {theirs}")).collect();
    format!(
        "sent {} video and {} audio frames, received {} video{size} and {} audio frames, \
         {} packets lost{round_trip}{rate}{path}",
        stats.video_frames_sent,
        stats.audio_frames_sent,
        stats.video_frames_received,
        stats.audio_frames_received,
        stats.packets_lost,
    )
}

/// Returns a number of bytes with a unit.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    let scaled = |power: i32| count as f64 / 1000_f64.powi(power);
    let unit = (1..=4).rev().find(|power| scaled(*power) >= 1.0);
    unit.map_or_else(|| format!("{count} bytes"), |p| format!("{:.1} {}", scaled(p), UNITS[p as usize - 1]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use serde_json::Value;

    use super::*;
    use crate::cli::output::json::json_line;

    #[test]
    fn text_of_others_is_escaped_for_the_terminal() {
        let event =
            Event::Message { peer: "a\u{1b}[2J".into(), channel: "c".into(), text: "x\u{7}\r\ny".into() };
        assert_eq!(human_line(&event).unwrap(), "a\\u{1b}[2J says: x\\u{7}\\r\\ny");
    }

    /// Returns each event that contains text of other people, with `text` in each of its fields.
    fn events(text: &str) -> Vec<Event> {
        let said = || text.to_owned();
        let mut events = vec![
            Event::Registered { id: said(), server: said() },
            Event::Room { room: said(), peers: vec![said(), said()] },
            Event::Described { peer: said(), description: serde_json::json!({ text: text }) },
            Event::Application { name: said(), data: serde_json::json!([text]) },
            Event::Channel { peer: said(), channel: said() },
            Event::Message { peer: said(), channel: said(), text: said() },
            Event::Transfer {
                peer: said(),
                channel: said(),
                sent: 1,
                received: 1,
                total: None,
                path: Some(said()),
                finished: true,
            },
            Event::Recording { peer: said(), path: said(), finished: false, error: None },
            Event::Recording { peer: said(), path: said(), finished: true, error: None },
            Event::Setup { peer: Some(said()), step: said(), ms: 1.0, took_ms: None },
            Event::Warning { text: said() },
            Event::Ended { reason: said() },
        ];
        for state in [PeerState::Joined, PeerState::Left, PeerState::Declined, PeerState::Failed] {
            events.push(Event::Peer { peer: said(), state, reason: Some(said()) });
        }
        events
    }

    #[test]
    fn long_texts_of_a_server_are_shortened() {
        for event in events(&"x".repeat(1_000_000)) {
            let is_cut = human_line(&event).unwrap().len() < 2000;
            let is_whole = matches!(
                event,
                Event::Message { .. }
                    | Event::Recording { .. }
                    | Event::Transfer { .. }
                    | Event::Setup { .. }
            );
            assert!(is_cut || is_whole, "{event:.50?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_of_others_contains_control_characters(
            text in "([\\p{Cc}\\p{Cf}\\p{Zl}\\p{Zp}]|.){0,20}",
        ) {
            for event in events(&text) {
                let line = human_line(&event).unwrap();
                prop_assert_eq!(&shown(&line), &line);
                let json = json_line(&event, time::OffsetDateTime::UNIX_EPOCH);
                prop_assert_eq!(&shown(&json), &json);
                let read: Value = serde_json::from_str(&json).unwrap();
                let event = serde_json::to_value(&event).unwrap();
                for (name, value) in event.as_object().unwrap() {
                    prop_assert_eq!(&read[name], value, "{} is the same for programs", name);
                }
            }
        }
    }
}
