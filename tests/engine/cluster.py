"""Several nodes in one process, on one log that they share: in memory, or in a Redis of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine import Node, opening
from engine.checkpoint import Checkpoint
from engine.checkpoint_sqlite import open_checkpoint
from engine.config import Config
from engine.lease import Holder, MemoryLease
from engine.log import partition_of
from engine.log.memory import MemoryLog
from engine.metrics import Metrics
from engine.opening import open_node
from engine.partition import Ground
from tests.engine.shop import config
from tests.log.redis_site import ALWAYS, needs_redis
from tests.relays.redis_server import RedisServer, redis_server


class Cluster:
    """While it is in force, `open_node` opens nodes on these partitions."""

    def __init__(self, patch: pytest.MonkeyPatch, partitions: int = 2) -> None:
        self.logs = [MemoryLog() for _ in range(partitions)]
        self.holders = [Holder() for _ in range(partitions)]
        self._checkpoints: list[Checkpoint] = []
        patch.setattr(opening, "_open_grounds", self._open)

    def log_of(self, stream: str) -> MemoryLog:
        """Return the log that has a stream."""
        return self.logs[partition_of(stream, len(self.logs))]

    async def _open(self, config: Config, stack: AsyncExitStack, metrics: Metrics) -> list[Ground]:
        while len(self._checkpoints) < len(self.logs):
            self._checkpoints.append(await open_checkpoint(":memory:"))
        return [
            Ground(log, checkpoint, MemoryLease(holder, config.node_id))
            for log, checkpoint, holder in zip(self.logs, self._checkpoints, self.holders, strict=True)
        ]

    @asynccontextmanager
    async def open(self, *names: str, **changes: Any) -> AsyncIterator[list[Node]]:
        """Open nodes of these names; they end with the block."""
        async with AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(open_node(config(node_id=name, **changes))) for name in names
            ]

    async def close(self) -> None:
        """Let go of the checkpoints."""
        for checkpoint in self._checkpoints:
            await checkpoint.close()


class RedisCluster:
    """The same in a Redis."""

    def __init__(self, server: RedisServer, partitions: int = 2) -> None:
        self.server = server
        self._settings: dict[str, Any] = {
            "log_url": server.url,
            "redis_partitions": partitions,
            "secret": "a secret that the nodes have together",
        }

    @asynccontextmanager
    async def open(self, *names: str, **changes: Any) -> AsyncIterator[list[Node]]:
        """Open nodes of these names; they end with the block."""
        async with AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(open_node(config(node_id=name, **self._settings, **changes)))
                for name in names
            ]


@pytest.fixture
async def memory_cluster(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    found = Cluster(monkeypatch)
    yield found
    await found.close()


@pytest.fixture
def redis_cluster(tmp_path: Path) -> Iterator[RedisCluster]:
    with redis_server(tmp_path, *ALWAYS) as server:
        yield RedisCluster(server)


@pytest.fixture(params=["memory", pytest.param("redis", marks=needs_redis)])
async def cluster(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[Cluster | RedisCluster]:
    """Either."""
    if request.param == "memory":
        found = Cluster(monkeypatch)
        yield found
        await found.close()
        return
    with redis_server(tmp_path, *ALWAYS) as server:
        yield RedisCluster(server)
