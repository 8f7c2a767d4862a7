// A server of ssp 2 over socket.io, as small as it goes: node server.js; tells its port.
const { Server } = require("socket.io");
const http = require("http").createServer();
const io = new Server(http);

io.on("connection", (socket) => {
  let pool;
  const others = () => [...(io.sockets.adapter.rooms.get(pool) ?? [])].filter((id) => id !== socket.id);
  const relay = (to, kind, data) => others().includes(to) && io.to(to).emit(kind, data);
  socket.on("rtc:join", (data) => {
    pool = data.pool;
    socket.emit("rtc:joined", { client_id: socket.id, peers: others(), descriptions: {}, pool });
    socket.join(pool);
    socket.to(pool).emit("rtc:peer", { id: socket.id });
    socket.emit("motd", { transport: socket.conn.transport.name });
  });
  socket.on("rtc:sdp", ({ to, description }) => relay(to, "rtc:sdp", { peer: socket.id, description }));
  socket.on("rtc:candidate", (data) => relay(data.for, "rtc:candidate", { candidate: data.candidate, from: socket.id }));
  socket.on("greet", (data) => socket.emit("greeted", data));
  socket.on("disconnect", () => pool && io.to(pool).emit("rtc:close", { uid: socket.id, id: socket.id }));
});
http.listen(0, "127.0.0.1", () => console.log(`port ${http.address().port}`));
