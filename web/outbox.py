"""Commands that wait for a network: bounded, in order, and on disk when there is a file.

The file holds one JSON line per command put in and one per command settled; a line that does not end in a
newline was torn by a crash and never counted. When nothing is left the file is emptied, so it stays short.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import trio

from web.exchange import ClientError, Refused, Reply

COMMANDS_MAX = 1000
"""Bound of the queue: some hours of orders of a busy shop."""

UNAUTHORIZED_PAUSE_S = 5.0
"""How long the queue rests when the token is not good (any more)."""


class QueueFull(ClientError):
    """The outbox holds as many commands as it may; this one was not taken."""


class Unsent(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of the file: a command, or (`settled`) the mark that it needs no more sending."""

    key: str
    path: str = ""
    body: str = ""
    settled: bool = False


class Outbox:
    """A queue of commands, sent one after the other.

    Args:
        file: where it outlives the process; in memory only when None.
        commands_max: bound of the queue.
    """

    def __init__(self, file: Path | None = None, commands_max: int = COMMANDS_MAX) -> None:
        self._file = file
        self._commands_max = commands_max
        self._waiting: dict[str, Unsent] = _load(file) if file else {}
        self._changed = trio.Event()
        self._writing = trio.Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    async def put(self, key: str, path: str, content: bytes) -> None:
        """Take a command in; it is on disk when this returns. A key that is waiting already is taken once.

        Raises:
            QueueFull: no room; nothing was taken.
        """
        unsent = Unsent(key, path, content.decode())
        async with self._writing:
            if key in self._waiting:
                return
            if len(self._waiting) >= self._commands_max:
                raise QueueFull(f"{self._commands_max} commands are waiting to be sent already")
            await self._write(unsent)
            self._waiting[key] = unsent
        self._wake()

    async def wait_empty(self) -> None:
        """Wait until everything has been settled."""
        while self._waiting:
            await self._changed.wait()

    async def run(
        self,
        send: Callable[[str, bytes, str], Awaitable[Reply]],
        on_settled: Callable[[str, Reply | Refused], None] | None,
    ) -> None:
        """Send what is waiting, oldest first, for ever; a refusal settles a command as an answer does."""
        while True:
            while not self._waiting:
                await self._changed.wait()
            unsent = next(iter(self._waiting.values()))
            outcome: Reply | Refused
            try:
                outcome = await send(unsent.path, unsent.body.encode(), unsent.key)
            except Refused as refused:
                if refused.status == 401:  # says nothing about the command: a fresh token may come
                    await trio.sleep(UNAUTHORIZED_PAUSE_S)
                    continue
                outcome = refused
            if on_settled is not None:
                on_settled(unsent.key, outcome)
            async with self._writing:
                del self._waiting[unsent.key]
                await self._write(Unsent(unsent.key, settled=True))
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _write(self, line: Unsent) -> None:
        if self._file is not None:
            empty = line.settled and not self._waiting
            await trio.to_thread.run_sync(_append, self._file, b"" if empty else _encode(line))


def _encode(line: Unsent) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def _append(file: Path, line: bytes) -> None:
    """Add a line and make it durable; an empty one empties the file."""
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | (0 if line else os.O_TRUNC), 0o600)
    try:
        while line:
            line = line[os.write(fd, line) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def _load(file: Path) -> dict[str, Unsent]:
    """Read what is unsettled, and write the file anew with only that: no new line may run into a torn one."""
    waiting: dict[str, Unsent] = {}
    *lines, _torn = (file.read_bytes() if file.exists() else b"").split(b"\n")
    for line in lines:
        unsent = msgspec.json.decode(line, type=Unsent)
        if unsent.settled:
            waiting.pop(unsent.key, None)
        else:
            waiting[unsent.key] = unsent
    fresh = file.with_name(file.name + ".new")
    fresh.unlink(missing_ok=True)
    _append(fresh, b"".join(_encode(unsent) for unsent in waiting.values()))
    fresh.replace(file)
    if hasattr(os, "O_DIRECTORY"):  # a new name is durable only when its folder is
        folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return waiting
