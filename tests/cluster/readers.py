"""Readers: each follows one stream at one node by SSE, comes back with its cursor, and writes down all."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import trio

from tests.cluster.guests import TOKEN, Door, Said, Wire
from tests.cluster.history import Final, History, Sight, now_ns, split

PAUSE_S = 0.05
SILENCE_S = 4.0
"""A stream that says nothing for so long is left; pings come faster."""


def feed_of(stream: str) -> str:
    """Return a stream's path."""
    kind, _, rest = stream.partition(":")
    return f"{kind}s/{rest}"


class Reader:
    """One screen."""

    def __init__(self, name: str, door: Door, stream: str, history: History) -> None:
        self.name = name
        self.door = door
        self.stream = stream
        self.cursor = ""
        self.opened = 0
        self._history = history

    async def run(self) -> None:
        """Follow, and come back, until cancelled."""
        while True:
            with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                await self._follow()
            await trio.sleep(PAUSE_S)

    async def _follow(self) -> None:
        query = f"?after={self.cursor}" if self.cursor else ""
        request = (
            f"GET /v1/{feed_of(self.stream)}/stream{query} HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
        )
        with trio.move_on_after(SILENCE_S) as silence:
            async with await trio.open_tcp_stream("127.0.0.1", self.door.port) as wire:
                await wire.send_all(request.encode())
                data = b""
                while b"\r\n\r\n" not in data:
                    data += await self._more(wire)
                head, _, data = data.partition(b"\r\n\r\n")
                if head[9:12] != b"200":
                    return
                self.opened += 1
                chunked = b"transfer-encoding: chunked" in head.lower()
                body = Chunks() if chunked else None
                text = body.feed(data) if body else data
                while True:
                    *blocks, text = text.split(b"\n\n")
                    for block in blocks:
                        self._take(block)
                    silence.deadline = trio.current_time() + SILENCE_S
                    more = await self._more(wire)
                    text += body.feed(more) if body else more

    async def _more(self, wire: trio.SocketStream) -> bytes:
        chunk = await wire.receive_some(65_536)
        if not chunk:
            raise trio.BrokenResourceError("it was closed")
        return chunk

    def _take(self, block: bytes) -> None:
        fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
        event, data = fields.get(b"event", b"").decode(), fields.get(b"data")
        body = msgspec.json.decode(data) if data else {}
        if event == "bye" or (b"id" not in fields and "cursor" not in body):
            return
        cursor = fields[b"id"].decode() if b"id" in fields else body["cursor"]
        what = event or ("event" if data else "resumed")
        epoch, version = split(cursor)
        sight = Sight(self.name, self.door.name, self.stream, now_ns(), what, epoch, version)
        if what in ("snapshot", "reset"):
            sight = sight._replace(state=body["state"], reason=body.get("reason", ""))
        elif what == "event":
            sight = sight._replace(envelope=body)
        self._history.sights.append(sight)
        self.cursor = cursor


class Chunks:
    """Takes HTTP's chunked framing off."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """Return what of the body is complete."""
        self._rest += data
        body = b""
        while b"\r\n" in self._rest:
            line, _, rest = self._rest.partition(b"\r\n")
            size = int(line, 16)
            if len(rest) < size + 2:
                break
            body += rest[:size]
            self._rest = rest[size + 2 :]
        return body


async def look(door: Door, stream: str) -> Final | None:
    """Ask a node what a stream is; `None` when it does not say."""
    said = await _ask(door, f"{feed_of(stream)}/sync")
    if said is None or said.status != 200:
        return None
    epoch, version = split(said.body["cursor"])
    return Final(door.name, stream, epoch, version, said.body["state"])


async def reset_for(door: Door, stream: str, cursor: str) -> str:
    """Return why a node does not go on after a cursor; empty when it does, or does not say."""
    said = await _ask(door, f"{feed_of(stream)}/sync?after={cursor}")
    found = said.body.get("reset") if said is not None and said.status == 200 else None
    return str(found["reason"]) if found else ""


async def _ask(door: Door, path: str) -> Said | None:
    wire = Wire(door.port)
    try:
        return await wire.ask("GET", path)
    finally:
        await wire.close()
