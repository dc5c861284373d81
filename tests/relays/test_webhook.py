"""Webhooks to a receiver that misbehaves: in order per stream, effect once, nothing dropped."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from engine import Config, Node, open_node
from tests.engine.shop import OWNER, config, envelopes, make_shop, order, wait_until
from tests.relays.receiver import KEY, SECRET, Receiver, open_receiver, signature_by_hand

STORES = ("store:s1", "store:s2", "store:s3")


def settings(receiver: Receiver, **changes: Any) -> Config:
    values = {"webhook_url": receiver.url, "webhook_secret": SECRET, "webhook_types": "OrderPlaced"}
    return config(**{**values, "webhook_timeout_s": 0.3, **changes})


@asynccontextmanager
async def shops(receiver: Receiver, **changes: Any) -> AsyncIterator[Node]:
    """A node that sends to the receiver, with shops."""
    async with open_node(settings(receiver, **changes)) as node:
        for stream in STORES:
            await make_shop(node, stream)
        yield node


async def place(node: Node, stream: str, *names: str) -> list[dict[str, Any]]:
    """Place orders; return the envelopes of `OrderPlaced`."""
    answers = [await node.ask(stream, order(order=name), by=OWNER) for name in names]
    return [envelopes(answer)[1] for answer in answers]


def count(node: Node, outcome: str, relay: str = "webhook") -> float:
    """How many requests ended so."""
    return node.metrics.relay_requests.labels(relay, outcome)._value.get()


async def test_a_webhook_is_signed_and_says_what_happened() -> None:
    """Its headers are those of Standard Webhooks, its body the record under its name outside."""
    async with open_receiver() as receiver, shops(receiver) as node:
        (placed,) = await place(node, "store:s1", "a")
        await wait_until(lambda: receiver.taken)
        delivery = receiver.taken[0]
        assert delivery.target == "/hooks?key=k"
        assert delivery.headers["content-type"] == "application/json"
        assert delivery.id == placed["id"]
        timestamp = delivery.headers["webhook-timestamp"]
        assert abs(int(timestamp) - node.clock.now_ms() / 1000) < 60
        assert delivery.signatures() == [signature_by_hand(KEY, delivery.id, timestamp, delivery.body)]
        assert delivery.message == {
            "type": "ORDER_PLACED",
            "event": "OrderPlaced",
            **{name: placed[name] for name in ("id", "stream", "version", "time", "data")},
        }
        await wait_until(lambda: count(node, "sent") == 1)
        assert node.metrics.relay_s.labels("webhook")._sum.get() > 0


async def test_while_a_secret_is_changed_both_sign() -> None:
    """So that a receiver can change over when it likes."""
    old = "whsec_" + "b2xk" * 8
    async with open_receiver() as receiver:
        async with shops(receiver, webhook_secret=f"{SECRET},{old}") as node:
            await place(node, "store:s1", "a")
            await wait_until(lambda: receiver.taken)
    delivery = receiver.taken[0]
    timestamp = delivery.headers["webhook-timestamp"]
    assert delivery.signatures() == [
        signature_by_hand(key, delivery.id, timestamp, delivery.body) for key in (KEY, b"old" * 8)
    ]


async def test_everything_arrives_in_order_whatever_the_receiver_does(seed: int) -> None:
    """Broken, stalled, refused and repeated requests: each stream in order, each effect once."""
    chance = random.Random(seed)
    names = [f"o-{number}" for number in range(15)]
    faults = ["reset", "lost", "garbage", "flood", "500", "503", "408", "425", "429", "404"]
    async with open_receiver() as receiver, shops(receiver, webhook_retries=50) as node:
        receiver.faults.extend(chance.choices(faults, k=40) + ["stall"] * 2)
        async with trio.open_nursery() as nursery:
            for stream in STORES:
                nursery.start_soon(place, node, stream, *names)
        await wait_until(lambda: node.statistics()["reaction_lag"] == 0, 30)
        for stream in STORES:
            assert receiver.orders(stream) == names
        assert not receiver.faults
        assert not node.parked()
        assert len(receiver.seen) > len(receiver.taken) == 3 * len(names)
        assert count(node, "sent") == 3 * len(names)
        assert count(node, "retried") > 0


async def test_a_receiver_that_is_away_is_waited_for() -> None:
    """Nobody listens, then somebody does: what was ordered meanwhile arrives."""
    async with open_receiver() as receiver:
        pass
    async with shops(receiver) as node:
        await place(node, "store:s1", "a", "b")
        await wait_until(lambda: count(node, "retried") > 8)
        async with open_receiver(receiver):
            await wait_until(lambda: receiver.orders("store:s1") == ["a", "b"])
        assert not node.parked()


async def test_a_record_that_is_refused_is_parked_and_holds_only_its_stream() -> None:
    """1 try + retries; other streams go on; replay delivers it and those behind it, in order."""
    async with open_receiver() as receiver, shops(receiver, webhook_retries=2) as node:
        await place(node, "store:s1", "a")
        await wait_until(lambda: receiver.taken)
        receiver.judge = lambda delivery: "400" if delivery.message["data"]["order"] == "b" else ""
        await place(node, "store:s1", "b", "c", "d")
        await place(node, "store:s2", "e", "f")
        await wait_until(lambda: len(node.parked()) == 3)
        await wait_until(lambda: receiver.orders("store:s2") == ["e", "f"])
        assert receiver.orders("store:s1") == ["a"]
        assert count(node, "failed") == 3
        first = node.parked()[0]
        assert (first["reaction"], first["attempts"]) == ("webhook", 3)
        assert first["error"] == f"Undelivered: 127.0.0.1:{receiver.port} answered 400"
        receiver.judge = lambda _: ""
        await node.replay_parked(first["id"])
        assert receiver.orders("store:s1") == ["a", "b", "c", "d"]
        assert not node.parked()


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
async def test_answers_that_say_nothing_about_the_record_are_waited_out(status: int) -> None:
    """However often they come, and even if a refusal would park at once."""
    async with open_receiver() as receiver, shops(receiver, webhook_retries=0) as node:
        receiver.faults.extend([str(status)] * 5)
        await place(node, "store:s1", "a")
        await wait_until(lambda: receiver.orders("store:s1") == ["a"])
        await wait_until(lambda: count(node, "sent") == 1)
        assert (count(node, "retried"), count(node, "failed")) == (5, 0)
        assert not node.parked()


@pytest.mark.parametrize("status", [300, 308, 400, 401, 404, 409, 410, 413, 422, 451])
async def test_answers_that_refuse_the_record_are_counted(status: int) -> None:
    """With no retries the first one parks it."""
    async with open_receiver() as receiver, shops(receiver, webhook_retries=0) as node:
        receiver.faults.append(str(status))
        await place(node, "store:s1", "a")
        await wait_until(lambda: node.parked())
        assert f"answered {status}" in node.parked()[0]["error"]
        assert (count(node, "retried"), count(node, "failed")) == (0, 1)


async def test_redirects_are_not_followed() -> None:
    """Whoever signs what he sends does not send it elsewhere because somebody says so."""
    async with open_receiver() as receiver, shops(receiver, webhook_retries=0) as node:
        receiver.judge = lambda _: "307"
        await place(node, "store:s1", "a")
        await wait_until(lambda: node.parked())
        assert {delivery.target for delivery in receiver.seen} == {"/hooks?key=k"}


async def test_connections_are_used_again() -> None:
    """One after the other over the same connection, which an endless answer does not survive."""
    async with open_receiver() as receiver, shops(receiver, webhook_timeout_s=3600.0) as node:
        await place(node, "store:s1", *(f"o-{number}" for number in range(20)))
        await wait_until(lambda: len(receiver.taken) == 20)
        assert receiver.connections == 1
        receiver.faults.append("flood")
        await place(node, "store:s1", "x", "y")
        await wait_until(lambda: len(receiver.taken) == 22)
        assert receiver.connections == 2


async def test_each_target_goes_its_own_way() -> None:
    """One that refuses everything does not hold the other."""
    async with open_receiver() as first, open_receiver() as second:
        first.judge = lambda _: "403"
        both = {"webhook_url": f"{first.url} {second.url}", "webhook_secret": f"{SECRET} {SECRET}"}
        async with shops(first, **both) as node:
            await place(node, "store:s1", "a", "b")
            await wait_until(lambda: second.orders("store:s1") == ["a", "b"])
            await wait_until(lambda: len(node.parked()) == 2)
            assert {parked["reaction"] for parked in node.parked()} == {"webhook"}
            assert count(node, "sent", "webhook-2") == 2


async def test_no_secret_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the key nor the address beyond its host, which may be a secret of the receiver."""
    caplog.set_level(logging.INFO)
    async with open_receiver() as receiver, shops(receiver, webhook_retries=0) as node:
        receiver.faults.append("400")
        await place(node, "store:s1", "a")
        await wait_until(lambda: node.parked())
        receiver.faults.extend(["reset", "500", "garbage"])
        await place(node, "store:s2", "b", "c")
        await wait_until(lambda: count(node, "sent") == 2)
        said = caplog.text + str(node.parked())
    assert said.count("takes no webhooks") == 1, "once for each outage"
    assert said.count("answers webhooks again") == 1
    assert "key=k" not in said
    assert SECRET.removeprefix("whsec_") not in said
