"""Who of several nodes holds a partition of a shared log for the moment.

A node that holds a partition does what follows from its records, so it has their streams in memory. That is
cheapest where those come in that change them. So each node notes how many commands of clients it carried out
in a partition; one that has far more of them than the holder asks for the lease, and gets it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import trio

FAR_MORE = 2.0
"""So many times as many commands ..."""
AT_LEAST = 10.0
"""... and so many in the last seconds beyond that: a partition that nobody uses stays where it is."""
FADE = 0.8
"""What is left of a count after a second: it is about that of the last five."""


class Asked(NamedTuple):
    """How many commands a node carried out in a partition lately, and whether it asks for the lease."""

    commands: float
    wishes: bool = False


def is_far_more(count: float, than: float) -> bool:
    """Return whether one who carried out so many commands does better as the holder."""
    return count >= FAR_MORE * than + AT_LEAST


def most(others: Mapping[str, Asked]) -> float:
    """Return how many commands that of the others carried out that has most."""
    return max((one.commands for one in others.values()), default=0.0)


def next_holder(mine: float, others: Mapping[str, Asked]) -> str | None:
    """Return who of the others should have a lease; `None`: nobody asks for it with good reason."""
    asking = {
        name: one.commands for name, one in others.items() if one.wishes and is_far_more(one.commands, mine)
    }
    return max(asking, key=asking.__getitem__, default=None)


def node_of(holder: str) -> str:
    """Return the name of the node that is a holder of leases: a node that starts again is another holder."""
    return holder.rpartition(".")[0] or holder


class Lease(Protocol):
    """One partition's lease, as one node has it.

    Attributes:
        wishes: this node does not have it, and asks for it.
        next: this node has it, and that holder should have it instead.
    """

    wishes: bool
    next: str | None

    def note(self, commands: int) -> None:
        """Take note of so many commands of clients that were carried out here."""

    async def hold(self, seconds: float) -> bool:
        """Take the lease, or renew it, for so long from now; return whether this node has it.

        Raises:
            Unavailable: nobody can say.
        """

    async def holder(self) -> str | None:
        """Return who has it now, `None` when nobody does. Raises as `hold`."""

    async def release(self) -> None:
        """Let `next` have it, or whoever comes first. Raises as `hold`."""


class Holder:
    """Leases of one partition among nodes of one process: who holds it, until when, and who would like to."""

    def __init__(self) -> None:
        self.node: str | None = None
        self.until_s = 0.0
        self.asked: dict[str, Asked] = {}


class MemoryLease:
    """See `Lease`. Counts do not fade."""

    def __init__(self, holder: Holder, node: str) -> None:
        self._holder = holder
        self._node = node
        self._count = 0
        self.wishes = False
        self.next: str | None = None

    def note(self, commands: int) -> None:
        self._count += commands

    async def hold(self, seconds: float) -> bool:
        await trio.lowlevel.checkpoint()
        holder, now_s = self._holder, trio.current_time()
        holder.asked[self._node] = Asked(self._count, self.wishes)
        others = {name: one for name, one in holder.asked.items() if name != self._node}
        self.wishes, self.next = False, None
        if holder.node not in (None, self._node) and now_s < holder.until_s:
            self.wishes = is_far_more(self._count, most(others))
            return False
        holder.node, holder.until_s = self._node, now_s + seconds
        self.next = next_holder(self._count, others)
        return True

    async def holder(self) -> str | None:
        await trio.lowlevel.checkpoint()
        holder = self._holder
        return holder.node if trio.current_time() < holder.until_s else None

    async def release(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._holder.node == self._node:
            self._holder.node, self.next = self.next, None
