"""The sandbox gateway's own code and books, the moods it has, and its guests' yes."""

from __future__ import annotations

import random
from collections import Counter

from engine.clock import Clock
from tests.simulation.money_checks import Charge
from web.sandbox.handlers import Hook, Sandbox
from web.sandbox.ledger import PAID, Ledger

URL = "http://gateway.test"
KEY = "key-of-the-shop-at-the-gateway"
MOODS = (
    ("charge", ("", "", "decline", "slow", "drop_after_charging", "error_5xx", "wrong_amount", "duplicate")),
    ("query", ("", "", "slow", "error_5xx")),
    ("cancel", ("", "", "slow", "drop_after_charging", "error_5xx")),
)
"""What the gateway may do wrong, by what it is asked."""


class Bank:
    """The gateway.

    Attributes:
        hints: payments of which the gateway has hinted that there are news.
    """

    def __init__(self, clock: Clock, chance: random.Random) -> None:
        self._chance = chance
        self.ledger = Ledger(None, clock.now_ms)
        self.sandbox = Sandbox(self.ledger, KEY, url=URL, notify=self._hint, dice=chance, slow_s=1.0)
        self.faults: Counter[str] = Counter()
        self.hints: list[str] = []

    def change_mood(self) -> None:
        """Choose anew what goes wrong."""
        self.cheer_up()
        if self._chance.random() < 0.7:
            verb, faults = self._chance.choice(MOODS)
            fault = self._chance.choice(faults)
            self.faults[f"{verb}: {fault}"] += bool(fault)
            self.sandbox._faults[verb, ""] = fault

    def cheer_up(self) -> None:
        """Let everything go well from now on."""
        self.sandbox._faults.clear()

    def pay(self, checkout: str) -> str | None:
        """A guest says yes at the page; return what they bring back, `None` when the page is gone."""
        page = self.ledger.decide(checkout, PAID)
        return page.ref if page is not None and page.ref else None

    def settled(self, attempt: str, ref: str, amount: int) -> bool | None:
        """Return whether an attempt is paid, by these books; `None` while that is open or odd."""
        charge = self.ledger.find_charge("attempt", attempt)
        if charge is not None:
            return True if charge.amount == self.ledger.rest(charge) == amount else None
        return None if self.ledger.authorisation(ref).state == "authorised" else False

    def charge_of(self, attempt: str) -> str:
        """Return the name of an attempt's charge, if there is one."""
        charge = self.ledger.find_charge("attempt", attempt)
        return charge.charge if charge is not None else ""

    def gave_back(self, refund: str) -> bool:
        """Return whether a refund is in these books."""
        return any(cancel.refund == refund for cancel in self.ledger.cancels())

    def charges(self) -> list[Charge]:
        """Return the books."""
        return [
            Charge(charge.attempt, charge.amount, charge.amount - self.ledger.rest(charge))
            for charge in self.ledger.charges()
        ]

    def _hint(self, hook: Hook) -> None:
        self.hints.append(hook.url.rpartition("/")[2])
