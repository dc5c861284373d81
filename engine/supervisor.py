"""Keeps one actor running: a crash costs the actor a rebuild from the log, never the process or another
actor.

After a crash the actor waits (exponential backoff with full jitter), forgets its state and rebuilds. One that
crashes more than `restarts_max` times within `restarts_window_s` is held down for that long: its commands are
answered `unavailable` at once. Errors of the log or the disk are not the actor's: they go through and end the
process.
"""

from __future__ import annotations

import logging
import random
import time
from collections import deque

import trio

from engine.actor import Actor
from engine.config import Config
from engine.errors import LogCorrupt, LogFailed, Unavailable
from engine.mailbox import StateLost
from engine.metrics import Metrics

BACKOFF_S = 0.02
BACKOFF_S_MAX = 5.0

logger = logging.getLogger("onda.supervisor")


async def supervise(actor: Actor, config: Config, metrics: Metrics) -> None:
    """Run an actor until cancelled.

    Raises:
        LogFailed, LogCorrupt: the log cannot go on, so neither can the process.
    """
    crashes: deque[float] = deque()
    while True:
        try:
            await actor.run()
        except (LogFailed, LogCorrupt):
            raise
        except StateLost as lost:
            actor.lose()
            if not lost.crash:
                continue
        except Exception:
            logger.exception("%s crashed", actor.stream)
            actor.lose()
        now = time.monotonic()
        crashes.append(now)
        while crashes[0] < now - config.restarts_window_s:
            crashes.popleft()
        metrics.restarts.inc()
        if len(crashes) > config.restarts_max:
            await _hold_down(actor, config)
            crashes.clear()
        else:
            await trio.sleep(random.uniform(0, min(BACKOFF_S_MAX, BACKOFF_S * 2 ** len(crashes))))


async def _hold_down(actor: Actor, config: Config) -> None:
    logger.error("%s keeps crashing and is held down for %g s", actor.stream, config.restarts_window_s)
    actor.refuse(lambda: Unavailable(f"{actor.stream} keeps failing and is held down for a while"))
    await trio.sleep(config.restarts_window_s)
    actor.accept()
