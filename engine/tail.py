"""The last records of the whole log, in its order, for those who follow every stream.

Actors report what they committed as soon as they know, which need not be in the order of the log: what comes
early waits until the gap before it is filled. The tail is bounded; whoever falls out of it reads the log
instead, and polls the log as a net, so a report that never comes delays a record but cannot lose it.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from engine.mailbox import Committed

RECORDS_MAX = 8192


class Tail:
    """Records `low + 1 … high`, all known to be durable."""

    def __init__(self, position: int, records_max: int = RECORDS_MAX) -> None:
        self.low = position
        self.high = position
        self._records: list[Committed] = []
        self._skip = 0
        self._early: dict[int, Sequence[Committed]] = {}
        self._records_max = records_max
        self._changed: trio.Event | None = None

    def add(self, records: Sequence[Committed]) -> None:
        """Take over the records of one append, which stand next to each other in the log."""
        if records[0].position <= self.high:
            return  # given up on before, and read from the log by those who need it
        self._early[records[0].position] = records
        while (ready := self._early.pop(self.high + 1, None)) is not None:
            self._records.extend(ready)
            self.high = ready[-1].position
        if len(self._early) > self._records_max:  # a report got lost: start again behind everything seen
            self.restart(max(batch[-1].position for batch in self._early.values()))
        self._drop_old()
        self._wake()

    def restart(self, position: int) -> None:
        """Go on after `position`: there is a report that may never come. What lies before is read from the
        log.
        """
        if position > self.high:
            self.high = self.low = position
            self._early = {first: batch for first, batch in self._early.items() if first > position}
            self._records.clear()
            self._skip = 0
            self._wake()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def _drop_old(self) -> None:
        surplus = self.high - self.low - self._records_max
        if surplus > 0:
            self._skip += surplus
            self.low += surplus
            if self._skip > self._records_max:
                del self._records[: self._skip]
                self._skip = 0

    def after(self, position: int, limit: int) -> list[Committed] | None:
        """Return up to `limit` records after `position`; `None` when the tail no longer holds them."""
        if position < self.low:
            return None
        start = self._skip + position - self.low
        return self._records[start : start + limit]

    async def wait_beyond(self, position: int, timeout_s: float) -> None:
        """Sleep until there is a record after `position`, at most `timeout_s`."""
        with trio.move_on_after(timeout_s):
            while self.high <= position:
                if self._changed is None:
                    self._changed = trio.Event()
                await self._changed.wait()
