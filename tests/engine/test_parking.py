"""Parked records while their stream goes on; reactions that wait, fail early or come back."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from engine import Committed, Reaction, open_node
from engine.checkpoint_sqlite import SqliteCheckpoint
from engine.errors import Rejected, Unavailable
from engine.tail import Tail
from engine.timers import STALE_MAX, Timers
from tests.engine.kept import Kept, kept
from tests.engine.shop import STORE, ManualClock, config, make_shop, wait_until
from tests.engine.test_reactions import CREATED, Recorder, place, reaction

__all__ = ["kept"]


class Gated(Recorder):
    """A handler that waits at a gate while that is shut."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = trio.Event()
        self.gate.set()

    async def __call__(self, record: Committed) -> None:
        await super().__call__(record)
        await self.gate.wait()


async def test_a_replay_is_done_once_however_many_ask_for_it() -> None:
    """Of two operators one replays, the other learns that it is done; no record is left out."""
    recorder = Gated()
    recorder.fail["s1/a"] = 4
    async with open_node(config(), reactions=reaction(recorder)) as node:
        await make_shop(node)
        await place(node, "a", "b", "c")
        await wait_until(lambda: len(node.parked()) == 3)
        recorder.seen.clear()
        recorder.gate = trio.Event()
        first = node.parked()[0]["id"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.replay_parked, first)
            nursery.start_soon(_too_late, node.replay_parked, first)
            nursery.start_soon(_too_late, node.skip_parked, first)
            await trio.testing.wait_all_tasks_blocked()
            recorder.gate.set()
        assert recorder.seen == ["s1/a", "s1/b", "s1/c"]
        assert not node.parked()


async def _too_late(call: object, id_: int) -> None:
    await trio.lowlevel.checkpoint()
    try:
        await call(id_)  # type: ignore[operator]
    except KeyError:
        return
    raise AssertionError("it was done twice")


@pytest.mark.parametrize("skip", [False, True])
async def test_a_record_that_went_on_does_not_come_back(kept: Kept, skip: bool) -> None:
    """Nothing else happened since the last checkpoint; the place of the reaction is saved even so."""
    recorder = Recorder()
    recorder.fail["s1/a"] = 4
    async with open_node(config(), reactions=reaction(recorder)) as node:
        await make_shop(node)
        await place(node, "a")
        await wait_until(lambda: len(recorder.seen) == 2)
        assert await node.upkeep.take()
        await wait_until(lambda: len(node.parked()) == 1)
        await (node.skip_parked if skip else node.replay_parked)(node.parked()[0]["id"])
    recorder.seen.clear()
    async with open_node(config(), reactions=reaction(recorder)) as node:
        await place(node, "b")
        await wait_until(lambda: node.statistics()["reaction_lag"] == 0)
        assert recorder.seen == ["s1/b"]
        assert not node.parked()


async def test_a_record_that_comes_back_has_its_tries(kept: Kept) -> None:
    """It went on, and the process ended before that was saved: it is handled again, and not parked for the
    tries from before.
    """
    recorder = Recorder()
    recorder.fail["s1/a"] = 4
    async with open_node(config(checkpoint_s=3600), reactions=reaction(recorder)) as node:
        await make_shop(node)
        await place(node, "a")
        await wait_until(lambda: len(node.parked()) == 1)
        await node.replay_parked(node.parked()[0]["id"])
        node.upkeep._host.on_duty = False  # so that nothing is saved at the end
    recorder.seen.clear()
    async with open_node(config(), reactions=reaction(recorder)) as node:
        await wait_until(lambda: recorder.seen == ["s1/a"])
        await wait_until(lambda: node.statistics()["reaction_lag"] == 0)
        assert not node.parked()


