"""Reads the log in Redis from beside, again and again: what it has, what it lost, and its epochs.

The nodes drop records behind a checkpoint, and a Redis that loses its end takes on other records in their
place. So what stood there is kept here, and compared with what stands there now by position, id and chain.
"""

from __future__ import annotations

from itertools import takewhile
from typing import Any, NamedTuple

import msgspec
import redis
import trio

from engine.log.frames import unpack_entry
from tests.cluster.history import Envelope, History, Loss, Record

LOOK_S = 0.03


class Line(NamedTuple):
    """One record. `previous`: id of the one before it."""

    position: int
    id: str
    previous: str
    envelope: Envelope


class Ledger:
    """All partitions of the log on one server. `port` may be changed: after a failover it is another one."""

    def __init__(self, history: History, partitions: int, port: int) -> None:
        self.port = port
        self.partitions = partitions
        self._history = history
        self._lines: dict[int, list[Line]] = {number: [] for number in range(partitions)}
        self._lock = trio.Lock()
        self._open: redis.Redis | None = None

    async def run(self) -> None:
        """Look now and then, until cancelled; while Redis is away there is nothing to see."""
        try:
            while True:
                await self.look()
                await trio.sleep(LOOK_S)
        finally:
            self.close()

    async def look(self) -> bool:
        """Take in what is there; return False when Redis does not say."""
        async with self._lock:
            try:
                seen = await trio.to_thread.run_sync(self._ask)
            except (redis.RedisError, OSError):
                return False
            for number, (found, meta, epochs) in seen.items():
                await self._take(number, found, meta, epochs)
            return True

    def finish(self) -> None:
        """Write into the history what the log has now."""
        self._history.records = [
            Record(number, line.position, line.envelope)
            for number, lines in self._lines.items()
            for line in lines
        ]

    def head(self, number: int) -> int:
        """The last position that was seen in a partition."""
        return self._lines[number][-1].position if self._lines[number] else 0

    def close(self) -> None:
        """Close the connection."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _client(self) -> redis.Redis:
        if self._open is None:
            self._open = redis.Redis(port=self.port, protocol=2, socket_timeout=2, socket_connect_timeout=1)
        return self._open

    def _ask(self) -> dict[int, Any]:
        try:
            client = self._client()
            if client.execute_command("ROLE")[0] != b"master":
                raise redis.ConnectionError("not a primary")
            return {
                number: self._read(client, number, f"{self.head(number) + 1}-0")
                for number in range(self.partitions)
            }
        except (redis.RedisError, OSError):
            self.close()
            raise

    def _read(self, client: redis.Redis, number: int, after: str) -> tuple[list[Line], list[Any], list[Any]]:
        with client.pipeline(transaction=True) as pipe:
            pipe.xrange(f"{{onda:{number}}}:log", after, "+")
            pipe.hmget(f"{{onda:{number}}}:meta", "head", "last", "first")
            pipe.lrange(f"{{onda:{number}}}:epochs", 0, -1)
            found, meta, epochs = pipe.execute()
        return [_line(name, fields) for name, fields in found], meta, epochs

    async def _take(self, number: int, found: list[Line], meta: list[Any], epochs: list[Any]) -> None:
        lines = self._lines[number]
        known = self._history.epochs.setdefault(number, [])
        last = lines[-1].id if lines else ""
        if meta[0] is None:
            return  # there is no such partition (any more)
        missed = int(meta[2]) - self.head(number) - 1
        assert missed <= 0, f"{missed} records were dropped before they were seen here: no fault of the nodes"
        follows = (
            found[0].previous == last
            if found
            else (int(meta[0]), meta[1].decode())
            == (
                lines[-1].position if lines else 0,
                last,
            )
        )
        if not follows:
            found = await trio.to_thread.run_sync(self._read_all, number)
            self._lose(number, found)
        for line in found:
            self._history.partitions[line.envelope["stream"]] = number
        self._lines[number] += found
        known += [name for name in (one.split()[0].decode() for one in epochs) if name not in known]

    def _read_all(self, number: int) -> list[Line]:
        return self._read(self._client(), number, "-")[0]

    def _lose(self, number: int, found: list[Line]) -> None:
        """Take out of `found` what is known already, and out of what is known what is gone."""
        lines = self._lines[number]
        ids = {line.position: line.id for line in found}
        before = found[0].position if found else 1
        kept = list(
            takewhile(lambda line: line.position < before or ids.get(line.position) == line.id, lines)
        )
        epoch = self._history.epochs[number][-1]
        self._history.lost += [Loss(line.envelope, epoch) for line in lines[len(kept) :]]
        self._lines[number] = kept
        del found[: len([line for line in found if kept and line.position <= kept[-1].position])]


def _line(name: bytes, fields: dict[bytes, bytes]) -> Line:
    entry, _ = unpack_entry(fields[b"r"])
    envelope = msgspec.json.decode(entry.body)
    assert (envelope["stream"], envelope["version"]) == (entry.stream, entry.version)
    return Line(int(name.split(b"-")[0]), fields[b"i"].decode(), fields[b"p"].decode(), envelope)
