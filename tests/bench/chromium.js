// Two connections of one page: how long they take to connect and to show, and how old what is shown is.
const [samples, seconds] = arguments;
window.results = null;
(async () => {
  const W = 640, H = 360, BITS = 24, SQUARE = 20;
  const canvas = Object.assign(document.createElement("canvas"), {width: W, height: H});
  const context = canvas.getContext("2d", {alpha: false});
  let number = 0;
  setInterval(() => {
    const code = Math.floor(performance.now());
    for (let bit = 0; bit < BITS; bit++) {
      for (const row of [0, 1]) {
        context.fillStyle = (code >> bit & 1) === (row === 0 ? 1 : 0) ? "#fff" : "#000";
        context.fillRect(bit * SQUARE, row * SQUARE, SQUARE, SQUARE);
      }
    }
    context.fillStyle = `hsl(${number * 7 % 360} 50% 50%)`;
    context.fillRect(number * 5 % W, 60, 90, H - 60);
    number++;
  }, 1000 / 30);
  const glass = Object.assign(document.createElement("canvas"), {width: BITS * SQUARE, height: 2 * SQUARE});
  const through = glass.getContext("2d", {willReadFrequently: true});
  const read = (video) => {
    through.drawImage(video, 0, 0, BITS * SQUARE, 2 * SQUARE, 0, 0, BITS * SQUARE, 2 * SQUARE);
    const {data} = through.getImageData(0, 0, BITS * SQUARE, 2 * SQUARE);
    let code = 0;
    for (let bit = 0; bit < BITS; bit++) {
      const at = (row) => data[4 * ((row * SQUARE + SQUARE / 2) * BITS * SQUARE + bit * SQUARE + SQUARE / 2)] > 128;
      if (at(0) === at(1)) return null;
      if (at(0)) code |= 1 << bit;
    }
    return code;
  };
  const connect = async () => {
    const began = performance.now();
    const [a, b] = [new RTCPeerConnection(), new RTCPeerConnection()];
    a.onicecandidate = ({candidate}) => candidate && b.addIceCandidate(candidate);
    b.onicecandidate = ({candidate}) => candidate && a.addIceCandidate(candidate);
    const video = Object.assign(document.createElement("video"), {muted: true, autoplay: true, playsInline: true});
    document.body.append(video);
    const connected = new Promise((done) => b.onconnectionstatechange = () =>
      b.connectionState === "connected" && done(performance.now() - began));
    const shown = new Promise((done) => video.requestVideoFrameCallback(() => done(performance.now() - began)));
    b.ontrack = ({streams}) => { video.srcObject = streams[0]; };
    const stream = canvas.captureStream(30);
    stream.getTracks().forEach((track) => a.addTrack(track, stream));
    await a.setLocalDescription();
    await b.setRemoteDescription(a.localDescription);
    await b.setLocalDescription();
    await a.setRemoteDescription(b.localDescription);
    return {a, b, video, connected: await connected, shown: await shown};
  };
  const setup = [];
  let last;
  for (let n = 0; n < samples; n++) {
    last?.a.close(); last?.b.close(); last?.video.remove();
    last = await connect();
    setup.push([last.connected, last.shown]);
  }
  const ages = [];
  const until = performance.now() + seconds * 1000;
  const each = () => {
    const code = read(last.video);
    if (code !== null) ages.push(performance.now() - code);
    if (performance.now() < until) last.video.requestVideoFrameCallback(each);
    else window.results = {setup, ages};
  };
  last.video.requestVideoFrameCallback(each);
})().catch((error) => { window.results = {error: String(error)}; });
