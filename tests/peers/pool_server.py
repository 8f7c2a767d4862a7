"""The test server of PyRTC at a free port, which it prints. Three of its faults would end it, or a connection, by chance."""

import socket
import time

from pyrtc import test, transport
from wsproto.connection import ConnectionState


class Listener(socket.socket):
    def listen(self, backlog):
        super().listen(backlog)
        print(self.getsockname()[1], flush=True)


def is_open(connection):
    return not connection._closed and connection._conn.state in (ConnectionState.CONNECTING, ConnectionState.OPEN)


def receive(connection, receive=transport.Websocket.receive):
    try:
        receive(connection)
    except ConnectionError:
        connection._closed = True


socket.socket = Listener
# It uses a module that it does not import when a socket accepts nothing.
transport.time = time
# It forgets a connection whose request for an upgrade comes later than the connection.
transport.Websocket.open = property(is_open)
# It ends when a connection is reset.
transport.Websocket.receive = receive
test.main(0)
