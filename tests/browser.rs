//! Calls between the programs and a real Chromium on the page: both ways, in every role.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]
#![cfg(feature = "media")]

mod common;

use common::browser::Browser;
use common::{Program, Received, SMALL, duration_and_frames, probe, ws};
use serde_json::json;

fn args<'a>(first: &[&'a str], rest: &'a [String]) -> Vec<&'a str> {
    first.iter().copied().chain(SMALL).chain(rest.iter().map(String::as_str)).collect()
}

fn chat_both_ways(browser: &Browser, program: &mut Program) {
    browser.wait("!document.querySelector('#text').disabled");
    browser.run("document.querySelector('#text').value = 'from the page'");
    browser.click("send");
    program.expect("message", &[("text", "from the page")]);
    program.say(&json!({"command": "say", "text": "from <b>here</b>"}));
    browser.wait("[...document.querySelectorAll('#messages .theirs')].some((m) => m.textContent === 'from <b>here</b>')");
}

#[test]
fn whoever_opens_the_link_is_in_the_call_again_and_again() {
    let (home, received) = (tempfile::tempdir().unwrap(), Received::new());
    let options = received.options();
    let mut host = Program::start(home.path(), &args(&["host", "--listen", "127.0.0.1:0"], &options));
    let link = host.link();
    let browser = Browser::start();

    // The page calls, all flows, and the page hangs up.
    browser.open(&link);
    host.expect("peer", &[("state", "connected")]);
    let video = host.expect("media", &[("kind", "video")]);
    assert_eq!(video["codec"], "VP8");
    received.expect_moving_and_audible((0, 0), 30);
    browser.expect_moving_and_audible();
    chat_both_ways(&browser, &mut host);
    browser.click("hang-up");
    host.expect("peer", &[("state", "left"), ("reason", "the peer hung up")]);

    // A second call to the same client; this time the client hangs up.
    let mark = received.mark();
    browser.open(&link);
    host.expect("peer", &[("state", "connected")]);
    received.expect_moving_and_audible(mark, 20);
    browser.expect_moving_and_audible();
    host.say(&json!({"command": "hang-up"}));
    host.expect("peer", &[("state", "left"), ("reason", "hung up")]);
    browser.wait("document.body.dataset.state === 'lobby'");

    host.interrupt();
    host.expect("ended", &[("reason", "interrupted")]);
    assert_eq!(host.end().0, 130);
}

/// A server alone, and a page on it that is registered as `page`.
fn server_and_page(home: &std::path::Path, page: &str) -> (Program, String, Browser) {
    let mut server = Program::start(home, &["serve", "--listen", "127.0.0.1:0"]);
    let link = server.link();
    let browser = Browser::start();
    browser.open(&format!("{link}?id=page{page}"));
    browser.wait("document.body.dataset.state === 'lobby'");
    (server, link, browser)
}

fn the_client_calls_the_page(codec: &[&str], extra: &[&str], expected: &str) {
    let (home, received) = (tempfile::tempdir().unwrap(), Received::new());
    let (_server, link, browser) = server_and_page(home.path(), "&answer=auto");
    let server = ws(&link);
    let options = received.options();
    let first: Vec<&str> = ["call", "page", "--id", "robot", "--server", &server]
        .iter()
        .chain(codec)
        .chain(extra)
        .copied()
        .collect();
    let mut client = Program::start(home.path(), &args(&first, &options));
    client.expect("peer", &[("peer", "page"), ("state", "connected")]);
    assert_eq!(client.expect("media", &[("kind", "video")])["codec"], expected);
    received.expect_moving_and_audible((0, 0), 20);
    browser.expect_moving_and_audible();
    let sent = "let codec; const reports = await roomtone.call.pc.getStats(); \
        reports.forEach((r) => { if (r.type === 'inbound-rtp' && r.kind === 'video') codec = reports.get(r.codecId).mimeType; }); return codec;";
    assert_eq!(browser.run(sent), format!("video/{}", expected.replace('.', "")));
    chat_both_ways(&browser, &mut client);
    browser.click("hang-up");
    client.expect("ended", &[("reason", "normally")]);
    assert_eq!(client.end().0, 0);
    browser.wait("document.body.dataset.state === 'lobby'");
}

#[test]
fn the_client_calls_the_page_in_vp8() {
    the_client_calls_the_page(&["--video-codec", "vp8"], &[], "VP8");
}

#[test]
fn the_client_calls_the_page_in_h264() {
    the_client_calls_the_page(&["--video-codec", "h264"], &[], "H.264");
}

#[test]
fn the_client_lets_the_page_make_the_offer_and_prefers_h264_in_its_answer() {
    the_client_calls_the_page(&["--video-codec", "h264"], &["--request-offer"], "H.264");
}

