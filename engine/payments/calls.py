"""The reaction that calls gateways: a durable attempt goes out, and what the gateway says comes back in.

    PaymentPrepared    -> open    -> NoteCheckout
    ApprovalRequested  -> approve -> SettleApproval
    QueryRequested     -> query   -> SettleApproval
    RefundSent         -> cancel  -> SettleRefund

Calls of one payment go one after the other, those of different payments side by side, so many per gateway at
once; a gateway that is slow holds up nobody but itself.

After a crash a record may come again, and nobody knows whether its call went out. What the shop knows the
end of by now is left alone: a refusal that is durable must not become a charge. For the rest the gateway is
asked first what it knows; only if it knows of no charge the approval is sent, under the same idempotency
key. A call that fails is never an error of the reaction: it is an `UNKNOWN`, which the shop asks about later.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import trio

from engine.answers import Answer
from engine.config import Config
from engine.domain.contract import Command
from engine.domain.payment import REQUESTED, Checkout
from engine.domain.store.gateway import (
    ApprovalRequested,
    NoteCheckout,
    PaymentPrepared,
    QueryRequested,
    RefundSent,
    SettleApproval,
    SettleRefund,
)
from engine.errors import IdempotencyMismatch
from engine.mailbox import Committed
from engine.metrics import Metrics
from engine.payments.contract import Approved, Declined, Gateway, Result, Unknown, as_query
from engine.payments.gateways import Gateways
from engine.payments.http import Lost, NotSent
from engine.reactions import Reaction

CALLS_MAX = 256
"""Calls to one gateway at the same time; who has to wait longer than a call may take is not sent at all."""

OPEN_TRIES = 3
"""How often the guest's page is asked for; without one the guest has to choose another method."""

OPEN_PAUSE_S = 1.0

TYPES = frozenset({"PaymentPrepared", "ApprovalRequested", "QueryRequested", "RefundSent"})

_UNAVAILABLE = ("method_unavailable", "this payment method is not configured")

logger = logging.getLogger("onda.gateway")


class Host(Protocol):
    """What the calls need of their node."""

    config: Config
    metrics: Metrics

    async def ask_inside(
        self, stream: str, command: Command, *, by: str, id: str | None, cause: str | None
    ) -> Answer: ...

    async def examine(self, stream: str, look: Callable[[Any, int], bool]) -> bool: ...


class Calls:
    """Calls gateways for the records of a node.

    Args:
        head: position of the log's last record at the start; calls of records up to there may be repeats.
    """

    def __init__(self, host: Host, gateways: Gateways, head: int) -> None:
        self.reaction = Reaction("gateway", TYPES, self._handle, lane=_payment)
        self._host = host
        self._gateways = gateways
        self._head = head
        self._tried: dict[int, Command | None] = {}
        self._slots: dict[str, trio.CapacityLimiter] = {}

    async def _handle(self, record: Committed) -> None:
        command = self._tried.get(record.position)  # found out before, but the shop could not take it
        if command is None:
            again = record.position <= self._head or record.position in self._tried
            self._tried[record.position] = None
            if not again or await self._host.examine(record.stream, lambda state, _: _waits(state, record)):
                command = await self._call(record, again)
                self._tried[record.position] = command
        if command is not None:
            await self._tell(record, command)
        del self._tried[record.position]

    async def _tell(self, record: Committed, command: Command) -> None:
        try:
            await self._host.ask_inside(
                record.stream, command, by=record.stream, id=f"{record.id}.0", cause=record.id
            )
        except IdempotencyMismatch:
            # Told before the process ended. If that was UNKNOWN, the next query brings what we know now.
            logger.info("%s was settled before", _payment(record))

    async def _call(self, record: Committed, again: bool) -> Command | None:
        event: Any = record.event
        store = record.stream.partition(":")[2]
        gateway = self._gateways.find(event.method)
        match event:
            case PaymentPrepared():
                return await self._open(gateway, event, store) if gateway is not None else None
            case ApprovalRequested():
                return _settled(event, await self._approve(gateway, event, store, again))
            case QueryRequested():
                return _settled(event, await self._query(gateway, event, store))
            case RefundSent():
                result = await self._cancel(gateway, event, store, again)
                code, message = _words(result)
                return SettleRefund(event.payment, event.refund, _verdict(result), code, message)
            case _:
                raise TypeError(f"{type(event).__name__} is no business of gateways")

    async def _open(self, gateway: Gateway, event: PaymentPrepared, store: str) -> NoteCheckout | None:
        for number in range(OPEN_TRIES):
            found: list[Checkout | None] = []

            async def work(found: list[Checkout | None] = found) -> Result:
                found.append(await gateway.open(event, store))
                return Approved(0, "") if found[0] is not None else Unknown("no_page")

            await self._time(gateway, "open", event.payment, work)
            if found and found[0] is not None:
                return NoteCheckout(event.payment, found[0].url, found[0].ref)
            if number + 1 < OPEN_TRIES:
                await trio.sleep(OPEN_PAUSE_S)
        return None

    async def _approve(
        self, gateway: Gateway | None, event: ApprovalRequested, store: str, again: bool
    ) -> Result:
        if gateway is None:
            return Unknown(*_UNAVAILABLE) if again else Declined(*_UNAVAILABLE)
        if again:
            known = await self._query(gateway, as_query(event), store)
            if not isinstance(known, Unknown):
                return known
        result = await self._time(gateway, "approve", event.payment, lambda: gateway.approve(event, store))
        if isinstance(result, Unknown) and result.code == "not_sent" and not again:
            return Declined(result.code, result.message)
        return _check_tax(event, result)

    async def _query(self, gateway: Gateway | None, event: QueryRequested, store: str) -> Result:
        if gateway is None:
            return Unknown(*_UNAVAILABLE)
        result = await self._time(gateway, "query", event.payment, lambda: gateway.query(event, store))
        return _check_tax(event, result)

    async def _cancel(self, gateway: Gateway | None, event: RefundSent, store: str, again: bool) -> Result:
        if gateway is None:
            return Unknown(*_UNAVAILABLE)
        again = again or event.number > 1
        return await self._time(
            gateway, "cancel", event.payment, lambda: gateway.cancel(event, store, again=again)
        )

    async def _time(
        self, gateway: Gateway, verb: str, payment: str, work: Callable[[], Awaitable[Result]]
    ) -> Result:
        """Make one call within its time and among the gateway's slots; whatever happens is a result."""
        slots = self._slots.setdefault(gateway.name, trio.CapacityLimiter(CALLS_MAX))
        began, within_s = trio.current_time(), self._host.config.gateway_timeout_s
        result: Result = Unknown("not_sent", "too many calls wait for the gateway")
        with trio.move_on_after(within_s) as waiting:
            await slots.acquire()
        if not waiting.cancelled_caught:
            result = Unknown("timeout", "the gateway did not answer in time")
            try:
                with trio.move_on_after(within_s):
                    result = await _result(gateway.name, verb, work)
            finally:
                slots.release()
        took_s = trio.current_time() - began
        verdict = _verdict(result)
        self._host.metrics.gateway_calls.labels(gateway.name, verb, verdict).inc()
        self._host.metrics.gateway_call_s.labels(gateway.name, verb).observe(took_s)
        code = _words(result)[0]
        odd = isinstance(result, Unknown) or (isinstance(result, Approved) and bool(code))
        level = logging.WARNING if odd else logging.INFO
        logger.log(level, "%s %s %s: %s %s", gateway.name, verb, payment, verdict, code)
        return result


