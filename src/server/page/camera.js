// Camera and microphone: turned on and off, chosen, and muted. Only a click turns them on.

import { $, notice, press } from "./view.js";

// Longest wait of a call for the answer to the browser's permission prompt, in ms.
const PATIENCE = 30000;

const TROUBLES = {
  NotAllowedError: "Camera and microphone are not allowed for this page; the browser's address bar has the setting. The call goes on without them.",
  NotFoundError: "No camera and no microphone was found. The call goes on without them.",
  NotReadableError: "The camera or the microphone is in use by another program. The call goes on without it.",
};
const UNANSWERED = "The browser still asks for camera and microphone. The call goes on without them until you allow them.";

async function capture(constraints) {
  if (!navigator.mediaDevices) {
    throw new DOMException("Browsers give camera and microphone only to pages that came over https or from this machine (127.0.0.1).", "InsecureContext");
  }
  return navigator.mediaDevices.getUserMedia(constraints);
}

const choice = (kind) => {
  const id = $(kind === "video" ? "cameras" : "microphones").value;
  return id ? { deviceId: { exact: id } } : true;
};

// Captures both, or the one that is available; throws the first error if there is none.
async function captureAny() {
  let trouble;
  for (const wanted of [["audio", "video"], ["audio"], ["video"]]) {
    try {
      return await capture(Object.fromEntries(wanted.map((kind) => [kind, choice(kind)])));
    } catch (error) {
      trouble ??= error;
      if (!["NotFoundError", "NotReadableError", "OverconstrainedError"].includes(error.name)) break;
    }
  }
  throw trouble;
}

// Returns the button that mutes this kind.
const switchOf = (kind) => $(kind === "video" ? "blind" : "mute");
const isOff = (kind) => switchOf(kind).getAttribute("aria-pressed") === "true";

export class Camera {
  stream = null;
  #send;
  // Promise of a prompt that is not answered yet, and the number of times that everything was turned off.
  #pending;
  #turn = 0;

  // `send` passes the stream on to the current peers, whenever it changes.
  constructor(send) {
    this.#send = send;
    $("mute").onclick = () => this.#toggle($("mute"), "audio", "Mute", "Unmute");
    $("blind").onclick = () => this.#toggle($("blind"), "video", "Camera off", "Camera on");
  }

  // Resolves when the user decided, or after PATIENCE.
  async turnOn() {
    if (this.stream) return;
    this.#pending ??= this.#obtain(this.#turn);
    let timer;
    const late = new Promise((resolve) => (timer = setTimeout(() => resolve(notice(UNANSWERED)), PATIENCE)));
    await Promise.race([this.#pending, late]);
    clearTimeout(timer);
  }

  async #obtain(turn) {
    let stream;
    let trouble;
    try {
      stream = await captureAny();
    } catch (error) {
      trouble = error;
    }
    // Everything was turned off meanwhile: a late permission must not start the devices.
    if (turn !== this.#turn) return stream?.getTracks().forEach((track) => track.stop());
    this.#pending = undefined;
    for (const track of stream?.getTracks() ?? []) track.enabled = !isOff(track.kind);
    if (!stream) return notice(TROUBLES[trouble.name] ?? trouble.message);
    this.stream = stream;
    document.body.dataset.live = "yes";
    $("local").srcObject = $("preview").srcObject = stream;
    $("local").toggleAttribute("data-live", stream.getVideoTracks().length > 0);
    await this.#pickers();
    await this.#send(stream);
  }

  turnOff() {
    this.#turn += 1;
    this.#pending = undefined;
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = null;
    delete document.body.dataset.live;
    $("local").removeAttribute("data-live");
    $("local").srcObject = $("preview").srcObject = null;
    press($("mute"), false, "Mute");
    press($("blind"), false, "Camera off");
  }

  // Mutes audio or video, unless it is muted already.
  mute(kind) {
    if (!isOff(kind)) switchOf(kind).click();
  }

  async #pickers() {
    const devices = await navigator.mediaDevices.enumerateDevices();
    for (const [select, kind] of [[$("cameras"), "video"], [$("microphones"), "audio"]]) {
      const current = this.stream?.getTracks().find((track) => track.kind === kind)?.getSettings().deviceId;
      const options = devices.filter((device) => device.kind === `${kind}input`);
      select.replaceChildren(...options.map((device) => new Option(device.label || kind, device.deviceId, false, device.deviceId === current)));
      select.onchange = () => this.#change(kind);
    }
  }

  async #change(kind) {
    const { stream } = this;
    try {
      const [track] = (await capture({ [kind]: choice(kind) })).getTracks();
      if (stream !== this.stream) return track.stop();
      track.enabled = !isOff(kind);
      for (const old of stream.getTracks().filter((old) => old.kind === kind)) {
        old.stop();
        stream.removeTrack(old);
      }
      stream.addTrack(track);
      await this.#send(stream);
    } catch (error) {
      notice(TROUBLES[error.name] ?? error.message);
    }
  }

  #toggle(button, kind, on, off) {
    const pressed = button.getAttribute("aria-pressed") !== "true";
    this.stream?.getTracks().filter((track) => track.kind === kind).forEach((track) => (track.enabled = !pressed));
    press(button, pressed, pressed ? off : on);
  }
}
