"""Keys deleted in Redis under load that cannot be made again: every node ends and says why.

`tests/engine/test_cluster_keys.py` has each of them; those that heal are in `test_refusals.py`.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import trio

from tests.chaos.deadline import wait_until
from tests.chaos.process import DidNotStart
from tests.cluster.guests import Guest, Wish
from tests.cluster.history import Outcome, now_ns
from tests.cluster.site import TRIMMED, Site, open_site
from tests.log.redis_site import needs_redis

pytestmark = [pytest.mark.slow, needs_redis]

OF_THE_LOG = ("meta", "log", "heads", "FLUSHALL")
"""Found by the next append."""
OF_THE_CHECKPOINT = ("states", "stores", "known:store:h1")
"""Found by the next checkpoint."""
FATAL = (*OF_THE_LOG, *OF_THE_CHECKPOINT)
LOG_FAILED = 6
"""The exit code."""


async def test_keys_that_do_not(tmp_path: Path, seed: int, cluster_rounds: int) -> None:
    """Every node ends with the code that says so, nothing is acknowledged after that, and none starts."""
    for number in range(max(1, cluster_rounds // 2)):
        keys = FATAL if cluster_rounds > 2 else OF_THE_LOG  # the others take their time
        key = keys[(seed + number) % len(keys)]
        folder = tmp_path / str(number)
        folder.mkdir()
        async with open_site(folder, seed, env=TRIMMED) as site:
            with trio.CancelScope() as over:
                async with site.load():
                    await site.acknowledged(60)
                    await delete(site, key)
                    since_ns = now_ns()
                    with trio.fail_after(20):
                        codes = [await server.wait_ended() for server in site.nodes.values()]
                    took_s = (now_ns() - since_ns) / 1e9
                    over.cancel()
            assert codes == [LOG_FAILED] * len(site.nodes), (key, codes)
            for name, server in site.nodes.items():
                assert any("missing in Redis" in line for line in server.said), (key, name)
            late = [call for call in site.history.calls if call.called_ns > since_ns]
            home = site.history.partitions["store:h1"]
            there = [call for call in late if site.history.partitions.get(call.stream) == home]
            fresh = [call for call in there if call.outcome == Outcome.OK and not call.replayed]
            assert key not in OF_THE_LOG or not fresh, (key, fresh[0])
            await refuses_to_start(site)
            print(
                f"{key} deleted | acknowledged after it {len(fresh)} | every node ended after {took_s:.2f} s"
            )


async def delete(site: Site, key: str) -> None:
    """Delete a key of the partition of a hot stream, or all there are, once it is there."""
    with site.client() as direct:
        if key == "FLUSHALL":
            direct.flushall()
        else:
            home = site.history.partitions["store:h1"]
            await wait_until(lambda: direct.exists(f"{{onda:{home}}}:{key}"), 15)
            assert direct.delete(f"{{onda:{home}}}:{key}") == 1, key


async def refuses_to_start(site: Site) -> None:
    """Start a node: it ends at once, or when it is asked for what is gone."""
    guest = Guest(800, site.doors, site.history, 0)
    with trio.fail_after(20), suppress(DidNotStart):
        await site.start("a")
        while not site.nodes["a"].said[-1].startswith("-- exit code"):
            order = Wish("store:h1", "create-order", {"lines": [{"product": "ramen", "quantity": 1}]})
            await guest.attempt(site.doors[0], order, f"late.{now_ns()}")
            await trio.sleep(0.05)
    await guest.leave()
    assert any("missing in Redis" in line for line in site.nodes["a"].said)
