// The lobby: the list of peers, and the forms to call a peer and to join a room.

import { fault, shown } from "./names.js";
import { $, notice } from "./view.js";

// Returns the content of a form's input if it is a valid name; otherwise shows why not.
function named(input, kind) {
  const name = $(input).value.trim();
  const why = fault(name, kind);
  if (!why) return name;
  notice(why);
  $(input).focus();
  return undefined;
}

export function onLobby({ dial, join }) {
  for (const [form, input, kind, act] of [["dial", "callee", "id", dial], ["enter", "room", "room", join]]) {
    $(form).onsubmit = (event) => {
      event.preventDefault();
      const name = named(input, kind);
      if (name) act(name);
    };
  }
}

// Most peers that the page watches.
const WATCHED = 100;

// The peers that the page has seen free, by id: "free" or "busy".
const presence = new Map();

// Handles the list of the peers that are free. Returns the peers to watch if they are others than before.
export function showPeers(free, dial) {
  const before = [...presence.keys()].join(" ");
  for (const [peer, state] of presence) if (state === "free" && !free.includes(peer)) presence.delete(peer);
  for (const peer of free) presence.set(peer, "free");
  render(dial);
  const watched = [...presence.keys()].slice(0, WATCHED);
  return [...presence.keys()].join(" ") === before ? undefined : watched;
}

// Handles news about a peer that the page watches: free, busy or gone.
export function showPresence({ peer, state }, dial) {
  if (state === "free" || state === "busy") presence.set(peer, state);
  else presence.delete(peer);
  render(dial);
}

// Forgets all peers: a new connection watches none.
export function forgetPeers() {
  presence.clear();
}

function render(dial) {
  const list = $("peers");
  const peers = [...presence].sort(([one], [other]) => (one < other ? -1 : 1));
  const before = [...list.querySelectorAll("li[data-peer]")].map((item) => `${item.dataset.peer} ${item.dataset.state}`);
  if (peers.length && peers.map((peer) => peer.join(" ")).join("\n") === before.join("\n")) return;
  list.replaceChildren(...peers.map(([peer, state]) => entry(peer, state, dial)));
  if (!peers.length) list.append(nobody());
}

function entry(peer, state, dial) {
  const item = document.createElement("li");
  const name = document.createElement("span");
  const button = document.createElement("button");
  item.dataset.peer = peer;
  item.dataset.state = state;
  name.textContent = shown(peer);
  button.textContent = state === "free" ? "Call" : "Busy";
  button.disabled = state !== "free";
  button.setAttribute("aria-label", state === "free" ? `Call ${shown(peer)}` : `${shown(peer)} is busy`);
  button.onclick = () => dial(peer);
  item.append(name, button);
  return item;
}

function nobody() {
  const item = document.createElement("li");
  item.className = "empty";
  item.textContent = "Nobody else yet. Open this page on another device, or run a native client.";
  return item;
}
