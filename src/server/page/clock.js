// Calls `tick` every second, even while the page is hidden.
export function everySecond(tick) {
  const alone = () => setInterval(tick, 1000);
  try {
    const worker = new Worker(new URL("ticker.js", import.meta.url));
    worker.onmessage = tick;
    worker.onerror = alone;
  } catch {
    alone();
  }
}
