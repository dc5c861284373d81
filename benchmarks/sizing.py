"""How many nodes, shards and bytes does a number of shops and guests take, and what does it cost?

Arithmetic, nothing is measured here: inputs with their sources, and the formulas of docs/scale.md.

    python -m benchmarks.sizing

prints the tables of that page.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

# ---- inputs: how shops are (assumptions: put yours)
ORDERS_PER_DAY = 200
"""Of one shop."""

BUSIEST_HOUR = 0.2
"""Share of a day's orders in its busiest hour."""

BURST = 3.0
"""The busiest minute against the mean of that hour."""

SCREENS = 10
"""Open in one shop: till, board, tablets on tables."""

# ---- inputs: measured on 2-core machines, see the page
RECORDS_PER_ORDER = 16
COMMANDS_PER_ORDER = 5
RECORD_BYTES = 1256
RECORD_IN_REDIS_BYTES = 1043
COMMANDS_PER_NODE = 2500
"""Orders over HTTP, each durable and copied to its table, on 32 connections."""

FRAMES_PER_NODE = 500_000
"""To 10,000 screens, while another shop's commands take 12 ms at p99."""

STREAM_BYTES = 2 * 1024
PING_BYTES, PING_S = 120, 15
APPENDS_PER_SHARD = 12_000
"""With `appendfsync always`, 50 appends at a time."""

HEARD_S = 7e-6
"""Redis' time per append for each node that hears it."""

# ---- inputs: limits that we set
USED = 0.5
"""Share of what was measured that is planned with: the rest is for bursts, and for a node that is away."""

STREAMS_PER_NODE = 10_000
"""`connections_max`"""

STREAMS_PER_PROXY = 25_000
"""Below the 28,232 ports that a machine has by default towards one node."""

UNEVEN = 1.25
"""Load of the fullest shard against the mean, with 512 partitions or more (`benchmarks.partitions`)."""

NODES_PER_CELL = 16
KEPT_H = 1.0
"""Hours of records that Redis holds."""

FRAMES_PER_RECORD = 3.0
"""Screens that a record is sent to, in the mean: some of the shop's own, or one of the guest's or table's."""

# ---- inputs: list prices, US dollars
MACHINE_H = 0.0816
"""2 vCPU, 8 GB: m7g.large, us-east-1."""

EGRESS_GB = 0.09
HOURS, DAYS = 730, 30.4
"""In a month."""


class Case(NamedTuple):
    """A size of business. `guests`: phones that follow something at the same time."""

    name: str
    shops: int
    guests: int
    orders_per_day: int


CASES = (
    Case("1 shop", 1, 20, ORDERS_PER_DAY),
    Case("100 shops", 100, 2_000, 100 * ORDERS_PER_DAY),
    Case("10,000 shops", 10_000, 200_000, 10_000 * ORDERS_PER_DAY),
    Case("10 M users, 5 % at once", 25_000, 500_000, 5_000_000),
    Case("10 M users, all at once", 25_000, 10_000_000, 10_000_000),
)


class Size(NamedTuple):
    """What a case takes, by the formulas of the page."""

    orders_s: float
    records_s: float
    streams: int
    streams_gb: float
    frames_s: float
    nodes: int
    cells: int
    shards: int
    proxies: int
    log_gb_day: float
    redis_gb: float
    egress_mb_s: float
    machines_usd: float
    egress_usd: float


def size(case: Case) -> Size:
    """Work a case out."""
    orders_s = case.orders_per_day * BUSIEST_HOUR / 3600 * BURST
    records_s = orders_s * RECORDS_PER_ORDER
    streams = case.shops * SCREENS + case.guests
    frames_s = records_s * FRAMES_PER_RECORD
    wanted = max(
        orders_s * COMMANDS_PER_ORDER / (COMMANDS_PER_NODE * USED),
        frames_s / (FRAMES_PER_NODE * USED),
        streams / STREAMS_PER_NODE,
    )
    one_box = case.shops == 1
    nodes = 1 if one_box else ceil(wanted) + 1  # one may be away
    cells = ceil(nodes / NODES_PER_CELL)
    heard_s = ceil(nodes / cells) * HEARD_S
    in_cell = records_s / cells * (1 / APPENDS_PER_SHARD + heard_s) / USED
    shards = 0 if one_box else cells * ceil(in_cell if in_cell <= 1 else in_cell * UNEVEN)
    proxies = 0 if one_box else ceil(streams / STREAMS_PER_PROXY) + 1
    bytes_s = frames_s * RECORD_BYTES + streams * PING_BYTES / PING_S
    day = case.orders_per_day * RECORDS_PER_ORDER
    per_day = day * FRAMES_PER_RECORD * RECORD_BYTES + streams * PING_BYTES / PING_S * 86_400 / 4
    return Size(
        orders_s=orders_s,
        records_s=records_s,
        streams=streams,
        streams_gb=streams * STREAM_BYTES / 1e9,
        frames_s=frames_s,
        nodes=nodes,
        cells=0 if one_box else cells,
        shards=shards,
        proxies=proxies,
        log_gb_day=day * RECORD_BYTES / 1e9,
        redis_gb=0.0 if one_box else day * BUSIEST_HOUR * KEPT_H * RECORD_IN_REDIS_BYTES / 1e9,
        egress_mb_s=bytes_s / 1e6,
        # A shard is two machines: it has a replica.
        machines_usd=0.0 if one_box else (nodes + proxies + 2 * shards) * MACHINE_H * HOURS,
        egress_usd=0.0 if one_box else per_day / 1e9 * DAYS * EGRESS_GB,
    )


COLUMNS: tuple[tuple[str, str], ...] = (
    ("orders/s, busiest minute", "orders_s"),
    ("records/s", "records_s"),
    ("streams", "streams"),
    ("their memory on nodes, GB", "streams_gb"),
    ("frames/s", "frames_s"),
    ("nodes", "nodes"),
    ("cells", "cells"),
    ("Redis shards", "shards"),
    ("proxies", "proxies"),
    ("log, GB a day", "log_gb_day"),
    ("Redis, GB", "redis_gb"),
    ("to clients, MB/s", "egress_mb_s"),
    ("machines, $ a month", "machines_usd"),
    ("traffic, $ a month", "egress_usd"),
)


def table() -> list[str]:
    """All cases, as lines of Markdown."""
    lines = [_row("", *(case.name for case in CASES)), "|---" * (len(CASES) + 1) + "|"]
    sizes = [size(case) for case in CASES]
    lines += [_row(title, *(_cell(getattr(each, name)) for each in sizes)) for title, name in COLUMNS]
    return lines


def _cell(value: float) -> str:
    if value == 0:
        return "–"
    if isinstance(value, int) or value >= 100:
        return f"{round(value):,}"
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


if __name__ == "__main__":
    print("\n".join(table()))
