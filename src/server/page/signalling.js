// The HELLO/SESSION/ROOM protocol over a WebSocket to the server of this page. The server closes the socket after a call: this
// class registers again by itself, with a backoff after failures.

import { admission } from "./admission.js";
import { socketAddress } from "./address.js";
import { Backoff } from "./backoff.js";
import { everySecond } from "./clock.js";
import { Watch } from "./watch.js";

// Longest time from the start of a connection to its registration, in seconds.
const OPENING = 10;
// Age at which the list of TURN servers is renewed, and interval between the attempts, in ms: TURN credentials expire
// after a day.
const OLD = 12 * 3600 * 1000;
const ASK_AGAIN = 60 * 1000;
// Least interval between requests for the reason of a failed connection, in ms.
const ASK_WHY = 30 * 1000;

export class Signalling extends EventTarget {
  #socket;
  // Phases: closed, opening, registering, lobby, dialling, session, joining, room, and out, which never reconnects by
  // itself.
  #phase = "closed";
  #backoff = new Backoff();
  #watch = new Watch();
  // Timer and due time of the next attempt.
  #timer;
  #due = Infinity;
  // Seconds since the connection was started, and the time of its registration.
  #seconds = 0;
  #registered;
  // Whether the server admitted this page before.
  #wasIn = false;
  // Whether a call was established over this connection.
  #hadCall = false;
  #askedWhy = -Infinity;
  #listed = 0;
  // STUN and TURN servers, as the server names them.
  iceServers = [];

