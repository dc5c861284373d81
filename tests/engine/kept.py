"""A disk that outlives its node, without a disk: one log in memory and one checkpoint file."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from engine import opening
from engine.checkpoint import Checkpoint
from engine.checkpoint_sqlite import open_checkpoint
from engine.config import Config
from engine.log.heads import Heads
from engine.log.memory import MemoryLog
from engine.metrics import Metrics
from engine.records import Entry


class KeptLog(MemoryLog):
    """A log that can be opened again; what was not durable is gone then."""

    def reopen(self) -> None:
        self.writable = True
        self._held = None
        self._failure = None
        self._failed = trio.Event()
        self._heads = Heads(complete=False)
        for entry in self._entries:
            self._heads.note(entry.stream, entry.version)

    @property
    def entries(self) -> list[Entry]:
        """What is kept."""
        return list(self._entries)


class Kept:
    """While it is in force, `open_node` opens nodes on this log and this checkpoint file."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, log: KeptLog | None = None) -> None:
        self.log = log or KeptLog()
        self._file = str(folder / "checkpoint.db")
        patch.setattr(opening, "_open_disk", self._open)

    async def _open(
        self, config: Config, stack: AsyncExitStack, metrics: Metrics
    ) -> tuple[Checkpoint, MemoryLog]:
        self.log.reopen()
        checkpoint = await open_checkpoint(self._file)
        stack.push_async_callback(checkpoint.close)
        return checkpoint, self.log


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    return Kept(tmp_path, monkeypatch)
