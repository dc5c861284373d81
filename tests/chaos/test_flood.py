"""A flood of connections, half of them silent: the board goes on, memory stays bounded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.chaos.crowd import PACE, open_crowd
from tests.chaos.process import ROOT, open_server, token
from tests.chaos.test_stalled import order_latencies, percentile
from web.client import open_client

GROWTH_PER_CONNECTION_MAX = 24 << 10
"""A connection that is not a stream is a task with its buffers; a page in the making costs more."""

GROWTH_MAX = 32 << 20
"""Of everything else: buffers, pages in the making and what the allocator keeps; 23 to 27 MB were seen."""

LATENCY_P99_S_MAX = 0.5
"""Generous, because the machine is shared; with all strangers first in the queue it would be seconds."""


@pytest.mark.one_node("memory and connections of one process")
@pytest.mark.alone
@pytest.mark.slow
async def test_a_flood_of_connections(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Orders reach the board while a crowd asks for what it may not have, as fast as it can."""
    count = pytestconfig.getoption("--flood")
    env = {
        "ONDA_CONNECTIONS_MAX": str(count + 200),
        "ONDA_CONNECTIONS_PER_ADDRESS_MAX": str(count + 200),
        "ONDA_PING_S": "2",
        "ONDA_CHECKPOINT_S": "1",
        "ONDA_HEAD_TIMEOUT_S": "4",
    }
    async with (
        open_server(tmp_path / "data", "--no-demo", env=env) as (server, _),
        open_crowd(server.base, 1, tables=1) as (_, client),
        open_client(server.base, token(), pace=PACE) as reader,
    ):
        await order_latencies(client, reader, 40)  # warm-up
        alone = percentile(await order_latencies(client, reader, 60), 99)
        before = server.rss_bytes()
        async with flooded(server.port, count):
            crowded = percentile(await order_latencies(client, reader, 300), 99)
            growth = server.rss_bytes() - before
        print(f"p99 {alone * 1e3:.1f} ms alone, {crowded * 1e3:.1f} ms among {count} connections")
        print(f"RSS +{growth / 1e6:.1f} MB on {before / 1e6:.1f}")
        assert crowded < LATENCY_P99_S_MAX
        assert growth < GROWTH_MAX + count * GROWTH_PER_CONNECTION_MAX
        await order_latencies(client, reader, 20)
        assert await server.stop(within_s=5) == 0


def launch(port: int, count: int) -> subprocess.Popen[bytes]:
    """Start a crowd."""
    command = [sys.executable, "-m", "tests.chaos.flood", str(port), str(count), "600"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)


@asynccontextmanager
async def flooded(port: int, count: int) -> AsyncIterator[None]:
    """A crowd of so many connections, once all are there."""
    crowd = launch(port, count)
    try:
        assert crowd.stdout is not None
        with trio.fail_after(60):
            assert await trio.to_thread.run_sync(crowd.stdout.readline, abandon_on_cancel=True) == b"ready\n"
        yield
        assert crowd.poll() is None, "the crowd gave up"
    finally:
        crowd.kill()
        crowd.wait()
        crowd.stdout.close()
