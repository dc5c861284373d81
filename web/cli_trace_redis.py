"""What `onda trace` reads of a log in Redis: the records that are kept, and how far reactions are."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from engine.checkpoint import Parked
from engine.history.places import offset_of
from engine.log import partition_of
from engine.log.redis_kept import KeptLog
from web.cli_trace import Record, read_record


def read_records(kept: KeptLog) -> Iterator[Record]:
    """Yield every record that is kept, with positions as the history has them."""
    for number in range(kept.partitions):
        for position, entry in kept.read(number, kept.look(number)):
            yield read_record(offset_of(number) + position, entry.body)


def read_reached(kept: KeptLog, stream: str) -> tuple[dict[str, int], dict[tuple[str, int], str]]:
    """Return how far reactions are in the partition of a stream, and what is parked there."""
    number = partition_of(stream, kept.partitions)
    offset, tag = offset_of(number), f"{{onda:{number}}}"
    found = kept.ask(number, "HGETALL", f"{tag}:positions")
    names = [name.decode() for name in found[::2]]
    reached = dict(zip(names, (offset + int(position) for position in found[1::2]), strict=True))
    parked = {}
    for packed in kept.ask(number, "HVALS", f"{tag}:parked"):
        one = msgspec.msgpack.decode(packed, type=Parked)
        parked[one.reaction, offset + one.position] = one.error
    return reached, parked
