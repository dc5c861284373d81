"""An order on its way through the kitchen: accepted, cooked, ready, served, and back again by recall.

Two tablets may tap the same thing: what is done already, or overtaken by a later stage, is no error and no
event.
"""

from __future__ import annotations

from typing import ClassVar, assert_never

from engine.domain import contract
from engine.domain.contract import STAFF, Context
from engine.domain.fields import Ref, Stage
from engine.domain.order import (
    ACCEPTED,
    CANCELLED,
    COOKING,
    PLACED,
    READY,
    SERVED,
    STAGES,
    UNPAID,
    WAITING,
    Order,
    OrderChange,
    OrderEvent,
)
from engine.domain.store.closing import known_order, left_behind, settle
from engine.domain.store.state import State
from engine.errors import Rejected


class AcceptOrder(contract.Command, frozen=True):
    """Take on the `order`: from now on its guest cannot cancel it."""

    allowed: ClassVar = STAFF
    order: Ref


class StartCooking(contract.Command, frozen=True):
    """Begin with the `order`: its stock is used up."""

    allowed: ClassVar = STAFF
    order: Ref


class MarkItemReady(contract.Command, frozen=True):
    """One `line` of the `order` is ready; with the last one the order is ready too."""

    allowed: ClassVar = STAFF
    order: Ref
    line: Ref


class MarkReady(contract.Command, frozen=True):
    """The whole `order` is ready, whatever stages were left out."""

    allowed: ClassVar = STAFF
    order: Ref


class MarkServed(contract.Command, frozen=True):
    """The `order` is with its guests."""

    allowed: ClassVar = STAFF
    order: Ref


class RecallOrder(contract.Command, frozen=True):
    """Undo the last stage of the `order`: served becomes ready, ready becomes cooking; with a `status`
    nothing happens when the order is before that stage already, so that two tablets undo one stage.
    """

    allowed: ClassVar = STAFF
    order: Ref
    status: Stage | None = None


class OrderAccepted(OrderEvent, frozen=True):
    """The shop took the order on."""

    def change(self) -> OrderChange:
        return OrderChange(self.order, self.at, ACCEPTED)


class CookingStarted(OrderEvent, frozen=True):
    """The kitchen began."""

    def change(self) -> OrderChange:
        return OrderChange(self.order, self.at, COOKING)


class ItemReady(OrderEvent, frozen=True, kw_only=True):
    """One line is ready."""

    line: str

    def change(self) -> OrderChange:
        return OrderChange(self.order, self.at, line=self.line, line_status=READY)


class OrderReady(OrderEvent, frozen=True):
    """All of the order is ready."""

    def change(self) -> OrderChange:
        return OrderChange(self.order, self.at, READY)


class OrderServed(OrderEvent, frozen=True):
    """The order is with its guests."""

    def change(self) -> OrderChange:
        return OrderChange(self.order, self.at, SERVED)


class OrderRecalled(OrderEvent, frozen=True, kw_only=True):
    """The last stage was undone: the order is in `status` again."""

    status: str

    def change(self) -> OrderChange:
        return OrderChange(self.order, self.at, self.status)


Command = AcceptOrder | StartCooking | MarkItemReady | MarkReady | MarkServed | RecallOrder
Event = OrderAccepted | CookingStarted | ItemReady | OrderReady | OrderServed | OrderRecalled


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Return what the tap does; `[]` when it is done already.

    Raises:
        Rejected: `unknown_order`, `unknown_line`, `wrong_status`, `not_paid`.
    """
    order = known_order(state, command.order)
    if order.status in UNPAID:
        raise Rejected("not_paid", f"Order {order.order} is not paid yet: wait for its guest")
    facts = (order.order, context.now, order.table, order.user)
    match command:
        case AcceptOrder():
            return [OrderAccepted(*facts)] if _moves(order, ACCEPTED) else []
        case StartCooking():
            return [CookingStarted(*facts)] if _moves(order, COOKING) else []
        case MarkItemReady(line=line):
            return _item_ready(order, line, context)
        case MarkReady():
            return [OrderReady(*facts)] if _moves(order, READY) else []
        case MarkServed():
            if not _moves(order, SERVED):
                return []
            if order.status != READY:
                raise _wrong(order, "is served when it is ready")
            return [OrderServed(*facts), *left_behind(state)]
        case RecallOrder(status=status):
            if status is not None and STAGES.get(order.status, 0) < STAGES[status]:
                return []
            if order.status not in (READY, SERVED):
                raise _wrong(order, "can be recalled when it is ready or served")
            return [OrderRecalled(*facts, status=COOKING if order.status == READY else READY)]
        case _:
            assert_never(command)


def evolve(state: State, event: Event) -> None:
    """Move the order."""
    settle(state, event, event.change())


def touched(event: Event) -> list[tuple[str, str]]:
    """Each of these is about one order."""
    return [("orders", event.order)]


def _moves(order: Order, stage: str) -> bool:
    """Whether the order still has to come to `stage`."""
    if order.status not in STAGES:
        raise _wrong(order, "goes no further")
    return STAGES[order.status] < STAGES[stage]


def _item_ready(order: Order, line_id: str, context: Context) -> list[contract.Event]:
    line = next((line for line in order.lines if line.line == line_id), None)
    if line is None:
        raise Rejected("unknown_line", f"Order {order.order} has no line {line_id}")
    if line.status == CANCELLED:
        raise Rejected("wrong_status", f"{line.name} was cancelled")
    if not _moves(order, READY) or line.status == READY:
        return []
    facts = (order.order, context.now, order.table, order.user)
    events: list[contract.Event] = []
    if order.status in (PLACED, ACCEPTED):
        events.append(CookingStarted(*facts))
    events.append(ItemReady(*facts, line=line_id))
    if sum(line.status == WAITING for line in order.lines) == 1:
        events.append(OrderReady(*facts))
    return events


def _wrong(order: Order, rule: str) -> Rejected:
    return Rejected("wrong_status", f"Order {order.order} {rule}; it is {order.status}")
