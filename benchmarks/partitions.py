"""How evenly is load spread over partitions, and partitions over shards of a Redis Cluster?

A simulation, nothing is measured: shops whose sizes follow a Zipf-like law (the shop of rank r has r ** -s of
the largest one's load), and the two hashes that are really used: a stream is in the partition that
`engine.log.partition_of` says, a shop's tables with the shop, and Redis puts the keys `{onda:p}:…` into slot
`crc16("onda:p") % 16384`, of which each shard has an equal range. Half of a shop's load is on its own stream,
a quarter on those of its tables, a quarter on guests'.

    python -m benchmarks.partitions

prints the tables of docs/scale.md. Seeds are fixed, so it prints the same everywhere.
"""

from __future__ import annotations

import binascii
import random
from collections.abc import Iterator, Sequence
from statistics import median

from engine.log import partition_of

PARTITIONS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
SHARDS = (3, 6, 12, 24, 48)
SLOTS = 16384
"""Slots of a Redis Cluster."""

CASES = (("100 shops", 100, 0.6), ("10,000 shops", 10_000, 0.6), ("10,000, steep", 10_000, 1.0))
"""What a column is called, how many shops, and s."""

SEEDS = (1, 2, 3)
GUESTS = 4
"""Guests of one shop; many would only be smoother."""

STORE_SHARE, TABLES_SHARE, GUESTS_SHARE = 0.5, 0.25, 0.25


def main() -> None:
    """Print both tables."""
    print("\n".join(partition_table()), end="\n\n")
    print("\n".join(shard_table()))


def partition_table() -> list[str]:
    """Max over mean of the partitions' load, by P; the median over the seeds. Lines of Markdown."""
    lines = [_row("P", *(name for name, _, _ in CASES), "largest shop alone, 10,000"), "|---" * 5 + "|"]
    loads = {name: [list(shops(many, s, seed)) for seed in SEEDS] for name, many, s in CASES}
    _, many, s = CASES[1]
    largest = (STORE_SHARE + TABLES_SHARE) / sum(rank**-s for rank in range(1, many + 1))
    for count in PARTITIONS:
        found = [
            median(max(partition_loads(streams, count)) * count for streams in loads[name])
            for name, _, _ in CASES
        ]
        lines.append(_row(count, *(f"{value:.2f}" for value in found), f"{largest * count:.2f}"))
    return lines


def shard_table() -> list[str]:
    """Max over mean of the shards' load with 10,000 shops, by P and the number of shards; the median over the
    seeds.
    """
    lines = [_row("P", *(f"{many} shards" for many in SHARDS)), "|---" * (len(SHARDS) + 1) + "|"]
    _, many, s = CASES[1]
    seeded = [list(shops(many, s, seed)) for seed in SEEDS]
    for count in PARTITIONS:
        loads = [partition_loads(streams, count) for streams in seeded]
        found = [median(max(shard_loads(each, shards)) * shards for each in loads) for shards in SHARDS]
        lines.append(_row(count, *(f"{value:.2f}" for value in found)))
    return lines


def shops(many: int, s: float, seed: int) -> Iterator[tuple[int, float]]:
    """Yield each place as the hash of its name and its share of all load. Names are drawn with the seed."""
    names = random.Random(seed).sample(range(10**8), many)
    total = sum(rank**-s for rank in range(1, many + 1))
    for rank, name in enumerate(names, 1):
        load = rank**-s / total
        yield _hash(f"store:s{name}"), load * (STORE_SHARE + TABLES_SHARE)
        for guest in range(GUESTS):
            yield _hash(f"user:u{name}-{guest}"), load * GUESTS_SHARE / GUESTS


def _hash(place: str) -> int:
    return partition_of(place, 1 << 15)  # all the bits that it takes


def partition_loads(streams: Sequence[tuple[int, float]], count: int) -> list[float]:
    """The share of all load that each of so many partitions has."""
    loads = [0.0] * count
    for hashed, load in streams:
        loads[hashed % count] += load
    return loads


def shard_loads(partitions: Sequence[float], shards: int) -> list[float]:
    """The share of all load that each shard has."""
    loads = [0.0] * shards
    for partition, load in enumerate(partitions):
        loads[slot_of(b"onda:%d" % partition) * shards // SLOTS] += load
    return loads


def slot_of(tag: bytes) -> int:
    """The slot in a Redis Cluster of every key with this between its braces."""
    return binascii.crc_hqx(tag, 0) % SLOTS  # CRC-16/XMODEM, as Redis has it


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


if __name__ == "__main__":
    main()
