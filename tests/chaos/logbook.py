"""Reads what a stopped server has left on disk, through the log's own reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from engine.log.wal import open_wal
from engine.opening import LOG


async def read_log(data: Path) -> list[dict[str, Any]]:
    """Every envelope that the log still keeps, in order; opening it checks its frames."""
    records: list[dict[str, Any]] = []
    async with open_wal(str(data / LOG)) as log:
        position = log.first - 1
        while chunk := await log.read(position):
            position = chunk[-1][0]
            for _, entry in chunk:
                envelope = msgspec.json.decode(entry.body)
                assert (envelope["stream"], envelope["version"]) == (entry.stream, entry.version)
                records.append(envelope)
        assert position == log.head
    return records
