// The room protocol over a WebSocket to the server that this page came from. After a call the server
// closes the socket: this registers anew by itself.

export class Signalling extends EventTarget {
  #socket;
  #phase = "closed";
  #pause = 500;
  // STUN and TURN servers, as the server names them.
  iceServers = [];

  constructor(id) {
    super();
    this.id = id;
    this.#open();
  }

  #open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const token = new URLSearchParams(location.search).get("token");
    const admission = token ? `&token=${encodeURIComponent(token)}` : "";
    const socket = new WebSocket(`${scheme}://${location.host}/?roomtone=1${admission}`);
    this.#socket = socket;
    this.#phase = "registering";
    socket.onopen = () => socket.send(`HELLO ${this.id}`);
    socket.onmessage = ({ data }) => this.#line(String(data));
    socket.onclose = ({ code, reason }) => this.#closed(socket, code, reason);
  }

  #closed(socket, code, reason) {
    if (socket !== this.#socket) return;
    // "Policy violation": a back end does not want us, and to come again is no use.
    if (code === 1008) return this.#tell("dismissed", reason);
    const phase = this.#phase;
    this.#phase = "closed";
    if (phase === "registering" && reason === "invalid peer uid") this.#tell("taken");
    const talking = phase === "session" || phase === "room";
    this.#tell(talking ? "gone" : "offline");
    const pause = talking ? 0 : this.#pause;
    this.#pause = Math.min(this.#pause * 2, 15000);
    setTimeout(() => this.#open(), pause);
  }

  #line(line) {
    const [word] = line.split(" ", 1);
    const rest = line.slice(word.length + 1);
    if (word === "ICE_SERVERS" && this.#phase !== "session") return this.#servers(rest);
    if (this.#phase === "registering" && word === "HELLO") {
      this.#phase = "lobby";
      this.#pause = 500;
      return this.#tell("registered");
    }
    if (this.#phase === "session") return this.#peer(line);
    switch (word) {
      case "SESSION_OK":
        this.#phase = "session";
        return this.#tell("accepted");
      case "SESSION_FROM":
        this.#phase = "session";
        return this.#tell("called", rest);
      case "ROOM_OK":
        this.#phase = "room";
        return this.#tell("room", rest.split(" ").filter(Boolean));
      case "ROOM_PEER_JOINED":
        return this.#tell("joined", rest);
      case "ROOM_PEER_LEFT":
        return this.#tell("left", rest);
      case "ROOM_PEER_DESCRIBED": {
        const [peer] = rest.split(" ", 1);
        return this.#described(peer, rest.slice(peer.length + 1));
      }
      case "ROOM_PEER_MSG": {
        const [from] = rest.split(" ", 1);
        return this.#peer(rest.slice(from.length + 1), from);
      }
      case "PEER_LIST":
        return this.#tell("peers", rest.split(" ").filter(Boolean));
      case "ERROR":
        if (this.#phase !== "room") this.#phase = "lobby";
        return this.#tell("refused", rest);
      default:
        return console.warn("not understood:", line);
    }
  }

  #servers(json) {
    try {
      this.iceServers = JSON.parse(json);
    } catch {
      console.warn("a list of ICE servers that cannot be read");
    }
  }

  // What the server's back end says of a peer of the room.
  #described(peer, json) {
    try {
      this.#tell("described", { peer, description: JSON.parse(json) });
    } catch {
      console.warn("a description that cannot be read");
    }
  }

  // What a peer says; in a room it has a name.
  #peer(line, from) {
    if (line === "OFFER_REQUEST") return this.#tell("offer-request", { from });
    try {
      const { sdp, ice } = JSON.parse(line);
      if (sdp?.type) this.#tell("description", { from, message: sdp });
      else if (ice) this.#tell("candidate", { from, message: ice });
    } catch {
      console.warn("the peer sent something that is not JSON");
    }
  }

  #tell(type, detail) {
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
    if (this.#phase === "lobby") this.#socket.send("PEER_LIST");
  }

  send(message, to) {
    if (this.#phase === "session") this.#socket.send(JSON.stringify(message));
    else if (this.#phase === "room") this.#socket.send(`ROOM_PEER_MSG ${to} ${JSON.stringify(message)}`);
  }

  // Hanging up is closing the socket; the server tells the peer.
  hangUp() {
    this.#socket.close();
  }
}
