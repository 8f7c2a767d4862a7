// Computes the pause before the next connection to the server. Pure: the caller supplies the time in ms and the
// chance, 0 to 1.
//
// The pauses grow after every end of a connection. Only a registration that lasted half a minute, or an established
// call, resets them. After a call that the user ended, the page reconnects at once. Two windows limit the connections
// in every case.

// First and longest pause in ms, the same as in the native clients: src/signalling/reconnect.rs.
const FIRST = 500;
const LONGEST = 15000;
// Least duration of a registration that counts as a success, in ms.
const HELD = 30000;
// Windows: length in ms, and the most connections within it.
const WINDOWS = [
  [15000, 9],
  [60000, 14],
];

export class Backoff {
  #failures = 0;
  // Start times of the last connections.
  #begun = [];

  // Records the start of a connection.
  began(now) {
    this.#begun.push(now);
    if (this.#begun.length > 14) this.#begun.shift();
  }

  // Records the end of a connection whose registration lasted `held` ms.
  ended(held) {
    if (held >= HELD) this.reset();
  }

  reset() {
    this.#failures = 0;
  }

  // Returns the pause before the next connection, in ms; chance subtracts up to a half. `atOnce` skips the growing
  // pause, but not the windows, after the user's own request.
  pause(now, chance, atOnce = false) {
    let pause = 0;
    if (!atOnce) {
      pause = Math.min(FIRST * 2 ** Math.min(this.#failures, 16), LONGEST) * (1 - chance / 2);
      this.#failures += 1;
    }
    for (const [length, most] of WINDOWS) {
      const oldest = this.#begun.at(-most);
      if (oldest !== undefined) pause = Math.max(pause, oldest + length - now);
    }
    return pause;
  }
}
