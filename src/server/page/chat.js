// The chat beside a call or a room.

import { shown } from "./names.js";
import { $ } from "./view.js";

// Most characters shown of a message, and most messages shown.
const LONGEST = 4000;
const MOST = 500;

export function openChat(isOpen) {
  $("text").disabled = $("send").disabled = !isOpen;
}

export function clearChat() {
  $("messages").replaceChildren();
}

export function showMessage(text, isMine, from) {
  const item = document.createElement("li");
  if (from) {
    const name = document.createElement("b");
    name.textContent = shown(from);
    item.append(name);
  }
  item.append(text.slice(0, LONGEST));
  item.className = isMine ? "mine" : "theirs";
  $("messages").append(item);
  if ($("messages").children.length > MOST) $("messages").firstChild.remove();
  item.scrollIntoView({ block: "nearest" });
}

// `say` sends a text, and returns whether there was a peer to send it to.
export function onSay(say) {
  $("say").onsubmit = (event) => {
    event.preventDefault();
    const text = $("text").value.trim();
    if (text && say(text)) {
      showMessage(text, true);
      $("text").value = "";
    }
  };
}
