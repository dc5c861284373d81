"""What events are called outside: `OrderPlaced` is `ORDER_PLACED`; where the name differs it stands here."""

from __future__ import annotations

import re

DIFFERENT = {
    "CampaignOpened": "EVENT_OPEN",
    "CampaignClosed": "EVENT_CLOSE",
}
"""Type of an event -> its name outside. Part of the contract with receivers: never change one."""


def outside_name(type_: str) -> str:
    """Return the name of an event's type outside, in upper snake case."""
    return DIFFERENT.get(type_) or re.sub(r"(?<!^)(?=[A-Z])", "_", type_).upper()
