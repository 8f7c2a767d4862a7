// A worker that ticks every second: browsers slow the timers of hidden pages down to one tick a minute, but not a
// worker's.
setInterval(() => postMessage("tick"), 1000);
