"""A Redis that comes back without its end: the loss is found, told, and over; no node serves what is gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.guests import Wish
from tests.cluster.history import Call, Outcome, now_ns
from tests.cluster.readers import reset_for
from tests.cluster.site import ALWAYS, CLOSELY, EVERYSEC, Site, aof_of, check, cut_aof, open_site
from tests.log.redis_site import needs_redis

pytestmark = [pytest.mark.slow, needs_redis]


@pytest.mark.parametrize(
    ("options", "env"), [(EVERYSEC, {}), (ALWAYS, CLOSELY)], ids=["everysec", "always, and the disk lied"]
)
async def test_redis_loses_its_end(
    tmp_path: Path, seed: int, cluster_rounds: int, options: tuple[str, ...], env: dict[str, str]
) -> None:
    """SIGKILL, the last changes cut off the file, a start: a new epoch, resets, and what was lost is said.
    Keys whose effect was lost are sent again at both nodes, and have one.
    """
    async with open_site(tmp_path, seed, redis=options, env=env) as site:
        for _ in range(cluster_rounds):
            async with site.load():
                await site.acknowledged(site.chance.randint(40, 80))
                size = aof_of(tmp_path).stat().st_size
                await site.acknowledged(site.chance.randint(10, 60))
                await lose_behind(site, tmp_path, size)
                await site.healed(now_ns())
            await send_lost_again(site)
            await cursors_are_reset(site)
        verdict = await site.verdict(may_lose=True)
        check(site, f"end lost, {options[-1]}, {'trimmed' if env else 'whole'}", verdict)
        assert verdict.told > 0


async def lose_behind(site: Site, folder: Path, size: int) -> None:
    """Kill Redis, and start it with no more of its file than it had at `size`."""
    site.redis.stop()
    assert cut_aof(aof_of(folder), size) > 0
    site.redis.start()


async def send_lost_again(site: Site) -> None:
    """Send commands whose acknowledged effect is gone once more, at each node in turn."""
    site.ledger.finish()
    there = {record.envelope["id"] for record in site.history.records}
    lost = [call for call in site.history.calls if call.events and call.events[0]["id"] not in there]
    found: dict[str, Call] = {call.key: call for call in lost}
    again = site.guests[0]
    for number, (key, call) in enumerate(sorted(found.items())[:20]):
        wish = Wish(call.stream, call.command, call.body)
        for door in (site.doors[number % 2], site.doors[1 - number % 2]):
            answer = await again.attempt(door, wish, key)
            assert answer.outcome in (Outcome.OK, Outcome.REFUSED), answer
    await again.leave()


async def cursors_are_reset(site: Site) -> None:
    """A cursor of an epoch that is over is good for nothing at any node."""
    epochs = {number: names[-1] for number, names in site.history.epochs.items()}
    old = [
        call
        for call in site.history.calls
        if call.outcome == Outcome.OK and call.epoch not in ("", epochs[site.history.partitions[call.stream]])
    ]
    for call in old[-3:]:
        for door in site.doors:
            reason = await reset_for(door, call.stream, f"{call.epoch}-{call.version}")
            assert reason == "epoch", (door, call.stream, call.epoch)


async def test_a_node_that_was_away_when_it_was_told(tmp_path: Path, seed: int) -> None:
    """It knew of what is lost, and starts when that is over for the others: no second epoch begins."""
    async with open_site(tmp_path, seed, redis=EVERYSEC, env=CLOSELY) as site:
        async with site.load():
            await site.acknowledged(40)
            size = aof_of(tmp_path).stat().st_size
            await site.acknowledged(20)
            assert await site.nodes["b"].stop() == 0
            await lose_behind(site, tmp_path, size)
            await site.acknowledged(30, at="a")
            await site.start("b")
            await site.healed()
        check(site, "loss while a node was away", await site.verdict(may_lose=True))
        assert max(len(epochs) for epochs in site.history.epochs.values()) == 2
