"""A customer who was recognized somewhere, by a beacon or a code: the fields of it, and what they must hold.

Each rule has a code of its own. An `event_id` names one sighting, so that it counts once.
"""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta, Struct

from engine.domain.times import read_time
from engine.errors import Rejected

TOPIC = "customer-events"
EVENT_TYPE = "CustomerIdentified"
VERSION = "v1"
LOCATION_CHARS_MAX = 100

_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\Z")
_CUSTOMER = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?Z\Z")

Text = Annotated[str, Meta(max_length=2_000)]


class Beacon(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """An iBeacon: `uuid`, `major` and `minor` 0 to 65535, `rssi` -127 to 20 (dBm)."""

    uuid: Text
    major: int
    minor: int
    rssi: int


class Sighting(Struct, frozen=True, gc=False):
    """A customer at a place, with a confidence of 0 to 1."""

    customer_id: str
    location: str
    confidence: float
    detected_at: str
    beacon: Beacon | None = None


def read_event_id(text: str) -> str:
    """Return an id as it is compared, in small letters.

    Raises:
        Rejected: `event_id_invalid`.
    """
    if not _UUID.match(text):
        raise Rejected("event_id_invalid", "`event_id` must be a UUID: 8-4-4-4-12 hexadecimal digits")
    return text.lower()


def read_utc(text: str) -> str:
    """Return a time in UTC with its milliseconds.

    Raises:
        Rejected: `time_invalid`.
    """
    if not _UTC.match(text):
        raise Rejected("time_invalid", "write times in UTC, to the millisecond: 2026-11-20T18:15:30.000Z")
    return read_time(text) or ""


def read_sighting(
    customer_id: str, location: str, confidence: float, detected_at: str, beacon: Beacon | None
) -> Sighting:
    """Check what somebody saw.

    Raises:
        Rejected: `customer_invalid`, `location_invalid`, `confidence_invalid`, `time_invalid`,
            `beacon_invalid`.
    """
    if not _CUSTOMER.match(customer_id):
        raise Rejected("customer_invalid", "`customer_id` has 1-64 characters of A-Z a-z 0-9 _ . -")
    if not 1 <= len(location.strip()) <= LOCATION_CHARS_MAX:
        raise Rejected("location_invalid", f"`location` has 1 to {LOCATION_CHARS_MAX} characters")
    if not 0.0 <= confidence <= 1.0:
        raise Rejected("confidence_invalid", "`confidence` is from 0.0 to 1.0")
    if beacon is not None:
        _check_beacon(beacon)
    return Sighting(customer_id, location.strip(), float(confidence), read_utc(detected_at), beacon)


def _check_beacon(beacon: Beacon) -> None:
    if not _UUID.match(beacon.uuid):
        raise Rejected("beacon_invalid", "`beacon.uuid` must be a UUID")
    if not (0 <= beacon.major <= 65_535 and 0 <= beacon.minor <= 65_535):
        raise Rejected("beacon_invalid", "`beacon.major` and `beacon.minor` are from 0 to 65535")
    if not -127 <= beacon.rssi <= 20:
        raise Rejected("beacon_invalid", "`beacon.rssi` is from -127 to 20")
