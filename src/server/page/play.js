// Plays the received media: browsers require a click before they play audio to a user who sends none.

import { $ } from "./view.js";

export async function play(video = $("remote")) {
  try {
    await video.play();
    $("unblock").hidden = true;
  } catch (error) {
    if (error.name === "NotAllowedError") $("unblock").hidden = false;
  }
}

$("remote").addEventListener("resize", () => ($("stage").dataset.picture = "yes"));
$("unblock").onclick = () => document.querySelectorAll("#stage video").forEach((video) => play(video));
