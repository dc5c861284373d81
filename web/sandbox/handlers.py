"""The sandbox's API: from a request to its answer, with faults that can be switched on. Knows no server.

    POST   /v1/checkouts  {order, amount, tax_free?, name, return, webhook?}   -> {checkout, url}
    POST   /v1/charges    {ref, order, amount, tax_free?, webhook?}            -> {charge, status, …}
    GET    /v1/charges?attempt=&ref=                                          -> {status, …}
    POST   /v1/cancels    {charge, amount, reason?, expected_rest?}            -> {charge, cancelled, rest}
    GET    /v1/ledger     PUT /v1/faults {fault, ref?, verb?}     DELETE /v1/faults
    GET    /pay/{checkout}, POST choice=pay|decline|cancel: the guest's page

All of `/v1` wants the key as a bearer token, and POSTs an `Idempotency-Key`. A fault is chosen for one ref,
by the beginning of a ref's name (`decline-1`), or for everything. A request that was answered for good is
answered the same way again, without any fault.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from hashlib import sha256
from hmac import compare_digest
from typing import Any, NamedTuple

import msgspec
import trio

from web.messages import Headers, Problem, Request
from web.sandbox import pages
from web.sandbox.ledger import AUTHORISED, CHARGED, Authorisation, Charge, Ledger

FAULTS = (
    "decline",
    "slow",
    "drop_after_charging",
    "error_5xx",
    "wrong_amount",
    "duplicate",
    "late_webhook",
    "duplicate_webhook",
    "flaky",
)
"""Charges: refused; after `slow_s`; made, then the connection is cut; answered 500 and not made; of 100 won
more; answered as if somebody else had made them; their hint comes late, or twice; each call another fault or
none.
"""

WRONG_BY = 100
_SOME = ("", "", "slow", "drop_after_charging", "error_5xx", "duplicate")
_SOME_OTHERS = ("", "", "slow", "drop_after_charging", "error_5xx")


class Reply(NamedTuple):
    """An answer; with `cut` the connection ends instead."""

    status: int
    headers: Headers
    body: bytes
    cut: bool = False


class Hook(NamedTuple):
    """A hint to the shop: POST `body` to `url` after so long."""

    url: str
    body: bytes
    delay_s: float = 0.0


class _Checkout(msgspec.Struct):
    order: str
    amount: int
    name: str
    back: str = msgspec.field(name="return")
    tax_free: int = 0
    webhook: str = ""


class _Charge(msgspec.Struct):
    ref: str
    order: str
    amount: int
    tax_free: int = 0
    webhook: str = ""


class _Cancel(msgspec.Struct):
    charge: str
    amount: int
    reason: str = ""
    expected_rest: int | None = None


class _Fault(msgspec.Struct):
    fault: str
    ref: str = ""
    verb: str = "charge"


class Sandbox:
    """The gateway.

    Args:
        key: what the shop has to prove that it knows.
        fault: for everything, from the start; "" for none.
        url: where guests find it; the server says so once it listens.
        shop: origin to which guests may be sent back; "": any.
        notify: sends hints; the server's, or a test's.
        dice: chooses the faults of `flaky`.
    """

    def __init__(
        self,
        ledger: Ledger,
        key: str,
        *,
        fault: str = "",
        url: str = "",
        shop: str = "",
        notify: Callable[[Hook], None] = lambda _: None,
        dice: random.Random | None = None,
        slow_s: float = 3.0,
        late_s: float = 5.0,
    ) -> None:
        self.ledger = ledger
        self.url = url
        self.shop = shop
        self.notify = notify
        self.slow_s = slow_s
        self.late_s = late_s
        self._key = key
        self._fault = fault
        self._faults: dict[tuple[str, str], str] = {}
        self._dice = dice or random.Random()
        self._busy: set[str] = set()

    async def respond(self, request: Request) -> Reply:
        """Answer a request; it is carried out also if nobody waits for the answer any more."""
        try:
            return await self._route(request)
        except msgspec.ValidationError as error:
            return _no(400, "malformed", str(error))
        except (msgspec.DecodeError, Problem):
            return _no(400, "malformed", "this is not what was expected")

    async def _route(self, request: Request) -> Reply:
        match request.method, request.segments():
            case "GET", ["healthz"]:
                return _yes({"status": "alive"})
            case "GET", ["style.css"]:
                return Reply(200, [("content-type", "text/css")], pages.STYLE)
            case "GET" | "HEAD" | "POST" as method, ["pay", checkout]:
                return Reply(*pages.respond(self.ledger, method, checkout, request.body))
            case _, ["v1", *_] if not self._may(request):
                return _no(401, "invalid_key", "send the key as a bearer token")
            case "POST", ["v1", "checkouts"]:
                return self._open(request)
            case "POST", ["v1", "charges"]:
                return await self._once(request, "charge", self._charge)
            case "GET", ["v1", "charges"]:
                return await self._find(request)
            case "POST", ["v1", "cancels"]:
                return await self._once(request, "cancel", self._cancel)
            case "GET", ["v1", "ledger"]:
                return self._books()
            case "PUT" | "DELETE" as method, ["v1", "faults"]:
                return self._switch(method, request)
            case _:
                return _no(404, "not_found", "there is nothing at this path")

    def _may(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and compare_digest(given.encode(), self._key.encode())

    def _open(self, request: Request) -> Reply:
        wish = msgspec.json.decode(request.body, type=_Checkout)
        if wish.amount <= 0 or not 0 <= wish.tax_free <= wish.amount:
            return _no(400, "malformed", "the amounts make no sense")
        for url in (wish.back, wish.webhook):
            if url and not self._is_shop(url):
                return _no(422, "foreign_url", "guests and hints go back to the shop only")
        page = self.ledger.open_checkout(
            request.headers.get("idempotency-key", ""),
            wish.order,
            wish.amount,
            wish.tax_free,
            name=wish.name,
            back=wish.back,
            webhook=wish.webhook,
        )
        return _yes({"checkout": page.checkout, "url": f"{self.url}/pay/{page.checkout}"})

    def _is_shop(self, url: str) -> bool:
        return pages.origin(url) != "" and self.shop in ("", pages.origin(url))

    async def _once(self, request: Request, verb: str, work: Callable[[str, str, bytes], Reply]) -> Reply:
        """Carry out what an idempotency key stands for, once, with the fault that is due."""
        key = request.headers.get("idempotency-key", "")
        if not key:
            return _no(400, "no_idempotency_key", "send an Idempotency-Key")
        digest = sha256(request.body).hexdigest()
        if kept := self.ledger.kept(verb, key):
            if kept.digest != digest:
                return _no(422, "idempotency_mismatch", "the key was used with another body")
            return Reply(kept.status, _JSON, kept.body)
        if key in self._busy:
            return _no(409, "in_progress", "the same request is being carried out")
        fault = self._due(verb, request.body)
        self._busy.add(key)
        try:
            if fault == "slow":
                await trio.sleep(self.slow_s)
            else:
                await trio.lowlevel.checkpoint()
            if fault == "error_5xx":
                return _no(500, "internal", "a fault of the sandbox's own")
            reply = work(fault, key, request.body)
        finally:
            self._busy.discard(key)
        if reply.status != 200:
            return reply
        if fault == "drop_after_charging":
            return reply._replace(cut=True)
        if fault == "duplicate" and verb == "charge":
            return _no(409, "already_processed", "this was charged before")
        return reply

    def _due(self, verb: str, body: bytes) -> str:
        fields = msgspec.json.decode(body, type=dict[str, Any])
        ref = str(fields.get("ref", fields.get("charge", "")))
        fault = self._faults.get((verb, ref)) or self._faults.get((verb, ""), "")
        if not fault and verb == "charge":
            named = [name for name in FAULTS if ref.startswith(name)]
            fault = max(named, key=len, default=self._fault)
        elif not fault and self._fault == "flaky":
            fault = "flaky"
        if fault == "flaky":
            return self._dice.choice(_SOME if verb == "charge" else _SOME_OTHERS)
        return fault

    def _charge(self, fault: str, attempt: str, body: bytes) -> Reply:
        wish = msgspec.json.decode(body, type=_Charge)
        if wish.amount <= 0 or not 0 <= wish.tax_free <= wish.amount or not wish.ref:
            return _no(400, "malformed", "the amounts make no sense")
        known = self.ledger.authorisation(wish.ref)
        if refusal := _refusal(known, wish):
            return refusal
        digest = sha256(body).hexdigest()
        if fault == "decline":
            reply = _no(402, "declined", "the card company says no")
            self.ledger.decline(wish.ref, attempt, digest, (reply.status, reply.body))
            return reply
        amount = wish.amount + WRONG_BY if fault == "wrong_amount" else wish.amount
        charge = self.ledger.new_charge(attempt, wish.ref, wish.order, amount, wish.tax_free)
        reply = _yes(_describe(charge, charge.amount))
        self.ledger.charge(charge, digest, (reply.status, reply.body))
        self._hint(fault, wish.webhook, charge, CHARGED)
        return reply

    def _hint(self, fault: str, url: str, charge: Charge, status: str) -> None:
        if not url or not self._is_shop(url):
            return
        body = {"order": charge.order_id, "ref": charge.ref, "charge": charge.charge, "status": status}
        hook = Hook(url, msgspec.json.encode(body), self.late_s if fault == "late_webhook" else 0.0)
        for _ in range(2 if fault == "duplicate_webhook" else 1):
            self.notify(hook)

    async def _find(self, request: Request) -> Reply:
        attempt, ref = request.field("attempt") or "", request.field("ref") or ""
        fault = self._faults.get(("query", ref)) or self._faults.get(("query", ""), "")
        if fault == "flaky" or (not fault and self._fault == "flaky"):
            fault = self._dice.choice(("", "", "error_5xx"))
        await trio.sleep(self.slow_s if fault == "slow" else 0)
        if fault == "error_5xx":
            return _no(500, "internal", "a fault of the sandbox's own")
        charge = self.ledger.find_charge("attempt", attempt) or self.ledger.find_charge("ref", ref)
        if charge is not None:
            return _yes(_describe(charge, self.ledger.rest(charge)))
        if not ref:
            return _no(404, "unknown_charge", "there is no such charge")
        known = self.ledger.authorisation(ref)
        return _yes({"status": known.state, "order": known.order_id, "amount": known.amount})

    def _cancel(self, fault: str, refund: str, body: bytes) -> Reply:
        wish = msgspec.json.decode(body, type=_Cancel)
        charge = self.ledger.find_charge("charge", wish.charge)
        if charge is None:
            return _no(404, "unknown_charge", "there is no such charge")
        rest = self.ledger.rest(charge)
        if rest == 0:
            return _no(409, "already_cancelled", "all of it was given back before")
        if not 0 < wish.amount <= rest:
            return _no(422, "over_remaining", f"{rest} won are left")
        if wish.expected_rest not in (None, rest - wish.amount):
            return _no(409, "rest_differs", f"{rest} won are left")
        left = rest - wish.amount
        reply = _yes({"charge": charge.charge, "cancelled": wish.amount, "rest": left})
        digest = sha256(body).hexdigest()
        kept = (reply.status, reply.body)
        self.ledger.cancel(refund, charge.charge, wish.amount, wish.reason, digest, kept)
        return reply

    def _books(self) -> Reply:
        charges = [charge._asdict() for charge in self.ledger.charges()]
        cancels = [cancel._asdict() for cancel in self.ledger.cancels()]
        return _yes({"charges": charges, "cancels": cancels, "balance": self.ledger.balance()})

    def _switch(self, method: str, request: Request) -> Reply:
        if method == "DELETE":
            self._fault = ""
            self._faults.clear()
            return _yes({})
        wish = msgspec.json.decode(request.body, type=_Fault)
        if wish.fault not in ("", *FAULTS) or wish.verb not in ("charge", "query", "cancel"):
            return _no(400, "malformed", f"faults are {', '.join(FAULTS)}")
        self._faults[wish.verb, wish.ref] = wish.fault
        return _yes({})


_JSON: Headers = [("content-type", "application/json"), ("cache-control", "no-store")]


def _yes(body: Mapping[str, object]) -> Reply:
    return Reply(200, _JSON, msgspec.json.encode(body))


def _no(status: int, code: str, message: str) -> Reply:
    return Reply(status, _JSON, msgspec.json.encode({"code": code, "message": message}))


def _refusal(known: Authorisation, wish: _Charge) -> Reply | None:
    """Return why a ref cannot be charged like this."""
    if known.order_id not in (None, wish.order):
        return _no(402, "order_mismatch", "the guest said yes to another order")
    if known.amount not in (None, wish.amount):
        return _no(402, "amount_mismatch", f"the guest said yes to {known.amount} won")
    if known.state == CHARGED:
        return _no(409, "already_processed", "this was charged before")
    if known.state != AUTHORISED:
        return _no(402, known.state, "the guest's yes does not count any more")
    return None


def _describe(charge: Charge, rest: int) -> dict[str, object]:
    status = CHARGED if rest == charge.amount else "partly_cancelled" if rest else "cancelled"
    return {
        "status": status,
        "charge": charge.charge,
        "ref": charge.ref,
        "order": charge.order_id,
        "amount": charge.amount,
        "tax_free": charge.tax_free,
        "rest": rest,
    }
