"""The only door to time and fresh ids."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from typing import Protocol

_VERSION_7 = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})-7")


class Clock(Protocol):
    """What the engine asks for time and ids; tests hand in their own."""

    def now_ms(self) -> int:
        """Wall-clock time, ms since 1970 UTC."""

    def new_id(self) -> str:
        """A fresh UUIDv7 (RFC 9562 §5.7), lower case, 36 characters."""


class SystemClock:
    """The machine's clock.

    Ids taken within one ms count upwards in `rand_a` (RFC 9562 §6.2 method 1), so that ids of one process
    sort by when they were made, also when the wall clock steps back.
    """

    def __init__(self) -> None:
        self._last_ms = 0
        self._head = ""
        self._sequence = 0
        self._entropy = ""
        self._at = 0

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def new_id(self) -> str:
        now = time.time_ns() // 1_000_000
        if now > self._last_ms:
            self._start_ms(now)
        else:
            self._sequence += 1
            if self._sequence > 0xFFF:
                self._start_ms(self._last_ms + 1)
        at = self._at
        if at == len(self._entropy):
            self._entropy = os.urandom(8192).hex()  # one system call for 1,024 ids
            at = 0
        self._at = at + 16
        entropy = self._entropy
        return f"{self._head}{self._sequence:03x}-8{entropy[at + 1 : at + 4]}-{entropy[at + 4 : at + 16]}"

    def go_on_after(self, ids: Iterable[str]) -> None:
        """Let new ids sort after these of an earlier process, even where the machine has woken up with an
        older time.
        """
        found = [match for match in map(_VERSION_7.match, ids) if match is not None]
        newest = max((int(match[1] + match[2], 16) for match in found), default=0)
        if newest >= self._last_ms:
            self._start_ms(newest + 1)

    def _start_ms(self, now: int) -> None:
        self._last_ms = now
        self._sequence = 0
        text = f"{now:012x}"
        self._head = f"{text[:8]}-{text[8:]}-7"
