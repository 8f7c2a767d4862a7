// Names of peers and rooms: which the server takes, and how those of others are shown. Pure.

// The most bytes of an id, as the server has it.
const LONGEST = 256;
// Characters that nobody sees, or that turn the order of others around (Unicode, UAX #9 and UTS #39).
const HIDDEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0]/u;
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;

// Why this is no id of a peer or a room, in words; nothing where it is one.
export function fault(id, kind = "id") {
  const what = kind === "room" ? "The name of a room" : "An id";
  const bytes = new TextEncoder().encode(id).length;
  if (!id) return `${what} may not be empty.`;
  if (bytes > LONGEST) return `${what} may hold ${LONGEST} bytes, and this one has ${bytes}. Choose a shorter one.`;
  if (/\s/u.test(id)) return `${what} may hold no blanks. Choose one without, such as “${shown(id.trim().replace(/\s+/gu, "-"), 40)}”.`;
  if (HIDDEN.test(id)) return `${what} may hold no invisible characters. Type it anew instead of pasting it.`;
  if (kind === "room" && id === "session") return "A room may not be called “session”. Choose another name.";
  return undefined;
}

// A name of somebody else's as it is shown: bounded, with hidden characters made visible, and in its own direction.
export function shown(name, most = 64) {
  const all = Array.from(String(name), (letter) => (HIDDEN.test(letter) ? "\ufffd" : letter));
  const text = all.length > most ? `${all.slice(0, most - 1).join("")}…` : all.join("");
  return RIGHT_TO_LEFT.test(text) ? `\u2068${text}\u2069` : text;
}
