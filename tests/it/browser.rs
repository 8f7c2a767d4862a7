//! Calls between the programs and a real Chromium on the page: both ways, in every role.

use crate::common::browser::{Browser, foreign_page};
use crate::common::hostile::{OFFER, description};
use crate::common::{
    Behind, Client, Program, Proxy, Received, Stage, duration_and_frames, needs, probe, wait_for,
};
use serde_json::json;

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
    needs!(Browser);
    let received = Received::new();
    let (stage, mut host) = Stage::hosting(|host| host.receiving(&received));

    // The page calls, all flows, and the page hangs up.
    let browser = stage.enter("?call=host");
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
    browser.enter(&stage.page("?call=host"));
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

/// A server, and a page on it that is registered as `page`.
fn server_and_page(query: &str) -> (Stage, Browser) {
    let (stage, browser) = (Stage::new(), Browser::start());
    browser.open(&stage.page(&format!("?id=page{query}")));
    if query.contains("answer=auto") {
        browser.press_go();
    }
    browser.wait("document.body.dataset.state === 'lobby' && roomtone.signalling.isFree");
    (stage, browser)
}

fn the_client_calls_the_page(codec: &str, extra: &[&str], expected: &str) {
    let received = Received::new();
    let (stage, browser) = server_and_page("&answer=auto");
    let client = stage.call("page").id("robot").receiving(&received);
    let mut client = client.with(&["--video-codec", codec]).with(extra).start();
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
    needs!(Browser);
    the_client_calls_the_page("vp8", &[], "VP8");
}

#[test]
fn the_client_calls_the_page_in_h264() {
    needs!(Browser);
    the_client_calls_the_page("h264", &[], "H.264");
}

#[test]
fn the_client_lets_the_page_make_the_offer_and_prefers_h264_in_its_answer() {
    needs!(Browser);
    the_client_calls_the_page("h264", &["--request-offer"], "H.264");
}

#[test]
fn a_page_that_shows_nothing_of_itself_can_do_so_later() {
    needs!(Browser);
    let received = Received::new();
    let (stage, browser) = server_and_page("");
    let mut client = stage.call("page").receiving(&received).start();
    client.expect("peer", &[("state", "connected")]);
    browser.expect_moving_and_audible();
    assert_eq!(received.mark(), (0, 0), "nothing is sent before the user agreed");
    browser.click("media");
    received.expect_moving_and_audible((0, 0), 20);
    browser.expect_moving_and_audible();
    client.quit();
    browser.wait("document.body.dataset.state === 'lobby'");
}

