// A connection with one peer: an RTCPeerConnection and its negotiation. In a call of two this side is impolite: in a
// collision its offer stands, because the native peer gives way. In a room the newcomer is polite. A fresh
// RTCPeerConnection replaces a broken path; the side that called or entered the room later makes it first.

import { isRelayOnly } from "./address.js";

// Pause before the other side makes a fresh connection, and time after which a broken path is given up, in ms.
const OTHER_SIDE = 8000;
const GIVE_UP = 30000;

// The most m-lines of a description.
const MOST_LINES = 64;

// Interval at which the received bytes are compared, in ms.
const LOOK = 500;
const iceTransportPolicy = isRelayOnly ? "relay" : "all";

// A connection whose operations end when it is closed. The browser never settles the promises of operations that are
// under way then (W3C WebRTC, 4.4.1.1, "chain an asynchronous operation").
class Connection extends RTCPeerConnection {
  #end;
  #ended = new Promise((resolve) => (this.#end = resolve));

  // Waits for an operation of this connection; returns whether it was completed before the connection was closed.
  completes(operation) {
    return Promise.race([this.#ended, operation.then(() => true)]);
  }

  close() {
    super.close();
    this.#end(false);
  }
}

function connection(config) {
  try {
    return new Connection(config);
  } catch (error) {
    console.warn("the browser rejects the server's ICE servers:", error.message);
    return new Connection({ ...config, iceServers: [] });
  }
}

export class Call extends EventTarget {
  #signalling;
  #stream;
  #makingOffer = false;
  #ignoring = false;
  #waiting = [];
  #channel;
  #senders = new Map();
  #polite;
  #reconnectsFirst;
  // Time since which the path is broken, and the timer of the next attempt.
  #broken;
  #timer;
  #isClosed = false;
  // Replaced connections, closed later: closing one would end the call on the other side.
  #old = [];

  constructor(signalling, peer, { polite = false, reconnectsFirst = false } = {}) {
    super();
    this.#signalling = signalling;
    this.#polite = polite;
    this.#reconnectsFirst = reconnectsFirst;
    this.peer = peer;
    this.remote = new MediaStream();
    this.wasUp = false;
    this.#connect();
  }

  get isUp() {
    return this.pc.connectionState === "connected" && !this.#broken;
  }

  #connect() {
    // If the browser rejects the list of ICE servers, the call goes on without it.
    const pc = connection({ bundlePolicy: "max-bundle", iceServers: this.#signalling.iceServers, iceTransportPolicy });
    this.pc = pc;
    pc.onicecandidate = ({ candidate }) => candidate && this.signal({ ice: candidate.toJSON() });
    pc.ontrack = ({ track }) => {
      const before = this.remote.getTracks().filter(({ kind, id }) => kind === track.kind && id !== track.id);
      const show = () => {
        for (const old of before) this.remote.removeTrack(old);
        this.remote.addTrack(track);
      };
      // The last frame of the previous connection stays until the new one has video.
      if (before.length && track.muted) track.addEventListener("unmute", show, { once: true });
      else show();
      this.#emit("track", track);
    };
    pc.ondatachannel = ({ channel }) => this.#adopt(channel);
    pc.onconnectionstatechange = () => pc === this.pc && this.#changed(pc.connectionState);
    // The first exchange begins with `offer` or the peer's offer alone.
    pc.onnegotiationneeded = () => (pc.remoteDescription || this.#makingOffer) && this.negotiate();
  }

  #changed(state) {
    if (state === "connected") {
      this.#broken = undefined;
      this.wasUp = true;
      clearTimeout(this.#timer);
      this.#forget();
      this.#watch(this.pc);
    } else if (this.wasUp && (state === "disconnected" || state === "failed")) {
      if (!this.#broken) {
        this.#broken = Date.now();
        this.#later(this.#reconnectsFirst ? 0 : OTHER_SIDE);
      } else if (state === "failed") {
        this.#later(1000);
      }
      state = "reconnecting";
    }
    this.#emit("state", state);
  }

  // Watches the DTLS transport: a peer that hangs up closes it, and `connectionState` does not show that.
  #watch(pc) {
    const dtls = pc.sctp?.transport ?? pc.getReceivers()[0]?.transport;
    const check = () => dtls?.state === "closed" && pc === this.pc && this.#emit("closed");
    dtls?.addEventListener("statechange", check);
    check();
  }

  #later(pause) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      if (!this.#broken) return;
      if (Date.now() - this.#broken > GIVE_UP) return this.#emit("lost");
      this.#later(10000);
      this.renew();
      this.offer();
    }, pause);
  }

  #forget() {
    for (const pc of this.#old.splice(0)) pc.close();
  }

  // Begins again with a fresh connection.
  renew() {
    // The first one may still carry media; others never did.
    for (const pc of this.#old.splice(1)) pc.close();
    this.#old.push(this.pc);
    this.#broken ??= this.wasUp ? Date.now() : undefined;
    this.#senders.clear();
    this.#channel = undefined;
    this.#makingOffer = this.#ignoring = false;
    this.#waiting = [];
    this.#connect();
  }

  async #received() {
    let bytes = 0;
    (await this.pc.getStats()).forEach((report) => {
      if (report.type === "transport") bytes += report.bytesReceived;
    });
    return bytes;
  }

  // Resolves when nothing was received from the peer for `lasts` ms, when the call is over, or when `isOff` returns
  // true. A single comparison would be deceived by packets that were in flight when the peer died.
  async silence(lasts, isOff) {
    let before;
    for (let quiet = 0; quiet < lasts && !this.#isClosed && !isOff(); quiet += LOOK) {
      const bytes = await this.#received();
      if (bytes !== before) quiet = 0;
      before = bytes;
      await new Promise((resolve) => setTimeout(resolve, LOOK));
    }
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #adopt(channel) {
    this.#channel ??= channel;
    channel.onopen = () => this.#emit("channel", channel.label);
    channel.onmessage = ({ data }) => typeof data === "string" && this.#emit("message", data);
    if (channel.readyState === "open") this.#emit("channel", channel.label);
  }

  // Makes the first offer: a chat channel, audio and video in both directions, or to receive only if there is nothing
  // to send yet.
  async offer() {
    if (this.#isClosed) return;
    // The peer asks again: everything is on offer already.
    if (this.pc.getTransceivers().length) return this.negotiate();
    this.#adopt(this.pc.createDataChannel("chat"));
    for (const kind of ["audio", "video"]) {
      const track = this.#stream?.getTracks().find((track) => track.kind === kind);
      const transceiver = this.pc.addTransceiver(track ?? kind, {
        direction: track ? "sendrecv" : "recvonly",
        streams: track ? [this.#stream] : [],
      });
      this.#senders.set(kind, transceiver);
    }
    await this.negotiate();
  }

  // Makes an offer of the current media, unless an exchange is under way.
  async negotiate() {
    if (this.#makingOffer || this.pc.signalingState !== "stable") return;
    this.#makingOffer = true;
    try {
      await this.#describe(this.pc);
    } finally {
      this.#makingOffer = false;
    }
  }

  // Makes and sends our description. That of a connection which was replaced meanwhile is not sent.
  async #describe(pc) {
    if ((await pc.completes(pc.setLocalDescription())) && pc === this.pc) this.#signalDescription();
  }

  // Repeats an offer that has no answer, for a server that may have lost either.
  repeat() {
    if (this.pc.signalingState === "have-local-offer") this.#signalDescription();
  }

  // Sends our description, which names roomtone as its author: this page replaces its connection when the peer does.
  #signalDescription() {
    const { type, sdp } = this.pc.localDescription;
    this.signal({ sdp: { type, sdp: sdp.replace(/^t=.*\r\n/m, "$&a=tool:roomtone\r\n") } });
  }

  // Handles a message of the peer.
  async handle(kind, { message }) {
    await this.ready;
    if (kind === "description") await this.description(message);
    else if (kind === "candidate") await this.candidate(message);
    else await this.offer();
  }

  async description(description) {
    if (this.#isClosed) return;
    if ((String(description.sdp).match(/^m=/gm) ?? []).length > MOST_LINES) throw new Error("a description with too many m-lines");
    if (this.#isFresh(description)) {
      this.renew();
      this.#emit("state", "reconnecting");
    }
    const { pc } = this;
    const collision = description.type === "offer" && (this.#makingOffer || pc.signalingState !== "stable");
    this.#ignoring = collision && !this.#polite;
    if (this.#ignoring) return;
    // An answer to an offer that was given up is ignored.
    if (description.type === "answer" && pc.signalingState !== "have-local-offer") return;
    // An answer that rejects every m-line has the reason in its i= line.
    if (description.type === "answer" && !/^m=\w+ (?!0 )/m.test(description.sdp)) {
      this.#emit("declined", /^i=(.*)$/m.exec(description.sdp)?.[1].trim() ?? "no reason was given");
      return;
    }
    if (!(await pc.completes(pc.setRemoteDescription(description)))) return;
    for (const candidate of this.#waiting.splice(0)) await this.#add(candidate);
    if (description.type === "offer") {
      await this.#attach();
      await this.#describe(pc);
    }
  }

  async candidate(candidate) {
    // Candidates of an ignored later offer belong to the current transport.
    if (this.#isClosed) return;
    if (this.pc.remoteDescription) await this.#add(candidate);
    else if (this.#ignoring) return;
    else if (this.#waiting.length < 256) this.#waiting.push(candidate);
  }

  async #add(candidate) {
    try {
      await this.pc.completes(this.pc.addIceCandidate(candidate));
    } catch (error) {
      console.warn("a candidate was rejected:", error.message);
    }
  }

  // Sends this stream from now on. A kind that was not sent before is negotiated.
  async send(stream) {
    this.#stream = stream;
    await this.#attach();
  }

  async #attach() {
    for (const track of this.#stream?.getTracks() ?? []) {
      if (this.#isClosed) return;
      const sent = this.#senders.get(track.kind);
      const transceiver = [sent, ...this.pc.getTransceivers().filter((t) => t.mid !== null)].find(
        (t) => t?.receiver.track.kind === track.kind && ![t.direction, t.currentDirection].includes("stopped"),
      );
      if (!transceiver) {
        // Without a description the first offer adds it; a kind that the peer rejected is not offered again.
        if (!this.pc.remoteDescription || sent) continue;
        this.#senders.set(track.kind, this.pc.addTransceiver(track, { streams: [this.#stream] }));
        continue;
      }
      this.#senders.set(track.kind, transceiver);
      if (transceiver.sender.track !== track) await this.pc.completes(transceiver.sender.replaceTrack(track));
      if (transceiver.direction === "recvonly" || transceiver.direction === "inactive") {
        transceiver.sender.setStreams?.(this.#stream);
        transceiver.direction = "sendrecv";
      }
    }
  }

  // Sends the peer a message through the server.
  signal(message) {
    this.#signalling.send(message, this.peer);
  }

  say(text) {
    if (this.#channel?.readyState !== "open") return false;
    this.#channel.send(text);
    return true;
  }

  // Returns whether an offer belongs to another transport than the one before: the peer has a fresh connection.
  #isFresh({ type, sdp }) {
    const ufrag = (text) => /^a=ice-ufrag:(.*)$/m.exec(text)?.[1].trim();
    const before = this.pc.remoteDescription;
    return type === "offer" && before !== null && ufrag(before.sdp) !== ufrag(sdp);
  }

  close() {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#forget();
    this.pc.close();
  }
}
