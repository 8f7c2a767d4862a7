// Whether the server is still there: a path can die without a word (a NAT that forgot, a power cut), and browsers hide
// the pings of WebSockets from pages. Pure: it counts ticks of a second, so that the sleep of a machine is no silence.

// After so many quiet seconds the server is asked, and after so many it is taken for dead.
const ASK = 15;
const DEAD = 40;
// How many seconds an answer may take when something happened to the network.
const DOUBT = 5;

export class Watch {
  #quiet = 0;

  // Something came of the server.
  heard() {
    this.#quiet = 0;
  }

  // The network changed: the server is to be asked now.
  doubt() {
    this.#quiet = Math.max(this.#quiet, DEAD - DOUBT);
  }

  // A second passed; says what to do: "ask", "dead" or nothing.
  tick() {
    this.#quiet += 1;
    if (this.#quiet >= DEAD) return "dead";
    return this.#quiet % ASK === 0 ? "ask" : undefined;
  }
}
