"""A screen of the verifying clients: it checks each version as it comes, apart from the client's counting."""

from __future__ import annotations

from typing import Any

from web.client import Client


class Screen:
    """A followed stream.

    Args:
        client: what follows it.
        feed: `stores/s1` …
        fenced: its stream has fences (a party leaves the table): a cursor from before one is reset, rightly.
    """

    def __init__(self, client: Client, feed: str, *, fenced: bool = False) -> None:
        self.feed = feed
        self._fenced = fenced
        self._findings: list[str] = []
        self._version: int | None = None
        self.follower = client.follow(feed, on_event=self._on_event, on_snapshot=self._on_snapshot)

    def _on_snapshot(self, _state: dict[str, Any], reason: str | None) -> None:
        cursor = self.follower.cursor or ""
        version = int(cursor.rpartition("-")[2])
        if self._version is not None and version < self._version:
            self._findings.append(f"{self.feed}: a snapshot at {version} was shown after {self._version}")
        self._version = version
        if reason is not None and not (self._fenced and reason == "expired"):
            self._findings.append(f"{self.feed}: reset, {reason}")

    def _on_event(self, envelope: dict[str, Any]) -> None:
        if self._version is not None and envelope["version"] != self._version + 1:
            self._findings.append(f"{self.feed}: {envelope['version']} was shown after {self._version}")
        self._version = envelope["version"]

    def faults(self) -> list[str]:
        """What was seen that should not be: gaps, doubles, holes and repeats on the wire, resets."""
        counts = self.follower.statistics()
        wrong = {name: counts[name] for name in ("holes", "repeats") if counts[name]}
        return self._findings + ([f"{self.feed}: {wrong}"] if wrong else [])
