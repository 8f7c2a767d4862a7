// A page of RTCPool for the tests: ?server=URL&pool=NAME, and &media (or &media=MS, that much later), &channel for what
// it brings. A server of http:// speaks socket.io.
import { media, pool, signalling } from "rtcpool";
import { io } from "socket.io-client";

const wanted = new URLSearchParams(location.search);

// RTCPool keeps its RTCPeerConnections to itself: the one made last is the one of the peer it tells of next.
let last;
window.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(...args) {
    super(...args);
    last = this;
  }
  // With &slow=MS its descriptions take that long to leave: what it sends is there before they are.
  async setLocalDescription(description) {
    await super.setLocalDescription(description);
    await new Promise((done) => setTimeout(done, wanted.get("slow")));
  }
};
const server = wanted.get("server");
const isSocketIo = server.startsWith("http");
const socket = isSocketIo ? io(server, { reconnection: false, transports: wanted.has("polling") ? ["polling"] : ["polling", "websocket"] }) : new WebSocket(server);
const way = isSocketIo ? new signalling.socket.io(socket) : new signalling.websocket(socket);
const page = { pool: new pool.Pool({}, way), socket, connections: {}, videos: {}, channels: {}, heard: [], left: [], described: [] };
window.page = page;
const { events } = page.pool;

const adopt = (id, channel) => {
  page.channels[id] = channel;
  channel.onmessage = ({ data }) => page.heard.push([id, data]);
};
const open = (connection) => {
  if (wanted.has("channel")) adopt(connection.id, connection.dataChannel("chat", {}, true));
};

events.addEventListener("peer", ({ detail }) => (page.connections[detail.connection.id] = last));
let camera;
events.addEventListener("join", () => {
  page.joined = page.pool.id;
  page.pool.connections.forEach(open);
  events.addEventListener("peer", ({ detail }) => open(detail.connection));
  const show = () => (page.stream = new media.ManagedStream(camera, page.pool));
  if (camera) wanted.get("media") ? setTimeout(show, wanted.get("media")) : show();
});
events.addEventListener("track", (event) => {
  const id = event.connection;
  const video = (page.videos[id] ??= Object.assign(document.createElement("video"), { autoplay: true, srcObject: new MediaStream() }));
  document.body.append(video);
  video.srcObject.addTrack(event.track);
});
events.addEventListener("datachannel", (event) => adopt(event.connection, event.channel));
events.addEventListener("describe", ({ detail }) => page.described.push(detail));
events.addEventListener("close", ({ detail }) => detail && page.left.push(detail.id));

const join = async () => {
  if (wanted.has("media")) camera = await navigator.mediaDevices.getUserMedia({ audio: true, video: true });
  page.pool.join(wanted.get("pool"));
};
if (isSocketIo) socket.on("connect", join);
else if (socket.readyState === WebSocket.OPEN) join();
else socket.addEventListener("open", join);
