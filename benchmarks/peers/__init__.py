"""Other programs that do a part of what Onda does, run beside it with the same load. One file each.

Each module has `NAME`, `prepare()` (get it, return its versions), `start(port, folder)` (its process) and
`target(port, size)` (how to subscribe and to publish events of so many bytes).
"""

from __future__ import annotations

ABSENT = {
    "Centrifugo": "not measured: its Go module (v6) is refused by the module proxy that was in reach",
    "Mercure": "not measured: its Go module is refused by the module proxy that was in reach",
}
"""Peers that could not be had, and why: a line in each table."""
