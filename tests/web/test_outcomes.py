"""What settles a command later: which event of the feed, or which entity, and what the answer then says."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest
import trio

from engine import Answer, Config, Cursor
from engine.clock import SystemClock
from engine.domain.contract import Outcome
from engine.feed import Feed, Frame, Snapshot, Subscription
from engine.metrics import Metrics
from tests.payments.paying import Shop, paying
from tests.web.site import wait_until
from web.auth import Gate
from web.outcomes import Refusal, settle
from web.site import Site

APPROVAL = Outcome(
    done="PaymentApproved",
    refused="",
    key="payment",
    statuses={"PaymentApproved": "PAID", "PaymentDeclined": "DECLINED", "PaymentUnknown": "UNKNOWN"},
    pending="UNKNOWN",
    collection="payments",
)
PLAIN = Outcome(done="Taken", refused="Refused", key="order")


class OneFeed:
    """The part of a node that the wait needs: one stream."""

    clock = SystemClock()

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.feed = Feed("store:s1", 4, 1 << 20, self.metrics)
        self.feed.prime(0)
        self.state: dict[str, Any] = {"payments": {}}

    def publish(self, type_: str, **data: Any) -> None:
        body = msgspec.json.encode({"type": type_, "data": data})
        self.feed.publish([Frame(self.feed.head + 1, type_, body)])

    async def subscribe(self, stream: str, after: Cursor | None = None) -> Subscription:
        await trio.lowlevel.checkpoint()
        assert stream == "store:s1"
        assert after is not None
        snapshot = None
        if after.version < self.feed.low:
            head = self.feed.head
            snapshot = Snapshot(f"e-{head}", head, msgspec.json.encode(self.state))
        version = after.version if snapshot is None else snapshot.version
        return Subscription(self.feed, "e", version, snapshot, None, self.metrics)


@pytest.fixture
def node() -> OneFeed:
    return OneFeed()


def site(node: Any, wait_s: float) -> Site:
    return Site(node, Config(outcome_wait_s=wait_s), Gate("x" * 40, None, None))  # type: ignore[arg-type]


def given(result: dict[str, Any], version: int = 0) -> Answer:
    return Answer(f"e-{version}", version, [], msgspec.json.encode(result))


async def settled(
    node: OneFeed, result: dict[str, Any], outcome: Outcome = APPROVAL, *, wait_s: float = 0.0, after: int = 0
) -> tuple[dict[str, Any], bool]:
    """Return the result that the caller gets, and whether it is pending."""
    done = await settle(site(node, wait_s), "store:s1", given(result, after), outcome)
    return msgspec.json.decode(done.result), done.pending


@pytest.mark.parametrize(
    ("type_", "status", "pending"),
    [
        ("PaymentApproved", "PAID", False),
        ("PaymentDeclined", "DECLINED", False),
        ("PaymentUnknown", "UNKNOWN", True),
    ],
)
async def test_the_event_that_settles_names_the_status(
    node: OneFeed, type_: str, status: str, pending: bool
) -> None:
    """Its code and message come along; an end that is not final stays pending."""
    node.publish("PaymentApproved", payment="other")
    node.publish(type_, payment="p1", code="limit", message="over the limit")
    result, is_pending = await settled(node, {"payment": "p1", "status": "UNKNOWN"}, wait_s=5)
    assert result == {"payment": "p1", "status": status, "code": "limit", "message": "over the limit"}
    assert is_pending is pending


async def test_it_is_waited_for(node: OneFeed) -> None:
    """The answer goes out when the event is there, not before and not much later."""
    results: list[Any] = []

    async def wait() -> None:
        results.append(await settled(node, {"payment": "p1", "status": "UNKNOWN"}, wait_s=5))

    with trio.fail_after(2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_until(lambda: node.feed.subscriptions)
            assert results == []
            node.publish("PaymentDeclined", payment="p1", code="card", message="")
    assert results == [({"payment": "p1", "status": "DECLINED", "code": "card"}, False)]
    assert not node.feed.subscriptions


async def test_nothing_in_time_is_pending(node: OneFeed) -> None:
    """Whatever the first answer said, it says what is known: nothing final."""
    assert await settled(node, {"payment": "p1", "status": "REQUESTED"}) == (
        {"payment": "p1", "status": "UNKNOWN"},
        True,
    )


async def test_a_repeat_finds_what_came_after_the_doubt(node: OneFeed) -> None:
    """Unknown first, paid an hour later: the same key now says paid."""
    node.publish("PaymentUnknown", payment="p1", code="timeout")
    node.publish("Other")
    node.publish("PaymentApproved", payment="p1")
    assert await settled(node, {"payment": "p1", "status": "UNKNOWN"}, wait_s=5) == (
        {"payment": "p1", "status": "PAID"},
        False,
    )


async def test_the_entity_answers_for_an_event_that_has_left_the_ring(node: OneFeed) -> None:
    """Paid and declined are final there too; the reason stands in the attempt."""
    for _ in range(6):
        node.publish("Other")
    attempt = {"code": "limit", "message": "over", "status": "FAILED"}
    node.state["payments"] = {
        "p1": {"status": "PAID", "attempt": {"status": "SUCCEEDED", "code": "", "message": ""}},
        "p2": {"status": "DECLINED", "attempt": attempt},
        "p3": {"status": "MANUAL_REVIEW", "attempt": attempt},
        "p4": {"status": "REQUESTED", "attempt": None},
    }
    assert await settled(node, {"payment": "p1"}, wait_s=5) == ({"payment": "p1", "status": "PAID"}, False)
    assert await settled(node, {"payment": "p2"}, wait_s=5) == (
        {"payment": "p2", "status": "DECLINED", "code": "limit", "message": "over"},
        False,
    )
    for name in ("p3", "p4", "gone"):
        assert await settled(node, {"payment": name}) == ({"payment": name, "status": "UNKNOWN"}, True)


async def test_after_a_snapshot_the_feed_is_waited_on(node: OneFeed) -> None:
    """The entity was not settled yet, the next event settles it."""
    for _ in range(6):
        node.publish("Other")
    node.state["payments"] = {"p1": {"status": "UNKNOWN", "attempt": None}}
    results: list[Any] = []

    async def wait() -> None:
        results.append(await settled(node, {"payment": "p1"}, wait_s=5))

    with trio.fail_after(2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_until(lambda: node.feed.subscriptions)
            node.publish("PaymentApproved", payment="p1")
    assert results == [({"payment": "p1", "status": "PAID"}, False)]


async def test_a_result_that_says_how_it_ended_is_not_waited_for(node: OneFeed) -> None:
    """What is paid already is answered at once."""
    with trio.fail_after(1):
        result = {"payment": "p1", "status": "PAID"}
        assert await settled(node, result, wait_s=60) == (result, False)


async def test_plain_outcomes_are_done_or_refused(node: OneFeed) -> None:
    """Without statuses the result stays as it is, and a refusal is one."""
    node.publish("Taken", order="o1")
    node.publish("Refused", order="o2", code="sold_out", detail="none left")
    assert await settled(node, {"order": "o1"}, PLAIN, wait_s=5) == ({"order": "o1"}, False)
    assert await settled(node, {"order": "o3"}, PLAIN) == ({"order": "o3"}, True)
    with pytest.raises(Refusal) as refusal:
        await settled(node, {"order": "o2"}, PLAIN, wait_s=5)
    assert (refusal.value.code, refusal.value.detail) == ("sold_out", "none left")


async def approve(shop: Shop, made: dict[str, Any], ref: str, key: str) -> httpx.Response:
    """Approve a payment under a key."""
    fields = {"order": made["order"], "payment": made["payment"], "provider_ref": ref}
    headers = {"idempotency-key": key}
    return await shop.http.post("/v1/stores/s1/approve-payment", json=fields, headers=headers)


@pytest.mark.parametrize(("ref", "status"), [("fine", "PAID"), ("decline-1", "DECLINED")])
async def test_an_approval_answers_how_it_ended_however_often(ref: str, status: str) -> None:
    """At first, under the same key and under another one; the gateway's reason comes along."""
    async with paying() as shop:
        made = await shop.prepare()
        answers = [await approve(shop, made, ref, key) for key in ("k1", "k1", "k2")]
        for answer in answers:
            assert answer.status_code == 200
            assert answer.json()["result"]["status"] == status
            assert answer.json()["result"]["payment"] == made["payment"]
            assert (answer.json()["result"].get("code") == "declined") is (status == "DECLINED")
        assert [answer.headers.get("idempotent-replayed") for answer in answers] == [None, "true", None]
        types = [event["type"] for event in answers[0].json()["events"]]
        assert types == ["ApprovalRequested", "PaymentApproved" if status == "PAID" else "PaymentDeclined"]
        assert len(shop.ledger.charges()) == (status == "PAID")


