"""Who of several nodes holds a partition of a shared log for the moment."""

from __future__ import annotations

from typing import Protocol

import trio


def node_of(holder: str) -> str:
    """Return the name of the node that is a holder of leases: a node that starts again is another holder."""
    return holder.rpartition(".")[0] or holder


class Lease(Protocol):
    """One partition's lease, as one node has it."""

    async def hold(self, seconds: float) -> bool:
        """Take the lease, or renew it, for so long from now; return whether this node has it.

        Raises:
            Unavailable: nobody can say.
        """

    async def holder(self) -> str | None:
        """Return who has it now, `None` when nobody does. Raises as `hold`."""

    async def release(self) -> None:
        """Let others have it at once. Raises as `hold`."""


class Holder:
    """Leases of one partition among nodes of one process: who holds it, and until when."""

    def __init__(self) -> None:
        self.node: str | None = None
        self.until_s = 0.0


class MemoryLease:
    """See `Lease`."""

    def __init__(self, holder: Holder, node: str) -> None:
        self._holder = holder
        self._node = node

    async def hold(self, seconds: float) -> bool:
        await trio.lowlevel.checkpoint()
        holder, now_s = self._holder, trio.current_time()
        if holder.node not in (None, self._node) and now_s < holder.until_s:
            return False
        holder.node, holder.until_s = self._node, now_s + seconds
        return True

    async def holder(self) -> str | None:
        await trio.lowlevel.checkpoint()
        holder = self._holder
        return holder.node if trio.current_time() < holder.until_s else None

    async def release(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._holder.node == self._node:
            self._holder.node = None
