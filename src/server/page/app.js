// The page: what is seen, and what the buttons do.

import { Call } from "./call.js";
import { Room } from "./room.js";
import { Signalling } from "./signalling.js";

const $ = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const app = { call: null, room: null, stream: null };
// The call or the room, whichever there is.
const talk = () => app.call ?? app.room;
// For the console.
globalThis.roomtone = app;

const id = query.get("id") ?? String(1000 + Math.floor(Math.random() * 9000));
const signalling = new Signalling(id);
$("my-id").value = id;
$("auto").checked = query.get("answer") === "auto" || localStorage.getItem("auto") === "yes";
$("auto").onchange = () => localStorage.setItem("auto", $("auto").checked ? "yes" : "no");

const state = (name) => (document.body.dataset.state = name);
const status = (text) => ($("status").textContent = text);
function notice(text) {
  $("notice").textContent = text ?? "";
  $("notice").hidden = !text;
}

// The server

let toCall = query.get("call");
let toJoin = query.get("room");
signalling.addEventListener("registered", () => {
  if (talk()) return resume();
  state("lobby");
  status("Ready");
  signalling.listPeers();
  if (toCall) {
    const peer = toCall;
    toCall = null;
    dial(peer);
  } else if (toJoin) {
    join(toJoin);
  }
});
signalling.addEventListener("offline", () => {
  if (talk()) return;
  state("offline");
  status("The server does not answer; trying again…");
});
signalling.addEventListener("taken", () => notice(`The id ${id} is taken. Reload the page for another one.`));
signalling.addEventListener("dismissed", ({ detail }) => {
  toJoin = null;
  end("You are out");
  state("offline");
  notice(`The server sent you away: ${detail}. Reload the page to come back.`);
});
// The server was gone, and the talk goes on: whoever made it makes a new session for it.
function resume() {
  if (app.room) return signalling.join(app.room.name);
  const { call } = app;
  // Not at once: a peer that hung up is noticed first.
  if (call.dialled) setTimeout(() => app.call === call && call.isUp && signalling.dial(call.peer), 2000);
}
signalling.addEventListener("refused", ({ detail }) => {
  if (app.room && app.room.calls.size) return;
  if (app.call?.wasUp) return resume();
  toJoin = null;
  notice(detail.includes("busy") ? "They are in another call." : detail.includes("not found") ? "Nobody of that id is here." : detail);
  end();
});
signalling.addEventListener("peers", ({ detail }) => showPeers(detail));
signalling.addEventListener("gone", async () => {
  const { call, room } = app;
  if (room) return status("The server is gone; trying again…");
  if (!call) return;
  if (call.wasUp && (await call.isAlive())) status(`In a call with ${call.peer}`);
  else if (app.call === call) end("The call is over");
});
setInterval(() => document.visibilityState === "visible" && signalling.listPeers(), 3000);

function showPeers(peers) {
  const list = $("peers");
  const shown = [...list.querySelectorAll("span")].map((span) => span.textContent);
  if (peers.length && peers.join(" ") === shown.join(" ")) return;
  list.replaceChildren(
    ...peers.map((peer) => {
      const item = document.createElement("li");
      const name = document.createElement("span");
      const button = document.createElement("button");
      name.textContent = peer;
      button.textContent = "Call";
      button.setAttribute("aria-label", `Call ${peer}`);
      button.onclick = () => dial(peer);
      item.append(name, button);
      return item;
    }),
  );
  if (!peers.length) {
    const item = document.createElement("li");
    item.className = "empty";
    item.textContent = "Nobody else yet. Open this page on another device, or run a native client.";
    list.append(item);
  }
}

// Calls

async function dial(peer) {
  if (talk()) return;
  notice();
  begin(peer, `Calling ${peer}…`, true);
  await turnOn();
  signalling.dial(peer);
}
$("dial").onsubmit = (event) => {
  event.preventDefault();
  dial($("callee").value.trim());
};

