// Asks the server by HTTP whether this page may come in, which a WebSocket that fails does not tell.

import { base, token } from "./address.js";

// How long the answer may take, in ms.
const PATIENCE = 5000;

// { refused, words } where the server says no, { iceServers } where it says yes, and nothing where it says neither.
export async function admission() {
  try {
    const headers = token ? { authorization: `Bearer ${token}` } : {};
    const options = { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) };
    const answer = await fetch(new URL("admission", base), options);
    if (answer.ok) return { iceServers: (await answer.json()).iceServers };
    if (answer.status === 401) return { refused: true, words: token ? ended(await answer.text()) : MISSING };
    if (answer.status === 403) return { refused: true, words: `The server does not let this page in: ${(await answer.text()).slice(0, 300)}` };
  } catch (error) {
    console.warn("the server cannot be asked:", error.message);
  }
  return {};
}

const MISSING =
  "You need an invitation: this server lets nobody in without one. Open the whole link that you were given; it holds a “token”.";

function ended(words) {
  if (/expired/i.test(words)) return "Your invitation has ended. Ask whoever invited you for a new link.";
  return `Your invitation is not valid here (${words.trim().slice(0, 200)}). Ask whoever invited you for a new link.`;
}
