"""An order as the shop, its table and its user all hold it, and the one way in which it changes.

The shop decides; tables and users keep copies. Both sides apply the same `OrderChange` with the same
function, so a copy cannot come to differ from the original. Orders and lines are immutable: a change makes
a new one, and an event may share them with the state.
"""

from __future__ import annotations

from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from engine.domain.contract import Event

PLACED, ACCEPTED, COOKING, READY, SERVED = "PLACED", "ACCEPTED", "COOKING", "READY", "SERVED"
REJECTED, CANCELLED = "REJECTED", "CANCELLED"
STAGES = {PLACED: 1, ACCEPTED: 2, COOKING: 3, READY: 4, SERVED: 5}
"""How far an order has come; REJECTED and CANCELLED are no stages."""
CLOSED = frozenset({SERVED, REJECTED, CANCELLED})

WAITING = "WAITING"
"""Status of a line that is not ready yet; the others are READY and CANCELLED, as for orders."""


class OrderLine(Struct, frozen=True, gc=False):
    """One position of an order. `price` is per piece with its options; `by` is who at the table wanted it."""

    line: str
    product: str
    name: str
    quantity: int
    price: int
    options: tuple[str, ...]
    note: str
    by: str
    status: str = WAITING


class Shipping(Struct, frozen=True, gc=False):
    """Where an order goes."""

    name: str
    phone: str
    address: str


class Order(Struct, frozen=True, gc=False):
    """An order. A stage that was skipped has the time of the stage that followed."""

    order: str
    number: int
    table: str | None
    user: str | None
    status: str
    lines: tuple[OrderLine, ...]
    total: int
    by: str
    placed_at: str | None = None
    accepted_at: str | None = None
    cooking_at: str | None = None
    ready_at: str | None = None
    served_at: str | None = None
    closed_at: str | None = None
    reason: str | None = None
    shipping: Shipping | None = None


class OrderChange(Struct, frozen=True, omit_defaults=True, gc=False):
    """What became different in an order: a new `status`, or one `line` with its `line_status`."""

    order: str
    at: str
    status: str | None = None
    reason: str | None = None
    line: str | None = None
    line_status: str = WAITING


Copy = TypeVar("Copy", bound=Order)


class OrderEvent(Event, frozen=True):
    """A change of one order. `table` and `user` are those who keep a copy and have to hear of it."""

    order: str
    at: str
    table: str | None = None
    user: str | None = None

    def change(self) -> OrderChange:
        """Return what this event does to the order."""
        raise NotImplementedError


def changed(order: Copy, change: OrderChange) -> Copy:
    """Return the order after the change. Total: a line that is not there changes nothing."""
    if change.line is not None:
        return _with_line(order, change.line, change.line_status)
    at = change.at
    match change.status:
        case "PLACED":
            return replace(order, status=PLACED, placed_at=order.placed_at or at)
        case "ACCEPTED":
            return replace(order, status=ACCEPTED, accepted_at=at)
        case "COOKING":
            return replace(
                order,
                status=COOKING,
                lines=_lines_turned(order.lines, READY, WAITING),
                accepted_at=order.accepted_at or at,
                cooking_at=order.cooking_at or at,
                ready_at=None,
            )
        case "READY":
            return replace(
                order,
                status=READY,
                lines=_lines_turned(order.lines, WAITING, READY),
                accepted_at=order.accepted_at or at,
                cooking_at=order.cooking_at or at,
                ready_at=order.ready_at or at,
                served_at=None,
                closed_at=None,
            )
        case "SERVED":
            return replace(order, status=SERVED, served_at=at, closed_at=at)
        case "REJECTED" | "CANCELLED" as status:
            return replace(order, status=status, closed_at=at, reason=change.reason)
        case _:
            return order


def _lines_turned(lines: tuple[OrderLine, ...], old: str, new: str) -> tuple[OrderLine, ...]:
    return tuple(replace(line, status=new) if line.status == old else line for line in lines)


def _with_line(order: Copy, line_id: str, status: str) -> Copy:
    lines = tuple(replace(line, status=status) if line.line == line_id else line for line in order.lines)
    total = sum(line.price * line.quantity for line in lines if line.status != CANCELLED)
    return replace(order, lines=lines, total=total)
