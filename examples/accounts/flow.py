"""What follows from the ledger's events: snapshots are made, and their user is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine import Committed, Node, Reaction
from engine.commands import SendEvent
from engine.domain.contract import Command
from examples.accounts.ledger import GenerateSnapshots, SnapshotsGenerated


def reactions(node: Node) -> Sequence[Reaction]:
    """Return the plugin's reactions."""

    async def react(record: Committed) -> None:
        event: Any = record.event
        if isinstance(event, SnapshotsGenerated):
            data = {"snapshotCount": event.count, "timestamp": event.at, "serverId": node.node_id}
            await follow(record, f"user:{event.user}", SendEvent("snapshots.generated", data))
        else:
            await follow(record, record.stream, GenerateSnapshots(event.user))

    async def follow(record: Committed, stream: str, command: Command) -> None:
        # An id made of the record's: a record that is seen again after a crash has its effect once.
        await node.ask_inside(stream, command, by=record.stream, id=f"{record.id}.a", cause=record.id)

    return [Reaction("accounts", frozenset({"SnapshotsWanted", "SnapshotsGenerated"}), react)]
