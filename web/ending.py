"""When an open stream or socket has to end by itself: rotation, the token's end, revocation."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable

import trio

from engine.errors import Renewed, Stopping
from web.site import Site
from web.tokens import Identity


def reason_of(end: type[Stopping]) -> str:
    """Return the reason of a `bye` for what a subscription was told at its end."""
    return "redis" if issubclass(end, Renewed) else "shutdown"


class Ending:
    """Watches over one open stream; `close` it when the stream is over.

    `at`: when it has to end (trio's time; `math.inf`: never). `news`: the client is to be told at once, by a
    ping, whether commands are taken. `wake` is called when there is such news, and when `at` is now.
    """

    __slots__ = ("_expire_at", "_revoked", "_site", "_who", "at", "news", "wake")

    def __init__(self, site: Site, who: Identity, rotate_s: float = 0.0) -> None:
        self._site = site
        self._who = who
        self._revoked = False
        self.news = not site.writable
        self.wake: Callable[[], None] | None = None
        now_s = trio.current_time()
        self.at = now_s + rotate_s * random.uniform(0.9, 1.1) if rotate_s else math.inf
        self._expire_at = math.inf
        if who.expires_ms is not None:
            self._expire_at = now_s + (who.expires_ms - site.node.clock.now_ms()) / 1000
            self.at = min(self.at, self._expire_at)
        revoked = site.gate.revoked
        revoked.watch(who.token_id, self._revoke)
        if who.token_id in revoked:  # since it was checked
            self._revoke()
        site.endings[self] = None

    def tell(self) -> None:
        """Have the client told whether commands are taken."""
        self.news = True
        if self.wake is not None:
            self.wake()

    def _revoke(self) -> None:
        self._revoked = True
        self.at = -math.inf
        if self.wake is not None:
            self.wake()

    def reason(self) -> str | None:
        """Return why the stream has to end now, `None` when it may go on."""
        now_s = trio.current_time()
        if now_s < self.at:
            return None
        return "unauthorized" if self._revoked or now_s >= self._expire_at else "rotate"

    async def wait(self, wait: Callable[[], Awaitable[None]], until_s: float) -> None:
        """Wait for `wait`, but no longer than until then, nor past the end."""
        with trio.CancelScope(deadline=min(until_s, self.at)) as scope:
            self.wake = scope.cancel
            await wait()
        self.wake = None

    def close(self) -> None:
        self._site.endings.pop(self, None)
        self._site.gate.revoked.unwatch(self._who.token_id, self._revoke)
