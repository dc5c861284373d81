"""The blocks of a progress stream: `recovery` for how far tasks are, then `progress` for each event.

The feed is subscribed to before the state is looked at, and what the state held by then is passed over in the
feed: nothing is missed, and nothing comes twice. A block's id is that of its event, and these sort by time;
so a client that comes back says what it has seen, across restarts too. It is told again where each task is
that has not ended, and those that ended meanwhile; who brings no id also learns of the task that ended last.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import msgspec

from engine import Subscription
from engine.codec import decode_envelope, decode_event
from engine.domain.user.state import State
from engine.domain.user.tasks import OVER, STATUS
from engine.errors import Lagging, Stopping, Unavailable
from engine.records import stream_name
from web.progress_events import Shown, in_order, mark_shown, report_shown
from web.site import Site
from web.sources import TAKE_MAX

RETRY_MS = 1_000
"""After which browsers come back when the connection is lost."""

_TYPES = {kind.__name__ for kind in STATUS}
_EVENT_ID = re.compile(r"[0-9a-f-]{36}\Z")


class ProgressSource:
    """The progress of one user, or of one task of theirs."""

    def __init__(self, site: Site, subscription: Subscription, user: str, task: str | None) -> None:
        self._site = site
        self._subscription = subscription
        self._user = user
        self._task = task
        self._passed = 0
        self._recovery: list[Shown] = []
        self._open = True
        site.watchers[user] += 1

    async def look(self, seen: str) -> None:
        """Take note of how far tasks are; `seen`: id of the last event that the client has, or ""."""
        node, user = self._site.node, self._user
        stream = stream_name("user", user)
        if seen:  # at another node, maybe
            with suppress(Unavailable):  # then as far as is known here
                await node.catch_up(stream)
        self._passed, self._recovery = await node.examine(
            stream, lambda state, version: (version, recovery(state, user, self._task, seen))
        )

    def opening(self) -> bytes:
        return b"retry:%d\n\n" % RETRY_MS + b"".join(_block("recovery", event) for event in self._recovery)

    def take(self) -> list[bytes]:
        blocks = []
        for frame in self._subscription.take(TAKE_MAX):
            if frame.version <= self._passed or frame.type not in _TYPES:
                continue
            report: Any = decode_event("user", frame.type, decode_envelope(frame.body).data)
            event = report_shown(self._user, report)
            if self._task in (None, event["taskId"]):
                blocks.append(_block("progress", event))
        return blocks

    async def wait(self) -> None:
        with suppress(Stopping, Lagging):  # `take` raises it again
            await self._subscription.wait()

    @property
    def cursor(self) -> str:
        return str(self._subscription.cursor)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._site.watchers[self._user] -= 1
            if not self._site.watchers[self._user]:
                del self._site.watchers[self._user]
        self._subscription.close()


async def open_progress(site: Site, user: str, task: str | None, seen: str) -> ProgressSource:
    """Follow the progress of a user, or of one task; `seen` is the client's Last-Event-ID.

    Raises:
        Stopping: the node is going down.
    """
    subscription = await site.node.subscribe(stream_name("user", user))
    source = ProgressSource(site, subscription, user, task)
    try:
        await source.look(seen if _EVENT_ID.match(seen) else "")
    except BaseException:
        source.close()
        raise
    return source


def recovery(state: State, user: str, only: str | None, seen: str) -> list[Shown]:
    """Return the newest event of each task that the client has to know of, oldest first."""
    tasks = [task for name, task in state.tasks.items() if only in (None, name)]
    ended = [task for task in tasks if task.status in OVER]
    newest = sorted(ended, key=lambda task: task.event)[-1:]
    missed = [task for task in ended if task.event > seen] if seen else newest
    known = [task for task in tasks if task.status not in OVER] + missed
    return in_order(
        mark_shown(user, task.task, task.total_steps, state.marks[task.task][-1]) for task in known
    )


def _block(name: str, event: Shown) -> bytes:
    data = msgspec.json.encode(event)  # has no newlines
    return b"id:%s\nevent:%s\ndata:%s\n\n" % (str(event["eventId"]).encode(), name.encode(), data)
