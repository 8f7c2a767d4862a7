//! The fuzz targets: everything that reads the input of a peer, a server or a file. Each accepts any bytes and asserts
//! the properties that must hold. `fuzz_targets/` runs them with libFuzzer, `tests/it/corpus.rs` with all inputs found so
//! far.

use std::path::Path;
use std::time::Instant;

use roomtone::app::channel::BridgeConfig;
use roomtone::base::net::Network;
use roomtone::base::{files, text as plain};
use roomtone::cli::input::lines::parse;
use roomtone::hub::{Command, ConnId, Hub, Input, Limits, Notice, Owner};
use roomtone::protocol::hello::{ClientMessage, ServerMessage};
use roomtone::protocol::socketio::{self, Packet};
use roomtone::protocol::ssp::{ClientEvent, ServerEvent};
use roomtone::protocol::{Description, IceServer, IceUrl, PeerMessage, SdpKind, Secret};
use roomtone::sdp::fingerprint::Fingerprint;
use roomtone::sdp::{self, CandidateLine, Codec, Kind, Reach, Sdp, payload};
use roomtone::session::{Effect, Negotiation, Output, Terms, terms};

/// A target of that name.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// All of them, under the names of their corpora.
pub(crate) const ALL: [Target; 14] = [
    ("room_line", room_line),
    ("negotiation", negotiation),
    ("sdp", sdp),
    ("candidate", candidate),
    ("hub", hub),
    ("script", script),
    ("ice", ice),
    ("ssp", ssp),
    ("http", http),
    ("token", token),
    ("command", command),
    ("channel", channel),
    ("shown", shown),
    ("rtp", rtp),
];

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// A line of the room protocol, of either side: what is read is written and read again.
pub(crate) fn room_line(bytes: &[u8]) {
    let line = text(bytes);
    if let Ok(message) = ClientMessage::parse(&line) {
        assert_eq!(ClientMessage::parse(&message.to_string()), Ok(message));
    }
    if let Ok(message) = ServerMessage::parse(&line) {
        let again = ServerMessage::parse(&message.to_string());
        assert!(again.is_ok(), "{message:?}");
    }
}

/// The peer's JSON, and the machine that takes it: whatever is said, it comes to rest.
pub(crate) fn negotiation(bytes: &[u8]) {
    let now = Instant::now();
    let mut machine =
        Negotiation::new(Terms::new(bytes.first().is_some_and(|b| b % 2 == 0), vec![Kind::Video]));
    for line in text(bytes).lines().take(50) {
        if let Ok(message) = PeerMessage::parse(line) {
            let again = PeerMessage::parse(&message.to_string());
            assert_eq!(again.as_ref().map(|m| m.to_string()), Ok(message.to_string()));
            machine.handle_peer(now, message);
        }
        let mut steps = 0;
        while let Some(output) = machine.poll_output() {
            steps += 1;
            assert!(steps < 5000, "it does not come to rest");
            let done = match output {
                Output::Effect(Effect::CreateOffer { id, .. } | Effect::CreateAnswer { id, .. }) => {
                    (id, Err("none".into()))
                }
                Output::Effect(Effect::ApplyLocal(id, ..) | Effect::ApplyRemote(id, ..)) => (id, Ok(None)),
                _ => continue,
            };
            machine.handle_result(now, done.0, done.1);
        }
    }
}

/// Fuzzes a description: it is refused, or completed into one that is complete, rewritten for webrtcbin, and declined.
pub(crate) fn sdp(bytes: &[u8]) {
    let Ok(parsed) = Sdp::parse(&text(bytes)) else { return };
    assert_eq!(Sdp::parse(&parsed.to_string()), Ok(parsed.clone()));
    let declined = sdp::decline::decline(&parsed, "no");
    assert!(sdp::decline::reason(&Sdp::parse(&declined.to_string()).expect("our own")).is_some());
    let Ok(normal) = sdp::validate(parsed) else { return };
    assert_eq!(Sdp::parse(&normal.to_string()), Ok(normal.clone()));
    assert_eq!(sdp::validate(normal.clone()), Ok(normal.clone()), "once is enough");
    let _ = Fingerprint::all(&normal);
    let _ = sdp::webrtcbin::Adapter::default().remote(SdpKind::Offer, &normal, &[]);
    let offer = Description { kind: SdpKind::Offer, sdp: normal.to_string() };
    assert!(terms::decline(&offer, "no").is_some());
}

