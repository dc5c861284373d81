"""Everything that can happen to one order which is being paid, in every order: expiry, approval, each verdict
of the gateway, questions, late answers, cancelling, a rival for the last piece, a restart.

Each step is tried after every other, to the depth below; states that were reached before are not gone on
from. After each step all that holds of stock and money is checked on the records of the whole path.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple

import msgspec

from engine.domain.order import UNPAID
from engine.domain.payment import MANUAL_REVIEW, OPEN, PAID
from engine.domain.reactions import react
from engine.domain.store.cancelling import CancelOrder
from engine.domain.store.gateway import SettleApproval, SettleRefund
from engine.domain.store.menu import PutProduct
from engine.domain.store.orders import CreateOrder, Wish
from engine.domain.store.payments import ApprovePayment, PreparePayment
from engine.domain.store.reconciling import QueryPayment, ResolvePayment
from engine.domain.store.shop import ConfigureStore, OpenStore
from engine.domain.times import to_ms, to_text
from engine.errors import Rejected
from tests.harness_domain import NOW_MS, Stream, plain, through_json
from tests.simulation import money_checks
from tests.simulation.money_checks import Record

DEPTH = int(os.environ.get("DEPTH", "5"))
STORE = "store:s1"
GUEST, OWNER, INSIDE = "user:u1", "owner:kim", STORE
PRICE = 900
LATEST_MS = 14 * 24 * 3_600_000
"""A gateway's answer comes within this time, or never: the shop remembers payments for longer."""
BEYOND_MS = 1
"""After a deadline."""


class Place(NamedTuple):
    """Where a path has come to. `charged` and `given` are the gateway's own books, by attempt."""

    path: tuple[str, ...]
    state: Any
    now_ms: int
    ids: int
    records: tuple[Record, ...]
    to_confirm: tuple[tuple[str, Any], ...]
    attempts: tuple[tuple[str, str], ...]
    payments: tuple[str, ...]
    refunds: tuple[tuple[str, str, str, int], ...]
    charged: dict[str, int]
    given: dict[str, int]

    @property
    def key(self) -> bytes:
        """What decides everything that can follow."""
        rest = (self.now_ms, self.attempts, self.payments, self.refunds, self.charged, self.given)
        return msgspec.json.encode((self.state, rest, len(self.to_confirm)))


class Step(NamedTuple):
    """One thing that may happen: a command, or only time that goes by."""

    name: str
    command: Any = None
    by: str = OWNER
    later_ms: int = 0
    forbidden: bool = False
    charged: tuple[str, int] | None = None
    given: tuple[str, int] | None = None


def test_the_rule_holds_in_every_order_of_events() -> None:
    """The hold, the gateway's answers and the guests race in every way, and no money or piece goes astray."""
    begin = _begin()
    seen = {begin.key: 0}
    waiting = [begin]
    ends: Counter[str] = Counter()
    for depth in range(1, DEPTH + 1):
        reached = []
        for place in waiting:
            for step in _steps(place):
                after = _take(place, step)
                if after.key not in seen:
                    seen[after.key] = depth
                    _check(after)
                    reached.append(after)
                    ends[_end(after)] += 1
        waiting = reached
    print(f"{len(seen)} states in {DEPTH} steps: {dict(ends)}")
    assert {"PAID", "EXPIRED", "CANCELLED", "PENDING_PAYMENT"} <= set(ends)


def _begin() -> Place:
    place = Place((), Stream(STORE).state, NOW_MS, 0, (), (), (), (), (), {}, {})
    wish = (Wish(product="cake", quantity=1),)
    for step in (
        Step("configure", ConfigureStore(name="Corner", payment_mode="prepay", hold_seconds=600)),
        Step("put", PutProduct(product="cake", name="떡", price=PRICE, stock=1)),
        Step("open", OpenStore()),
        Step("order", CreateOrder(lines=wish, order="o1"), GUEST),
        Step("prepare", PreparePayment("o1", PRICE, "u1", "sandbox"), GUEST),
    ):
        place = _take(place, step)
    return place._replace(path=())


def _steps(place: Place) -> Iterator[Step]:
    """Yield what may happen now; what certainly changes nothing is left out."""
    yield from _guests(place)
    yield from _clock(place)
    for number, (payment, attempt) in enumerate(place.attempts):
        if place.now_ms > NOW_MS + LATEST_MS:
            break
        yield from _verdicts(place, payment, attempt, number)
    for refund, payment, attempt, amount in place.refunds:
        if not place.given.get(refund):
            given = (refund, amount)
            answer = SettleRefund(payment, refund, "APPROVED")
            yield Step(f"given back {attempt}", answer, INSIDE, given=given)
            yield Step("refund unknown", SettleRefund(payment, refund, "UNKNOWN"), INSIDE)
    for stream, event in place.to_confirm[:1]:
        for send in react(stream, event, "r1"):
            if send.stream == STORE:
                yield Step("confirm", send.command, INSIDE)


