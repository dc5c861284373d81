"""docs/scale.md says what the simulation and the arithmetic say."""

from __future__ import annotations

import itertools
import math
import re

import pytest

from benchmarks import partitions, sizing
from engine.config import Config
from tests.deploy.cluster import DEPLOY

PAGE = (DEPLOY.parent / "docs" / "scale.md").read_text()


@pytest.mark.parametrize("table", [partitions.partition_table, partitions.shard_table, sizing.table])
def test_the_tables_are_those_that_are_printed(table) -> None:
    """Line by line."""
    assert "\n\n" + "\n".join(table()) + "\n\n" in PAGE


def test_the_inputs_are_those_that_are_used() -> None:
    """Each row of the inputs has the value of the program, and each value has a row."""
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (\S+) \|", PAGE, re.MULTILINE))
    used = {
        name: str(value)
        for name, value in vars(sizing).items()
        if re.fullmatch(r"[A-Z_]+", name) and isinstance(value, int | float)
    }
    assert rows == {name: value for name, value in used.items() if name not in ("HOURS", "DAYS")}
    assert Config().connections_max == sizing.STREAMS_PER_NODE
    assert Config().ping_s == sizing.PING_S


def test_slots_are_those_of_redis() -> None:
    """The example of the Redis Cluster specification, and the range."""
    assert partitions.slot_of(b"123456789") == 0x31C3 % 16384
    assert all(0 <= partitions.slot_of(b"onda:%d" % number) < 16384 for number in range(4096))


def test_load_is_neither_lost_nor_made() -> None:
    """All shares together are one, over streams, partitions and shards."""
    streams = list(partitions.shops(100, 0.6, seed=1))
    loads = partitions.partition_loads(streams, 64)
    assert math.isclose(sum(load for _, load in streams), 1.0)
    assert math.isclose(sum(loads), 1.0)
    assert math.isclose(sum(partitions.shard_loads(loads, 6)), 1.0)


def test_one_shop_is_one_box_and_more_is_more() -> None:
    """No Redis and no proxy for one; nothing shrinks with the business."""
    sizes = [sizing.size(case) for case in sizing.CASES]
    assert (sizes[0].nodes, sizes[0].shards, sizes[0].proxies) == (1, 0, 0)
    for smaller, larger in itertools.pairwise(sizes):
        assert all(small <= large for small, large in zip(smaller, larger, strict=True))
    for each in sizes[1:]:
        assert each.nodes * sizing.STREAMS_PER_NODE >= each.streams + sizing.STREAMS_PER_NODE
