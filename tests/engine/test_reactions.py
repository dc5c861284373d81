"""Reactions: at least once, in order per stream, retried, counted, parked, replayed, skipped."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from engine import Committed, Node, Reaction, open_node
from engine.errors import ReadOnly, Rejected
from engine.parking import backoff_s
from tests.engine.shop import OWNER, STORE, config, make_shop, order, wait_until

CREATED = frozenset({"OrderCreated"})


class Recorder:
    """A handler that writes down what it sees, and fails where told."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.fail: dict[str, int] = {}
        self.error: Exception = RuntimeError("no")

    async def __call__(self, record: Committed) -> None:
        name = f"{record.stream.removeprefix('store:')}/{record.event.order}"  # type: ignore[attr-defined]
        self.seen.append(name)
        await trio.lowlevel.checkpoint()
        if self.fail.get(name, 0) > 0:
            self.fail[name] -= 1
            raise self.error


def reaction(recorder: Recorder) -> list[Reaction]:
    return [Reaction("test", CREATED, recorder)]


async def place(node: Node, *names: str, stream: str = STORE) -> None:
    for name in names:
        await node.ask(stream, order(order=name), by=OWNER)


async def test_records_of_a_stream_come_in_order_and_once() -> None:
    """Without failures each record is handled once, in the order of its stream."""
    recorder = Recorder()
    async with open_node(config(), reactions=reaction(recorder)) as node:
        await make_shop(node)
        await place(node, *"abcdefgh")
        await wait_until(lambda: len(recorder.seen) == 8)
        assert recorder.seen == [f"s1/{name}" for name in "abcdefgh"]
        await wait_until(lambda: node.statistics()["reaction_lag"] == 0)


async def test_a_failure_is_tried_again_and_holds_only_its_stream() -> None:
    """1 try + retries until it works; the stream's later records wait, other streams do not."""
    recorder = Recorder()
    recorder.fail["s1/a"] = 3
    async with open_node(config(), reactions=reaction(recorder)) as node:
        await make_shop(node)
        await make_shop(node, "store:s2")
        await place(node, "a", "b")
        await place(node, "c", stream="store:s2")
        await wait_until(lambda: len(recorder.seen) == 6)
        assert [name for name in recorder.seen if name.startswith("s1")] == ["s1/a"] * 4 + ["s1/b"]
        assert not node.parked()


async def test_after_the_last_retry_it_is_parked_with_its_followers() -> None:
    """Parked records keep their order; replay handles them all, skip leaves one out."""
    recorder = Recorder()
    recorder.fail["s1/a"] = 4
    async with open_node(config(), reactions=reaction(recorder)) as node:
        await make_shop(node)
        await place(node, "a", "b", "c")
        await wait_until(lambda: len(node.parked()) == 3)
        first, second, _ = node.parked()
        assert "no" in first["error"]
        assert first["attempts"] == 4
        assert recorder.seen == ["s1/a"] * 4
        with pytest.raises(Rejected) as refused:
            await node.replay_parked(second["id"])
        assert refused.value.code == "not_first"
        recorder.fail["s1/a"] = 1
        with pytest.raises(Rejected) as refused:
            await node.replay_parked(first["id"])
        assert refused.value.code == "replay_failed"
        await node.replay_parked(first["id"])
        assert recorder.seen[-3:] == ["s1/a", "s1/b", "s1/c"]
        assert not node.parked()
        await place(node, "d")
        await wait_until(lambda: recorder.seen[-1] == "s1/d")


async def test_skipping_goes_on_with_the_next(tmp_path: Path) -> None:
    """The parked record is left out for good; those behind it are handled; both survive a restart."""
    recorder = Recorder()
    recorder.fail["s1/a"] = 100
    async with open_node(config(str(tmp_path)), reactions=reaction(recorder)) as node:
        await make_shop(node)
        await place(node, "a", "b")
        await wait_until(lambda: len(node.parked()) == 2)
    recorder.seen.clear()
    async with open_node(config(str(tmp_path)), reactions=reaction(recorder)) as node:
        await place(node, "c")
        await wait_until(lambda: len(node.parked()) == 3)
        assert recorder.seen == []
        await node.skip_parked(node.parked()[0]["id"])
        assert recorder.seen == ["s1/b", "s1/c"]
        with pytest.raises(KeyError):
            await node.skip_parked(12345)
    async with open_node(config(str(tmp_path)), reactions=reaction(recorder)) as node:
        assert not node.parked()


