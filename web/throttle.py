"""Bounds for what strangers may cause: hints per second over all, and for one payment."""

from __future__ import annotations

from collections.abc import Callable

PER_SECOND = 20.0
BURST = 100
"""Hints that are looked at, over all gateways."""

AGAIN_MS = 10_000
"""A hint for the same payment within this time is not passed on: it could say nothing new."""

REMEMBERED_MAX = 4096


class Throttle:
    """Bounds for hints. `now_ms` is the clock."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._left = float(BURST)
        self._at_ms = now_ms()
        self._seen: dict[tuple[str, str], int] = {}

    def admit(self) -> bool:
        """Return whether one more hint may be looked at now."""
        now = self._now_ms()
        self._left = min(BURST, self._left + max(0, now - self._at_ms) / 1000 * PER_SECOND)
        self._at_ms = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def is_new(self, store: str, payment: str) -> bool:
        """Return whether there was no hint for the payment just before."""
        now, name = self._now_ms(), (store, payment)
        if name in self._seen and abs(now - self._seen[name]) < AGAIN_MS:
            return False
        self._seen.pop(name, None)
        while len(self._seen) >= REMEMBERED_MAX:
            del self._seen[next(iter(self._seen))]
        self._seen[name] = now
        return True
