"""What settles a command later: which event of the feed, or which entity, and what the answer then says."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio

from engine import Answer, Config, Cursor
from engine.clock import SystemClock
from engine.domain.contract import Outcome
from engine.feed import Feed, Frame, Snapshot, Subscription
from engine.metrics import Metrics
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
