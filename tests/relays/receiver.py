"""A receiver of webhooks on a real socket that misbehaves as told; and how it checks what it gets.

The check of signatures is written from the text of Standard Webhooks, with HMAC by hand (RFC 2104): nothing
of it is shared with the sender.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import h11
import msgspec
import trio

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
KEY = bytes(range(32))


class Delivery:
    """One request that came in whole."""

    def __init__(self, target: str, headers: dict[str, str], body: bytes) -> None:
        self.target = target
        self.headers = headers
        self.body = body

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def message(self) -> dict[str, Any]:
        return msgspec.json.decode(self.body)

    def signatures(self) -> list[str]:
        return self.headers["webhook-signature"].split(" ")


class Receiver:
    """Answers 200 unless a fault is waiting. `taken`: what it acted on, each id once; `seen`: every request.

    Faults, one for each request: a status (`"500"`, `"429 7"` with Retry-After), `reset` (the connection
    breaks before the body is read), `lost` (it acts, and the connection breaks before the answer), `stall`
    (it never answers), `garbage` (what it answers is not HTTP), `flood` (it answers 200 and never stops).
    """

    def __init__(self) -> None:
        self.faults: deque[str] = deque()
        self.judge: Callable[[Delivery], str] = lambda _: ""
        self.seen: list[Delivery] = []
        self.taken: list[Delivery] = []
        self.connections = 0
        self.port = 0
        self._ids: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks?key=k"

    def orders(self, stream: str) -> list[str]:
        """Which orders of a stream it acted on, in the order in which it did."""
        return [taken.message["data"]["order"] for taken in self.taken if taken.message["stream"] == stream]

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection."""
        self.connections += 1
        try:
            async with stream:
                http = h11.Connection(h11.SERVER)
                while await self._answer(stream, http):
                    http.start_next_cycle()
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            return  # the other end is gone

    async def _answer(self, stream: trio.SocketStream, http: h11.Connection) -> bool:
        request = await _event(stream, http)
        if not isinstance(request, h11.Request):
            return False
        fault = self.faults.popleft() if self.faults else ""
        if fault == "reset":
            return _reset(stream)
        body = b""
        while isinstance(event := await _event(stream, http), h11.Data):
            body += event.data
        headers = {name.decode(): value.decode() for name, value in request.headers}
        delivery = Delivery(request.target.decode(), headers, body)
        self.seen.append(delivery)
        fault = fault or self.judge(delivery)
        if fault == "stall":
            await trio.sleep_forever()
        if fault == "garbage":
            await stream.send_all(b"Please hold the line.\r\n\r\n")
            return False
        if fault in ("", "lost", "flood"):
            self._act(delivery)
        if fault == "lost":
            return _reset(stream)
        await self._say(stream, http, fault)
        return True

    def _act(self, delivery: Delivery) -> None:
        if delivery.id not in self._ids:
            self._ids.add(delivery.id)
            self.taken.append(delivery)

    async def _say(self, stream: trio.SocketStream, http: h11.Connection, fault: str) -> None:
        if fault == "flood":
            await stream.send_all(http.send(h11.Response(status_code=200, headers=[("x", "y")])))
            while True:
                await stream.send_all(http.send(h11.Data(data=bytes(16_384))))
        status, _, retry_after = fault.partition(" ")
        headers = [("content-length", "3")]
        if retry_after:
            headers.append(("retry-after", retry_after))
        if status.startswith("3"):
            headers.append(("location", f"http://127.0.0.1:{self.port}/elsewhere"))
        answer = http.send(h11.Response(status_code=int(status or 200), headers=headers))
        await stream.send_all(answer + http.send(h11.Data(data=b"ok\n")) + http.send(h11.EndOfMessage()))


async def _event(stream: trio.SocketStream, http: h11.Connection) -> Any:
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(await stream.receive_some(65_536))
    return event


def _reset(stream: trio.SocketStream) -> bool:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()
    return False


@asynccontextmanager
async def open_receiver(receiver: Receiver | None = None) -> AsyncIterator[Receiver]:
    """Listen, on the port that the receiver had before if it had one; refuse everything afterwards."""
    receiver = receiver or Receiver()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(receiver.port, host="127.0.0.1")
        receiver.port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, receiver.serve, listeners)
        yield receiver
        nursery.cancel_scope.cancel()


def signature_by_hand(key: bytes, id_: str, timestamp: str, body: bytes) -> str:
    """HMAC-SHA256 over `id.timestamp.body`, as RFC 2104 writes it down."""
    block = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
    inner.update(f"{id_}.{timestamp}.".encode() + body)
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block) + inner.digest())
    return "v1," + base64.b64encode(outer.digest()).decode()
