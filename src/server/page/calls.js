// Calls of two: places, accepts and ends them, and keeps them while the server is lost. Every wait has a time limit
// and a message.

import { Call } from "./call.js";
import { clearChat, openChat, showMessage } from "./chat.js";
import { shown } from "./names.js";
import { play } from "./play.js";
import { $, isState, notice, state, status } from "./view.js";

// Time for the peer to answer, and then for a path to be found, in ms: the same as in the native clients.
const LIMIT = 30000;
// Time without packets after which a peer counts as gone, in ms: when the server reported its end, and when the
// server itself is lost.
const SILENCE = 2000;
const SILENCE_WITHOUT_SERVER = 6000;
// First and longest pause before a new session for an established call, in ms. The first is longer than the detection
// of a peer that died takes.
const RESUME = 3000;
const LONGEST_RESUME = 30000;

const NO_PATH = "No network path to the peer was found. Between two networks a TURN server is usually needed.";

export class Calls {
  #app;

  constructor(app) {
    this.#app = app;
    const { signalling } = app;
    signalling.addEventListener("accepted", () => this.#accepted());
    signalling.addEventListener("called", ({ detail }) => this.#called(detail));
  }

  // Calls a peer, after a click.
  async dial(peer) {
    const app = this.#app;
    if (app.call || app.room) return;
    notice();
    const call = this.#begin(peer, "Asking for camera and microphone…", true);
    await app.camera.turnOn();
    if (app.call !== call) return;
    this.#limit(call);
    call.isWanted = true;
    app.signalling.hurry();
    this.place();
  }

  // Requests the call from the server, at once or as soon as the page is registered.
  place() {
    const { call, signalling } = this.#app;
    if (call.wasUp) return this.#resume(call);
    if (!call.isWanted) return;
    if (!signalling.isFree) return call.wait();
    status(`Calling ${shown(call.peer)}…`);
    signalling.dial(call.peer);
  }

  #accepted() {
    const { call } = this.#app;
    if (!call) return this.#app.signalling.hangUp();
    call.isInSession = call.isPlaced = true;
    call.resumes = 0;
    if (call.wasUp) return call.repeat();
    // The connection has an offer from an earlier session: a fresh connection replaces it.
    if (call.pc.localDescription) call.renew();
    call.offer();
  }

  async #called(peer) {
    const app = this.#app;
    if (app.call?.peer === peer) {
      app.call.isInSession = true;
      return app.call.wasUp ? app.call.repeat() : undefined;
    }
    // Another caller, during a call or before the user decided: that session is closed.
    if (app.call || app.room || isState("prepare")) return app.signalling.hangUp();
    notice();
    const call = this.#begin(peer, `${shown(peer)} is calling…`);
    call.isInSession = true;
    this.#limit(call);
    if ($("auto").checked) await app.camera.turnOn();
  }

  #begin(peer, text, dialled = false) {
    const app = this.#app;
    const call = new Call(app.signalling, peer, { reconnectsFirst: dialled });
    call.dialled = dialled;
    app.call = call;
    call.resumes = 0;
    call.wait = () => call.wasUp || status(`Waiting for the server; ${shown(peer)} is called as soon as it answers.`);
    state("call");
    status(text);
    clearChat();
    $("remote").srcObject = call.remote;
    call.addEventListener("track", () => play());
    call.addEventListener("state", ({ detail }) => this.#changed(call, detail));
    call.addEventListener("declined", ({ detail }) => this.#stop(call, `${shown(peer)} declined: ${shown(detail, 300)}`));
    call.addEventListener("closed", () => this.#stop(call, undefined, "The call is over"));
    call.addEventListener("lost", () => this.#stop(call, undefined, "The connection is lost"));
    call.addEventListener("channel", () => openChat(true));
    call.addEventListener("message", ({ detail }) => showMessage(detail, false));
    if (app.camera.stream) call.ready = call.send(app.camera.stream);
    return call;
  }

  #changed(call, detail) {
    if (this.#app.call !== call) return;
    if (detail === "connected") {
      status(`In a call with ${shown(call.peer)}`);
      this.#app.signalling.established();
    } else if (detail === "reconnecting") {
      status("The connection broke; looking for a new path…");
    } else if (detail === "failed") {
      this.#stop(call, NO_PATH);
    }
  }

  #stop(call, why, text) {
    if (this.#app.call !== call) return;
    if (why) notice(why, call.dialled ? { label: "Call again", run: () => this.dial(call.peer) } : undefined);
    this.#app.end(text ?? "The call is over");
    this.#app.signalling.hangUp();
  }

  // Ends a call that is not established in time: neither the peer nor the server may ever answer.
  #limit(call, again = true) {
    setTimeout(() => {
      if (this.#app.call !== call || call.wasUp) return;
      const isAnswered = call.pc.remoteDescription !== null;
      if (isAnswered && again) return this.#limit(call, false);
      const silent = call.dialled && !call.isPlaced ? "The server" : shown(call.peer);
      this.#stop(call, isAnswered ? NO_PATH : `${silent} did not answer within ${LIMIT / 1000} seconds.`);
    }, LIMIT);
  }

  // Handles the end of the session: the peer ended it, or the server was lost.
  async gone({ byPeer }) {
    const app = this.#app;
    const { call } = app;
    if (!call) return;
    call.isInSession = false;
    if (!call.wasUp) {
      if (byPeer || !call.dialled) return app.end(`${shown(call.peer)} hung up`);
      return call.wait();
    }
    await call.silence(byPeer ? SILENCE : SILENCE_WITHOUT_SERVER, () => app.call !== call || call.isInSession);
    if (app.call !== call || call.isInSession) return;
    app.end("The call is over");
    app.signalling.hangUp();
  }

  // Requests a new session for a call that goes on after the server was lost. Only the side that dialled does so.
  #resume(call) {
    const { signalling } = this.#app;
    if (!call.dialled) return;
    const pause = Math.min(RESUME * 2 ** call.resumes, LONGEST_RESUME);
    call.resumes += 1;
    setTimeout(() => this.#app.call === call && signalling.isFree && signalling.dial(call.peer), pause);
  }

  refused(words) {
    const { call } = this.#app;
    if (!call) return;
    if (call.wasUp) return this.#resume(call);
    const why = words.includes("busy")
      ? `${shown(call.peer)} is in another call.`
      : words.includes("not found")
        ? `No peer with the id ${shown(call.peer)} is here.`
        : `The server refused this call: ${shown(words, 300)}`;
    this.#stop(call, why);
  }

  // Removes the remains of a call from the screen.
  clear() {
    openChat(false);
    delete $("stage").dataset.picture;
    $("remote").srcObject = null;
    $("unblock").hidden = true;
  }
}
