// Asks the server by HTTP whether it admits this page: a failed WebSocket gives no reason.

import { base, token } from "./address.js";
import { shown } from "./names.js";

// Longest wait for the answer, in ms.
const PATIENCE = 5000;

// Longest pause accepted from a server or a proxy (Retry-After), in seconds.
const LONGEST = 300;
// First words of the server's own refusals: a proxy in front of a restarting server may answer 401 too.
const OWN_WORDS = /^(a token is wanted|the token is not good)/;

// Returns { refused, isFinal, words } after a refusal, final if it is the server's own; { iceServers } if the page is
// admitted; { seconds } after any other answer, the pause that it asks for or 0; and {} if there was no answer.
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