#[test]
fn a_page_that_shows_nothing_of_itself_can_do_so_later() {
    let (home, received) = (tempfile::tempdir().unwrap(), Received::new());
    let (_server, link, browser) = server_and_page(home.path(), "");
    let server = ws(&link);
    let options = received.options();
    let mut client = Program::start(home.path(), &args(&["call", "page", "--server", &server], &options));
    client.expect("peer", &[("state", "connected")]);
    browser.expect_moving_and_audible();
    assert_eq!(received.mark(), (0, 0), "nothing is sent before the user agreed");
    browser.click("media");
    received.expect_moving_and_audible((0, 0), 20);
    browser.expect_moving_and_audible();
    client.say(&json!({"command": "quit"}));
    assert_eq!(client.end().0, 0);
    browser.wait("document.body.dataset.state === 'lobby'");
}

#[test]
fn a_page_offers_a_data_channel_first_and_sound_and_picture_second() {
    let (home, received) = (tempfile::tempdir().unwrap(), Received::new());
    let options = received.options();
    let mut host = Program::start(home.path(), &args(&["host", "--listen", "127.0.0.1:0"], &options));
    let link = host.link();
    let browser = Browser::start();
    // A page of another make, on a page of ours that does nothing by itself.
    browser.open(&link.replace("?call=host", "health"));
    browser.run(FOREIGN_PAGE);
    host.expect("channel", &[("channel", "label")]);
    host.expect("media", &[("kind", "video")]);
    received.expect_moving_and_audible((0, 0), 20);
    browser.expect_moving_and_audible();
    assert_eq!(browser.run("return foreign.offers"), 2);
    host.say(&json!({"command": "say", "text": "hello"}));
    browser.wait("foreign.heard.includes('hello')");
    browser.run("roomtone.call.pc.close(); foreign.ws.close()");
    host.expect("peer", &[("state", "left")]);
}

/// What the demos' page does with its defaults, in short.
const FOREIGN_PAGE: &str = "
    document.body.innerHTML = '<video id=remote autoplay playsinline></video>';
    const pc = new RTCPeerConnection();
    const ws = new WebSocket(location.href.replace('http', 'ws').replace('health', ''));
    globalThis.foreign = { ws, offers: 0, heard: [] };
    globalThis.roomtone = { call: { pc } };
    const remote = new MediaStream();
    document.querySelector('#remote').srcObject = remote;
    pc.ontrack = ({ track }) => remote.addTrack(track);
    pc.onicecandidate = ({ candidate }) => candidate && ws.send(JSON.stringify({ ice: candidate }));
    const channel = pc.createDataChannel('label', null);
    channel.onmessage = ({ data }) => foreign.heard.push(data);
    const offer = async () => {
        foreign.offers += 1;
        await pc.setLocalDescription();
        ws.send(JSON.stringify({ sdp: pc.localDescription }));
    };
    // Taken before the call: a camera that takes its time would have us offer in the page's place.
    const media = navigator.mediaDevices.getUserMedia({ audio: true, video: { width: 320, height: 240 } });
    ws.onopen = async () => (await media) && ws.send('HELLO 4321');
    ws.onmessage = async ({ data }) => {
        if (data === 'HELLO') return ws.send('SESSION host');
        if (data === 'SESSION_OK') return offer();
        const { sdp, ice } = JSON.parse(data);
        if (ice) return pc.addIceCandidate(ice);
        await pc.setRemoteDescription(sdp);
        if (foreign.offers === 1) {
            const stream = await media;
            stream.getTracks().forEach((track) => pc.addTrack(track, stream));
            await offer();
        }
    };";

