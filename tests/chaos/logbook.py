"""Reads what a stopped server has left, on disk or in Redis, through the log's own reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from engine.log import Log
from engine.log.redis_shared import open_redis_log
from engine.log.wal import open_wal
from engine.opening import LOG
from tests import nodes


async def read_log(data: Path) -> list[dict[str, Any]]:
    """Every envelope that the log still keeps, in order (of each partition, where there are several); opening
    it checks its frames.
    """
    if nodes.several():
        async with open_redis_log(nodes.log_of(data), partitions=nodes.PARTITIONS) as shared:
            return [envelope for log in shared.partitions for envelope in await _read(log)]
    async with open_wal(str(data / LOG)) as log:
        return await _read(log)


async def _read(log: Log) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    position = log.first - 1
    while chunk := await log.read(position):
        position = chunk[-1][0]
        for _, entry in chunk:
            envelope = msgspec.json.decode(entry.body)
            assert (envelope["stream"], envelope["version"]) == (entry.stream, entry.version)
            records.append(envelope)
    assert position == log.head
    return records
