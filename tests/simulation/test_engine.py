"""The whole engine in a simulated world, many short lives per seed; the checkers know nothing of actors.

A failure names its seed; `SEED=7 pytest tests/simulation/test_engine.py` runs that one alone,
`SEEDS=500` runs so many.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio._core._run as scheduler

from engine import opening
from engine.codec import decode_envelope, decode_event, decode_meta, domain_of, encode
from engine.records import Entry
from tests.simulation.world import CLOSING, World

SEEDS = [int(os.environ["SEED"])] if "SEED" in os.environ else range(int(os.environ.get("SEEDS", "12")))
LIVES = 6
STEPS = 40
VIRTUAL_S = 600.0
"""Within this much simulated time everything has to come to rest after the last fault."""


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_doubled_or_shown_too_early(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Crashes, refused appends, slow disks, checkpoints and idle drops at any moment change no answer, no
    effect and no screen.
    """

    async def inline(work: Any, *args: Any, **_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return work(*args)

    async def main() -> World:
        world = World(seed, str(tmp_path))
        monkeypatch.setattr(opening, "_open_disk", world.open_disk)
        with trio.fail_after(VIRTUAL_S):
            await world.run(LIVES, STEPS)
        return world

    monkeypatch.setattr(trio.to_thread, "run_sync", inline)
    monkeypatch.setattr(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    scheduler._r.seed(seed)
    random.seed(seed)
    try:
        world = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
        for check in (versions, acknowledged, effects, states, screens, orders):
            check(world)
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise


def versions(world: World) -> None:
    """Each stream's versions are 1, 2, 3 … in the log."""
    heads: Counter[str] = Counter()
    for entry in world.log.history:
        heads[entry.stream] += 1
        assert entry.version == heads[entry.stream], entry
    assert world.log.head == len(world.log.history) > 0


def acknowledged(world: World) -> None:
    """What was answered is in the log, byte for byte."""
    durable = {(entry.stream, entry.version): entry.body for entry in world.log.history}
    assert world.acked
    for acked in world.acked:
        first = acked.answer.version - len(acked.answer.events) + 1
        for version, body in enumerate(acked.answer.events, first):
            assert durable[acked.stream, version] == body, acked.key


def effects(world: World) -> None:
    """No command had its effect twice."""
    metas = [(entry.stream, decode_meta(entry.meta)) for entry in world.log.history if entry.meta]
    counts = Counter((stream, meta.by, meta.id) for stream, meta in metas)
    assert counts.most_common(1)[0][1] == 1, counts.most_common(3)


def states(world: World) -> None:
    """What was read at any time is the fold of the log up to there."""
    wanted = {(stream, snapshot.version): snapshot.state for stream, snapshot in world.read}
    folded: dict[str, Any] = {}
    for entry in world.log.history:
        domain = domain_of(entry.stream.partition(":")[0])
        state = folded.setdefault(entry.stream, domain.State())
        domain.evolve(state, _event(entry))
        seen = wanted.get((entry.stream, entry.version))
        if seen is not None:
            view = encode({name: getattr(state, name) for name in domain.COLLECTIONS})
            assert msgspec.json.decode(seen) == msgspec.json.decode(view), (entry.stream, entry.version)


def screens(world: World) -> None:
    """In the end each screen shows what the node shows."""
    last = dict(world.read)
    for screen in world.screens:
        assert screen.cursor is not None
        assert screen.cursor.version == last[screen.stream].version
        assert screen.state == msgspec.json.decode(last[screen.stream].state), screen.stream


def orders(world: World) -> None:
    """Each cart that was sent became one order or one refusal, and each order of a table is there once."""
    seen: Counter[tuple[str, str, str]] = Counter()
    for entry in world.log.history:
        event = _event(entry)
        kind, _, rest = entry.stream.partition(":")
        name = type(event).__name__
        if kind == "table" and name in ("CartSubmitted", "CartReturned", "OrderReceived"):
            seen[name, rest, event.order] += 1
        elif name in ("OrderCreated", "CartRefused") and event.table is not None:
            seen[name, f"{rest}/{event.table}", event.order] += 1
    assert set(seen.values()) <= {1}, seen.most_common(3)
    for name, table, order in seen:
        if name == "CartSubmitted":
            assert seen["OrderCreated", table, order] + seen["CartRefused", table, order] == 1, (table, order)
        if not table.endswith(CLOSING):
            if name == "OrderCreated":
                assert seen["OrderReceived", table, order] == 1, (table, order)
            if name == "CartRefused":
                assert seen["CartReturned", table, order] == 1, (table, order)


def _event(entry: Entry) -> Any:
    envelope = decode_envelope(entry.body)
    return decode_event(entry.stream.partition(":")[0], envelope.type, envelope.data)
