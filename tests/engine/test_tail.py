"""The tail of the whole log: order restored, bounded, never stuck."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from engine.domain.user import Command as _user  # noqa: F401 - the domains load
from engine.mailbox import Committed
from engine.tail import Tail


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