signalling.addEventListener("accepted", () => app.call?.wasUp || app.call?.offer());
signalling.addEventListener("called", async ({ detail }) => {
  if (app.call?.peer === detail) return;
  // Somebody else, in the middle of a call: that session ends.
  if (app.call) return signalling.hangUp();
  notice();
  begin(detail, `${detail} is calling…`);
  if ($("auto").checked) await turnOn();
});
let order = Promise.resolve();
async function take(kind, detail) {
  if (app.room) return app.room.take(kind, detail);
  // A caller that the server did not announce.
  if (!app.call) begin("caller", "Incoming call…");
  const { call } = app;
  await call.ready;
  if (kind === "description") await call.description(detail.message);
  else if (kind === "candidate") await call.candidate(detail.message);
  else await call.offer();
}
for (const kind of ["description", "candidate", "offer-request"]) {
  signalling.addEventListener(kind, ({ detail }) => {
    const before = talk();
    order = order.then(() => take(kind, detail)).catch((error) => {
      if (before === talk()) notice(`The peers do not agree: ${error.message}`);
    });
  });
}

// Rooms

async function join(name) {
  if (talk()) return;
  notice();
  const room = new Room(signalling, name, $("grid"));
  app.room = room;
  state("room");
  status(`Joining ${name}…`);
  $("messages").replaceChildren();
  room.addEventListener("play", ({ detail }) => play(detail));
  room.addEventListener("declined", ({ detail }) => notice(`No connection with ${detail.peer}: ${detail.text}`));
  room.addEventListener("gone", who);
  room.addEventListener("channel", () => chat(true));
  room.addEventListener("message", ({ detail }) => message(detail.text, false, detail.peer));
  const link = new URL(location.href);
  link.search = new URLSearchParams({ room: name });
  $("link").value = link.href;
  await turnOn();
  if (app.stream) await room.send(app.stream);
  signalling.join(name);
}
$("enter").onsubmit = (event) => {
  event.preventDefault();
  toJoin = $("room").value.trim();
  join(toJoin);
};
$("share").onclick = async () => {
  try {
    if (navigator.share) await navigator.share({ title: "roomtone", url: $("link").value });
    else await navigator.clipboard.writeText($("link").value);
    status("The link is copied");
  } catch {
    $("link").select();
  }
};
const who = () => status(`${app.room.name}: you and ${app.room.calls.size || "nobody"} ${app.room.calls.size === 1 ? "other" : app.room.calls.size ? "others" : "else yet"}`);
signalling.addEventListener("room", ({ detail }) => {
  app.room?.entered(detail);
  who();
});
signalling.addEventListener("described", ({ detail }) => app.room?.described(detail));
for (const kind of ["joined", "left"]) {
  signalling.addEventListener(kind, ({ detail }) => {
    if (!app.room) return;
    app.room[kind](detail);
    who();
  });
}

function begin(peer, text, dialled = false) {
  const call = new Call(signalling, peer, { mends: dialled });
  call.dialled = dialled;
  app.call = call;
  state("call");
  status(text);
  $("messages").replaceChildren();
  $("remote").srcObject = call.remote;
  call.addEventListener("track", () => play());
  call.addEventListener("state", ({ detail }) => {
    const texts = { connected: `In a call with ${peer}`, reconnecting: "The connection broke; looking for a new path…" };
    if (texts[detail]) status(texts[detail]);
    if (detail === "failed") {
      notice("No network path to the peer was found. Between two networks a TURN server is usually needed.");
      signalling.hangUp();
    }
  });
  call.addEventListener("declined", ({ detail }) => {
    notice(`${peer} declined: ${detail}`);
    signalling.hangUp();
  });
  for (const gone of ["closed", "lost"]) {
    call.addEventListener(gone, () => {
      if (app.call !== call) return;
      end(gone === "lost" ? "The connection is lost" : "The call is over");
      signalling.hangUp();
    });
  }
  call.addEventListener("channel", () => chat(true));
  call.addEventListener("message", ({ detail }) => message(detail, false));
  if (app.stream) call.ready = call.send(app.stream);
}

