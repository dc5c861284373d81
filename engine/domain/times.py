"""Times as text, RFC 3339 UTC with milliseconds, and back. Pure: nothing here asks a clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

from engine.errors import Rejected

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")


@lru_cache(maxsize=64)
def _second_ms(text: str) -> int:
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)


def to_text(ms: int) -> str:
    """Return `2026-11-20T18:15:30.123Z` for a count of ms since 1970."""
    seconds, rest = divmod(ms, 1000)
    return f"{_second(seconds)}.{rest:03d}Z"


def to_ms(text: str) -> int:
    """Return ms since 1970 for RFC 3339 text.

    Raises:
        ValueError: not a time, or one without a zone.
    """
    if len(text) == 24 and text[4] == "-" and text[16] == ":" and text[19] == "." and text[23] == "Z":
        rest = text[20:23]  # as `to_text` writes it: on the path of every replay
        if rest.isdecimal() and rest.isascii():
            return _second_ms(text[:19]) + int(rest)
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time needs its zone")
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def read_time(text: str | None) -> str | None:
    """Return a time from a command as it is kept, with all three digits of its ms; None stays None.

    Raises:
        Rejected: `time_invalid`.
    """
    if text is None:
        return None
    try:
        ms = to_ms(text)
    except ValueError:
        ms = -1
    if ms < 0:
        raise Rejected("time_invalid", f"{text} is no time since 1970: write 2026-11-20T18:15:30.000Z")
    return to_text(ms)
