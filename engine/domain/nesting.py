"""How deep free-form JSON may be nested.

Reading nested JSON takes stack, and how much there is depends on who reads. So what is written down must be
far from the edge: a log that cannot be read back is a server that does not start.
"""

from __future__ import annotations

from typing import Any

DEPTH_MAX = 64
"""Lists and objects inside of one another; a reader has room for more than ten times as many."""


def is_too_deep(value: Any) -> bool:
    """Return whether lists and objects stand more than `DEPTH_MAX` deep in each other. It needs no stack."""
    level: list[Any] = [[value]]
    for _ in range(DEPTH_MAX + 1):
        level = [
            inner for outer in level for inner in _inner(outer) if isinstance(inner, dict | list | tuple)
        ]
        if not level:
            return False
    return True


def _inner(outer: Any) -> Any:
    return outer.values() if isinstance(outer, dict) else outer
