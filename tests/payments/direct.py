"""A gateway without sockets: httpx requests go straight into a sandbox, also under a clock that jumps."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable

import httpx
import trio

from web.messages import Request
from web.sandbox.handlers import Sandbox
from web.sandbox.server import finish


class DirectTransport(httpx.AsyncBaseTransport):
    """Carries requests to a sandbox. What has begun there is finished also when the caller gives up.

    Args:
        nursery: where the sandbox works.
        delay_s: called once before and once after each request: how long it is under way.
        reachable: asked before each request; false is a refused connection.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        nursery: trio.Nursery,
        *,
        delay_s: Callable[[], float] = lambda: 0.0,
        reachable: Callable[[], bool] = lambda: True,
    ) -> None:
        self.sandbox = sandbox
        self._nursery = nursery
        self._delay_s = delay_s
        self._reachable = reachable

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = b"".join([part async for part in request.stream])  # type: ignore[union-attr]
        if not self._reachable():
            raise httpx.ConnectError("refused", request=request)
        await trio.sleep(self._delay_s())
        headers = {name.lower(): value for name, value in request.headers.items()}
        path, _, query = request.url.raw_path.decode("ascii").partition("?")
        reply = await finish(self._nursery, self.sandbox, Request(request.method, path, query, headers, body))
        await trio.sleep(self._delay_s())
        if reply.cut:
            raise httpx.RemoteProtocolError("the connection was cut", request=request)
        return httpx.Response(reply.status, headers=reply.headers, stream=_Parts([reply.body]))


class _Parts(httpx.AsyncByteStream):
    def __init__(self, parts: list[bytes]) -> None:
        self._parts = parts

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._parts:
            raise StopAsyncIteration
        return self._parts.pop(0)


def virtual_now_ms(start_ms: int = 1_800_000_000_000) -> Callable[[], int]:
    """Return a clock for the ledger that goes with trio's."""
    began = trio.current_time()
    return lambda: start_ms + round((trio.current_time() - began) * 1000)


def seeded(seed: int) -> random.Random:
    """Return dice for a sandbox."""
    return random.Random(seed)
