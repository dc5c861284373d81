"""Who else appends to an actor's stream, and how long they are let go first (`engine.log.Turns`).

Whoever lost a conflict needs time to hear, decide and append, and nobody else knows how much: a node that has
little of a processor stands still for a tenth of a second now and then. So the time that they get follows
what they took last, and doubles when it was not enough.
"""

from __future__ import annotations

import trio

from engine.log import WAITS_S, Turns
from engine.waiting import Bell

YIELD_S = 0.25
"""What another one gets at least; at most it is as long as the log remembers that they wait."""


class Rivals:
    """How many are to append before this actor's next turn, as the log said when it appended last.

    Attributes:
        ahead: how many that are still.
        heard: rings when that may have changed.
    """

    def __init__(self, name: str) -> None:
        self.ahead = 0
        self.heard = Bell()
        self._name = name
        self._each_s = YIELD_S
        self._since_s = self._until_s = 0.0

    def turns(self, *, more: bool) -> Turns:
        """Return how the actor takes turns with them; `more`: it will soon append again."""
        return Turns(self._name, more, self._see)

    def _see(self, ahead: int) -> None:
        self.ahead, self._since_s = ahead, trio.current_time()
        self._until_s = self._since_s + ahead * self._each_s

    def came(self) -> None:
        """One of them has appended."""
        if self.ahead > 0:
            now_s = trio.current_time()
            self._each_s = min(max(YIELD_S, 2 * (now_s - self._since_s)), WAITS_S)
            self.ahead, self._since_s = self.ahead - 1, now_s

    def patience(self) -> trio.CancelScope:
        """Return a scope that ends when they have had their time."""
        return trio.CancelScope(deadline=self._until_s)

    def pass_over(self) -> None:
        """Go on without those who did not come, though they were waited for."""
        self._each_s = min(2 * self._each_s, WAITS_S)
        self.ahead = 0
