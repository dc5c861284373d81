"""The menu: products, options, the sold-out switch, counts corrected by hand, and what tables hear of it."""

import pytest
from msgspec import UNSET
from msgspec.structs import replace

from engine.domain import store
from engine.domain.product import Choice, Option
from engine.domain.store import menu
from engine.domain.store.announce import MenuAnnounced
from engine.domain.store.menu import (
    AdjustStock,
    ProductPut,
    PutProduct,
    SetSoldOut,
    SoldOutSet,
    StockAdjusted,
)
from tests.domain.shop_given import EXTRA, KIMBAP, MENU, RAMEN, SIZE, TABLE_3, item
from tests.harness_domain import check

WITH_TABLE = [*MENU, TABLE_3]
KIMBAP_SEEN = item("kimbap", name="김밥", price=3000)


def test_a_new_product():
    """Without a stock it is not counted."""
    put = PutProduct("ramen", "라면", 5000)
    stream = check(store, MENU[:2], put, [ProductPut("ramen", "라면", 5000)])
    assert stream.state.products["ramen"].stock is None


@pytest.mark.parametrize(
    ("stock", "then"),
    [
        (UNSET, [ProductPut("kimbap", "김밥", 3500, stock=10, stock_before=10)]),
        (None, [ProductPut("kimbap", "김밥", 3500, stock=None, stock_before=10)]),
        (4, [ProductPut("kimbap", "김밥", 3500, stock=4, stock_before=10)]),
    ],
)
def test_a_new_price_keeps_the_count_unless_it_is_given(stock, then):
    """Whoever edits a price does not overwrite what has been sold meanwhile."""
    check(store, MENU, PutProduct("kimbap", "김밥", 3500, stock=stock), then)


def test_the_same_product_again_is_no_event():
    """Putting what is there already changes nothing."""
    check(store, MENU, PutProduct("ramen", "라면", 5000), [])


def test_putting_a_product_leaves_the_switch_alone():
    """A product that was switched off stays off when its price changes."""
    given = [*WITH_TABLE, SoldOutSet("ramen", True)]
    announced = MenuAnnounced(("3",), (item(price=5500, sold_out=True),))
    then = [ProductPut("ramen", "라면", 5500), announced]
    stream = check(store, given, PutProduct("ramen", "라면", 5500), then)
    assert stream.state.products["ramen"].sold_out
    check(store, given, PutProduct("ramen", "라면", 5000), [])


@pytest.mark.parametrize(
    "options",
    [
        (SIZE, SIZE),
        (SIZE, replace(EXTRA, choices=(Choice("small", "again"),), max=1)),
        (replace(SIZE, min=2, max=1),),
        (replace(SIZE, max=3),),
        (Option("size", "크기", (Choice("a", "a"), Choice("a", "b"))),),
    ],
)
def test_options_that_nobody_could_choose(options):
    """Ids are unique in a product, and the limits can be met."""
    check(store, MENU, PutProduct("tteok", "떡볶이", 4000, options=options), rejected="options_invalid")


def test_a_menu_is_bounded(monkeypatch):
    """A full menu takes changes, but no new product."""
    monkeypatch.setattr(menu, "PRODUCTS_MAX", 4)
    check(store, MENU, PutProduct("new", "new", 1), rejected="menu_full")
    check(store, MENU, PutProduct("ramen", "라면", 1), [ProductPut("ramen", "라면", 1)])


@pytest.mark.parametrize(
    ("given", "command", "then"),
    [
        (MENU, SetSoldOut("ramen", True), [SoldOutSet("ramen", True)]),
        (MENU, SetSoldOut("ramen", False), []),
        ([*MENU, SoldOutSet("ramen", True)], SetSoldOut("ramen", False), [SoldOutSet("ramen", False)]),
        (MENU, AdjustStock("kimbap", -3, "dropped"), [StockAdjusted("kimbap", 10, 7, "dropped")]),
        (MENU, AdjustStock("kimbap", -10, "dropped"), [StockAdjusted("kimbap", 10, 0, "dropped")]),
        (MENU, AdjustStock("kimbap", 5, "made"), [StockAdjusted("kimbap", 10, 15, "made")]),
        (MENU, AdjustStock("kimbap", 0, "counted"), []),
    ],
)
def test_switch_and_count(given, command, then):
    """The switch is set once; a correction is written down with both counts and its reason."""
    check(store, given, command, then)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (SetSoldOut("pizza", True), "unknown_product"),
        (AdjustStock("pizza", 1, "x"), "unknown_product"),
        (AdjustStock("ramen", 1, "x"), "stock_not_counted"),
        (AdjustStock("kimbap", -11, "x"), "stock_negative"),
    ],
)
def test_what_cannot_be_corrected(command, code):
    """Only what is there and counted, and never below nothing."""
    check(store, MENU, command, rejected=code)


@pytest.mark.parametrize(
    ("command", "seen"),
    [
        (PutProduct("ramen", "라면", 6000), item(price=6000)),
        (PutProduct("kimbap", "김밥", 3000, stock=5), None),
        (PutProduct("kimbap", "김밥", 3000, stock=0), replace(KIMBAP_SEEN, sold_out=True)),
        (SetSoldOut("kimbap", True), replace(KIMBAP_SEEN, sold_out=True)),
        (AdjustStock("kimbap", -9, "x"), None),
        (AdjustStock("kimbap", -10, "x"), replace(KIMBAP_SEEN, sold_out=True)),
    ],
)
def test_tables_hear_what_they_can_see(command, seen):
    """Guests see whether there is any, not how many: only that is announced."""
    announced = [MenuAnnounced(("3",), (seen,))] if seen else []
    assert check(store, WITH_TABLE, command).events[len(WITH_TABLE) + 1 :] == announced


def test_the_switch_outlives_the_count():
    """What was switched off by hand does not come back because there is stock again."""
    given = [*WITH_TABLE, SoldOutSet("kimbap", True), StockAdjusted("kimbap", 10, 0, "x")]
    announced = MenuAnnounced(("3",), (replace(KIMBAP_SEEN, sold_out=True),))
    then = [StockAdjusted("kimbap", 0, 5, "made"), announced]
    check(store, given, AdjustStock("kimbap", 5, "made"), then)


def test_a_product_is_announced_with_its_options():
    """Tables need the whole product."""
    put = PutProduct("ramen", "라면", 5000, station="noodles", tax_free=True, options=(SIZE,))
    stream = check(store, WITH_TABLE, put)
    seen = item(station="noodles", tax_free=True, options=(SIZE,))
    assert stream.events[-1] == MenuAnnounced(("3",), (seen,))
    assert (RAMEN.product, KIMBAP.stock) == ("ramen", 10)
