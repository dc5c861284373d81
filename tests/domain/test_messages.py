"""Events of any type for a user: written down as they are, bounded, kept in the stream alone."""

from __future__ import annotations

from typing import Any

import pytest

from engine.domain.user.messages import DATA_BYTES_MAX, EventSent, ReceiveEvent, SendEvent, shown_data
from engine.errors import Rejected
from tests.harness_domain import Stream


def test_an_event_is_written_as_it_is() -> None:
    """Its data is a program's own business."""
    user = Stream("user:u1")
    [event] = user.do(SendEvent("account.updated", {"accountId": 1, "changes": {"balance": [1, 2.5, None]}}))
    assert event == EventSent(
        "account.updated", {"accountId": 1, "changes": {"balance": [1, 2.5, None]}}, event.at
    )


def test_an_event_from_elsewhere_says_so() -> None:
    """So that it is not passed on once more."""
    [event] = Stream("user:u1").do(ReceiveEvent("x", {}, "e1.onda-2"))
    assert event.origin == "e1.onda-2"


def test_the_largest_event() -> None:
    """One byte more is refused."""
    user = Stream("user:u1")
    text = "a" * (DATA_BYTES_MAX - len('{"t":""}'))
    assert user.do(SendEvent("big", {"t": text}))
    with pytest.raises(Rejected) as refused:
        user.do(SendEvent("big", {"t": text + "a"}))
    assert refused.value.code == "event_too_large"


def nested(levels: int) -> dict[str, Any]:
    """Objects and lists inside of one another, so many of them."""
    inner: Any = 1
    for _ in range(levels - 1):
        inner = [inner]
    return {"a": inner}


@pytest.mark.parametrize("command", [SendEvent, lambda *given: ReceiveEvent(*given, "outside")])
def test_the_deepest_event(command: Any) -> None:
    """One level more is refused, and so is what no reader could take."""
    user = Stream("user:u1")
    assert user.do(command("deep", nested(64)))
    for levels in (65, 990, 100_000):
        with pytest.raises(Rejected) as refused:
            user.do(command("deep", nested(levels)))
        assert refused.value.code == "event_too_large"


def test_time_and_server_are_added_unless_they_are_there() -> None:
    """The world outside finds both in the data."""
    event = EventSent("x", {"n": 1}, "2026-11-20T18:15:30.000Z")
    assert shown_data(event, "onda-1") == {"n": 1, "timestamp": event.at, "serverId": "onda-1"}
    own = EventSent("x", {"serverId": "me", "timestamp": "then"}, event.at)
    assert shown_data(own, "onda-1") == {"serverId": "me", "timestamp": "then"}
    foreign = EventSent("x", {}, event.at, "outside")
    assert shown_data(foreign, "onda-1")["serverId"] == "unknown"