/// Fuzzes the attribute of a candidate: parsing its own text again gives the same candidate, and the rule for
/// addresses holds.
pub(crate) fn candidate(bytes: &[u8]) {
    let text = text(bytes);
    if let Ok(line) = CandidateLine::parse(&text) {
        assert_eq!(CandidateLine::parse(&line.text), Ok(line.clone()));
        let strict = Reach::default().refuses(&line);
        let near = Reach { local: true, allowed: vec![] }.refuses(&line);
        assert!(strict.is_some() || near.is_none(), "what is tried of afar is tried nearby");
        assert!(strict.is_some() || line.is_active || line.port >= 1024 || [80, 443].contains(&line.port));
    }
    let _ = text.parse::<Network>();
}

/// The hub, with any commands of a few connections: it comes to rest, and counts what there is.
pub(crate) fn hub(bytes: &[u8]) {
    let now = Instant::now();
    let mut hub = Hub::new(Limits { rooms: 3, room_size: 3, ..Limits::default() });
    let names = ["ann", "bob", "cat", "dan"];
    // Five sockets, each opened again under a new number.
    let (mut sockets, mut next) = ([None::<ConnId>; 5], 0);
    for step in bytes.chunks_exact(2).take(500) {
        let socket = &mut sockets[usize::from(step[0] % 5)];
        let opens = step[0] / 5 % 9 == 0;
        let Some(conn) = *socket else {
            next += 1;
            *socket = Some(ConnId(next));
            hub.handle_input(now, Input::Opened(ConnId(next), Owner(0)));
            continue;
        };
        if opens {
            continue;
        }
        if step[0] / 5 % 9 == 1 {
            *socket = None;
        }
        let name = names[usize::from(step[1] % 4)];
        let peer = || name.parse().expect("an id");
        let input = match step[0] / 5 % 9 {
            0 | 1 => Input::Closed(conn),
            2 => Input::Alive(conn),
            3 => Input::Command(conn, Command::Register(peer())),
            4 => Input::Command(conn, Command::Call(peer())),
            5 => Input::Command(conn, Command::Join(name.parse().expect("a room"))),
            6 => Input::Command(conn, Command::Send { to: peer(), body: "x".into() }),
            7 => Input::Command(conn, Command::ListRoom),
            _ => Input::Command(conn, Command::Relay("x".into())),
        };
        hub.handle_input(now, input);
        let mut outputs = 0;
        while hub.poll_output().is_some() {
            outputs += 1;
            assert!(outputs < 100, "it does not come to rest");
        }
        let (connections, registered, rooms) = hub.counts();
        assert!(connections <= 5 && registered <= connections && rooms <= 3);
    }
}

/// A script of room-client.
pub(crate) fn script(bytes: &[u8]) {
    if let Err(error) = roomtone::tester::script::Script::parse(&text(bytes)) {
        assert!(error.to_string().starts_with("line "), "{error}");
    }
}

/// STUN and TURN servers, as a server names them.
pub(crate) fn ice(bytes: &[u8]) {
    let text = text(bytes);
    if let Ok(url) = text.parse::<IceUrl>() {
        assert_eq!(url.to_string().parse(), Ok(url));
    }
    for server in IceServer::parse_list(&text).unwrap_or_default() {
        assert!(server.urls.iter().all(|url| url.parse::<IceUrl>().is_ok()));
    }
}

/// Events of a pool, of either side: what is read is written and read again, and the server's edge takes them.
pub(crate) fn ssp(bytes: &[u8]) {
    let Ok(me) = "me".parse() else { return };
    let mut endpoint = roomtone::server::codec::ssp::Endpoint::new(me);
    for line in text(bytes).lines().take(50) {
        if let Ok(event) = ClientEvent::parse(line) {
            assert_eq!(ClientEvent::parse(&event.to_string()), Ok(event));
        }
        if let Ok(event) = ServerEvent::parse(line) {
            let again = ServerEvent::parse(&event.to_string());
            assert!(again.is_ok(), "{event:?}");
        }
        for packet in socketio::split(line).flatten() {
            assert_eq!(Packet::parse(&packet.to_string()), Ok(packet));
        }
        let _ = endpoint.decode(line);
        let id = || "peer".parse();
        for notice in
            [id().map(Notice::PeerJoined), id().map(|from| Notice::From { from, body: line.to_owned() })]
        {
            for told in endpoint.encode(notice.unwrap(), |_| line.into()) {
                assert!(ServerEvent::parse(&told).is_ok(), "{told}");
            }
        }
    }
}

