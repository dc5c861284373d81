"""A Redis that takes nothing for a while, or forgets scripts, connections, and keys that can be made again:
commands are refused, then all is as before.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis
import trio

from tests.chaos.deadline import wait_until
from tests.cluster.history import Outcome, now_ns
from tests.cluster.site import ALWAYS, PARTITIONS, TRIMMED, Site, check, open_site
from tests.log.redis_site import needs_redis

pytestmark = [pytest.mark.slow, needs_redis]

KEYS = ("lease", "check", "positions", "epochs", "attempts")
NUISANCES = (*KEYS, "scripts", "clients", "OOM", "READONLY", "MISCONF", "LOADING", "paused", "stopped")
REFUSES = {"OOM": "read_only", "MISCONF": "read_only", "READONLY": "log_unavailable"}
"""What commands are answered with meanwhile."""
SLOW_START = ("--key-load-delay", "300", "--loading-process-events-interval-bytes", "1024")
PAUSE_S = 2.0


async def test_redis_is_a_nuisance(tmp_path: Path, seed: int, cluster_rounds: int) -> None:
    """Nothing is lost, nothing happens twice, no epoch begins, and each node comes back by itself."""
    options = (*ALWAYS, *SLOW_START)
    async with open_site(tmp_path, seed, env=TRIMMED, redis=options) as site:
        took: dict[str, list[float]] = {}
        async with site.load():
            for _ in range(max(1, cluster_rounds // 2)):
                for nuisance in NUISANCES:
                    await site.acknowledged(20)
                    start = len(site.history.calls)
                    async with befalling(site, nuisance, tmp_path):
                        if nuisance in REFUSES:
                            code = REFUSES[nuisance]
                            await wait_until(lambda c=code, s=start: all_refuse(site, s, c), 10, nuisance)
                    since_ns = now_ns()
                    took.setdefault(nuisance, []).append(await site.healed(since_ns))
        print({nuisance: f"{max(times):.2f} s" for nuisance, times in took.items()})
        check(site, "refusals, keys that heal", await site.verdict())
        assert {len(epochs) for epochs in site.history.epochs.values()} == {1}


def all_refuse(site: Site, start: int, code: str) -> bool:
    """Return whether every node has refused a command for this reason."""
    fresh = site.history.calls[start:]
    return {call.node for call in fresh if (call.outcome, call.code) == (Outcome.UNAVAILABLE, code)} == set(
        site.nodes
    )


@asynccontextmanager
async def befalling(site: Site, nuisance: str, folder: Path) -> AsyncIterator[None]:
    """Let it happen, and be over at the end of the block."""
    with site.client() as direct:
        match nuisance:
            case key if key in KEYS:
                direct.delete(*(f"{{onda:{partition}}}:{key}" for partition in range(PARTITIONS)))
                yield
            case "scripts":
                direct.script_flush()
                yield
            case "clients":
                direct.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                direct.execute_command("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes")
                yield
            case "OOM":
                direct.config_set("maxmemory", "1mb")
                yield
                direct.config_set("maxmemory", "0")
            case "READONLY":
                direct.replicaof("127.0.0.1", 1)
                yield
                direct.replicaof("NO", "ONE")
            case "MISCONF":
                await fail_to_save(direct, folder / "redis" / "dump.rdb")
                yield
                direct.config_set("stop-writes-on-bgsave-error", "no")
            case "LOADING":
                yield
                await site.restart_redis()
            case "paused":
                direct.execute_command("CLIENT", "PAUSE", int(PAUSE_S * 1000), "ALL")
                yield
            case _:
                site.redis.hang()
                await trio.sleep(PAUSE_S)
                yield
                site.redis.go_on()


async def fail_to_save(direct: redis.Redis, file: Path) -> None:
    """Let a snapshot fail: there is a folder where its file would be."""
    file.mkdir(exist_ok=True)
    direct.config_set("stop-writes-on-bgsave-error", "yes")
    direct.config_set("save", "3600 1")
    direct.bgsave()
    await wait_until(lambda: direct.info("persistence")["rdb_last_bgsave_status"] == "err")
