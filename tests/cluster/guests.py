"""Guests of a shop with several nodes: each sends one command at a time, and writes down every attempt.

What has no answer, or was turned away, is sent again at the next node, with the same key.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
import trio

from tests.chaos.process import token
from tests.cluster.history import Call, History, Outcome, now_ns, split

HOT = ("h1", "h2")
COLD_TABLES = 12
COUNTED = "cola"
PRODUCTS = 2
COUNTED_PUT = 400
COUPON = "welcome"
COUPONS = 300

ANSWER_S = 2.5
PAUSE_S = 0.1
THINK_S = 0.02
SETTLE_S = 45.0
"""How long one command may take, over all attempts."""

LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


class Door(NamedTuple):
    """Where a node is."""

    name: str
    port: int


class Said(NamedTuple):
    """An answer as it came."""

    status: int
    head: bytes
    body: dict[str, Any]

    def has(self, header: bytes) -> bool:
        return b"\r\n" + header.lower() + b":" in self.head.lower()


class Wire:
    """One kept-alive connection to a node, one request at a time; closed by whatever goes wrong."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stream: trio.SocketStream | None = None

    async def ask(self, method: str, path: str, body: Any = None, key: str = "") -> Said | None:
        """Return the answer; `None` when there is none."""
        content = b"" if body is None else msgspec.json.encode(body)
        head = (
            f"{method} /v1/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        )
        if key:
            head += f"Idempotency-Key: {key}\r\n"
        answer = None
        try:
            with trio.move_on_after(ANSWER_S), suppress(OSError, trio.BrokenResourceError):
                answer = await self._exchange(f"{head}\r\n".encode() + content)
        finally:
            if answer is None or b"connection: close" in answer.head.lower():
                with trio.CancelScope(shield=True):
                    await self.close()
        return answer

    async def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await trio.aclose_forcefully(stream)

    async def _exchange(self, request: bytes) -> Said:
        if self._stream is None:
            self._stream = await trio.open_tcp_stream("127.0.0.1", self._port)
        await self._stream.send_all(request)
        data = bytearray()
        while True:
            head, found, content = bytes(data).partition(b"\r\n\r\n")
            if found and (length := LENGTH.search(head)) and len(content) >= int(length[1]):
                return Said(int(head[9:12]), head, msgspec.json.decode(content) if content else {})
            chunk = await self._stream.receive_some(262_144)
            if not chunk:
                raise trio.BrokenResourceError("closed in the middle of an answer")
            data += chunk


TOKEN = token()


class Wish(NamedTuple):
    """A command to send."""

    stream: str
    command: str
    body: dict[str, Any]

    @property
    def path(self) -> str:
        kind, _, rest = self.stream.partition(":")
        return f"{kind}s/{rest}/{self.command}"


class Guest:
    """One client. `doors[0]` is its own node. `enough`: ends after the command under way."""

    def __init__(self, number: int, doors: Sequence[Door], history: History, seed: int) -> None:
        self.number = number
        self.doors = list(doors)
        self.chance = random.Random(f"{seed}.{number}")
        self.enough = False
        self.stuck: list[str] = []
        self._history = history
        self._wires = {door.name: Wire(door.port) for door in doors}
        self._count = 0

    async def run(self) -> None:
        """Send commands until it is enough."""
        try:
            while not self.enough:
                await self.settle(self._wish(), self._key())
                await trio.sleep(self.chance.uniform(0, THINK_S))
        finally:
            await self.leave()

    async def leave(self) -> None:
        """Close every connection."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
            for wire in self._wires.values():
                await wire.close()

    async def settle(self, wish: Wish, key: str) -> Call | None:
        """Send a command until there is an answer for good: the last attempt; `None` when there is none."""
        doors = list(self.doors)
        with trio.move_on_after(SETTLE_S):
            while True:
                call = await self.attempt(doors[0], wish, key)
                if call.outcome in (Outcome.OK, Outcome.REFUSED):
                    return call
                doors.append(doors.pop(0))
                await trio.sleep(self.chance.uniform(0, PAUSE_S))
        self.stuck.append(f"{wish.command} {key} of guest {self.number}")
        return None

    async def attempt(self, door: Door, wish: Wish, key: str) -> Call:
        """Send a command once, and write down what became of it."""
        called_ns = now_ns()
        said = None
        try:
            said = await self._wires[door.name].ask("POST", wish.path, wish.body, key)
        finally:
            call = self._judge(said, door.name, wish, key, called_ns)
            self._history.calls.append(call)
        return call

    def _judge(self, said: Said | None, node: str, wish: Wish, key: str, called_ns: int) -> Call:
        place = (self.number, node, *wish, key, called_ns, now_ns())
        if said is None:
            return Call(*place, Outcome.UNKNOWN, "no answer")
        if said.status in (200, 202):
            epoch, version = split(said.body["cursor"])
            events, result = tuple(said.body["events"]), said.body["result"]
            replayed = said.has(b"Idempotent-Replayed")
            return Call(*place, Outcome.OK, "", False, replayed, epoch, version, events, result)
        code = said.body.get("code", f"status {said.status}")
        outcome = {503: Outcome.UNAVAILABLE, 504: Outcome.UNKNOWN}.get(said.status, Outcome.REFUSED)
        return Call(*place, outcome, code, said.has(b"Retry-After"))

    def _key(self) -> str:
        self._count += 1
        return f"g{self.number}.{self._count}"

    def _wish(self) -> Wish:
        store = self.chance.choice(HOT)
        match self.chance.choices(("order", "counted", "coupon", "cart"), (5, 2, 3, 3))[0]:
            case "order":
                return Wish(
                    f"store:{store}", "create-order", {"lines": [{"product": "ramen", "quantity": 1}]}
                )
            case "counted":
                line = {"product": COUNTED, "quantity": self.chance.randint(1, 3)}
                return Wish(f"store:{store}", "create-order", {"lines": [line]})
            case "coupon":
                holder = f"u{self.number}-{self._count}"
                return Wish(f"store:{store}", "issue-coupon", {"coupon": COUPON, "user": holder})
            case _:
                table = self.chance.randint(1, COLD_TABLES)
                line = {"product": "ramen", "quantity": 1, "note": self._key()}
                return Wish(f"table:{store}/{table}", "add-to-cart", line)


def opening() -> list[Wish]:
    """What makes the shops, their tables and their coupons."""
    wishes = []
    for store in HOT:
        stream = f"store:{store}"
        wishes += [
            Wish(stream, "configure-store", {"name": "온다 분식", "payment_mode": "postpay"}),
            Wish(stream, "put-product", {"product": "ramen", "name": "Ramen", "price": 4500}),
            Wish(
                stream,
                "put-product",
                {"product": COUNTED, "name": "Cola", "price": 2000, "stock": COUNTED_PUT},
            ),
            Wish(stream, "create-coupon", {"coupon": COUPON, "name": "W", "discount": 100, "stock": COUPONS}),
            Wish(stream, "open-store", {}),
        ]
        wishes += [
            Wish(f"table:{store}/{table}", "open-table", {"guests": 2}) for table in range(1, COLD_TABLES + 1)
        ]
    return wishes


def streams() -> list[str]:
    """Every stream that guests write to, the hot ones first."""
    tables = [f"table:{store}/{table}" for store in HOT for table in range(1, COLD_TABLES + 1)]
    return [*(f"store:{store}" for store in HOT), *tables]
