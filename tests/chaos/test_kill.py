"""SIGKILL under load, again and again: what was acknowledged is there, once, and every screen shows it."""

import random
from pathlib import Path

import pytest
import trio

from tests.chaos.acts import run_all
from tests.chaos.crowd import COUNTED, COUNTED_PUT, STORE, Crowd, open_crowd
from tests.chaos.evidence import (
    carts_settled,
    contiguous,
    fold,
    nothing_doubled,
    nothing_lost,
    stages_once,
    stock_adds_up,
    without_empty,
)
from tests.chaos.logbook import read_log
from tests.chaos.process import Server, open_server

KEEP_ALL = {"ONDA_PING_S": "1", "ONDA_REFILL_BYTES": str(4 << 30), "ONDA_CHECKPOINT_S": "1"}
"""Checkpoints come often, so that kills meet them; the log keeps everything, as evidence."""


@pytest.mark.slow
async def test_kills_lose_nothing_and_double_nothing(
    tmp_path: Path, seed: int, request: pytest.FixtureRequest
):
    """Whatever was answered around the kills is durable, in order, each once, and on every screen."""
    rounds: int = request.config.getoption("--kill-rounds")
    data = tmp_path / "data"
    async with (
        open_server(data, "--no-demo", env=KEEP_ALL) as (server, nursery),
        open_crowd(server.base, seed) as (crowd, client),
    ):
        async with trio.open_nursery() as load:
            run_all(crowd, client, load)
            await kill_rounds(server, nursery, crowd, random.Random(seed), rounds)
            crowd.enough = True
        await crowd.wait_quiet(client)
        findings = await crowd.compare(client) + await crowd.replays(client) + crowd.faults()
        states = {feed: (await client.sync(feed))["state"] for feed in crowd.feeds()}
        assert await server.stop() == 0
    records = await read_log(data)
    findings += judge(crowd, records, states)
    print(f"{rounds} kills, {len(crowd.acknowledged)} commands acknowledged, {len(records)} records")
    assert findings == []


async def kill_rounds(
    server: Server, nursery: trio.Nursery, crowd: Crowd, chance: random.Random, rounds: int
) -> None:
    """Kill the server at random moments, now and then in the middle of its recovery, and start it again."""
    took_s = 1.0
    for _ in range(rounds):
        with trio.fail_after(30):
            await crowd.wait_acknowledged(chance.randint(1, 60))
        await trio.sleep(chance.uniform(0, 0.02))  # anywhere between two answers
        await server.kill()
        while chance.random() < 0.4:
            server.launch(nursery)
            await trio.sleep(chance.uniform(0.2, 1.1) * took_s)
            await server.kill()
        took_s = await server.start(nursery)
    with trio.fail_after(30):
        await crowd.wait_acknowledged(20)


def judge(crowd: Crowd, records: list[dict], states: dict[str, dict]) -> list[str]:
    """Hold the log against what clients were told, and the states against the log."""
    findings = (
        contiguous(records)
        + nothing_lost(records, crowd.acknowledged)
        + nothing_doubled(records, crowd.acknowledged, crowd.tried)
        + stages_once(records, crowd.acknowledged)
        + carts_settled(records, crowd.acknowledged)
    )
    left = states[f"stores/{STORE}"]["products"][COUNTED]["stock"]
    findings += stock_adds_up(records, COUNTED, COUNTED_PUT, left)
    for feed, state in states.items():
        kind, _, name = feed.partition("/")
        if fold(records, f"{kind[:-1]}:{name}") != without_empty(state):
            findings.append(f"{feed}: its patches do not fold to its snapshot")
    return findings
