"""The file of tokens that count no more: on each line an id, and when it would have ended (ms since 1970)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

FILE = "revoked"
"""Its name in the data folder."""
FOR_EVER = 2**53 - 1
"""For a line that does not say when; a number that Redis keeps as it is."""


def read_revoked(path: Path, now_ms: int) -> dict[str, int]:
    """Return those in a file that have not ended by themselves, and when they would."""
    if not path.exists():
        return {}
    found: dict[str, int] = {}
    for line in path.read_text(errors="replace").splitlines():
        token, *rest = line.split() or ("",)
        end_ms = min(int(rest[0]), FOR_EVER) if rest and rest[0].isdecimal() else FOR_EVER
        if token and end_ms > now_ms:
            found[token] = max(end_ms, found.get(token, 0))
    return found


def write_revoked(path: Path, tokens: Mapping[str, int]) -> None:
    """Make the file anew, durably."""
    fresh = path.with_suffix(".new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.writelines(f"{token} {end_ms}\n" for token, end_ms in tokens.items())
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
