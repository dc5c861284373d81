"""The shared cart: lines with ids for ever, submission, and the way back from a refusal."""

import pytest
from msgspec.structs import replace

from engine.domain import table
from engine.domain.contract import Outcome
from engine.domain.table import cart
from engine.domain.table.cart import (
    AddToCart,
    CartReturned,
    CartSubmitted,
    ChangeQuantity,
    ItemAdded,
    ItemRemoved,
    QuantityChanged,
    RemoveFromCart,
    ReturnCart,
    SubmitCart,
)
from engine.domain.table.copies import MenuShown
from engine.domain.table.state import CartLine, Refusal
from tests.domain.shop_given import SAT, SIGN, item
from tests.harness_domain import NOW, check

ADDED = [ItemAdded("t3-1", "ramen", 1), ItemAdded("t3-2", "tteok", 2, ("large",), "맵게", "민지")]
FILLED = [*SAT, *ADDED]
LINES = (CartLine("t3-1", "ramen", 1, (), "", ""), CartLine("t3-2", "tteok", 2, ("large",), "맵게", "민지"))
SENT = CartSubmitted("s1", "3", 1, "3-1", LINES, NOW)
BACK = CartReturned("3-1", "sold_out", "라면 is sold out", ("t3-1", "t3-2"))


@pytest.mark.parametrize(
    ("given", "command", "then"),
    [
        (SAT, AddToCart("ramen", 1), [ItemAdded("t3-1", "ramen", 1)]),
        (
            FILLED,
            AddToCart("tteok", 2, ("small", "egg"), "맵게", "민지"),
            [ItemAdded("t3-3", "tteok", 2, ("small", "egg"), "맵게", "민지")],
        ),
        (FILLED, AddToCart("ramen", 1), [ItemAdded("t3-3", "ramen", 1)]),
        (FILLED, ChangeQuantity("t3-1", 3), [QuantityChanged("t3-1", 3)]),
        (FILLED, ChangeQuantity("t3-1", 1), []),
        (FILLED, RemoveFromCart("t3-1"), [ItemRemoved("t3-1")]),
        (FILLED, SubmitCart(), [SENT]),
        ([*FILLED, SENT], ReturnCart("3-1", "sold_out", "라면 is sold out"), [BACK]),
        ([*FILLED, SENT, BACK], ReturnCart("3-1", "sold_out", "라면 is sold out"), []),
        (FILLED, ReturnCart("3-9", "sold_out", "x y"), []),
    ],
)
def test_the_cart(given, command, then):
    """Lines are never merged, and each command does one thing."""
    check(table, given, command, then, by="table:s1/3")


@pytest.mark.parametrize(
    ("given", "command", "code"),
    [
        (SAT, AddToCart("pizza", 1), "unknown_product"),
        (SAT, AddToCart("gone", 1), "sold_out"),
        (SAT, AddToCart("tteok", 1), "option_required"),
        (SAT, AddToCart("tteok", 1, ("small", "large")), "too_many_options"),
        (SAT, AddToCart("ramen", 1, ("small",)), "unknown_option"),
        (SAT, ChangeQuantity("t3-1", 2), "unknown_line"),
        (SAT, RemoveFromCart("t3-1"), "unknown_line"),
        (SAT, SubmitCart(), "cart_empty"),
        ([*FILLED, SENT], SubmitCart(), "cart_empty"),
        ([*FILLED, SENT], ChangeQuantity("t3-1", 2), "unknown_line"),
        ([*FILLED, MenuShown(shop=replace(SIGN, open=False))], SubmitCart(), "store_closed"),
        (
            [*FILLED, MenuShown(shop=replace(SIGN, paused=True, pause_reason="busy"))],
            SubmitCart(),
            "orders_paused",
        ),
    ],
)
def test_what_the_cart_refuses(given, command, code):
    """What the menu says is refused at once; a second submission finds nothing."""
    check(table, given, command, rejected=code)


def test_a_closed_shop_still_lets_guests_choose():
    """Only submitting needs an open shop."""
    check(table, [*SAT, MenuShown(shop=replace(SIGN, open=False))], AddToCart("ramen", 1))


def test_before_the_shop_has_answered_the_shop_decides():
    """A table that has not heard of its shop yet does not refuse in its name."""
    given = [SAT[0], MenuShown((item(),)), ADDED[0]]
    assert check(table, given, SubmitCart()).events[-1].order == "3-1"


def test_a_submitted_cart_is_on_its_way():
    """The answer names the order, and which later event settles it."""
    stream = check(table, FILLED, SubmitCart())
    assert stream.visible()["cart"] == {}
    assert list(stream.visible()["sending"]) == ["3-1"]
    assert table.answer(stream.state, SubmitCart(), stream.events[-1:]) == {"order": "3-1"}
    assert SubmitCart.outcome == Outcome("OrderReceived", "CartReturned", "order")


def test_what_comes_back_keeps_its_ids_and_says_why():
    """Changing the line, or sending it again, is a new try."""
    stream = check(table, [*FILLED, SENT], ReturnCart("3-1", "sold_out", "라면 is sold out"))
    assert stream.visible()["sending"] == {}
    refused = Refusal("sold_out", "라면 is sold out")
    assert stream.state.cart == {line.line: replace(line, refused=refused) for line in LINES}
    stream.do(ChangeQuantity("t3-1", 2))
    assert stream.state.cart["t3-1"].refused is None
    sent = stream.do(SubmitCart())[0]
    assert (sent.order, [line.refused for line in sent.lines]) == ("3-2", [None, None])


def test_a_returned_cart_joins_what_was_added_meanwhile():
    """Nothing is lost."""
    given = [*FILLED, SENT, ItemAdded("t3-3", "ramen", 1)]
    stream = check(table, given, ReturnCart("3-1", "sold_out", "x y"))
    assert list(stream.state.cart) == ["t3-3", "t3-1", "t3-2"]


def test_a_line_id_is_never_used_again():
    """Neither after the line was taken out, nor after it was ordered."""
    stream = check(table, FILLED, RemoveFromCart("t3-1"))
    names = [stream.answer(AddToCart("ramen", 1))["line"] for _ in range(2)]
    stream.do(SubmitCart())
    names += [stream.answer(AddToCart("ramen", 1))["line"] for _ in range(2)]
    assert names == ["t3-3", "t3-4", "t3-5", "t3-6"]


def test_a_cart_is_bounded(monkeypatch):
    """It never holds more than one order can, even when a refused cart has come back into it."""
    monkeypatch.setattr(cart, "CART_MAX", 2)
    check(table, FILLED, AddToCart("ramen", 1), rejected="cart_full")
    given = [*FILLED, SENT, ItemAdded("t3-3", "ramen", 1), BACK]
    check(table, given, SubmitCart(), rejected="cart_full")


def test_only_so_many_carts_are_on_their_way(monkeypatch):
    """A shop that does not answer is not flooded."""
    monkeypatch.setattr(cart, "SENDING_MAX", 1)
    given = [*FILLED, SENT, ItemAdded("t3-3", "ramen", 1)]
    check(table, given, SubmitCart(), rejected="still_sending")
