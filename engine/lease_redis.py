"""Leases of partitions in Redis: a key of each partition with a time to live.

Nodes say every few seconds that they are there. Partitions in which nobody has much to do are shared out
evenly: each node takes no more than its share, and gives back what it has beyond that when another one comes.
One with commands is where these come in, however many others that node has.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

from engine.lease import AT_LEAST, FADE, Asked, is_far_more, most, next_holder
from engine.log.redis_asking import good
from engine.log.redis_scripts import Script, script
from engine.log.redis_shared import RedisLog

ALIVE_S = 8.0
"""A node that said nothing for so long is not counted."""
COUNT_S = 1.0

HOLD = script(
    """
local now = tonumber(redis.call('TIME')[1])
local asked = redis.call('HGETALL', KEYS[2])
for n = 1, #asked, 2 do
  if tonumber(string.match(asked[n + 1], '^%d+')) < now - tonumber(ARGV[5]) then
    redis.call('HDEL', KEYS[2], asked[n])
  end
end
redis.call('HSET', KEYS[2], ARGV[1], now .. ' ' .. ARGV[4])
local held = redis.call('GET', KEYS[1])
if held == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
elseif not held and ARGV[3] == '1' then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  held = ARGV[1]
end
return {held == ARGV[1] and 1 or 0, redis.call('HGETALL', KEYS[2])}
""",
    "allow-oom",  # a few bytes, and they stay the same: who is on duty stays it while memory is full
)
"""KEYS: lease, asked. ARGV: who, for how many ms, `1` when it may be taken anew, how many commands it carried
out and `1` when it asks for the lease, after how many seconds a node is not counted. Returns 1 when it has
it, and names and `time count wish` of all.
"""

RELEASE = script(
    """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  if ARGV[2] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
end
redis.call('HDEL', KEYS[2], ARGV[1])
return 1
""",
    "allow-oom",
)
"""KEYS: lease, asked. ARGV: who, who gets it (empty: whoever comes), for how many ms."""

HOLDER = script("return redis.call('GET', KEYS[1])", "no-writes")

COUNT = script(
    """
local now = tonumber(redis.call('TIME')[1])
if ARGV[2] == '0' then redis.call('ZREM', KEYS[1], ARGV[1]) else redis.call('ZADD', KEYS[1], now, ARGV[1]) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[3]))
return redis.call('ZCARD', KEYS[1])
""",
    "allow-oom",
)
"""KEYS: nodes. ARGV: who, `0` when it goes, after how many seconds a node is not counted."""


class Leases:
    """The leases of one node, which holds them as `holder`."""

    def __init__(self, log: RedisLog, holder: str) -> None:
        self.holder = holder
        self.held: set[int] = set()
        self.asked: defaultdict[int, float] = defaultdict(float)  # commands of clients here, by partition
        self.nodes = 1
        self.log = log
        self._counted_s = -COUNT_S

    @property
    def share(self) -> int:
        """How many partitions this node may hold without having much to do in them."""
        return math.ceil(len(self.log.partitions) / max(1, self.nodes))

    async def count(self, there: str = "1") -> None:
        """Say that this node is there (`0`: that it goes), and learn how many there are."""
        now_s = time.monotonic()
        if there == "1" and now_s - self._counted_s < COUNT_S:
            return
        self._counted_s = now_s
        for number in self.asked:
            self.asked[number] *= FADE
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
        self._keys = (f"{{onda:{number}}}:lease", f"{{onda:{number}}}:asked")
        self.wishes = False
        self.next: str | None = None

    def note(self, commands: int) -> None:
        """See `Lease.note`."""
        self._leases.asked[self._number] += commands

    async def hold(self, seconds: float) -> bool:
        """See `Lease.hold`. Returns False, too, when this node has its share and nothing to do here."""
        leases, number = self._leases, self._number
        await leases.count()
        mine = leases.asked[number]
        busy = mine >= AT_LEAST
        if number in leases.held and len(leases.held) > leases.share and not busy:
            await self.release()
            return False
        may_take = number in leases.held or len(leases.held) < leases.share or busy
        if may_take:
            leases.held.add(number)  # before the answer: others of this node count it
        said = f"{mine:.1f} {int(self.wishes)}"
        arguments = (leases.holder, int(seconds * 1000), int(may_take), said, int(ALIVE_S))
        try:
            holds, found = await leases.run(number, HOLD, self._keys, arguments)
        except BaseException:
            leases.held.discard(number)
            raise
        others = _read_asked(found)
        others.pop(leases.holder, None)
        if holds:
            leases.held.add(number)
            self.wishes, self.next = False, next_holder(mine, others)
            return True
        leases.held.discard(number)
        self.wishes = is_far_more(mine, most(others))
        self.next = None
        return False

    async def holder(self) -> str | None:
        """See `Lease.holder`."""
        found = await self._leases.run(self._number, HOLDER, self._keys[:1], ())
        return found.decode() if found else None

    async def release(self) -> None:
        """See `Lease.release`."""
        self._leases.held.discard(self._number)
        arguments = (self._leases.holder, self.next or "", int(ALIVE_S * 1000))
        self.next = None
        await self._leases.run(self._number, RELEASE, self._keys, arguments)
        if self._number == 0:
            await self._leases.count("0")


def _read_asked(found: Sequence[bytes]) -> dict[str, Asked]:
    asked = {}
    for name, line in zip(found[::2], found[1::2], strict=True):
        _, count, wish = line.split(b" ")
        asked[name.decode()] = Asked(float(count), wish == b"1")
    return asked
