// Calls of two: made, taken, kept over a loss of the server, and ended, each with a limit of time and with words.

import { Call } from "./call.js";
import { clearChat, openChat, showMessage } from "./chat.js";
import { shown } from "./names.js";
import { play } from "./play.js";
import { $, isState, notice, state, status } from "./view.js";

// How long a peer may take to answer, and then a path to be found, in ms: the same as of the native clients.
const LIMIT = 30000;
// How long nothing comes of a peer that is gone: where the server said so, and where the server is gone itself, in ms.
const SILENCE = 2000;
const SILENCE_WITHOUT_SERVER = 6000;
// The first and the longest pause before a new session for a call that stands, in ms. The first is longer than a peer
// that died takes to be noticed.
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

  // Calls somebody, after a click.
  async dial(peer) {
    const app = this.#app;
    if (app.call || app.room) return;
    notice();
    const call = this.#begin(peer, "Asking for camera and microphone…");
    call.dialled = true;
    await app.camera.turnOn();
    if (app.call !== call) return;
    this.#limit(call);
    call.isWanted = true;
    app.signalling.hurry();
    this.place();
  }

  // Asks the server for the call, now or as soon as it is there.
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
    if (call.wasUp) return;
    // An offer of a session before this one.
    if (call.pc.localDescription) call.renew();
    call.offer();
  }

  async #called(peer) {
    const app = this.#app;
    if (app.call?.peer === peer) return void (app.call.isInSession = true);
    // Somebody else, in the middle of a call or before the user decided: that session ends.
    if (app.call || app.room || isState("prepare")) return app.signalling.hangUp();
    notice();
    const call = this.#begin(peer, `${shown(peer)} is calling…`);
    call.isInSession = true;
    this.#limit(call);
    if ($("auto").checked) await app.camera.turnOn();
  }

  async take(kind, { message }) {
    const app = this.#app;
    // A caller that the server did not announce.
    if (!app.call) {
      if (isState("prepare")) return app.signalling.hangUp();
      this.#limit(this.#begin("caller", "Incoming call…"));
    }
    const { call } = app;
    await call.ready;
    if (kind === "description") await call.description(message);
    else if (kind === "candidate") await call.candidate(message);
    else await call.offer();
  }

  #begin(peer, text) {
    const app = this.#app;
    const call = new Call(app.signalling, peer);
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
      this.#app.signalling.stands();
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

  // A call that does not come to stand in time ends: a peer may never answer, and so may a server.
  #limit(call, again = true) {
    setTimeout(() => {
      if (this.#app.call !== call || call.wasUp) return;
      const isAnswered = call.pc.remoteDescription !== null;
      if (isAnswered && again) return this.#limit(call, false);
      const silent = call.dialled && !call.isPlaced ? "The server" : shown(call.peer);
      this.#stop(call, isAnswered ? NO_PATH : `${silent} did not answer within ${LIMIT / 1000} seconds.`);
    }, LIMIT);
  }

  // The session is gone: with the peer, or with the server alone.
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

  // The server was gone, and the call goes on: whoever made it makes a new session for it.
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
        ? `Nobody of the id ${shown(call.peer)} is here.`
        : `The server does not take this call: ${shown(words, 300)}`;
    this.#stop(call, why);
  }

  // What a call leaves on the screen.
  clear() {
    openChat(false);
    delete $("stage").dataset.picture;
    $("remote").srcObject = null;
    $("unblock").hidden = true;
  }
}