async def test_a_record_that_comes_during_a_replay_is_not_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is handled after the others, not parked behind a record that is parked no more."""
    recorder = Gated()
    recorder.fail["s1/a"] = 4
    park = SqliteCheckpoint.park
    async with open_node(config(), reactions=reaction(recorder)) as node:
        await make_shop(node)
        await place(node, "a")
        await wait_until(lambda: len(node.parked()) == 1)
        recorder.gate = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.replay_parked, node.parked()[0]["id"])
            await wait_until(lambda: len(recorder.seen) == 5)

            async def slow_park(self: SqliteCheckpoint, parked: object) -> object:
                recorder.gate.set()
                await wait_until(lambda: not node.parked())
                return await park(self, parked)  # type: ignore[arg-type]

            monkeypatch.setattr(SqliteCheckpoint, "park", slow_park)
            await place(node, "b")
            await trio.testing.wait_all_tasks_blocked()
            recorder.gate.set()
        await wait_until(lambda: node.statistics()["reaction_lag"] == 0)
        assert recorder.seen[4:] == ["s1/a", "s1/b"]
        assert not node.parked()


async def test_skipping_says_when_the_next_one_fails() -> None:
    """The skipped one is gone for good; the next is the first now, and its error is a refusal."""
    recorder = Recorder()
    recorder.fail |= {"s1/a": 4, "s1/b": 1}
    async with open_node(config(), reactions=reaction(recorder)) as node:
        await make_shop(node)
        await place(node, "a", "b")
        await wait_until(lambda: len(node.parked()) == 2)
        with pytest.raises(Rejected) as refused:
            await node.skip_parked(node.parked()[0]["id"])
        assert refused.value.code == "replay_failed"
        assert len(node.parked()) == 1
        await node.replay_parked(node.parked()[0]["id"])
        assert recorder.seen[-1] == "s1/b"


async def test_a_record_that_wants_cannot_judge_is_parked() -> None:
    """A fault in `wants` is the record's, not the process's."""

    def wants(record: Committed) -> bool:
        raise ZeroDivisionError

    async def handle(record: Committed) -> None:
        wants(record)

    async with open_node(config(), reactions=[Reaction("test", CREATED, handle, wants)]) as node:
        await make_shop(node)
        await place(node, "a")
        await wait_until(lambda: len(node.parked()) == 1)


async def test_one_stream_that_waits_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many more records than may be open at once go by while the first stays undone."""
    monkeypatch.setattr("engine.reactions.OPEN_MAX", 8)
    recorder = Recorder()
    recorder.error = Unavailable()
    recorder.fail["s1/a"] = 1_000_000
    async with open_node(config(), reactions=reaction(recorder)) as node:
        await make_shop(node)
        await make_shop(node, "store:s2")
        await place(node, "a")
        await wait_until(lambda: "s1/a" in recorder.seen)
        await place(node, *(f"n{number}" for number in range(50)), stream="store:s2")
        await wait_until(lambda: "s2/n49" in recorder.seen)


async def test_a_reaction_comes_back_after_its_records_are_gone(tmp_path: Path) -> None:
    """The log does not wait for one that is not there; when it returns it goes on with what is left."""
    settings = config(str(tmp_path), segment_bytes=1 << 16, refill_bytes=0)
    recorder = Recorder()
    async with open_node(settings, reactions=reaction(recorder)) as node:
        await make_shop(node)
        await place(node, "a")
        await wait_until(lambda: recorder.seen == ["s1/a"])
    async with open_node(settings) as node:
        for number in range(3):
            await place(node, *(f"n{number}-{count}" for count in range(60)))
            await wait_until(lambda: node.statistics()["reaction_lag"] == 0)
            await node.upkeep.take()
        assert node.log.first > node.log.head // 4
    async with open_node(settings, reactions=reaction(recorder)) as node:
        await place(node, "z")
        await wait_until(lambda: recorder.seen[-1] == "s1/z")


