"""The log in Redis, as the one end of a move: claiming a Redis, filling it, reading all of it, closing it.

While a move fills a partition its `:meta` has `partitions` = `moving` and no epoch, so no script of a node
does anything with it, and no node starts. Partition 0 is claimed first, and opened last: it says what all
of this is. A log that was moved away has `moved` there; `:meta` keeps what it takes to open it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from engine.checkpoint import PARTITIONS_MAX
from engine.errors import ConfigError, LogAway, LogCorrupt, LogFailed, LogLocked
from engine.lease_redis import ALIVE_S
from engine.log.redis_asking import Record, Refused, check_format, good, read_records
from engine.log.redis_lines import Away, Cut, Server, refusal_of
from engine.log.redis_route import Lines, Route
from engine.log.redis_scripts import FORMAT, MOVED, MOVING, Keys, Script, script

WHERE = "the log in Redis"
"""What messages call it."""
ALL = "{onda:*"
SCAN_COUNT = 1000
CALLS = 64
"""Commands of one trip."""
READ_BYTES = 256 << 10
READ_MAX = 1000

CLAIM = script(
    """
if redis.call('EXISTS', KEYS[1], KEYS[2], KEYS[3], KEYS[4]) > 0 then return 0 end
redis.call('RPUSH', KEYS[4], ARGV[2] .. ' 0')
return redis.call('HSET', KEYS[1], 'partitions', ARGV[1])
"""
)
"""KEYS: meta, log, heads, epochs. ARGV: what stands for the number of partitions, the epoch."""

LOAD = script(
    f"""
if redis.call('HGET', KEYS[1], 'partitions') ~= '{MOVING}' then return {{'lost'}} end
local head, prev = tonumber(ARGV[2]), ARGV[3]
for n = 4, #ARGV, 2 do
  local id, entry = ARGV[n], ARGV[n + 1]
  local bytes = struct.unpack('<H', entry, 17)
  head = head + 1
  redis.call('XADD', KEYS[2], head .. '-0', 'i', id, 'p', prev, 'r', entry)
  redis.call('RPUSH', ARGV[1] .. string.sub(entry, 19, 18 + bytes), head)
  prev = id
end
return {{'ok'}}
"""
)
"""KEYS: meta, log. ARGV: the prefix of `:at:`, position and id of the last record, then id and entry of each
that is added.
"""

CLOSE = script(
    f"""
local m = redis.call('HMGET', KEYS[1], 'partitions', 'epoch', 'head', 'last')
if m[1] == '{MOVED}' then return 1 end
if m[2] ~= ARGV[1] or m[3] ~= ARGV[2] or m[4] ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], 'partitions', '{MOVED}', 'was', m[1], 'closed', m[2])
redis.call('HDEL', KEYS[1], 'epoch')
return 1
""",
    "allow-oom",
)
"""KEYS: meta. ARGV: epoch, head and last id: nothing may have been appended since. From now on nothing is."""

REOPEN = script(
    f"""
local m = redis.call('HMGET', KEYS[1], 'partitions', 'was', 'closed')
if m[1] ~= '{MOVED}' then return 0 end
redis.call('HSET', KEYS[1], 'partitions', m[2], 'epoch', m[3])
redis.call('HDEL', KEYS[1], 'was', 'closed')
return 1
""",
    "allow-oom",
)


class Meta(NamedTuple):
    """What a partition says about itself. `intact`: it had not met another run of the server that may have
    lost something.
    """

    epoch: str
    head: int
    first: int
    last: str
    streams: int
    intact: bool = True


class Piece(NamedTuple):
    """Of the list of a stream's positions, as LRANGE counts."""

    stream: str
    start: int
    stop: int


