"""Long walks through a shop's money, many at a time: what the machine finds rarely, these pass often.

A failure names its seed; `MONEY_WALK=7 pytest tests/domain/test_money_walks.py` takes that walk alone.
"""

import os
import random
from collections import Counter

import pytest

from engine.domain.store.cancelling import CancelOrder, RejectOrder
from engine.domain.store.kitchen import AcceptOrder, MarkReady, MarkServed, RecallOrder
from engine.domain.store.orders import Wish
from tests.domain.test_machine_money import GUESTS, Till

ONE = os.environ.get("MONEY_WALK")
WALKS = range(50) if ONE is None else [int(ONE)]
STEPS = 80
MONTH = 60 * 24 * 31
VERDICTS = ("APPROVED", "APPROVED", "DECLINED", "UNKNOWN", "UNKNOWN")


class Walk:
    """Takes steps of the machine at random, in the proportions of a busy and unlucky day."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.till = Till()
        self.till.make_shop(mode=self.random.choice(["prepay", "postpay"]))

    def steps(self):
        pick, chance = self.random.choice, self.random.random
        number, share = self.random.randrange(10), self.random.randint(1, 9)
        lines = tuple(Wish(pick(["cake", "coffee", "milk", "candy"]), pick([1, 2, 3])) for _ in range(share))
        taps = [pick([AcceptOrder, MarkReady, MarkServed, RecallOrder]) for _ in range(3)]
        return [
            (4, "order", {"lines": lines[:4], "by": pick(GUESTS), "coupon": pick([None, "off"])}),
            (2, "prepare", {"number": number, "method": pick(["sandbox", "toss"]), "by": pick(GUESTS)}),
            (3, "approve", {"number": number, "ref": pick("aab")}),
            (4, "pay", {"number": number, "ref": pick("ab"), "verdict": pick(VERDICTS)}),
            (4, "verdict", {"number": number, "verdict": pick(VERDICTS), "other": pick([0, 0, 0, 1, -1])}),
            (1, "ask_the_gateway", {"number": number}),
            (1, "decide_on_a_payment", {"number": number}),
            (4, "refund", {"number": number, "share": share, "all_of_it": chance() < 0.3}),
            (6, "verdict_on_a_refund", {"number": number, "verdict": pick(VERDICTS)}),
            (1, "decide_on_a_refund", {"number": number}),
            (
                2,
                "take_back",
                {"number": number, "kind": pick([CancelOrder, RejectOrder]), "by": pick(GUESTS)},
            ),
            (3, "take_a_line_back", {"number": number, "line": share}),
            (2, "cook", {"number": number, "taps": taps}),
            (3, "serve", {"number": number}),
            (5, "settle", self.bill(number, share)),
            (3, "wait", {"minutes": MONTH if chance() < 0.03 else pick([1, 1, 5, 30])}),
            (1, "sit", {"table": pick("12"), "opens": chance() < 0.6}),
            (1, "change_mode", {"mode": pick(["prepay", "postpay"])}),
        ]

    def bill(self, number, share):
        pick = self.random.choice
        split, mixed = pick(["all", "amount", "lines"]), pick([True, False])
        return {"table": pick(["1", "2", None]), "number": number, "split": split, "share": share} | {
            "mixed": mixed
        }

    def go(self):
        for _ in range(STEPS):
            steps = self.steps()
            _, name, fields = self.random.choices(steps, [weight for weight, *_ in steps])[0]
            getattr(Till, name)(self.till, **fields)
            self.till.the_books_fit()
            self.till.only_what_is_needed_stays()
        self.till.teardown()


@pytest.mark.parametrize("seed", WALKS)
def test_no_won_goes_astray(seed):
    """Whatever order things come in."""
    Walk(seed).go()


@pytest.mark.skipif(ONE is not None, reason="one walk does not see everything")
def test_the_walks_come_everywhere():
    """Otherwise they would show nothing."""
    seen = Counter()
    for seed in range(1000, 1040):
        walk = Walk(seed)
        walk.go()
        seen.update(type(event).__name__ for event in walk.till.stream.events)
    wanted = (
        "BillSettled RefundCompleted RefundFailed RefundUnknown OrderRefunded OrdersArchived LateApproval"
    )
    wanted += " PaymentDeclined LineCancelled OrderCancelled OrderRejected CouponReturned"
    assert not [name for name in wanted.split() if not seen[name]], seen
