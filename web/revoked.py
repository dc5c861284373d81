"""Revoked tokens: a file of token ids that `onda token --revoke` adds to and a running server follows.

`DATA/revoked` has one line per token: its id, then when it would have ended (ms since 1970). Streams that
were opened with a revoked token are called back, so that they end at once. Where several nodes share a log,
the list is beside the log, and what stands in a node's file is added to it (`engine/cluster_redis.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from engine.revocations import read_revoked, write_revoked

if TYPE_CHECKING:  # redis-py takes its time to load
    from engine.cluster_redis import Cluster

POLL_S = 0.5
"""How often a server looks at the file; with the wake-up that follows, a stream ends well within 1 s."""


class Revoked:
    """The token ids that count no more. Without a file there are none."""

    def __init__(self, path: Path | None, cluster: Cluster | None = None) -> None:
        self._path = path
        self._cluster = cluster
        self._ids: set[str] = set()
        self._seen: tuple[int, int] | None = None
        self._watchers: dict[str, set[Callable[[], None]]] = {}
        if cluster is not None:
            cluster.heard = self.take
            self.take(cluster.revoked)
        self.load()

    def __contains__(self, token_id: str) -> bool:
        return token_id in self._ids

    def load(self) -> None:
        """Read the file if it changed, and call those who watch a token that is new in it."""
        if self._path is None:
            return
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_size)
            if seen == self._seen:
                return
            lines = self._path.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return
        self._seen = seen
        listed = dict(line.split()[:2] for line in lines if len(line.split()) > 1)
        if self._cluster is not None:
            self._cluster.keep({name: int(end) for name, end in listed.items() if end.isdigit()})
        self.take(line.split()[0] for line in lines if line.strip())

    def take(self, token_ids: Iterable[str]) -> None:
        """Let tokens count no more, and call those who watch one that is new."""
        new = set(token_ids) - self._ids
        self._ids |= new
        for token_id in new & self._watchers.keys():
            for call in list(self._watchers[token_id]):
                call()

    async def follow(self) -> None:
        """Look at the file again and again; runs until cancelled."""
        while True:
            await trio.sleep(POLL_S)
            self.load()

    def watch(self, token_id: str, call: Callable[[], None]) -> None:
        """Ask to be called when the token is revoked."""
        self._watchers.setdefault(token_id, set()).add(call)

    def unwatch(self, token_id: str, call: Callable[[], None]) -> None:
        """Take `watch` back; a second call has no effect."""
        calls = self._watchers.get(token_id, set())
        calls.discard(call)
        if not calls:
            self._watchers.pop(token_id, None)


def add_revoked(path: Path, token_id: str, expires_ms: int, now_ms: int) -> None:
    """Put a token on the list, durably, and drop those that have ended by themselves."""
    write_revoked(path, read_revoked(path, now_ms) | {token_id: expires_ms})
