"""Orders and lines that will not be, and their stock, which goes back once and only while nobody cooks."""

import pytest

from engine.domain import store
from engine.domain.store import closing
from engine.domain.store.announce import MenuAnnounced
from engine.domain.store.cancelling import (
    CancelLine,
    CancelOrder,
    LineCancelled,
    OrderCancelled,
    OrderRejected,
    RejectOrder,
)
from engine.domain.store.closing import ArchiveOrders, OrdersArchived
from engine.domain.store.kitchen import CookingStarted, ItemReady, OrderReady, OrderRecalled
from engine.domain.store.menu import ProductPut, SetSoldOut
from engine.domain.store.orders import OrderCreated, OrderPlaced
from engine.domain.store.stock import StockChange
from tests.domain.shop_given import (
    ACCEPTED,
    COOKING,
    MENU,
    PLACED,
    READY,
    SERVED,
    TABLE_3,
    create,
    created,
    item,
    line,
    wish,
)
from tests.harness_domain import NOW, NOW_MS, check

BACK = (StockChange("kimbap", 8, 10),)
CANCEL, REJECT = CancelOrder("o1", "changed my mind"), RejectOrder("o1", "no rice")
CANCELLED = OrderCancelled("o1", NOW, reason="changed my mind")
GUESTS = [*MENU, *created(table="3", user="u1")]


def cancel_line(name):
    return CancelLine("o1", name, "no rice")


def line_cancelled(name, stock=()):
    return LineCancelled("o1", NOW, line=name, reason="no rice", stock=stock)


@pytest.mark.parametrize(
    ("given", "command", "then"),
    [
        (PLACED, REJECT, [OrderRejected("o1", NOW, reason="no rice", stock=BACK)]),
        ([*PLACED, OrderRejected("o1", NOW, reason="x")], REJECT, []),
        (PLACED, CANCEL, [OrderCancelled("o1", NOW, reason="changed my mind", stock=BACK)]),
        (ACCEPTED, CANCEL, [OrderCancelled("o1", NOW, reason="changed my mind", stock=BACK)]),
        (COOKING, CANCEL, [CANCELLED]),
        (READY, CANCEL, [CANCELLED]),
        ([*READY, OrderRecalled("o1", NOW, status="COOKING")], CANCEL, [CANCELLED]),
        ([*PLACED, CANCELLED], CANCEL, []),
        (PLACED, cancel_line("o1-1"), [line_cancelled("o1-1", BACK)]),
        (COOKING, cancel_line("o1-1"), [line_cancelled("o1-1")]),
        (READY, cancel_line("o1-1"), [line_cancelled("o1-1")]),
        (PLACED, cancel_line("o1-2"), [line_cancelled("o1-2")]),
        ([*PLACED, line_cancelled("o1-1", BACK)], cancel_line("o1-1"), []),
        ([*PLACED, CANCELLED], cancel_line("o1-1"), []),
    ],
)
def test_taken_back(given, command, then):
    """Once, with its stock unless the kitchen has used it; the second tablet does nothing."""
    check(store, given, command, then)


@pytest.mark.parametrize(
    ("given", "command", "code"),
    [
        (MENU, CANCEL, "unknown_order"),
        (MENU, REJECT, "unknown_order"),
        (MENU, cancel_line("o1-1"), "unknown_order"),
        (PLACED, cancel_line("o1-9"), "unknown_line"),
        (ACCEPTED, REJECT, "wrong_status"),
        (SERVED, REJECT, "wrong_status"),
        (SERVED, CANCEL, "wrong_status"),
        (SERVED, cancel_line("o1-1"), "wrong_status"),
        ([*PLACED, OrderRejected("o1", NOW, reason="x")], CANCEL, "wrong_status"),
        ([*PLACED, OrderRejected("o1", NOW, reason="x")], cancel_line("o1-1"), "wrong_status"),
        ([*PLACED, CANCELLED], REJECT, "wrong_status"),
    ],
)
def test_too_late_for_staff(given, command, code):
    """A rejected or served order is not cancelled; one that was accepted is not rejected."""
    check(store, given, command, rejected=code)


@pytest.mark.parametrize(
    ("more", "by", "code"),
    [
        ([], "table:s1/3", None),
        ([], "user:u1", None),
        ([], "table:s1/4", "forbidden"),
        ([], "table:s2/3", "forbidden"),
        ([], "user:u2", "forbidden"),
        (ACCEPTED[-1:], "table:s1/3", "too_late"),
        (ACCEPTED[-1:], "user:u1", "too_late"),
        (SERVED[-4:], "table:s1/3", "too_late"),
        (ACCEPTED[-1:], "staff:lee", None),
        (READY[-3:], "service:pos", None),
    ],
)
def test_guests_cancel_their_own_until_it_is_accepted(more, by, code):
    """And staff until it is served."""
    check(store, [*GUESTS, *more], CANCEL, rejected=code, by=by)


