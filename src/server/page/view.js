// What all parts of the page show in the same places.

export const $ = (id) => document.getElementById(id);

// Which screen is seen: offline, lobby, prepare, call, room.
export const state = (name) => (document.body.dataset.state = name);
export const isState = (name) => document.body.dataset.state === name;

export const status = (text) => ($("status").textContent = text);

// Something that went wrong, and what to do; with an action where one helps: { label, run }.
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
