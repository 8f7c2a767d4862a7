// Asks the server by HTTP whether this page may come in, which a WebSocket that fails does not tell.

import { base, token } from "./address.js";
import { shown } from "./names.js";

// How long the answer may take, in ms.
const PATIENCE = 5000;

// The longest time that is waited because a server or a proxy asks for it (Retry-After), in seconds.
const LONGEST = 300;
// How the server's own refusals begin: a proxy in front of a server that restarts may say 401, too.
const OWN_WORDS = /^(a token is wanted|the token is not good)/;

// { refused, isFinal, words } where the answer is no, final where the server itself says so; { seconds } where it is to
// come back later; { iceServers } where it says yes, and nothing where it says neither.
export async function admission() {
  try {
    const headers = token ? { authorization: `Bearer ${token}` } : {};
    const options = { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) };
    const answer = await fetch(new URL("admission", base), options);
    if (answer.ok) return { iceServers: (await answer.json()).iceServers };
    if (answer.status === 401 || answer.status === 403) return refusal(answer.status, (await answer.text()).trim().slice(0, 300));
    return { seconds: Math.min(Number(answer.headers.get("retry-after")) || 0, LONGEST) };
  } catch (error) {
    console.warn("the server cannot be asked:", error.message);
    return {};
  }
}

function refusal(status, said) {
  const isFinal = OWN_WORDS.test(said);
  if (!isFinal) return { refused: true, isFinal, words: `This page is not let in (${status}): ${shown(said, 300)}` };
  return { refused: true, isFinal, words: token ? ended(said) : MISSING };
}

const MISSING =
  "You need an invitation: this server lets nobody in without one. Open the whole link that you were given; it holds a “token”.";

function ended(said) {
  if (/expired/i.test(said)) return "Your invitation has ended. Ask whoever invited you for a new link.";
  return `Your invitation is not valid here (${shown(said, 200)}). Ask whoever invited you for a new link.`;
}
