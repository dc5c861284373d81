"""Messages to the user, of which the last are kept."""

from __future__ import annotations

from typing import ClassVar

from engine.domain import contract
from engine.domain.contract import Context
from engine.domain.fields import Body, Name, Note
from engine.domain.user.state import Notice, State, oldest

NOTICES_MAX = 100


class Notify(contract.Command, frozen=True):
    """Show the user a message: `title`, `body`, and a `link` to where it leads."""

    allowed: ClassVar = frozenset({"service"})
    title: Name
    body: Body = ""
    link: Note = ""


class NoticeAdded(contract.Event, frozen=True):
    """The user was told something. Those in `dropped` are shown no longer."""

    notice: str
    title: str
    at: str
    body: str = ""
    link: str = ""
    dropped: tuple[str, ...] = ()


Command = Notify
Event = NoticeAdded


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Return the notice; the oldest make room for it."""
    name = f"n{state.notices_made + 1}"
    dropped = oldest(state.notices, NOTICES_MAX)
    return [NoticeAdded(name, command.title, context.now, command.body, command.link, dropped)]


def evolve(state: State, event: Event) -> None:
    """Add the notice."""
    state.notices_made += 1
    for old in event.dropped:
        state.notices.pop(old, None)
    state.notices[event.notice] = Notice(event.notice, event.title, event.body, event.link, event.at)


def touched(event: Event) -> list[tuple[str, str]]:
    """Name the notices that came and went."""
    return [("notices", event.notice), *(("notices", old) for old in event.dropped)]
