// Joins a room, and stays in it while the server is lost.

import { linkToRoom } from "./address.js";
import { clearChat, openChat, showMessage } from "./chat.js";
import { fault, shown } from "./names.js";
import { play } from "./play.js";
import { Room } from "./room.js";
import { $, notice, state, status } from "./view.js";

// Longest wait for the server to admit the page to the room, in ms.
const LIMIT = 30000;
// First and longest pause before another attempt to join a room whose calls are established, in ms.
const REJOIN = 2000;
const LONGEST_REJOIN = 30000;

export class Rooms {
  #app;

  constructor(app) {
    this.#app = app;
    const { signalling } = app;
    signalling.addEventListener("room", ({ detail }) => this.#entered(detail));
    signalling.addEventListener("described", ({ detail }) => app.room?.described(detail));
    signalling.addEventListener("moderator", () => app.room?.moderate());
    signalling.addEventListener("mute", ({ detail }) => this.#mute(detail));
    signalling.addEventListener("move", ({ detail }) => this.#move(detail));
    for (const kind of ["joined", "left"]) signalling.addEventListener(kind, ({ detail }) => app.room?.[kind](detail));
    $("share").onclick = share;
  }

  // Joins a room, after a click. With `asks` it turns camera and microphone on first.
  async join(name, asks = true) {
    const app = this.#app;
    if (app.call || app.room) return;
    notice();
    const room = new Room(app.signalling, name, $("grid"));
    app.room = room;
    room.rejoins = 0;
    room.wait = () => room.isEntered || status(`Waiting for the server; ${shown(name)} is joined as soon as it answers.`);
    state("room");
    status(asks ? "Asking for camera and microphone…" : `Joining ${shown(name)}…`);
    clearChat();
    $("link").value = linkToRoom(name);
    room.addEventListener("play", ({ detail }) => play(detail));
    room.addEventListener("declined", ({ detail }) => notice(`No connection with ${shown(detail.peer)}: ${shown(detail.text, 300)}`));
    room.addEventListener("changed", () => this.#count(room));
    room.addEventListener("channel", () => openChat(true));
    room.addEventListener("message", ({ detail }) => showMessage(detail.text, false, detail.peer));
    if (asks) await app.camera.turnOn();
    if (app.room !== room) return;
    if (app.camera.stream) await room.send(app.camera.stream);
    setTimeout(() => app.room === room && !room.isEntered && this.#stop("The server did not let you in within 30 seconds."), LIMIT);
    room.isWanted = true;
    app.signalling.hurry();
    this.enter();
  }

  // Requests to join the room, at once or as soon as the page is registered.
  enter() {
    const { room, signalling } = this.#app;
    if (!room.isWanted) return;
    if (!signalling.isFree) return room.wait();
    if (!room.isEntered) status(`Joining ${shown(room.name)}…`);
    signalling.join(room.name);
  }

  #entered(peers) {
    const { room, signalling } = this.#app;
    if (!room) return signalling.hangUp();
    room.isEntered = true;
    room.rejoins = 0;
    room.entered(peers);
    this.#count(room);
  }

  refused(words) {
    const { room } = this.#app;
    if (!room.calls.size) return this.#stop(`The server does not let you into ${shown(room.name)}: ${shown(words, 300)}`);
    const pause = Math.min(REJOIN * 2 ** room.rejoins, LONGEST_REJOIN);
    room.rejoins += 1;
    setTimeout(() => this.#app.room === room && this.enter(), pause);
  }

  // Leaves the room for another one, at the request of the server. Camera and microphone stay as they are.
  async #move(name) {
    const app = this.#app;
    if (!app.room || fault(name, "room")) return;
    app.leave();
    app.signalling.hangUp(true);
    await this.join(name, false);
    notice(`The server moved you to ${shown(name)}.`);
  }

  // Mutes what the page sends at the request of a moderator; the user can unmute it.
  #mute({ kind, by }) {
    if (!this.#app.room || !["audio", "video"].includes(kind)) return;
    this.#app.camera.mute(kind);
    notice(`${by ? shown(by) : "The server"} asked for silence: your ${kind === "video" ? "camera is off" : "microphone is muted"}.`);
  }

  #stop(why) {
    const { room, signalling } = this.#app;
    notice(why, { label: "Join again", run: () => this.join(room.name) });
    this.#app.end("You are not in the room");
    signalling.hangUp();
  }

  #count(room) {
    const others = room.calls.size;
    if (this.#app.room !== room || !room.isEntered) return;
    status(`${shown(room.name)}: you and ${others || "nobody"} ${others === 1 ? "other" : others ? "others" : "else yet"}`);
  }
}

async function share() {
  try {
    if (navigator.share) await navigator.share({ title: "roomtone", url: $("link").value });
    else await navigator.clipboard.writeText($("link").value);
    status("The link is copied");
  } catch {
    $("link").select();
  }
}
