"""Campaigns as the shop and its tables both know them."""

from __future__ import annotations

from msgspec import Struct

from engine.domain.fields import Price, Ref

SCHEDULED, OPEN, CLOSED, CANCELLED = "SCHEDULED", "OPEN", "CLOSED", "CANCELLED"


class CampaignPrice(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What a product costs, without its options, while the campaign is open."""

    product: Ref
    price: Price


class CampaignNote(Struct, frozen=True, gc=False):
    """What a table knows of a campaign that is open or will be: enough for a countdown."""

    campaign: str
    name: str
    open: bool
    opens_at: str
    closes_at: str | None