def test_the_total_goes_down():
    """A cancelled line is not paid for."""
    assert check(store, PLACED, cancel_line("o1-1")).state.orders["o1"].total == 5000


def test_without_its_last_line_the_order_is_cancelled():
    """All its stock is back by then."""
    given = [*PLACED, line_cancelled("o1-2")]
    then = [line_cancelled("o1-1", BACK), OrderCancelled("o1", NOW, reason="no rice")]
    order = check(store, given, cancel_line("o1-1"), then).state.orders["o1"]
    assert (order.status, order.total, order.reason) == ("CANCELLED", 0, "no rice")


def test_without_its_last_waiting_line_the_order_is_ready():
    """What is left is on the counter."""
    given = [*COOKING, ItemReady("o1", NOW, line="o1-1")]
    check(store, given, cancel_line("o1-2"), [line_cancelled("o1-2"), OrderReady("o1", NOW)])


def test_two_lines_of_one_product_go_back_each_for_itself():
    """A cancelled line gives back its own pieces and the order the rest."""
    lines = (line("a", quantity=2), line("b", quantity=3))
    given = [
        *MENU,
        OrderCreated("o1", 1, "PLACED", lines, 0, "x", NOW, stock=(StockChange("kimbap", 10, 5),)),
        OrderPlaced("o1", 1),
    ]
    stream = check(store, given, cancel_line("a"))
    assert stream.state.products["kimbap"].stock == 7
    stream.do(CANCEL)
    assert stream.state.products["kimbap"].stock == 10
    assert not stream.state.taken


def test_what_was_never_counted_does_not_come_back():
    """A count that begins after the order knows nothing of it."""
    given = [*MENU, *created(stock=()), ProductPut("kimbap", "김밥", 3000, stock=4)]
    check(store, given, CANCEL, [CANCELLED])


def test_what_is_not_counted_any_more_does_not_come_back():
    """Nor does a line that was cancelled meanwhile come back later."""
    uncounted = ProductPut("kimbap", "김밥", 3000, stock=None)
    stream = check(store, [*PLACED, uncounted], cancel_line("o1-1"), [line_cancelled("o1-1")])
    stream.evolve(ProductPut("kimbap", "김밥", 3000, stock=4))
    assert stream.do(CANCEL) == [CANCELLED]


def test_tables_hear_that_there_is_some_again():
    """The last notebook comes back, unless it is switched off by hand."""
    sold = check(store, [*MENU, TABLE_3], create(wish("notebook"))).events
    seen = item("notebook", name="노트북", price=1_500_000)
    assert check(store, sold, CANCEL).events[-1] == MenuAnnounced(("3",), (seen,))
    switched = check(store, sold, SetSoldOut("notebook", True))
    assert switched.do(REJECT)[-1].products[0].sold_out


def test_a_closed_order_leaves_after_its_time_for_recall():
    """Not a millisecond earlier."""
    stream = check(store, READY, ArchiveOrders(), [])
    stream.evolve(SERVED[-1])
    due_ms, command = store.deadline(stream.state)
    assert stream.do(command, now_ms=due_ms - 1) == []
    assert stream.do(command, now_ms=due_ms) == [OrdersArchived(("o1",))]
    assert store.deadline(stream.state) is None
    assert due_ms == NOW_MS + closing.RECALL_MS


def test_only_so_many_closed_orders_are_kept(monkeypatch):
    """One more pushes the oldest out."""
    monkeypatch.setattr(closing, "CLOSED_MAX", 2)
    given = [*MENU]
    for number in (1, 2, 3):
        given += created(f"o{number}", number=number, stock=())
    given += [OrderCancelled(f"o{number}", NOW, reason="x") for number in (2, 1)]
    then = [OrderRejected("o3", NOW, reason="x"), OrdersArchived(("o2",))]
    check(store, given, RejectOrder("o3", "x"), then)


def test_only_so_many_ids_are_remembered(monkeypatch):
    """The oldest id may be used again at some time."""
    monkeypatch.setattr(closing, "ARCHIVED_MAX", 2)
    given = [*MENU, OrdersArchived(("a", "b", "c"))]
    check(store, given, create(order="b"), rejected="order_exists")
    check(store, given, create(order="a"))


def test_a_cooked_order_uses_its_stock_up():
    """Nothing is kept that could go back."""
    assert not check(store, PLACED, CancelOrder("o1", "x")).state.taken
    stream = check(store, [*PLACED, CookingStarted("o1", NOW)], CancelOrder("o1", "x"))
    assert not stream.state.taken
    assert stream.state.products["kimbap"].stock == 8
