"""A party at the table: opening, closing, and that the next party sees nothing of it."""

import pytest

from engine.domain import table
from engine.domain.order import Order, OrderChange
from engine.domain.table.calls import AnswerCall, CallAnswered, CallStaff, StaffCalled
from engine.domain.table.cart import (
    AddToCart,
    CartSubmitted,
    ChangeQuantity,
    ItemAdded,
    RemoveFromCart,
    SubmitCart,
)
from engine.domain.table.copies import OrderChanged, OrderReceived
from engine.domain.table.sitting import CloseTable, OpenTable, TableClosed, TableOpened
from engine.domain.table.state import CartLine
from tests.domain.shop_given import SAT, line
from tests.harness_domain import NOW, Stream, check

BY_TABLE = "table:s1/3"
CLOSED = TableClosed("s1", "3", 1, NOW)
BELL = StaffCalled("s1", "3", "c1", "water", NOW)
ORDER = Order("o1", 1, "3", None, "PLACED", (line("a"),), 6000, "staff:lee", NOW)
RECEIVED = OrderReceived("o1", ORDER)


def turned(status):
    return OrderChanged("o1", OrderChange("o1", NOW, status))


@pytest.mark.parametrize(
    ("given", "command", "then"),
    [
        ([], OpenTable(2), [TableOpened("s1", "3", 1, 2, NOW)]),
        ([], OpenTable(), [TableOpened("s1", "3", 1, None, NOW)]),
        (SAT, OpenTable(5), []),
        ([*SAT, CLOSED], OpenTable(5), [TableOpened("s1", "3", 2, 5, NOW)]),
        (SAT, CloseTable(), [CLOSED]),
        ([*SAT, CLOSED], CloseTable(), []),
        ([], CloseTable(), []),
        ([*SAT, RECEIVED, turned("SERVED")], CloseTable(), [TableClosed("s1", "3", 1, NOW, orders=("o1",))]),
        (
            [*SAT, RECEIVED, turned("REJECTED")],
            CloseTable(),
            [TableClosed("s1", "3", 1, NOW, orders=("o1",))],
        ),
        (
            [*SAT, RECEIVED, turned("CANCELLED")],
            CloseTable(),
            [TableClosed("s1", "3", 1, NOW, orders=("o1",))],
        ),
    ],
)
def test_open_and_close(given, command, then):
    """Sittings are counted, and what is so already is no event."""
    check(table, given, command, then)


@pytest.mark.parametrize("status", ["PLACED", "ACCEPTED", "COOKING", "READY"])
def test_a_table_with_open_orders_stays_open(status):
    """Nobody loses an order by closing."""
    check(table, [*SAT, RECEIVED, turned(status)], CloseTable(), rejected="orders_open")


def test_a_table_that_waits_for_the_shop_stays_open():
    """An order on its way is an order too."""
    sent = CartSubmitted("s1", "3", 1, "3-1", (CartLine("t3-1", "ramen", 1, (), "", ""),), NOW)
    check(table, [*SAT, sent], CloseTable(), rejected="orders_open")


def test_closing_clears_the_table():
    """Cart, orders and calls go; the counters stay, so that ids are never used again."""
    given = [*SAT, ItemAdded("t3-1", "ramen", 1), RECEIVED, turned("SERVED"), BELL]
    then = [TableClosed("s1", "3", 1, NOW, ("t3-1",), ("o1",), ("c1",))]
    stream = check(table, given, CloseTable(), then)
    seen = stream.visible()
    assert {name: len(seen[name]) for name in ("cart", "sending", "orders", "calls")} == {
        "cart": 0,
        "sending": 0,
        "orders": 0,
        "calls": 0,
    }
    assert seen["table"]["self"] == {
        "store": "s1",
        "table": "3",
        "open": False,
        "sitting": 1,
        "guests": None,
        "opened_at": None,
    }
    stream.do(OpenTable())
    assert stream.answer(AddToCart("ramen", 1)) == {"line": "t3-2"}
    assert stream.answer(CallStaff("water")) == {"call": "c2"}


def test_closing_hides_what_was():
    """Readers who come later start after it; nothing else is hidden."""
    assert table.fences(CLOSED)
    assert not any(table.fences(event) for event in [*SAT, BELL, RECEIVED, turned("SERVED")])


@pytest.mark.parametrize("given", [[], [*SAT, CLOSED]])
@pytest.mark.parametrize(
    "command",
    [
        AddToCart("ramen", 1),
        ChangeQuantity("t3-1", 2),
        RemoveFromCart("t3-1"),
        SubmitCart(),
        CallStaff("bill"),
        AnswerCall("c1"),
    ],
)
def test_a_closed_table_does_nothing_but_open(given, command):
    """A phone that is still on the page cannot order for the next party."""
    check(table, given, command, rejected="table_closed", by=BY_TABLE)


def test_a_table_id_that_is_too_long():
    """The ids of orders and lines are made of it."""
    stream = Stream(f"table:s1/{'x' * 49}")
    with pytest.raises(Exception, match="48 characters"):
        stream.decide(OpenTable(), "owner:kim")


@pytest.mark.parametrize(
    ("given", "command", "then"),
    [
        (SAT, CallStaff("water"), [BELL]),
        ([*SAT, BELL], CallStaff("water"), []),
        ([*SAT, BELL], CallStaff("bill"), [StaffCalled("s1", "3", "c2", "bill", NOW)]),
        ([*SAT, BELL], AnswerCall("c1"), [CallAnswered("s1", "3", "c1", "water", NOW)]),
    ],
)
def test_calls(given, command, then):
    """One bell per kind, until it is answered."""
    check(table, given, command, then)


def test_an_answered_call_is_gone():
    """The second tablet is told so, and the next call has another id."""
    stream = check(table, [*SAT, BELL], AnswerCall("c1"))
    check(table, stream.events, AnswerCall("c1"), rejected="unknown_call")
    assert stream.answer(CallStaff("water")) == {"call": "c2"}
    assert stream.answer(CallStaff("water")) == {"call": "c2"}


def test_opening_tells_the_sitting():
    """Also when the table is open already."""
    stream = check(table, [], OpenTable())
    assert stream.answer(OpenTable()) == {"sitting": 1}
