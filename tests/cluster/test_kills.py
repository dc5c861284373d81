"""Nodes and Redis killed under load: what was acknowledged is there, once, in order, and on every screen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.history import now_ns
from tests.cluster.site import TRIMMED, check, open_site
from tests.log.redis_site import needs_redis

pytestmark = [pytest.mark.slow, needs_redis]


async def test_nodes_are_killed(tmp_path: Path, seed: int, cluster_rounds: int) -> None:
    """SIGKILL under load and a start soon after, again and again; every other time the node on duty."""
    async with open_site(tmp_path, seed, nodes=("a", "b", "c"), env=TRIMMED) as site:
        async with site.load():
            for number in range(cluster_rounds):
                await site.acknowledged(site.chance.randint(20, 80))
                duty = site.on_duty(site.chance.randrange(4)) if number % 2 else ""
                name = duty or site.chance.choice(sorted(site.nodes))
                await site.kill(name)
                for other in set(site.nodes) - {name}:
                    await site.acknowledged(10, at=other)
                since_ns = now_ns()
                await site.start(name)
                await site.healed(since_ns)
        check(site, "node killed", await site.verdict())


async def test_redis_is_killed(tmp_path: Path, seed: int, cluster_rounds: int) -> None:
    """SIGKILL of Redis with `appendfsync always`: nothing that was acknowledged is lost, no epoch begins."""
    async with open_site(tmp_path, seed, env=TRIMMED) as site:
        async with site.load():
            for _ in range(cluster_rounds):
                await site.acknowledged(site.chance.randint(20, 80))
                await site.healed(await site.restart_redis(site.chance.uniform(0, 0.5)))
        check(site, "Redis killed, always", await site.verdict())
        assert {len(epochs) for epochs in site.history.epochs.values()} == {1}
