"""The checkpoints in Redis, read and written as a whole; see `engine/checkpoint_redis.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import msgspec

from engine.answers import Answer, Known
from engine.checkpoint import PARTITIONS_MAX, Parked, SavedState
from engine.checkpoint_redis import CALL_BYTES
from engine.checkpoint_scripts import COUNTED, NOTE
from engine.errors import LogCorrupt
from engine.log import partition_of
from engine.log.redis_scripts import Script, script
from engine.migrating.places import Places
from engine.migrating.shared import WHERE, Shared

ROWS = 200
"""States or answers that are asked for at once."""
WORDS_MAX = 1000

T = TypeVar("T", bound=tuple[Any, ...])

_pack = msgspec.msgpack.encode
_unpack_answer = msgspec.msgpack.Decoder(Answer).decode
_unpack_parked = msgspec.msgpack.Decoder(Parked).decode

STATES = script(
    """
for n = 2, #ARGV, 3 do
  redis.call('HSET', ARGV[1] .. ':states', ARGV[n], ARGV[n + 2])
  if ARGV[n + 1] ~= '' then redis.call('ZADD', ARGV[1] .. ':due', ARGV[n + 1], ARGV[n]) end
  if string.sub(ARGV[n], 1, 6) == 'store:' then redis.call('SADD', ARGV[1] .. ':stores', ARGV[n]) end
end
return {'ok'}
"""
)
"""KEYS: meta. ARGV: the tag; for each state stream, deadline (or nothing), and what `:states` has of it."""

ANSWERS = script(
    """
for n = 2, #ARGV, 5 do
  local stream, key = ARGV[n], ARGV[n + 1]
  local fresh = redis.call('HSET', ARGV[1] .. ':known:' .. stream, key, ARGV[n + 2] .. ' ' .. ARGV[n + 3])
  redis.call('HINCRBY', ARGV[1] .. ':memory', stream, fresh)
  redis.call('HSET', ARGV[1] .. ':answers:' .. stream, key, ARGV[n + 4])
  redis.call('ZADD', ARGV[1] .. ':kept', ARGV[n + 2], stream .. '\\n' .. key)