#[test]
fn a_page_offers_a_data_channel_first_and_sound_and_picture_second() {
    needs!(Browser);
    let received = Received::new();
    let (stage, mut host) = Stage::hosting(|host| host.receiving(&received));
    // A page of another make, on a page of ours that does nothing by itself.
    let browser = stage.empty_page();
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

/// The demos' page with its defaults, shortened.
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
fn a_page_with_one_kind_alone_rejects_the_other_and_the_call_goes_on() {
    needs!(Browser);
    for (kind, calls) in [("video", true), ("audio", false)] {
        let (stage, received) = (Stage::new(), Received::new());
        let browser = stage.empty_page();
        let mut bob = stage.call_with_foreign_page(&browser, &[kind], calls, &received);
        bob.expect("media", &[("kind", kind)]);
        // The native side offers the missing kind, and the page rejects that m-line.
        browser.wait(
            "globalThis.rejected && pc.currentRemoteDescription.sdp.match(/^m=(audio|video)/gm).length === 2",
        );
        let count =
            |bob: &mut Program, way: &str| bob.stats()[format!("{kind}_frames_{way}")].as_u64().unwrap();
        let in_page = "let n = 0; (await pc.getStats()).forEach((r) => { if (r.type === 'inbound-rtp') n += r.packetsReceived; }); return n;";
        let before = (count(&mut bob, "received"), browser.run(in_page).as_u64().unwrap());
        wait_for("the kind that both have, at both ends", || {
            let now = (count(&mut bob, "received"), browser.run(in_page).as_u64().unwrap());
            (now.0 > before.0 + 20 && now.1 > before.1 + 20).then_some(())
        });
        assert!(bob.all("peer", &[("state", "failed")]).is_empty());
        assert_eq!(browser.run("return errors"), json!([]));
    }
}

/// A page that does not know roomtone keeps its connection, DTLS included, while either side renews the path.
#[test]
fn a_page_of_other_make_restarts_ice_and_keeps_its_connection() {
    needs!(Browser);
    let (stage, received) = (Stage::new(), Received::new());
    let browser = stage.empty_page();
    let mut bob = stage.answer("bob").receiving(&received).ready();
    browser.run(&foreign_page(&["video", "audio"], Some("bob")));
    bob.expect("media", &[("kind", "video")]);
    let transport = "const all = (name) => pc.currentRemoteDescription.sdp.match(new RegExp(`^a=${name}:(.*)$`, 'm'))[1]; \
                     return [all('ice-ufrag'), all('fingerprint')];";
    let in_page = "let n = 0; (await pc.getStats()).forEach((r) => { if (r.type === 'inbound-rtp') n += r.packetsReceived; }); return n;";
    let mut before = browser.run(transport);
    for renewed_by_page in [false, true, false] {
        if renewed_by_page {
            browser.run("await pc.setLocalDescription(await pc.createOffer({ iceRestart: true })); tell();");
        } else {
            bob.say(&json!({"command": "reconnect"}));
        }
        let now = wait_for("new ICE credentials of the native side", || {
            let now = browser.run(transport);
            (now[0] != before[0]).then_some(now)
        });
        assert_eq!(now[1], before[1], "the certificate stays");
        before = now;
        let received = |bob: &mut Program| bob.stats()["video_frames_received"].as_u64().unwrap();
        let start = (received(&mut bob), browser.run(in_page).as_u64().unwrap());
        wait_for("media at both ends", || {
            let now = (received(&mut bob), browser.run(in_page).as_u64().unwrap());
            (now.0 > start.0 + 20 && now.1 > start.1 + 20).then_some(())
        });
    }
    assert!(bob.all("peer", &[("state", "failed")]).is_empty());
    assert_eq!(browser.run("return errors"), json!([]));
}

#[test]
fn what_a_page_sends_is_recorded_as_it_came() {
    needs!(Browser);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    for codec in ["vp8", "h264"] {
        let before = std::time::Instant::now();
        let (stage, mut host) =
            Stage::hosting(|host| host.with(&["--record", folder, "--video-codec", codec]));
        let _browser = stage.enter("?call=host");
        host.expect("recording", &[]);
        let began = std::time::Instant::now();
        wait_for("five seconds of media", || {
            let stats = host.stats();
            let enough = stats["audio_frames_received"].as_u64()? > 250
                && stats["video_frames_received"].as_u64()? > 40;
            enough.then_some(())
        });
        let lasted = began.elapsed().as_secs_f64();
        // Ctrl-C in the middle of it: the file is whole all the same.
        host.interrupt();
        host.expect("ended", &[]);
        let longest = before.elapsed().as_secs_f64();
        let told = host.all("recording", &[]);
        assert_eq!(host.end().0, 130);
        assert!(told.len() == 2 && told[1]["finished"] == true, "{told:?}");
        let file = told[1]["path"].as_str().unwrap().to_owned();
        let probe = probe(&file);
        let (duration, pictures) = duration_and_frames(&probe, codec);
        let fits = (lasted - 1.5..longest).contains(&duration);
        assert!(fits, "{duration} s in the file, {lasted} s in the call, {longest} s with its start and end");
        assert!(pictures > 30, "{probe}");
        assert!(duration_and_frames(&probe, "opus").1 > 150, "{probe}");
    }
}

#[test]
fn over_tls_with_the_certificate_made_here() {
    needs!(Browser);
    let received = Received::new();
    let (stage, mut host) = Stage::hosting(|host| host.receiving(&received));
    let secure = host.expect("listening", &[]);
    let url = secure["url"].as_str().unwrap().to_owned();
    assert!(url.starts_with("https://127.0.0.1:") && stage.link.starts_with("http://127.0.0.1:"));
    assert_eq!(secure["fingerprint"].as_str().unwrap().len(), 95);
    let browser = Browser::start_with(&["--use-fake-ui-for-media-stream", "--ignore-certificate-errors"]);
    browser.enter(&url);
    host.expect("peer", &[("state", "connected")]);
    assert_eq!(browser.run("return location.protocol + isSecureContext"), "https:true");
    received.expect_moving_and_audible((0, 0), 20);
    browser.expect_moving_and_audible();
}

#[test]
fn a_tab_that_closes_ends_the_call_at_once() {
    needs!(Browser);
    let (stage, mut host) = Stage::hosting(|host| host);
    let browser = stage.enter("?call=host");
    host.expect("media", &[("kind", "video")]);
    // The socket stays: only the connection between the two tells.
    browser.run("roomtone.call.pc.close()");
    host.expect("peer", &[("state", "left"), ("reason", "the peer hung up")]);
    // A peer that says nothing any more is looked for on other paths first.
    assert!(!host.has_seen("peer", &[("state", "reconnecting")]));
}

#[test]
fn who_denies_the_camera_is_told_what_to_do_and_still_sees_and_hears() {
    needs!(Browser);
    let (stage, mut host) = Stage::hosting(|host| host);
    let browser = Browser::start_with(&["--deny-permission-prompts"]);
    browser.enter(&stage.page("?call=host"));
    host.expect("peer", &[("state", "connected")]);
    browser.wait(
        "document.querySelector('#notice-text').textContent.startsWith('Camera and microphone are not allowed')",
    );
    browser.expect_moving_and_audible();
    host.say(&json!({"command": "stats"}));
    assert_eq!(host.expect("stats", &[])["bytes_received"], 0);
}

#[test]
fn a_page_from_another_machine_without_tls_is_told_why_there_is_no_camera() {
    needs!(Browser, Address);
    let own = roomtone::server::tls::addresses().into_iter().find(std::net::IpAddr::is_ipv4).unwrap();
    let home = tempfile::tempdir().unwrap();
    let mut host = Client::new(home.path(), &["host", "--plain", "--listen", "0.0.0.0:0"]).start();
    let browser = Browser::start();
    browser.enter(&host.link().replace("127.0.0.1", &own.to_string()));
    host.expect("peer", &[("state", "connected")]);
    assert_eq!(browser.run("return isSecureContext"), false);
    browser
        .wait("document.querySelector('#notice').textContent.includes('only to pages that came over https')");
    browser.expect_moving_and_audible();
}

#[test]
fn the_lobby_shows_who_is_free_and_who_is_busy() {
    needs!(Browser);
    let stage = Stage::new();
    let mut bob = stage.peer("bob");
    let browser = Browser::start();
    browser.open(&stage.page(""));
    let state = |state: &str| {
        format!("document.querySelector('#peers li[data-peer=bob]')?.dataset.state === '{state}'")
    };
    browser.wait(&state("free"));
    bob.say("ROOM attic");
    browser.wait(&state("busy"));
    assert_eq!(browser.run("return document.querySelector('#peers button').disabled"), true);
    bob.close(1000, "");
    browser.wait("!document.querySelector('#peers li[data-peer]')");
    let _bob = stage.peer("bob");
    browser.wait(&state("free"));
}

#[test]
fn the_page_gives_its_next_token_to_the_server() {
    needs!(Browser);
    let secret = "as long as a secret has to be, and longer";
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let token = |seconds: u64| {
        let claims = json!({"sub": "visitor", "exp": now + seconds});
        roomtone::server::token::sign(&claims, &roomtone::protocol::Secret(secret.into())).unwrap()
    };
    let stage = Stage::serving(&["--token-expiry", "enforce"], &[("ROOMTONE_TOKEN_SECRET", secret)]);
    let browser = Browser::start();
    browser.open(&stage.page(&format!("?token={}", token(3600))));
    browser.wait("document.querySelector('#my-id').value === 'visitor'");
    browser.wait("document.body.dataset.state === 'lobby'");
    // As a portal's page of the same origin does.
    let answer = "const portal = new BroadcastChannel('roomtone-token'); \
        portal.onmessage = ({ data }) => { if (data.expires) portal.postMessage({ ...data, token: globalThis.next }); }; \
        globalThis.portal = portal;";
    browser.run(&format!("globalThis.next = '{}'; globalThis.answers = []; {answer}", token(7200)));
    browser.run("roomtone.signalling.addEventListener('token', (event) => globalThis.answers.push(event.detail ?? 'ok'))");
    // The page takes no token that it did not ask for, and none that is meant for another tab.
    browser.run("globalThis.portal.postMessage({ token: 'stray', id: 'visitor', path: '/' })");
    browser.run(
        "globalThis.before = globalThis.portal.onmessage; globalThis.portal.onmessage = ({ data }) => { \
        for (const id of ['other', data.id]) globalThis.before({ data: { ...data, id } }); }",
    );
    browser.run("roomtone.signalling.dispatchEvent(new CustomEvent('token-expires', { detail: 25 }))");
    browser.wait(
        "globalThis.answers.join() === 'ok' && Object.values(sessionStorage).includes(globalThis.next)",
    );
    browser.run("globalThis.good = globalThis.next; globalThis.next = 'nonsense'");
    browser.run("roomtone.signalling.dispatchEvent(new CustomEvent('token-expires', { detail: 25 }))");
    browser.wait("globalThis.answers.length === 2 && globalThis.answers[1].includes('not good')");
    browser.wait("Object.values(sessionStorage).includes(globalThis.good)");
}

/// Tests messages of a caller that the page handles after the end of the call.
#[test]
fn callers_that_leave_at_once_do_not_keep_others_out() {
    needs!(Browser);
    let stage = Stage::new();
    let browser = Browser::start();
    browser.open(&stage.page("?id=page"));
    browser.wait("globalThis.roomtone?.signalling.isFree");
    browser.run(
        "globalThis.callers = 0; roomtone.signalling.addEventListener('called', () => globalThis.callers++)",
    );
    let ice = json!({"ice": {"candidate": "candidate:1 1 udp 2113937151 192.0.2.1 9 typ host", "sdpMLineIndex": 0}});
    for n in 1..=5 {
        let mut brief = wait_for("a session", || {
            let mut caller = stage.peer(&format!("brief{n}"));
            caller.say("SESSION page");
            (caller.hear()? == "SESSION_OK").then_some(caller)
        });
        brief.say(&description("offer", OFFER));
        (0..20).for_each(|_| brief.say(&ice.to_string()));
        drop(brief);
        browser.wait(&format!(
            "globalThis.callers === {n} && roomtone.call === null && roomtone.signalling.isFree"
        ));
    }
    let mut ann = stage.call("page").start();
    ann.expect("peer", &[("peer", "page"), ("state", "connected")]);
}

#[test]
fn the_page_mutes_and_shows_who_is_there() {
    needs!(Browser);
    let received = Received::new();
    let (stage, mut host) = Stage::hosting(|host| host.receiving(&received));
    let browser = Browser::start();
    browser.open(&stage.page("?id=visitor"));
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
fn host_and_page() -> (Stage, Program, Browser, Received) {
    let received = Received::new();
    let (stage, host) = Stage::hosting(|host| host.receiving(&received));
    let browser = stage.enter("?call=host");
    received.expect_moving_and_audible((0, 0), 20);
    (stage, host, browser, received)
}

#[test]
fn a_hundred_collisions_end_well() {
    needs!(Browser);
    let (_stage, mut host, browser, received) = host_and_page();
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
    for ten in 1..=10 {
        browser.wait(&format!("collisions >= {}", 10 * ten));
    }
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
    needs!(Browser);
    let (_stage, mut host, browser, received) = host_and_page();
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
    needs!(Browser);
    let (_stage, mut host, browser, received) = host_and_page();
    browser.wait("!document.querySelector('#text').disabled");
    received.expect_moving_and_audible((0, 0), 30);
    let pid = host.pid();
    // Counts the threads of channels only: the pool for blocking work keeps its threads.
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
    wait_for("the channels' threads to end", || (threads() < before + 30).then_some(()));
    assert!(!host.has_seen("peer", &[("state", "reconnecting")]));
    received.expect_moving_and_audible(received.mark(), 20);
    chat_both_ways(&browser, &mut host);
}

/// Counts how often the page asks for camera and microphone.
const COUNT_CAPTURES: &str = "globalThis.captures = 0;
    const get = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = (...what) => { captures += 1; return get(...what); };";

#[test]
fn a_link_turns_nothing_on_before_a_click() {
    needs!(Browser);
    let (stage, browser) = server_and_page("");
    browser.before_pages(COUNT_CAPTURES);
    // An earlier choice to answer calls on this page must not turn anything on either.
    browser.run("localStorage.setItem('auto', 'yes')");
    let mut spy = stage.peer("spy");
    for (query, label) in
        [("call=spy", "Call spy"), ("room=attic", "Join attic"), ("answer=auto", "Answer calls")]
    {
        browser.open(&stage.page(&format!("?id=page&{query}")));
        browser.wait("roomtone.signalling.isFree && !document.querySelector('#go').disabled");
        assert_eq!(browser.run("return document.querySelector('#go').textContent"), label);
        // A caller meanwhile receives nothing.
        let mut eve = stage.peer("eve");
        eve.say("SESSION page");
        eve.expect("SESSION_OK");
        assert_eq!(eve.hear(), None);
        browser.wait("roomtone.signalling.isFree");
        let now = browser.run("return [captures, roomtone.call, roomtone.room, document.body.dataset.state]");
        assert_eq!(now, json!([0, null, null, "prepare"]), "{query}");
    }
    // Only the user sees the preview; the button then starts the call.
    browser.open(&stage.page("?id=page&call=spy"));
    browser.click("look");
    browser.wait("document.querySelector('#preview').videoWidth > 0");
    assert_eq!(browser.run("return [captures, roomtone.call]"), json!([1, null]));
    browser.press_go();
    assert!(spy.hear().is_some_and(|offer| offer.contains("a=sendrecv")), "an offer with a picture");
    assert_eq!(browser.run("return captures"), 1);
}

#[test]
fn names_of_links_are_shown_as_they_are_and_explained_where_they_cannot_be() {
    needs!(Browser);
    let (stage, browser) = server_and_page("");
    let text =
        |id: &str| browser.run(&format!("return document.querySelector('#{id}').innerText")).to_string();
    browser.open(&stage.page("?room=%3Cb%3Ebold%3C/b%3E"));
    assert_eq!(text("prepare-name"), "\"<b>bold</b>\"");
    for (query, why) in [
        ("call=a%20b", "An id may hold no blanks. Choose one without, such as “a-b”."),
        ("call=abc%E2%80%AEcba", "An id may hold no invisible characters."),
        (
            &format!("room={}", "x".repeat(257)),
            "The name of a room may hold 256 bytes, and this one has 257.",
        ),
        (
            &format!("room={}", "%C3%A4".repeat(129)),
            "The name of a room may hold 256 bytes, and this one has 258.",
        ),
        ("room=session", "A room may not be called “session”."),
        ("room=", "The name of a room may not be empty."),
    ] {
        browser.open(&stage.page(&format!("?{query}")));
        assert!(text("prepare-text").contains(why), "{query}: {}", text("prepare-text"));
        assert_eq!(browser.run("return document.querySelector('#go').hidden"), true);
        let shown = text("prepare-name");
        assert!(shown.chars().count() <= 82 && !shown.contains('\u{202e}'), "{shown}");
    }
    // Invalid ids of the page itself, and invalid names in its forms.
    browser.open(&stage.page("?id=a%20b"));
    browser.wait("document.querySelector('#notice').innerText.includes('An id may hold no blanks') && roomtone.signalling.isFree");
    for (field, form) in [("callee", "dial"), ("room", "enter")] {
        let fill = format!(
            "document.querySelector('#{field}').value = 'y'.repeat(300); document.querySelector('#{form}').requestSubmit()"
        );
        browser.run(&fill);
        browser.wait("document.querySelector('#notice').innerText.includes('this one has 300')");
        assert_eq!(browser.run("return [roomtone.call, roomtone.room]"), json!([null, null]));
    }
}

#[test]
fn a_token_leaves_the_address_and_the_page_says_where_one_is_missing() {
    needs!(Browser);
    let secret = "as long as a secret has to be, and longer";
    let stage = Stage::serving(&[], &[("ROOMTONE_TOKEN_SECRET", secret)]);
    let token = |until: u64| {
        let claims = json!({"exp": until, "sub": "ann"});
        roomtone::server::token::sign(&claims, &roomtone::protocol::Secret(secret.to_owned())).unwrap()
    };
    let browser = Browser::start();
    let notice = |words: &str| {
        browser.wait(&format!("document.querySelector('#notice').innerText.includes('{words}')"))
    };
    browser.open(&stage.page("?room=attic"));
    notice("You need an invitation");
    assert_eq!(browser.run("return document.body.dataset.state"), "locked");
    browser.open(&stage.page(&format!("?token={}", token(1))));
    notice("Your invitation has ended");
    browser.open(&stage.page(&format!("?room=attic&token={}", token(4_000_000_000))));
    for _ in 0..2 {
        browser.wait("roomtone.signalling.isFree");
        assert_eq!(
            browser.run("return [location.search, roomtone.signalling.id]"),
            json!(["?room=attic", "ann"])
        );
        // The session storage keeps the token over a reload.
        browser.reload();
        browser.wait("globalThis.roomtone");
    }
    browser.press_go();
    browser.wait("document.querySelector('#status').textContent.startsWith('attic: you and nobody')");
    assert_eq!(browser.run("return document.querySelector('#link').value"), stage.page("?room=attic"));
}

/// Makes ticks four times as frequent, and timeouts of 20 s or more ten times as short.
const HURRY: &str = "globalThis.Worker = undefined;
    const [every, after] = [setInterval.bind(globalThis), setTimeout.bind(globalThis)];
    globalThis.setInterval = (f, ms) => every(f, ms === 1000 ? 250 : ms);
    globalThis.setTimeout = (f, ms) => after(f, ms >= 20000 ? ms / 10 : ms);";

#[test]
fn a_page_in_a_call_behind_a_proxy_notices_a_dead_path_and_the_call_goes_on() {
    needs!(Browser);
    let (stage, received) = (Stage::new(), Received::new());
    let proxy = Proxy::start("/deep/down/", Behind::Server(stage.address()));
    let mut bob = stage.answer("bob").receiving(&received).ready();
    let browser = Browser::start();
    browser.before_pages(HURRY);
    browser.enter(&format!("{}?id=page&call=bob", proxy.link()));
    bob.expect("peer", &[("state", "connected")]);
    received.expect_moving_and_audible((0, 0), 20);
    browser.run("globalThis.before = roomtone.call.pc");
    let sockets = proxy.sockets().len();
    proxy.cut();
    wait_for("another connection", || (proxy.sockets().len() > sockets).then_some(()));
    // The server gave the dead connection's id to the new one, and the page requested a new session for the same
    // call.
    bob.expect("registered", &[]);
    browser.wait("roomtone.call?.isInSession && roomtone.call.pc === before");
    received.expect_moving_and_audible(received.mark(), 20);
    browser.expect_moving_and_audible();
}

#[test]
fn who_is_called_while_the_server_is_away_is_called_later_and_nothing_rings_for_ever() {
    needs!(Browser);
    let stage = Stage::new();
    let there = || Behind::Server(stage.address());
    let proxy = Proxy::start("/", there());
    let mut bob = stage.peer("bob");
    let browser = Browser::start();
    let has = |id: &str, words: &str| {
        browser.wait(&format!("document.querySelector('#{id}').innerText.includes('{words}')"))
    };
    let dial =
        "document.querySelector('#callee').value = 'bob'; document.querySelector('#dial').requestSubmit()";
    let away = || {
        proxy.put(Behind::Nobody);
        browser.run("roomtone.signalling.again()");
        browser.run(dial);
        has("status", "Waiting for the server; bob is called as soon as it answers");
    };
    browser.open(&format!("{}?id=page", proxy.link()));
    browser.wait("roomtone.signalling.isFree");
    away();
    proxy.put(there());
    assert!(bob.hear().is_some_and(|offer| offer.contains("offer")));
    browser.click("hang-up");

    // A proxy's 403 is not a refusal by the server, which admitted the page before.
    proxy.put(Behind::Answers(403));
    let before = proxy.sockets().len();
    browser.run("roomtone.signalling.again()");
    wait_for("more connections", || (proxy.sockets().len() >= before + 3).then_some(()));
    proxy.put(there());
    browser.wait("roomtone.signalling.isFree");

    // First a peer never answers, then the server.
    let mut bob = stage.peer("bob");
    browser.before_pages(HURRY);
    browser.enter(&format!("{}?id=page&call=bob", proxy.link()));
    has("notice", "bob did not answer within 30 seconds");
    while bob.hear().is_some() {}
    browser.wait("roomtone.signalling.isFree && document.body.dataset.state === 'lobby'");
    away();
    has("notice", "The server did not answer within 30 seconds");
}

#[test]
fn a_page_comes_back_ever_more_slowly_to_a_server_that_closes() {
    needs!(Browser);
    let stage = Stage::new();
    let address = stage.address();
    for lines in [&[][..], &["HELLO"], &["HELLO", "SESSION_FROM eve"], &["HELLO", "ROOM_OK "]] {
        let proxy = Proxy::start("/", Behind::Says(address, lines));
        let browser = Browser::start();
        browser.open(&proxy.link());
        let times = wait_for("five connections", || Some(proxy.sockets()).filter(|times| times.len() >= 5));
        // The nominal pauses double from one to the next, and chance subtracts up to a half of each: without growth, the
        // four pauses last 2 s at most. A busy machine moves single connections.
        let pauses: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        let (least, all) = (0.25 + 0.5 + 1.0 + 2.0, (times[4] - times[0]).as_secs_f64());
        assert!(all >= least - 0.25, "{lines:?}: {pauses:?}");
    }
}

#[test]
fn the_page_and_the_server_take_the_same_ids() {
    needs!(Browser);
    let (_stage, browser) = server_and_page("");
    let refused = browser.run(
        "const { fault } = await import('/names.js');
         const refused = [];
         for (let code = 0; code < 0xe2000; code += 1) {
             if (code === 0xd800) code = 0xe000;
             if (code === 0x20000) code = 0xe0000;
             if (fault(`a${String.fromCodePoint(code)}b`)) refused.push(code);
         }
         return refused;",
    );
    let refused: Vec<u32> = serde_json::from_value(refused).unwrap();
    // All planes that contain characters of these kinds.
    let all = (0..0x2_0000).chain(0xe_0000..0xe_2000).filter_map(char::from_u32);
    let odd = |c: &char| format!("a{c}b").parse::<roomtone::protocol::PeerId>().is_err();
    assert_eq!(refused, all.filter(odd).map(u32::from).collect::<Vec<_>>());
}

/// Tests the page's pure modules on virtual time.
#[test]
fn the_pages_rules_hold_on_any_time_and_chance() {
    needs!(Browser);
    let (_stage, browser) = server_and_page("");
    let worst = browser.run(BACKOFF_RUNS);
    assert!(worst["quarter"].as_u64().unwrap() <= 9 && worst["minute"].as_u64().unwrap() <= 14, "{worst}");
    assert!(worst["longest"].as_f64().unwrap() <= 15_000.0, "{worst}");
    assert_eq!(worst["grown"], json!([500, 1000, 2000, 4000, 8000, 15000, 15000, 15000, 15000]));
    assert_eq!(worst["after"], json!([500, 0, 1000]));
    let watched = browser.run(
        "const { Watch } = await import('/watch.js');
         const watch = new Watch(), said = [];
         for (let second = 1; second <= 40; second += 1) said.push(watch.tick());
         watch.heard();
         const after = watch.tick();
         watch.doubt();
         const doubted = [1, 2, 3, 4, 5].map(() => watch.tick());
         return [said.map((what, at) => what && [what, at + 1]).filter(Boolean), after ?? null, doubted.map((what) => what ?? null)];",
    );
    assert_eq!(watched[0], json!([["ask", 15], ["ask", 30], ["dead", 40]]));
    assert_eq!((&watched[1], &watched[2]), (&json!(null), &json!([null, null, null, null, "dead"])));
}

/// Runs the backoff over an hour of virtual time, against servers that close in different ways and users that hang
/// up.
const BACKOFF_RUNS: &str = "
    const { Backoff } = await import('/backoff.js');
    const worst = { quarter: 0, minute: 0, longest: 0 };
    const chances = [() => 0, () => 1, Math.random];
    for (const chance of chances) for (const own of [0, 0.2, 1]) for (const held of [0, 5000, 29999]) {
        const backoff = new Backoff(), times = [];
        for (let now = 0; now < 3600e3;) {
            backoff.began(now);
            times.push(now);
            const stayed = Math.random() < 0.5 ? held : 0;
            now += stayed;
            backoff.ended(stayed);
            const atOnce = Math.random() < own;
            const pause = backoff.pause(now, chance(), atOnce);
            if (own === 0) worst.longest = Math.max(worst.longest, pause);
            now += pause;
        }
        const most = (length) => Math.max(...times.map((from) => times.filter((at) => at >= from && at < from + length).length));
        worst.quarter = Math.max(worst.quarter, most(15000));
        worst.minute = Math.max(worst.minute, most(60000));
    }
    const alone = new Backoff();
    worst.grown = Array.from({ length: 9 }, () => alone.pause(0, 0));
    alone.ended(30000);
    worst.after = [alone.pause(0, 0), alone.pause(0, 0, true), alone.pause(0, 0)];
    return worst;";

#[test]
fn who_hangs_up_is_back_at_once_and_calls_somebody_else() {
    needs!(Browser);
    let (stage, browser) = server_and_page("");
    let is_offer = |line: Option<String>| line.is_some_and(|line| line.contains("offer"));
    let (mut bob, mut cat) = (stage.peer("bob"), stage.peer("cat"));
    let dial = |peer: &str| {
        format!(
            "document.querySelector('#callee').value = '{peer}'; document.querySelector('#dial').requestSubmit();"
        )
    };
    browser.run(&dial("bob"));
    assert!(is_offer(bob.hear()));
    // The user hangs up and dials in the same moment.
    browser.run(&format!("document.querySelector('#hang-up').click(); {}", dial("cat")));
    assert!(is_offer(cat.hear()));
    while bob.hear().is_some() {}
    assert_eq!(browser.run("return roomtone.signalling.id"), "page");
}
