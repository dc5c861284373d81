"""The storage format: what a shop has on its disk today can be read for ever."""

import json

import msgspec
import pytest

from tests.golden.record import EVENTS, evening
from tests.harness_domain import STREAM_OF, Stream, event_types, plain

STORED = sorted(EVENTS.glob("*.json"))
TYPES = event_types()


def test_every_event_type_has_an_example():
    """After a new event: `python -m tests.golden.record`."""
    assert {path.stem for path in STORED} >= set(TYPES)


def test_no_event_type_is_renamed_or_gone():
    """A type that was stored once is known for ever."""
    assert {path.stem for path in STORED} <= set(TYPES)


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_a_stored_event_is_read_and_means_the_same(path):
    """Each stored field comes back with its value; what is new has a default."""
    stored = path.read_bytes()
    event = msgspec.json.decode(stored, type=TYPES[path.stem])
    missing = differences(json.loads(stored), plain(event))
    assert not missing, f"not read back: {missing}"
    Stream(STREAM_OF[path.stem.partition(".")[0]]).evolve(event)


def test_an_evening_has_every_event():
    """The examples are made of commands, not by hand, so that they look like real ones."""
    assert set(evening()) == set(TYPES)


def differences(stored, read, where="event"):
    """Return the places at which `read` lacks what `stored` has."""
    if isinstance(stored, dict) and isinstance(read, dict):
        return [
            place
            for key in stored
            for place in (
                differences(stored[key], read[key], f"{where}.{key}") if key in read else [f"{where}.{key}"]
            )
        ]
    if isinstance(stored, list) and isinstance(read, list) and len(stored) == len(read):
        return [
            place
            for number, (one, other) in enumerate(zip(stored, read, strict=True))
            for place in differences(one, other, f"{where}[{number}]")
        ]
    return [] if stored == read else [where]


@pytest.mark.parametrize(
    ("stored", "read", "places"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, []),
        ({"a": 1}, {"b": 1}, ["event.a"]),
        ({"a": [{"b": 1}]}, {"a": [{"b": 2, "c": 3}]}, ["event.a[0].b"]),
        ({"a": [1]}, {"a": [1, 2]}, ["event.a"]),
    ],
)
def test_the_comparison_itself(stored, read, places):
    """New fields are fine, lost or changed ones are not."""
    assert differences(stored, read) == places
