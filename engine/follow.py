"""The shop's own flow: commands to other actors that follow from records (`engine.domain.reactions`).

Each command carries an id made from the record's, so a record that is handled twice has its effect once.
"""

from __future__ import annotations

from typing import Protocol

from engine.answers import Answer
from engine.domain.contract import Command
from engine.domain.reactions import FOLLOWED, lane_of, react
from engine.mailbox import Committed
from engine.reactions import Reaction


class Host(Protocol):
    """What the flow needs of its node."""

    async def ask_inside(
        self, stream: str, command: Command, *, by: str, id: str | None, cause: str | None
    ) -> Answer: ...


class Follow:
    """Sends the commands that follow from a record."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.reaction = Reaction("follow", FOLLOWED, self._handle, self._wants, self._lane)

    def _wants(self, record: Committed) -> bool:
        return bool(react(record.stream, record.event, record.id))

    def _lane(self, record: Committed) -> str:
        return lane_of(record.stream, record.event)

    async def _handle(self, record: Committed) -> None:
        for number, send in enumerate(react(record.stream, record.event, record.id)):
            await self._host.ask_inside(
                send.stream, send.command, by=record.stream, id=f"{record.id}.{number}", cause=record.id
            )