end
return {'ok'}
"""
)
"""KEYS: meta. ARGV: the tag; for each answer stream, key, at_ms, digest and bytes."""


class KeptShared:
    """The checkpoints of all partitions.

    Args:
        shared: where they are.
        epoch: in which places are written.
    """

    def __init__(self, shared: Shared, epoch: str = "") -> None:
        self._shared = shared
        self._epoch = epoch

    # Reading

    def check(self, number: int) -> None:
        """See that a partition's checkpoint has all that was counted in it, as scripts of nodes do.

        Raises:
            LogCorrupt: it has not.
        """
        tag = _tag(number)
        (answer,) = self._shared.run(COUNTED, [(number, (f"{tag}:meta",), (tag,))])
        if answer[0] != b"ok":
            raise _missing(number, answer[1].decode())
        rest = self._shared.scan(number, "HSCAN", f"{tag}:memory")
        while some := list(islice(rest, ROWS)):
            keys = [f"known:{stream.decode()}" for stream, _ in some]
            found = self._shared.call(number, [("HLEN", f"{tag}:{key}") for key in keys])
            for key, (_, noted), there in zip(keys, some, found, strict=True):
                if there < int(noted):
                    raise _missing(number, key)

    def places(self, number: int, gone: int) -> Places:
        """Return what a partition's checkpoint says in positions; `gone`: its records that are dropped."""
        tag = _tag(number)
        check, positions, reruns, attempts, parked = self._shared.call(
            number,
            [
                ("HMGET", f"{tag}:check", "position", "floor", "refill"),
                ("HGETALL", f"{tag}:positions"),
                ("SMEMBERS", f"{tag}:reruns"),
                ("HGETALL", f"{tag}:attempts"),
                ("HGETALL", f"{tag}:parked"),
            ],
        )
        at = [gone if word is None else max(gone, int(word)) for word in check]
        tries = []
        for field, count in _pairs(attempts):
            name, position = field.decode().split("\n")
            tries.append((name, int(position), int(count)))
        starts = []
        for one in reruns:
            name, low, high = one.decode().split("\n")
            starts.append((name, int(low), int(high)))
        found = [_unpack_parked(one)._replace(id=int(id_)) for id_, one in _pairs(parked)]
        places = {name.decode(): max(gone, int(place)) for name, place in _pairs(positions)}
        return Places(
            at[0], at[1], at[2], places, sorted(starts), sorted(tries), sorted(found, key=_place_and_id)
        )

    def states(self, streams: Iterable[str]) -> Iterator[SavedState]:
        """Yield the saved states of streams."""
        for number, names in self._by_partition(streams):
            tag = _tag(number)
            lines, dues = self._shared.call(
                number, [("HMGET", f"{tag}:states", *names), ("ZMSCORE", f"{tag}:due", *names)]
            )
            for name, line, due in zip(names, lines, dues, strict=True):
                if line is not None:
                    version, _, state = line.partition(b"\n")
                    yield SavedState(name, int(version), state, None if due is None else int(float(due)))

    def answers(self) -> Iterator[tuple[str, str, Known]]:
        """Yield the saved answers, with their stream and key.

        Raises:
            LogCorrupt: a command is known, and its answer is missing: it would take effect again.
        """
        for number in range(self._shared.partitions):
            tag, start = _tag(number), 0
            while True:
                command = ("ZRANGE", f"{tag}:kept", start, start + ROWS - 1)
                (members,) = self._shared.call(number, [command])
                if not members:
                    break
                start += ROWS
                names = [member.decode().partition("\n")[::2] for member in members]
                commands = []
                for stream, key in names:
                    commands.append(("HGET", f"{tag}:known:{stream}", key))
                    commands.append(("HGET", f"{tag}:answers:{stream}", key))
                found = self._shared.call(number, commands)
                for (stream, key), (line, packed) in zip(names, _pairs(found), strict=True):
                    if line is None or packed is None:
                        what = "known" if line is None else "answers"
                        raise _missing(number, f"{what}:{stream} {key!r}")
                    at_ms, _, digest = line.decode().partition(" ")
                    yield stream, key, Known(int(at_ms), digest, _unpack_answer(packed))

    def tasks(self) -> Iterator[tuple[str, str]]:
        """Yield tasks and their users."""
        seen = set()
        for task, user in self._shared.scan(0, "HSCAN", f"{_tag(0)}:tasks"):
            if task not in seen:
                seen.add(task)
                yield task.decode(), user.decode()

    def _by_partition(self, streams: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        waiting: dict[int, list[str]] = {}
        for stream in streams:
            number = partition_of(stream, self._shared.partitions)
            names = waiting.setdefault(number, [])
            names.append(stream)
            if len(names) == ROWS:
                yield number, waiting.pop(number)
        yield from waiting.items()

    # Writing

    def add_states(self, states: Iterable[SavedState]) -> None:
        """Write states."""

        def words(one: SavedState) -> Sequence[Any]:
            due_ms = "" if one.deadline_ms is None else one.deadline_ms
            return one.stream, due_ms, b"%d\n%b" % (one.version, one.state)

        self._fill(STATES, states, words)

    def add_answers(self, answers: Iterable[tuple[str, str, Known]]) -> None:
        """Write answers."""

        def words(one: tuple[str, str, Known]) -> Sequence[Any]:
            stream, key, known = one
            return stream, key, known.at_ms, known.digest, _pack(known.answer)

        self._fill(ANSWERS, answers, words)

    def _fill(self, text: Script, items: Iterable[T], words_of: Callable[[T], Sequence[Any]]) -> None:
        """Hand items, which begin with their stream, to a script, some of one partition at a time."""
        waiting: dict[int, list[Any]] = {}
        sizes: dict[int, int] = {}

        def send(number: int) -> None:
            keys = (f"{_tag(number)}:meta",)
            self._shared.run(text, [(number, keys, (_tag(number), *waiting.pop(number)))])
            del sizes[number]

        for item in items:
            number = partition_of(item[0], self._shared.partitions)
            words = words_of(item)
            waiting.setdefault(number, []).extend(words)
            sizes[number] = sizes.get(number, 0) + len(words[-1])
            if sizes[number] > CALL_BYTES or len(waiting[number]) > WORDS_MAX:
                send(number)
        for number in list(waiting):
            send(number)

    def add_tasks(self, tasks: Iterable[tuple[str, str]]) -> None:
        """Write tasks."""
        rest = iter(tasks)
        while some := list(islice(rest, ROWS)):
            words = [word for pair in some for word in pair]
            self._shared.call(0, [("HSET", f"{_tag(0)}:tasks", *words)])

    def add_places(self, number: int, places: Places) -> None:
        """Write what a partition's checkpoint says in positions, as the last of it."""
        tag = _tag(number)
        check = ("position", places.position, "floor", places.floor, "refill", places.refill)
        commands: list[Sequence[Any]] = [
            ("HSET", f"{tag}:check", *check, "epoch", self._epoch, "ids", len(places.parked))
        ]
        commands += [("HSET", f"{tag}:positions", *pair) for pair in places.positions.items()]
        commands += [("SADD", f"{tag}:reruns", f"{name}\n{low}\n{high}") for name, low, high in places.reruns]
        commands += [("HSET", f"{tag}:attempts", f"{name}\n{at}", n) for name, at, n in places.attempts]
        for count, one in enumerate(places.parked, 1):
            id_ = count * PARTITIONS_MAX + number
            commands.append(("HSET", f"{tag}:parked", id_, _pack(one)))
            commands.append(("HSET", f"{tag}:parking", f"{one.reaction}\n{one.position}", id_))
        self._shared.call(number, commands)
        self._shared.run(NOTE, [(number, (f"{tag}:meta",), (tag,))])


def _missing(number: int, what: str) -> LogCorrupt:
    return LogCorrupt(WHERE, 0, f"{_tag(number)}: {what} is missing in Redis, or some of it is")


def _tag(number: int) -> str:
    return f"{{onda:{number}}}"


def _place_and_id(parked: Parked) -> tuple[int, int]:
    return parked.position, parked.id


def _pairs(found: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(found[::2], found[1::2], strict=True)
