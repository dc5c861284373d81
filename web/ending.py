"""When an open stream or socket has to end by itself: rotation, the token's end, revocation."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable

import trio

from web.site import Site
from web.tokens import Identity


class Ending:
    """Watches over one open stream; `close` it when the stream is over."""

    def __init__(self, site: Site, who: Identity, rotate_s: float = 0.0) -> None:
        self._site = site
        self._who = who
        self._revoked = False
        self._scope: trio.CancelScope | None = None
        now_s = trio.current_time()
        self._rotate_at = now_s + rotate_s * random.uniform(0.9, 1.1) if rotate_s else math.inf
        self._expire_at = math.inf
        if who.expires_ms is not None:
            self._expire_at = now_s + (who.expires_ms - site.node.clock.now_ms()) / 1000
        self._at = min(self._rotate_at, self._expire_at)
        site.gate.revoked.watch(who.token_id, self._revoke)

    def _revoke(self) -> None:
        self._revoked = True
        if self._scope is not None:
            self._scope.cancel()

    def reason(self) -> str | None:
        """Return why the stream has to end now, `None` when it may go on."""
        now_s = trio.current_time()
        if self._revoked or now_s >= self._expire_at:
            return "unauthorized"
        return "rotate" if now_s >= self._rotate_at else None

    async def wait(self, wait: Callable[[], Awaitable[None]], until_s: float) -> None:
        """Wait for `wait`, but no longer than until then, nor past the end."""
        with trio.CancelScope(deadline=min(until_s, self._at)) as self._scope:
            await wait()
        self._scope = None

    def close(self) -> None:
        self._site.gate.revoked.unwatch(self._who.token_id, self._revoke)
