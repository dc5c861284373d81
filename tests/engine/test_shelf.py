"""The shelf: what it keeps decoded is bounded."""

from __future__ import annotations

import pytest

from engine import MEMORY, Config, Message, open_node, shelf


async def test_large_records_are_not_all_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """By bytes too, over all partitions; what is not kept is read again."""
    monkeypatch.setattr(shelf, "KEPT_BYTES_MAX", 200_000)
    async with open_node(Config(data=MEMORY)) as node:
        for number in range(40):
            await node.publish("news", [Message("x" * 20_000, f"k{number % 7}", event_id=f"e{number}")])
        found = 0
        for number in range(3):
            stream = f"topic:news/{number}"
            for after in range(await node.topics.shelf.head(stream)):
                found += len(await node.topics.shelf.read(stream, after, 1))
            assert await node.topics.shelf.read(stream, 0, 100)
            assert node.topics.shelf.kept_bytes <= 200_000
        assert found == 40