function end(text) {
  app.call?.close();
  app.room?.close();
  app.call = app.room = null;
  chat(false);
  delete $("stage").dataset.picture;
  $("remote").srcObject = null;
  $("unblock").hidden = true;
  turnOff();
  state("lobby");
  status(text ?? "Ready");
}

function hangUp() {
  toJoin = null;
  if (!talk()) return;
  end(app.room ? "You left the room" : "The call is over");
  signalling.hangUp();
}

// Sound and picture

$("remote").addEventListener("resize", () => ($("stage").dataset.picture = "yes"));
async function play(video = $("remote")) {
  try {
    await video.play();
    $("unblock").hidden = true;
  } catch (error) {
    // Browsers want a click before they play sound to somebody who sends none.
    if (error.name === "NotAllowedError") $("unblock").hidden = false;
  }
}
$("unblock").onclick = () => document.querySelectorAll("#stage video").forEach((video) => play(video));

const troubles = {
  NotAllowedError: "Camera and microphone are not allowed for this page; the browser's address bar has the setting. The call goes on without them.",
  NotFoundError: "No camera and no microphone was found. The call goes on without them.",
  NotReadableError: "The camera or the microphone is in use by another program. The call goes on without it.",
};

async function capture(constraints) {
  if (!navigator.mediaDevices) {
    throw new DOMException("Browsers give camera and microphone only to pages that came over https or from this machine (127.0.0.1).", "InsecureContext");
  }
  return navigator.mediaDevices.getUserMedia(constraints);
}

const choice = (kind) => {
  const id = $(kind === "video" ? "cameras" : "microphones").value;
  return id ? { deviceId: { exact: id } } : true;
};

async function turnOn() {
  if (app.stream) return;
  let trouble;
  for (const wanted of [["audio", "video"], ["audio"], ["video"]]) {
    try {
      app.stream = await capture(Object.fromEntries(wanted.map((kind) => [kind, choice(kind)])));
      break;
    } catch (error) {
      trouble ??= error;
      if (!["NotFoundError", "NotReadableError", "OverconstrainedError"].includes(error.name)) break;
    }
  }
  if (!app.stream) return notice(troubles[trouble.name] ?? trouble.message);
  document.body.dataset.live = "yes";
  $("local").srcObject = app.stream;
  $("local").toggleAttribute("data-live", app.stream.getVideoTracks().length > 0);
  await pickers();
  await talk()?.send(app.stream);
}

function turnOff() {
  app.stream?.getTracks().forEach((track) => track.stop());
  app.stream = null;
  delete document.body.dataset.live;
  $("local").removeAttribute("data-live");
  $("local").srcObject = null;
  press($("mute"), false, "Mute");
  press($("blind"), false, "Camera off");
}

async function pickers() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  for (const [select, kind] of [[$("cameras"), "video"], [$("microphones"), "audio"]]) {
    const current = app.stream.getTracks().find((track) => track.kind === kind)?.getSettings().deviceId;
    const options = devices.filter((device) => device.kind === `${kind}input`);
    select.replaceChildren(...options.map((device) => new Option(device.label || kind, device.deviceId, false, device.deviceId === current)));
    select.onchange = () => change(kind);
  }
}

async function change(kind) {
  try {
    const [track] = (await capture({ [kind]: choice(kind) })).getTracks();
    for (const old of app.stream.getTracks().filter((old) => old.kind === kind)) {
      track.enabled = old.enabled;
      old.stop();
      app.stream.removeTrack(old);
    }
    app.stream.addTrack(track);
    await talk()?.send(app.stream);
  } catch (error) {
    notice(troubles[error.name] ?? error.message);
  }
}

function press(button, pressed, text) {
  button.setAttribute("aria-pressed", String(pressed));
  button.textContent = text;
}

