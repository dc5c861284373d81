"""Shop, tables and users together: what follows from each record, however often and late it is delivered."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.reactions import react
from engine.domain.store.cancelling import CancelLine, CancelOrder, RejectOrder
from engine.domain.store.kitchen import (
    AcceptOrder,
    MarkItemReady,
    MarkReady,
    MarkServed,
    RecallOrder,
    StartCooking,
)
from engine.domain.store.menu import AdjustStock, PutProduct, SetSoldOut
from engine.domain.store.orders import Destination
from engine.domain.store.shop import CloseStore, ConfigureStore, OpenStore, PauseOrders, ResumeOrders
from engine.domain.table.calls import AnswerCall, CallStaff
from engine.domain.table.cart import AddToCart, ChangeQuantity, SubmitCart
from engine.domain.table.sitting import CloseTable, OpenTable
from engine.errors import Rejected
from tests.domain.shop_given import EXTRA, SIZE, create, wish
from tests.harness_domain import World

SHOP, TABLE, USER = "store:s1", "table:s1/3", "user:u1"


def open_shop(again=lambda: False):
    """A shop with a menu and a party at table 3."""
    world = World(again)
    world.ask(SHOP, ConfigureStore("온다 분식", "postpay"))
    world.ask(SHOP, PutProduct("ramen", "라면", 5000))
    world.ask(SHOP, PutProduct("kimbap", "김밥", 3000, stock=3))
    world.ask(SHOP, PutProduct("tteok", "떡볶이", 4000, options=(SIZE, EXTRA)))
    world.ask(SHOP, OpenStore())
    world.ask(TABLE, OpenTable(2))
    world.settle()
    return world


def copies(world, stream):
    """The orders that a table or user sees."""
    return world[stream].visible()["orders"]


def test_a_table_sees_the_menu_when_it_opens():
    """And the shop's sign."""
    seen = open_shop()[TABLE].visible()
    assert list(seen["menu"]) == ["ramen", "kimbap", "tteok"]
    assert seen["menu"]["kimbap"] == {
        "product": "kimbap",
        "name": "김밥",
        "price": 3000,
        "sold_out": False,
        "station": None,
        "tax_free": False,
        "options": [],
    }
    assert seen["shop"]["self"]["open"] is True


def test_a_whole_evening():
    """From the cart to the kitchen and back to the table, with the same line ids throughout."""
    world = open_shop()
    added = [
        world.result(TABLE, AddToCart("ramen", 2, by="민지"), TABLE)["line"],
        world.result(TABLE, AddToCart("tteok", 1, ("large",)), TABLE)["line"],
    ]
    order = world.result(TABLE, SubmitCart(), TABLE)["order"]
    assert (added, order) == (["t3-1", "t3-2"], "3-1")
    assert list(world[TABLE].visible()["sending"]) == ["3-1"]
    world.settle()
    seen = world[TABLE].visible()
    assert (seen["cart"], seen["sending"], list(seen["orders"])) == ({}, {}, ["3-1"])
    assert seen["orders"]["3-1"] == world[SHOP].visible()["orders"]["3-1"]
    assert [line["line"] for line in seen["orders"]["3-1"]["lines"]] == added
    assert seen["orders"]["3-1"]["lines"][0]["by"] == "민지"
    assert (seen["orders"]["3-1"]["total"], seen["orders"]["3-1"]["by"]) == (15000, TABLE)
    for command in (
        AcceptOrder(order),
        StartCooking(order),
        MarkItemReady(order, added[0]),
        CancelLine(order, added[1], "burnt"),
        RecallOrder(order),
        MarkReady(order),
        MarkServed(order),
        RecallOrder(order),
        MarkServed(order),
    ):
        world.ask(SHOP, command, "staff:lee")
        world.settle()
        assert copies(world, TABLE)[order] == world[SHOP].visible()["orders"][order]
    assert [line["line"] for line in copies(world, TABLE)[order]["lines"]] == added
    assert copies(world, TABLE)[order]["total"] == 10000
    world.ask(TABLE, CloseTable(), "staff:lee")
    world.settle()
    assert world[SHOP].visible()["tables"]["3"]["open"] is False


def test_a_refused_cart_comes_back():
    """The shop's word is final, and the lines say why."""
    world = open_shop()
    world.ask(TABLE, AddToCart("kimbap", 4), TABLE)
    world.ask(TABLE, AddToCart("ramen", 1), TABLE)
    world.ask(TABLE, SubmitCart(), TABLE)
    world.settle()
    seen = world[TABLE].visible()
    assert (seen["sending"], seen["orders"], list(seen["cart"])) == ({}, {}, ["t3-1", "t3-2"])
    assert seen["cart"]["t3-1"]["refused"] == {"code": "sold_out", "detail": "김밥: 3 left, 4 ordered"}
    assert world[SHOP].visible()["orders"] == {}
    world.ask(TABLE, ChangeQuantity("t3-1", 3), TABLE)
    world.ask(TABLE, SubmitCart(), TABLE)
    world.settle()
    seen = world[TABLE].visible()
    assert (seen["cart"], list(seen["orders"])) == ({}, ["3-2"])
    assert seen["menu"]["kimbap"]["sold_out"] is True
    with pytest.raises(Rejected) as refusal:
        world.ask(TABLE, AddToCart("kimbap", 1), TABLE)
    assert refusal.value.code == "sold_out"
    world.ask(SHOP, RejectOrder("3-2", "no rice"))
    world.settle()
    assert world[TABLE].visible()["menu"]["kimbap"]["sold_out"] is False


