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

export function showPeers(peers, dial) {
  const list = $("peers");
  const before = [...list.querySelectorAll("li[data-peer]")].map((item) => item.dataset.peer);
  if (peers.length && peers.join(" ") === before.join(" ")) return;
  list.replaceChildren(...peers.map((peer) => entry(peer, dial)));
  if (!peers.length) list.append(nobody());
}

function entry(peer, dial) {
  const item = document.createElement("li");
  const name = document.createElement("span");
  const button = document.createElement("button");
  item.dataset.peer = peer;
  name.textContent = shown(peer);
  button.textContent = "Call";
  button.setAttribute("aria-label", `Call ${shown(peer)}`);
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