function toggle(button, kind, on, off) {
  const pressed = button.getAttribute("aria-pressed") !== "true";
  app.stream?.getTracks().filter((track) => track.kind === kind).forEach((track) => (track.enabled = !pressed));
  press(button, pressed, pressed ? off : on);
}

$("media").onclick = turnOn;
$("mute").onclick = () => toggle($("mute"), "audio", "Mute", "Unmute");
$("blind").onclick = () => toggle($("blind"), "video", "Camera off", "Camera on");
$("hang-up").onclick = hangUp;

// Chat

function chat(open) {
  $("text").disabled = $("send").disabled = !open;
}

function message(text, mine, from) {
  const item = document.createElement("li");
  if (from) {
    const name = document.createElement("b");
    name.textContent = from;
    item.append(name);
  }
  item.append(text.slice(0, 4000));
  item.className = mine ? "mine" : "theirs";
  $("messages").append(item);
  if ($("messages").children.length > 500) $("messages").firstChild.remove();
  item.scrollIntoView({ block: "nearest" });
}

$("say").onsubmit = (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (text && talk()?.say(text)) {
    message(text, true);
    $("text").value = "";
  }
};

// Statistics

let before = new Map();
async function showStats() {
  if (!talk() || $("stats").hidden) return;
  const rows = [];
  const rate = (report, bytes) => {
    const key = `${report.peer} ${report.id}`;
    const last = before.get(key);
    before.set(key, { bytes, time: report.timestamp });
    return last ? Math.max(0, Math.round((8 * (bytes - last.bytes)) / (report.timestamp - last.time))) : 0;
  };
  const calls = app.call ? [app.call] : [...app.room.calls.values()];
  const reports = new Map();
  for (const { peer, pc } of calls) {
    (await pc.getStats()).forEach((report) => reports.set(`${peer} ${report.id}`, { ...report, peer, of: (id) => reports.get(`${peer} ${id}`) }));
  }
  const codec = (report) => report.of(report.codecId)?.mimeType.split("/")[1] ?? "";
  reports.forEach((report) => {
    if (report.type === "inbound-rtp") {
      const size = report.frameWidth ? `${report.frameWidth}×${report.frameHeight} ${Math.round(report.framesPerSecond ?? 0)} fps ` : "";
      rows.push([`${report.kind} in`, `${codec(report)} ${size}${rate(report, report.bytesReceived)} kbit/s`]);
      rows.push(["", `${report.packetsLost} lost, jitter ${Math.round(1000 * report.jitter)} ms`]);
    } else if (report.type === "outbound-rtp") {
      const size = report.frameWidth ? `${report.frameWidth}×${report.frameHeight} ${Math.round(report.framesPerSecond ?? 0)} fps ` : "";
      rows.push([`${report.kind} out`, `${codec(report)} ${size}${rate(report, report.bytesSent)} kbit/s`]);
    } else if (report.type === "transport") {
      const pair = report.of(report.selectedCandidatePairId);
      rows.push([app.room ? `round trip ${report.peer}` : "round trip", `${Math.round(1000 * (pair?.currentRoundTripTime ?? 0))} ms`]);
    }
  });
  $("stats").replaceChildren(
    ...rows.flatMap((row) =>
      row.map((text, i) => {
        const cell = document.createElement(i ? "dd" : "dt");
        cell.textContent = text;
        return cell;
      }),
    ),
  );
}
setInterval(showStats, 1000);
$("show-stats").onclick = () => {
  $("stats").hidden = !$("stats").hidden;
  $("show-stats").setAttribute("aria-pressed", String(!$("stats").hidden));
  showStats();
};

setInterval(() => app.room?.listen(), 1000);

// Keys

document.addEventListener("keydown", (event) => {
  if (!talk() || event.ctrlKey || event.altKey || event.metaKey || /INPUT|SELECT/.test(event.target.tagName)) return;
  const button = { m: "mute", c: "blind", s: "show-stats", Escape: "hang-up" }[event.key];
  if (button) $(button).click();
});
window.addEventListener("pagehide", () => {
  talk()?.close();
  signalling.hangUp();
});
