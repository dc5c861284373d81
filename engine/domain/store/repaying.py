"""What becomes of money on its way back: the gateway's answers, another try where there is none, a person.

A refund whose outcome is unknown is sent again with the same key, later and later; in the end a person
decides. Everything may come twice and late.
"""

from __future__ import annotations

from typing import Any, ClassVar, assert_never

from engine.domain import contract
from engine.domain.contract import Context
from engine.domain.fields import Reason, Ref
from engine.domain.payment import (
    DONE,
    FAILED,
    MANUAL_REVIEW,
    OPEN,
    QUEUED,
    REQUESTED,
    UNKNOWN,
    Payment,
    Refund,
)
from engine.domain.store.gateway import SettleRefund
from engine.domain.store.payments import find
from engine.domain.store.refunds import change, completed, find_refund, following, known, sent, shown
from engine.domain.store.state import State
from engine.domain.times import to_ms, to_text
from engine.errors import Rejected

RETRY_MS = 60_000
"""An unknown outcome is asked for again after this, then after twice the time, up to the longest."""
RETRY_LONGEST_MS = 30 * 60_000
TRIES_MAX = 10
"""After so many calls without an answer a person has to look."""
AT_ONCE = 50


class ResolveRefund(contract.Command, frozen=True):
    """Decide on a `refund` of a `payment` that nobody else can tell about: whether it is `done`, and the
    `reason`. One that failed is done once it was given back by hand.
    """

    allowed: ClassVar = frozenset({"owner"})
    payment: Ref
    refund: Ref
    done: bool
    reason: Reason


class RetryRefunds(contract.Command, frozen=True):
    """Send refunds again whose answer is overdue, and hand those over to a person that stay unknown."""


class RefundFailed(contract.Event, frozen=True, kw_only=True):
    """The money certainly did not go back: the gateway said so, or a person (`by`, with a `reason`)."""

    payment: str
    refund: str
    at: str
    amount: int
    order: str | None = None
    code: str = ""
    message: str = ""
    by: str | None = None
    reason: str | None = None


class RefundUnknown(contract.Event, frozen=True, kw_only=True):
    """Nobody knows whether the money went back. The gateway is asked for it again at `next_try_at`."""

    payment: str
    refund: str
    at: str
    next_try_at: str
    code: str = ""
    message: str = ""


class RefundSentToReview(contract.Event, frozen=True, kw_only=True):
    """The gateway was asked often enough, or does not cancel what has to go back: a person has to look."""

    payment: str
    refund: str
    at: str
    amount: int
    order: str | None = None
    code: str = ""
    message: str = ""


Command = ResolveRefund | RetryRefunds | SettleRefund
Event = RefundFailed | RefundUnknown | RefundSentToReview

_RETRY = RetryRefunds()


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Return what became of a refund; `[]` for what is known.

    Raises:
        Rejected: `unknown_payment`, `unknown_refund`, `refund_in_progress`, `wrong_status`.
    """
    match command:
        case ResolveRefund():
            return _resolved(state, command, context)
        case RetryRefunds():
            return _retried(state, context)
        case SettleRefund():
            return _answered(state, command, context)
        case _:
            assert_never(command)


def evolve(state: State, event: Event) -> None:
    """Change the refund, and note when it is tried again."""
    said = {"code": event.code, "message": event.message}
    name, refund, at = event.payment, event.refund, event.at
    match event:
        case RefundUnknown(next_try_at=next_try_at):
            if change(state, name, refund, at, UNKNOWN, next_try_at=next_try_at, **said):
                state.retries.set(name, to_ms(next_try_at))
        case RefundFailed():
            change(state, name, refund, at, FAILED, settled_at=at, next_try_at=None, **said)
        case RefundSentToReview():
            change(state, name, refund, at, MANUAL_REVIEW, next_try_at=None, **said)
        case _:
            assert_never(event)


def touched(event: Event) -> list[tuple[str, str]]:
    """The payment."""
    return [("payments", event.payment)]


def answer(state: State, command: Command) -> dict[str, Any]:
    """Return how the refund stands; nothing for the engine's own commands."""
    return shown(state, command.payment, command.refund) if isinstance(command, ResolveRefund) else {}