def test_the_shop_decides_when_both_are_quick():
    """A pause that the table has not heard of yet still holds."""
    world = open_shop()
    world.ask(TABLE, AddToCart("ramen", 1), TABLE)
    world.ask(SHOP, PauseOrders("busy"))
    world.ask(TABLE, SubmitCart(), TABLE)
    world.settle()
    assert world[TABLE].visible()["cart"]["t3-1"]["refused"]["code"] == "orders_paused"
    assert world[TABLE].visible()["shop"]["self"]["pause_reason"] == "busy"
    with pytest.raises(Rejected) as refusal:
        world.ask(TABLE, SubmitCart(), TABLE)
    assert refusal.value.code == "orders_paused"
    world.ask(SHOP, ResumeOrders())
    world.settle()
    world.ask(TABLE, SubmitCart(), TABLE)
    world.settle()
    assert list(copies(world, TABLE)) == ["3-2"]


def test_staff_order_for_a_closed_table():
    """It opens, and knows the menu."""
    world = open_shop()
    world.ask(SHOP, create(table="5"), "staff:lee")
    world.settle()
    seen = world["table:s1/5"].visible()
    assert seen["table"]["self"]["open"] is True
    assert list(seen["orders"]) == ["o1"]
    assert len(seen["menu"]) == 3
    assert world[SHOP].visible()["tables"]["5"]["open"] is True


def test_an_order_of_the_party_before():
    """It was under way while the table closed and opened again: the next party does not see it."""
    world = open_shop()
    world.ask(SHOP, create(), TABLE)
    world.ask(TABLE, CloseTable())
    world.ask(TABLE, OpenTable())
    world.settle()
    world.ask(SHOP, AcceptOrder("o1"))
    world.settle()
    assert copies(world, TABLE) == {}
    assert list(copies(world, SHOP)) == ["o1"]


def test_a_recall_after_the_party_left():
    """The kitchen may undo its tap; the next party does not see that either."""
    world = open_shop()
    world.ask(SHOP, create(), TABLE)
    world.settle()
    world.ask(SHOP, MarkReady("o1"))
    world.ask(SHOP, MarkServed("o1"))
    world.settle()
    world.ask(TABLE, CloseTable())
    world.ask(TABLE, OpenTable())
    world.settle()
    world.ask(SHOP, RecallOrder("o1"))
    world.settle()
    assert copies(world, TABLE) == {}


def test_a_user_follows_their_order():
    """With the address, which a table does not see."""
    world = open_shop()
    to = Destination("김", "010-0000-0000", "서울")
    world.ask(SHOP, create(shipping=to), USER)
    world.ask(SHOP, create(table="3", user="u1", shipping=to), "staff:lee")
    world.settle()
    world.ask(SHOP, CancelOrder("o1", "late"), USER)
    world.settle()
    original = world[SHOP].visible()["orders"]
    mine = copies(world, USER)
    assert mine == {f"s1/{name}": order | {"store": "s1"} for name, order in original.items()}
    assert (mine["s1/o1"]["status"], mine["s1/o1"]["reason"]) == ("CANCELLED", "late")
    assert copies(world, TABLE)["o2"] == original["o2"] | {"shipping": None}


def test_bells_ring_at_the_board():
    """Until somebody answers, or the party leaves."""
    world = open_shop()
    call = world.result(TABLE, CallStaff("water"), TABLE)["call"]
    world.ask(TABLE, CallStaff("bill"), TABLE)
    world.settle()
    assert list(world[SHOP].visible()["calls"]) == ["3/c1", "3/c2"]
    world.ask(TABLE, AnswerCall(call), "staff:lee")
    world.settle()
    assert list(world[SHOP].visible()["calls"]) == ["3/c2"]
    world.ask(TABLE, CloseTable(), "staff:lee")
    world.settle()
    assert world[SHOP].visible()["calls"] == {}


