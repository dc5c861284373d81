"""The shared cart of a table, and its way to the shop and, if the shop refuses, back.

Lines are never merged: each keeps its id for ever, also in the order and on the kitchen's ticket.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, assert_never

from msgspec import Meta
from msgspec.structs import replace

from engine.domain import contract
from engine.domain.contract import Context, Outcome
from engine.domain.fields import Label, Note, Quantity, Ref
from engine.domain.product import CHOSEN_MAX, extra_price
from engine.domain.table.state import (
    SELF,
    CartLine,
    Refusal,
    State,
    Submission,
    check_open,
    table_of,
)
from engine.errors import Rejected

CART_MAX = 100
"""Lines in a cart: as many as one order may have."""
SENDING_MAX = 10

_GUESTS = frozenset({"table", "staff", "owner"})


class AddToCart(contract.Command, frozen=True):
    """Put a `quantity` of a `product` with its `options` and a `note` into the cart; `by` names who wants
    it.
    """

    allowed: ClassVar = _GUESTS
    product: Ref
    quantity: Quantity
    options: Annotated[tuple[Ref, ...], Meta(max_length=CHOSEN_MAX)] = ()
    note: Note = ""
    by: Label = ""


class ChangeQuantity(contract.Command, frozen=True):
    """Set the `quantity` of a `line` in the cart."""

    allowed: ClassVar = _GUESTS
    line: Ref
    quantity: Quantity


class RemoveFromCart(contract.Command, frozen=True):
    """Take a `line` out of the cart."""

    allowed: ClassVar = _GUESTS
    line: Ref


class SubmitCart(contract.Command, frozen=True):
    """Send the whole cart to the shop as one order, with a `coupon` that the party holds."""

    allowed: ClassVar = _GUESTS
    outcome: ClassVar = Outcome("OrderReceived", "CartReturned", "order")
    coupon: Ref | None = None


class ReturnCart(contract.Command, frozen=True):
    """The shop refused the `order` with a `code` and `detail`: its lines go back into the cart."""

    order: str
    code: str
    detail: str


class ItemAdded(contract.Event, frozen=True):
    """A line is in the cart."""

    line: str
    product: str
    quantity: int
    options: tuple[str, ...] = ()
    note: str = ""
    by: str = ""


class QuantityChanged(contract.Event, frozen=True):
    """A line of the cart has another quantity."""

    line: str
    quantity: int


class ItemRemoved(contract.Event, frozen=True):
    """A line is no longer in the cart."""

    line: str


class CartSubmitted(contract.Event, frozen=True):
    """The cart is on its way to the shop."""

    store: str
    table: str
    sitting: int
    order: str
    lines: tuple[CartLine, ...]
    at: str
    coupon: str | None = None


class CartReturned(contract.Event, frozen=True):
    """The shop refused: these lines are in the cart again."""

    order: str
    code: str
    detail: str
    lines: tuple[str, ...]


Command = AddToCart | ChangeQuantity | RemoveFromCart | SubmitCart | ReturnCart
Event = ItemAdded | QuantityChanged | ItemRemoved | CartSubmitted | CartReturned


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Return what happens to the cart.

    Raises:
        Rejected: `table_closed`, `unknown_product`, `sold_out`, those of the options, `unknown_line`,
        `cart_full`,
            `cart_empty`, `store_closed`, `orders_paused`, `still_sending`.
    """
    if isinstance(command, ReturnCart):
        return _returned(state, command)
    check_open(state)
    match command:
        case AddToCart():
            return _added(state, command, context)
        case ChangeQuantity(line=line, quantity=quantity):
            return [] if _known(state, line).quantity == quantity else [QuantityChanged(line, quantity)]
        case RemoveFromCart(line=line):
            return [ItemRemoved(_known(state, line).line)]
        case SubmitCart(coupon=coupon):
            return _submitted(state, coupon, context)
        case _:
            assert_never(command)


def evolve(state: State, event: Event) -> None:
    """Change the cart and what is on its way."""
    match event:
        case ItemAdded(line=line):
            state.lines_made += 1
            state.cart[line] = CartLine(
                line, event.product, event.quantity, event.options, event.note, event.by
            )
        case QuantityChanged(line=line, quantity=quantity):
            if line in state.cart:
                state.cart[line] = replace(state.cart[line], quantity=quantity, refused=None)
        case ItemRemoved(line=line):
            state.cart.pop(line, None)
        case CartSubmitted(order=order, lines=lines):
            state.orders_made += 1
            for sent in lines:
                state.cart.pop(sent.line, None)
            state.sending[order] = Submission(order, lines, event.at)
        case CartReturned(order=order):
            submission = state.sending.pop(order, None)
            refusal = Refusal(event.code, event.detail)
            for back in submission.lines if submission is not None else ():
                if back.line in event.lines:
                    state.cart[back.line] = replace(back, refused=refusal)
        case _:
            assert_never(event)


def touched(event: Event) -> list[tuple[str, str]]:
    """Lines of the cart, and the submission."""
    match event:
        case ItemAdded(line=line) | QuantityChanged(line=line) | ItemRemoved(line=line):
            return [("cart", line)]
        case CartSubmitted(order=order, lines=lines):
            return [("sending", order), *(("cart", line.line) for line in lines)]
        case CartReturned(order=order, lines=names):
            return [("sending", order), *(("cart", name) for name in names)]
        case _:
            assert_never(event)


def _added(state: State, command: AddToCart, context: Context) -> list[contract.Event]:
    item = state.menu.get(command.product)
    if item is None:
        raise Rejected("unknown_product", f"There is no product {command.product} on the menu")
    if item.sold_out:
        raise Rejected("sold_out", f"{item.name} is sold out")
    extra_price(item.name, item.options, command.options)
    if len(state.cart) >= CART_MAX:
        raise Rejected("cart_full", f"A cart has {CART_MAX} lines at most: order these first")
    line = f"t{table_of(context.stream)[1]}-{state.lines_made + 1}"
    return [ItemAdded(line, command.product, command.quantity, command.options, command.note, command.by)]


def _submitted(state: State, coupon: str | None, context: Context) -> list[contract.Event]:
    if not state.cart:
        raise Rejected("cart_empty", "There is nothing in the cart")
    if len(state.cart) > CART_MAX:
        raise Rejected("cart_full", f"An order has {CART_MAX} lines at most: take some out")
    if len(state.sending) >= SENDING_MAX:
        raise Rejected("still_sending", "The shop has not answered yet: wait a moment")
    _check_shop(state)
    store, table = table_of(context.stream)
    lines: Iterable[CartLine] = state.cart.values()
    sent = tuple(line if line.refused is None else replace(line, refused=None) for line in lines)
    order = f"{table}-{state.orders_made + 1}"
    return [CartSubmitted(store, table, state.table[SELF].sitting, order, sent, context.now, coupon)]


def _check_shop(state: State) -> None:
    shop = state.shop.get(SELF)
    if shop is None:
        return  # not told yet: the shop itself decides
    if not shop.open:
        raise Rejected("store_closed", f"{shop.name} is closed")
    if shop.paused:
        raise Rejected("orders_paused", f"{shop.name} takes no orders just now: {shop.pause_reason}")


def _returned(state: State, command: ReturnCart) -> list[contract.Event]:
    submission = state.sending.get(command.order)
    if submission is None:
        return []
    lines = tuple(line.line for line in submission.lines)
    return [CartReturned(command.order, command.code, command.detail, lines)]


def _known(state: State, name: str) -> CartLine:
    line = state.cart.get(name)
    if line is None:
        raise Rejected("unknown_line", f"There is no line {name} in the cart")
    return line
