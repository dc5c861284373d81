"""A lean HTTP/1.1 client for load: one kept-alive connection, one request at a time, and nothing else.

It reads only answers as Onda gives them (with a length). What breaks is dialled again, and the same request
is sent again with the same key, until it is answered for good.
"""

from __future__ import annotations

import random
import re
from typing import Any, NamedTuple

import msgspec
import trio

LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
REPLAYED = re.compile(rb"(?i)\r\nidempotent-replayed: *true")
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may be sent again."""
PAUSE_S = 0.2
ANSWER_S = 10.0


class Said(NamedTuple):
    """An answer. `code` is empty when it is a good one, `result` when it is not."""

    status: int
    code: str
    result: dict[str, Any]
    replayed: bool

    @property
    def meaning(self) -> tuple[str, str]:
        """What has to be the same when the same is asked again."""
        return self.code, msgspec.json.encode(self.result, order="deterministic").decode()


class Line:
    """One connection to a port of this machine. `broken`: how often it had to begin again."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stream: trio.SocketStream | None = None
        self.broken = 0

    async def send(self, path: str, token: str, body: dict[str, Any], key: str) -> Said:
        """Send a command until it is answered, with the same key."""
        content = msgspec.json.encode(body)
        head = (
            f"POST /v1/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
            f"Idempotency-Key: {key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        while True:
            with trio.move_on_after(ANSWER_S):
                try:
                    head_back, content_back = await self._exchange(head.encode() + content)
                except (OSError, trio.BrokenResourceError):
                    pass
                else:
                    status = int(head_back[9:12])
                    if status not in AGAIN:
                        return _read(status, head_back, content_back)
            await self.hang_up()
            self.broken += 1
            await trio.sleep(random.uniform(0, PAUSE_S))

    async def hang_up(self) -> None:
        """Close the connection, if there is one."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await trio.aclose_forcefully(stream)

    async def _exchange(self, request: bytes) -> tuple[bytes, bytes]:
        if self._stream is None:
            self._stream = await trio.open_tcp_stream("127.0.0.1", self._port)
        await self._stream.send_all(request)
        data = b""
        while True:
            head, found, content = data.partition(b"\r\n\r\n")
            if found and (length := LENGTH.search(head)) and len(content) >= int(length[1]):
                return head, content
            chunk = await self._stream.receive_some(65_536)
            if not chunk:
                raise trio.BrokenResourceError("closed in the middle of an answer")
            data += chunk


def _read(status: int, head: bytes, content: bytes) -> Said:
    body = msgspec.json.decode(content)
    return Said(status, body.get("code", ""), body.get("result", {}), REPLAYED.search(head) is not None)
