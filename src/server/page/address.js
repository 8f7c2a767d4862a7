// Reads the page's own address: where its server is, and what the link asks for.

import { encoded } from "./names.js";

// Folder of the page, which behind a proxy need not be the root.
export const base = new URL(".", document.baseURI);
const query = new URLSearchParams(location.search);

// Returns the token of the address and removes it from there at once, so that nobody copies, sees or keeps it with
// the link. The tab's session storage keeps the token for reloads.
const key = `roomtone token ${base.pathname}`;
function takeToken() {
  const given = query.get("token");
  try {
    if (given !== null) sessionStorage.setItem(key, given);
    return given ?? sessionStorage.getItem(key) ?? "";
  } catch {
    return given ?? "";
  } finally {
    if (given !== null) {
      query.delete("token");
      const rest = query.toString();
      history.replaceState(history.state, "", `${location.pathname}${rest && "?"}${rest}${location.hash}`);
    }
  }
}
export let token = takeToken();

// Replaces the token, for this tab.
export function setToken(next) {
  token = next;
  try {
    sessionStorage.setItem(key, next);
  } catch {
    // Without storage, the token lasts until the page is loaded again.
  }
}

// Returns the only id that the token allows (its `sub`) as the server encodes it; null without such a token.
function ownId() {
  try {
    const [, claims] = token.split(".");
    const bytes = Uint8Array.from(atob(claims.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
    const { sub } = JSON.parse(new TextDecoder().decode(bytes));
    return typeof sub === "string" && sub ? encoded(sub) : null;
  } catch {
    return null;
  }
}

// Id that the link or the token asks for; null if any id will do.
export const wantedId = query.get("id") ?? ownId();

// Returns what the link prepares: { kind: "call" | "room" | "answer", name }, or undefined.
function prepared() {
  for (const kind of ["call", "room"]) if (query.has(kind)) return { kind, name: query.get(kind).trim() };
  return query.get("answer") === "auto" ? { kind: "answer" } : undefined;
}
export const wanted = prepared();

// Whether only TURN relays are used, for users who do not want to reveal their address.
export const isRelayOnly = query.has("relay-only");

// Returns the address of the server's WebSocket.
export function socketAddress() {
  const url = new URL("?roomtone=1", base);
  url.protocol = base.protocol === "https:" ? "wss:" : "ws:";
  if (token) url.searchParams.set("token", token);
  return url.href;
}

// Returns the link to a room, without the token, for other people.
export function linkToRoom(name) {
  const url = new URL(base);
  url.search = new URLSearchParams({ room: name });
  return url.href;
}
