// Elements of the page that all of its parts share.

export const $ = (id) => document.getElementById(id);

// Shows a screen: offline, lobby, prepare, call, room or locked.
export const state = (name) => (document.body.dataset.state = name);
export const isState = (name) => document.body.dataset.state === name;

export const status = (text) => ($("status").textContent = text);

// Shows an error and what to do about it, with a button for an action that may help: { label, run }.
export function notice(text, action) {
  $("notice-text").textContent = text ?? "";
  $("notice").hidden = !text;
  $("notice-action").hidden = !action;
  $("notice-action").textContent = action?.label ?? "";
  $("notice-action").onclick = () => {
    notice();
    action?.run();
  };
}

export function press(button, pressed, text) {
  button.setAttribute("aria-pressed", String(pressed));
  button.textContent = text;
}
