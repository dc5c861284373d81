"""The checkpoint of one partition of a log in Redis, beside that log and in its slot.

Keys of partition p, with the hash tag `{onda:p}`, beside those of the log (`engine/log/redis_scripts.py`):

    :lease            who is on duty, with a time to live (`engine/lease_redis.py`)
    :check            hash: position, floor, refill, epoch (in which they were taken), ids (of parked records)
    :states           hash: stream -> `version floor epoch\\n` and the state
    :due              zset: stream by deadline (ms)
    :stores           set of the streams of kind `store`
    :known:<stream>   hash: key -> `at_ms digest`; :answers:<stream> hash: key -> the answer
    :kept             zset: `stream\\nkey` by at_ms: what is forgotten next
    :positions        hash: reaction -> position
    :reruns           set of `reaction\\nlow\\nhigh`; :attempts hash: `reaction\\nposition` -> count
    :parked           hash: id -> record; :parking hash: `reaction\\nposition` -> id
    :tasks            hash: task -> user, in partition 0 only

Only who holds the lease, in the epoch that the states are of, writes states, and never over a newer one. The
script checks both, so a node that was away for a while and believes to be on duty still does no harm.

A position that was taken in an older epoch counts only up to where that epoch ended, and a state only when
nothing in it is newer: the rest is not in the log any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import msgspec

from engine.answers import Answer, Known
from engine.checkpoint import Moment, Parked, SavedState
from engine.errors import LogAway
from engine.log.redis_asking import good
from engine.log.redis_lines import Line
from engine.log.redis_scripts import Script, script
from engine.log.redis_shared import RedisLog
from engine.witnesses import Witnesses

CALL_BYTES = 256 << 10
"""States and answers that one script takes over: nobody else is served meanwhile."""
PARTITIONS_MAX = 1024

_pack = msgspec.msgpack.encode
_unpack_answer = msgspec.msgpack.Decoder(Answer).decode
_unpack_parked = msgspec.msgpack.Decoder(Parked).decode

_GUARD = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'lost', 'lease'} end
if redis.call('HGET', KEYS[2], 'epoch') ~= ARGV[2] then return {'lost', 'epoch'} end
"""
"""KEYS: lease, meta. ARGV: who believes to hold it, the epoch."""

SAVE = script(
    _GUARD
    + """
local tag, floor, states = ARGV[3], ARGV[4], tonumber(ARGV[5])
for n = 6, 5 + 4 * states, 4 do
  local name, version, due = ARGV[n], tonumber(ARGV[n + 1]), ARGV[n + 2]
  local old = redis.call('HGET', tag .. ':states', name)
  local v, e = string.match(old or '', '^(%d+) %d+ (%S+)\\n')
  if not v or e ~= ARGV[2] or tonumber(v) <= version then
    local head = version .. ' ' .. floor .. ' ' .. ARGV[2] .. '\\n'
    redis.call('HSET', tag .. ':states', name, head .. ARGV[n + 3])
    if due == '' then
      redis.call('ZREM', tag .. ':due', name)
    else
      redis.call('ZADD', tag .. ':due', due, name)
    end
    if string.sub(name, 1, 6) == 'store:' then redis.call('SADD', tag .. ':stores', name) end
  end
end
for n = 6 + 4 * states, #ARGV, 5 do
  local stream, key = ARGV[n], ARGV[n + 1]
  redis.call('HSET', tag .. ':known:' .. stream, key, ARGV[n + 2] .. ' ' .. ARGV[n + 3])
  redis.call('HSET', tag .. ':answers:' .. stream, key, ARGV[n + 4])
  redis.call('ZADD', tag .. ':kept', ARGV[n + 2], stream .. '\\n' .. key)
end
return {'ok'}
"""
)
"""ARGV: the tag, the floor, how many states; for each state stream, version, deadline (or nothing) and bytes;
for each answer stream, key, at_ms, digest and bytes.
"""

