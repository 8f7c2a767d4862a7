// The page: connects the events of the server and the buttons with calls and rooms.

import { base, setToken, wanted, wantedId } from "./address.js";
import { Calls } from "./calls.js";
import { Camera } from "./camera.js";
import { onSay, showMessage } from "./chat.js";
import { forgetPeers, onLobby, showPeers, showPresence } from "./lobby.js";
import { fault, shown } from "./names.js";
import { prepare } from "./prepare.js";
import { Rooms } from "./rooms.js";
import { Signalling } from "./signalling.js";
import { onStats } from "./stats.js";
import { $, isState, notice, state, status } from "./view.js";

// Returns a random id, for a page without a given one.
const anyId = () => String(1000 + Math.floor(Math.random() * 9000));
const whyNot = wantedId === null ? undefined : fault(wantedId);
const isChosen = wantedId !== null && !whyNot;

const signalling = new Signalling(isChosen ? wantedId : anyId());
const app = { call: null, room: null, signalling, home, end, leave: leaveCall };
// Returns the call or the room, if there is one.
const current = () => app.call ?? app.room;
app.camera = new Camera((stream) => current()?.send(stream));
const calls = new Calls(app);
const rooms = new Rooms(app);
// For the console.
globalThis.roomtone = app;

// Screens

const showId = () => ($("my-id").value = shown(signalling.id));
showId();
// Request of the link, until the user decides about it.
let link = wanted;
function home(text) {
  if (link) prepare(link, signalling.id, { start, look: () => app.camera.turnOn(), leave });
  else state("lobby");
  status(text);
}

function leave() {
  link = undefined;
  notice();
  app.camera.turnOff();
  home("Ready");
}

async function start(name) {
  const { kind } = link;
  link = undefined;
  if (kind === "call") return calls.dial(name);
  if (kind === "room") return rooms.join(name);
  status("Asking for camera and microphone…");
  notice();
  await app.camera.turnOn();
  leave();
  $("auto").checked = true;
}

// Ends the call or the room; camera and microphone stay as they are.
function leaveCall() {
  current()?.close();
  app.call = app.room = null;
  calls.clear();
}

// Ends the call or the room, and returns to the first screen.
function end(text) {
  leaveCall();
  app.camera.turnOff();
  home(text);
}

function hangUp() {
  if (!current()) return;
  end(app.room ? "You left the room" : "The call is over");
  signalling.hangUp(true);
}

// The server

signalling.addEventListener("registered", () => {
  forgetPeers();
  if (app.room) return rooms.enter();
  if (app.call) return calls.place();
  if (isState("prepare")) status("Ready");
  else if (!isState("lobby")) home("Ready");
  signalling.listPeers();
});
signalling.addEventListener("offline", () => {
  if (current()) return current().wait?.();
  if (isState("lobby")) state("offline");
  status(navigator.onLine ? "The server does not answer; trying again…" : "This device is offline; trying again…");
});
signalling.addEventListener("gone", ({ detail }) => (app.room ? status("The server is gone; trying again…") : calls.gone(detail)));
signalling.addEventListener("refused", ({ detail }) => (app.room ? rooms.refused(detail) : calls.refused(detail)));
signalling.addEventListener("taken", () => {
  if (isChosen) {
    status("The id is taken; trying again…");
    return notice(`The id ${shown(signalling.id)} is in use, perhaps in another tab. Close that one, or open this page with another id.`);
  }
  signalling.id = anyId();
  showId();
});
signalling.addEventListener("locked", ({ detail }) => {
  const run = () => {
    status("Connecting to the server…");
    signalling.again();
  };
  notice(detail, { label: "Try again", run });
  if (app.call?.wasUp || app.room?.isEntered) return;
  if (current()) end();
  else app.camera.turnOff();
  state("locked");
  status("Not let in");
});
signalling.addEventListener("dismissed", ({ detail }) => {
  end("You are out");
  state("locked");
  notice(`The server sent you away: ${shown(detail, 300)}. Reload the page to come back.`);
});
// Another page of this origin, such as the portal's, answers with the next token: { token, id, path }. All tabs hear the answer;
// it is meant for the tab with this id and path, while that tab's own question is open.
const tokens = new BroadcastChannel("roomtone-token");
const tab = () => ({ id: signalling.id, path: base.pathname });
let isAsking = false;
// Token that the server has not judged yet.
let next;
signalling.addEventListener("token-expires", ({ detail }) => {
  isAsking = true;
  tokens.postMessage({ expires: detail, ...tab() });
  notice(`Your invitation ends in ${detail} seconds.`);
});
tokens.onmessage = ({ data }) => {
  if (typeof data?.token !== "string" || /\s/.test(data.token)) return;
  if (!isAsking || data.id !== tab().id || data.path !== tab().path) return;
  isAsking = false;
  if (signalling.renewToken(data.token)) next = data.token;
  else setToken(data.token);
};
signalling.addEventListener("token", ({ detail }) => {
  if (!detail && next) setToken(next);
  next = undefined;
  notice(detail && `Your next invitation is not valid: ${shown(detail, 300)}`);
});
signalling.addEventListener("peers", ({ detail }) => {
  const watched = showPeers(detail, (peer) => calls.dial(peer));
  if (watched) signalling.watch(watched);
});
signalling.addEventListener("presence", ({ detail }) => showPresence(detail, (peer) => calls.dial(peer)));
// The list names the peers that are new; news about those on it comes by itself.
setInterval(() => document.visibilityState === "visible" && signalling.listPeers(), 3000);

// Queue of the peers' messages: they are handled in order, so that candidates do not overtake their description. Each is for
// the call or room of its arrival.
let order = Promise.resolve();
for (const kind of ["description", "candidate", "offer-request"]) {
  signalling.addEventListener(kind, ({ detail }) => {
    const receiver = current();
    order = order.then(() => receiver?.handle(kind, detail)).catch((error) => {
      if (receiver === current()) notice(`The negotiation with the peer failed: ${shown(error.message, 300)}`);
    });
  });
}

// Buttons and keys

onLobby({ dial: (peer) => calls.dial(peer), join: (name) => rooms.join(name) });
onSay((text) => current()?.say(text));
onStats(() => (app.call ? [app.call] : [...(app.room?.calls.values() ?? [])]), () => Boolean(app.room));
setInterval(() => app.room?.listen(), 1000);
$("media").onclick = () => app.camera.turnOn();
$("hang-up").onclick = hangUp;
document.addEventListener("keydown", (event) => {
  if (event.repeat || !current() || event.ctrlKey || event.altKey || event.metaKey || /INPUT|SELECT/.test(event.target.tagName)) return;
  const button = { m: "mute", c: "blind", s: "show-stats", Escape: "hang-up" }[event.key];
  if (button) $(button).click();
});
addEventListener("pagehide", () => {
  current()?.close();
  signalling.close();
});
// A browser may restore the page from its cache after the page left: it starts again then.
addEventListener("pageshow", ({ persisted }) => persisted && location.reload());

if (link) home("Connecting to the server…");
if (whyNot) notice(`The id in this link cannot be used. ${whyNot} You are ${signalling.id} instead.`);
