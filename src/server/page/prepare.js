// The screen that a link leads to: it names the peer or the room, and shows the user's own video on request. A link
// starts nothing by itself, neither camera nor microphone nor a call, until the button is pressed.

import { fault, shown } from "./names.js";
import { $, state, status } from "./view.js";

const WORDS = {
  call: { lead: "This link calls", button: "Call", text: "Your camera and microphone are turned on when you press the button, not before." },
  room: { lead: "This link joins the room", button: "Join", text: "Your camera and microphone are turned on when you press the button, not before." },
  answer: { lead: "This link answers all calls to", button: "Answer calls", text: "From then on, whoever calls you here sees and hears you at once. The browser asks for camera and microphone now." },
};

// Time in which the button is disabled, in ms: a click or a key may have been meant for the page before.
const TOO_SOON = 600;

// `wanted` is the request of the link. The button calls `start(name)`, `look` shows the user's own video, and `leave`
// goes to the lobby.
export function prepare(wanted, id, { start, look, leave }) {
  const { kind } = wanted;
  const words = WORDS[kind];
  const name = wanted.name ?? id;
  const why = fault(name, kind);
  state("prepare");
  status("");
  $("prepare-lead").textContent = words.lead;
  $("prepare-name").textContent = shown(name, 80);
  $("prepare-text").textContent = why ? `This link cannot be used. ${why}` : words.text;
  $("go").hidden = $("mirror").hidden = Boolean(why);
  $("go").textContent = kind === "answer" ? words.button : `${words.button} ${shown(name, 24)}`;
  $("go").onclick = () => start(name);
  $("look").onclick = look;
  $("not-now").onclick = leave;
  $("go").disabled = true;
  setTimeout(() => ($("go").disabled = false), TOO_SOON);
}