async def test_a_tail_that_starts_again_wakes_who_waits() -> None:
    """They read the log at once instead of waiting for the next sweep."""
    tail = Tail(0)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tail.wait_beyond, 0, 3600.0)
            await trio.testing.wait_all_tasks_blocked()
            tail.restart(3)


def test_deadlines_that_move_do_not_pile_up() -> None:
    """The heap stays in proportion to the streams, whatever is armed anew, and loses none."""
    woken: list[str] = []
    timers = Timers(ManualClock(0), woken.append, tick_s=1.0)
    timers.arm("other", 7)
    for number in range(20 * STALE_MAX):
        timers.arm(STORE, 1_000_000 - number)
    assert len(timers._heap) <= 2 * STALE_MAX
    timers._fire(2_000_000)
    assert woken == ["other", STORE]


async def test_a_reaction_may_name_its_own_lanes(tmp_path: Path) -> None:
    """Order and parking are per lane: other records of the stream go on, also after a restart."""
    recorder = Recorder()
    recorder.fail["s1/a1"] = 100

    def by_letter(record: Committed) -> str:
        return record.event.order[0]  # type: ignore[attr-defined]

    lettered = Reaction("test", CREATED, recorder, lane=by_letter)
    async with open_node(config(str(tmp_path)), reactions=[lettered]) as node:
        await make_shop(node)
        await place(node, "a1", "b1", "a2", "b2")
        await wait_until(lambda: len(node.parked()) == 2)
        await wait_until(lambda: "s1/b2" in recorder.seen)
        assert "s1/a2" not in recorder.seen
    recorder.seen.clear()
    async with open_node(config(str(tmp_path)), reactions=[lettered]) as node:
        await place(node, "a3", "b3")
        await wait_until(lambda: len(node.parked()) == 3)
        await wait_until(lambda: recorder.seen == ["s1/b3"])
        with pytest.raises(Rejected) as refused:
            await node.replay_parked(node.parked()[1]["id"])
        assert refused.value.code == "not_first"
        recorder.fail.clear()
        await node.replay_parked(node.parked()[0]["id"])
        assert recorder.seen == ["s1/b3", "s1/a1", "s1/a2", "s1/a3"]
        assert not node.parked()


async def test_a_reaction_may_have_its_own_number_of_retries() -> None:
    """1 + `retries` attempts, whatever the setting says."""
    recorder = Recorder()
    recorder.fail["s1/a"] = 100
    once = Reaction("once", CREATED, recorder, retries=0)
    async with open_node(config(reaction_retries=9), reactions=[once]) as node:
        await make_shop(node)
        await place(node, "a")
        await wait_until(lambda: len(node.parked()) == 1)
        assert node.parked()[0]["attempts"] == 1
        assert recorder.seen == ["s1/a"]


async def test_ends_while_a_reaction_has_to_wait_accuse_no_record(tmp_path: Path) -> None:
    """A target that is away through many starts does not get a record parked, and one that waits alone does
    not hold the others.
    """
    recorder = Recorder()
    recorder.error = Unavailable()
    recorder.fail |= {"s1/a": 1_000_000, "s2/b": 1_000_000}
    for start in range(10):
        async with open_node(config(str(tmp_path)), reactions=reaction(recorder)) as node:
            if start == 0:
                await make_shop(node)
                await make_shop(node, "store:s2")
                await place(node, "a")
                await place(node, "b", stream="store:s2")
            seen = len(recorder.seen)
            await wait_until(lambda seen=seen: {"s1/a", "s2/b"} <= set(recorder.seen[seen + 4 :]))
            assert not node.parked()
            if start == 9:
                del recorder.fail["s2/b"]
                before = node.metrics.reactions.labels("test", "done")._value.get()
                await wait_until(
                    lambda node=node, before=before: (
                        node.metrics.reactions.labels("test", "done")._value.get() > before
                    )
                )
                del recorder.fail["s1/a"]
                await wait_until(lambda node=node: node.statistics()["reaction_lag"] == 0)
                assert not node.parked()
