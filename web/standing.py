"""Tells every open stream when no commands are taken for the moment, and when they are again.

The log refuses appends while Redis is away or the disk is full. Streams stay open, and say so by a ping
out of turn. Thousands are told a slice at a time, so that what is under way is not held up.
"""

from __future__ import annotations

import trio

from web.site import Site

LOOK_S = 0.25
SETTLED_S = 1.0
"""How long commands have to be taken again before that is told: a log that is refused once in a while (no
memory, too few replicas) is found out by trying, and would have its screens blink.
"""
SLICE = 256
"""Streams told between two checkpoints."""


async def keep_told(site: Site) -> None:
    """Look at the log every now and then, and tell what has changed; runs until cancelled."""
    back_s = 0.0
    while True:
        await trio.sleep(LOOK_S)
        writable = site.node.writable
        if not writable:
            back_s = trio.current_time() + SETTLED_S
        if writable != site.writable and (not writable or trio.current_time() >= back_s):
            site.writable = writable
            await _tell(site)


async def _tell(site: Site) -> None:
    told = list(site.endings)
    for start in range(0, len(told), SLICE):
        for ending in told[start : start + SLICE]:
            if ending in site.endings:
                ending.tell()
        await trio.lowlevel.checkpoint()
