"""Our own sandbox in the shape of the other providers, for the contract suite."""

from __future__ import annotations

import time

from engine.payments import Gateway, Links
from engine.payments.http import Line
from engine.payments.sandbox import SandboxGateway
from tests.payments.player import Asked, Played
from tests.payments.providers import SECRET, Provider
from web.messages import Request
from web.sandbox.handlers import Sandbox
from web.sandbox.ledger import PAID, Ledger


class OwnSandbox(Provider):
    """`web.sandbox`, behind the same socket as the others; its truth is its ledger."""

    name = "sandbox"
    refusals = tuple(
        Played(402, {"code": code, "message": "no"}) for code in ("declined", "expired", "amount_mismatch")
    )
    in_doubt = (
        Played(500, {"code": "declined", "message": "5xx is never certain"}),
        Played(409, {"code": "in_progress", "message": ""}),
    )

    def __init__(self) -> None:
        self.ledger = Ledger(None, lambda: time.time_ns() // 1_000_000)
        self._sandbox = Sandbox(self.ledger, SECRET, slow_s=0.01)
        super().__init__()

    @property
    def charges(self) -> int:  # type: ignore[override]
        return len(self.ledger.charges())

    @charges.setter
    def charges(self, _: int) -> None:
        return None

    @property
    def rest(self) -> int:
        return self.ledger.balance()

    def authorise(self, order: str, amount: int, tax_free: int) -> None:
        page = self.ledger.open_checkout("", order, amount, tax_free, name="", back="", webhook="")
        decided = self.ledger.decide(page.checkout, PAID)
        assert decided is not None
        self.ref = decided.ref

    def gateway(self, url: str) -> Gateway:
        self._sandbox.url = url
        line = Line(url, SandboxGateway.headers(SECRET), secrets=(SECRET,), timeout_s=2)
        return SandboxGateway(line, Links("https://shop.example"))

    async def play(self, asked: Asked) -> Played:
        if asked.method == "POST" and (played := self._overridden()) is not None:
            return played
        path, _, query = asked.path.partition("?")
        reply = await self._sandbox.respond(Request(asked.method, path, query, asked.headers, asked.body))
        self.secret_seen = reply.status != 401
        cut, self.then_cut = self.then_cut, False
        return Played(reply.status, reply.body, cut=cut or reply.cut)
