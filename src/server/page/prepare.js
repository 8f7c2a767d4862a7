// The screen that a link leads to: it says whom the link means and shows the user's own picture when that is asked for.
// A link prepares; it starts nothing, neither camera nor microphone nor a call, until the button is pressed.

import { fault, shown } from "./names.js";
import { $, state, status } from "./view.js";

const WORDS = {
  call: { lead: "This link calls", button: "Call", text: "Your camera and microphone are turned on when you press the button, not before." },
  room: { lead: "This link joins the room", button: "Join", text: "Your camera and microphone are turned on when you press the button, not before." },
  answer: { lead: "This link answers all calls to", button: "Answer calls", text: "From then on, whoever calls you here sees and hears you at once. The browser asks for camera and microphone now." },
};

// A click or a key that was meant for the page before this one does not count, in ms.
const TOO_SOON = 600;

// `wanted` is what the link says. `start(name)` is called by the button, `look` shows the user's own picture, and
// `leave` goes to the lobby.
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
