// When to connect to the server again. Pure: the caller brings the time in ms and the chance, 0 to 1.
//
// The pauses grow whatever ended the last connection. Only a registration that held for half a minute, or a call that
// stood, begins them anew. After a call that the user ended, the page comes back at once. Two windows bound all of that.

// The same figures as the native clients': src/signalling/reconnect.rs.
const FIRST = 500;
const LONGEST = 15000;
// How long a registration holds that counts as a success.
const HELD = 30000;
// So many connections at most in so many ms.
const WINDOWS = [
  [15000, 9],
  [60000, 14],
];

export class Backoff {
  #failures = 0;
  // When the last connections began.
  #begun = [];

  // A connection begins.
  began(now) {
    this.#begun.push(now);
    if (this.#begun.length > 14) this.#begun.shift();
  }

  // A connection ended that had been registered for so long.
  ended(held) {
    if (held >= HELD) this.reset();
  }

  reset() {
    this.#failures = 0;
  }

  // How long to wait for the next connection; chance takes away up to a half. `atOnce` after the user's own wish.
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
