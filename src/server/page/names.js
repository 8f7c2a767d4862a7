// Names of peers and rooms: the rule of the server, and how names from others are shown. Pure.

// Most bytes of an id, as in the server.
const LONGEST = 256;
// Characters without a shape, which are invisible or reverse the order of other characters. The server has the same
// rule (src/base/text.rs).
const HIDDEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800\ufffe\uffff]/u;
// Variation selectors: the hidden characters that only choose the look of the previous character, as in many emoji.
const SELECTOR = /[\ufe00-\ufe0f]/u;
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;

const UTF_8 = new TextEncoder();

// Returns in words why this is not a valid id of a peer or a room; undefined if it is valid.
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

// Returns a name from somebody else for display: bounded, with hidden characters replaced by U+FFFD, and with its own
// text direction.
export function shown(name, most = 64) {
  const all = Array.from(String(name), (letter) => (HIDDEN.test(letter) && !SELECTOR.test(letter) ? "\ufffd" : letter));
  const text = all.length > most ? `${all.slice(0, most - 1).join("")}…` : all.join("");
  return RIGHT_TO_LEFT.test(text) ? `\u2068${text}\u2069` : text;
}

// Returns the id that the server makes of a name of another protocol: unusual characters are percent-encoded.
export function encoded(name) {
  if (!/\s/u.test(name) && !HIDDEN.test(name)) return name;
  return Array.from(name, (letter) => (/[\s%]/u.test(letter) || HIDDEN.test(letter) ? percent(letter) : letter)).join("");
}

const percent = (letter) =>
  Array.from(UTF_8.encode(letter), (byte) => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`).join("");
