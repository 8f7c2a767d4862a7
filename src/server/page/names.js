// Names of peers and rooms: which the server takes, and how those of others are shown. Pure.

// The most bytes of an id, as the server has it.
const LONGEST = 256;
// Characters without a shape of their own, which nobody sees or which turn the order of others around. The server has the
// same rule (src/base/text.rs).
const HIDDEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800\ufffe\uffff]/u;
// Those of them that only choose the look of the character before, as in many emoji.
const SELECTOR = /[\ufe00-\ufe0f]/u;
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;

const UTF_8 = new TextEncoder();

// Why this is no id of a peer or a room, in words; nothing where it is one.
export function fault(id, kind = "id") {
  const what = kind === "room" ? "The name of a room" : "An id";
  const bytes = UTF_8.encode(id).length;
  if (!id) return `${what} may not be empty.`;
  if (bytes > LONGEST) return `${what} may hold ${LONGEST} bytes, and this one has ${bytes}. Choose a shorter one.`;
  if (/\s/u.test(id)) return `${what} may hold no blanks. Choose one without, such as “${shown(id.trim().replace(/\s+/gu, "-"), 40)}”.`;
  if (HIDDEN.test(id)) return `${what} may hold no invisible characters. Type it anew instead of pasting it.`;
  if (kind === "room" && id === "session") return "A room may not be called “session”. Choose another name.";
  return undefined;
}

// A name of somebody else's as it is shown: bounded, with hidden characters made visible, and in its own direction.
export function shown(name, most = 64) {
  const all = Array.from(String(name), (letter) => (HIDDEN.test(letter) && !SELECTOR.test(letter) ? "\ufffd" : letter));
  const text = all.length > most ? `${all.slice(0, most - 1).join("")}…` : all.join("");
  return RIGHT_TO_LEFT.test(text) ? `\u2068${text}\u2069` : text;
}

// The id that the server makes of a name of another protocol: with odd characters it is percent-encoded.
export function encoded(name) {
  if (!/\s/u.test(name) && !HIDDEN.test(name)) return name;
  return Array.from(name, (letter) => (/[\s%]/u.test(letter) || HIDDEN.test(letter) ? percent(letter) : letter)).join("");
}

const percent = (letter) =>
  Array.from(UTF_8.encode(letter), (byte) => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`).join("");