async def test_an_approval_in_doubt_is_202_and_its_repeat_says_how_it_ended() -> None:
    """Nobody waits longer than told; the same key gives the end once there is one."""
    async with paying(outcome_wait_s=0.0) as shop:
        made = await shop.prepare()
        answer = await approve(shop, made, "slow-1", "k1")
        assert answer.status_code == 202
        assert answer.json()["result"]["status"] == "UNKNOWN"
        assert answer.headers["location"].startswith("/v1/stores/s1/sync?after=")
        await shop.wait_status(made, "PAID")
        again = await approve(shop, made, "slow-1", "k1")
        assert (again.status_code, again.json()["result"]["status"]) == (200, "PAID")


async def test_an_approval_is_answered_when_its_events_have_left_the_ring() -> None:
    """From the payment itself."""
    async with paying(ring_frames_max=4) as shop:
        made = await shop.prepare()
        assert (await approve(shop, made, "fine", "k1")).status_code == 200
        for number in range(6):
            await shop.do("put-product", product="ramen", name="라면", price=4500 + number)
        again = await approve(shop, made, "fine", "k1")
        assert (again.status_code, again.json()["result"]["status"]) == (200, "PAID")
        assert again.headers["idempotent-replayed"] == "true"


async def test_an_approval_is_answered_when_its_payment_has_left_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its order, from what readers see: the shop still knows how it ended."""
    async with paying(ring_frames_max=1, outcome_wait_s=0.05) as shop:
        made = await shop.prepare()
        await approve(shop, made, "decline-1", "k1")
        await shop.wait_status(made, "DECLINED")
        for number in range(3):
            await shop.do("put-product", product="ramen", name="라면", price=4500 + number)
        monkeypatch.setattr("web.outcomes._decode_state", lambda _: {})
        again = await approve(shop, made, "decline-1", "k1")
        assert (again.status_code, again.json()["result"]["status"]) == (200, "DECLINED")
        assert again.json()["result"]["code"] == "declined"


async def test_operators_see_a_payment_in_doubt_and_decide() -> None:
    """Listed with what the gateway said, until a person says that it was not paid."""
    async with paying() as shop:
        made = await shop.prepare()
        assert (await approve(shop, made, "error_5xx-1", "k1")).status_code == 202
        seen = (await shop.http.get("/v1/ops/payments")).json()
        (row,) = seen["payments"]
        assert (row["payment"], row["status"], row["code"]) == (made["payment"], "UNKNOWN", "internal")
        assert seen["counts"]["open"] == 1
        await shop.do("resolve-payment", payment=made["payment"], paid=False, reason="not in their books")
        after = (await shop.http.get("/v1/ops/payments")).json()
        assert (after["payments"], after["counts"]["open"]) == ([], 0)
        assert set(after["checks"].values()) == {0}