FINISH = script(
    _GUARD
    + """
local tag, position = ARGV[3], tonumber(ARGV[4])
local at = redis.call('HMGET', tag .. ':check', 'position', 'epoch')
if at[2] == ARGV[2] and tonumber(at[1]) > position then return {'lost', 'position'} end
local check = tag .. ':check'
redis.call('HSET', check, 'position', position, 'floor', ARGV[5], 'refill', ARGV[6], 'epoch', ARGV[2])
local places = {}
for n = 8, #ARGV, 2 do
  redis.call('HSET', tag .. ':positions', ARGV[n], ARGV[n + 1])
  places[ARGV[n]] = tonumber(ARGV[n + 1])
end
for _, field in ipairs(redis.call('HKEYS', tag .. ':attempts')) do
  local name, place = string.match(field, '^(.*)\\n(%d+)$')
  if places[name] and tonumber(place) <= places[name] then redis.call('HDEL', tag .. ':attempts', field) end
end
for _, one in ipairs(redis.call('SMEMBERS', tag .. ':reruns')) do
  local name, high = string.match(one, '^(.*)\\n%d+\\n(%d+)$')
  if places[name] and tonumber(high) <= places[name] then redis.call('SREM', tag .. ':reruns', one) end
end
local old = redis.call('ZRANGEBYSCORE', tag .. ':kept', '-inf', '(' .. ARGV[7], 'LIMIT', 0, 1000)
for _, one in ipairs(old) do
  local name, key = string.match(one, '^([^\\n]*)\\n(.*)$')
  redis.call('HDEL', tag .. ':known:' .. name, key)
  redis.call('HDEL', tag .. ':answers:' .. name, key)
  redis.call('ZREM', tag .. ':kept', one)
end
return {'ok'}
"""
)
"""ARGV: the tag, position, floor, refill, horizon, then each reaction and its position."""

PARK = script(
    """
local id = redis.call('HGET', KEYS[2], ARGV[1])
if not id or redis.call('HEXISTS', KEYS[1], id) == 0 then
  id = redis.call('HINCRBY', KEYS[3], 'ids', 1) * tonumber(ARGV[3]) + tonumber(ARGV[4])
  redis.call('HSET', KEYS[1], id, ARGV[2])
  redis.call('HSET', KEYS[2], ARGV[1], id)
end
return {tonumber(id), redis.call('HGET', KEYS[1], id)}
"""
)
"""KEYS: parked, parking, check. ARGV: `reaction\\nposition`, the record, and what makes ids of partitions
differ. Once per reaction and position while it is parked.
"""

ADD_TASK = script(
    """
for n = 3, #ARGV do
  if redis.call('HGET', KEYS[1], ARGV[n]) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[n]) end
end
if ARGV[1] ~= '' then redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) end
return {'ok'}
"""
)
"""KEYS: tasks. ARGV: task, user, tasks that are this user's no more."""