async def test_no_space_is_waited_out_and_not_counted() -> None:
    """`Unavailable` is nobody's fault: many of them do not park the record."""
    recorder = Recorder()
    recorder.error = ReadOnly()
    recorder.fail["s1/a"] = 20
    async with open_node(config(), reactions=reaction(recorder)) as node:
        await make_shop(node)
        await place(node, "a")
        await wait_until(lambda: len(recorder.seen) == 21)
        await wait_until(lambda: node.statistics()["reaction_lag"] == 0)
        assert not node.parked()


async def test_after_a_restart_it_goes_on_where_it_was(tmp_path: Path) -> None:
    """What was done is not handled again after a clean end; what was not done is."""
    recorder = Recorder()
    gate = trio.Event()

    async def held(record: Committed) -> None:
        if record.event.order != "a":  # type: ignore[attr-defined]
            await gate.wait()
        await recorder(record)

    async with open_node(config(str(tmp_path)), reactions=[Reaction("test", CREATED, held)]) as node:
        await make_shop(node)
        await place(node, "a", "b", "c")
        await wait_until(lambda: recorder.seen == ["s1/a"])
    async with open_node(config(str(tmp_path)), reactions=reaction(recorder)):
        await wait_until(lambda: recorder.seen == ["s1/a", "s1/b", "s1/c"])


async def test_a_record_that_ends_the_process_is_parked_in_the_end(tmp_path: Path) -> None:
    """Attempts count through restarts: two that others may have ended, four alone, then it is parked."""
    tries = 0

    async def deadly(_: Committed) -> None:
        nonlocal tries
        tries += 1
        await trio.sleep_forever()

    async with open_node(config(str(tmp_path))) as node:
        await make_shop(node)
    for number in range(7):
        async with open_node(config(str(tmp_path)), reactions=[Reaction("test", CREATED, deadly)]) as node:
            if number == 0:
                await place(node, "a")
            if number < 6:
                await wait_until(lambda number=number: tries == number + 1)
            else:
                await wait_until(lambda: len(node.parked()) == 1)
    assert tries == 6


async def test_starts_that_tried_nothing_park_nothing(tmp_path: Path) -> None:
    """A process that ends again and again before it came to a record says nothing about that record."""
    recorder = Recorder()

    async def held(_: Committed) -> None:
        await trio.sleep_forever()

    async with open_node(config(str(tmp_path)), reactions=[Reaction("test", CREATED, held)]) as node:
        await make_shop(node)
        await place(node, *"abc")
    for _ in range(8):
        async with open_node(config(str(tmp_path)), reactions=[Reaction("test", frozenset(), held)]) as node:
            node._background.cancel()
    for _ in range(6):  # suspects now, but they do nothing wrong
        recorder.seen.clear()
        async with open_node(config(str(tmp_path)), reactions=reaction(recorder)) as node:
            await wait_until(lambda: recorder.seen == ["s1/a", "s1/b", "s1/c"])
            await wait_until(lambda: node.statistics()["reaction_lag"] == 0)
            assert not node.parked()
            node.runners[-1]._open.appendleft(1)  # as if the power went before a checkpoint knew of it


async def test_a_reaction_far_behind_reads_the_log(tmp_path: Path) -> None:
    """One that is new, or fell out of the tail, finds its records in the log and joins the live end."""
    async with open_node(config(str(tmp_path))) as node:
        await make_shop(node)
        await place(node, *(f"n{number}" for number in range(50)))
    recorder = Recorder()
    async with open_node(config(str(tmp_path)), reactions=reaction(recorder)) as node:
        await wait_until(lambda: len(recorder.seen) == 50)
        await place(node, "live")
        await wait_until(lambda: recorder.seen[-1] == "s1/live")
    assert len(set(recorder.seen)) == 51


def test_backoff_doubles_under_a_cap_with_full_jitter() -> None:
    """Never above the bound of its retry, which doubles and is capped."""
    settings = config(reaction_backoff_ms=100, reaction_backoff_ms_max=1000)
    for retry, bound_s in enumerate((0.1, 0.2, 0.4, 0.8, 1.0, 1.0)):
        waits = [backoff_s(retry, settings) for _ in range(200)]
        assert max(waits) <= bound_s
        assert max(waits) > bound_s / 2
        assert min(waits) < bound_s / 4
