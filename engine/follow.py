"""The shop's own flow: commands to other actors that follow from records (`engine.domain.reactions`).

Each command carries an id made from the record's, so a record that is handled twice has its effect once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from engine.answers import Answer
from engine.domain.contract import Command, Send
from engine.domain.reactions import FOLLOWED, lane_of, react
from engine.mailbox import Committed
from engine.reactions import Reaction
from engine.waiting import Notice


class Host(Protocol):
    """What the flow needs of its node."""

    async def ask_inside(
        self, stream: str, command: Command, *, by: str, id: str | None, cause: str | None
    ) -> Answer: ...

    def post(
        self, stream: str, command: Command, by: str, id: str | None, cause: str | None, reply: Notice
    ) -> None: ...


class Follow:
    """Sends the commands that follow from a record."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._last: tuple[str, list[Send]] = ("", [])
        self.reaction = Reaction("follow", FOLLOWED, self._handle, self._wants, self._lane, start=self._start)

    def _sends(self, record: Committed) -> list[Send]:
        """Return what follows; asked for twice in a row, as a rule: is it wanted, and what is it?"""
        if self._last[0] != record.id:
            self._last = (record.id, react(record.stream, record.event, record.id))
        return self._last[1]

    def _wants(self, record: Committed) -> bool:
        return bool(self._sends(record))

    def _lane(self, record: Committed) -> str:
        return lane_of(record.stream, record.event)

    async def _handle(self, record: Committed) -> None:
        for number, send in enumerate(self._sends(record)):
            await self._host.ask_inside(
                send.stream, send.command, by=record.stream, id=f"{record.id}.{number}", cause=record.id
            )

    def _start(self, record: Committed, done: Callable[[Exception | None], None]) -> None:
        self._post(record, self._sends(record), 0, done, None)

    def _post(
        self,
        record: Committed,
        sends: list[Send],
        number: int,
        done: Callable[[Exception | None], None],
        error: Exception | None,
    ) -> None:
        """Send the command of this number, and the next one once it is answered."""
        if error is not None or number == len(sends):
            done(error)
            return
        stream, command = sends[number]
        notice = Notice(partial(self._post, record, sends, number + 1, done))
        try:
            self._host.post(stream, command, record.stream, f"{record.id}.{number}", record.id, notice)
        except Exception as refusal:  # noqa: BLE001 - whatever it is, the reaction tells what comes of it
            done(refusal)
