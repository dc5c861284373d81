"""What an actor of a shared log goes back to when its append does not happen: the last durable state.

The state in memory is changed in place before the append, so it is kept a second time, as bytes: the whole
now and then, and the events since. Going back needs nobody else, so an actor whose log is away still knows
what is durable.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from engine.codec import decode_state, decode_stored, domain_of, encode_state

EVENTS_MAX = 256
"""Events that are kept behind the bytes of a state, before these are made anew."""

logger = logging.getLogger("onda.actor")


class Undo:
    """The durable state of one stream."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._state: bytes | None = None
        self._version = 0
        self._bodies: list[bytes] = []

    def mark(self, state: Any, version: int) -> None:
        """Take `state` as the durable one."""
        self._bodies.clear()
        self._version = version
        try:
            self._state = encode_state(self._kind, state)
        except Exception:
            logger.exception("the rules made a state of a %s that cannot be written", self._kind)
            self._state = None

    def add(self, bodies: Sequence[bytes], state: Any, version: int) -> None:
        """Take note of durable events, given as their envelopes, that have led to `state`."""
        self._bodies.extend(bodies)
        if len(self._bodies) > EVENTS_MAX:
            self.mark(state, version)

    def restore(self) -> tuple[Any, int] | None:
        """Return the durable state, made anew, and its version; `None`: it has to be read from the log."""
        if self._state is None:
            return None
        state = decode_state(self._kind, self._state)
        evolve = domain_of(self._kind).evolve
        for body in self._bodies:
            evolve(state, decode_stored(self._kind, body))
        self.mark(state, self._version + len(self._bodies))
        return state, self._version