  constructor(id) {
    super();
    this.id = id;
    everySecond(() => this.#tick());
    addEventListener("online", () => this.#online());
    this.#open();
  }

  // Whether the page is registered, and neither in a call nor in a room.
  get isFree() {
    return this.#phase === "lobby";
  }

  #open() {
    clearTimeout(this.#timer);
    this.#due = Infinity;
    this.#seconds = 0;
    this.#hadCall = false;
    this.#phase = "opening";
    this.#watch.heard();
    this.#backoff.began(performance.now());
    const socket = new WebSocket(socketAddress());
    this.#socket = socket;
    const isCurrent = () => socket === this.#socket;
    socket.onopen = () => {
      if (!isCurrent()) return;
      this.#phase = "registering";
      socket.send(`HELLO ${this.id}`);
    };
    socket.onmessage = ({ data }) => isCurrent() && this.#message(String(data));
    socket.onclose = ({ code, reason }) => isCurrent() && this.#closed(code, reason);
  }

  #closed(code, reason) {
    // "Policy violation": the server sent the page away, and refuses it again.
    if (code === 1008) {
      this.#leave("out");
      return this.#emit("dismissed", reason);
    }
    const phase = this.#leave("closed");
    this.#later();
    if (phase === "registering" && reason === "invalid peer uid") this.#emit("taken");
    // The server closes with 1000 if the other side of the call is gone.
    else if (phase === "session" || phase === "room") this.#emit("gone", { byPeer: code === 1000 });
    else this.#emit("offline");
    if (phase === "opening") this.#why();
  }

  // Forgets the socket, whose later events are ignored, enters `phase`, and returns the phase before.
  #leave(phase) {
    const before = this.#phase;
    if (this.#registered !== undefined) this.#backoff.ended(performance.now() - this.#registered);
    if (this.#hadCall) this.#backoff.reset();
    this.#registered = this.#socket = undefined;
    this.#phase = phase;
    clearTimeout(this.#timer);
    this.#due = Infinity;
    return before;
  }

  #later(atOnce = false) {
    const pause = this.#backoff.pause(performance.now(), Math.random(), atOnce);
    if (pause <= 0) return this.#open();
    this.#wait(pause);
  }

  #wait(pause) {
    clearTimeout(this.#timer);
    this.#due = performance.now() + pause;
    this.#timer = setTimeout(() => this.#open(), pause);
  }

  // Gives up the connection without waiting for its end.
  #drop() {
    this.#socket?.close();
    this.#closed(1006, "");
  }

  #tick() {
    if (performance.now() >= this.#due) return this.#open();
    if (this.#phase === "closed" || this.#phase === "out") return;
    this.#seconds += 1;
    if (this.#registered === undefined) {
      if (this.#seconds >= OPENING) this.#drop();
      return;
    }
    const wish = this.#watch.tick();
    if (wish === "dead") this.#drop();
    else if (wish === "ask") this.#socket.send("PING");
    this.#renew();
  }

  #online() {
    this.hurry();
    if (this.#registered === undefined) return;
    this.#watch.doubt();
    this.#socket.send("PING");
  }

  // Asks the server by HTTP why a WebSocket failed: the WebSocket itself gives no reason.
  async #why() {
    if (performance.now() - this.#askedWhy < ASK_WHY) return;
    this.#askedWhy = performance.now();
    const { refused, isFinal, words, seconds } = await admission();
    if (this.#registered !== undefined || this.#phase === "out") return;
    if (seconds && this.#phase === "closed") this.#wait(Math.max(1000 * seconds, this.#due - performance.now()));
    // A page that was admitted once keeps trying, unless the server itself refuses its token.
    if (!refused || (this.#wasIn && !isFinal)) return;
    this.#socket?.close();
    this.#leave("out");
    this.#emit("locked", words);
  }

  async #renew() {
    const now = Date.now();
    if (!this.iceServers.length || now - this.#listed < OLD) return;
    this.#listed = now - OLD + ASK_AGAIN;
    const { iceServers } = await admission();
    if (iceServers) this.#servers(iceServers);
  }

  #servers(list) {
    this.iceServers = list;
    this.#listed = Date.now();
  }

  #message(line) {
    this.#watch.heard();
    if (line === "PONG") return;
    const [word] = line.split(" ", 1);
    const rest = line.slice(word.length + 1);
    // About the page's token, in any phase: the server of the page forwards no line of a peer that begins like these.
    if (word === "TOKEN_EXPIRES") return this.#emit("token-expires", Number(rest));
    if (word === "TOKEN_OK" || word === "TOKEN_REFUSED") return this.#emit("token", word === "TOKEN_OK" ? undefined : rest);
    // In a session, the line could come from the peer.
    if (word === "ICE_SERVERS" && this.#phase !== "session") {
      const servers = parsed(rest);
      return Array.isArray(servers) ? this.#servers(servers) : undefined;
    }
    if (this.#phase === "registering" && word === "HELLO") {
      this.#phase = "lobby";
      this.#wasIn = true;
      this.#registered = performance.now();
      return this.#emit("registered");
    }
    if (this.#phase === "session") return this.#peer(line);
    switch (word) {
      case "SESSION_OK":
        this.#phase = "session";
        return this.#emit("accepted");
      case "SESSION_FROM":
        this.#phase = "session";
        return this.#emit("called", rest);
      case "ROOM_OK":
        this.#phase = "room";
        return this.#emit("room", rest.split(" ").filter(Boolean));
      case "ROOM_PEER_JOINED":
        return this.#emit("joined", rest);
      case "ROOM_PEER_LEFT":
        return this.#emit("left", rest);
      case "ROOM_PEER_DESCRIBED": {
        const [peer] = rest.split(" ", 1);
        return this.#emit("described", { peer, description: parsed(rest.slice(peer.length + 1)) });
      }
      case "ROOM_MODERATOR":
        return this.#emit("moderator");
      case "ROOM_MOVE":
        return this.#emit("move", rest);
      case "MUTE": {
        const [kind, by] = rest.split(" ");
        return this.#emit("mute", { kind, by });
      }
      case "ROOM_PEER_MSG": {
        const [from] = rest.split(" ", 1);
        return this.#peer(rest.slice(from.length + 1), from);
      }
      case "PRESENCE": {
        const [peer, state] = rest.split(" ");
        return this.#emit("presence", { peer, state });
      }
      case "PEER_LIST":
        return this.#emit("peers", rest.split(" ").filter(Boolean));
      case "ERROR":
        if (this.#phase !== "dialling" && this.#phase !== "joining") return console.warn("the server:", rest);
        this.#phase = "lobby";
        return this.#emit("refused", rest);
      default:
        return console.warn("unknown message:", line);
    }
  }

  // Handles a message of a peer, which is named in a room.
  #peer(line, from) {
    if (line === "OFFER_REQUEST") return this.#emit("offer-request", { from });
    const { sdp, ice } = parsed(line) ?? {};
    if (sdp?.type) this.#emit("description", { from, message: sdp });
    else if (ice) this.#emit("candidate", { from, message: ice });
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  dial(peer) {
    this.#phase = "dialling";
    this.#socket.send(`SESSION ${peer}`);
  }

  join(room) {
    this.#phase = "joining";
    this.#socket.send(`ROOM ${room}`);
  }

  listPeers() {
    if (this.isFree) this.#socket.send("PEER_LIST");
  }

  // Hears of these peers from now on, and no longer of those before.
  watch(peers) {
    if (this.isFree) this.#socket.send(["PRESENCE", ...peers].join(" "));
  }

  send(message, to) {
    if (this.#phase === "session") this.#socket.send(JSON.stringify(message));
    else if (this.#phase === "room") this.#socket.send(`ROOM_PEER_MSG ${to} ${JSON.stringify(message)}`);
  }

  // Removes a member from the room, or asks it to mute its audio: the server refuses both unless the token allows them.
  remove(peer) {
    if (this.#phase === "room") this.#socket.send(`ROOM_PEER_REMOVE ${peer}`);
  }

  mute(peer) {
    if (this.#phase === "room") this.#socket.send(`ROOM_PEER_MUTE ${peer} audio`);
  }

  // Shows the server the page's next token; returns whether there is a connection for it.
  renewToken(token) {
    const isIn = this.#registered !== undefined;
    if (isIn) this.#socket.send(`TOKEN ${token}`);
    return isIn;
  }

  // Records that a call over this connection was established: its end is no failure of the server.
  established() {
    this.#hadCall = true;
  }

  // Ends the call by closing the socket; the server informs the peer. The page registers again without waiting for
  // the old socket to close, and at once if the user hung up.
  hangUp(byUser = false) {
    if (!["dialling", "session", "joining", "room"].includes(this.#phase)) return;
    this.#socket.close();
    this.#leave("closed");
    this.#later(byUser);
  }

  // Connects without a pause, because the user requested something of the server.
  hurry() {
    if (this.#phase === "closed") this.#later(true);
  }

  // Connects with another id, or once more after a refusal.
  again(id = this.id) {
    this.id = id;
    this.#socket?.close();
    this.#leave("closed");
    this.#askedWhy = -Infinity;
    this.#later(true);
  }

  // Closes the connection for good: the page is left.
  close() {
    this.#socket?.close();
    this.#leave("out");
  }
}

function parsed(json) {
  try {
    return JSON.parse(json);
  } catch {
    console.warn("a message is not JSON");
    return undefined;
  }
}