class Shared:
    """A Redis that has, or will have, the log. Blocking.

    Raises, each method:
        LogAway: Redis cannot be reached, or takes nothing.
    """

    def __init__(self, url: str, partitions: int) -> None:
        if not 1 <= partitions <= PARTITIONS_MAX:
            raise ConfigError(f"a log in Redis has 1 to {PARTITIONS_MAX} partitions")
        self.partitions = partitions
        self._route = Route(url, partitions, "onda-migrate")
        self._lines = Lines(self._route)

    def close(self) -> None:
        """Close the lines."""
        self._lines.close()

    def call(self, number: int, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send commands to a partition's server; return their answers."""
        answers: list[Any] = []
        with _asked():
            line = self._lines.to(self._route.addresses()[number])
            for start in range(0, len(commands), CALLS):
                answers += [_checked(one) for one in line.call(commands[start : start + CALLS])]
        return answers

    def run(self, text: Script, calls: Sequence[tuple[int, Sequence[str], Sequence[Any]]]) -> list[Any]:
        """Run a script for each partition, keys and arguments, in that order for each server."""
        servers: dict[Any, list[tuple[Sequence[str], Sequence[Any]]]] = {}
        answers: list[Any] = []
        with _asked():
            addresses = self._route.addresses()
            for number, keys, arguments in calls:
                servers.setdefault(addresses[number], []).append((keys, arguments))
            for address, some in servers.items():
                answers += [_checked(one) for one in self._lines.to(address).run(text, some)]
        return answers

    def _server(self, number: int) -> Server:
        with _asked():
            return self._lines.to(self._route.addresses()[number]).server

    # What is there

    def standing(self) -> str:
        """Return what stands in place of the number of partitions: a number, `moving`, `moved`; empty when
        there is no log.

        Raises:
            LogTooNew, ConfigError: it is laid out in another way.
        """
        found, layout = self.call(0, [("HMGET", Keys.of(0).meta, "partitions", "format")])[0]
        if found not in (None, MOVING.encode()):
            check_format(layout)
        return "" if found is None else str(found.decode())

    def claimed_for(self) -> str:
        """Return the epoch of the log that a move has begun to write; empty when it did not come that far."""
        found = self.call(0, [("LINDEX", Keys.of(0).epochs, 0)])[0]
        return "" if found is None else str(found.decode().partition(" ")[0])

    def all_keys(self) -> Iterator[tuple[int, bytes]]:
        """Yield every key of a log, and a partition on the same server."""
        with _asked():
            addresses = self._route.addresses()
        for number, address in enumerate(addresses):
            if addresses.index(address) == number:
                cursor: Any = None
                while cursor != b"0":
                    command = ("SCAN", cursor or 0, "MATCH", ALL, "COUNT", SCAN_COUNT)
                    ((cursor, found),) = self.call(number, [command])
                    yield from ((number, key) for key in found)

    def check_alone(self) -> None:
        """Make sure that no node runs on it.

        Raises:
            LogLocked: one does.
        """
        (now,) = self.call(0, [("TIME",)])
        since = int(now[0]) - int(ALIVE_S)
        names = self.call(0, [("ZRANGEBYSCORE", "{onda:0}:nodes", since, "+inf")])[0]
        names += [
            holder
            for number in range(self.partitions)
            if (holder := self.call(number, [("GET", f"{{onda:{number}}}:lease")])[0]) is not None
        ]
        if names:
            running = ", ".join(sorted({name.decode().rpartition(".")[0] for name in names}))
            raise LogLocked(f"nodes run on this Redis ({running}): stop them; a killed one counts for 8 s")

    def meta(self, number: int) -> Meta:
        """Return what a partition says about itself.

        Raises:
            LogCorrupt: it is not there, or not all of it.
        """
        keys = Keys.of(number)
        names = ("epoch", "closed", "run", "head", "first", "last", "streams")
        server = self._server(number)
        values, records, heads = self.call(
            number, [("HMGET", keys.meta, *names), ("XLEN", keys.log), ("HLEN", keys.heads)]
        )
        epoch, closed, run, *rest = values
        if (epoch is None and closed is None) or None in rest:
            raise LogCorrupt(keys.meta, 0, "it is missing in Redis")
        head, first, last, streams = rest
        intact = server.safe or run == server.run.encode()
        meta = Meta((epoch or closed).decode(), int(head), int(first), last.decode(), int(streams), intact)
        if records != meta.head - meta.first + 1 or heads != meta.streams:
            raise LogCorrupt(keys.meta, 0, "records or heads of streams are missing in Redis")
        return meta

    def heads(self, number: int) -> Iterator[tuple[str, int, int, str]]:
        """Yield name, version, oldest kept version and last id of streams; one may come twice."""
        for name, line in self.scan(number, "HSCAN", Keys.of(number).heads):
            version, low, id_ = line.decode().split(" ", 2)
            yield name.decode(), int(version), int(low), id_

    def scan(self, number: int, command: str, key: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield names and values of a hash or sorted set; one may come twice."""
        cursor: Any = None
        while cursor != b"0":
            ((cursor, found),) = self.call(number, [(command, key, cursor or 0, "COUNT", SCAN_COUNT)])
            yield from zip(found[::2], found[1::2], strict=True)

    def records(self, number: int, after: int, last: str = "") -> Iterator[Record]:
        """Yield a partition's records after a position, whose record has the id `last`, if it is kept.

        Raises:
            LogCorrupt: one does not follow the one before it.
        """
        count = 16
        while True:
            command = ("XRANGE", Keys.of(number).log, f"{after + 1}-0", "+", "COUNT", count)
            (found,) = self.call(number, [command])
            records = read_records(found)
            for record in records:
                if record.position != after + 1 or (last and record.previous != last):
                    raise LogCorrupt(Keys.of(number).log, 0, f"position {after + 1} is not what follows")
                after, last = record.position, record.id
                yield record
            if len(records) < count:
                return
            size = sum(len(record.entry.meta) + len(record.entry.body) for record in records)
            count = max(1, min(READ_MAX, READ_BYTES * len(records) // max(1, size)))

    def spots(self, number: int, pieces: Sequence[Piece]) -> list[list[int]]:
        """Return the positions of streams' kept records."""
        at = Keys.of(number).at
        found = self.call(number, [("LRANGE", at + one.stream, one.start, one.stop) for one in pieces])
        return [[int(position) for position in one] for one in found]

    # Filling it

    def claim(self, epoch: str) -> None:
        """Take an empty Redis for a log of this epoch, so that no node makes one there.

        Raises:
            ConfigError: somebody else was faster.
        """
        for number in range(self.partitions):
            keys = Keys.of(number)
            names = (keys.meta, keys.log, keys.heads, keys.epochs)
            (mine,) = self.run(CLAIM, [(number, names, (MOVING, epoch))])
            if not mine:
                for claimed in range(number):
                    self.call(claimed, [("DEL", Keys.of(claimed).epochs, Keys.of(claimed).meta)])
                raise ConfigError("a log was made in this Redis just now")

    def empty(self) -> None:
        """Take away what an unfinished move has left; what says that it is one goes last."""
        meta = Keys.of(0).meta.encode()
        some: dict[int, list[tuple[str, bytes]]] = {}
        for number, key in self.all_keys():
            if key != meta:
                some.setdefault(number, []).append(("UNLINK", key))
        for number, commands in some.items():
            self.call(number, commands)
        self.call(0, [("DEL", meta)])

    def load(self, calls: Sequence[tuple[int, int, str, Sequence[Any]]]) -> None:
        """Add records: partition, position and id of the last one there, and ids and entries in turn."""
        wanted = []
        for number, head, last, words in calls:
            keys = Keys.of(number)
            wanted.append((number, (keys.meta, keys.log), (keys.at, head, last, *words)))
        if any(answer[0] != b"ok" for answer in self.run(LOAD, wanted)):
            raise LogFailed("somebody else has emptied this Redis meanwhile")

    def open(self, metas: Sequence[Meta]) -> None:
        """Let nodes use it."""
        for number in reversed(range(self.partitions)):
            keys, meta = Keys.of(number), metas[number]
            words = {
                "epoch": meta.epoch,
                "head": meta.head,
                "first": meta.first,
                "last": meta.last,
                "streams": meta.streams,
                "run": self._server(number).run,
                "format": FORMAT,
                "partitions": self.partitions,
            }
            self.call(number, [("HSET", keys.meta, *(word for pair in words.items() for word in pair))])

    # Leaving it

    def close_log(self, metas: Sequence[Meta]) -> None:
        """Let no node use it any more, all of it as it was read, or nothing.

        Raises:
            LogLocked: somebody has appended meanwhile.
        """
        for number, meta in enumerate(metas):
            arguments = (meta.epoch, meta.head, meta.last)
            (closed,) = self.run(CLOSE, [(number, (Keys.of(number).meta,), arguments)])
            if not closed:
                self.reopen_log()
                raise LogLocked("a node has appended while the log was read: stop it, and begin anew")

    def reopen_log(self) -> bool:
        """Let nodes use it again; return whether it was closed."""
        calls = [(number, (Keys.of(number).meta,), ()) for number in reversed(range(self.partitions))]
        return any(self.run(REOPEN, calls))


def find(url: str) -> Shared:
    """Return the log that is in a Redis.

    Raises:
        ConfigError: there is none.
        LogFailed: a move into it was not finished.
    """
    first = Shared(url, 1)
    try:
        standing = first.standing()
        if standing == MOVED:
            standing = first.call(0, [("HGET", Keys.of(0).meta, "was")])[0].decode()
    finally:
        first.close()
    if standing == MOVING:
        raise ConfigError("a move into this Redis was not finished: there is no log yet")
    if not standing:
        raise ConfigError("there is no log in this Redis")
    return Shared(url, int(standing))


def _checked(answer: Any) -> Any:
    if isinstance(answer, Exception) and (refusal := refusal_of(answer)) is not None:
        raise refusal
    return good(answer)


@contextmanager
def _asked() -> Iterator[None]:
    try:
        yield
    except (Away, Cut, Refused) as error:
        raise LogAway(f"Redis is away: {error}") from None
