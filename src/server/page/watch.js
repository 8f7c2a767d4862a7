// Detects a dead connection to the server: a path can die without a notification (a NAT that forgot its mapping, a
// power cut), and browsers hide the pings of WebSockets from pages. Pure: the class counts ticks of a second, so the
// sleep of a machine does not count as silence.

// Seconds of silence after which the server is asked (PING), and after which the connection counts as dead.
const ASK = 15;
const DEAD = 40;
// Longest wait for an answer after a change of the network, in seconds.
const DOUBT = 5;

export class Watch {
  #quiet = 0;

  // Records that the server sent something.
  heard() {
    this.#quiet = 0;
  }

  // Leaves DOUBT seconds for an answer, because the network changed.
  doubt() {
    this.#quiet = Math.max(this.#quiet, DEAD - DOUBT);
  }

  // Counts a second; returns "ask", "dead" or undefined.
  tick() {
    this.#quiet += 1;
    if (this.#quiet >= DEAD) return "dead";
    return this.#quiet % ASK === 0 ? "ask" : undefined;
  }
}
