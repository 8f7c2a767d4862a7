"""aiortc with itself: how long it takes to connect and to show, and how old what is shown is. JSON on stdout."""

import asyncio
import fractions
import json
import sys
import time

import numpy
from aiortc import MediaStreamTrack, RTCPeerConnection
from av import VideoFrame

WIDTH, HEIGHT, FPS, BITS, SQUARE = 640, 360, 30, 24, 20
BEGAN = time.perf_counter()


def now():
    return (time.perf_counter() - BEGAN) * 1000


class Camera(MediaStreamTrack):
    kind = "video"

    def __init__(self):
        super().__init__()
        self.number = 0
        self.began = time.perf_counter()

    async def recv(self):
        due = self.began + self.number / FPS
        await asyncio.sleep(max(0, due - time.perf_counter()))
        luma = numpy.full((HEIGHT * 3 // 2, WIDTH), 128, numpy.uint8)
        x = self.number * 5 % (WIDTH - 90)
        luma[60:HEIGHT, x : x + 90] = 200
        code = int(now())
        for bit in range(BITS):
            on = bool(code >> bit & 1)
            luma[0:SQUARE, bit * SQUARE : (bit + 1) * SQUARE] = 235 if on else 16
            luma[SQUARE : 2 * SQUARE, bit * SQUARE : (bit + 1) * SQUARE] = 16 if on else 235
        frame = VideoFrame.from_ndarray(luma, format="yuv420p")
        frame.pts, frame.time_base = self.number * 90000 // FPS, fractions.Fraction(1, 90000)
        self.number += 1
        return frame


def read(frame):
    luma = frame.to_ndarray(format="gray8")
    middle = SQUARE // 2
    code = 0
    for bit in range(BITS):
        upper, lower = (luma[row * SQUARE + middle][bit * SQUARE + middle] > 128 for row in (0, 1))
        if upper == lower:
            return None
        code |= int(upper) << bit
    return code


async def connect():
    began = now()
    a, b = RTCPeerConnection(), RTCPeerConnection()
    track, connected = asyncio.get_running_loop().create_future(), asyncio.get_running_loop().create_future()
    b.on("track", lambda found: track.set_result(found))

    @b.on("connectionstatechange")
    def changed():
        if b.connectionState == "connected" and not connected.done():
            connected.set_result(now() - began)

    a.addTrack(Camera())
    await a.setLocalDescription(await a.createOffer())
    await b.setRemoteDescription(a.localDescription)
    await b.setLocalDescription(await b.createAnswer())
    await a.setRemoteDescription(b.localDescription)
    found = await track
    await found.recv()
    shown = now() - began
    return a, b, found, await connected, shown


async def main(samples, seconds):
    setup, ages = [], []
    for n in range(samples + 1):
        a, b, track, connected, shown = await connect()
        # The first is not warm, the last is kept.
        if n > 0:
            setup.append([connected, shown])
        if n == samples:
            until = now() + seconds * 1000
            while now() < until:
                code = read(await track.recv())
                if code is not None:
                    ages.append(now() - code)
        await a.close()
        await b.close()
    print(json.dumps({"setup": setup, "ages": ages}))


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
