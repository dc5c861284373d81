"""What operators see and do where several nodes share a log: the same at each of them.

A partition's reactions run at the node on duty. It is asked how far they are; where nobody answers, the
last checkpoint says so. What they parked is in the checkpoint. It is handled again, or skipped, by the node
on duty, which holds up the records behind it; any other node asks it to, once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import trio

from engine import inspection
from engine.checkpoint import PARTITIONS_MAX
from engine.errors import NotTaken, Unavailable

if TYPE_CHECKING:  # redis-py takes its time to load
    from engine.cluster_redis import Cluster
    from engine.partition import Partition

REACTIONS = "reactions"
SETTLE = "settle"
"""What nodes ask each other."""

FIND_S = 8.0
"""How long a node on duty is looked for: when one dies another takes over within that time."""
AGAIN_S = 0.5

Row = dict[str, Any]


class Host(inspection.Host, Protocol):
    """What operators work on. `cluster`: the way to the other nodes, if there are any."""

    node_id: str
    cluster: Cluster | None


def answer_others(node: Host) -> None:
    """Answer what other nodes ask for their operators."""

    async def tell(_: Mapping[str, Any]) -> list[Row]:
        await trio.lowlevel.checkpoint()
        return _reactions_here(node)

    async def settle(words: Mapping[str, Any]) -> bool:
        return await _settle_here(node, words["id"], skip=words["skip"])

    if node.cluster is not None:
        node.cluster.handlers |= {REACTIONS: tell, SETTLE: settle}


async def reactions(node: Host) -> list[Row]:
    """Return each reaction of each partition: the node on duty, its position, how many records lie between
    that and the head, and how many it parked.

    Raises:
        Unavailable: the shared log does not answer.
    """
    if node.cluster is None:
        return inspection.reactions(node)
    rows = _reactions_here(node)
    for answer in (await node.cluster.ask_all(REACTIONS)).values():
        rows += answer
    told = {row["partition"] for row in rows}
    for number, partition in enumerate(node.partitions):
        if number not in told:
            rows += await _reactions_saved(number, partition)
    return sorted(rows, key=lambda row: (row["partition"], row["reaction"]))


def _reactions_here(node: Host) -> list[Row]:
    return [
        _row(number, node.node_id, one.name, one.position, partition.log.head, len(one.parked))
        for number, partition in enumerate(node.partitions)
        if partition.on_duty
        for one in partition.runners
    ]


async def _reactions_saved(number: int, partition: Partition) -> list[Row]:
    holder = await partition.node_on_duty()
    positions = await partition.checkpoint.positions()
    parked = Counter(one.reaction for one in await partition.checkpoint.parked())
    head = partition.log.head
    return [_row(number, holder, name, at, head, parked[name]) for name, at in positions.items()]


def _row(number: int, node: str | None, name: str, position: int, head: int, parked: int) -> Row:
    return {
        "partition": number,
        "node": node,
        "reaction": name,
        "position": position,
        "lag": max(0, head - position),
        "parked": parked,
    }


async def parked(node: Host) -> list[Row]:
    """Return what reactions gave up on; see `inspection.parked`.

    Raises:
        Unavailable: the shared log does not answer.
    """
    if node.cluster is None:
        return inspection.parked(node)
    rows: list[Row] = []
    for number, partition in enumerate(node.partitions):
        if stored := await partition.checkpoint.parked():
            where = {"partition": number, "node": await partition.node_on_duty()}
            rows += [inspection.show_parked(one) | where for one in stored]
    return rows


async def settle(node: Host, id: int, *, skip: bool) -> None:
    """Handle a parked record again, or skip it, at whichever node is on duty for it; raises as
    `inspection.resume_parked`, and

    Raises:
        Unavailable: no node is on duty for it, or it does not answer; nothing happened.
        UnknownOutcome: the node on duty took it, or may have, and gave no answer.
    """
    if node.cluster is None:
        await inspection.resume_parked(node, id, skip=skip)
        return
    partition = _partition_of(node, id)
    until_s = trio.current_time() + FIND_S
    while True:
        if all(one.id != id for one in await partition.checkpoint.parked()):
            raise KeyError(id)
        if await _settle_here(node, id, skip=skip):
            return
        try:
            holder = await partition.lease_holder()
            if holder is not None and await node.cluster.ask(holder, SETTLE, id=id, skip=skip):
                return
        except NotTaken:
            if trio.current_time() > until_s:
                raise
        if trio.current_time() > until_s:
            raise Unavailable("no node is on duty for it just now")
        await trio.sleep(AGAIN_S)


def _partition_of(node: Host, id: int) -> Partition:
    number = id % PARTITIONS_MAX
    if number >= len(node.partitions):
        raise KeyError(id)
    return node.partitions[number]


async def _settle_here(node: Host, id: int, *, skip: bool) -> bool:
    """Settle it if this node is on duty for it; return whether it is."""
    if not await _partition_of(node, id).is_surely_on_duty():
        return False
    await inspection.resume_parked(node, id, skip=skip)
    return True
