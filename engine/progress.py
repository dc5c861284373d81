"""The reaction that carries out orders asked for in a few words, step by step, while their user watches.

    OrderRequested, published to `order-events-v2` -> the task begins at 0 %
        the shop takes orders and has the product  -> 25 %  주문 검증
        create-order takes the stock               -> 50 %  재고 확인
        the till takes the money                   -> 75 %  결제 처리
        -> COMPLETED, 100 %
    OrderPlaced -> the same end, where the guest pays first; OrderExpired, OrderCancelled … -> FAILED

The order has the id of its task. What was done is read off the task and the order, and every command carries
an id made of the record's; so a record that is handled again goes on where it was, and its effect is once. A
step that is refused ends the task where it is, with the reason; an order that was made by then is taken back.

Anybody who may publish can publish a wish; a record of the topic that is none is passed over, with a word in
the log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import msgspec

from engine.answers import Answer
from engine.domain.contract import Command
from engine.domain.fields import Id, Name, Quantity
from engine.domain.order import CANCELLED, DEAD, EXPIRED, REJECTED, UNPAID, Order
from engine.domain.store.cancelling import CancelOrder, OrderCancelled, OrderRejected
from engine.domain.store.holds import OrderExpired
from engine.domain.store.orders import CreateOrder, OrderPlaced, Wish
from engine.domain.store.settling import SettleOrder
from engine.domain.store.state import SELF
from engine.domain.store.state import State as Store
from engine.domain.topic import Published
from engine.domain.user.state import State as User
from engine.domain.user.tasks import OVER, AdvanceTask, CompleteTask, FailTask, StartTask
from engine.errors import IdempotencyMismatch, Rejected
from engine.mailbox import Committed
from engine.publishing import Message
from engine.reactions import Reaction

TOPIC = "order-events-v2"
REQUESTED = "OrderRequested"
"""Type of the records that are wishes."""

STEPS = ("주문 검증", "재고 확인", "결제 처리", "완료")
CHECKED, RESERVED, PAID, TOTAL = 1, 2, 3, 4

BY = "service:progress"

_ENDS: dict[type, str] = {OrderExpired: EXPIRED, OrderCancelled: CANCELLED, OrderRejected: REJECTED}
TYPES = frozenset({"Published", "OrderPlaced", *(kind.__name__ for kind in _ENDS)})
_OURS = f"topic:{TOPIC}/"
_TASK_LENGTH = 36
"""Of the ids that orders have from their tasks: other orders are passed over."""

_REASONS = {
    "unknown_store": "없는 가게입니다",
    "store_closed": "영업 중이 아닙니다",
    "orders_paused": "지금은 주문을 받지 않습니다",
    "unknown_product": "없는 상품입니다",
    "sold_out": "재고가 부족합니다",
    "option_required": "옵션을 골라야 하는 상품입니다",
    EXPIRED: "결제 시간이 지났습니다",
    CANCELLED: "주문이 취소되었습니다",
    REJECTED: "가게에서 주문을 받지 못했습니다",
}
"""What users read; other refusals bring their own words."""

T = TypeVar("T")

logger = logging.getLogger("onda.progress")


class OrderWish(msgspec.Struct, frozen=True):
    """What somebody wants, and as which task: the data of a record. `product_name`: the name or the id."""

    user: Id
    task: Id
    store: Id
    product_name: Name
    quantity: Quantity

    def message(self) -> Message:
        """Return what to publish; one task is accepted once, and a user's wishes stay in order."""
        data = msgspec.structs.asdict(self)
        return Message(data, key=self.user, type=REQUESTED, event_id=self.task)


_decode_wish = msgspec.json.Decoder(OrderWish).decode


class Host(Protocol):
    """What carrying out needs of its node."""

    async def ask_inside(
        self, stream: str, command: Command, *, by: str, id: str | None, cause: str | None
    ) -> Answer: ...

    async def examine(self, stream: str, look: Callable[[Any, int], T]) -> T: ...


class _Failed(Exception):
    """A step is not to be done. The text is the reason."""


def wish_of(record: Committed) -> OrderWish | None:
    """Return the wish that a record brings."""
    event = record.event
    if not isinstance(event, Published) or event.type != REQUESTED or not record.stream.startswith(_OURS):
        return None
    try:
        return _decode_wish(event.data)
    except msgspec.DecodeError as error:
        logger.warning("%s %d is no wish: %s", record.stream, record.version, error)
        return None


def begin(wish: OrderWish) -> StartTask:
    """Return the command with which the task of a wish begins; sent again it changes nothing."""
    return StartTask(TOTAL, wish.task, f"{wish.product_name} × {wish.quantity}"[:200])


