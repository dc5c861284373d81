"""Waiting for what another process does, where there is nothing to wait on but a look now and then."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

LOOK_EVERY_S = 0.01


async def wait_until(holds: Callable[[], bool], within_s: float = 10.0, what: str = "") -> None:
    """Look until `holds()`.

    Raises:
        AssertionError: it did not in time.
    """
    with trio.move_on_after(within_s):
        while not holds():
            await trio.sleep(LOOK_EVERY_S)
        return
    raise AssertionError(f"not within {within_s} s: {what or holds}")


async def wait_until_it_holds(
    holds: Callable[[], Awaitable[bool]], within_s: float = 10.0, what: str = ""
) -> None:
    """Look until `await holds()`.

    Raises:
        AssertionError: it did not in time.
    """
    with trio.move_on_after(within_s):
        while not await holds():
            await trio.sleep(LOOK_EVERY_S)
        return
    raise AssertionError(f"not within {within_s} s: {what or holds}")
