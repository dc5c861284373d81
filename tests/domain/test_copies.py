"""What the shop tells a table and a user: menu, orders and changes, in spite of repeats and late arrivals."""

import pytest
from msgspec.structs import replace

from engine.domain import table, user
from engine.domain.order import Order, OrderChange
from engine.domain.table import copies
from engine.domain.table.cart import CartSubmitted, ItemAdded
from engine.domain.table.copies import (
    MenuShown,
    OrderChanged,
    OrderReceived,
    RecordChange,
    RecordOrder,
    ShowMenu,
)
from engine.domain.table.sitting import TableClosed, TableOpened
from engine.domain.table.state import CartLine
from engine.domain.user.notices import NoticeAdded, Notify
from tests.domain.shop_given import SAT, SIGN, item, line
from tests.harness_domain import NOW, check

ORDER = Order("o1", 1, "3", None, "PLACED", (line("a"),), 6000, "staff:lee", NOW)
RECEIVED = OrderReceived("o1", ORDER)
CLOSED = TableClosed("s1", "3", 1, NOW, orders=("o1",))
REOPENED = TableOpened("s1", "3", 2, None, NOW)
READY = OrderChange("o1", NOW, "READY")


@pytest.mark.parametrize(
    ("command", "then"),
    [
        (ShowMenu((item(),), SIGN), []),
        (ShowMenu((item(price=1),), SIGN), [MenuShown((item(price=1),))]),
        (ShowMenu((item(), item("new"))), [MenuShown((item("new"),))]),
        (ShowMenu(shop=replace(SIGN, open=False)), [MenuShown(shop=replace(SIGN, open=False))]),
    ],
)
def test_only_news_of_the_menu(command, then):
    """A table that knows the menu already takes over what is different."""
    check(table, SAT, command, then)


@pytest.mark.parametrize(
    ("given", "command", "then"),
    [
        (SAT, RecordOrder(ORDER, 1), [RECEIVED]),
        (SAT, RecordOrder(ORDER), [RECEIVED]),
        ([*SAT, RECEIVED], RecordOrder(ORDER, 1), []),
        ([], RecordOrder(ORDER), [TableOpened("s1", "3", 1, None, NOW), RECEIVED]),
        ([*SAT, CLOSED], RecordOrder(ORDER), [REOPENED, RECEIVED]),
        ([*SAT, CLOSED], RecordOrder(ORDER, 1), []),
        ([*SAT, CLOSED, REOPENED], RecordOrder(ORDER, 1), []),
        ([*SAT, CLOSED, REOPENED], RecordOrder(ORDER, 2), [RECEIVED]),
        ([*SAT, RECEIVED], RecordChange(READY), [OrderChanged("o1", READY)]),
        ([*SAT, RECEIVED, CLOSED, REOPENED], RecordChange(READY), []),
        (SAT, RecordChange(READY), []),
    ],
)
def test_an_order_belongs_to_one_party(given, command, then):
    """It opens a closed table, but is never shown to the party after the one that it was made for."""
    check(table, given, command, then)


def test_the_copy_changes_as_the_original_does():
    """Status, times and lines."""
    order = check(table, [*SAT, RECEIVED], RecordChange(READY)).state.orders["o1"]
    assert (order.status, order.ready_at, order.lines[0].status) == ("READY", NOW, "READY")


def test_the_shops_answer_settles_the_submission():
    """What was on its way is an order now, with the same lines."""
    cart = (CartLine("t3-1", "ramen", 1, (), "", ""),)
    given = [*SAT, ItemAdded("t3-1", "ramen", 1), CartSubmitted("s1", "3", 1, "3-1", cart, NOW)]
    stream = check(table, given, RecordOrder(replace(ORDER, order="3-1", lines=(line("t3-1"),)), 1))
    assert (list(stream.state.sending), list(stream.state.orders)) == ([], ["3-1"])
    assert stream.events[-1].order == "3-1"


def test_a_table_shows_only_so_many_orders(monkeypatch):
    """The oldest that is over makes room; one that is not over never does."""
    monkeypatch.setattr(copies, "ORDERS_MAX", 2)
    over = replace(ORDER, order="o2", status="SERVED")
    given = [*SAT, RECEIVED, OrderReceived("o2", over)]
    third = replace(ORDER, order="o3")
    stream = check(table, given, RecordOrder(third), [OrderReceived("o3", third, ("o2",))])
    fourth = replace(ORDER, order="o4")
    assert stream.do(RecordOrder(fourth)) == [OrderReceived("o4", fourth)]


USERS = user.orders.OrderReceived("o1", "s1", replace(ORDER, table=None, user="u1"))


@pytest.mark.parametrize(
    ("given", "command", "then"),
    [
        ([], Notify("반가워요"), [NoticeAdded("n1", "반가워요", NOW)]),
        ([], Notify("a", "b", "/u/u1"), [NoticeAdded("n1", "a", NOW, "b", "/u/u1")]),
        ([], user.orders.RecordOrder("s1", USERS.copy), [USERS]),
        ([USERS], user.orders.RecordOrder("s1", USERS.copy), []),
        ([USERS], user.orders.RecordChange("s1", READY), [user.orders.OrderChanged("o1", "s1", READY)]),
        ([USERS], user.orders.RecordChange("s2", READY), []),
        ([], user.orders.RecordChange("s1", READY), []),
    ],
)
def test_a_user(given, command, then):
    """Notices, and orders of any shop."""
    check(user, given, command, then)


def test_orders_of_two_shops_do_not_clash():
    """Both shops may have an o1."""
    stream = check(user, [USERS], user.orders.RecordOrder("s2", USERS.copy))
    assert {key: order["store"] for key, order in stream.visible()["orders"].items()} == {
        "s1/o1": "s1",
        "s2/o1": "s2",
    }
    stream.do(user.orders.RecordChange("s2", READY))
    assert [order.status for order in stream.state.orders.values()] == ["PLACED", "READY"]


def test_the_answer_to_a_notice():
    """Its id."""
    assert check(user, [], Notify("a")).answer(Notify("b")) == {"notice": "n2"}


def test_a_user_keeps_the_last_notices_and_orders(monkeypatch):
    """The event names what goes."""
    monkeypatch.setattr(user.notices, "NOTICES_MAX", 2)
    monkeypatch.setattr(user.orders, "ORDERS_MAX", 1)
    notices = [NoticeAdded("n1", "a", NOW), NoticeAdded("n2", "b", NOW)]
    check(user, notices, Notify("c"), [NoticeAdded("n3", "c", NOW, dropped=("n1",))])
    then = [user.orders.OrderReceived("o1", "s2", USERS.copy, ("s1/o1",))]
    check(user, [USERS], user.orders.RecordOrder("s2", USERS.copy), then)
