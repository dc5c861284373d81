"""A new order: who may place it, when, what it costs, and what it takes out of stock."""

import pytest
from msgspec.structs import replace

from engine.domain import store
from engine.domain.order import Shipping
from engine.domain.store.announce import MenuAnnounced
from engine.domain.store.closing import OrdersArchived
from engine.domain.store.menu import SoldOutSet
from engine.domain.store.orders import CartRefused, Destination, OrderCreated, OrderPlaced, TakeCart
from engine.domain.store.shop import OrdersPaused, StoreClosed
from engine.domain.store.stock import StockChange
from engine.domain.store.tables import TableNoted
from tests.domain.shop_given import MENU, PLACED, SERVED, TABLE_3, create, created, item, line, wish
from tests.harness_domain import NOW, check

SEATED = [*MENU, TABLE_3]
BY_TABLE = "table:s1/3"


def ramen(name="o1-1", quantity=1, **fields):
    return line(name, "ramen", quantity, 5000, name="라면", **fields)


def test_an_order_is_created_and_placed_in_one_go():
    """The menu's prices, numbered, and the kitchen may start."""
    command = create(wish("ramen", 2), wish("kimbap", 3))
    lines = (ramen(quantity=2), line("o1-2", quantity=3))
    taken = (StockChange("kimbap", 10, 7),)
    then = [
        OrderCreated("o1", 1, "PLACED", lines, 19000, "owner:kim", NOW, stock=taken, vat=1727),
        OrderPlaced("o1", 1),
    ]
    stream = check(store, MENU, command, then)
    assert stream.state.products["kimbap"].stock == 7
    assert stream.visible()["orders"]["o1"] == {
        "order": "o1",
        "number": 1,
        "table": None,
        "user": None,
        "status": "PLACED",
        "lines": [
            {
                "line": f"o1-{number}",
                "product": product,
                "name": name,
                "quantity": quantity,
                "price": price,
                "options": [],
                "note": "",
                "by": "",
                "status": "WAITING",
                "tax_free": False,
            }
            for number, product, name, quantity, price in (
                (1, "ramen", "라면", 2, 5000),
                (2, "kimbap", "김밥", 3, 3000),
            )
        ],
        "total": 19000,
        "by": "owner:kim",
        "placed_at": NOW,
        "accepted_at": None,
        "cooking_at": None,
        "ready_at": None,
        "served_at": None,
        "closed_at": None,
        "reason": None,
        "shipping": None,
        "tax_free": 0,
        "vat": 1727,
        "discount": 0,
        "coupon": None,
        "paid": 0,
        "paid_lines": [],
        "refunded": 0,
        "hold_expires_at": None,
        "payment": None,
        "owed": 0,
    }


def test_the_answer_of_an_order():
    """Its id, total and status; nothing is held in a postpay shop."""
    stream = check(store, MENU, create())
    answer = store.answer(stream.state, create(), stream.events[-2:])
    assert answer == {"order": "o1", "total": 5000, "status": "PLACED", "hold_expires_at": None}


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ([*MENU, StoreClosed()], "store_closed"),
        ([*MENU, OrdersPaused("busy")], "orders_paused"),
    ],
)
@pytest.mark.parametrize("by", ["owner:kim", "staff:lee", "user:u1", "service:pos"])
def test_a_shop_that_takes_no_orders(given, code, by):
    """Nobody orders from a closed or paused shop."""
    check(store, given, create(), rejected=code, by=by)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (create(wish("pizza")), "unknown_product"),
        (create(wish("kimbap", 11)), "sold_out"),
        (create(wish("kimbap", 6), wish("kimbap", 5)), "sold_out"),
        (create(coupon="welcome"), "unknown_coupon"),
        (create(wish(line="a"), wish(line="a")), "duplicate_line"),
        (create(wish(), wish(line="o1-1")), "duplicate_line"),
        (create(wish("ramen", options=("large",))), "unknown_option"),
        (create(wish("tteok")), "option_required"),
        (create(wish("tteok", options=("cheese",))), "option_required"),
        (create(wish("tteok", options=("small", "large"))), "too_many_options"),
        (create(wish("tteok", options=("small", "cheese", "cheese"))), "too_many_options"),
        (create(wish("tteok", options=("small", "gold"))), "unknown_option"),
    ],
)
def test_orders_that_the_menu_does_not_allow(command, code):
    """Unknown things, more than there is (summed over all lines), and options that do not fit."""
    check(store, MENU, command, rejected=code)


def test_options_add_to_the_price():
    """A line's price is that of one piece with its options."""
    command = create(wish("tteok", 2, options=("large", "egg", "cheese"), note="맵게"))
    created = check(store, MENU, command).events[-2]
    assert (created.lines[0].price, created.total) == (6200, 12400)
    assert (created.lines[0].options, created.lines[0].note) == (("large", "egg", "cheese"), "맵게")


def test_switched_off_is_sold_out():
    """The switch holds for products that are not counted, too."""
    check(store, [*MENU, SoldOutSet("ramen", True)], create(), rejected="sold_out")


