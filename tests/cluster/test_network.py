"""One node's way to Redis is bad: the other goes on, the node says so, keeps its screens, and heals."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.deadline import wait_until
from tests.chaos.proxy import Way, open_proxy
from tests.cluster.history import Outcome, now_ns
from tests.cluster.messy import KINDS, Messy, open_messy
from tests.cluster.site import TRIMMED, Site, check, open_site
from tests.log.redis_site import needs_redis

pytestmark = [pytest.mark.slow, needs_redis]

FAULTS = ("refuse", "stall", "up", "down", "delay", "cut", "reset")
STAYING = {**TRIMMED, "ONDA_ROTATE_S": "0"}
"""No stream closes by itself."""
AWAY_S = 15.0
"""Longer than an answer of Redis may take, and a lease."""
HEARD_S = 4.0
"""Much longer than the second after which a partition is looked at: the machine may have more to do."""


async def test_a_node_is_cut_off(tmp_path: Path, seed: int, cluster_rounds: int) -> None:
    """Cut, stalled, half-open or slow between one node and Redis: every command there is answered 503 with
    Retry-After or has an unknown outcome, its streams stay open, and it comes back by itself.
    """
    async with open_site(tmp_path, seed, env=STAYING, make_proxy=open_proxy) as site:
        async with site.load():
            for number in range(max(cluster_rounds, 2)):
                fault = FAULTS[number % len(FAULTS)]
                name = site.chance.choice(sorted(site.nodes))
                (other,) = set(site.nodes) - {name}
                await site.acknowledged(30)
                opened = {reader.name: reader.opened for reader in site.readers if reader.door.name == name}
                start = len(site.history.calls)
                await begin(site, name, fault)
                await site.acknowledged(20, at=other)
                if fault in ("refuse", "stall", "up", "down"):
                    await wait_until(
                        lambda name=name, start=start: turned_away(site, name, start), AWAY_S * 2
                    )
                since_ns = now_ns()
                await site.proxies[name].heal()
                await site.healed(since_ns)
                if fault == "refuse":
                    now = {reader.name: reader.opened for reader in site.readers if reader.name in opened}
                    assert now == opened, "its streams did not stay"
        check(site, "cut off", await site.verdict())


async def begin(site: Site, name: str, fault: str) -> None:
    """Let a fault befall the way of one node to Redis."""
    proxy = site.proxies[name]
    match fault:
        case "refuse":
            await proxy.refuse()
        case "stall":
            proxy.stall()
        case "up":
            proxy.half_open(Way.UP)
        case "down":
            proxy.half_open(Way.DOWN)
        case "delay":
            proxy.delay_s = 0.05
        case "cut":
            await proxy.cut()
        case _:
            await proxy.reset()


def turned_away(site: Site, name: str, start: int) -> bool:
    """Return whether a node has refused a command since."""
    return any(
        call.node == name and call.outcome == Outcome.UNAVAILABLE for call in site.history.calls[start:]
    )


def slowest_s(site: Site) -> float:
    """Return how long the slowest event took from its answer at one node to a screen at another."""
    shown: dict[tuple[str, str], int] = {}
    for sight in site.history.sights:
        if sight.envelope is not None:
            shown.setdefault((sight.node, sight.envelope["id"]), sight.at_ns)
    took = [
        shown[door.name, event["id"]] - call.returned_ns
        for call in site.history.calls
        for event in call.events
        for door in site.doors
        if not call.replayed and (door.name, event["id"]) in shown
    ]
    return max(took) / 1e9


async def test_messages_are_lost_doubled_and_late(tmp_path: Path, seed: int, cluster_rounds: int) -> None:
    """What a node hears of the others is spoilt, message by message: screens are right, within a look."""
    async with open_site(tmp_path, seed, make_proxy=lambda target: open_messy(target, seed)) as site:
        ways = [proxy for proxy in site.proxies.values() if isinstance(proxy, Messy)]
        async with site.load():
            for _ in range(cluster_rounds):
                for way in ways:
                    way.spoil(0.5)
                await site.acknowledged(60)
                while any(min(Counter(way.done)[kind] for kind in KINDS) < 6 for way in ways):
                    await site.acknowledged(10)
                for way in ways:
                    way.spoil(0)
                await site.healed()
        check(site, "messages spoilt", await site.verdict())
        assert slowest_s(site) < HEARD_S