/// Secret of the tokens that the targets sign.
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Fuzzes the head of an HTTP request, and a body of long polling.
pub(crate) fn http(bytes: &[u8]) {
    let text = text(bytes);
    let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
    let _ = roomtone::server::read_head(head, &Secret(SECRET.to_owned()));
    let packets: Vec<Packet> = socketio::split(body).flatten().collect();
    assert!(
        socketio::split(&socketio::join(&packets)).flatten().eq(packets.iter().cloned())
            || packets.is_empty()
    );
}

/// Fuzzes a token: the bytes as they are, or, after a `!`, as claims signed with the right key.
pub(crate) fn token(bytes: &[u8]) {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as base64url;
    let token = match bytes.strip_prefix(b"!") {
        None => text(bytes).into_owned(),
        Some(claims) => {
            let header = base64url.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
            let signed = format!("{header}.{}", base64url.encode(claims));
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
            let tag = ring::hmac::sign(&key, signed.as_bytes());
            format!("{signed}.{}", base64url.encode(tag))
        }
    };
    let head = format!("GET /\nAuthorization: Bearer {token}");
    if roomtone::server::read_head(&head, &Secret(SECRET.to_owned())).is_ok() {
        assert!(bytes.starts_with(b"!") || !token.contains('!'), "nobody knows the secret");
    }
}

/// Fuzzes a line on stdin, of a person and of a program.
pub(crate) fn command(bytes: &[u8]) {
    let line = text(bytes);
    let _ = (parse(&line, true), parse(&line, false));
}

/// Fuzzes a `--channel` option, and the name of a file made from a peer's id.
pub(crate) fn channel(bytes: &[u8]) {
    let text = text(bytes);
    if let Ok(config) = text.parse::<BridgeConfig>() {
        assert!((1..=256).contains(&config.channel.label.len()));
    }
    let (template, id) = text.split_once('\n').unwrap_or(("{peer}.mkv", &text));
    let name = files::name_of(id, files::MAX_NAME);
    assert!(!name.is_empty() && name.len() <= files::MAX_NAME && !name.contains(['/', '.', '\0']), "{name}");
    let path = files::path_for(template, id);
    let depth = |path: &Path| path.to_string_lossy().matches('/').count();
    assert_eq!(depth(&path), depth(Path::new(template)), "an id leads to no other folder");
}

/// Fuzzes foreign text on its way to a person and to a program.
pub(crate) fn shown(bytes: &[u8]) {
    let said = text(bytes);
    let is_plain =
        |text: &str| text.chars().all(|c| !plain::is_invisible(c) || ('\u{fe00}'..='\u{fe0f}').contains(&c));
    assert!(is_plain(&plain::shown(&said)) && is_plain(&plain::brief(&said)));
    assert!(plain::brief(&said).chars().count() <= plain::MAX_SHOWN + 1);
    assert!(is_plain(&plain::shown_lines(&said).replace('\n', "")));
    let json = serde_json::Value::from(&*said).to_string();
    let escaped = plain::escape_json(&json);
    assert!(is_plain(&escaped));
    assert_eq!(serde_json::from_str::<String>(&escaped).ok().as_deref(), Some(&*said));
    let mut pieces = plain::Shown::default();
    let cut = bytes.len() / 2;
    let whole = plain::Shown::default().take(bytes);
    assert_eq!(pieces.take(&bytes[..cut]) + &pieces.take(&bytes[cut..]), whole);
    assert!(is_plain(&whole.replace(['\n', '\t'], "")));
}

/// Fuzzes the check of RTP packets before a depayloader.
pub(crate) fn rtp(bytes: &[u8]) {
    for codec in Codec::ALL {
        let _ = payload::is_sound(codec, bytes);
    }
}
