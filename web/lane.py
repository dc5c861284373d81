"""The way from the edge to Hypercorn: one request at a time, or a connection for good after an upgrade.

The edge reads and checks every request, also those that it does not answer itself. Such a one goes, as the
bytes that came, through a `Lane` to a Hypercorn connection of its own that writes to the same socket. When
the answer is out the lane is free, and the edge goes on reading; what came meanwhile it gets from the lane.
"""

from __future__ import annotations

from urllib.parse import unquote

import trio
from hypercorn.events import Event, Updated
from quart_trio import QuartTrio

from web.connection import BoundedStream, Connection

EARLY_BYTES_MAX = 64 * 1024
"""What a client may send on while its request is being answered; then it has to wait."""


AT_ONCE = 32
"""Pages that are made at the same time, so that however many are asked for, orders come through."""


class Pages:
    """Which paths are Quart's own; all others are the API's, which the edge answers by itself."""

    def __init__(self, app: QuartTrio) -> None:
        rules = [rule.rule for rule in app.url_map.iter_rules() if not rule.rule.startswith("/<path:")]
        self._exact = frozenset(rule for rule in rules if "<" not in rule)
        self._prefixes = tuple(rule.partition("<")[0] for rule in rules if "<" in rule)
        self.limiter = trio.CapacityLimiter(AT_ONCE)

    def __contains__(self, path: str) -> bool:
        """Return whether Quart would find a path, as it came, among its own: it looks at it decoded, and
        however many slashes it begins with.
        """
        if "%" in path or path.startswith("//"):
            path = "/" + unquote(path).lstrip("/")
        return path in self._exact or path.startswith(self._prefixes)


class Lane(BoundedStream):
    """The socket as Hypercorn sees it: it reads what the edge gives, and sends by itself. `closed`: Hypercorn
    has done with it.
    """

    def __init__(self, stream: trio.SocketStream, send_timeout_s: float) -> None:
        super().__init__(stream, send_timeout_s)
        self.for_good = False
        self.closed = trio.Event()
        self._given = b""
        self._busy = False
        self._gone = False
        self._retired = False
        self._early = bytearray()
        self._bell = trio.Event()
        self._free = trio.Event()
        self._watching: trio.CancelScope | None = None
        self._limiter: trio.CapacityLimiter | None = None

    # The edge's side

    async def pass_on(
        self, data: bytes, *, for_good: bool = False, limiter: trio.CapacityLimiter | None = None
    ) -> bool:
        """Have one request answered; true when the connection can go on with the next.

        Args:
            data: the request as it came; for good: and whatever came after it.
            for_good: everything that comes from now on is Hypercorn's.
            limiter: bounds how many answers are being made; who only takes his slowly does not count.
        """
        if limiter is not None:
            await limiter.acquire_on_behalf_of(self)
            self._limiter = limiter
        try:
            self._given = data
            self.for_good = for_good
            self._busy = True
            self._free = trio.Event()
            self._bell.set()
            await self._free.wait()
        finally:
            self._release()
        return not self._gone

    def _release(self) -> None:
        if self._limiter is not None:
            self._limiter.release_on_behalf_of(self)
            self._limiter = None

    def take_early(self) -> bytes:
        """Return what the client sent while its request was being answered."""
        early = bytes(self._early)
        self._early.clear()
        return early

    def leave(self) -> None:
        """There will be no more requests."""
        self._gone = True
        self._bell.set()

    def retire(self) -> None:
        """There will be no more requests, and the socket goes on without Hypercorn."""
        self._retired = True
        self.leave()

    # Hypercorn's side

    def answered(self) -> None:
        """The answer is out and Hypercorn would read the next request.

        The edge goes on only once the reader has come to rest: until then it may hold bytes.
        """
        self._busy = False
        if self._watching is not None:
            self._watching.cancel()
        self._bell.set()

    async def send_all(self, data: bytes) -> None:
        self._release()
        await super().send_all(data)

    async def receive_some(self, bytes_max: int) -> bytes:
        """Receive what the edge gives; while an answer is being made, watch whether the client leaves."""
        while True:
            if self._given:
                data, self._given = self._given, b""
                return data
            if self._gone:
                return b""
            if self.for_good:
                return await super().receive_some(bytes_max)
            if self._busy and len(self._early) < EARLY_BYTES_MAX:
                with trio.CancelScope() as self._watching:
                    data = await super().receive_some(EARLY_BYTES_MAX)
                    if not data:
                        self._gone = True
                    self._early += data
                self._watching = None
                continue
            if not self._busy:
                self._free.set()
            self._bell = trio.Event()
            await self._bell.wait()

    async def send_eof(self) -> None:
        if not self._retired:
            await super().send_eof()

    async def aclose(self) -> None:
        if self._retired:
            return
        self._gone = True
        try:
            await super().aclose()
        finally:
            self._free.set()

    def abort(self) -> None:
        if self._retired:
            self.scope.cancel()
            return
        super().abort()
        self._gone = True
        self._free.set()


class Handed(Connection):
    """Hypercorn's server for the requests of a lane; the edge sees to idle connections, unless it has left
    this one to Hypercorn for good.
    """

    stream: Lane

    async def protocol_send(self, event: Event) -> None:
        if self.stream.for_good or not isinstance(event, Updated):
            await super().protocol_send(event)
            return
        self._idle = event.idle
        if event.idle:
            self.stream.answered()
        else:
            await self.idle_task.stop()

    async def _idle_timeout(self) -> None:
        """Also ends what is idle when the server stops, and a request that was just given would seem so."""
        if self.stream.for_good:
            await super()._idle_timeout()