def deadline(state: State) -> tuple[int, Command] | None:
    """Return when the next refund is tried again."""
    due_ms = state.retries.first()
    return None if due_ms is None else (due_ms, _RETRY)


def _answered(state: State, command: SettleRefund, context: Context) -> list[contract.Event]:
    payment = find(state, command.payment)
    refund = find_refund(payment, command.refund) if payment is not None else None
    if payment is None or refund is None:
        return []
    said = {"code": command.code, "message": command.message}
    match command.verdict:
        case "APPROVED":
            if refund.status in OPEN or (refund.status == FAILED and _fits(payment, refund)):
                return completed(state, payment, refund, context, **said)
            return []
        case "DECLINED":
            if refund.status not in OPEN:
                return []
            if not refund.void:
                return _failed(payment, refund, context, **said)
            return [] if refund.status == MANUAL_REVIEW else [_review(payment, refund, context, **said)]
        case "UNKNOWN":
            if refund.status != REQUESTED:
                return []
            if refund.tries >= TRIES_MAX:
                return [_review(payment, refund, context, **said)]
            wait_ms = min(RETRY_MS << min(refund.tries - 1, 10), RETRY_LONGEST_MS)
            facts = {"payment": payment.payment, "refund": refund.refund, "at": context.now}
            return [RefundUnknown(**facts, next_try_at=to_text(context.now_ms + wait_ms), **said)]
        case _:
            assert_never(command.verdict)


def _fits(payment: Payment, refund: Refund) -> bool:
    """Whether a refund that was given up can have been done after all."""
    return refund.void or payment.refunded + refund.amount <= payment.amount


def _resolved(state: State, command: ResolveRefund, context: Context) -> list[contract.Event]:
    payment = known(state, command.payment)
    refund = find_refund(payment, command.refund)
    if refund is None:
        raise Rejected("unknown_refund", f"Payment {payment.payment} has no refund {command.refund}")
    if refund.status == (DONE if command.done else FAILED):
        return []
    if refund.status in (QUEUED, REQUESTED, UNKNOWN):
        raise Rejected("refund_in_progress", "The gateway is still being asked: wait for its answer")
    by_hand = refund.status == FAILED and _fits(payment, refund)
    if refund.status != MANUAL_REVIEW and not by_hand:
        raise Rejected("wrong_status", f"Refund {refund.refund} is {refund.status}: that is final")
    said = {"by": context.by, "reason": command.reason}
    if command.done:
        return completed(state, payment, refund, context, **said)
    return _failed(payment, refund, context, **said)


def _retried(state: State, context: Context) -> list[contract.Event]:
    events: list[contract.Event] = []
    for name in state.retries.over(context.now_ms, AT_ONCE):
        payment = find(state, name)
        for refund in payment.refunds if payment is not None else ():
            if payment is None or refund.status not in (REQUESTED, UNKNOWN):
                continue
            if refund.tries < TRIES_MAX:
                events.append(sent(payment, refund, refund.tries + 1, context))
            else:
                events.append(_review(payment, refund, context, code=refund.code, message=refund.message))
    return events


def _failed(payment: Payment, refund: Refund, context: Context, **said: Any) -> list[contract.Event]:
    facts = {"payment": payment.payment, "refund": refund.refund, "at": context.now}
    ended = RefundFailed(**facts, amount=refund.amount, order=payment.order, **said)
    return [ended, *following(payment, refund, context)]


def _review(payment: Payment, refund: Refund, context: Context, **said: Any) -> RefundSentToReview:
    facts = {"payment": payment.payment, "refund": refund.refund, "at": context.now}
    return RefundSentToReview(**facts, amount=refund.amount, order=payment.order, **said)