def test_a_refusal_names_what_is_left():
    """People are told how many they could have."""
    stream = check(store, MENU, create(wish("kimbap", 11)), rejected="sold_out")
    with pytest.raises(Exception, match="김밥: 10 left, 11 ordered"):
        stream.decide(create(wish("kimbap", 11)), "owner:kim")


def test_the_last_one_is_announced_as_sold_out():
    """Tables see at once that a product has run out."""
    stream = check(store, SEATED, create(wish("notebook")))
    seen = item("notebook", sold_out=True, name="노트북", price=1_500_000)
    assert stream.events[-1] == MenuAnnounced(("3",), (seen,))
    check(store, stream.events, create(wish("notebook")), rejected="sold_out")


@pytest.mark.parametrize(
    ("command", "by", "table", "user"),
    [
        (create(), BY_TABLE, "3", None),
        (create(table="3"), BY_TABLE, "3", None),
        (create(), "user:u1", None, "u1"),
        (create(user="u1"), "user:u1", None, "u1"),
        (create(table="9", user="u2"), "staff:lee", "9", "u2"),
        (create(), "service:pos", None, None),
    ],
)
def test_for_whom(command, by, table, user):
    """Guests order for themselves, whether they say so or not; staff for anybody."""
    created = check(store, SEATED, command, by=by).events[len(SEATED)]
    assert (created.table, created.user, created.by) == (table, user, by)


@pytest.mark.parametrize(
    ("command", "by", "code"),
    [
        (create(table="4"), BY_TABLE, "forbidden"),
        (create(user="u1"), BY_TABLE, "forbidden"),
        (create(), "table:s2/3", "forbidden"),
        (create(user="u2"), "user:u1", "forbidden"),
        (create(table="3"), "user:u1", "forbidden"),
        (create(), "table:s1/4", "table_closed"),
    ],
)
def test_not_for_others(command, by, code):
    """A guest cannot order for another table or user, nor from a table that is closed."""
    check(store, SEATED, command, rejected=code, by=by)


def test_an_order_belongs_to_the_party_at_the_table():
    """The order remembers which sitting the shop saw; nobody for a closed table."""
    assert check(store, SEATED, create(table="3")).events[-2].sitting == 4
    assert check(store, [*SEATED, TableNoted("3", 4)], create(table="3")).events[-2].sitting == 0


@pytest.mark.parametrize("given", [PLACED, [*SERVED, OrdersArchived(("o1",))]])
def test_an_id_is_taken_once(given):
    """Also when the order has left already."""
    check(store, given, create(order="o1"), rejected="order_exists")


def test_a_chosen_id_does_not_block_the_next_number():
    """Where somebody chose the id that is next, the number after it is taken."""
    given = [*MENU, *created("o2", number=1)]
    stream = check(store, given, create())
    order = stream.events[-2]
    assert (order.order, order.number, order.lines[0].line) == ("o3", 3, "o3-1")
    assert stream.do(create(order="mine"))[0].number == 4


def test_numbers_are_never_used_twice():
    """Not even when the last order has left."""
    assert check(store, [*SERVED, OrdersArchived(("o1",))], create()).events[-2].number == 2


def test_an_order_of_ones_own_name():
    """Its lines are named after its number, so that they stay short."""
    order = check(store, MENU, create(order="web-77")).events[-2]
    assert (order.order, order.lines[0].line) == ("web-77", "o1-1")


def test_shipping_stays_with_the_order():
    """Where to send it."""
    to = Destination("김", "010-0000-0000", "서울")
    stream = check(store, MENU, create(shipping=to))
    assert stream.state.orders["o1"].shipping == Shipping("김", "010-0000-0000", "서울")


CART = TakeCart("3-7", "3", 4, (wish("kimbap", line="t3-1", by="민지"),))


def test_a_cart_becomes_an_order_under_its_own_ids():
    """Order and lines keep the ids that the table gave them."""
    taken = (StockChange("kimbap", 10, 9),)
    lines = (replace(line("t3-1", quantity=1), by="민지"),)
    order = OrderCreated("3-7", 1, "PLACED", lines, 3000, BY_TABLE, NOW, "3", None, 4, stock=taken, vat=273)
    check(store, SEATED, CART, [order, OrderPlaced("3-7", 1)], by=BY_TABLE)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ([*SEATED, StoreClosed()], "store_closed"),
        ([*SEATED, OrdersPaused("busy")], "orders_paused"),
        ([*SEATED, SoldOutSet("kimbap", True)], "sold_out"),
        (SEATED[:2], "unknown_product"),
        ([*SEATED, *created("3-7")], "order_exists"),
    ],
)
def test_a_refused_cart_is_written_down(given, code):
    """The same rules; but the refusal is an event, since the cart has to go back."""
    refused = check(store, given, CART, by=BY_TABLE).events[len(given) :]
    assert [type(event) for event in refused] == [CartRefused]
    assert (refused[0].order, refused[0].table, refused[0].code) == ("3-7", "3", code)