async def _result(name: str, verb: str, work: Callable[[], Awaitable[Result]]) -> Result:
    try:
        return await work()
    except NotSent:
        return Unknown("not_sent", "the gateway could not be reached")
    except Lost as error:
        return Unknown(error.code, "the gateway gave no usable answer")
    except Exception as error:  # noqa: BLE001 - a fault of ours after the call must not lose what it may have done
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        line = where.tb_lineno if where is not None else 0
        # Only its type and place: the text of an error may hold what the gateway said.
        logger.error("%s %s: a fault of ours, %s at line %d", name, verb, type(error).__name__, line)
        return Unknown("fault", "the answer could not be read")


def _check_tax(event: ApprovalRequested | QueryRequested, result: Result) -> Result:
    """Doubt a charge of the right amount whose tax split is not ours: a person has to look."""
    if (
        isinstance(result, Approved)
        and result.amount == event.amount
        and None not in (result.tax_free, event.tax_free)
        and result.tax_free != event.tax_free
    ):
        return Unknown("tax_mismatch", f"{result.tax_free} won free of tax, {event.tax_free} were asked")
    return result


def _settled(event: ApprovalRequested | QueryRequested, result: Result) -> SettleApproval:
    code, message = _words(result)
    amount, charge = (result.amount, result.charge) if isinstance(result, Approved) else (0, "")
    return SettleApproval(event.payment, event.attempt, _verdict(result), amount, charge, code, message)


def _verdict(result: Result) -> Any:
    match result:
        case Approved():
            return "APPROVED"
        case Declined():
            return "DECLINED"
        case Unknown():
            return "UNKNOWN"


def _words(result: Result) -> tuple[str, str]:
    return (result.note, "") if isinstance(result, Approved) else (result.code, result.message)


def _waits(state: Any, record: Committed) -> bool:
    """Return whether the shop still waits for what comes of this record."""
    event: Any = record.event
    payment = state.payments.get(event.payment) or state.kept.get(event.payment)
    if payment is None:
        return False
    match event:
        case ApprovalRequested(attempt=attempt):
            return bool(payment.status == REQUESTED and payment.attempt.attempt == attempt)
        case RefundSent(refund=name, number=number):
            refund = next((refund for refund in payment.refunds if refund.refund == name), None)
            return refund is not None and (refund.status, refund.tries) == (REQUESTED, number)
        case _:
            return True


def _payment(record: Committed) -> str:
    event: Any = record.event
    payment: str = event.payment
    return payment