#[test]
fn what_a_page_sends_is_recorded_as_it_came() {
    let (home, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let folder_name = folder.path().to_str().unwrap().to_owned();
    for (codec, name) in [("vp8", "vp8"), ("h264", "h264")] {
        let options = ["--headless", "--record", &folder_name, "--video-codec", codec].map(str::to_owned);
        let mut host = Program::start(home.path(), &args(&["host", "--listen", "127.0.0.1:0"], &options));
        let link = host.link();
        let browser = Browser::start();
        browser.open(&link);
        host.expect("recording", &[]);
        // Measured in the page's own time: the duration to be found in the file.
        let began = std::time::Instant::now();
        browser.run("await new Promise((r) => setTimeout(r, 5000))");
        let lasted = began.elapsed().as_secs_f64();
        // Ctrl-C in the middle of it: the file is whole all the same.
        host.interrupt();
        let file = host.expect("recording", &[])["path"].as_str().unwrap().to_owned();
        assert_eq!(host.end().0, 130);
        let probe = probe(&file);
        let (duration, pictures) = duration_and_frames(&probe, name);
        assert!((duration - lasted).abs() < 1.5, "{duration} s in the file, {lasted} s in the call");
        assert!(pictures > 30, "{probe}");
        assert!(duration_and_frames(&probe, "opus").1 > 150, "{probe}");
    }
}

#[test]
fn over_tls_with_the_certificate_made_here() {
    let (home, received) = (tempfile::tempdir().unwrap(), Received::new());
    let options = received.options();
    let mut host = Program::start(home.path(), &args(&["host", "--listen", "127.0.0.1:0"], &options));
    let plain = host.link();
    let secure = host.expect("listening", &[]);
    let url = secure["url"].as_str().unwrap().to_owned();
    assert!(url.starts_with("https://127.0.0.1:") && plain.starts_with("http://127.0.0.1:"));
    assert_eq!(secure["fingerprint"].as_str().unwrap().len(), 95);
    let browser = Browser::start_with(&["--use-fake-ui-for-media-stream", "--ignore-certificate-errors"]);
    browser.open(&url);
    host.expect("peer", &[("state", "connected")]);
    assert_eq!(browser.run("return location.protocol + isSecureContext"), "https:true");
    received.expect_moving_and_audible((0, 0), 20);
    browser.expect_moving_and_audible();
}

#[test]
fn a_tab_that_closes_ends_the_call_within_two_seconds() {
    let (home, received) = (tempfile::tempdir().unwrap(), Received::new());
    let options = received.options();
    let mut host = Program::start(home.path(), &args(&["host", "--listen", "127.0.0.1:0"], &options));
    let browser = Browser::start();
    browser.open(&host.link());
    host.expect("media", &[("kind", "video")]);
    // The socket stays: only the connection between the two tells.
    browser.run("roomtone.call.pc.close()");
    let closed = std::time::Instant::now();
    host.expect("peer", &[("state", "left")]);
    assert!(closed.elapsed().as_secs_f64() < 2.0, "{:?}", closed.elapsed());
}

#[test]
fn who_denies_the_camera_is_told_what_to_do_and_still_sees_and_hears() {
    let home = tempfile::tempdir().unwrap();
    let mut host =
        Program::start(home.path(), &args(&["host", "--listen", "127.0.0.1:0", "--headless"], &[]));
    let browser = Browser::start_with(&["--deny-permission-prompts"]);
    browser.open(&host.link());
    host.expect("peer", &[("state", "connected")]);
    browser.wait(
        "document.querySelector('#notice').textContent.startsWith('Camera and microphone are not allowed')",
    );
    browser.expect_moving_and_audible();
    host.say(&json!({"command": "stats"}));
    assert_eq!(host.expect("stats", &[])["bytes_received"], 0);
}

#[test]
fn a_page_from_another_machine_without_tls_is_told_why_there_is_no_camera() {
    let Some(own) = roomtone::server::tls::addresses().into_iter().find(std::net::IpAddr::is_ipv4) else {
        eprintln!("SKIPPED: this machine has no address but loopback");
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let mut host =
        Program::start(home.path(), &args(&["host", "--plain", "--listen", "0.0.0.0:0", "--headless"], &[]));
    let browser = Browser::start();
    browser.open(&host.link().replace("127.0.0.1", &own.to_string()));
    host.expect("peer", &[("state", "connected")]);
    assert_eq!(browser.run("return isSecureContext"), false);
    browser
        .wait("document.querySelector('#notice').textContent.includes('only to pages that came over https')");
    browser.expect_moving_and_audible();
}

#[test]
fn the_page_mutes_and_shows_who_is_there() {
    let (home, received) = (tempfile::tempdir().unwrap(), Received::new());
    let options = received.options();
    let mut host = Program::start(home.path(), &args(&["host", "--listen", "127.0.0.1:0"], &options));
    let link = host.link();
    let browser = Browser::start();
    browser.open(&link.replace("?call=host", "?id=visitor"));
    browser.wait("document.querySelector('#my-id').value === 'visitor'");
    browser.wait("document.querySelector('#peers button')?.getAttribute('aria-label') === 'Call host'");
    // By keyboard alone.
    browser.run("document.querySelector('#peers button').focus()");
    browser.press("\u{e007}");
    host.expect("peer", &[("peer", "visitor"), ("state", "connected")]);
    received.expect_moving_and_audible((0, 0), 20);
    browser.run("document.activeElement.blur()");
    browser.press("m");
    browser.wait("document.querySelector('#mute').getAttribute('aria-pressed') === 'true'");
    received.expect_silence();
    browser.press("m");
    received.expect_moving_and_audible(received.mark(), 10);
    browser.press("s");
    browser.wait("document.querySelector('#stats').textContent.includes('round trip')");
    browser.press("\u{e00c}");
    host.expect("peer", &[("state", "left")]);
}

/// A host, and a page in a call with it.
fn host_and_page() -> (tempfile::TempDir, Program, Browser, Received) {
    let (home, received) = (tempfile::tempdir().unwrap(), Received::new());
    let options = received.options();
    let mut host = Program::start(home.path(), &args(&["host", "--listen", "127.0.0.1:0"], &options));
    let link = host.link();
    let browser = Browser::start();
    browser.open(&link);
    received.expect_moving_and_audible((0, 0), 20);
    (home, host, browser, received)
}

#[test]
fn a_hundred_collisions_end_well() {
    let (_home, mut host, browser, received) = host_and_page();
    // Both offer in the same moment: the page while its request for an offer of ours is on the way.
    browser.run(
        "const send = WebSocket.prototype.send;
         let socket;
         WebSocket.prototype.send = function (data) { socket = this; return send.call(this, data); };
         const { call } = roomtone, { pc } = call;
         pc.onnegotiationneeded = null;
         const description = call.description.bind(call);
         globalThis.collisions = 0;
         let making = false;
         call.description = (what) => {
             if (what.type === 'offer' && (making || pc.signalingState === 'have-local-offer')) collisions += 1;
             return description(what);
         };
         const rest = (ms) => new Promise((done) => setTimeout(done, ms));
         (async () => {
             await call.negotiate();
             for (let round = 0; collisions < 100; round++) {
                 while (pc.signalingState !== 'stable') await rest(2);
                 socket.send('OFFER_REQUEST');
                 await rest(1 + (round % 5));
                 making = true;
                 await call.negotiate();
                 making = false;
                 await rest(25);
             }
             await rest(1000);
             globalThis.finished = true;
         })();",
    );
    browser.wait("globalThis.finished");
    browser.wait("roomtone.call.pc.signalingState === 'stable'");
    assert_eq!(browser.run("return roomtone.call.pc.getTransceivers().length"), 2);
    received.expect_moving_and_audible(received.mark(), 30);
    browser.expect_moving_and_audible();
    chat_both_ways(&browser, &mut host);
    assert!(
        !host.has_seen("peer", &[("state", "reconnecting")])
            && !host.has_seen("peer", &[("state", "failed")])
    );
}

#[test]
fn a_flood_of_messages_and_channels_does_not_disturb_the_call() {
    let (_home, mut host, browser, received) = host_and_page();
    browser.wait("!document.querySelector('#text').disabled");
    browser.run(
        "for (let i = 0; i < 100; i++) roomtone.call.pc.createDataChannel('more' + i);
         for (let i = 0; i < 5000; i++) roomtone.call.say('flood ' + i);
         roomtone.call.say('x'.repeat(60000));",
    );
    received.expect_moving_and_audible(received.mark(), 40);
    browser.expect_moving_and_audible();
    let texts = host.count("message", &[]);
    assert!((100..1500).contains(&texts), "{texts} messages were taken of 5000 in a moment");
    assert!(host.count("channel", &[]) <= 16);
    browser.wait("roomtone.call.say('after the flood')");
    host.expect("message", &[("text", "after the flood")]);
}

#[test]
fn channels_that_come_and_go_leave_nothing_behind() {
    let (_home, mut host, browser, received) = host_and_page();
    browser.wait("!document.querySelector('#text').disabled");
    received.expect_moving_and_audible((0, 0), 30);
    let pid = host.pid();
    // Those of channels; the pool for what blocks keeps as many as it once needed.
    let threads = || {
        let all = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        let names = all.filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok());
        names.filter(|name| !name.starts_with("blocking-")).count()
    };
    let before = threads();
    // Half of them are more than are taken, and closed by the host; numbers that are free again are used again.
    browser.run(
        "window.ended = 0;
         const some = () => {
             for (let i = 0; i < 30; i++) {
                 const channel = roomtone.call.pc.createDataChannel('of many');
                 setTimeout(() => { channel.close(); window.ended++; }, 100);
             }
         };
         for (let i = 0; i < 5; i++) setTimeout(some, 200 * i);",
    );
    browser.wait("window.ended === 150");
    common::wait_for("the channels' threads to end", || (threads() < before + 30).then_some(()));
    assert!(!host.has_seen("peer", &[("state", "reconnecting")]));
    received.expect_moving_and_audible(received.mark(), 20);
    chat_both_ways(&browser, &mut host);
}
