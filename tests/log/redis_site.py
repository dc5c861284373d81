"""A log on a real redis-server of its own, and what its tests say again and again."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import redis
import trio

from engine.log import Basis
from engine.log.redis import RedisPartition
from engine.log.redis_shared import RedisLog, open_redis_log
from engine.records import Entry
from tests.relays.redis_server import RedisServer, find_server

needs_redis = pytest.mark.skipif(
    find_server() is None and not os.environ.get("CI"),
    reason="NOT TESTED: the log in Redis, as there is no redis-server here (apt-get install redis-server)",
)
"""In CI a missing server is a failure."""

ALWAYS = ("--appendonly", "yes", "--appendfsync", "always")
STREAM = "store:s1"


def opened(
    server: RedisServer | str, partitions: int = 1, **options: Any
) -> AbstractAsyncContextManager[RedisLog]:
    """Open the log on a server, as one more node."""
    url = server if isinstance(server, str) else server.url
    return open_redis_log(url, partitions=partitions, **options)


def client(server: RedisServer) -> redis.Redis:
    """A client that is not ours; blocking, for short questions."""
    return redis.Redis(port=server.port, decode_responses=True, protocol=2)


def entry(version: int, body: bytes = b"{}", stream: str = STREAM, meta: bytes = b"") -> Entry:
    """Return an entry."""
    return Entry(stream, version, meta, body)


class Writing:
    """What one actor does: append to a stream, each time on what it appended last."""

    def __init__(self, log: RedisPartition, stream: str = STREAM, name: str = "e") -> None:
        self.log = log
        self.stream = stream
        self.name = name
        self.version = 0
        self.last = ""

    async def append(self, count: int = 1, body: bytes = b"{}") -> int:
        """Append records, with ids `<name><version>`; return the last one's position."""
        versions = range(self.version + 1, self.version + 1 + count)
        ids = [f"{self.name}{version}" for version in versions]
        entries = [Entry(self.stream, version, b"", body) for version in versions]
        position = await self.log.append(entries, Basis(self.log.epoch, self.last, ids))
        self.version, self.last = versions[-1], ids[-1]
        return position


def basis(log: RedisPartition, after: str, *ids: str) -> Basis:
    """What an append is decided on now."""
    return Basis(log.epoch, after, ids)


async def until(what: Callable[[], Any], within_s: float = 10.0) -> None:
    """Wait until `what` holds."""
    with trio.fail_after(within_s):
        while not what():
            await trio.sleep(0.005)


async def patiently(
    act: Callable[[], Awaitable[Any]], *errors: type[Exception], within_s: float = 15.0
) -> Any:
    """Do it again while it raises one of `errors`."""
    with trio.fail_after(within_s):
        while True:
            try:
                return await act()
            except errors:
                await trio.sleep(0.02)


async def everything(log: RedisPartition) -> list[tuple[int, Entry]]:
    """Read a partition from its first record on, another node's too."""
    found: list[tuple[int, Entry]] = []
    after = log.first - 1
    while chunk := await log.read(after):
        found += chunk
        after = chunk[-1][0]
    return found


def versions(found: Sequence[tuple[int, Entry]], stream: str = STREAM) -> list[int]:
    """Return the versions of one stream."""
    return [read.version for _, read in found if read.stream == stream]
