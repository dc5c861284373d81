"""The checkpoint of one partition of a log in Redis, beside that log and in its slot.

Keys of partition p, with the hash tag `{onda:p}`, beside those of the log (`engine/log/redis_scripts.py`):

    :lease            who is on duty, with a time to live (`engine/lease_redis.py`)
    :asked            hash: node -> `time count wish`: its commands here lately, and whether it asks for that
    :check            hash: position, floor, refill, epoch (in which they were taken), ids (of parked records)
    :states           hash: stream -> `version\\n` and the state
    :due              zset: stream by deadline (ms)
    :stores           set of the streams of kind `store`
    :known:<stream>   hash: key -> `at_ms digest`; :answers:<stream> hash: key -> the answer
    :memory           hash: stream -> how many keys are known
    :kept             zset: `stream\\nkey` by at_ms: what is forgotten next
    :positions        hash: reaction -> position
    :reruns           set of `reaction\\nlow\\nhigh`; :attempts hash: `reaction\\nposition` -> count
    :parked           hash: id -> record; :parking hash: `reaction\\nposition` -> id
    :tasks            hash: task -> user, in partition 0 only

Only who holds the lease, in the epoch that the states are of, writes states, and never over a newer one. And
only when the last record that it knows to be in the log is there: so whatever a state, an answer or a
position was made of is in the log beside it. The scripts check all of it, so a node that was away for a
while and believes to be on duty still does no harm. When Redis loses its end, log and checkpoint go back to
one and the same moment: what is left of the checkpoint is right for what is left of the log.

What cannot be made again is counted: a key that was deleted or evicted ends the log, as one of the log's own
does. The others heal: a lease is taken anew, without `:check` and `:positions` everything that is kept is
looked at again, attempts are counted from 0, an answer that is gone is said to be.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import msgspec

from engine.answers import Answer, Known
from engine.checkpoint import PARTITIONS_MAX, Kept, Moment, Parked, SavedState
from engine.checkpoint_scripts import ADD_TASK, CHANGE, FINISH, KNOWN, LOAD, PARK, READ, SAVE
from engine.errors import LogAway
from engine.log import SharedLog
from engine.log.redis_scripts import Script
from engine.log.redis_shared import RedisLog
from engine.witnesses import Witnesses

CALL_BYTES = 256 << 10
"""States and answers that one script takes over: nobody else is served meanwhile."""

_pack = msgspec.msgpack.encode
_unpack_answer = msgspec.msgpack.Decoder(Answer).decode
_unpack_parked = msgspec.msgpack.Decoder(Parked).decode


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

    async def _call(self, *command: Any) -> Any:
        return await self._log.query(self._number, command)

    async def _run(self, text: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        answer = await self._call(text, len(keys), *keys, *arguments)
        if answer[0] == b"gone":
            raise self._log.gone(self._number, answer[1].decode())
        return answer

    async def _whole(self, text: Script, *arguments: Any) -> Any:
        return (await self._run(text, (self._key("meta"),), (self._tag, *arguments)))[1:]

    async def _read(self, command: str, name: str, *words: Any) -> Any:
        (found,) = await self._whole(READ, command, self._key(name), *words)
        return found

    async def _guarded(self, text: Script, epoch: str, *arguments: Any) -> None:
        keys = (self._key("lease"), self._key("meta"), self._key("log"))
        witness = self._log.partitions[self._number].witness
        answer = await self._run(
            text, keys, (self._holder, epoch, witness.position, witness.id, self._tag, *arguments)
        )
        if answer[0] != b"ok":
            lost = answer[1].decode()
            raise LogAway(f"partition {self._number} is not this node's to save: it has lost the {lost}")

    async def refresh(self) -> None:
        """Look again what was taken last, by whichever node."""
        found = await self._call("HMGET", self._key("check"), "position", "floor", "refill")
        self.position, self.floor, self.refill = (int(one or 0) for one in found)

    async def take(self, moment: Moment) -> None:
        """See `Checkpoint.take`: what belongs to the moment is complete once its position is written.

        No state is there before the answers that belong to it: a command in a state whose answer is not known
        would be carried out a second time.

        Raises:
            Unavailable: this node is not on duty any more, or Redis is away.
        """
        save = partial(self._guarded, SAVE, moment.epoch)
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
        found = await self._read("HMGET", "states", *wanted)
        states = {}
        for stream, line in zip(wanted, found, strict=True):
            if line is not None:
                states[stream] = _read_state(stream, line)
        return states

    async def load_known(self, stream: str) -> list[tuple[str, Known]]:
        """See `Checkpoint.load_known`."""
        (found,) = await self._whole(KNOWN, stream)
        return _read_known(found)

    async def load_stream(self, stream: str, log: SharedLog, back: int, bytes_max: int) -> Kept:
        """See `Checkpoint.load_stream`: all of it in one trip, of one moment."""
        words = (self._tag, stream, back, max(1, bytes_max))
        partition = self._log.partitions[self._number]
        (line, known), head, records = await partition.find(LOAD, stream, words)
        saved = None if line is None else _read_state(stream, line)
        return Kept(saved, _read_known(known), head, records)

    async def find_saved(self, stream: str, keys: Sequence[str]) -> list[str]:
        """See `Checkpoint.find_saved`."""
        found = await self._call("HMGET", self._key(f"known:{stream}"), *keys)
        return [key for key, line in zip(keys, found, strict=True) if line is not None]

    async def load_answer(self, stream: str, key: str) -> Answer | None:
        """See `Checkpoint.load_answer`."""
        found = await self._call("HGET", self._key(f"answers:{stream}"), key)
        return None if found is None else _unpack_answer(found)

    async def deadlines(self) -> list[tuple[str, int]]:
        """See `Checkpoint.deadlines`."""
        return _scores(await self._read("ZRANGE", "due", 0, -1, "WITHSCORES"))

    async def overdue(self, now_ms: int) -> list[tuple[str, int]]:
        """See `Checkpoint.overdue`."""
        return _scores(await self._read("ZRANGEBYSCORE", "due", "-inf", now_ms, "WITHSCORES"))

    async def stores(self) -> list[str]:
        """See `Checkpoint.stores`."""
        return [name.decode() for name in await self._read("SMEMBERS", "stores")]

    async def positions(self) -> dict[str, int]:
        """See `Checkpoint.positions`."""
        found = await self._call("HGETALL", self._key("positions"))
        return {name.decode(): int(at) for name, at in zip(found[::2], found[1::2], strict=True)}

    async def add_rerun(self, reaction: str, low: int, high: int) -> None:
        """See `Checkpoint.add_rerun`."""
        await self._whole(CHANGE, "SADD", self._key("reruns"), f"{reaction}\n{low}\n{high}")

    async def tries(self, reaction: str) -> tuple[list[tuple[int, int]], dict[int, int]]:
        """See `Checkpoint.tries`."""
        reruns, attempts = [], {}
        for one in await self._read("SMEMBERS", "reruns"):
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
        place = f"{parked.reaction}\n{parked.position}"
        id_, stored = await self._whole(PARK, place, _pack(parked), PARTITIONS_MAX, self._number)
        return _unpack_parked(stored)._replace(id=id_)

    async def unpark(self, id_: int) -> None:
        """See `Checkpoint.unpark`."""
        await self._whole(CHANGE, "HDEL", self._key("parked"), id_)

    async def parked(self) -> list[Parked]:
        """See `Checkpoint.parked`."""
        found = await self._read("HGETALL", "parked")
        parked = [
            _unpack_parked(one)._replace(id=int(id_))
            for id_, one in zip(found[::2], found[1::2], strict=True)
        ]
        return sorted(parked, key=lambda one: one.position)

    async def add_task(self, task: str, user: str, gone: Iterable[str]) -> None:
        """See `Checkpoint.add_task`."""
        await self._whole(ADD_TASK, task, user, *gone)

    async def task_user(self, task: str) -> str | None:
        """See `Checkpoint.task_user`."""
        found = await self._read("HGET", "tasks", task)
        return None if found is None else str(found.decode())

    async def count_tasks(self) -> int:
        """See `Checkpoint.count_tasks`."""
        return int(await self._read("HLEN", "tasks"))

    async def close(self) -> None:
        """Nothing to let go of: the lines are the log's."""


def _read_state(stream: str, line: bytes) -> SavedState:
    version, _, state = line.partition(b"\n")
    return SavedState(stream, int(version), state, None)


def _read_known(found: Sequence[bytes]) -> list[tuple[str, Known]]:
    known = []
    for key, line in zip(found[::2], found[1::2], strict=True):
        at_ms, _, digest = line.decode().partition(" ")
        known.append((key.decode(), Known(int(at_ms), digest, None)))
    return sorted(known, key=lambda pair: pair[1].at_ms)


def _scores(found: Sequence[bytes]) -> list[tuple[str, int]]:
    return [(name.decode(), int(float(due))) for name, due in zip(found[::2], found[1::2], strict=True)]
