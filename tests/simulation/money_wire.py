"""The way to the gateway, which delays, loses and doubles what it carries; it remembers each request."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import httpx
import trio

from tests.simulation.money_checks import Call

CALM: dict[str, float] = {}
BAD = {
    "lost": 0.07,
    "dropped": 0.1,
    "late": 0.07,
    "behind": 0.08,
    "twice": 0.1,
    "garbled": 0.05,
    "proxy": 0.04,
    "spoilt": 0.05,
}
"""How often what happens to a request: never arrives; its answer is lost; its answer comes too late; it
arrives long after everybody has given up on it; it arrives twice; nobody can read the answer; somebody on
the way answers instead of the gateway, or in place of its answer.
"""
DOWN = {"down": 0.9, "lost": 0.05}
OUTAGE = {"down": 1.0}
WEATHERS = (CALM, CALM, BAD, BAD, DOWN)


class Wire(httpx.AsyncBaseTransport):
    """Carries requests to `inner`, the gateway.

    Attributes:
        calls: what left for the gateway, with the log's head at that moment.
        faults: how often what happened.
        behind: requests that are still on their way, though nobody waits for them.
    """

    def __init__(self, chance: random.Random, head: Callable[[], int], timeout_s: float) -> None:
        self._chance = chance
        self._head = head
        self._timeout_s = timeout_s
        self.weather = CALM
        self.calls: list[Call] = []
        self.faults: Counter[str] = Counter()
        self.behind = 0

    def lay(self, nursery: trio.Nursery, inner: httpx.AsyncBaseTransport) -> None:
        """Lead to a gateway from now on."""
        self._nursery = nursery
        self.inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        chance = self._chance
        fault = self._fault()
        if fault == "down":
            await trio.sleep(chance.random() / 10)
            raise httpx.ConnectError("nobody listens")
        content = await request.aread()
        self.calls.append(_call(request, self._head()))
        await trio.sleep(chance.random() / 20)
        if fault == "lost":
            raise httpx.ReadError("the connection broke")
        if fault == "behind":
            self.behind += 1
            self._nursery.start_soon(self._deliver_late, _copy(request, content))
            raise httpx.ReadTimeout("no answer")
        if fault == "proxy":
            return httpx.Response(502, stream=httpx.ByteStream(b"<html>bad gateway</html>"))
        if fault == "twice":
            with suppress(httpx.HTTPError):
                await (await self.inner.handle_async_request(_copy(request, content))).aread()
        response = await self.inner.handle_async_request(_copy(request, content))
        if fault == "late":
            await trio.sleep(self._timeout_s * (0.5 + chance.random()))
        await trio.sleep(chance.random() / 20)
        if fault == "dropped":
            raise httpx.RemoteProtocolError("the connection was closed without an answer")
        if fault == "spoilt":
            return httpx.Response(500, stream=httpx.ByteStream(b'{"code": "internal"}'))
        if fault == "garbled":
            return httpx.Response(200, stream=httpx.ByteStream(b"{"))
        return response

    async def _deliver_late(self, request: httpx.Request) -> None:
        await trio.sleep(self._chance.random() * 60)
        with suppress(httpx.HTTPError):
            await (await self.inner.handle_async_request(request)).aread()
        self.behind -= 1

    def _fault(self) -> str:
        point = self._chance.random()
        for name, share in self.weather.items():
            point -= share
            if point < 0:
                self.faults[name] += 1
                return name
        return ""


def _copy(request: httpx.Request, content: bytes) -> httpx.Request:
    return httpx.Request(request.method, request.url, headers=request.headers, content=content)


def _call(request: httpx.Request, head: int) -> Call:
    key = request.headers.get("idempotency-key", "")
    match request.method, request.url.path:
        case "POST", "/v1/checkouts":
            return Call(head, "open", key)
        case "POST", "/v1/charges":
            return Call(head, "approve", key)
        case "GET", "/v1/charges":
            return Call(head, "query", request.url.params["attempt"])
        case "POST", "/v1/cancels":
            return Call(head, "cancel", key)
        case method, path:
            raise AssertionError(f"what is {method} {path}?")
