// One connection: an RTCPeerConnection and its negotiation. In a call of two this side is the impolite one:
// in a collision its offer stands, for the native peer gives way. In a room the newcomer is polite.

// For those who do not want their address known: ?relay-only=1 in the page's address.
const iceTransportPolicy = new URLSearchParams(location.search).has("relay-only") ? "relay" : "all";

function connection(config) {
  try {
    return new RTCPeerConnection(config);
  } catch (error) {
    console.warn("the server's ICE servers are not taken:", error.message);
    return new RTCPeerConnection({ ...config, iceServers: [] });
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

  constructor(signalling, peer, polite = false) {
    super();
    this.#signalling = signalling;
    this.#polite = polite;
    this.peer = peer;
    this.remote = new MediaStream();
    // A list that the browser does not take leaves the call without it.
    const pc = connection({ bundlePolicy: "max-bundle", iceServers: signalling.iceServers, iceTransportPolicy });
    this.pc = pc;
    pc.onicecandidate = ({ candidate }) => candidate && signalling.send({ ice: candidate.toJSON() }, peer);
    pc.ontrack = ({ track }) => {
      this.remote.addTrack(track);
      this.#tell("track", track);
    };
    pc.ondatachannel = ({ channel }) => this.#adopt(channel);
    pc.onconnectionstatechange = () => this.#tell("state", pc.connectionState);
    // Before the first description only `offer` or the peer's offer begins.
    pc.onnegotiationneeded = () => (pc.remoteDescription || this.#makingOffer) && this.#offer();
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #adopt(channel) {
    this.#channel ??= channel;
    channel.onopen = () => this.#tell("channel", channel.label);
    channel.onmessage = ({ data }) => typeof data === "string" && this.#tell("message", data);
    if (channel.readyState === "open") this.#tell("channel", channel.label);
  }

  // Makes the first offer: a chat channel, sound and picture both ways (or to receive, where there is
  // nothing to send yet).
  async offer() {
    this.#adopt(this.pc.createDataChannel("chat"));
    for (const kind of ["audio", "video"]) {
      const track = this.#stream?.getTracks().find((track) => track.kind === kind);
      const transceiver = this.pc.addTransceiver(track ?? kind, {
        direction: track ? "sendrecv" : "recvonly",
        streams: track ? [this.#stream] : [],
      });
      this.#senders.set(kind, transceiver);
    }
    await this.#offer();
  }

  async #offer() {
    if (this.#makingOffer || this.pc.signalingState !== "stable") return;
    this.#makingOffer = true;
    try {
      await this.pc.setLocalDescription();
      this.#signalling.send({ sdp: this.pc.localDescription }, this.peer);
    } finally {
      this.#makingOffer = false;
    }
  }

  async description(description) {
    const { pc } = this;
    const collision = description.type === "offer" && (this.#makingOffer || pc.signalingState !== "stable");
    this.#ignoring = collision && !this.#polite;
    if (this.#ignoring) return;
    // An answer to an offer that was forgotten.
    if (description.type === "answer" && pc.signalingState !== "have-local-offer") return;
    // An answer that takes nothing says why in its i= line.
    if (description.type === "answer" && !/^m=\w+ (?!0 )/m.test(description.sdp)) {
      this.#tell("declined", /^i=(.*)$/m.exec(description.sdp)?.[1].trim() ?? "no reason was given");
      return;
    }
    await pc.setRemoteDescription(description);
    for (const candidate of this.#waiting.splice(0)) await this.#add(candidate);
    if (description.type === "offer") {
      await this.#attach();
      await pc.setLocalDescription();
      this.#signalling.send({ sdp: pc.localDescription }, this.peer);
    }
  }

  async candidate(candidate) {
    if (this.#ignoring) return;
    if (this.pc.remoteDescription) await this.#add(candidate);
    else if (this.#waiting.length < 256) this.#waiting.push(candidate);
  }

  async #add(candidate) {
    try {
      await this.pc.addIceCandidate(candidate);
    } catch (error) {
      console.warn("a candidate was not taken:", error.message);
    }
  }

  // What is sent from now on. A kind that was not sent before is negotiated.
  async send(stream) {
    this.#stream = stream;
    await this.#attach();
  }

  async #attach() {
    for (const track of this.#stream?.getTracks() ?? []) {
      const transceiver =
        this.#senders.get(track.kind) ??
        this.pc.getTransceivers().find((t) => t.receiver.track.kind === track.kind && t.mid !== null);
      if (!transceiver) {
        if (!this.pc.remoteDescription) continue;
        this.#senders.set(track.kind, this.pc.addTransceiver(track, { streams: [this.#stream] }));
        continue;
      }
      this.#senders.set(track.kind, transceiver);
      if (transceiver.sender.track !== track) await transceiver.sender.replaceTrack(track);
      if (transceiver.direction === "recvonly" || transceiver.direction === "inactive") {
        transceiver.sender.setStreams?.(this.#stream);
        transceiver.direction = "sendrecv";
      }
    }
  }

  say(text) {
    if (this.#channel?.readyState !== "open") return false;
    this.#channel.send(text);
    return true;
  }

  // Whether that description is of another transport than the one before: its author began anew.
  isAnew({ type, sdp }) {
    const ufrag = (text) => /^a=ice-ufrag:(.*)$/m.exec(text)?.[1].trim();
    const before = this.pc.remoteDescription;
    return type === "offer" && before !== null && ufrag(before.sdp) !== ufrag(sdp);
  }

  close() {
    this.pc.close();
  }
}