def test_changes_of_the_menu_reach_open_tables():
    """And a table that was closed meanwhile catches up when it opens."""
    world = open_shop()
    world.ask("table:s1/5", OpenTable())
    world.settle()
    world.ask("table:s1/5", CloseTable())
    world.settle()
    world.ask(SHOP, SetSoldOut("ramen", True))
    world.ask(SHOP, AdjustStock("kimbap", -3, "dropped"))
    world.ask(SHOP, CloseStore())
    world.settle()
    here, there = world[TABLE].visible(), world["table:s1/5"].visible()
    assert [product["sold_out"] for product in here["menu"].values()] == [True, True, False]
    assert here["shop"]["self"]["open"] is False
    assert [product["sold_out"] for product in there["menu"].values()] == [False, False, False]
    world.ask("table:s1/5", OpenTable())
    world.settle()
    assert world["table:s1/5"].visible()["menu"] == here["menu"]


def test_most_records_have_no_consequences():
    """A shop without tables is quiet."""
    world = World()
    for event in world.ask(SHOP, ConfigureStore("온다", "postpay")):
        assert react(SHOP, event, "r1") == []


MOVES = st.sampled_from(
    [
        *[(f"table:s1/{table}", AddToCart(product, 1)) for table in "34" for product in ("ramen", "kimbap")],
        *[(f"table:s1/{table}", command) for table in "34" for command in (SubmitCart(), CloseTable())],
        *[(f"table:s1/{table}", command) for table in "34" for command in (OpenTable(), CallStaff("water"))],
        *[(SHOP, command(order)) for order in ("3-1", "4-1", "o1") for command in (MarkReady, MarkServed)],
        *[(SHOP, command(order)) for order in ("3-1", "4-2", "o2") for command in (RecallOrder, AcceptOrder)],
        *[(SHOP, command(order, "x")) for order in ("3-1", "o1") for command in (RejectOrder, CancelOrder)],
        (SHOP, create(wish("kimbap"), table="3")),
        (SHOP, create(wish("ramen"), table="4", user="u1")),
        (SHOP, create(wish("kimbap"), user="u1")),
        (SHOP, SetSoldOut("ramen", True)),
        (SHOP, SetSoldOut("ramen", False)),
        (SHOP, AdjustStock("kimbap", 2, "made")),
        (SHOP, PauseOrders("busy")),
        (SHOP, ResumeOrders()),
        "react",
        "react",
        "react",
    ]
)


@settings(max_examples=60)
@given(data=st.data())
def test_in_the_end_everyone_agrees(data):
    """Whatever happens in whatever order, with deliveries late and repeated: the copies equal the originals.

    No submission is lost: each cart line ends in exactly one place.
    """
    world = open_shop(again=lambda: data.draw(st.booleans(), "again"))
    added = set()
    for move in data.draw(st.lists(MOVES, min_size=10, max_size=50), "moves"):
        if move == "react":
            if waiting := world.waiting():
                world.step(data.draw(st.sampled_from(waiting), "stream"))
            continue
        stream, command = move
        try:
            result = world.result(stream, command, stream if isinstance(command, AddToCart) else "staff:lee")
        except Rejected:
            continue
        if isinstance(command, AddToCart):
            added.add(result["line"])
    world.settle()
    check_agreement(world, added)


def check_agreement(world, added):
    """Compare tables and users with the shop."""
    shop = world[SHOP].visible()
    for name, stream in world.streams.items():
        kind, _, rest = name.partition(":")
        if kind == "user":
            assert all(
                order == shop["orders"][order["order"]] | {"store": "s1"}
                for order in stream.visible()["orders"].values()
            )
        if kind != "table":
            continue
        seen, table = stream.visible(), rest.partition("/")[2]
        assert seen["sending"] == {}
        assert all(order == shop["orders"][key] for key, order in seen["orders"].items())
        opened = seen["table"].get("self", {"open": False})
        assert shop["tables"].get(table, {"open": False})["open"] == opened["open"]
        assert {f"{table}/{call}" for call in seen["calls"]} == {
            key for key in shop["calls"] if key.startswith(f"{table}/")
        }
        if opened["open"]:
            assert {key: item["sold_out"] for key, item in seen["menu"].items()} == {
                key: product["sold_out"] or product["stock"] == 0 for key, product in shop["products"].items()
            }
            assert seen["shop"]["self"]["paused"] == shop["shop"]["self"]["paused"]
    ordered = [line["line"] for order in shop["orders"].values() for line in order["lines"]]
    in_carts = [line for name in world.streams if name[0] == "t" for line in world[name].visible()["cart"]]
    dropped = {
        line
        for name, stream in world.streams.items()
        if name[0] == "t"
        for event in stream.events
        if type(event).__name__ == "TableClosed"
        for line in event.cart
    }
    kept = [line for line in ordered + in_carts if line.startswith("t")]
    assert len(kept) == len(set(kept)), "a line is in two places"
    assert set(kept) | dropped == added


def test_the_order_that_opens_a_table_is_its_partys():
    """It is not older than the party, or the till would look for it on an earlier bill."""
    world = open_shop()
    world.ask(SHOP, create(table="7"))
    (placed,) = world[SHOP].state.orders.values()
    world.now_ms += 40
    world.settle()
    assert world[SHOP].state.tables["7"].opened_at == placed.placed_at
