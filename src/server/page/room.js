// A room: a connection with each peer, and a grid of their videos.

import { Call } from "./call.js";
import { shown } from "./names.js";

// The most videos in the grid.
const MOST = 12;
// Time without packets after which a peer counts as gone, in ms, once the server reported that it left.
const SILENCE = 2000;

export class Room extends EventTarget {
  #signalling;
  #grid;
  #stream;
  // Calls whose peers have left the room according to the server.
  #absent = new Set();
  #isClosed = false;
  // Members according to the server.
  #members = new Set();
  calls = new Map();

  constructor(signalling, name, grid) {
    super();
    this.#signalling = signalling;
    this.#grid = grid;
    this.name = name;
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  // Handles the entry into the room: offers to all members. An established connection stays.
  entered(peers) {
    this.#members = new Set(peers);
    for (const peer of this.calls.keys()) if (!peers.includes(peer)) this.left(peer);
    for (const peer of peers) if (!this.#isBack(peer)) this.#open(peer, true).offer();
  }

  joined(peer) {
    this.#members.add(peer);
    if (!this.#isBack(peer)) this.#open(peer, false);
  }

  // Returns whether a connection with that peer is established from before.
  #isBack(peer) {
    const call = this.calls.get(peer);
    if (!call?.wasUp) return false;
    this.#absent.delete(call);
    call.repeat();
    return true;
  }

  // Handles the report that a peer left. The peer may only have lost its server: its call goes on while packets
  // arrive.
  async left(peer) {
    this.#members.delete(peer);
    const call = this.calls.get(peer);
    if (!call || this.#absent.has(call)) return;
    if (call.isUp) {
      this.#absent.add(call);
      await call.silence(SILENCE, () => !this.#absent.has(call) || !call.isUp);
      if (!this.#absent.delete(call)) return;
    }
    if (call === this.calls.get(peer)) this.#remove(peer);
  }

  // Shows the buttons of a moderator on each video.
  moderate() {
    this.#grid.dataset.moderator = "yes";
  }

  // Shows the description of a peer by the server's back end: its `name` under the video.
  described({ peer, description }) {
    const name = this.#tile(peer)?.querySelector("figcaption");
    if (!name) return;
    name.textContent = shown(typeof description?.name === "string" ? description.name : peer);
    name.title = description ? shown(JSON.stringify(description), 500) : "";
  }

  #remove(peer) {
    this.calls.get(peer)?.close();
    this.calls.delete(peer);
    this.#tile(peer)?.remove();
    this.#arrange();
    this.#emit("changed");
  }

  #open(peer, polite) {
    const call = new Call(this.#signalling, peer, { polite, reconnectsFirst: polite });
    this.calls.get(peer)?.close();
    this.calls.set(peer, call);
    const tile = this.#tile(peer) ?? this.#newTile(peer);
    const video = tile.querySelector("video");
    video.srcObject = call.remote;
    call.addEventListener("track", () => this.#emit("play", video));
    call.addEventListener("state", ({ detail }) => (tile.dataset.state = detail));
    for (const end of ["closed", "lost"]) {
      call.addEventListener(end, () => {
        if (this.calls.get(peer) === call) this.#remove(peer);
      });
    }
    call.addEventListener("declined", ({ detail }) => {
      tile.dataset.state = "declined";
      this.#emit("declined", { peer, text: detail });
    });
    call.addEventListener("channel", () => this.#emit("channel"));
    call.addEventListener("message", ({ detail }) => this.#emit("message", { peer, text: detail }));
    if (this.#stream) call.ready = call.send(this.#stream);
    this.#arrange();
    this.#emit("changed");
    return call;
  }

  // Handles a message of a peer. The caller waits for each one, so that candidates do not overtake their description.
  async handle(kind, { from, message }) {
    if (this.#isClosed) return;
    const mayOpen = kind === "description" && this.#members.has(from);
    const call = this.calls.get(from) ?? (mayOpen ? this.#open(from, false) : null);
    await call?.handle(kind, { message });
  }

  async send(stream) {
    this.#stream = stream;
    await Promise.all([...this.calls.values()].map((call) => call.send(stream)));
  }

  // Marks silent peers: a microphone that is on always picks up some noise.
  async listen() {
    for (const [peer, { pc }] of this.calls) {
      let level;
      (await pc.getStats()).forEach((report) => {
        if (report.type === "inbound-rtp" && report.kind === "audio") level = report.audioLevel;
      });
      this.#tile(peer)?.toggleAttribute("data-silent", level === 0);
    }
  }

  say(text) {
    return [...this.calls.values()].filter((call) => call.say(text)).length > 0;
  }

  close() {
    this.#isClosed = true;
    for (const call of this.calls.values()) call.close();
    this.calls.clear();
    this.#grid.querySelectorAll(".tile[data-peer]").forEach((tile) => tile.remove());
    delete this.#grid.dataset.moderator;
    this.#arrange();
  }

  #tile(peer) {
    return this.#grid.querySelector(`.tile[data-peer="${CSS.escape(peer)}"]`);
  }

  #newTile(peer) {
    const tile = document.createElement("figure");
    const video = document.createElement("video");
    const name = document.createElement("figcaption");
    tile.className = "tile";
    tile.dataset.peer = peer;
    video.autoplay = video.playsInline = true;
    video.addEventListener("resize", () => (tile.dataset.picture = "yes"));
    name.textContent = shown(peer);
    tile.append(video, name, this.#controls(peer));
    this.#grid.append(tile);
    return tile;
  }

  // The buttons of a moderator, hidden for others.
  #controls(peer) {
    const controls = document.createElement("div");
    controls.className = "moderation";
    for (const [label, act] of [["Ask to mute", "mute"], ["Remove", "remove"]]) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = label;
      button.dataset.act = act;
      button.onclick = () => this.#signalling[act](peer);
      controls.append(button);
    }
    return controls;
  }

  // Arranges 1, 2, 4, 6, 9 or 12 videos as squarely as the screen allows.
  #arrange() {
    const tiles = [...this.#grid.querySelectorAll(".tile[data-peer]")];
    tiles.forEach((tile, i) => (tile.hidden = i >= MOST));
    const count = Math.min(tiles.length, MOST);
    const wide = this.#grid.clientWidth >= this.#grid.clientHeight;
    const columns = count <= 1 ? 1 : wide ? Math.ceil(Math.sqrt(count)) : count <= 3 ? 1 : count <= 8 ? 2 : 3;
    this.#grid.className = `columns-${columns}`;
    this.#grid.dataset.count = String(tiles.length);
  }
}
