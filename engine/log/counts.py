"""What a log has done since it was opened, for operators."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

logger = logging.getLogger("onda.log")

SLOW_SYNC_S = 1.0


@dataclass
class Counts:
    """Counters; seconds are those of a write and its sync together.

    Attributes:
        batches: frames written, seals included.
        refused: appends that nothing came of: read-only, overloaded, failed or closed.
        slow_syncs: batches that took longer than a second.
    """

    appends: int = 0
    entries: int = 0
    batches: int = 0
    seals: int = 0
    appended_bytes: int = 0
    refused: int = 0
    sync_s: float = 0.0
    sync_s_max: float = 0.0
    slow_syncs: int = 0

    def note_batch(self, appends: int, entries: int, size: int, seconds: float) -> None:
        """Count one frame that is durable now; without entries it is a seal."""
        self.batches += 1
        self.appends += appends
        self.entries += entries
        self.appended_bytes += size
        self.seals += not entries
        self.sync_s += seconds
        self.sync_s_max = max(self.sync_s_max, seconds)
        if seconds > SLOW_SYNC_S:
            self.slow_syncs += 1
            logger.warning("the disk took %.1f s to sync %d entries", seconds, entries)

    def as_dict(self) -> dict[str, Any]:
        """Return all of them by name."""
        return asdict(self)


OnSync = Callable[[float, int], object]
"""Told the seconds and entries of every batch."""
