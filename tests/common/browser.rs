//! A real Chromium, driven over WebDriver (W3C): the four calls that these tests need.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::{External, PATIENCE, free_port, until, wait_for};

/// Maximum time of Chromium's start, and of any other command of the driver: the first start after a boot reads Chromium
/// from the disk, which may take longer than the 60 s that the driver allows by itself.
const START: Duration = Duration::from_secs(300);

/// Returns a script for a page that does not know roomtone: a single `RTCPeerConnection` for the whole call, m-lines
/// in its own order, and every offer of the other side answered. It calls `peer`, or waits for a call without one. It
/// sends and accepts only `kinds`; m-lines that it rejects have port 0 and no attributes.
pub fn foreign_page(kinds: &[&str], peer: Option<&str>) -> String {
    const PAGE: &str = "
        document.body.innerHTML = '<video id=remote autoplay playsinline></video>';
        const kinds = KINDS, peer = PEER;
        const pc = globalThis.pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
        globalThis.errors = [];
        const remote = new MediaStream();
        document.querySelector('#remote').srcObject = remote;
        pc.ontrack = ({ track }) => remote.addTrack(track);
        const own = await navigator.mediaDevices.getUserMedia({
            audio: kinds.includes('audio'), video: kinds.includes('video') && { width: 320, height: 240 } });
        const ws = new WebSocket(location.href.replace('http', 'ws').replace('health', ''));
        const bare = ({ type, sdp }) => {
            let [session, ...lines] = sdp.split(/^(?=m=)/m);
            const plain = (line) => {
                const [, kind, rest] = /^m=(\\w+) \\d+(.*)\\r\\n/.exec(line);
                if (kind === 'application' || kinds.includes(kind)) return line;
                const mid = /^a=mid:(\\S+)/m.exec(line)[1];
                session = session.replace(new RegExp(`(a=group:BUNDLE.*) ${mid}(?=[ \\r])`), '$1');
                globalThis.rejected = true;
                return `m=${kind} 0${rest}\\r\\n`;
            };
            const all = lines.map(plain).join('');
            return { type, sdp: session + all };
        };
        const tell = globalThis.tell = () => ws.send(JSON.stringify({ sdp: bare(pc.localDescription) }));
        pc.onicecandidate = ({ candidate }) => candidate && ws.send(JSON.stringify({ ice: candidate }));
        const offer = async () => {
            for (const kind of kinds) {
                if (kind === 'application') pc.createDataChannel('label');
                else pc.addTrack(own.getTracks().find((track) => track.kind === kind), own);
            }
            await pc.setLocalDescription();
            tell();
        };
        const answer = async () => {
            for (const transceiver of pc.getTransceivers()) {
                const { kind } = transceiver.receiver.track;
                const track = own.getTracks().find((track) => track.kind === kind);
                if (!track) transceiver.direction = 'inactive';
                else if (!transceiver.sender.track) {
                    transceiver.direction = 'sendrecv';
                    await transceiver.sender.replaceTrack(track);
                }
            }
            await pc.setLocalDescription();
            tell();
        };
        ws.onopen = () => ws.send('HELLO page');
        let last = Promise.resolve();
        const hear = async (data) => {
            if (data === 'HELLO') {
                if (peer) ws.send('SESSION ' + peer);
                globalThis.registered = true;
            } else if (data === 'SESSION_OK') await offer();
            else if (data.startsWith('{')) {
                const { sdp, ice } = JSON.parse(data);
                if (ice) await pc.addIceCandidate(ice);
                else await pc.setRemoteDescription(sdp);
                if (sdp?.type === 'offer') await answer();
            }
        };
        ws.onmessage = ({ data }) => {
            last = last.then(() => hear(data)).catch((error) => errors.push(String(error)));
        };";
    let peer = peer.map_or_else(|| "null".to_owned(), |peer| format!("'{peer}'"));
    PAGE.replace("KINDS", &json!(kinds).to_string()).replace("PEER", &peer)
}

