"""The tail of the whole log: order restored, bounded, never stuck."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from engine.domain.user import Command as _user  # noqa: F401 - the domains load
from engine.mailbox import Committed
from engine.tail import RECORDS_MAX, Tail


def committed(position: int) -> Committed:
    return Committed(position, "user:u1", position, f"id{position}", None, b"")  # type: ignore[arg-type]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=40), st.integers(1, 20), st.randoms())
def test_reports_in_any_order_come_out_in_the_logs_order(
    sizes: list[int], records_max: int, chance: random.Random
) -> None:
    """Whatever order actors report in, what can be read is contiguous and bounded."""
    batches, position = [], 0
    for size in sizes:
        batches.append([committed(position + n + 1) for n in range(size)])
        position += size
    shuffled = list(batches)
    chance.shuffle(shuffled)
    tail = Tail(0, records_max)
    for batch in shuffled:
        tail.add(batch)
        kept = tail.after(tail.low, 1000)
        assert kept is not None
        assert [record.position for record in kept] == list(range(tail.low + 1, tail.high + 1))
        assert len(kept) <= records_max
    assert tail.high == position


def test_a_report_that_never_comes_does_not_stop_the_tail() -> None:
    """When too much waits behind a gap the tail starts again behind it; who was before it reads the log."""
    tail = Tail(0, 10)
    tail.add([committed(1)])
    for position in range(3, 20):
        tail.add([committed(position)])
    assert tail.high >= 13
    assert tail.after(1, 10) is None


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60), st.randoms())
def test_a_watch_sees_its_types_once_and_in_order(kinds: list[int], chance: random.Random) -> None:
    """What is of other types moves its place on without waking it; what was taken is behind its place."""
    tail = Tail(0)
    watch = tail.watch(frozenset({"str", "int"}), 0)
    wanted, seen = [], []
    for position, kind in enumerate(kinds, 1):
        event = (None, "event", 1)[kind]
        tail.add([committed(position)._replace(event=event)])  # type: ignore[arg-type]
        if event is not None:
            wanted.append(position)
        assert watch.position == (watch.records[0].position - 1 if watch.records else position)
        if chance.random() < 0.3:
            seen += [record.position for record in watch.take(2)]
    while watch.records:
        seen += [record.position for record in watch.take(2)]
    assert seen == wanted
    assert watch.position == len(kinds)


def test_what_a_watch_misses_is_left_to_the_log() -> None:
    """A reader that does not come, a tail that starts again, a reader that comes late: there is a gap after
    its place, and it ends where the tail goes on.
    """
    tail = Tail(0)
    watch = tail.watch(frozenset({"str"}), 0)
    event = committed(1)._replace(event="event")  # type: ignore[arg-type]
    for position in range(1, RECORDS_MAX + 3):
        tail.add([event._replace(position=position)])
    assert (watch.position, watch.gap) == (0, RECORDS_MAX + 1)
    assert [record.position for record in watch.records] == [RECORDS_MAX + 2]
    watch.took(RECORDS_MAX)
    assert (watch.position, watch.gap) == (RECORDS_MAX, RECORDS_MAX + 1)
    watch.took(RECORDS_MAX + 1)
    assert (watch.position, watch.gap) == (RECORDS_MAX + 1, None)
    watch.take(1)
    high = tail.high
    assert watch.position == high
    tail.restart(high + 10)
    assert (watch.position, watch.gap) == (high, high + 10)
    late = tail.watch(frozenset({"str"}), 5)
    assert (late.position, late.gap) == (5, tail.high)
