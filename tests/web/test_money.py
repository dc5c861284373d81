"""Whose money needs somebody: what `/v1/ops/payments` lists, counts and checks."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from engine.domain.order import Order
from engine.domain.payment import Attempt, Payment, Refund, Share
from engine.domain.store.state import Hold, Product, State
from tests.web.site import Running, running, set_up
from tests.web.test_commands import check_problem
from web.money import ROWS_MAX, findings

AT = "2026-11-20T10:00:00.000Z"


def a_payment(name: str = "p1", status: str = "PAID", **more: Any) -> Payment:
    attempt = Attempt(f"a-{name}", status, "ref", AT, charge="ch1", code="timeout", message="no answer")
    given = {"order": "o1", "attempt": attempt} | more
    return Payment(name, status, 7000, 7000, 0, 636, "sandbox", "sandbox", "3", "table:s1/3", AT, **given)


def a_refund(status: str, **more: Any) -> Refund:
    return Refund(f"r-{status}", 1000, 1000, 0, 91, "mistake", "owner:kim", status, AT, **more)


def an_order(status: str = "PLACED") -> Order:
    return Order("o1", 1, "3", None, status, (), 7000, "table:s1/3", paid=7000)


def a_shop(*payments: Payment, order: Order | None = None) -> State:
    return State(
        orders={"o1": order or an_order()}, payments={payment.payment: payment for payment in payments}
    )


@pytest.mark.parametrize("status", ["REQUESTED", "UNKNOWN", "MANUAL_REVIEW"])
def test_an_open_payment_is_listed_with_its_attempt(status: str) -> None:
    """With what somebody needs who looks it up at the gateway."""
    found = findings("store:s1", a_shop(a_payment(status=status)), 7)
    (row,) = found.payments
    expected = {"store": "s1", "payment": "p1", "status": status, "attempt": "a-p1", "code": "timeout"}
    assert {name: row[name] for name in expected} == expected
    assert (row["amount"], row["message"], row["requested_at"], row["charge"]) == (
        7000,
        "no answer",
        AT,
        "ch1",
    )
    assert found.counts["review" if status == "MANUAL_REVIEW" else "open"] == 1
    assert found.version == 7


@pytest.mark.parametrize("status", ["PENDING", "PAID", "DECLINED", "DROPPED"])
def test_the_others_need_nobody(status: str) -> None:
    """What is settled, or not begun, is not listed."""
    assert findings("store:s1", a_shop(a_payment(status=status)), 1).payments == []


def test_refunds_are_listed_when_they_are_stuck() -> None:
    """Those on their way are counted; unknown, to be decided and failed ones are shown."""
    refunds = tuple(map(a_refund, ("QUEUED", "REQUESTED", "UNKNOWN", "MANUAL_REVIEW", "FAILED", "DONE")))
    found = findings("store:s1", a_shop(a_payment(refunds=refunds)), 1)
    assert [row["status"] for row in found.refunds] == ["UNKNOWN", "MANUAL_REVIEW", "FAILED"]
    assert found.refunds[0] | {"store": "s1", "payment": "p1", "reason": "mistake"} == found.refunds[0]
    assert found.counts["refunds_pending"] == 3
    assert found.counts["refunds_failed"] == 2


def test_a_refund_that_failed_is_listed_when_its_order_has_left() -> None:
    """Its money is still here; one that was made up for, or never failed, needs nobody."""
    failed, done = a_refund("FAILED"), a_refund("DONE")
    kept = {
        "stuck": a_payment("stuck", refunds=(failed,)),
        "void": a_payment("void", "DECLINED", refunds=(replace(failed, void=True),)),
        "made-up": a_payment("made-up", refunds=(failed, done), refunded=7000),
        "fine": a_payment("fine", refunds=(done,)),
    }
    found = findings("store:s1", State(kept=kept), 1)
    assert [row["payment"] for row in found.refunds] == ["stuck", "void"]
    assert found.counts["refunds_failed"] == 2
    assert not any(found.counts[name] for name in ("paid_without_order", "refunded_too_much"))


@pytest.mark.parametrize(
    ("payment", "order", "bad"),
    [
        (a_payment(), an_order(), 0),
        (a_payment(), an_order("CREATED"), 1),
        (a_payment(), an_order("EXPIRED"), 1),
        (a_payment(), an_order("CANCELLED"), 1),
        (a_payment(refunds=(a_refund("DONE"),)), an_order("CANCELLED"), 0),
        (a_payment(order="gone"), an_order(), 1),
        (a_payment(order="gone", refunds=(a_refund("REQUESTED"),)), an_order(), 0),
        (a_payment(status="UNKNOWN"), an_order("PENDING_PAYMENT"), 0),
        (replace(a_payment(order=None, shares=(Share("o1", 7000),)), provider="till"), an_order(), 0),
    ],
)
def test_a_paid_payment_has_an_order_behind_it(payment: Payment, order: Order, bad: int) -> None:
    """Money without an order, and nothing of it on its way back, is the one thing that must not be."""
    assert findings("store:s1", a_shop(payment, order=order), 1).counts["paid_without_order"] == bad


def test_more_refunded_than_paid_is_seen() -> None:
    """Whatever the single refunds say."""
    assert findings("s", a_shop(a_payment(refunded=7001)), 1).counts["refunded_too_much"] == 1
    assert findings("s", a_shop(a_payment(refunded=7000)), 1).counts["refunded_too_much"] == 0


def test_the_stock_adds_up_with_the_holds() -> None:
    """Held and pinned pieces are those of the holds, product by product."""

    def product(held: int, pinned: int) -> Product:
        return Product("cake", "Cake", 7000, 3, False, None, False, (), held, pinned)

    state = a_shop()
    state.holds = {"o1": Hold(1_000, {"cake": 2}), "o2": Hold(2_000, {"cake": 1}, attempt="a")}
    for held, pinned, bad in ((2, 1, 0), (1, 2, 1), (3, 0, 1)):
        state.products = {"cake": product(held, pinned)}
        assert findings("store:s1", state, 1).counts["stock_mismatch"] == bad
    assert findings("store:s1", state, 1).holds == [1_000]


async def test_operators_read_it_and_nobody_else(shop: Running) -> None:
    """For the role service; a shop without payments has nothing to show."""
    async with shop.client("service") as client:
        answer = await client.get("/v1/ops/payments")
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        body = answer.json()
        assert (body["payments"], body["refunds"], body["more"]) == ([], [], False)
        assert set(body["checks"].values()) == {0}
        check_problem(await client.post("/v1/ops/payments"), 405, "method_not_allowed")
    async with shop.client("owner:s1") as client:
        check_problem(await client.get("/v1/ops/payments"), 403, "forbidden")
    async with shop.client() as client:
        check_problem(await client.get("/v1/ops/payments"), 401, "unauthorized")


async def test_a_store_is_read_again_when_it_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """And only then; of many rows the oldest are shown."""
    async with running() as site, site.first.client("service") as client:
        await set_up(client)
        looks: list[int] = []
        rows = [{"requested_at": f"{n:04}"} for n in range(ROWS_MAX + 1)]

        def look(stream: str, state: Any, version: int) -> Any:
            looks.append(version)
            return findings(stream, state, version)._replace(payments=rows[::-1])

        monkeypatch.setattr("web.money.findings", look)
        for _ in range(3):
            body = (await client.get("/v1/ops/payments")).json()
        assert len(looks) == 1
        assert body["more"] is True
        assert [row["requested_at"] for row in body["payments"]] == [f"{n:04}" for n in range(ROWS_MAX)]
        await client.post("/v1/stores/s1/pause-orders", json={"reason": "break"})
        await client.get("/v1/ops/payments")
        assert len(looks) == 2
