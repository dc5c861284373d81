"""Money under fire: the whole engine against a gateway with books of its own, through crashes, expiry,
declines, time-outs and reconciliation, compared to the won. The checkers know nothing of the domain.

A failure names its seed; `MONEY_SEED=7 pytest tests/simulation/test_money.py` runs that one alone,
`--money-seeds 1000` (or `ONDA_MONEY_SEEDS`) runs so many, from `MONEY_FIRST` on.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio._core._run as scheduler

from engine import opening
from engine.codec import decode_meta
from tests.simulation import money_checks
from tests.simulation.money import SHOP, MoneyWorld
from tests.simulation.money_checks import Record, Verdict

LIVES = 5
STEPS = 120
VIRTUAL_S = 3600.0
"""Within this much simulated time everything has to come to rest after the last fault."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    one = os.environ.get("MONEY_SEED")
    first, count = int(os.environ.get("MONEY_FIRST", "0")), metafunc.config.getoption("--money-seeds")
    seeds = range(first, first + count) if one is None else [int(one)]
    if "money_seed" in metafunc.fixturenames:
        metafunc.parametrize("money_seed", seeds)


@pytest.fixture
def quick_folder() -> Iterator[str]:
    """A folder whose syncs take no time, where there is one: what was synced is not the matter here."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        yield folder


TOTALS: Counter[str] = Counter()


@pytest.fixture(scope="module", autouse=True)
def totals() -> Any:
    """Show what all seeds together came to."""
    yield
    print("\nmoney:", ", ".join(f"{count:,} {what}" for what, count in sorted(TOTALS.items())))


def test_no_won_and_no_piece_goes_astray(
    money_seed: int, quick_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends the node, the wire, the gateway's answers and the guests' patience: in the end the
    gateway's books and the shop's agree, and each piece was sold once or came back.
    """

    async def inline(work: Any, *args: Any, **_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return work(*args)

    async def main() -> MoneyWorld:
        world = MoneyWorld(money_seed, quick_folder)
        monkeypatch.setattr(opening, "_open_disk", world.open_disk)
        with trio.fail_after(VIRTUAL_S):
            await world.run(LIVES, STEPS)
        return world

    monkeypatch.setattr(trio.to_thread, "run_sync", inline)
    monkeypatch.setattr(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    scheduler._r.seed(money_seed)
    random.seed(money_seed)
    try:
        world = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
        _check(world)
    except BaseException as error:
        error.add_note(f"replay: MONEY_SEED={money_seed} pytest tests/simulation/test_money.py")
        raise


def _check(world: MoneyWorld) -> None:
    records = _records(world)
    shop = [record for record in records if record.stream == SHOP]
    money_checks.stock_adds_up(shop)
    pieces = money_checks.holds_end_once(shop)
    money_checks.paid_in_one_commit(shop, {SHOP})
    payments = money_checks.payments_move_forward(shop)
    money_checks.refunds_split_up(payments)
    money_checks.coupons_come_back(shop)
    money_checks.nobody_pays_for_nothing(shop, payments)
    money_checks.asked_before_called(shop, world.wire.calls)
    verdict = money_checks.ledgers_agree(payments, world.bank.charges())
    _acknowledged(world)
    _kept_word(world, payments)
    _copied(records)
    reviewed = {payment["order"] for payment in payments.values() if payment["status"] == "MANUAL_REVIEW"}
    for (_, order, product), have in pieces.items():
        assert not have.held, f"{order} still holds {product}"
        assert not have.pinned or order in reviewed, f"{order} still pins {product}"
    _count(world, shop, payments, verdict)


def _records(world: MoneyWorld) -> list[Record]:
    """Return all that was ever durable, with the append that wrote it."""
    records = []
    ends = [0, *world.log.appends]
    for number, (low, high) in enumerate(pairwise(ends)):
        for position in range(low, high):
            entry = world.log.history[position]
            records.append(money_checks.record_of(position + 1, number, entry.body))
    return records


def _acknowledged(world: MoneyWorld) -> None:
    """What was answered is in the log, byte for byte, and no command had its effect twice."""
    durable = {(entry.stream, entry.version): entry.body for entry in world.log.history}
    assert world.acked
    for acked in world.acked:
        first = acked.answer.version - len(acked.answer.events) + 1
        for version, body in enumerate(acked.answer.events, first):
            assert durable[acked.stream, version] == body, acked.key
    metas = [(entry.stream, decode_meta(entry.meta)) for entry in world.log.history if entry.meta]
    counts = Counter((stream, meta.by, meta.id) for stream, meta in metas)
    assert counts.most_common(1)[0][1] == 1, counts.most_common(3)


def _kept_word(world: MoneyWorld, payments: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Who was told that a payment is paid, or that it is declined, was told the truth."""
    for name, status in world.told:
        if status in ("PAID", "DECLINED"):
            assert payments[SHOP, name]["status"] == status, f"a guest was told {status}: {name}"


def _copied(records: list[Record]) -> None:
    """Users and open tables see each order as the shop does."""
    seen: dict[tuple[str, str], dict[str, Any]] = {}
    refunded: Counter[str] = Counter()
    for record in records:
        if record.type == "OrderRefunded":  # also of orders that have left the shop's screens
            refunded[record.data["order"]] += record.data["amount"]
        for name, order in (record.patch.get("orders") or {}).items():
            if order is not None:
                seen[record.stream, name] = order
    for (stream, name), order in seen.items():
        if stream != SHOP:
            continue
        holders = [f"user:{order['user']}"] if order["user"] else []
        holders += [f"table:s1/{order['table']}"] if order["table"] else []
        for holder in holders:
            copy = next(c for (s, n), c in seen.items() if s == holder and n in (name, f"s1/{name}"))
            assert copy["refunded"] == refunded[name], f"{holder} has another sum of refunds of {name}"
            for field in ("status", "total", "paid", "payment", "closed_at", "vat"):
                assert copy[field] == order[field], f"{holder} has another {field} of {name}"


def _count(
    world: MoneyWorld,
    shop: list[Record],
    payments: dict[tuple[str, str], dict[str, Any]],
    verdict: Verdict,
) -> None:
    types = Counter(record.type for record in shop)
    TOTALS.update(
        {
            "runs": 1,
            "crashes": world.log.crashes,
            "orders": types["OrderCreated"],
            "attempts": types["ApprovalRequested"],
            "paid": types["PaymentApproved"],
            "declined": types["PaymentDeclined"],
            "unknown": types["PaymentUnknown"],
            "expired": types["OrderExpired"],
            "revived": types["OrderRevived"],
            "late approvals": types["LateApproval"],
            "refunds": types["RefundCompleted"],
            "queries": types["QueryRequested"],
            "gateway calls": len(world.wire.calls),
            "coupons used": types["CouponRedeemed"],
            "charges": len(world.bank.charges()),
            "reviews": verdict.reviews,
            "won charged": verdict.charged,
            "won given back": verdict.refunded,
        }
    )
    TOTALS.update({f"wire: {fault}": count for fault, count in world.wire.faults.items()})