class RedisCheckpoint:
    """See `engine.checkpoint.Checkpoint`. `holder`: as whom this node holds the lease."""

    def __init__(self, log: RedisLog, number: int, holder: str, witnesses: Witnesses) -> None:
        self._witnesses = witnesses
        self._log = log
        self._number = number
        self._holder = holder
        self._tag = f"{{onda:{number}}}"
        self.position = 0
        self.floor = 0
        self.refill = 0

    def _key(self, name: str) -> str:
        return f"{self._tag}:{name}"

    async def _ask(self, question: Callable[[Line], Any]) -> Any:
        return await self._log.ask(partial(self._log.asking.ask, self._number, question))

    async def _call(self, *command: Any) -> Any:
        return await self._ask(lambda line: good(line.call([command])[0]))

    async def _run(self, text: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        return await self._ask(lambda line: good(line.run(text, [(keys, arguments)])[0]))

    async def _guarded(self, text: Script, epoch: str, *arguments: Any) -> None:
        keys = (self._key("lease"), self._key("meta"))
        answer = await self._run(text, keys, (self._holder, epoch, self._tag, *arguments))
        if answer[0] != b"ok":
            raise LogAway(f"partition {self._number} is another node's: {answer[1].decode()}")

    async def refresh(self) -> None:
        """Look again what was taken last, by whichever node."""
        found, epochs = await self._ask(
            lambda line: [
                good(answer)
                for answer in line.call(
                    [
                        ("HMGET", self._key("check"), "position", "floor", "refill", "epoch"),
                        ("LRANGE", self._key("epochs"), 0, -1),
                    ]
                )
            ]
        )
        if found[0] is not None:
            limit = _end_of(found[3], epochs)
            self.position, self.floor, self.refill = (min(int(one), limit) for one in found[:3])

    async def take(self, moment: Moment) -> None:
        """See `Checkpoint.take`: what belongs to the moment is complete once its position is written.

        No state is there before the answers that belong to it: a command in a state whose answer is not known
        would be carried out a second time.

        Raises:
            Unavailable: this node is not on duty any more, or Redis is away.
        """
        save = partial(self._guarded, SAVE, moment.epoch, moment.floor)
        answers: list[Any] = []
        size = 0
        for stream, key, known in moment.answers:
            if known.answer is None:
                continue
            packed = _pack(known.answer)
            answers += (stream, key, known.at_ms, known.digest, packed)
            size += len(packed)
            if size > CALL_BYTES:
                await save(0, *answers)
                answers, size = [], 0
        states: list[Any] = []
        for stream, version, state, due_ms in moment.states:
            states += (stream, version, "" if due_ms is None else due_ms, state)
            size += len(state)
            if size > CALL_BYTES:
                await save(len(states) // 4, *states, *answers)
                states, answers, size = [], [], 0
        await save(len(states) // 4, *states, *answers)
        places = [word for pair in moment.positions.items() for word in pair]
        await self._guarded(
            FINISH, moment.epoch, moment.position, moment.floor, moment.refill, moment.horizon_ms, *places
        )
        self.position, self.floor, self.refill = moment.position, moment.floor, moment.refill
        await self._witnesses.save(self._log.partitions)

    async def load_states(self, streams: Iterable[str]) -> dict[str, SavedState]:
        """See `Checkpoint.load_states`."""
        wanted = list(streams)
        found, epochs = await self._ask(
            lambda line: [
                good(answer)
                for answer in line.call(
                    [("HMGET", self._key("states"), *wanted), ("LRANGE", self._key("epochs"), 0, -1)]
                )
            ]
        )
        states = {}
        for stream, line in zip(wanted, found, strict=True):
            if line is not None:
                head, _, state = line.partition(b"\n")
                version, floor, epoch = head.split(b" ")
                if int(floor) <= _end_of(epoch, epochs):
                    states[stream] = SavedState(stream, int(version), state, None)
        return states

    async def load_known(self, stream: str) -> list[tuple[str, Known]]:
        """See `Checkpoint.load_known`."""
        found = await self._call("HGETALL", self._key(f"known:{stream}"))
        known = []
        for key, line in zip(found[::2], found[1::2], strict=True):
            at_ms, _, digest = line.decode().partition(" ")
            known.append((key.decode(), Known(int(at_ms), digest, None)))
        return sorted(known, key=lambda pair: pair[1].at_ms)

    async def load_answer(self, stream: str, key: str) -> Answer | None:
        """See `Checkpoint.load_answer`."""
        found = await self._call("HGET", self._key(f"answers:{stream}"), key)
        return None if found is None else _unpack_answer(found)

    async def deadlines(self) -> list[tuple[str, int]]:
        """See `Checkpoint.deadlines`."""
        return _scores(await self._call("ZRANGE", self._key("due"), 0, -1, "WITHSCORES"))

    async def overdue(self, now_ms: int) -> list[tuple[str, int]]:
        """See `Checkpoint.overdue`."""
        return _scores(await self._call("ZRANGEBYSCORE", self._key("due"), "-inf", now_ms, "WITHSCORES"))

    async def stores(self) -> list[str]:
        """See `Checkpoint.stores`."""
        return [name.decode() for name in await self._call("SMEMBERS", self._key("stores"))]

    async def positions(self) -> dict[str, int]:
        """See `Checkpoint.positions`."""
        found, epoch, epochs = await self._ask(
            lambda line: [
                good(answer)
                for answer in line.call(
                    [
                        ("HGETALL", self._key("positions")),
                        ("HGET", self._key("check"), "epoch"),
                        ("LRANGE", self._key("epochs"), 0, -1),
                    ]
                )
            ]
        )
        limit = _end_of(epoch, epochs)
        return {name.decode(): min(int(at), limit) for name, at in zip(found[::2], found[1::2], strict=True)}

    async def add_rerun(self, reaction: str, low: int, high: int) -> None:
        """See `Checkpoint.add_rerun`."""
        await self._call("SADD", self._key("reruns"), f"{reaction}\n{low}\n{high}")

    async def tries(self, reaction: str) -> tuple[list[tuple[int, int]], dict[int, int]]:
        """See `Checkpoint.tries`."""
        reruns, attempts = [], {}
        for one in await self._call("SMEMBERS", self._key("reruns")):
            name, low, high = one.decode().split("\n")
            if name == reaction:
                reruns.append((int(low), int(high)))
        found = await self._call("HGETALL", self._key("attempts"))
        for field, count in zip(found[::2], found[1::2], strict=True):
            name, position = field.decode().split("\n")
            if name == reaction:
                attempts[int(position)] = int(count)
        return reruns, attempts

    async def count_attempt(self, reaction: str, position: int, count: int) -> None:
        """See `Checkpoint.count_attempt`."""
        await self._call("HSET", self._key("attempts"), f"{reaction}\n{position}", count)

    async def park(self, parked: Parked) -> Parked:
        """See `Checkpoint.park`."""
        keys = (self._key("parked"), self._key("parking"), self._key("check"))
        place = f"{parked.reaction}\n{parked.position}"
        arguments = (place, _pack(parked), PARTITIONS_MAX, self._number)
        id_, stored = await self._run(PARK, keys, arguments)
        return _unpack_parked(stored)._replace(id=id_)

    async def unpark(self, id_: int) -> None:
        """See `Checkpoint.unpark`."""
        await self._call("HDEL", self._key("parked"), id_)

    async def parked(self) -> list[Parked]:
        """See `Checkpoint.parked`."""
        found = await self._call("HGETALL", self._key("parked"))
        parked = [
            _unpack_parked(one)._replace(id=int(id_))
            for id_, one in zip(found[::2], found[1::2], strict=True)
        ]
        return sorted(parked, key=lambda one: one.position)

    async def add_task(self, task: str, user: str, gone: Iterable[str]) -> None:
        """See `Checkpoint.add_task`."""
        await self._run(ADD_TASK, (self._key("tasks"),), (task, user, *gone))

    async def task_user(self, task: str) -> str | None:
        """See `Checkpoint.task_user`."""
        found = await self._call("HGET", self._key("tasks"), task)
        return None if found is None else str(found.decode())

    async def count_tasks(self) -> int:
        """See `Checkpoint.count_tasks`."""
        return int(await self._call("HLEN", self._key("tasks")))

    async def close(self) -> None:
        """Nothing to let go of: the lines are the log's."""


def _end_of(epoch: bytes | None, epochs: Sequence[bytes]) -> int:
    """Return the position up to which what was true in an epoch still is: the least at which a later one
    began.
    """
    limit = 1 << 62
    later = epoch is None
    for line in epochs:
        name, _, position = line.partition(b" ")
        if later:
            limit = min(limit, int(position))
        later = later or name == epoch
    return limit if later else 0


def _scores(found: Sequence[bytes]) -> list[tuple[str, int]]:
    return [(name.decode(), int(float(due))) for name, due in zip(found[::2], found[1::2], strict=True)]
