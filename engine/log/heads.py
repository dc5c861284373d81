"""The last version of each stream that the log knows of: a net under the actors, which decide on versions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine.errors import Conflict
from engine.records import Entry

STREAMS_MAX = 1 << 18
"""Streams remembered at least, twice as many at most; a forgotten one is believed at its next append."""


class Heads:
    """Stream → last version, bounded: the streams that were longest without an append are forgotten.

    Args:
        complete: a stream that is not known has no version yet; otherwise anything is believed of it.
        streams_max: how many are remembered at least.
    """

    def __init__(self, *, complete: bool, streams_max: int = STREAMS_MAX) -> None:
        self.complete = complete
        self._streams_max = streams_max
        self._recent: dict[str, int] = {}
        self._older: dict[str, int] = {}

    def note(self, stream: str, version: int) -> None:
        """Take `version` as the stream's last one, whatever was known."""
        self._recent[stream] = version
        if len(self._recent) >= self._streams_max:
            self.complete = self.complete and not self._older
            self._older = self._recent
            self._recent = {}

    def get(self, stream: str) -> int | None:
        """Return a stream's last version, 0 when it has none, None when it is not known."""
        version = self._recent.get(stream)
        if version is None:
            version = self._older.get(stream, 0 if self.complete else None)
        return version

    def advance(self, entries: Sequence[Entry]) -> None:
        """Take over the versions of entries, all or none.

        Raises:
            Conflict: one does not follow its stream's last version.
        """
        if len(entries) == 1:
            stream, version = entries[0][:2]
            self._check(stream, version, self.get(stream))
            self.note(stream, version)
            return
        fresh: dict[str, int] = {}
        for stream, version, _, _ in entries:
            known = fresh.get(stream)
            self._check(stream, version, self.get(stream) if known is None else known)
            fresh[stream] = version
        for stream, version in fresh.items():
            self.note(stream, version)

    def take_back(self, entries: Iterable[Entry]) -> None:
        """Forget entries that were not appended after all; the earliest of a stream last."""
        for stream, version, _, _ in entries:
            self.note(stream, version - 1)

    def _check(self, stream: str, version: int, known: int | None) -> None:
        if version < 1 or (known is not None and version != known + 1):
            raise Conflict(f"{stream}: version {version} does not follow {known}")
