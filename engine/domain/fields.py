"""Types of the fields of commands, with their sizes and patterns.

Two kinds of id: `Id` names something new and has to fit its pattern; `Ref` names something that has to be
there already, so the look-up is the check and the hot path is spared a regular expression.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

_ID = r"^[A-Za-z0-9_.-]{1,%d}(?!\n)$"

Id = Annotated[str, Meta(pattern=_ID % 64)]
TableId = Annotated[str, Meta(pattern=_ID % 48)]
"""Shorter than other ids, because the ids of a table's orders and lines are made of it."""
Ref = Annotated[str, Meta(min_length=1, max_length=64)]

Name = Annotated[str, Meta(min_length=1, max_length=200)]
Label = Annotated[str, Meta(max_length=200)]
Note = Annotated[str, Meta(max_length=500)]
Reason = Annotated[str, Meta(min_length=1, max_length=500)]
Body = Annotated[str, Meta(max_length=2_000)]

Time = Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?Z(?!\n)$")]
"""RFC 3339, UTC, to the millisecond; `engine.domain.times` reads it."""

Quantity = Annotated[int, Meta(ge=1, le=999)]
Amount = Annotated[int, Meta(ge=1, le=10**13)]
Price = Annotated[int, Meta(ge=0, le=100_000_000)]
Stock = Annotated[int, Meta(ge=0, le=1_000_000)]
Delta = Annotated[int, Meta(ge=-1_000_000, le=1_000_000)]
CouponStock = Annotated[int, Meta(ge=1, le=1_000_000)]
Guests = Annotated[int, Meta(ge=1, le=999)]
HoldSeconds = Annotated[int, Meta(ge=1, le=3600)]

PaymentMode = Literal["prepay", "postpay"]
CallKind = Literal["water", "cutlery", "bill", "other"]
Stage = Literal["READY", "SERVED"]