def _guests(place: Place) -> Iterator[Step]:
    yield Step("prepare", PreparePayment("o1", PRICE, "u1", "sandbox"), GUEST)
    yield Step("prepare otherwise", PreparePayment("o1", PRICE, "u1", "toss"), GUEST)
    for amount, payer in ((PRICE - 1, "u1"), (PRICE, "u2")):
        wrong = PreparePayment("o1", amount, payer, "sandbox")
        yield Step("prepare wrongly", wrong, GUEST, forbidden=True)
    for number, payment in enumerate(place.payments[:2]):
        yield Step(f"approve {number}", ApprovePayment("o1", payment, f"ref-{number}"), GUEST)
        yield Step(f"query {number}", QueryPayment(payment))
    yield Step("cancel", CancelOrder(order="o1", reason="late"), GUEST)
    yield Step("cancel by the shop", CancelOrder(order="o1", reason="late"))
    wish = (Wish(product="cake", quantity=1),)
    yield Step("rival", CreateOrder(lines=wish), "user:u2")


def _clock(place: Place) -> Iterator[Step]:
    stream = _stream(place)
    due = stream.domain.deadline(stream.state)
    if due is not None:
        yield Step("due", due[1], INSIDE, later_ms=max(0, due[0] - place.now_ms))
        if due[0] > place.now_ms:
            yield Step("too early", due[1], INSIDE, later_ms=max(0, due[0] - place.now_ms - 1))
    order = place.state.orders.get("o1")
    if order is not None and order.hold_expires_at is not None:
        left_ms = to_ms(order.hold_expires_at) - place.now_ms
        if left_ms > 0:
            yield Step("time passes", later_ms=left_ms + BEYOND_MS)


def _verdicts(place: Place, payment: str, attempt: str, number: int) -> Iterator[Step]:
    """The gateway charges an attempt once; what it declined it may still turn out to have charged."""
    charged = place.charged.get(attempt, 0)
    for amount, name in ((PRICE, "approved"), (PRICE - 1, "wrong amount")):
        if charged in (0, amount):
            answer = SettleApproval(payment, attempt, "APPROVED", amount, f"c-{attempt}")
            yield Step(f"{name} {number}", answer, INSIDE, charged=(attempt, amount))
    if not charged:
        declined = SettleApproval(payment, attempt, "DECLINED", code="no_funds")
        yield Step(f"declined {number}", declined, INSIDE)
    yield Step(f"unknown {number}", SettleApproval(payment, attempt, "UNKNOWN", code="timeout"), INSIDE)
    known = place.state.payments.get(payment)
    if known is not None and known.status in OPEN:
        yield Step(f"resolve {number}", ResolvePayment(payment, bool(charged), "seen at the gateway"))


def _stream(place: Place) -> Stream:
    """Return a stream that stands there; its state came back from a checkpoint."""
    stream = Stream(STORE)
    stream.state = through_json(place.state)
    stream.view = stream.visible()
    stream._ids = count(place.ids + 1)
    return stream


