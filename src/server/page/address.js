// What the page's own address says: where its server is, and what the link asks for.

import { encoded } from "./names.js";

// The folder of the page: behind a proxy it need not be the root.
export const base = new URL(".", document.baseURI);
const query = new URLSearchParams(location.search);

// A token leaves the address at once, so that nobody copies, sees or keeps it with the link. The tab keeps it for
// reloads.
function takeToken() {
  const key = `roomtone token ${base.pathname}`;
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
export const token = takeToken();

// The only id that a token allows (its `sub`), as the server writes it.
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

// The id that is wanted; nothing where any will do.
export const wantedId = query.get("id") ?? ownId();

// What the link prepares: { kind: "call" | "room" | "answer", name }, or nothing.
function prepared() {
  for (const kind of ["call", "room"]) if (query.has(kind)) return { kind, name: query.get(kind).trim() };
  return query.get("answer") === "auto" ? { kind: "answer" } : undefined;
}
export const wanted = prepared();

// For those who do not want their address known.
export const isRelayOnly = query.has("relay-only");

// The address of the server's WebSocket.
export function socketAddress() {
  const url = new URL("?roomtone=1", base);
  url.protocol = base.protocol === "https:" ? "wss:" : "ws:";
  if (token) url.searchParams.set("token", token);
  return url.href;
}

// The link to a room, for others.
export function linkToRoom(name) {
  const url = new URL(base);
  url.search = new URLSearchParams({ room: name });
  return url.href;
}
