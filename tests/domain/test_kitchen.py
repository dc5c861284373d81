"""An order on its way through the kitchen, tapped by two tablets at once."""

import pytest

from engine.domain import store
from engine.domain.store.cancelling import LineCancelled, OrderCancelled, OrderRejected
from engine.domain.store.closing import OrdersArchived
from engine.domain.store.kitchen import (
    AcceptOrder,
    CookingStarted,
    ItemReady,
    MarkItemReady,
    MarkReady,
    MarkServed,
    OrderAccepted,
    OrderReady,
    OrderRecalled,
    OrderServed,
    RecallOrder,
    StartCooking,
)
from tests.domain.shop_given import ACCEPTED, COOKING, MENU, PLACED, READY, SERVED, created
from tests.harness_domain import NOW, NOW_MS, check

LATER = "2027-01-15T08:10:00.000Z"
ACCEPT, COOK, DONE, SERVE = AcceptOrder("o1"), StartCooking("o1"), MarkReady("o1"), MarkServed("o1")


@pytest.mark.parametrize(
    ("given", "command", "then"),
    [
        (PLACED, ACCEPT, [OrderAccepted("o1", NOW)]),
        (ACCEPTED, ACCEPT, []),
        (SERVED, ACCEPT, []),
        (PLACED, COOK, [CookingStarted("o1", NOW)]),
        (ACCEPTED, COOK, [CookingStarted("o1", NOW)]),
        (COOKING, COOK, []),
        (READY, COOK, []),
        (PLACED, DONE, [OrderReady("o1", NOW)]),
        (ACCEPTED, DONE, [OrderReady("o1", NOW)]),
        (COOKING, DONE, [OrderReady("o1", NOW)]),
        (READY, DONE, []),
        (SERVED, DONE, []),
        (READY, SERVE, [OrderServed("o1", NOW)]),
        (SERVED, SERVE, []),
        (READY, RecallOrder("o1"), [OrderRecalled("o1", NOW, status="COOKING")]),
        (SERVED, RecallOrder("o1"), [OrderRecalled("o1", NOW, status="READY")]),
        (SERVED, RecallOrder("o1", "SERVED"), [OrderRecalled("o1", NOW, status="READY")]),
        (READY, RecallOrder("o1", "SERVED"), []),
        (COOKING, RecallOrder("o1", "READY"), []),
    ],
)
def test_stages(given, command, then):
    """One tap is one stage, or several when some are left out; a tap that comes second is nothing."""
    check(store, given, command, then)


@pytest.mark.parametrize(
    ("given", "command", "code"),
    [
        (MENU, ACCEPT, "unknown_order"),
        ([*SERVED, OrdersArchived(("o1",))], RecallOrder("o1"), "unknown_order"),
        (PLACED, SERVE, "wrong_status"),
        (COOKING, SERVE, "wrong_status"),
        (PLACED, RecallOrder("o1"), "wrong_status"),
        (COOKING, RecallOrder("o1"), "wrong_status"),
        (PLACED, MarkItemReady("o1", "o1-9"), "unknown_line"),
        ([*PLACED, OrderRejected("o1", NOW, reason="x")], RecallOrder("o1"), "wrong_status"),
        *(
            ([*PLACED, OrderCancelled("o1", NOW, reason="x")], command, "wrong_status")
            for command in (ACCEPT, COOK, DONE, SERVE, MarkItemReady("o1", "o1-1"))
        ),
        (
            [*PLACED, LineCancelled("o1", NOW, line="o1-1", reason="x")],
            MarkItemReady("o1", "o1-1"),
            "wrong_status",
        ),
    ],
)
def test_impossible_moves(given, command, code):
    """What is not there, and what has left the kitchen's hands."""
    check(store, given, command, rejected=code)


@pytest.mark.parametrize(
    ("given", "line", "then"),
    [
        (PLACED, "o1-1", [CookingStarted("o1", NOW), ItemReady("o1", NOW, line="o1-1")]),
        (COOKING, "o1-1", [ItemReady("o1", NOW, line="o1-1")]),
        ([*COOKING, ItemReady("o1", NOW, line="o1-1")], "o1-1", []),
        (
            [*COOKING, ItemReady("o1", NOW, line="o1-1")],
            "o1-2",
            [ItemReady("o1", NOW, line="o1-2"), OrderReady("o1", NOW)],
        ),
        (
            [*COOKING, LineCancelled("o1", NOW, line="o1-2", reason="x")],
            "o1-1",
            [ItemReady("o1", NOW, line="o1-1"), OrderReady("o1", NOW)],
        ),
        (READY, "o1-1", []),
    ],
)
def test_line_by_line(given, line, then):
    """A ready line starts the order, and the last one finishes it."""
    check(store, given, MarkItemReady("o1", line), then)


def test_skipped_stages_have_a_time_too():
    """A kitchen that taps once still knows when."""
    order = check(store, PLACED, DONE).state.orders["o1"]
    assert (order.accepted_at, order.cooking_at, order.ready_at, order.served_at) == (NOW, NOW, NOW, None)
    assert [line.status for line in order.lines] == ["READY", "READY"]


def test_times_of_the_way():
    """Each stage keeps its own time, and a recall takes back the later ones."""
    given = [
        *PLACED,
        OrderAccepted("o1", "t1"),
        CookingStarted("o1", "t2"),
        OrderReady("o1", "t3"),
        OrderServed("o1", LATER),
    ]
    stream = check(store, given, RecallOrder("o1"))
    order = stream.state.orders["o1"]
    assert (order.accepted_at, order.cooking_at, order.ready_at) == ("t1", "t2", "t3")
    assert (order.status, order.served_at, order.closed_at) == ("READY", None, None)
    stream.do(RecallOrder("o1"))
    order = stream.state.orders["o1"]
    assert (order.status, order.cooking_at, order.ready_at) == ("COOKING", "t2", None)
    assert [line.status for line in order.lines] == ["WAITING", "WAITING"]


def test_recall_keeps_line_ids_and_cancelled_lines():
    """A ticket line keeps its identity, and what was cancelled stays so."""
    given = [*COOKING, LineCancelled("o1", NOW, line="o1-2", reason="x"), OrderReady("o1", NOW)]
    order = check(store, given, RecallOrder("o1")).state.orders["o1"]
    assert [(line.line, line.status) for line in order.lines] == [
        ("o1-1", "WAITING"),
        ("o1-2", "CANCELLED"),
    ]


def test_changes_name_those_who_keep_a_copy():
    """Table and user of the order go along, so that they can be told."""
    given = [*MENU, *created(table="3", user="u1", sitting=4)]
    check(store, given, ACCEPT, [OrderAccepted("o1", NOW, "3", "u1")])


def test_a_served_order_waits_for_a_recall():
    """It is due for leaving half an hour after it closed, and not due any more once recalled."""
    stream = check(store, READY, SERVE)
    assert store.deadline(stream.state)[0] == NOW_MS + 30 * 60_000
    stream.do(RecallOrder("o1"))
    assert store.deadline(stream.state) is None
