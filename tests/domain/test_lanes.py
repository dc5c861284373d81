"""Which records are followed one after the other: all that meet again, and no more."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.domain.contract import Event
from engine.domain.reactions import lane_of, react
from tests.golden.record import EVENTS
from tests.harness_domain import event_types

TYPES = event_types()
STORED = [
    (path.stem, msgspec.json.decode(path.read_bytes(), type=TYPES[path.stem]))
    for path in sorted(EVENTS.glob("*.json"))
]
BROADCAST = {"MenuAnnounced", "OffersAnnounced", "CampaignAnnounced"}
"""What a shop tells many at once."""


def kind_of(event: Event) -> str:
    """What a command that follows from the event changes at its target."""
    name = type(event).__name__
    if "Coupon" in name or "Offer" in name:
        return "coupons"
    return name if name in BROADCAST else "orders"


def targets(name: str, event: Event) -> set[tuple[str, str]]:
    """Streams of others that hear of a shop's event, each with what changes there."""
    sends = react("store:s1", event, "id")
    return {(send.stream, kind_of(event)) for send in sends if not send.stream.startswith("store:")}


def test_what_meets_at_a_table_or_a_user_keeps_its_order() -> None:
    """Each pair of a shop's events that change the same things at one table or user is in one lane; as an
    order's table comes first, this leaves out users' orders at tables.
    """
    shops = [(name, event) for name, event in STORED if name.startswith("store.")]
    shops += [
        (f"{name} at a table", msgspec.structs.replace(event, table="3", user=None))
        for name, event in shops
        if {"table", "user"} <= set(event.__struct_fields__)
    ]
    told = [(name, event, targets(name, event)) for name, event in shops]
    met = 0
    for name, event, to in told:
        for other_name, other, other_to in told:
            both = {
                target for target in to & other_to
                if not (target[0].startswith("user:") and _at_tables(event, other))
            }  # fmt: skip
            if both:
                met += name != other_name
                assert lane_of("store:s1", event) == lane_of("store:s1", other), (name, other_name, both)
    assert met > 50


def _at_tables(*events: Any) -> bool:
    return any(getattr(event, "table", None) is not None for event in events)


def test_tables_and_users_do_not_wait_for_each_other() -> None:
    """One lane for each of them, but in the shop they come from."""
    created = dict(STORED)["store.OrderCreated"]
    lanes = {
        lane_of(stream, msgspec.structs.replace(created, table=table, user=user))
        for stream in ("store:s1", "store:s2")
        for table, user in (("1", None), ("2", None), (None, "u1"), (None, "u2"))
    }
    assert len(lanes) == 8


@pytest.mark.parametrize("stream", ["table:s1/3", "user:u1"])
def test_what_a_table_says_keeps_its_order(stream: str) -> None:
    """It has only one shop to tell."""
    assert {lane_of(stream, event) for _, event in STORED} == {stream}
