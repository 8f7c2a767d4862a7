// Statistics over the video, updated every second while they are shown.

import { shown } from "./names.js";
import { $ } from "./view.js";

const before = new Map();
async function show(calls, isRoom) {
  if (!calls.length) before.clear();
  if (!calls.length || $("stats").hidden) return;
  const rows = [];
  const rate = (report, bytes) => {
    const key = `${report.peer} ${report.id}`;
    const last = before.get(key);
    before.set(key, { bytes, time: report.timestamp });
    return last ? Math.max(0, Math.round((8 * (bytes - last.bytes)) / (report.timestamp - last.time))) : 0;
  };
  const reports = new Map();
  for (const { peer, pc } of calls) {
    (await pc.getStats()).forEach((report) => reports.set(`${peer} ${report.id}`, { ...report, peer, of: (id) => reports.get(`${peer} ${id}`) }));
  }
  const codec = (report) => report.of(report.codecId)?.mimeType.split("/")[1] ?? "";
  reports.forEach((report) => {
    if (report.type === "inbound-rtp") {
      const size = report.frameWidth ? `${report.frameWidth}×${report.frameHeight} ${Math.round(report.framesPerSecond ?? 0)} fps ` : "";
      rows.push([`${report.kind} in`, `${codec(report)} ${size}${rate(report, report.bytesReceived)} kbit/s`]);
      rows.push(["", `${report.packetsLost} lost, jitter ${Math.round(1000 * report.jitter)} ms`]);
    } else if (report.type === "outbound-rtp") {
      const size = report.frameWidth ? `${report.frameWidth}×${report.frameHeight} ${Math.round(report.framesPerSecond ?? 0)} fps ` : "";
      rows.push([`${report.kind} out`, `${codec(report)} ${size}${rate(report, report.bytesSent)} kbit/s`]);
    } else if (report.type === "transport") {
      const pair = report.of(report.selectedCandidatePairId);
      rows.push([isRoom ? `round trip ${shown(report.peer, 24)}` : "round trip", `${Math.round(1000 * (pair?.currentRoundTripTime ?? 0))} ms`]);
    }
  });
  $("stats").replaceChildren(
    ...rows.flatMap((row) =>
      row.map((text, i) => {
        const cell = document.createElement(i ? "dd" : "dt");
        cell.textContent = text;
        return cell;
      }),
    ),
  );
}

// `calls` returns the current calls, and `isRoom` returns whether they belong to a room, where rows name their peers.
export function onStats(calls, isRoom) {
  setInterval(() => show(calls(), isRoom()), 1000);
  $("show-stats").onclick = () => {
    $("stats").hidden = !$("stats").hidden;
    $("show-stats").setAttribute("aria-pressed", String(!$("stats").hidden));
    show(calls(), isRoom());
  };
}
