"""Revoked tokens go along: in a folder they are a file, beside the log in Redis a sorted set."""

from __future__ import annotations

import os
from contextlib import closing
from itertools import islice
from pathlib import Path

from engine.clock import SystemClock
from engine.cluster_redis import REVOCATIONS, REVOKED
from engine.migrating.shared import Shared
from engine.revocations import FILE, read_revoked, write_revoked

AT_ONCE = 500


def put_revoked(data: str, shared: Shared) -> None:
    """Write the tokens that are revoked in a folder beside a log that nobody has opened yet."""
    rest = iter(read_revoked(Path(data) / FILE, SystemClock().now_ms()).items())
    while some := list(islice(rest, AT_ONCE)):
        words = [word for token, end_ms in some for word in (end_ms, token)]
        shared.call(0, [("ZADD", REVOKED, *words)])
    shared.call(0, [("SET", REVOCATIONS, os.urandom(8).hex())])


def take_revoked(data: str, shared: Shared) -> int:
    """Add the tokens that are revoked beside a log to those of a folder; return how many were new there."""
    path, now_ms = Path(data) / FILE, SystemClock().now_ms()
    known = read_revoked(path, now_ms)
    (found,) = shared.call(0, [("ZRANGE", REVOKED, 0, -1, "WITHSCORES")])
    told = {token.decode(): int(float(end)) for token, end in zip(found[::2], found[1::2], strict=True)}
    fresh = {token: end_ms for token, end_ms in told.items() if end_ms > now_ms and token not in known}
    if fresh:
        write_revoked(path, known | fresh)
    return len(fresh)


def bring_revoked(data: str, url: str) -> int | None:
    """The same for a Redis that was moved into; `None`: there is no log any more.

    Raises:
        LogAway: it does not answer.
    """
    with closing(Shared(url, 1)) as shared:
        return take_revoked(data, shared) if shared.standing() else None