def _take(place: Place, step: Step) -> Place:
    """Return the place after a step; a refusal leaves everything as it is, but time."""
    stream = _stream(place)
    now_ms = place.now_ms + step.later_ms
    place = place._replace(path=(*place.path, step.name), now_ms=now_ms)
    if step.command is None:
        return place
    try:
        events = stream.decide(step.command, step.by, now_ms)
    except Rejected:
        assert step.by != INSIDE, f"{place.path}: what the engine sends to itself is never refused"
        return place
    assert not step.forbidden, f"{place.path}: this was not refused"
    ids = next(stream._ids) - 1
    records, confirm = list(place.records), list(place.to_confirm)
    payments, attempts, refunds = list(place.payments), list(place.attempts), list(place.refunds)
    for event in events:
        stream.evolve(event)
        data, kind = plain(event), type(event).__name__
        patch: dict[str, Any] = {}
        for collection, entity in stream.domain.touched(event):
            value = getattr(stream.state, collection).get(entity)
            patch.setdefault(collection, {})[entity] = plain(value)
        version = len(records) + 1
        cause = f"step-{len(place.path)}"
        time = to_text(now_ms)
        records.append(Record(version, len(place.path), STORE, version, kind, time, cause, data, patch))
        if kind == "OrderPlaced":
            confirm.append((STORE, event))
        elif kind == "PaymentPrepared" and data["order"] == "o1":
            payments.append(event.payment)
        elif kind == "ApprovalRequested":
            attempts.append((event.payment, event.attempt))
        elif kind == "RefundSent" and all(refund[0] != event.refund for refund in refunds):
            refunds.append((event.refund, event.payment, event.attempt, event.amount))
    stream.check()
    again = Stream(STORE)
    again.state = through_json(place.state)
    for event in events:
        again.domain.evolve(again.state, through_json(event))
    assert again.state == stream.state, f"{place.path}: a replay comes to another state"
    books = {"charged": place.charged, "given": place.given}
    if step.charged is not None:
        books["charged"] = place.charged | dict([step.charged])
    if step.given is not None:
        books["given"] = place.given | dict([step.given])
    if step.name == "confirm":
        del confirm[0]
    return place._replace(
        state=stream.state,
        ids=ids,
        records=tuple(records),
        to_confirm=tuple(confirm),
        attempts=tuple(attempts),
        payments=tuple(payments),
        refunds=tuple(refunds),
        **books,
    )


def _check(place: Place) -> None:
    try:
        money_checks.stock_adds_up(place.records)
        money_checks.holds_end_once(place.records)
        money_checks.paid_in_one_commit(place.records, {STORE})
        payments = money_checks.payments_move_forward(place.records)
        money_checks.refunds_split_up(payments)
        _no_charge_astray(place)
        _no_piece_astray(place)
    except AssertionError as error:
        error.add_note(f"path: {', '.join(place.path)}")
        raise


def _no_charge_astray(place: Place) -> None:
    """Each charge that the shop was told of stands behind a paid order, goes back, or is looked into."""
    state = place.state
    given = Counter[str]()
    for refund, _, attempt, amount in place.refunds:
        given[attempt] += amount if place.given.get(refund) else 0
    kept = 0
    for payment, attempt in place.attempts:
        left = place.charged.get(attempt, 0) - given[attempt]
        if not left:
            continue
        known = state.payments.get(payment) or state.kept[payment]
        back = sum(refund.amount for refund in known.refunds if refund.status != "DONE")
        if known.status == PAID:
            kept += left - back
            assert left - back == PRICE - known.refunded, "paid, and the gateway has another amount"
            order = state.orders["o1"]
            assert order.paid == PRICE
            assert order.status not in UNPAID
        elif known.status != MANUAL_REVIEW:
            assert back == left, f"charged {left}, and {back} goes back: {known}"
    assert kept <= PRICE


def _no_piece_astray(place: Place) -> None:
    """What is being paid is pinned; unpaid orders have a hold under their first deadline, others none."""
    state = place.state
    product = state.products["cake"]
    held = sum(hold.pieces.get("cake", 0) for hold in state.holds.values() if hold.attempt is None)
    pinned = sum(hold.pieces.get("cake", 0) for hold in state.holds.values() if hold.attempt is not None)
    assert (product.held, product.pinned) == (held, pinned)
    assert product.stock + held + pinned <= 1
    for name, order in state.orders.items():
        hold = state.holds.get(name)
        if order.status in UNPAID:
            assert hold is not None, f"{name} is unpaid and has no hold"
            newest = state.payments.get(order.payment.payment) if order.payment is not None else None
            paying = newest is not None and newest.status in OPEN
            assert (hold.attempt is not None) == paying, f"{name}: pinned {hold.attempt}, {newest}"
            if name == "o1":
                assert hold.deadline_ms == NOW_MS + 600_000
            if place.records[-1].type == "PaymentDeclined" and place.records[-1].time == to_text(
                place.now_ms
            ):
                assert hold.deadline_ms > place.now_ms, f"{name} was declined too late and lives on"
        else:
            pending = [pay.payment for pay in state.payments.values() if pay.order == name]
            assert all(state.payments[pay].status != "PENDING" for pay in pending), f"{name} can be paid"
            unconfirmed = any(event.order == name for _, event in place.to_confirm)
            assert hold is None or unconfirmed, f"{name} is {order.status} and still has a hold"


def _end(place: Place) -> str:
    order = place.state.orders.get("o1")
    if order is None:
        return "ARCHIVED"
    return "PAID" if order.paid and order.status == "PLACED" else str(order.status)