/// Starts a driver (Debian: chromium-driver); returns it and its port.
fn driver() -> (External, u16) {
    // A port that the driver chooses is free for IPv6, and may be taken for IPv4.
    let port = free_port();
    let mut driver = External::start(Command::new("chromedriver").arg(format!("--port={port}")));
    driver.line("was started successfully");
    (driver, port)
}

/// A browser with one page.
pub struct Browser {
    _driver: External,
    session: String,
    agent: ureq::Agent,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Headless, with a camera and a microphone that beeps, permission for both, and without a way to
    /// anything outside.
    pub fn start() -> Self {
        Self::start_with(&["--use-fake-ui-for-media-stream"])
    }

    pub fn start_with(extra: &[&str]) -> Self {
        let (driver, port) = driver();
        let profile = tempfile::tempdir().unwrap();
        let mut args = vec![
            "--headless=new".to_owned(),
            "--no-sandbox".into(),
            "--disable-gpu".into(),
            "--disable-dev-shm-usage".into(),
            "--no-first-run".into(),
            "--disable-background-networking".into(),
            "--disable-component-update".into(),
            "--disable-sync".into(),
            "--disable-quic".into(),
            "--use-fake-device-for-media-stream=fps=15".into(),
            "--autoplay-policy=no-user-gesture-required".into(),
            format!("--user-data-dir={}", profile.path().display()),
        ];
        args.extend(extra.iter().map(|arg| (*arg).to_owned()));
        let config =
            ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(START)).build();
        let mut browser = Self {
            _driver: driver,
            session: format!("http://127.0.0.1:{port}/session"),
            agent: config.new_agent(),
            _profile: profile,
        };
        let start = START.as_millis() as u64;
        let options = json!({"args": args, "binary": "/usr/bin/chromium", "browserStartupTimeout": start});
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options, "acceptInsecureCerts": false,
            "goog:loggingPrefs": {"browser": "ALL"},
            // Scripts that wait for a promise; less by default.
            "timeouts": {"script": PATIENCE.as_millis() as u64},
        }}});
        let id = browser.post("", &capabilities)["sessionId"].as_str().unwrap().to_owned();
        browser.session = format!("{}/{id}", browser.session);
        browser
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let url = format!("{}{path}", self.session);
        let mut response = self.agent.post(url).send_json(body).unwrap();
        let value: Value = response.body_mut().read_json().unwrap();
        assert!(value["value"]["error"].is_null(), "{path}: {value}");
        value["value"].clone()
    }

    /// Opens a page.
    pub fn open(&self, url: &str) {
        self.post("/url", &json!({"url": url}));
    }

    /// Loads the page again, and waits until it is loaded.
    pub fn reload(&self) {
        self.post("/refresh", &json!({}));
    }

    /// Opens a link and presses its button: a link alone starts nothing.
    pub fn enter(&self, url: &str) {
        self.open(url);
        self.press_go();
    }

    /// Presses the button of a link as soon as it is enabled.
    pub fn press_go(&self) {
        self.wait("!document.querySelector('#go').disabled");
        self.click("go");
    }

    /// Runs a script in every later page, before the page's own scripts.
    pub fn before_pages(&self, script: &str) {
        let command = "Page.addScriptToEvaluateOnNewDocument";
        self.post("/goog/cdp/execute", &json!({"cmd": command, "params": {"source": script}}));
    }

    /// Runs a function's body in the page; what it returns, promises awaited.
    pub fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until an expression is true in the page.
    pub fn wait(&self, expression: &str) {
        let script = format!(
            "try {{ const value = {expression}; return [Boolean(value), String(value)] }} catch (error) {{ return [false, String(error)] }}"
        );
        until(expression, PATIENCE, || {
            let value = self.run(&script);
            if value[0] == true { Ok(()) } else { Err(value[1].clone()) }
        });
    }

    /// Clicks on an element as a person would: it must be there to be seen.
    pub fn click(&self, id: &str) {
        let found = self.post("/element", &json!({"using": "css selector", "value": format!("#{id}")}));
        let element = found.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned();
        self.post(&format!("/element/{element}/click"), &json!({}));
    }

    /// Presses a key (WebDriver's code points for those that are no letters).
    pub fn press(&self, key: &str) {
        let keys = json!([{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]);
        self.post("/actions", &json!({"actions": [{"type": "key", "id": "keyboard", "actions": keys}]}));
    }

    /// A picture of the page, PNG in base64.
    pub fn screenshot(&self) -> String {
        let url = format!("{}/screenshot", self.session);
        let value: Value = self.agent.get(url).call().unwrap().body_mut().read_json().unwrap();
        value["value"].as_str().unwrap().to_owned()
    }

    /// Waits for pictures that differ and sound with energy, as the page's own elements have them.
    pub fn expect_moving_and_audible(&self) {
        self.expect_of("document.querySelector('#remote')", "roomtone.call.pc");
    }

    /// The same of one peer of the page's room.
    pub fn expect_of_peer(&self, peer: &str) {
        self.expect_of(
            &format!("document.querySelector('.tile[data-peer={peer}] video')"),
            &format!("roomtone.room.calls.get('{peer}').pc"),
        );
    }

    /// The same of any element and any RTCPeerConnection of the page.
    pub fn expect_of(&self, video: &str, connection: &str) {
        let moving = "
            const video = VIDEO;
            const canvas = document.createElement('canvas');
            canvas.width = 32; canvas.height = 24;
            const paper = canvas.getContext('2d', { willReadFrequently: true });
            const look = () => { paper.drawImage(video, 0, 0, 32, 24); return paper.getImageData(0, 0, 32, 24).data.join(); };
            const pictures = new Set();
            if (!video?.videoWidth) return { different: 0, frames: 0 };
            const first = video.getVideoPlaybackQuality().totalVideoFrames;
            for (let i = 0; i < 40; i++) { pictures.add(look()); await new Promise((r) => setTimeout(r, 50)); }
            return { different: pictures.size, frames: video.getVideoPlaybackQuality().totalVideoFrames - first };"
            .replace("VIDEO", video);
        until("moving pictures in the page", PATIENCE, || {
            let seen = self.run(&moving);
            let count = |name: &str| seen[name].as_u64().unwrap_or(0);
            if count("different") >= 8 && count("frames") >= 10 { Ok(()) } else { Err(seen) }
        });
        let energy = "
            let energy = 0;
            (await CONNECTION.getStats()).forEach((r) => { if (r.type === 'inbound-rtp' && r.kind === 'audio') energy = r.totalAudioEnergy; });
            return energy;"
            .replace("CONNECTION", connection);
        let before = self.run(&energy).as_f64().unwrap_or_default();
        wait_for("sound in the page", || (self.run(&energy).as_f64()? > before + 0.0005).then_some(()));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let ask = |path: &str, body: Value| {
                let asked = self.agent.post(format!("{}/{path}", self.session)).send_json(body);
                asked.map_or_else(
                    |error| error.to_string(),
                    |mut answer| answer.body_mut().read_to_string().unwrap_or_else(|error| error.to_string()),
                )
            };
            let page = ask("execute/sync", json!({"script": PAGE, "args": []}));
            let console = ask("se/log", json!({"type": "browser"}));
            eprintln!("the page: {page}\nits console: {console}");
        }
        let _ = self.agent.delete(&self.session).call();
    }
}

/// Script that describes a page: its address, its text, and the state of the connections that are found.
const PAGE: &str = "
    const state = (pc) => [pc.connectionState, pc.iceConnectionState, pc.signalingState, pc.iceGatheringState].join();
    const calls = [globalThis.roomtone?.call, ...(globalThis.roomtone?.room?.calls?.values() ?? [])];
    const own = [globalThis.pc, ...Object.values(globalThis.page?.connections ?? {})];
    const all = [...calls.map((call) => call?.pc), ...own].filter(Boolean);
    return { address: location.href, data: { ...document.body?.dataset }, text: document.body?.innerText.slice(0, 2000),
             connections: all.map(state), errors: globalThis.errors };";
