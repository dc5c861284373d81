"""What a client knows of one stream: snapshot + patches, with versions counted. Pure."""

from __future__ import annotations

from typing import Any

Entities = dict[str, dict[str, Any]]
"""`{collection: {id: entity}}`."""


class Hole(Exception):
    """An event came whose predecessors did not: what is known is behind, and has to be synced again."""


class Mirror:
    """A stream's state as its reader sees it.

    `version` counts the events of the stream; `None` until it is known (a cursor is opaque: when it does not
    end in a version, the first event tells).
    """

    def __init__(self, cursor: str | None = None) -> None:
        self.state: Entities = {}
        self.cursor = cursor
        self.version = version_in(cursor)

    def replace(self, cursor: str, state: Entities) -> None:
        """Take a snapshot: whatever was known before no longer counts."""
        self.state = state
        self.cursor = cursor
        self.version = version_in(cursor)

    def take(self, envelope: dict[str, Any]) -> bool:
        """Apply one event; return False when it was known already.

        Raises:
            Hole: events between the last one and this one are missing; nothing was changed.
        """
        version: int = envelope["version"]
        if self.version is not None:
            if version <= self.version:
                return False
            if version != self.version + 1:
                raise Hole(f"version {version} came after {self.version}")
        patch: dict[str, dict[str, Any]] = envelope.get("patch") or {}
        for collection, entities in patch.items():
            known = self.state.setdefault(collection, {})
            for key, entity in entities.items():
                if entity is None:
                    known.pop(key, None)
                else:
                    known[key] = entity
        self.version = version
        self.cursor = envelope["cursor"]
        return True

    def move(self, cursor: str) -> None:
        """Take a cursor that came without an event.

        Raises:
            Hole: it says that there were events which did not come.
        """
        version = version_in(cursor)
        if version is not None and self.version is not None and version > self.version:
            raise Hole(f"the cursor moved to version {version} after {self.version}")
        if version is None or self.version is None or version == self.version:
            self.cursor = cursor


def version_in(cursor: str | None) -> int | None:
    """Return the version that today's cursors end in, or None: then the first event has to tell."""
    digits = cursor.rpartition("-")[2] if cursor and "-" in cursor else ""
    return int(digits) if digits.isascii() and digits.isdigit() else None
