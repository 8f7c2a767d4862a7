// A room: a connection with each peer, and a grid of their pictures.

import { Call } from "./call.js";

// The most pictures in the grid.
const MOST = 12;

export class Room extends EventTarget {
  #signalling;
  #grid;
  #stream;
  calls = new Map();

  constructor(signalling, name, grid) {
    super();
    this.#signalling = signalling;
    this.#grid = grid;
    this.name = name;
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  // We came in: we offer to everybody who is here.
  entered(peers) {
    for (const peer of peers) this.#open(peer, true).offer();
  }

  joined(peer) {
    this.left(peer);
    this.#open(peer, false);
  }

  left(peer) {
    this.calls.get(peer)?.close();
    this.calls.delete(peer);
    this.#tile(peer)?.remove();
    this.#arrange();
  }

  #open(peer, polite) {
    const call = new Call(this.#signalling, peer, polite);
    this.calls.get(peer)?.close();
    this.calls.set(peer, call);
    const tile = this.#tile(peer) ?? this.#newTile(peer);
    const video = tile.querySelector("video");
    video.srcObject = call.remote;
    call.addEventListener("track", () => this.#tell("play", video));
    call.addEventListener("state", ({ detail }) => (tile.dataset.state = detail));
    call.addEventListener("declined", ({ detail }) => {
      tile.dataset.state = "declined";
      this.#tell("declined", { peer, text: detail });
    });
    call.addEventListener("channel", () => this.#tell("channel"));
    call.addEventListener("message", ({ detail }) => this.#tell("message", { peer, text: detail }));
    if (this.#stream) call.ready = call.send(this.#stream);
    this.#arrange();
    return call;
  }

  // One message after another, so that candidates do not overtake their description.
  async take(kind, { from, message }) {
    let call = this.calls.get(from);
    if (!call) return;
    if (kind === "description" && call.isAnew(message)) call = this.#open(from, false);
    await call.ready;
    if (kind === "description") await call.description(message);
    else if (kind === "candidate") await call.candidate(message);
    else await call.offer();
  }

  async send(stream) {
    this.#stream = stream;
    await Promise.all([...this.calls.values()].map((call) => call.send(stream)));
  }

  // Who is silent: of a microphone that is on, some noise always comes.
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
    for (const call of this.calls.values()) call.close();
    this.calls.clear();
    this.#grid.querySelectorAll(".tile[data-peer]").forEach((tile) => tile.remove());
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
    name.textContent = peer;
    tile.append(video, name);
    this.#grid.append(tile);
    return tile;
  }

  // 1, 2, 4, 6, 9, 12 pictures: as square as the screen lets them be.
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
