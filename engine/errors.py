"""Every error that Onda raises on purpose, in one tree with stable codes.

    OndaError
    ├─ Rejected(code)          the domain's rules say no; nothing happened (HTTP 422, or 403/404/409 by code)
    ├─ Malformed(field)        the command's bytes or fields do not fit its type
    ├─ IdempotencyMismatch     the command's id was used before with another body
    ├─ Conflict                the stream has moved on since the append was decided
    │  └─ Forked               what it was decided on is not in the log any more: forget it, read again
    ├─ Unavailable             nothing happened; try again later
    │  ├─ Overloaded           a mailbox or queue is full
    │  ├─ ReadOnly             the disk is full: reads work, appends come back with space
    │  ├─ LogAway              the shared log does not answer, or takes nothing just now
    │  ├─ Stopping             the node is draining
    │  └─ Unreachable          a target outside does not take what is sent to it just now
    ├─ Undelivered             a target outside does not want what was sent to it
    ├─ UnknownOutcome          it may or may not have happened: ask again with the same id
    ├─ Crashed                 a bug while handling this command; nothing happened
    ├─ CursorUnusable(reason)  the feed cannot be resumed from there; becomes `reset`
    ├─ Lagging                 a subscriber fell behind its feed's ring
    ├─ LogFailed               a disk call failed: the process must end, and the restart reads the truth
    ├─ LogCorrupt(file, offset)  acknowledged bytes are damaged: refuse to start (a torn tail is *not* this)
    ├─ LogLocked               another process owns the data folder
    ├─ LogTooNew               a newer Onda wrote this log
    └─ ConfigError             a setting, or two of them together, make no sense

The `code` of each is part of the contract on the wire. HTTP status codes live only in `web/handlers.py`.
The first line of a class's docstring is its message when none is given.
"""

from __future__ import annotations

from typing import ClassVar


class OndaError(Exception):
    """Something went wrong in Onda."""

    code: ClassVar[str] = "error"

    def __init__(self, detail: str = "") -> None:
        self.detail = detail or (type(self).__doc__ or "").partition("\n")[0]
        super().__init__(self.detail)


class Rejected(OndaError):
    """The rules forbid it.

    Unlike `Malformed`, the command was well formed; unlike `Crashed`, this is an expected answer.

    Args:
        code: stable, snake_case, part of the wire contract: `sold_out`, `table_closed` …
        detail: one sentence for people that says what to do.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(detail or code.replace("_", " "))
        self.code = code  # type: ignore[misc]


class Malformed(OndaError):
    """The command does not fit its type."""

    code = "malformed"


class IdempotencyMismatch(OndaError):
    """This idempotency key was used before with another body."""

    code = "idempotency_mismatch"


class Conflict(OndaError):
    """The stream has moved on since this was decided.

    Args:
        version: the stream's last version, if the log could say.
        id: and that record's id.
    """

    code = "conflict"

    def __init__(self, detail: str = "", version: int | None = None, id: str = "") -> None:
        super().__init__(detail)
        self.version = version
        self.id = id


class Forked(Conflict):
    """What this was decided on is not in the log any more.

    Unlike a plain `Conflict`, catching up is not enough: acknowledged records were lost, or may have been,
    and a new epoch begins.
    """


class Unavailable(OndaError):
    """Nothing happened; try again later."""

    code = "unavailable"
    retry_after_s: int = 1


class Overloaded(Unavailable):
    """Too much is waiting here already; try again in a moment."""

    code = "overloaded"


class ReadOnly(Unavailable):
    """The disk is full: reading works, orders come back when there is space."""

    code = "read_only"
    retry_after_s = 5


class LogAway(Unavailable):
    """The log cannot be reached just now; try again in a moment."""

    code = "log_unavailable"
    retry_after_s = 2


class Stopping(Unavailable):
    """The server is stopping; try again in a moment."""

    code = "log_unavailable"
    retry_after_s = 2


class NotTaken(Unavailable):
    """The node that was asked did not take it; nothing happened."""


class Renewed(Stopping):
    """What was followed begins anew, as its stream is read from the log again: come back with the cursor.

    Unlike a plain `Stopping`, the node goes on.
    """


class Unreachable(Unavailable):
    """The target outside cannot be reached, or takes nothing just now."""

    code = "unreachable"


class Undelivered(OndaError):
    """The target outside does not want this: the same again would be refused again."""

    code = "undelivered"


class UnknownOutcome(OndaError):
    """It is not known whether this happened: ask again with the same idempotency key."""

    code = "unknown_outcome"


class Crashed(OndaError):
    """A fault in the server while it handled this; nothing happened."""

    code = "internal"


class CursorUnusable(OndaError):
    """The feed cannot be resumed from this cursor.

    Args:
        reason: `expired` (too old), `epoch` (another log), `ahead` (of the head).
    """

    code = "cursor_unusable"

    def __init__(self, reason: str) -> None:
        super().__init__(f"cursor is {reason}")
        self.reason = reason


class Lagging(OndaError):
    """The subscriber fell behind what the feed keeps."""

    code = "lagging"


class LogFailed(OndaError):
    """The log's disk failed; the process must end."""

    code = "log_failed"


class LogCorrupt(OndaError):
    """Acknowledged records are damaged: refusing to start.

    Args:
        file: path of the damaged file.
        offset: byte in it where the first bad frame starts.
        why: which rule says that these bytes had been acknowledged.
    """

    code = "log_corrupt"

    def __init__(self, file: str, offset: int, why: str) -> None:
        super().__init__(f"{file} at byte {offset}: {why}")
        self.file = file
        self.offset = offset
        self.why = why


class LogLocked(OndaError):
    """Another process owns this data folder."""

    code = "log_locked"


class LogMoved(LogFailed):
    """The log is somewhere else now, or not all of it is here yet."""

    code = "log_moved"


class LogTooNew(OndaError):
    """A newer version of Onda wrote this log."""

    code = "log_too_new"


class ConfigError(OndaError):
    """A setting makes no sense."""

    code = "config"
