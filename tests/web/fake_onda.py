"""A small scripted stand-in for the server, on raw sockets, that does what a wire may do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio


class FakeOnda:
    """One stream `store:s1` with its sync and SSE, and commands with idempotency.

    Switches: `streams_up`, `streams_silent` (accepted, never a word), `sync_up`; `script` holds answers (raw
    bytes, or None to hang up) that the next command requests get before any is carried out.
    """

    def __init__(self) -> None:
        self.epoch = "e1"
        self.state: dict[str, dict[str, Any]] = {"orders": {}}
        self.events: list[dict[str, Any]] = []
        self.kept_from = 0
        self.streams_up = True
        self.streams_silent = False
        self.sync_up = True
        self.skip: set[int] = set()  # versions that the stream loses
        self.script: list[bytes | None] = []
        self.done: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.base = ""
        self.open_streams: set[trio.SocketStream] = set()
        self._more = trio.Event()
        self._sending = trio.Lock()

    def publish(self, order: str, entity: dict[str, Any] | None) -> None:
        """Append one event that sets (or, with None, removes) an order."""
        version = len(self.events) + 1
        if entity is None:
            self.state["orders"].pop(order, None)
        else:
            self.state["orders"][order] = entity
        self.events.append(
            {"id": f"id{version}", "cursor": self.cursor(version), "stream": "store:s1", "version": version,
             "type": "OrderChanged", "data": {}, "patch": {"orders": {order: entity}}}
        )  # fmt: skip
        self._more.set()
        self._more = trio.Event()

    def cursor(self, version: int | None = None) -> str:
        """The cursor of a version, by default of the head."""
        return f"{self.epoch}-{len(self.events) if version is None else version}"

    async def cut(self) -> None:
        """Break off every open stream."""
        for stream in list(self.open_streams):
            await trio.aclose_forcefully(stream)

    async def serve_one(self, stream: trio.SocketStream) -> None:
        """Answer requests on one connection."""
        try:
            async with stream:
                while await self._exchange(stream):
                    pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the client went away, or `cut` was called

    async def _exchange(self, stream: trio.SocketStream) -> bool:
        head = b""
        while b"\r\n\r\n" not in head:
            chunk = await stream.receive_some()
            if not chunk:
                return False
            head += chunk
        raw, _, body = head.partition(b"\r\n\r\n")
        first, *lines = raw.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        while len(body) < int(headers.get("content-length", "0")):
            body += await stream.receive_some()
        method, target, _ = first.split(" ")
        path, _, query = target.partition("?")
        self.requests.append((method, target, headers))
        asked = dict(pair.split("=") for pair in query.split("&") if pair)
        if "/s1/" not in path:
            await stream.send_all(problem(404, "unknown_store", "nobody made it"))
            return True
        if path.endswith("/sync"):
            return await self._sync(stream, asked)
        if path.endswith("/stream"):
            await self._stream(stream, asked)
            return False
        return await self._command(stream, headers, body)

    async def _sync(self, stream: trio.SocketStream, asked: dict[str, str]) -> bool:
        if not self.sync_up:
            return False
        after = self._known(asked.get("after"))
        if after is not None and "wait" in asked and after == len(self.events):
            with trio.move_on_after(int(asked["wait"])):
                await self._more.wait()
        if after is None:
            answer = {"feed": "store:s1", "mode": "snapshot", "cursor": self.cursor(), "state": self.state}
            if "after" in asked:
                answer["reset"] = {"reason": "expired"}
        else:
            answer = {"feed": "store:s1", "mode": "delta", "cursor": self.cursor(),
                      "events": self.events[after:], "more": False}  # fmt: skip
        await stream.send_all(answer_bytes(200, answer))
        return True

    def _known(self, cursor: str | None) -> int | None:
        if cursor is None:
            return None
        epoch, _, version = cursor.rpartition("-")
        return int(version) if epoch == self.epoch and int(version) >= self.kept_from else None

    async def _stream(self, stream: trio.SocketStream, asked: dict[str, str]) -> None:
        if not self.streams_up:
            await stream.send_all(problem(503, "overloaded", "no streams now"))
            return
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n")
        self.open_streams.add(stream)
        try:
            if self.streams_silent:
                await trio.sleep_forever()
            version = self._known(asked.get("after"))
            if version is None:
                raise NotImplementedError("this client syncs before it streams")
            async with self._sending:
                await stream.send_all(f"id: {self.cursor(version)}\n\n".encode())
            while True:
                for envelope in self.events[version:]:
                    if envelope["version"] not in self.skip:
                        block = f"id: {envelope['cursor']}\ndata: {json.dumps(envelope)}\n\n"
                        async with self._sending:
                            await stream.send_all(block.encode())
                version = len(self.events)
                await self._more.wait()
        finally:
            self.open_streams.discard(stream)

    async def _command(self, stream: trio.SocketStream, headers: dict[str, str], body: bytes) -> bool:
        if self.script:
            scripted = self.script.pop(0)
            if scripted is not None:
                await stream.send_all(scripted)
            return scripted is not None
        key = headers["idempotency-key"]
        replayed = key in self.done
        self.done.setdefault(key, {"cursor": self.cursor(), "events": [], "result": json.loads(body)})
        extra = {"Idempotent-Replayed": "true"} if replayed else {}
        await stream.send_all(answer_bytes(200, self.done[key], extra))
        return True

    async def ping(self, **more: Any) -> None:
        """Say that everything up to the head has been sent."""
        data = json.dumps({"time": "", "node": "n", "cursor": self.cursor(), **more})
        await self.say(f"event: ping\ndata: {data}\n\n")

    async def say(self, block: str) -> None:
        """Send raw text on every open stream."""
        async with self._sending:
            for stream in list(self.open_streams):
                try:
                    await stream.send_all(block.encode())
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    self.open_streams.discard(stream)  # its reader has left


def answer_bytes(
    status: int, body: Any, headers: dict[str, str] | None = None, kind: str = "application/json"
) -> bytes:
    """One whole HTTP/1.1 response."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + content


def problem(status: int, code: str, detail: str = "", headers: dict[str, str] | None = None) -> bytes:
    """A problem response as the contract has it."""
    return answer_bytes(status, {"code": code, "detail": detail}, headers, "application/problem+json")


@asynccontextmanager
async def open_fake(prepare: Callable[[FakeOnda], None] | None = None) -> AsyncIterator[FakeOnda]:
    """Serve a fake on a free port of the loopback."""
    fake = FakeOnda()
    if prepare is not None:
        prepare(fake)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        fake.base = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.start_soon(trio.serve_listeners, fake.serve_one, listeners)
        yield fake
        nursery.cancel_scope.cancel()
