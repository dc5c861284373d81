"""Leases of partitions in Redis: a key of each partition with a time to live.

Nodes say every few seconds that they are there; each takes no more than its share of the partitions, and
gives back what it has beyond that when another one comes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from engine.log.redis_asking import good
from engine.log.redis_scripts import Script, script
from engine.log.redis_shared import RedisLog

ALIVE_S = 8.0
"""A node that said nothing for so long is not counted."""
COUNT_S = 1.0

HOLD = script(
    """
local held = redis.call('GET', KEYS[1])
if held == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return 1
end
if held or ARGV[3] ~= '1' then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
)
"""KEYS: lease. ARGV: who, for how many ms, `1` when it may be taken anew."""

RELEASE = script("if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 1")

HOLDER = script("return redis.call('GET', KEYS[1])", "no-writes")

COUNT = script(
    """
local now = tonumber(redis.call('TIME')[1])
if ARGV[2] == '0' then redis.call('ZREM', KEYS[1], ARGV[1]) else redis.call('ZADD', KEYS[1], now, ARGV[1]) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[3]))
return redis.call('ZCARD', KEYS[1])
"""
)
"""KEYS: nodes. ARGV: who, `0` when it goes, after how many seconds a node is not counted."""


class Leases:
    """The leases of one node, which holds them as `holder`."""

    def __init__(self, log: RedisLog, holder: str) -> None:
        self.holder = holder
        self.held: set[int] = set()
        self.nodes = 1
        self.log = log
        self._counted_s = -COUNT_S

    @property
    def share(self) -> int:
        """How many partitions this node may hold."""
        return math.ceil(len(self.log.partitions) / max(1, self.nodes))

    async def count(self, there: str = "1") -> None:
        """Say that this node is there (`0`: that it goes), and learn how many there are."""
        now_s = time.monotonic()
        if there == "1" and now_s - self._counted_s < COUNT_S:
            return
        self._counted_s = now_s
        arguments = (self.holder, there, int(ALIVE_S))
        self.nodes = await self.run(0, COUNT, ("{onda:0}:nodes",), arguments)

    async def run(self, number: int, text: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run a script at a partition's server."""
        return await self.log.ask(
            partial(self.log.asking.ask, number, lambda line: good(line.run(text, [(keys, arguments)])[0]))
        )


class RedisLease:
    """See `engine.lease.Lease`."""

    def __init__(self, leases: Leases, number: int) -> None:
        self._leases = leases
        self._number = number
        self._keys = (f"{{onda:{number}}}:lease",)

    async def hold(self, seconds: float) -> bool:
        """See `Lease.hold`. Returns False, too, when this node has its share already."""
        leases, number = self._leases, self._number
        await leases.count()
        if number in leases.held and len(leases.held) > leases.share:
            await self.release()
            return False
        may_take = number in leases.held or len(leases.held) < leases.share
        if may_take:
            leases.held.add(number)  # before the answer: others of this node count it
        arguments = (leases.holder, int(seconds * 1000), int(may_take))
        try:
            mine = bool(await leases.run(number, HOLD, self._keys, arguments))
        except BaseException:
            leases.held.discard(number)
            raise
        if not mine:
            leases.held.discard(number)
        return mine

    async def holder(self) -> str | None:
        """See `Lease.holder`."""
        found = await self._leases.run(self._number, HOLDER, self._keys, ())
        return found.decode() if found else None

    async def release(self) -> None:
        """See `Lease.release`."""
        self._leases.held.discard(self._number)
        await self._leases.run(self._number, RELEASE, self._keys, (self._leases.holder,))
        if self._number == 0:
            await self._leases.count("0")
