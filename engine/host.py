"""What an actor needs around it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from engine.answers import Answer
from engine.clock import Clock
from engine.config import Config
from engine.log import Log, SharedLog
from engine.mailbox import Committed
from engine.metrics import Metrics

if TYPE_CHECKING:
    from engine.actor import Actor


class Host(Protocol):
    """What an actor needs of its partition."""

    config: Config
    clock: Clock
    epoch: str
    log: Log
    metrics: Metrics
    counts: Counter[str]

    def appending(self, stream: str) -> None: ...

    def committed(self, records: Sequence[Committed], size: int) -> None: ...

    def arm(self, stream: str, due_ms: int | None) -> None: ...

    async def rebuild(self, actor: Actor) -> None: ...

    async def saved_answer(self, stream: str, key: str) -> Answer | None: ...


class SharedHost(Host, Protocol):
    """And when others append to the log, too."""

    log: SharedLog

    def asked(self, commands: int) -> None: ...
