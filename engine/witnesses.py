"""What this node knows to be in a log in Redis, on its own disk: a start on a Redis that has lost it is told.

Without it nobody could tell a Redis that was emptied while no node ran from a new one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec
import trio

from engine.errors import LogFailed
from engine.log.redis import RedisPartition
from engine.log.redis_asking import Witness

FILE = "redis-witnesses.json"


class Witnesses:
    """The last record of each partition that this node has seen, and in which epoch: one that is over by the
    time that the node comes back was told to those who were there.

    Args:
        folder: where they are kept; None: nowhere.
    """

    def __init__(self, folder: str | None) -> None:
        self._file = None if folder is None else os.path.join(folder, FILE)
        self._kept: dict[int, Witness] = {}
        self._lock = trio.Lock()

    async def load(self) -> dict[int, Witness]:
        """Return those of the last run.

        Raises:
            LogFailed: they cannot be read.
        """
        if self._file is not None:
            try:
                data = await trio.Path(self._file).read_bytes()
                self._kept = msgspec.json.decode(data, type=dict[int, Witness])
            except FileNotFoundError:
                return {}
            except (OSError, msgspec.DecodeError) as error:
                raise LogFailed(f"{self._file}: {error}") from error
        return self._kept

    async def save(self, partitions: Sequence[RedisPartition]) -> None:
        """Write down what there is now, if that is news.

        Raises:
            LogFailed: the disk takes nothing.
        """
        there = [one for one in partitions if one.witness.position]
        fresh = {one.number: one.witness._replace(epoch=one.epoch) for one in there}
        if self._file is None or fresh == self._kept:
            return
        async with self._lock:
            try:
                await trio.to_thread.run_sync(_write, self._file, msgspec.json.encode(fresh))
            except OSError as error:
                raise LogFailed(f"{self._file}: {error}") from error
            self._kept = fresh


def _write(file: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(file), exist_ok=True)
    with open(f"{file}.new", "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(f"{file}.new", file)