class Progress:
    """Carries out wishes, and tells users how far they are."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.reaction = Reaction("progress", TYPES, self._handle, _wants, _lane)

    async def _handle(self, record: Committed) -> None:
        wish = wish_of(record)
        if wish is not None:
            await self._carry_out(wish, record)
            return
        event: Any = record.event
        report = _Report(self._host, event.user, event.order, record)
        if await report.reached() is None:
            return
        if isinstance(event, OrderPlaced):
            await report.paid()
        else:
            await report.fail(_REASONS[_ENDS[type(event)]])

    async def _carry_out(self, wish: OrderWish, record: Committed) -> None:
        report = _Report(self._host, wish.user, wish.task, record)
        await report.start(begin(wish))
        reached = await report.reached()
        if reached is None:
            return
        try:
            if reached < CHECKED:
                await self._check(wish)
                await report.advance(CHECKED)
            if reached < RESERVED:
                await self._order(wish, record)
                await report.advance(RESERVED)
            if await self._pay(wish, record):
                await report.paid()
        except _Failed as failure:
            await self._take_back(wish, record)
            await report.fail(str(failure))

    async def _check(self, wish: OrderWish) -> str:
        """Return the product that is wanted; the shop takes orders."""
        try:
            code, found = await self._host.examine(f"store:{wish.store}", lambda store, _: _look(store, wish))
        except Rejected as refusal:  # there is no such shop
            code, found = refusal.code, ""
        if code:
            raise _Failed(
                f"{_REASONS[code]}: {wish.product_name if code == 'unknown_product' else wish.store}"
            )
        return found

    async def _order(self, wish: OrderWish, record: Committed) -> None:
        """Place the order, unless it is there already."""
        stream = f"store:{wish.store}"
        if await self._host.examine(stream, lambda store, _: wish.task in store.orders):
            return
        lines = (Wish(await self._check(wish), wish.quantity),)
        create = CreateOrder(lines, wish.task, user=wish.user)
        try:
            with suppress(IdempotencyMismatch):  # it was placed before, and the menu has changed since
                await self._ask(stream, create, f"user:{wish.user}", record, "order")
        except Rejected as refusal:
            if refusal.code == "order_exists":
                return
            words = _REASONS.get(refusal.code)
            raise _Failed(f"{words}: {wish.product_name}" if words else refusal.detail) from refusal

    async def _pay(self, wish: OrderWish, record: Committed) -> bool:
        """Take the money at the till; where guests pay first, return whether this one has."""
        order = await self._living(wish)
        if order.status in UNPAID:
            return False
        if order.paid < order.total:
            try:
                await self._ask(f"store:{wish.store}", SettleOrder(wish.task, "card"), BY, record, "pay")
            except Rejected as refusal:
                if refusal.code != "nothing_due":
                    raise _Failed(refusal.detail) from refusal
                await self._living(wish)  # nothing is due of one that was cancelled just now, either
        return True

    async def _living(self, wish: OrderWish) -> Order:
        """Return the order, which nobody has ended."""
        stream = f"store:{wish.store}"
        look: Callable[[Store, int], Order | None] = lambda store, _: store.orders.get(wish.task)  # noqa: E731
        order = await self._host.examine(stream, look)
        if order is None or order.status in DEAD:
            raise _Failed(_REASONS[order.status if order is not None else CANCELLED])
        return order

    async def _take_back(self, wish: OrderWish, record: Committed) -> None:
        """Cancel the order if it was made; the shop's word stands if it cannot be."""
        with suppress(Rejected):
            cancel = CancelOrder(wish.task, "진행할 수 없는 주문입니다")
            await self._ask(f"store:{wish.store}", cancel, BY, record, "cancel")

    async def _ask(self, stream: str, command: Command, by: str, record: Committed, what: str) -> None:
        await self._host.ask_inside(stream, command, by=by, id=f"{record.id}.{what}", cause=record.id)


class _Report:
    """One task, told about on behalf of one record. A task that is over or gone is told nothing."""

    def __init__(self, host: Host, user: str, task: str, record: Committed) -> None:
        self._host = host
        self._stream = f"user:{user}"
        self._task = task
        self._record = record

    async def start(self, command: StartTask) -> None:
        await self._tell(command, "start")

    async def reached(self) -> int | None:
        """Return the last step that was done, `None` when there is nothing left to tell."""
        return await self._host.examine(self._stream, self._reached)

    def _reached(self, user: User, _version: int) -> int | None:
        task = user.tasks.get(self._task)
        return None if task is None or task.status in OVER else task.step

    async def advance(self, step: int) -> None:
        await self._tell(AdvanceTask(self._task, step, STEPS[step - 1]), f"step-{step}")

    async def paid(self) -> None:
        await self.advance(PAID)
        await self._tell(CompleteTask(self._task), "done")

    async def fail(self, reason: str) -> None:
        await self._tell(FailTask(self._task, reason[:500]), "failed")

    async def _tell(self, command: Command, what: str) -> None:
        id_ = f"{self._record.id}.{what}"
        try:
            await self._host.ask_inside(self._stream, command, by=BY, id=id_, cause=self._record.id)
        except Rejected as refusal:
            if refusal.code not in ("unknown_task", "task_over", "task_exists"):
                raise


def _look(store: Store, wish: OrderWish) -> tuple[str, str]:
    """Return why the shop does not take the wish, "" if it does, and the product."""
    shop = store.shop[SELF]
    if not shop.open:
        return "store_closed", ""
    if shop.paused:
        return "orders_paused", ""
    for name, product in store.products.items():
        if wish.product_name in (product.name, name):
            return "", name
    return "unknown_product", ""


def _wants(record: Committed) -> bool:
    event: Any = record.event
    if isinstance(event, Published):
        return wish_of(record) is not None
    if isinstance(event, OrderPlaced) and event.at is None:
        return False  # paid afterwards: who made it goes on with it
    return event.user is not None and len(event.order) == _TASK_LENGTH


def _lane(record: Committed) -> str:
    wish = wish_of(record)
    user: str = wish.user if wish is not None else record.event.user  # type: ignore[attr-defined]
    return f"user:{user}"
